/* SPDX-License-Identifier: PostgreSQL */
/*
 * run: the errand of a daemon's child: take the job's lock, read the ledger, finish what is unfinished, retry what was
 * left over, and make the runs that are owed. It connects, works, logs what happened, and returns an exit status of status.h.
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

#endif
