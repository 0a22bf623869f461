/* SPDX-License-Identifier: PostgreSQL */
/*
 * batch: how many rows the next transaction takes, so that it lasts about as long as it should. Pure: the duration of
 * the last one in, the next size out.
 *
 * It cuts hard (at once to what would have fitted, at most to an eighth) and grows slowly (at most to the double), and a
 * batch that was not full says nothing about a larger one.
 */
#ifndef RM_BATCH_H
#define RM_BATCH_H

#include "moment.h"

struct batch {
    usec_t target; /* > 0 */
    int most;      /* > 0 */
    int size;      /* rows to take next: 1 to most */
};

struct batch batch_begin(usec_t target, int most);

/*
 * A batch of `rows` rows took `elapsed` from its sending to its commit. One that lost a wait for a lock is not told: it says
 * nothing of its rows.
 */
void batch_took(struct batch *, int rows, usec_t elapsed);

#endif
