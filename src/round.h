/* SPDX-License-Identifier: PostgreSQL */
/*
 * round: makes one run, from its frozen parameters to its outcome in the ledger. What happened is logged or printed here,
 * once. All functions return an exit status of status.h.
 */
#ifndef RM_ROUND_H
#define RM_ROUND_H

#include "books.h"

/*
 * Starts a run of `task` (taken over) and makes it. `due` MOMENT_NONE: a manual run, with `request` (jsonb or NULL). With
 * `settles`, settled_through moves to `due` in the statement that starts it. An occurrence that has its run already is
 * STATUS_DONE.
 */
struct round_start {
    usec_t due;
    const char *trigger;
    const char *request;
    bool settles;
};
int round_start(struct books *, struct task *task, const struct round_start *);

/* Takes an unfinished run up again, with its own parameters. */
int round_resume(struct books *, const struct ledger_run *);

/* Prints what a run of `task` would change, in a READ ONLY transaction. */
int round_preview(struct books *, struct task *task);

#endif
