/* SPDX-License-Identifier: PostgreSQL */
/*
 * schedule: a pure function from a schedule and an instant to the next occurrence.
 *
 * A schedule is a five-field cron line (names, ranges, lists, steps, `L` for the last day of the month), six fields
 * where the first is seconds, @hourly … @yearly, or "@every DURATION" (whole seconds, anchored at the Unix epoch).
 * Day-of-month and day-of-week combine as in crontab(5): when both are restricted, either suffices.
 *
 * Daylight saving as cron(8) promises it: a fixed time inside the gap runs once, at the instant of the transition; a
 * fixed time in the overlap runs once, on the first pass; a schedule whose hour or minute field contains `*`
 * (also "every 2nd") follows the clock through both passes. Equal instants are one occurrence.
 *
 * Nothing here reads a clock or the environment, and nothing leaks out of it: zones come from GLib's GTimeZone, the
 * only library here that knows them without touching TZ. This is the only file that knows GLib.
 */
#ifndef RM_SCHEDULE_H
#define RM_SCHEDULE_H

#include <stdbool.h>

#include "moment.h"

struct schedule; /* immutable once parsed */

enum occurrence_mark {
    OCCURRENCE_PLAIN,
    OCCURRENCE_GAP,     /* its local time does not exist: it runs at the instant of the transition */
    OCCURRENCE_OVERLAP, /* its local time happens twice: this is the first pass of a fixed time */
};

struct occurrence {
    usec_t at; /* a whole second */
    enum occurrence_mark mark;
};

/*
 * Parses `spec` for the IANA zone `zone` (NULL or "" is the host's, as /etc/localtime has it). Returns 0 and sets
 * *ret (the caller frees it), or -EINVAL with *ret_error set to one sentence that names the field and what is allowed
 * there (the caller frees it). A schedule that can never fire ("0 0 30 2 *") is an error, too.
 */
int schedule_parse(const char *spec, const char *zone, struct schedule **ret, char **ret_error);
void schedule_free(struct schedule *); /* NULL is fine */

/* The first occurrence strictly after `after`. Returns 0, or -ERANGE when there is none before the year 9999. */
int schedule_next(const struct schedule *, usec_t after, struct occurrence *ret);

/* Whether `at` is exactly an occurrence. */
bool schedule_has(const struct schedule *, usec_t at);

/* The schedule in its canonical form, which parses to an equal schedule; the caller frees it. */
char *schedule_print(const struct schedule *);

/* The name of the schedule's zone as --check shows it (for the host's: "Asia/Seoul (the host's)"); owned by it. */
const char *schedule_zone(const struct schedule *);

/*
 * The local time of `at` in the schedule's zone, with its abbreviation and offset: "Sun 2026-03-29 03:00:00 CEST
 * +02:00". The caller frees it.
 */
char *schedule_local(const struct schedule *, usec_t at);

/* Whether `zone` is an IANA zone that this host knows. */
bool schedule_zone_exists(const char *zone);

#endif
