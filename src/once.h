/* SPDX-License-Identifier: PostgreSQL */
/*
 * once: the admin tool's half of a run: --run-once and --abandon, on the same books, by the same code as the daemon's
 * children. What happened is printed or logged; exit statuses are of status.h. Call them in a process that caught its
 * signals (child_catch_signals()).
 */
#ifndef RM_ONCE_H
#define RM_ONCE_H

#include "child.h"
#include "configuration.h"

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
