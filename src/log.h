/* SPDX-License-Identifier: PostgreSQL */
/*
 * log: every line that the program says about its own doings.
 *
 * One line each to standard error; under systemd (JOURNAL_STREAM names our standard error) to the journal with the
 * fields ROUNDSMAN_JOB, ROUNDSMAN_OCCURRENCE and ROUNDSMAN_RUN instead. Outside of it the daemon's lines carry a UTC
 * time stamp, an admin command's lines only the program's name. Libraries below never log; they return messages.
 */
#ifndef RM_LOG_H
#define RM_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h> /* LOG_ERR … LOG_DEBUG, and nothing else of it */

#include "mem.h"
#include "moment.h"

/* `level`: the least severe priority that is written. `daemon`: lines carry a time stamp outside of the journal. */
void log_open(int level, bool daemon);

/*
 * What the following lines are about: a job (copied; NULL: none), its occurrence (MOMENT_NONE: none) and its run (0:
 * none). Set by whoever starts and ends a piece of work, so that no message needs to repeat it.
 */
void log_about(const char *job, usec_t due, int64_t run);

void log_say(int priority, const char *format, ...) PRINTF_LIKE(2, 3);

/* The same about another job, for the parent, which has them all. */
void log_job(int priority, const char *job, const char *format, ...) PRINTF_LIKE(3, 4);

#endif
