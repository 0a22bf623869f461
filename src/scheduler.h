/* SPDX-License-Identifier: PostgreSQL */
/*
 * scheduler: the daemon. Timers, signals, children, watchdog, reload, on one sd-event loop; the only file that knows
 * sd-event. It never opens a database connection: everything that does is a child that runs run_settle().
 */
#ifndef RM_SCHEDULER_H
#define RM_SCHEDULER_H

#include "configuration.h"

/* Blocks the signals that tell the daemon something: from the first instant on they wait for scheduler_run(). */
void scheduler_hold_signals(void);

/* Runs until SIGTERM or SIGINT. Takes over `configuration` (a reload replaces it). Returns an exit status. */
int scheduler_run(struct configuration *configuration);

#endif
