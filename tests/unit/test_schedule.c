/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_schedule: tables of occurrences around transitions and of refusals, properties under random schedules, and a slow
 * oracle that walks the C library's own local time step by step and knows nothing of masks, skipping or GLib.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
/* after the headers that it needs */
#include <cmocka.h>

#include "mem.h"
#include "schedule.h"

#define AUTO_SCHEDULE __attribute__((cleanup(drop_schedule))) struct schedule *

static void drop_schedule(struct schedule **schedule)
{
    schedule_free(*schedule);
}

static uint64_t random_state = 20261122;

static unsigned draw(unsigned below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)(random_state >> 11) % below;
}

static struct schedule *parse(const char *spec, const char *zone)
{
    struct schedule *schedule = NULL;
    AUTO_TEXT error = NULL;

    if (schedule_parse(spec, zone, &schedule, &error) != 0)
        fail_msg("\"%s\" in %s: %s", spec, zone, error);
    return schedule;
}

static usec_t moment(const char *text)
{
    usec_t ret = 0;

    if (moment_parse(text, &ret) != 0)
        fail_msg("the test is wrong: %s", text);
    return ret;
}

/* ---- Tables ---- */

#define GAP " gap"
#define OVERLAP " overlap"

static void occurrences_are_as_written_here(void **state)
{
    static const struct {
        const char *spec, *zone, *after;
        const char *local[8]; /* the occurrences after it: local time, abbreviation, offset, mark */
    } cases[] = {
        /* the fields */
        {"0 0 * * *",
         "Asia/Seoul",
         "2026-12-30T15:00:00Z",
         {"Fri 2027-01-01 00:00:00 KST +09:00", "Sat 2027-01-02 00:00:00 KST +09:00"}},
        {"0 0 * * *", "Asia/Seoul", "2026-12-31T14:59:59.999999Z", {"Fri 2027-01-01 00:00:00 KST +09:00"}},
        {"*/25 9-10,14 * * mon-fri",
         "Asia/Seoul",
         "2026-11-20T00:00:00Z",
         {"Fri 2026-11-20 09:25:00 KST +09:00", "Fri 2026-11-20 09:50:00 KST +09:00",
          "Fri 2026-11-20 10:00:00 KST +09:00", "Fri 2026-11-20 10:25:00 KST +09:00",
          "Fri 2026-11-20 10:50:00 KST +09:00", "Fri 2026-11-20 14:00:00 KST +09:00",
          "Fri 2026-11-20 14:25:00 KST +09:00", "Fri 2026-11-20 14:50:00 KST +09:00"}},
        {"20-50/15 30 9 * * *",
         "UTC",
         "2026-11-20T00:00:00Z",
         {"Fri 2026-11-20 09:30:20 UTC +00:00", "Fri 2026-11-20 09:30:35 UTC +00:00",
          "Fri 2026-11-20 09:30:50 UTC +00:00", "Sat 2026-11-21 09:30:20 UTC +00:00"}},
        {"0 12 L * *",
         "UTC",
         "2028-01-01T00:00:00Z",
         {"Mon 2028-01-31 12:00:00 UTC +00:00", "Tue 2028-02-29 12:00:00 UTC +00:00",
          "Fri 2028-03-31 12:00:00 UTC +00:00", "Sun 2028-04-30 12:00:00 UTC +00:00"}},
        {"0 12 15,l 2 *",
         "UTC",
         "2027-01-01T00:00:00Z",
         {"Mon 2027-02-15 12:00:00 UTC +00:00", "Sun 2027-02-28 12:00:00 UTC +00:00",
          "Tue 2028-02-15 12:00:00 UTC +00:00", "Tue 2028-02-29 12:00:00 UTC +00:00"}},
        {"0 0 31 * *",
         "UTC",
         "2026-01-31T00:00:00Z",
         {"Tue 2026-03-31 00:00:00 UTC +00:00", "Sun 2026-05-31 00:00:00 UTC +00:00"}},
        {"0 0 29 2 *",
         "UTC",
         "2096-01-01T00:00:00Z",
         {"Wed 2096-02-29 00:00:00 UTC +00:00", "Fri 2104-02-29 00:00:00 UTC +00:00"}},
        {"0 0 29 feb */7", /* a Sunday: once in 28 years, or in 40 around a century */
         "UTC",
         "2060-01-01T00:00:00Z",
         {"Sun 2060-02-29 00:00:00 UTC +00:00", "Sun 2088-02-29 00:00:00 UTC +00:00",
          "Sun 2128-02-29 00:00:00 UTC +00:00"}},
        /* crontab(5): both restricted, either suffices; a field that begins with a star is not restricted */
        {"0 0 13 * 5",
         "UTC",
         "2026-11-01T00:00:00Z",
         {"Fri 2026-11-06 00:00:00 UTC +00:00", "Fri 2026-11-13 00:00:00 UTC +00:00",
          "Fri 2026-11-20 00:00:00 UTC +00:00", "Fri 2026-11-27 00:00:00 UTC +00:00",
          "Fri 2026-12-04 00:00:00 UTC +00:00", "Fri 2026-12-11 00:00:00 UTC +00:00",
          "Sun 2026-12-13 00:00:00 UTC +00:00"}},
        {"0 0 */10 * 0",
         "UTC",
         "2026-11-01T00:00:00Z",
         {"Sun 2027-01-31 00:00:00 UTC +00:00", "Sun 2027-02-21 00:00:00 UTC +00:00",
          "Sun 2027-03-21 00:00:00 UTC +00:00", "Sun 2027-04-11 00:00:00 UTC +00:00"}},
        {"0 0 30 2 mon",
         "UTC",
         "2026-02-01T00:00:00Z",
         {"Mon 2026-02-02 00:00:00 UTC +00:00", "Mon 2026-02-09 00:00:00 UTC +00:00"}},
        {"0 0 * * sat-sun",
         "UTC",
         "2026-11-20T00:00:00Z",
         {"Sat 2026-11-21 00:00:00 UTC +00:00", "Sun 2026-11-22 00:00:00 UTC +00:00",
          "Sat 2026-11-28 00:00:00 UTC +00:00"}},
        {"0 0 * * 7", "UTC", "2026-11-20T00:00:00Z", {"Sun 2026-11-22 00:00:00 UTC +00:00"}},
        /* the names */
        {"@hourly",
         "Asia/Kolkata",
         "2026-11-20T00:00:00Z",
         {"Fri 2026-11-20 06:00:00 IST +05:30", "Fri 2026-11-20 07:00:00 IST +05:30"}},
        {"@daily", "Asia/Seoul", "2026-11-20T00:00:00Z", {"Sat 2026-11-21 00:00:00 KST +09:00"}},
        {"@midnight", "Asia/Seoul", "2026-11-20T00:00:00Z", {"Sat 2026-11-21 00:00:00 KST +09:00"}},
        {"@weekly", "Asia/Seoul", "2026-11-20T00:00:00Z", {"Sun 2026-11-22 00:00:00 KST +09:00"}},
        {"@monthly", "Asia/Seoul", "2026-11-20T00:00:00Z", {"Tue 2026-12-01 00:00:00 KST +09:00"}},
        {"@yearly", "Asia/Seoul", "2026-11-20T00:00:00Z", {"Fri 2027-01-01 00:00:00 KST +09:00"}},
        {" @Annually ", "Asia/Seoul", "2026-11-20T00:00:00Z", {"Fri 2027-01-01 00:00:00 KST +09:00"}},
        /* anchored at the epoch, whatever the zone does */
        {"@every 30m",
         "Asia/Kolkata",
         "2026-11-20T00:00:00Z",
         {"Fri 2026-11-20 06:00:00 IST +05:30", "Fri 2026-11-20 06:30:00 IST +05:30"}},
        {"@every 7h",
         "Europe/Berlin",
         "1970-01-01T00:00:00Z",
         {"Thu 1970-01-01 08:00:00 CET +01:00", "Thu 1970-01-01 15:00:00 CET +01:00"}},
        {"@every 7h",
         "UTC",
         "1969-12-31T12:00:00Z",
         {"Wed 1969-12-31 17:00:00 UTC +00:00", "Thu 1970-01-01 00:00:00 UTC +00:00"}},
        {"@every  30m\t",
         "Europe/Berlin",
         "2026-10-25T00:30:00Z",
         {"Sun 2026-10-25 02:00:00 CET +01:00", "Sun 2026-10-25 02:30:00 CET +01:00"}},
        /* Berlin, clock put forward 02:00 -> 03:00 */
        {"30 2 * * *",
         "Europe/Berlin",
         "2026-03-28T00:00:00Z",
         {"Sat 2026-03-28 02:30:00 CET +01:00", "Sun 2026-03-29 03:00:00 CEST +02:00" GAP,
          "Mon 2026-03-30 02:30:00 CEST +02:00"}},
        {"0,20,40 2 * * *",
         "Europe/Berlin",
         "2026-03-28T02:00:00Z",
         {"Sun 2026-03-29 03:00:00 CEST +02:00" GAP, "Mon 2026-03-30 02:00:00 CEST +02:00"}},
        {"0,30 2-3 * * *", /* 03:00 and the gap are equal instants */
         "Europe/Berlin",
         "2026-03-28T10:00:00Z",
         {"Sun 2026-03-29 03:00:00 CEST +02:00" GAP, "Sun 2026-03-29 03:30:00 CEST +02:00",
          "Mon 2026-03-30 02:00:00 CEST +02:00"}},
        {"0 3 * * *",
         "Europe/Berlin",
         "2026-03-28T10:00:00Z",
         {"Sun 2026-03-29 03:00:00 CEST +02:00", "Mon 2026-03-30 03:00:00 CEST +02:00"}},
        {"* 30 2 * * *", /* sixty fixed times, one instant */
         "Europe/Berlin",
         "2026-03-28T01:30:58Z",
         {"Sat 2026-03-28 02:30:59 CET +01:00", "Sun 2026-03-29 03:00:00 CEST +02:00" GAP,
          "Mon 2026-03-30 02:30:00 CEST +02:00"}},
        {"*/30 * * * *",
         "Europe/Berlin",
         "2026-03-29T00:00:00Z",
         {"Sun 2026-03-29 01:30:00 CET +01:00", "Sun 2026-03-29 03:00:00 CEST +02:00"}},
        {"*/30 2 * * *", /* follows the clock: there is no 02:00 on that day */
         "Europe/Berlin",
         "2026-03-28T01:00:00Z",
         {"Sat 2026-03-28 02:30:00 CET +01:00", "Mon 2026-03-30 02:00:00 CEST +02:00"}},
        {"30 */2 * * *",
         "Europe/Berlin",
         "2026-03-28T23:00:00Z",
         {"Sun 2026-03-29 00:30:00 CET +01:00", "Sun 2026-03-29 04:30:00 CEST +02:00"}},
        /* Berlin, clock put back 03:00 -> 02:00 */
        {"30 2 * * *",
         "Europe/Berlin",
         "2026-10-24T12:00:00Z",
         {"Sun 2026-10-25 02:30:00 CEST +02:00" OVERLAP, "Mon 2026-10-26 02:30:00 CET +01:00"}},
        {"0 2,3 * * *",
         "Europe/Berlin",
         "2026-10-24T12:00:00Z",
         {"Sun 2026-10-25 02:00:00 CEST +02:00" OVERLAP, "Sun 2026-10-25 03:00:00 CET +01:00",
          "Mon 2026-10-26 02:00:00 CET +01:00"}},
        {"30 2 * * *", /* from within the second pass */
         "Europe/Berlin",
         "2026-10-25T01:15:00Z",
         {"Mon 2026-10-26 02:30:00 CET +01:00"}},
        {"0,30 * * * *",
         "Europe/Berlin",
         "2026-10-24T23:45:00Z",
         {"Sun 2026-10-25 02:00:00 CEST +02:00", "Sun 2026-10-25 02:30:00 CEST +02:00",
          "Sun 2026-10-25 02:00:00 CET +01:00", "Sun 2026-10-25 02:30:00 CET +01:00",
          "Sun 2026-10-25 03:00:00 CET +01:00"}},
        {"*/40 2 * * *",
         "Europe/Berlin",
         "2026-10-24T12:00:00Z",
         {"Sun 2026-10-25 02:00:00 CEST +02:00", "Sun 2026-10-25 02:40:00 CEST +02:00",
          "Sun 2026-10-25 02:00:00 CET +01:00", "Sun 2026-10-25 02:40:00 CET +01:00",
          "Mon 2026-10-26 02:00:00 CET +01:00"}},
        /* New York */
        {"15 2 * * *",
         "America/New_York",
         "2026-03-07T12:00:00Z",
         {"Sun 2026-03-08 03:00:00 EDT -04:00" GAP, "Mon 2026-03-09 02:15:00 EDT -04:00"}},
        {"15 1 * * *",
         "America/New_York",
         "2026-10-31T12:00:00Z",
         {"Sun 2026-11-01 01:15:00 EDT -04:00" OVERLAP, "Mon 2026-11-02 01:15:00 EST -05:00"}},
        {"15 * * * *",
         "America/New_York",
         "2026-11-01T05:00:00Z",
         {"Sun 2026-11-01 01:15:00 EDT -04:00", "Sun 2026-11-01 01:15:00 EST -05:00",
          "Sun 2026-11-01 02:15:00 EST -05:00"}},
        /* Lord Howe, by half an hour: 02:00 -> 02:30, and 02:00 -> 01:30 */
        {"15 2 * * *",
         "Australia/Lord_Howe",
         "2026-10-03T00:00:00Z",
         {"Sun 2026-10-04 02:30:00 +11 +11:00" GAP, "Mon 2026-10-05 02:15:00 +11 +11:00"}},
        {"30 2 * * *",
         "Australia/Lord_Howe",
         "2026-10-03T00:00:00Z",
         {"Sun 2026-10-04 02:30:00 +11 +11:00", "Mon 2026-10-05 02:30:00 +11 +11:00"}},
        {"15,45 1 * * *",
         "Australia/Lord_Howe",
         "2026-04-04T00:00:00Z",
         {"Sun 2026-04-05 01:15:00 +11 +11:00", "Sun 2026-04-05 01:45:00 +11 +11:00" OVERLAP,
          "Mon 2026-04-06 01:15:00 +1030 +10:30"}},
        {"*/15 1 * * *",
         "Australia/Lord_Howe",
         "2026-04-04T14:10:00Z",
         {"Sun 2026-04-05 01:15:00 +11 +11:00", "Sun 2026-04-05 01:30:00 +11 +11:00",
          "Sun 2026-04-05 01:45:00 +11 +11:00", "Sun 2026-04-05 01:30:00 +1030 +10:30",
          "Sun 2026-04-05 01:45:00 +1030 +10:30", "Mon 2026-04-06 01:00:00 +1030 +10:30"}},
        /* Sao Paulo, at midnight: 00:00 -> 01:00, and 00:00 -> 23:00 of the day before */
        {"0 0 * * *",
         "America/Sao_Paulo",
         "2017-10-14T12:00:00Z",
         {"Sun 2017-10-15 01:00:00 -02 -02:00" GAP, "Mon 2017-10-16 00:00:00 -02 -02:00"}},
        {"30 0 15 10 *", "America/Sao_Paulo", "2017-01-01T00:00:00Z", {"Sun 2017-10-15 01:00:00 -02 -02:00" GAP}},
        {"30 23 * * *",
         "America/Sao_Paulo",
         "2018-02-17T12:00:00Z",
         {"Sat 2018-02-17 23:30:00 -02 -02:00" OVERLAP, "Sun 2018-02-18 23:30:00 -03 -03:00"}},
        {"0 0 * * *",
         "America/Sao_Paulo",
         "2018-02-17T12:00:00Z",
         {"Sun 2018-02-18 00:00:00 -03 -03:00", "Mon 2018-02-19 00:00:00 -03 -03:00"}},
        {"30 * 17 2 *",
         "America/Sao_Paulo",
         "2018-02-18T01:00:00Z",
         {"Sat 2018-02-17 23:30:00 -02 -02:00", "Sat 2018-02-17 23:30:00 -03 -03:00",
          "Sun 2019-02-17 00:30:00 -03 -03:00"}},
        /* Casablanca puts the clock back for Ramadan */
        {"30 2 * * *",
         "Africa/Casablanca",
         "2026-02-14T12:00:00Z",
         {"Sun 2026-02-15 02:30:00 +01 +01:00" OVERLAP, "Mon 2026-02-16 02:30:00 +00 +00:00"}},
        {"30 2 * * *",
         "Africa/Casablanca",
         "2026-03-21T12:00:00Z",
         {"Sun 2026-03-22 03:00:00 +01 +01:00" GAP, "Mon 2026-03-23 02:30:00 +01 +01:00"}},
        /* Seoul has no daylight saving since 1988 */
        {"30 2 * * *",
         "Asia/Seoul",
         "2026-03-28T12:00:00Z",
         {"Sun 2026-03-29 02:30:00 KST +09:00", "Mon 2026-03-30 02:30:00 KST +09:00"}},
        {"30 2 * * *",
         "Asia/Seoul",
         "1988-05-07T12:00:00Z",
         {"Sun 1988-05-08 03:00:00 KDT +10:00" GAP, "Mon 1988-05-09 02:30:00 KDT +10:00"}},
        /* Samoa left out 2011-12-30; Kwajalein lived 1969-09-30 twice, but for an hour */
        {"0 12 * * *",
         "Pacific/Apia",
         "2011-12-29T00:00:00Z",
         {"Thu 2011-12-29 12:00:00 -10 -10:00", "Sat 2011-12-31 00:00:00 +14 +14:00" GAP,
          "Sat 2011-12-31 12:00:00 +14 +14:00"}},
        {"0 */12 * * *",
         "Pacific/Apia",
         "2011-12-29T00:00:00Z",
         {"Thu 2011-12-29 00:00:00 -10 -10:00", "Thu 2011-12-29 12:00:00 -10 -10:00",
          "Sat 2011-12-31 00:00:00 +14 +14:00", "Sat 2011-12-31 12:00:00 +14 +14:00"}},
        {"0 12 30 12 *",
         "Pacific/Apia",
         "2011-01-01T00:00:00Z",
         {"Sat 2011-12-31 00:00:00 +14 +14:00" GAP, "Sun 2012-12-30 12:00:00 +14 +14:00"}},
        {"0 * 30 12 *", "Pacific/Apia", "2011-01-01T00:00:00Z", {"Sun 2012-12-30 00:00:00 +14 +14:00"}},
        {"0 12 * * *",
         "Pacific/Kwajalein",
         "1969-09-30T00:00:00Z",
         {"Tue 1969-09-30 12:00:00 +11 +11:00" OVERLAP, "Wed 1969-10-01 12:00:00 -12 -12:00"}},
        /* beyond the tables */
        {"30 2 * * *",
         "America/New_York",
         "2800-03-11T12:00:00Z",
         {"Sun 2800-03-12 03:00:00 EDT -04:00" GAP, "Mon 2800-03-13 02:30:00 EDT -04:00"}},
        {"30 2 * * *",
         "Europe/Berlin",
         "9998-03-28T12:00:00Z",
         {"Sun 9998-03-29 03:00:00 CEST +02:00" GAP, "Mon 9998-03-30 02:30:00 CEST +02:00"}},
    };
    static const char *const marks[] = {
        [OCCURRENCE_PLAIN] = "", [OCCURRENCE_GAP] = GAP, [OCCURRENCE_OVERLAP] = OVERLAP};

    (void)state;
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        AUTO_SCHEDULE schedule = parse(cases[i].spec, cases[i].zone);
        usec_t after = moment(cases[i].after);

        for (size_t n = 0; n < ELEMENTS(cases[i].local) && cases[i].local[n] != NULL; n++) {
            struct occurrence next;
            AUTO_TEXT local = NULL;
            AUTO_TEXT got = NULL;

            assert_int_equal(schedule_next(schedule, after, &next), 0);
            local = schedule_local(schedule, next.at);
            got = mem_print("%s%s", local, marks[next.mark]);
            if (strcmp(got, cases[i].local[n]) != 0)
                fail_msg("\"%s\" in %s, occurrence %zu after %s: %s, not %s", cases[i].spec, cases[i].zone, n + 1,
                         cases[i].after, got, cases[i].local[n]);
            assert_true(schedule_has(schedule, next.at));
            assert_false(schedule_has(schedule, next.at + 1));
            assert_false(schedule_has(schedule, next.at + 500000));
            after = next.at;
        }
    }
}

static void what_is_no_schedule_is_refused(void **state)
{
    static const struct {
        const char *spec, *zone, *error; /* the error contains this */
    } cases[] = {
        {"", "UTC", "five fields (minute hour day-of-month month day-of-week), or six with seconds first"},
        {"  \t ", "UTC", "this has 0"},
        {"* * * *", "UTC", "this has 4"},
        {"* * * * * * *", "UTC", "this has 7"},
        {"61 * * * *", "UTC", "minute 61 is out of range 0-59"},
        {"60 * * * * *", "UTC", "second 60 is out of range 0-59"},
        {"* 24 * * *", "UTC", "hour 24 is out of range 0-23"},
        {"* * 0 * *", "UTC", "day-of-month 0 is out of range 1-31"},
        {"* * 32 * *", "UTC", "day-of-month 32 is out of range 1-31"},
        {"* * * 0 *", "UTC", "month 0 is out of range 1-12"},
        {"* * * 13 *", "UTC", "month 13 is out of range 1-12"},
        {"* * * * 8", "UTC", "day-of-week 8 is out of range 0-7"},
        {"1-99 * * * *", "UTC", "minute 99 is out of range 0-59"},
        {"99999999999999999999 * * * *", "UTC", "minute 99999999999999999999 is out of range 0-59"},
        {"4294967296 * * * *", "UTC", "minute 4294967296 is out of range 0-59"},
        {"-5 * * * *", "UTC", "minute \"-5\" is not understood: 0-59"},
        {"+5 * * * *", "UTC", "minute \"+5\" is not understood"},
        {"5- * * * *", "UTC", "minute \"5-\" is not understood"},
        {"1-2-3 * * * *", "UTC", "minute \"1-2-3\" is not understood after \"1-2\""},
        {"*5 * * * *", "UTC", "minute \"*5\" is not understood after \"*\""},
        {"** * * * *", "UTC", "minute \"**\" is not understood after \"*\""},
        {"5x * * * *", "UTC", "minute \"5x\" is not understood after \"5\""},
        {"jan * * * *", "UTC", "minute \"jan\" is not understood"},
        {"L * * * *", "UTC", "minute \"L\" is not understood"},
        {"? * * * *", "UTC", "minute \"?\" is not understood"},
        {"* * LW * *", "UTC", "day-of-month \"LW\" is not understood: 1-31, L (the last day)"},
        {"* * L-3 * *", "UTC", "day-of-month \"L-3\" is not understood"},
        {"* * * foo *", "UTC", "month \"foo\" is not understood: 1-12, jan-dec"},
        {"* * * january *", "UTC", "month \"january\" is not understood"},
        {"* * * * mo", "UTC", "day-of-week \"mo\" is not understood: 0-7, sun-sat"},
        {"* * * * fri#2", "UTC", "day-of-week \"fri#2\" is not understood after \"fri\""},
        {", * * * *", "UTC", "minute has an empty element"},
        {"1,,2 * * * *", "UTC", "minute has an empty element"},
        {"* * 1, * *", "UTC", "day-of-month has an empty element"},
        {"22-2 * * * *", "UTC", "minute range 22-2 runs backwards; write 22-59,0-2"},
        {"* 22-2 * * *", "UTC", "hour range 22-2 runs backwards; write 22-23,0-2"},
        {"* * * nov-feb *", "UTC", "month range nov-feb runs backwards; write 11-12,1-2"},
        {"* * * * fri-mon", "UTC", "day-of-week range fri-mon runs backwards; write 5-7,0-1"},
        {"*/0 * * * *", "UTC", "minute step 0 is out of range 1-60"},
        {"*/90 * * * *", "UTC", "minute step 90 is out of range 1-60"},
        {"* */25 * * *", "UTC", "hour step 25 is out of range 1-24"},
        {"* * * * */8", "UTC", "day-of-week step 8 is out of range 1-7"},
        {"*/99999999999999999999 * * * *", "UTC", "minute step 99999999999999999999 is out of range"},
        {"*/ * * * *", "UTC", "minute \"*/\": a step is a number from 1 to 60"},
        {"*/x * * * *", "UTC", "minute \"*/x\": a step is a number"},
        {"*/-5 * * * *", "UTC", "minute \"*/-5\": a step is a number"},
        {"*/5/5 * * * *", "UTC", "minute \"*/5/5\": a step is a number"},
        {"5/10 * * * *", "UTC", "minute \"5/10\": a step needs a range or * before it, as in 5-59/10"},
        {"* * L/2 * *", "UTC", "day-of-month \"L/2\" is not understood"},
        {"0 0 30 2 *", "UTC", "would never run"},
        {"0 0 31 2,4,6,9,11 *", "UTC", "would never run"},
        {"* * 31 nov *", "UTC", "would never run"},
        {"@reboot", "UTC", "\"@reboot\" is not known: @hourly"},
        {"@", "UTC", "\"@\" is not known"},
        {"@daily 5", "UTC", "\"@daily 5\" is not known"},
        {"@dailyx", "UTC", "is not known"},
        {"@every", "UTC", "a duration of whole seconds is needed, at least 1s"},
        {"@every30m", "UTC", "is not known"},
        {"@every 0s", "UTC", "at least 1s"},
        {"@every 500ms", "UTC", "whole seconds"},
        {"@every 1500ms", "UTC", "whole seconds"},
        {"@every 30", "UTC", "@every \"30\""},
        {"@every 1h 30m", "UTC", "@every \"1h 30m\""},
        {"@every 40000d", "UTC", "@every 40000d is out of range"},
        {"* * * * *", "Europe/Bonn", "time zone \"Europe/Bonn\" is not known on this host"},
        {"* * * * *", "+09:00", "time zone \"+09:00\""},
        {"* * * * *", "09:00", "time zone \"09:00\""},
        {"* * * * *", "Z", "time zone \"Z\""},
        {"* * * * *", "EST5", "time zone \"EST5\""},
        {"* * * * *", "CET-1CEST,M3.5.0,M10.5.0/3", "time zone \"CET-1CEST"},
        {"* * * * *", ":Europe/Berlin", "time zone \":Europe/Berlin\""},
        {"* * * * *", "Europe", "time zone \"Europe\""},
        {"* * * * *", "Europe/", "time zone \"Europe/\""},
        {"* * * * *", "Europe//Berlin", "time zone"},
        {"* * * * *", "Europe/Berlin ", "time zone"},
        {"* * * * *", "Europe/../UTC", "time zone"},
        {"* * * * *", "../../../etc/passwd", "time zone"},
        {"* * * * *", "/usr/share/zoneinfo/UTC", "time zone"},
        {"* * * * *", "posix/UTC", "time zone"},
        {"* * * * *", "right/UTC", "time zone"},
        {"* * * * *", "posixrules", "time zone"},
        {"* * * * *", "localtime", "time zone"},
        {"* * * * *", "zone.tab", "time zone"},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        struct schedule *schedule = NULL;
        AUTO_TEXT error = NULL;

        if (schedule_parse(cases[i].spec, cases[i].zone, &schedule, &error) != -EINVAL || schedule != NULL)
            fail_msg("\"%s\" in \"%s\" is accepted", cases[i].spec, cases[i].zone);
        if (error == NULL || strstr(error, cases[i].error) == NULL || strchr(error, '\n') != NULL)
            fail_msg("\"%s\" in \"%s\" gives \"%s\", which lacks \"%s\"", cases[i].spec, cases[i].zone, error,
                     cases[i].error);
        assert_int_equal(schedule_parse(cases[i].spec, cases[i].zone, &schedule, NULL), -EINVAL);
    }
}

static void schedules_have_one_canonical_form(void **state)
{
    static const struct {
        const char *spec, *canonical;
    } cases[] = {
        {"* * * * *", "* * * * *"},
        {"  0\t0  * * 7 ", "0 0 * * 0"},
        {"0 0 * * sun", "0 0 * * 0"},
        {"00 007 * JAN-Mar,12 MON-fri", "0 7 * 1-3,12 1-5"},
        {"0 0 0 * * *", "0 0 * * *"},
        {"*/60 0 0 * * *", "0 0 * * *"},
        {"*/15 0 0 * * *", "0-45/15 0 0 * * *"},
        {"0,30 0 1,2,3,5,7 * *", "0,30 0 1-3,5,7 * *"},
        {"* * * * * *", "* * * * * *"},
        {"0-59 * * 1-12 *", "0-59 * * * *"}, /* 0-59 is fixed times, * follows the clock */
        {"59,1,30 0 L,1 * *", "1,30,59 0 1,L * *"},
        {"5,10-20/5,21 */24 1-31 * 0-6", "5-20/5,21 */24 1-31 * 0-6"},
        {"7,*/20 3,*/12 */2,l */3 *", "*/20,7 */12,3 */2,L 1-10/3 *"},
        {"*,5 * * * *", "* * * * *"},
        {"0 0 * * fri-sun", "0 0 * * 0,5,6"},
        {"0 0 * * 0-7", "0 0 * * 0-6"},
        {"0 0 * * */7", "0 0 * * */7"},
        {"@hourly", "0 * * * *"},
        {"@weekly", "0 0 * * 0"},
        {"@annually", "0 0 1 1 *"},
        {"@every 60s", "@every 1m"},
        {"@EVERY 5400s", "@every 90m"},
        {"@every 36525d", "@every 36525d"},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        AUTO_SCHEDULE schedule = parse(cases[i].spec, "UTC");
        AUTO_SCHEDULE again = parse(cases[i].canonical, "UTC");
        AUTO_TEXT printed = schedule_print(schedule);
        AUTO_TEXT reprinted = schedule_print(again);

        assert_string_equal(printed, cases[i].canonical);
        assert_string_equal(reprinted, cases[i].canonical);
    }
}

static void there_is_an_end(void **state)
{
    static const char *const specs[] = {"* * * * * *", "0 0 * * *", "@every 1s", "0 0 29 2 *"};
    struct occurrence next = {.at = -1};

    (void)state;
    for (size_t i = 0; i < ELEMENTS(specs); i++) {
        AUTO_SCHEDULE schedule = parse(specs[i], "America/New_York");

        assert_int_equal(schedule_next(schedule, moment("9998-12-31T23:59:59Z"), &next), -ERANGE);
        assert_int_equal(schedule_next(schedule, INT64_MAX, &next), -ERANGE);
        assert_true(next.at == -1);
        assert_false(schedule_has(schedule, INT64_MAX));
        assert_false(schedule_has(schedule, MOMENT_NONE));
        assert_int_equal(schedule_next(schedule, MOMENT_NONE, &next), 0);
        assert_true(next.at < moment("0000-01-01T00:00:00Z"));
        next.at = -1;
    }
    {
        AUTO_SCHEDULE schedule =
            parse("*/5 2 25-31 3 */7", "Europe/Berlin"); /* always in the gap, and follows the clock */

        assert_int_equal(schedule_next(schedule, moment("9900-01-01T00:00:00Z"), &next), -ERANGE);
    }
}

static void local_time_is_shown(void **state)
{
    AUTO_SCHEDULE berlin = parse("@daily", "Europe/Berlin");
    AUTO_SCHEDULE monrovia = parse("@daily", "Africa/Monrovia");
    static const struct {
        const char *moment, *text;
    } cases[] = {
        {"2026-03-29T00:59:59Z", "Sun 2026-03-29 01:59:59 CET +01:00"},
        {"2026-03-29T01:00:00Z", "Sun 2026-03-29 03:00:00 CEST +02:00"},
        {"2026-03-29T01:00:00.25Z", "Sun 2026-03-29 03:00:00 CEST +02:00"},
        {"1800-01-01T00:00:00Z", "Wed 1800-01-01 00:53:28 LMT +00:53:28"},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        AUTO_TEXT text = schedule_local(berlin, moment(cases[i].moment));

        assert_string_equal(text, cases[i].text);
    }
    {
        AUTO_TEXT none = schedule_local(berlin, MOMENT_NONE);
        AUTO_TEXT far = schedule_local(berlin, INT64_MAX);
        AUTO_TEXT west = schedule_local(monrovia, moment("1960-01-01T00:00:00Z"));

        assert_string_equal(none, "none");
        assert_string_equal(far, "+294247-01-10T04:00:54.775807Z");
        assert_string_equal(west, "Thu 1959-12-31 23:15:30 MMT -00:44:30");
    }
}

/* ---- Zones ---- */

static void zones_are_known_by_name(void **state)
{
    static const char *const known[] = {
        "UTC",        "Etc/UTC", "Etc/GMT+9", "Europe/Berlin",         "America/Argentina/Buenos_Aires",
        "Asia/Seoul", "EST5EDT", "GB-Eire",   "America/Port-au-Prince"};

    (void)state;
    for (size_t i = 0; i < ELEMENTS(known); i++) {
        AUTO_SCHEDULE schedule = parse("@daily", known[i]);

        assert_true(schedule_zone_exists(known[i]));
        assert_string_equal(schedule_zone(schedule), known[i]);
    }
    assert_false(schedule_zone_exists(NULL));
    assert_false(schedule_zone_exists(""));
    assert_false(schedule_zone_exists("+09:00"));
    assert_false(schedule_zone_exists("Mars/Olympus_Mons"));
}

/* The host's own zone is what the C library uses without TZ; its name is the machine's affair. */
static void the_default_is_the_hosts_zone(void **state)
{
    AUTO_SCHEDULE unnamed = parse("@daily", NULL);
    AUTO_SCHEDULE empty = parse("@daily", "");
    AUTO_TEXT local = schedule_local(unnamed, moment("2026-07-01T00:00:00Z"));
    AUTO_TEXT name = mem_copy(schedule_zone(unnamed));
    time_t second = (time_t)(moment("2026-07-01T00:00:00Z") / USEC_PER_SEC);
    char expected[64];
    struct tm tm;

    (void)state;
    unsetenv("TZ");
    tzset();
    strftime(expected, sizeof(expected), "%a %Y-%m-%d %H:%M:%S %Z", localtime_r(&second, &tm));
    assert_memory_equal(local, expected, strlen(expected));
    assert_string_equal(schedule_zone(empty), name);
    assert_non_null(strstr(name, " (the host's)"));
    *strstr(name, " (the host's)") = '\0';
    assert_true(schedule_zone_exists(name));
}

static void the_environment_neither_matters_nor_changes(void **state)
{
    usec_t after = moment("2026-11-20T00:00:00Z");
    AUTO_SCHEDULE before = parse("@daily", NULL);
    struct occurrence first, second;

    (void)state;
    setenv("TZ", "Asia/Tokyo", 1);
    setenv("TZDIR", "/nonexistent", 1);
    {
        AUTO_SCHEDULE schedule = parse("0 0 * * *", "Europe/Berlin");
        AUTO_SCHEDULE host = parse("@daily", NULL);
        AUTO_TEXT local = NULL;

        assert_int_equal(schedule_next(schedule, after, &first), 0);
        local = schedule_local(schedule, first.at);
        assert_string_equal(local, "Sat 2026-11-21 00:00:00 CET +01:00");
        assert_int_equal(schedule_next(before, after, &first), 0);
        assert_int_equal(schedule_next(host, after, &second), 0);
        assert_true(first.at == second.at);
        assert_string_equal(schedule_zone(before), schedule_zone(host));
    }
    assert_string_equal(getenv("TZ"), "Asia/Tokyo");
    unsetenv("TZDIR");
    unsetenv("TZ");
}

/* How small a share of the random cases is drawn: valgrind takes fifty times as long for each. */
static int share(void)
{
    return getenv("ROUNDSMAN_WRAPPER") != NULL ? 10 : 1;
}

/* GLib's reading of every zone against the C library's, over more than its tables. */
static void local_time_is_the_c_librarys(void **state)
{
    static const char *const zones[] = {
        "Europe/Berlin",     "America/New_York",   "Australia/Lord_Howe",  "Asia/Seoul",   "America/Sao_Paulo",
        "Africa/Casablanca", "Pacific/Apia",       "America/Nuuk",         "Asia/Gaza",    "Europe/Dublin",
        "Antarctica/Troll",  "Asia/Kathmandu",     "Pacific/Chatham",      "Africa/Cairo", "America/Santiago",
        "America/St_Johns",  "Asia/Jerusalem",     "Asia/Tehran",          "Etc/GMT+12",   "UTC",
        "Africa/El_Aaiun",   "Pacific/Kiritimati", "America/Scoresbysund",
    };
    const int64_t low = INT64_C(-2000000000), high = INT64_C(250000000000); /* 1906 to 9892 */

    (void)state;
    for (size_t i = 0; i < ELEMENTS(zones); i++) {
        AUTO_SCHEDULE schedule = parse("@daily", zones[i]);

        setenv("TZ", zones[i], 1);
        tzset();
        for (int n = 0; n < 600 / share(); n++) {
            time_t second =
                low + (int64_t)draw(INT_MAX) * (n % 2 == 0 ? 4 : (high - low) / INT_MAX) + (int64_t)draw(100);
            char expected[64], offset[16];
            AUTO_TEXT local = schedule_local(schedule, second * USEC_PER_SEC);
            AUTO_TEXT wanted = NULL;
            struct tm tm;

            if (strcmp(zones[i], "Europe/Dublin") == 0 && second > INT64_C(2114380800))
                continue; /* what schedule.c says of it */
            localtime_r(&second, &tm);
            strftime(expected, sizeof(expected), "%a %Y-%m-%d %H:%M:%S %Z", &tm);
            strftime(offset, sizeof(offset), "%z", &tm);
            wanted = mem_print("%s %.3s:%s", expected, offset, offset + 3);
            if (strncmp(local, wanted, strlen(wanted)) != 0)
                fail_msg("%s at %lld: %s, not %s", zones[i], (long long)second, local, wanted);
        }
    }
    unsetenv("TZ");
}

/* ---- The oracle: every step of the C library's local time, and the text of the fields read anew each time ---- */

struct oracle {
    char text[6][64]; /* seconds first */
    bool allowed[6][62];
};

static const struct {
    int min, max;
} ranges[] = {{0, 59}, {0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 7}};

static void allow(struct oracle *oracle, int part)
{
    AUTO_TEXT copy = mem_copy(oracle->text[part]);
    char *rest = copy, *element;

    while ((element = strsep(&rest, ",")) != NULL) {
        int from = ranges[part].min, to = ranges[part].max, step = 1;

        if (element[0] == '*') {
            sscanf(element, "*/%d", &step);
        } else if (sscanf(element, "%d-%d/%d", &from, &to, &step) < 2) {
            sscanf(element, "%d", &from);
            to = from;
        }
        for (; from <= to; from += step)
            oracle->allowed[part][from] = true;
    }
}

static void consult(struct oracle *oracle, const char *spec)
{
    char(*text)[64] = oracle->text;

    if (sscanf(spec, "%63s %63s %63s %63s %63s %63s", text[0], text[1], text[2], text[3], text[4], text[5]) == 5) {
        strcpy(text[0], "0");
        sscanf(spec, "%63s %63s %63s %63s %63s", text[1], text[2], text[3], text[4], text[5]);
    }
    for (int part = 0; part < 6; part++)
        allow(oracle, part);
}

static bool oracle_matches(const struct oracle *oracle, int64_t local)
{
    const bool(*allowed)[62] = oracle->allowed;
    time_t second = local;
    struct tm tm;
    bool by_month, by_week;

    gmtime_r(&second, &tm);
    if (!allowed[0][tm.tm_sec] || !allowed[1][tm.tm_min] || !allowed[2][tm.tm_hour] || !allowed[4][tm.tm_mon + 1])
        return false;
    by_month = allowed[3][tm.tm_mday];
    by_week = allowed[5][tm.tm_wday] || (tm.tm_wday == 0 && allowed[5][7]);
    return oracle->text[3][0] == '*' || oracle->text[5][0] == '*' ? by_month && by_week : by_month || by_week;
}

/* Compares all occurrences from `middle` - `reach` to `middle` + `reach`, walking by `step` seconds. */
static void compare_with_oracle(const char *spec, const char *zone, usec_t middle, int64_t reach, int step)
{
    AUTO_SCHEDULE schedule = parse(spec, zone);
    const int64_t lead = step == 1 ? 7200 : 90000; /* walked ahead, to know what the clock has shown already */
    struct oracle oracle = {0};
    int64_t from = middle / USEC_PER_SEC - reach, to = from + 2 * reach, previous = INT64_MAX, lowest;
    size_t slots = (size_t)((2 * reach + 4 * 90000) / step);
    bool *shown = mem_alloc(slots);
    usec_t after = from * USEC_PER_SEC;
    bool wild;

    consult(&oracle, spec);
    wild = strchr(oracle.text[1], '*') != NULL || strchr(oracle.text[2], '*') != NULL;
    lowest = from - 2 * 90000; /* no offset is longer than a day */
    for (int64_t at = from - lead; at < to; at += step) {
        time_t second = at;
        struct tm tm;
        int64_t local;
        bool due = false;

        localtime_r(&second, &tm);
        local = at + tm.tm_gmtoff;
        if (wild) {
            due = oracle_matches(&oracle, local);
        } else {
            bool *slot = shown + (local - lowest) / step;

            due = !*slot && oracle_matches(&oracle, local);
            *slot = true;
            for (int64_t skipped = previous; skipped < local - step;) /* the gap, when the clock was put forward */
                if (oracle_matches(&oracle, skipped += step))
                    due = true;
            previous = local;
        }
        if (due && at > from) {
            struct occurrence next;

            if (schedule_next(schedule, after, &next) != 0 || next.at != at * USEC_PER_SEC) {
                char a[MOMENT_TEXT_MAX], b[MOMENT_TEXT_MAX], c[MOMENT_TEXT_MAX];

                fail_msg("\"%s\" in %s after %s: %s, but the oracle says %s", spec, zone, moment_format(after, a),
                         moment_format(next.at, b), moment_format(at * USEC_PER_SEC, c));
            }
            after = next.at;
        }
    }
    {
        struct occurrence next;

        if (schedule_next(schedule, after, &next) == 0 && next.at < to * USEC_PER_SEC)
            fail_msg("\"%s\" in %s has an occurrence that the oracle lacks", spec, zone);
    }
    free(shown);
}

static void occurrences_are_the_oracles(void **state)
{
    static const struct {
        const char *zone, *transition;
    } places[] = {
        {"Europe/Berlin", "2026-03-29T01:00:00Z"},       {"Europe/Berlin", "2026-10-25T01:00:00Z"},
        {"America/New_York", "2026-03-08T07:00:00Z"},    {"America/New_York", "2026-11-01T06:00:00Z"},
        {"Australia/Lord_Howe", "2026-10-03T15:30:00Z"}, {"Australia/Lord_Howe", "2026-04-04T15:00:00Z"},
        {"Asia/Seoul", "2026-10-25T01:00:00Z"},          {"Asia/Seoul", "1988-10-08T17:00:00Z"},
        {"America/Sao_Paulo", "2017-10-15T03:00:00Z"},   {"America/Sao_Paulo", "2018-02-18T02:00:00Z"},
        {"Africa/Casablanca", "2026-02-15T02:00:00Z"},   {"Africa/Casablanca", "2026-03-22T02:00:00Z"},
        {"Pacific/Apia", "2011-12-30T10:00:00Z"},        {"Pacific/Kwajalein", "1969-09-30T13:00:00Z"},
        {"Antarctica/Troll", "2026-03-29T01:00:00Z"},    {"Antarctica/Troll", "2026-10-25T01:00:00Z"},
        {"America/Nuuk", "2026-03-29T01:00:00Z"},        {"Asia/Gaza", "2026-10-24T23:00:00Z"},
        {"Europe/Berlin", "2999-12-31T23:00:00Z"},       {"America/New_York", "2850-11-06T06:00:00Z"},
    };
    static const char *const by_minute[] = {
        "* * * * *",          "*/7 * * * *",
        "0 * * * *",          "30 */2 * * *",
        "*/20 2 * * *",       "0 0 * * *",
        "30 2 * * *",         "0,15,30,45 1-3 * * *",
        "59 23 * * *",        "5-50/9 0-3,22,23 * * *",
        "0-59 2 * * *",       "0-59 0-23 * * *",
        "0,30 0,23 * * 0",    "10 1 */2 * */3",
        "20 2 1,15,30 * 0,6", "15 */1 30 12 *",
        "0 12 30 9,12 *",     "*/60 2 * * *",
        "30 */24 * * *",      "45 23,1 * 2,3,10,11 6-7",
    };
    static const char *const by_second[] = {
        "*/17 * * * * *",        "* 30 2 * * *",      "30 59 1 * * *",
        "15,45 0-59 0-23 * * *", "1 0 0,1,2,3 * * *", "59 59 23 * * 6,0",
    };

    (void)state;
    for (size_t p = 0; p < ELEMENTS(places); p++) {
        usec_t middle = moment(places[p].transition);

        setenv("TZ", places[p].zone, 1);
        tzset();
        for (size_t i = 0; i < ELEMENTS(by_minute); i++)
            compare_with_oracle(by_minute[i], places[p].zone, middle, 2 * 86400, 60);
        for (size_t i = 0; i < ELEMENTS(by_second) && p < 12; i++)
            compare_with_oracle(by_second[i], places[p].zone, middle, 2 * 3600, 1);
    }
    unsetenv("TZ");
}

/* ---- Properties of random schedules ---- */

static void draw_field(struct buf *buf, unsigned part)
{
    int min = ranges[part].min, size = ranges[part].max - min + 1;

    for (unsigned elements = 1 + (draw(3) == 0 ? draw(4) : 0); elements > 0; elements--) {
        int from = min + (int)draw((unsigned)size), to = min + (int)draw((unsigned)size);

        switch (draw(6)) {
        case 0:
        case 1:
            buf_add(buf, "*");
            break;
        case 2:
            buf_print(buf, "*/%d", 1 + (int)draw((unsigned)(part == 5 ? 7 : size)));
            break;
        case 3:
            buf_print(buf, "%d-%d", from < to ? from : to, from < to ? to : from);
            if (draw(2) == 0)
                buf_print(buf, "/%d", 1 + (int)draw(7));
            break;
        default:
            if (part == 3 && draw(4) == 0)
                buf_add(buf, "L");
            else
                buf_print(buf, "%d", from);
        }
        buf_add(buf, elements > 1 ? "," : " ");
    }
}

static char *draw_spec(void)
{
    struct buf buf = {0};

    if (draw(20) == 0)
        return mem_print("@every %u%c", 1 + draw(200), "smhd"[draw(4)]);
    for (unsigned part = draw(4) == 0 ? 0 : 1; part < ELEMENTS(ranges); part++)
        draw_field(&buf, part);
    return buf_take(&buf);
}

static void random_schedules_keep_the_laws(void **state)
{
    static const char *const zones[] = {
        "Europe/Berlin",     "America/New_York",  "Australia/Lord_Howe", "Asia/Seoul",
        "America/Sao_Paulo", "Africa/Casablanca", "Pacific/Apia",        "UTC",
    };
    int parsed = 0;

    (void)state;
    for (int i = 0; i < 3000 / share(); i++) {
        const char *zone = zones[draw(ELEMENTS(zones))];
        AUTO_TEXT spec = draw_spec();
        AUTO_SCHEDULE schedule = NULL;
        AUTO_SCHEDULE again = NULL;
        AUTO_TEXT printed = NULL;
        AUTO_TEXT reprinted = NULL;
        AUTO_TEXT error = NULL;
        usec_t after = (usec_t)draw(INT_MAX) * 2 * USEC_PER_SEC + draw(1000000); /* 1970 to 2106 */

        if (schedule_parse(spec, zone, &schedule, &error) != 0) {
            if (strstr(error, "would never run") == NULL)
                fail_msg("\"%s\" is refused: %s", spec, error);
            continue;
        }
        parsed++;
        printed = schedule_print(schedule);
        again = parse(printed, zone);
        reprinted = schedule_print(again);
        assert_string_equal(printed, reprinted);
        for (int n = 0; n < 4; n++) {
            struct occurrence next, same;
            usec_t between;

            if (schedule_next(schedule, after, &next) != 0)
                fail_msg("\"%s\" in %s has no occurrence after %lld", spec, zone, (long long)after);
            assert_true(next.at > after);
            assert_true(next.at % USEC_PER_SEC == 0);
            assert_true(schedule_has(schedule, next.at));
            between = after + (usec_t)(((uint64_t)draw(INT_MAX) << 20 | draw(1 << 20)) % (uint64_t)(next.at - after));
            assert_int_equal(schedule_next(schedule, between, &same), 0);
            if (same.at != next.at || same.mark != next.mark)
                fail_msg("\"%s\" in %s after %lld and after %lld differ", spec, zone, (long long)after,
                         (long long)between);
            assert_true(between == after || !schedule_has(schedule, between));
            assert_int_equal(schedule_next(again, after, &same), 0);
            if (same.at != next.at || same.mark != next.mark)
                fail_msg("\"%s\" and \"%s\" in %s after %lld differ", spec, printed, zone, (long long)after);
            after = next.at;
        }
    }
    assert_true(parsed > 2500 / share());
}

/* Whatever is typed is refused with a sentence, or means something that can be printed and read back. */
static void garbage_is_survived(void **state)
{
    static const char alphabet[] = "0123456789*/-,Ll@ sunjanevery?#x\t.";
    int parsed = 0;

    (void)state;
    for (int i = 0; i < 20000 / share(); i++) {
        AUTO_TEXT spec = draw_spec();
        AUTO_SCHEDULE schedule = NULL;
        AUTO_TEXT error = NULL;

        for (unsigned changes = 1 + draw(3); changes > 0 && spec[0] != '\0'; changes--)
            spec[draw((unsigned)strlen(spec))] = alphabet[draw(sizeof(alphabet) - 1)];
        if (schedule_parse(spec, "UTC", &schedule, &error) == 0) {
            AUTO_TEXT printed = schedule_print(schedule);
            AUTO_SCHEDULE again = parse(printed, "UTC");
            AUTO_TEXT reprinted = schedule_print(again);

            assert_string_equal(printed, reprinted);
            assert_null(error);
            parsed++;
        } else {
            assert_non_null(error);
            assert_null(schedule);
        }
    }
    assert_true(parsed > 1000 / share() && parsed < 19000 / share());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(occurrences_are_as_written_here),
        cmocka_unit_test(what_is_no_schedule_is_refused),
        cmocka_unit_test(schedules_have_one_canonical_form),
        cmocka_unit_test(there_is_an_end),
        cmocka_unit_test(local_time_is_shown),
        cmocka_unit_test(zones_are_known_by_name),
        cmocka_unit_test(the_default_is_the_hosts_zone),
        cmocka_unit_test(the_environment_neither_matters_nor_changes),
        cmocka_unit_test(local_time_is_the_c_librarys),
        cmocka_unit_test(occurrences_are_the_oracles),
        cmocka_unit_test(random_schedules_keep_the_laws),
        cmocka_unit_test(garbage_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
