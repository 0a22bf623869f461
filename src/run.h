/* SPDX-License-Identifier: PostgreSQL */
/*
 * run: settle a job's books: take its lock, read the ledger, finish what is unfinished, retry what was left over, and
 * make the runs that are owed. The daemon's children and --run-once are the same code.
 *
 * Every function here connects, works, logs what happened, and returns an exit status of status.h. Call them in a
 * process that caught its signals (child_catch_signals()).
 */
#ifndef RM_RUN_H
#define RM_RUN_H

#include "child.h"
#include "configuration.h"

/* What the daemon sends a child for. */
struct errand {
    const struct configuration *configuration;
    const struct job *job;
    usec_t due;  /* the occurrence that the timer fired for; MOMENT_NONE at start-up, reload and retries of old ones */
    usec_t until; /* what is owed ends here: later occurrences have not fired yet (jitter), and have a child of their own */
    bool apply;  /* the first child since start-up or reload: an edited schedule, zone or enabled takes effect */
};

/*
 * Settles the job's books up to now. When another process has the job's lock it polls for it as a standby, and then
 * usually finds nothing to do. A disabled job's books are only applied. Argument: a struct errand.
 */
int run_settle(const void *errand, struct reporter *);

/* What the operator asked --run-once for. */
struct request {
    usec_t due;               /* --due, or MOMENT_NONE */
    const char *const *only;  /* --only, NULL-terminated; NULL: all rows */
    const struct overrides *set; /* --set: what the job given with this request was overridden with */
    bool dry_run;
};

/* --run-once: the first of these that applies: finish, settle, extra run; status 75 at once when the job is busy. */
int run_once(const struct configuration *, const struct job *, const struct request *, struct reporter *);

/* --abandon: gives up the unfinished run `run` (0: the only one there is). */
int run_abandon(const struct configuration *, const char *job, int64_t run);

#endif
