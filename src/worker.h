/* SPDX-License-Identifier: PostgreSQL */
/*
 * worker: a job of the daemon, with its agenda and the one child that may be at work on it.
 *
 * Whatever happens to the child (a record, its end, a limit) is written into the worker here and logged; what follows,
 * and when, the scheduler reads out of it. Knows no event loop and opens no database connection. A child works on the
 * copy of the configuration that fork made, so nothing here outlives a reload but the job's name.
 */
#ifndef RM_WORKER_H
#define RM_WORKER_H

#include <stdbool.h>
#include <sys/types.h>

#include "agenda.h"
#include "child.h"
#include "configuration.h"
#include "mem.h"

#ifndef WORKER_GRACE /* from SIGTERM to SIGKILL; tests make it shorter */
#define WORKER_GRACE (CHILD_GRACE * USEC_PER_SEC)
#endif

struct worker {
    char *name;
    const struct job *job; /* NULL: no longer configured; to be dropped when the child is gone */
    struct agenda agenda;

    pid_t pid; /* 0: no child, and all that follows is meaningless but limit */
    int pipe;
    usec_t due, max_runtime;
    usec_t limit;      /* by the monotonic clock: worker_limit() then; MOMENT_NONE */
    bool current;      /* it was sent with the current configuration */
    bool asked;        /* it has got SIGTERM */
    bool recalled;     /* that was not for a fault of its own */
    bool standby;      /* it polls for the lock */
    struct record run; /* the last RECORD_STARTED or RECORD_PROGRESS; run 0: none at work */
};

void worker_init(struct worker *, const char *name);
void worker_free(struct worker *); /* what it holds, not itself; there is no child */

/*
 * At start-up and after each reload: `job` is what the configuration has for the name now, NULL when it has nothing; the
 * job of before must still exist. A child that is in the way of it is recalled.
 */
void worker_configure(struct worker *, const struct job *, usec_t offset);

/* Sends a child. Returns whether there is one; when there is not, the agenda has the next attempt. */
bool worker_send(struct worker *, const struct configuration *);

/* Takes the records there are. Returns false when the child has closed its end. */
bool worker_read(struct worker *);

/* Asks the child to stop (SIGTERM), for a reason that is not a fault of its own. */
void worker_recall(struct worker *);

/* The limit was reached: asks the child to stop when max_runtime is over, kills it when the grace period is. */
void worker_limit(struct worker *);

/* The child ended; `wait_status` as waitpid(2) has it. Closes the pipe after its last records. */
void worker_ended(struct worker *, int wait_status);

/* Adds "; NAME running (run 12, 40 %)" or the like; nothing for a job that waits for its time. */
void worker_describe(const struct worker *, usec_t now, struct buf *text);

/* The time of day for today's instants, the whole of it for others. Returns a part of `text`. */
const char *worker_clock(usec_t at, usec_t now, char text[static MOMENT_TEXT_MAX]);

#endif
