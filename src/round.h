/* SPDX-License-Identifier: PostgreSQL */
/*
 * round: makes one run, from its frozen parameters to its outcome in the ledger. What happened is logged or printed here,
 * once. All functions return an exit status of status.h.
 */
#ifndef RM_ROUND_H
#define RM_ROUND_H

#include "books.h"

/*
 * Whether a run of `task` can be made now: the tables are fit for it, and each key of --only is one (otherwise STATUS_USAGE).
 * Sets the task's key. It comes before round_start() and round_preview(), so that nothing is announced that cannot be begun.
 */
int round_verify(struct books *, struct task *);

/*
 * Starts a run of `task` and makes it. `due` MOMENT_NONE: a manual run, with `request` (jsonb or NULL). With
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

/* Takes an unfinished run up again, with its own parameters. One that cannot be is failed, and the ledger has the reason. */
int round_resume(struct books *, const struct ledger_run *);

/* Prints what a run of `task` would change, in a READ ONLY transaction; or how far the run is that would be resumed. */
int round_preview(struct books *, struct task *task);
int round_preview_resume(struct books *, const struct ledger_run *);

#endif
