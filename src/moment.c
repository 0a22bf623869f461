/* SPDX-License-Identifier: PostgreSQL */
/*
 * moment: instants, durations and calendar days, by arithmetic alone.
 *
 * The C library's calendar functions (timegm, strptime, strftime) are left out on purpose: they know the locale and the
 * process's zone, and accept more than RFC 3339. The calendar is the usual one with years that begin in March, so that
 * the leap day is the last day of its year; an era is the 400 years (146097 days) after which it repeats.
 *
 * Errors: -EINVAL and -ERANGE, with the result untouched. Never logs, allocates, or looks at the environment.
 */
#include "moment.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DURATION_MAX (INT64_C(36525) * USEC_PER_DAY)

static const struct unit {
    const char *name;
    usec_t length;
} units[] = {
    {"d", USEC_PER_DAY}, {"h", USEC_PER_HOUR}, {"m", USEC_PER_MINUTE}, {"s", USEC_PER_SEC}, {"ms", USEC_PER_MSEC},
};

#define UNITS (sizeof(units) / sizeof(*units))

static usec_t read_clock(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return now.tv_sec * USEC_PER_SEC + now.tv_nsec / 1000;
}

usec_t moment_now(void)
{
    return read_clock(CLOCK_REALTIME);
}

usec_t moment_monotonic(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

struct civil civil_from_day(int64_t day)
{
    int64_t shifted = day + 719468; /* days since 0000-03-01 */
    int64_t era = floor_div(shifted, 146097);
    int64_t of_era = shifted - era * 146097;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int month = (int)((5 * of_year + 2) / 153); /* March is 0 */

    return (struct civil){
        .year = year + era * 400 + (month >= 10),
        .month = month < 10 ? month + 3 : month - 9,
        .day = (int)of_year - (153 * month + 2) / 5 + 1,
    };
}

int64_t civil_to_day(int64_t year, int month, int day)
{
    int64_t shifted = year - (month <= 2);
    int64_t era = floor_div(shifted, 400);
    int64_t of_era = shifted - era * 400;
    int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

int civil_month_days(int64_t year, int month)
{
    if (month == 2)
        return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28;
    return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

/* Reads exactly `digits` digits, whose value must be within low and high. */
static bool read_number(const char **text, int digits, int low, int high, int *ret)
{
    int value = 0;

    for (; digits > 0; digits--, (*text)++) {
        if (**text < '0' || **text > '9')
            return false;
        value = value * 10 + (**text - '0');
    }
    *ret = value;
    return value >= low && value <= high;
}

static bool read_char(const char **text, const char *allowed)
{
    if (**text == '\0' || strchr(allowed, **text) == NULL)
        return false;
    (*text)++;
    return true;
}

static bool read_fraction(const char **text, usec_t *ret)
{
    usec_t scale = USEC_PER_SEC / 10;
    const char *start;

    *ret = 0;
    if (!read_char(text, "."))
        return true;
    for (start = *text; **text >= '0' && **text <= '9'; (*text)++, scale /= 10)
        *ret += scale * (**text - '0');
    return *text > start;
}

static bool read_offset(const char **text, usec_t *ret)
{
    int hours, minutes;
    bool west = **text == '-';

    *ret = 0;
    if (read_char(text, "Zz"))
        return true;
    if (!read_char(text, "+-") || !read_number(text, 2, 0, 23, &hours) || !read_char(text, ":") ||
        !read_number(text, 2, 0, 59, &minutes))
        return false;
    *ret = (west ? -1 : 1) * (hours * USEC_PER_HOUR + minutes * USEC_PER_MINUTE);
    return true;
}

int moment_parse(const char *text, usec_t *ret)
{
    int year, month, day, hour, minute, second;
    usec_t fraction, offset, moment;

    if (!read_number(&text, 4, 0, 9999, &year) || !read_char(&text, "-") || !read_number(&text, 2, 1, 12, &month) ||
        !read_char(&text, "-") || !read_number(&text, 2, 1, civil_month_days(year, month), &day) ||
        !read_char(&text, "Tt ") || !read_number(&text, 2, 0, 23, &hour) || !read_char(&text, ":") ||
        !read_number(&text, 2, 0, 59, &minute) || !read_char(&text, ":") || !read_number(&text, 2, 0, 60, &second) ||
        !read_fraction(&text, &fraction) || !read_offset(&text, &offset) || *text != '\0')
        return -EINVAL;

    moment = civil_to_day(year, month, day) * USEC_PER_DAY + hour * USEC_PER_HOUR + minute * USEC_PER_MINUTE +
             second * USEC_PER_SEC - offset;
    if (second == 60 && (moment % USEC_PER_DAY != 0 || civil_from_day(floor_div(moment, USEC_PER_DAY)).day != 1))
        return -EINVAL;
    *ret = moment + fraction;
    return 0;
}

char *moment_format(usec_t moment, char text[static MOMENT_TEXT_MAX])
{
    int64_t day = floor_div(moment, USEC_PER_DAY), second, fraction;
    struct civil civil = civil_from_day(day);
    int length;

    if (moment == MOMENT_NONE)
        return strcpy(text, "none");
    moment %= USEC_PER_DAY; /* not minus day * USEC_PER_DAY, which overflows for the very first day */
    if (moment < 0)
        moment += USEC_PER_DAY;
    second = moment / USEC_PER_SEC;
    fraction = moment % USEC_PER_SEC;
    length = snprintf(text, MOMENT_TEXT_MAX, civil.year < 0 || civil.year > 9999 ? "%+05lld" : "%04lld",
                      (long long)civil.year);
    length += snprintf(text + length, MOMENT_TEXT_MAX - (size_t)length, "-%02d-%02dT%02d:%02d:%02d", civil.month,
                       civil.day, (int)(second / 3600), (int)(second / 60 % 60), (int)(second % 60));
    if (fraction != 0) {
        length += snprintf(text + length, MOMENT_TEXT_MAX - (size_t)length, ".%06d", (int)fraction);
        while (text[length - 1] == '0')
            length--;
    }
    strcpy(text + length, "Z");
    return text;
}

int duration_parse(const char *text, usec_t *ret)
{
    const char *start = text;
    int64_t number = 0;

    for (; *text >= '0' && *text <= '9'; text++)
        if (number <= DURATION_MAX) /* beyond it, more digits change nothing */
            number = number * 10 + (*text - '0');
    for (size_t i = 0; text > start && i < UNITS; i++)
        if (strcmp(text, units[i].name) == 0) {
            if (number > DURATION_MAX / units[i].length)
                return -ERANGE;
            *ret = number * units[i].length;
            return 0;
        }
    return -EINVAL;
}

char *duration_format(usec_t duration, char text[static MOMENT_TEXT_MAX])
{
    int64_t rest = duration % USEC_PER_MSEC;
    const struct unit *unit = units;

    /* To whole milliseconds first, away from zero at the half; stepwise, for nothing may overflow at the extremes. */
    duration -= rest;
    if (rest >= USEC_PER_MSEC / 2 && duration <= INT64_MAX - USEC_PER_MSEC)
        duration += USEC_PER_MSEC;
    else if (rest <= -USEC_PER_MSEC / 2 && duration >= INT64_MIN + USEC_PER_MSEC)
        duration -= USEC_PER_MSEC;
    if (duration == 0)
        return strcpy(text, "0s");
    while (duration % unit->length != 0)
        unit++;
    snprintf(text, MOMENT_TEXT_MAX, "%lld%s", (long long)(duration / unit->length), unit->name);
    return text;
}

char *duration_tell(usec_t duration, char text[static MOMENT_TEXT_MAX])
{
    const char *sign = duration / USEC_PER_MSEC < 0 ? "-" : "";
    long long ms = duration / USEC_PER_MSEC < 0 ? -(duration / USEC_PER_MSEC) : duration / USEC_PER_MSEC;
    long long seconds = ms / 1000;

    if (ms < 1000)
        snprintf(text, MOMENT_TEXT_MAX, "%s%lldms", sign, ms);
    else if (seconds < 60)
        snprintf(text, MOMENT_TEXT_MAX, "%s%lld.%llds", sign, seconds, ms % 1000 / 100);
    else if (seconds < 3600)
        snprintf(text, MOMENT_TEXT_MAX, "%s%lldm%02llds", sign, seconds / 60, seconds % 60);
    else
        snprintf(text, MOMENT_TEXT_MAX, "%s%lldh%02lldm", sign, seconds / 3600, seconds / 60 % 60);
    return text;
}
