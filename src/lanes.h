/* SPDX-License-Identifier: PostgreSQL */
/*
 * lanes: drives a run's lanes, each on a session of its own, from one poll loop: the engine says what to send, the loop
 * sends it and hands the answers back. Nothing here knows what is sent.
 */
#ifndef RM_LANES_H
#define RM_LANES_H

#include <signal.h>

#include "work.h"

struct lanes_options {
    struct db_options session;          /* of each lane; its commit and plan flags are the engine's */
    struct db *control;                 /* holds the job's lock: when it dies, the lanes stop */
    const volatile sig_atomic_t *stop;  /* true: let what was sent commit, and send nothing new */
    int (*watch)(struct work *, void *argument); /* often: may set work->held. 0, or -EIO: the control session is dead */
    void (*progress)(const struct work *, void *argument); /* at most four times a second */
    void *argument;
};

/*
 * Runs until every lane is at its range's end, `stop` is true and nothing is in flight, or the work ended otherwise
 * (work->end: fenced, or failed with work->error; a lost connection is a failure). work->lanes have their ranges and cursors
 * as the ledger had them, and are kept up to date.
 */
void lanes_run(struct work *, const struct lanes_options *);

bool lanes_finished(const struct work *); /* every lane is at its range's end */

#endif
