/* SPDX-License-Identifier: PostgreSQL */
/*
 * owed: the occurrences between what the books have settled and now: which are made up for, and making them. What
 * catch_up lets go is recorded in the ledger. Errors are logged; statuses are of status.h.
 */
#ifndef RM_OWED_H
#define RM_OWED_H

#include "round.h"

struct owed {
    usec_t too_old_from, too_old_through; /* before catch_up_max_age */
    int64_t too_old;
    usec_t first, before_last, last; /* MOMENT_NONE: there is none */
    int64_t count;
};

/* What the schedule has after settled_through, up to and with `until`. */
struct owed owed_find(const struct books *, usec_t until);

/* Records what catch_up does not make up for; `on_time` is the occurrence that a timer fired for. 0 or a negative errno. */
int owed_skip(struct books *, const struct owed *, usec_t on_time);

/* Makes the runs that are owed up to `until`, oldest first, after owed_skip(). Returns an exit status. */
int owed_settle(struct books *, usec_t until, usec_t on_time);

/* Whether settled_through is no later than the database's clock; otherwise (logged) nothing may be settled. 0 or -ETIME. */
int owed_verify(const struct books *);

/* The worse of two statuses of one errand: a failure before an interruption before leftovers. */
int owed_worse(int a, int b);

#endif
