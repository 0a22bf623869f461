/* SPDX-License-Identifier: PostgreSQL */
/*
 * child: a process of our own for one piece of work, and the records it sends up a pipe.
 *
 * libpq does not survive fork, so the parent never connects, and whoever connects is a child. A child starts with
 * signals, handlers and descriptors as a fresh process has them: signal mask empty, SIGTERM and SIGINT set `child_stop`,
 * everything else default; descriptors other than 0, 1, 2 and its pipe closed; parent-death signal SIGTERM set and the
 * parent checked after that (prctl(2)).
 */
#ifndef RM_CHILD_H
#define RM_CHILD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "moment.h"

enum record_type {
    RECORD_STANDBY,  /* another process holds the job's lock; this one polls for it */
    RECORD_APPLIED,  /* the ledger has the configured schedule, zone and enabled */
    RECORD_STARTED,  /* a run was started or taken up again: run, due, rows_total */
    RECORD_PROGRESS, /* at most a few a second: run, due, rows_done, rows_total, batch_time, held */
    RECORD_ENDED,    /* run, due, state, rows_done, rows_skipped, leftovers */
    RECORD_RETRY,    /* leftovers wait: at */
};

enum run_state { RUN_RUNNING, RUN_DONE, RUN_PARTIAL, RUN_FAILED, RUN_INTERRUPTED, RUN_ABANDONED };

/* One fixed size, below PIPE_BUF: a write is whole or not at all. Fields that a type does not name are 0. */
struct record {
    enum record_type type;
    enum run_state state;
    int64_t run;
    usec_t due; /* MOMENT_NONE: a manual run */
    int64_t rows_done, rows_skipped, rows_total; /* rows_total: an estimate; -1 when unknown */
    int64_t leftovers;
    usec_t batch_time; /* of the last batch, send to commit */
    usec_t at;
    char held[160]; /* PROGRESS: why the run holds back; "" */
};

/* Where a run tells what it does: up the pipe in a child, to the terminal for --run-once. */
struct reporter {
    void (*report)(struct reporter *, const struct record *);
};

/*
 * 0, until SIGTERM, SIGINT or SIGALRM came: then that signal. Finish the current batch, mark the run interrupted, and end.
 */
extern volatile sig_atomic_t child_stop;

/* How long a process that was asked to stop for its own fault may take before it is ended, in seconds. */
#define CHILD_GRACE 30

/*
 * Installs the handlers that set child_stop (no SA_RESTART), and unblocks those signals. Children do it themselves. Whoever
 * sets an alarm(2) for max_runtime is ended, with STATUS_INTERRUPTED, when CHILD_GRACE is over after it, too.
 */
void child_catch_signals(void);

/* Sleeps; a signal that sets child_stop ends it early, also one that came before. */
void child_rest(usec_t duration);

/*
 * Forks. In the child runs `work(argument, reporter)` and exits with what it returns; never returns there. In the
 * parent returns the pid and sets *ret_pipe to the non-blocking, close-on-exec reading end (the caller closes it), or
 * returns a negative errno.
 */
pid_t child_start(int (*work)(const void *argument, struct reporter *), const void *argument, int *ret_pipe);

/* Takes the next record: 1 and *ret, 0 when there is none now, -EPIPE when the child has closed its end. */
int child_read(int pipe, struct record *ret);

/* "exited with status 1: the run failed; …", "was killed by signal 9 (Killed)". The caller frees it. */
char *child_sentence(int wait_status);

#endif
