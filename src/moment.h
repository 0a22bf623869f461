/* SPDX-License-Identifier: PostgreSQL */
/*
 * moment: instants and durations as values, and how people write them.
 *
 * An instant is microseconds since 1970-01-01T00:00:00Z (PostgreSQL's resolution), a duration is microseconds.
 * Nothing here reads a clock but moment_now().
 */
#ifndef RM_MOMENT_H
#define RM_MOMENT_H

#include <stdint.h>

typedef int64_t usec_t;

#define USEC_PER_MSEC INT64_C(1000)
#define USEC_PER_SEC INT64_C(1000000)
#define USEC_PER_MINUTE (60 * USEC_PER_SEC)
#define USEC_PER_HOUR (60 * USEC_PER_MINUTE)
#define USEC_PER_DAY (24 * USEC_PER_HOUR)
#define MOMENT_NONE INT64_MIN /* no instant */
#define MOMENT_TEXT_MAX 40    /* bytes that moment_format(), duration_format() and duration_tell() need at most */

usec_t moment_now(void);       /* CLOCK_REALTIME */
usec_t moment_monotonic(void); /* CLOCK_MONOTONIC, for measuring */

/*
 * Parses RFC 3339 ("2026-11-22T07:00:00Z", "2026-11-22 16:00:00.5+09:00"; a blank or a lower-case t or z as in
 * RFC 3339 section 5.6; an offset is required). Digits beyond microseconds are cut off. A leap second (23:59:60 UTC, at
 * the end of a month) is the second after it, as POSIX time has it. Returns 0 and sets *ret, or -EINVAL with *ret
 * untouched.
 */
int moment_parse(const char *text, usec_t *ret);

/*
 * "2026-11-22T07:00:00Z", with a fraction only where there is one; "none" for MOMENT_NONE. Years outside 0000-9999 get
 * a sign, and moment_parse() does not read them back. Returns `text`.
 */
char *moment_format(usec_t moment, char text[static MOMENT_TEXT_MAX]);

/*
 * Parses "250ms", "30s", "30m", "12h", "90d" (one number, one unit; "0s" is allowed, a sign is not).
 * Returns 0 and sets *ret, -EINVAL (no duration), or -ERANGE (over 100 years, which are 36525 days).
 */
int duration_parse(const char *text, usec_t *ret);

/*
 * The shortest form that duration_parse() reads back to the same value; what is no whole number of milliseconds is
 * rounded to one. Returns `text`.
 */
char *duration_format(usec_t duration, char text[static MOMENT_TEXT_MAX]);

/*
 * How long something took or is apart, for people: "40ms", "2.3s", "1m05s", "3h10m", "-2.3s"; what is finer is cut off.
 * What was configured is shown by duration_format(), as it was written. Returns `text`.
 */
char *duration_tell(usec_t duration, char text[static MOMENT_TEXT_MAX]);

/* A day of the proleptic Gregorian calendar; `day` numbers below count from 1970-01-01. Any year that usec_t reaches. */
struct civil {
    int64_t year;
    int month, day; /* from 1 */
};

struct civil civil_from_day(int64_t day);
int64_t civil_to_day(int64_t year, int month, int day);
int civil_month_days(int64_t year, int month);

#endif
