/* SPDX-License-Identifier: PostgreSQL */
/* report: --status, --history and --next: what the ledger and the schedules say, for people and for programs. */
#ifndef RM_REPORT_H
#define RM_REPORT_H

#include "configuration.h"

/* Exit status of a Nagios plugin: 0 all well, 1 warning (leftovers, late), 2 critical (failed, overdue, no server). */
int report_status(const struct configuration *, bool json);

/* What --status prints where it never got as far: that it is UNKNOWN, and the first line of why. */
void report_unknown(const char *why, bool json);

/*
 * The last `count` runs, newest first, of `job` (NULL: of all jobs), which the file or the ledger knows. Returns STATUS_DONE,
 * STATUS_USAGE when neither does, or STATUS_FAILED.
 */
int report_history(const struct configuration *, const char *job, int count, bool json);

/* The next `count` occurrences after `from`, of `job` (NULL: of all enabled jobs, in the order of time). No database. */
int report_next(const struct configuration *, const struct job *job, int count, usec_t from);

#endif
