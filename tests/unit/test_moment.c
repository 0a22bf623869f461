/* SPDX-License-Identifier: PostgreSQL */
/*
 * test_moment: instants and durations as text, the calendar, and that both survive a round trip.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
/* after the headers that it needs */
#include <cmocka.h>

#include "mem.h"
#include "moment.h"

#define UNTOUCHED INT64_C(-4242)

static uint64_t random_state = 20261122;

static uint64_t draw(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void moments_are_read(void **state)
{
    static const struct {
        const char *text;
        usec_t moment;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01t00:00:00z", 0},
        {"1970-01-01 00:00:00Z", 0},
        {"1969-12-31T23:59:59.999999Z", -1},
        {"2026-11-22T07:00:00Z", INT64_C(1795330800000000)},
        {"2026-11-22 16:00:00.5+09:00", INT64_C(1795330800500000)},
        {"2026-11-22T07:00:00.000001Z", INT64_C(1795330800000001)},
        {"2026-11-22T07:00:00.0000019Z", INT64_C(1795330800000001)},
        {"2026-11-22T07:00:00.12345678901234567890Z", INT64_C(1795330800123456)},
        {"2026-11-21T22:30:00-08:30", INT64_C(1795330800000000)},
        {"2026-11-22T07:00:00-00:00", INT64_C(1795330800000000)},
        {"2026-11-23T06:59:00+23:59", INT64_C(1795330800000000)},
        {"2000-02-29T00:00:00Z", INT64_C(951782400000000)},
        {"2024-02-29T23:59:59Z", INT64_C(1709251199000000)},
        {"2016-12-31T23:59:60Z", INT64_C(1483228800000000)},
        {"2016-12-31T23:59:60.5Z", INT64_C(1483228800500000)},
        {"2017-01-01T08:59:60+09:00", INT64_C(1483228800000000)},
        {"0000-01-01T00:00:00Z", INT64_C(-62167219200000000)},
        {"9999-12-31T23:59:59.999999Z", INT64_C(253402300799999999)},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        usec_t moment = UNTOUCHED;

        if (moment_parse(cases[i].text, &moment) != 0 || moment != cases[i].moment)
            fail_msg("\"%s\" is read as %lld", cases[i].text, (long long)moment);
    }
}

static void what_is_no_moment_is_refused(void **state)
{
    static const char *const cases[] = {
        "",
        "now",
        "2026-11-22",
        "2026-11-22T07:00:00",
        "2026-11-22T07:00Z",
        "2026-11-22T07:00:00 Z",
        " 2026-11-22T07:00:00Z",
        "2026-11-22T07:00:00Z ",
        "2026-11-22T07:00:00ZZ",
        "2026-11-22_07:00:00Z",
        "2026-11-22T07:00:00.Z",
        "2026-11-22T07:00:00,5Z",
        "2026-11-22T07:00:00+0900",
        "2026-11-22T07:00:00+09",
        "2026-11-22T07:00:00+9:00",
        "2026-11-22T07:00:00+24:00",
        "2026-11-22T07:00:00+09:60",
        "2026-11-22T07:00:00+09:00:00",
        "2026-11-22T24:00:00Z",
        "2026-11-22T07:60:00Z",
        "2026-11-22T07:00:61Z",
        "2026-11-22T07:00:60Z",      /* no leap second there */
        "2026-11-21T23:59:60Z",      /* nor at the end of a day within a month */
        "2026-11-30T23:59:60+09:00", /* nor by local time */
        "2026-13-22T07:00:00Z",
        "2026-00-22T07:00:00Z",
        "2026-11-31T07:00:00Z",
        "2026-11-00T07:00:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "26-11-22T07:00:00Z",
        "12026-11-22T07:00:00Z",
        "-2026-11-22T07:00:00Z",
        "+2026-11-22T07:00:00Z",
        "2026-1-22T07:00:00Z",
        "2026-11-22T7:00:00Z",
        "2026-11-22T07:00:00\xc2\xa0Z",
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        usec_t moment = UNTOUCHED;

        if (moment_parse(cases[i], &moment) != -EINVAL || moment != UNTOUCHED)
            fail_msg("\"%s\" is read as %lld", cases[i], (long long)moment);
    }
}

static void moments_are_written(void **state)
{
    static const struct {
        usec_t moment;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00Z"},
        {-1, "1969-12-31T23:59:59.999999Z"},
        {1, "1970-01-01T00:00:00.000001Z"},
        {500000, "1970-01-01T00:00:00.5Z"},
        {INT64_C(1709164800000000), "2024-02-29T00:00:00Z"},
        {INT64_C(-62167219200000000), "0000-01-01T00:00:00Z"},
        {INT64_C(-62167219200000001), "-0001-12-31T23:59:59.999999Z"},
        {INT64_C(253402300799999999), "9999-12-31T23:59:59.999999Z"},
        {INT64_C(253402300800000000), "+10000-01-01T00:00:00Z"},
        {INT64_MAX, "+294247-01-10T04:00:54.775807Z"},
        {INT64_MIN + 1, "-290308-12-21T19:59:05.224193Z"},
        {MOMENT_NONE, "none"},
    };
    char text[MOMENT_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        assert_ptr_equal(moment_format(cases[i].moment, text), text);
        assert_string_equal(text, cases[i].text);
    }
}

static void moments_survive_a_round_trip(void **state)
{
    const usec_t low = INT64_C(-62167219200000000), high = INT64_C(253402300799999999);
    char text[MOMENT_TEXT_MAX];

    (void)state;
    for (int i = 0; i < 200000; i++) {
        usec_t moment = low + (usec_t)(draw() % (uint64_t)(high - low + 1)), again = UNTOUCHED;
        time_t second;
        char expected[MOMENT_TEXT_MAX];
        struct tm tm;

        if (i % 2 == 0)
            moment -= moment % USEC_PER_SEC;
        assert_int_equal(moment_parse(moment_format(moment, text), &again), 0);
        assert_true(again == moment);
        second = (time_t)(moment / USEC_PER_SEC - (moment % USEC_PER_SEC < 0));
        strftime(expected, sizeof(expected), "-%m-%dT%H:%M:%S", gmtime_r(&second, &tm)); /* the year: %Y does not pad */
        assert_memory_equal(text + 4, expected, strlen(expected));
    }
}

static void the_calendar_is_gregorian(void **state)
{
    struct civil before = civil_from_day(-800000);

    (void)state;
    for (int64_t day = -799999; day < 3000000; day++) {
        struct civil civil = civil_from_day(day);

        assert_true(civil_to_day(civil.year, civil.month, civil.day) == day);
        if (civil.day != 1) {
            assert_true(civil.day == before.day + 1 && civil.month == before.month && civil.year == before.year);
        } else {
            assert_int_equal(before.day, civil_month_days(before.year, before.month));
            assert_true(civil.month == before.month % 12 + 1 && civil.year == before.year + (civil.month == 1));
        }
        before = civil;
    }
    assert_int_equal(civil_month_days(1900, 2), 28);
    assert_int_equal(civil_month_days(2000, 2), 29);
    assert_int_equal(civil_month_days(2026, 2), 28);
    assert_int_equal(civil_month_days(2028, 2), 29);
    assert_int_equal(civil_month_days(-4, 2), 29);
    assert_int_equal(civil_to_day(1970, 1, 1), 0);
}

static void durations_are_read(void **state)
{
    static const struct {
        const char *text;
        int r;
        usec_t duration;
    } cases[] = {
        {"250ms", 0, 250000},
        {"30s", 0, 30 * USEC_PER_SEC},
        {"30m", 0, 30 * USEC_PER_MINUTE},
        {"12h", 0, 12 * USEC_PER_HOUR},
        {"90d", 0, 90 * USEC_PER_DAY},
        {"0s", 0, 0},
        {"0d", 0, 0},
        {"0ms", 0, 0},
        {"007s", 0, 7 * USEC_PER_SEC},
        {"00000000000000000000000000000000001s", 0, USEC_PER_SEC},
        {"36525d", 0, 36525 * USEC_PER_DAY},
        {"876600h", 0, 36525 * USEC_PER_DAY},
        {"3155760000000ms", 0, 36525 * USEC_PER_DAY},
        {"36526d", -ERANGE, 0},
        {"3155760000001ms", -ERANGE, 0},
        {"9223372036854775807d", -ERANGE, 0},
        {"9223372036854775808ms", -ERANGE, 0},
        {"99999999999999999999999999999999999999s", -ERANGE, 0},
        {"99999999999999999999999999999999999999x", -EINVAL, 0},
        {"", -EINVAL, 0},
        {"30", -EINVAL, 0},
        {"s", -EINVAL, 0},
        {"ms", -EINVAL, 0},
        {"30 s", -EINVAL, 0},
        {" 30s", -EINVAL, 0},
        {"30s ", -EINVAL, 0},
        {"-30s", -EINVAL, 0},
        {"+30s", -EINVAL, 0},
        {"1.5h", -EINVAL, 0},
        {"1h30m", -EINVAL, 0},
        {"30S", -EINVAL, 0},
        {"30sec", -EINVAL, 0},
        {"5us", -EINVAL, 0},
        {"2w", -EINVAL, 0},
        {"0x10s", -EINVAL, 0},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        usec_t duration = UNTOUCHED;
        int r = duration_parse(cases[i].text, &duration);

        if (r != cases[i].r || duration != (r == 0 ? cases[i].duration : UNTOUCHED))
            fail_msg("\"%s\" gives %d and %lld", cases[i].text, r, (long long)duration);
    }
}

static void durations_are_written(void **state)
{
    static const struct {
        usec_t duration;
        const char *text;
    } cases[] = {
        {0, "0s"},
        {250 * USEC_PER_MSEC, "250ms"},
        {USEC_PER_SEC, "1s"},
        {90 * USEC_PER_SEC, "90s"},
        {90 * USEC_PER_MINUTE, "90m"},
        {1500 * USEC_PER_MSEC, "1500ms"},
        {USEC_PER_HOUR, "1h"},
        {36 * USEC_PER_HOUR, "36h"},
        {USEC_PER_DAY, "1d"},
        {36525 * USEC_PER_DAY, "36525d"},
        {499, "0s"},
        {500, "1ms"},
        {999999, "1s"},
        {-500, "-1ms"},
        {-30 * USEC_PER_SEC, "-30s"},
        {INT64_MAX, "9223372036854775ms"},
        {INT64_MIN, "-9223372036854775ms"},
    };
    char text[MOMENT_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        assert_ptr_equal(duration_format(cases[i].duration, text), text);
        assert_string_equal(text, cases[i].text);
    }
}

static void durations_survive_a_round_trip(void **state)
{
    static const usec_t units[] = {USEC_PER_MSEC, USEC_PER_SEC, USEC_PER_MINUTE, USEC_PER_HOUR, USEC_PER_DAY};
    char text[MOMENT_TEXT_MAX];

    (void)state;
    for (int i = 0; i < 200000; i++) {
        usec_t unit = units[draw() % ELEMENTS(units)], again = UNTOUCHED;
        usec_t duration = (usec_t)(draw() % (uint64_t)(36525 * USEC_PER_DAY / unit + 1)) * unit;

        assert_int_equal(duration_parse(duration_format(duration, text), &again), 0);
        assert_true(again == duration);
    }
}

static void durations_are_told(void **state)
{
    static const struct {
        usec_t duration;
        const char *text;
    } cases[] = {
        {0, "0ms"},
        {999999, "999ms"},
        {-1500, "-1ms"},
        {2345 * USEC_PER_MSEC, "2.3s"},
        {599999 * USEC_PER_MSEC, "9m59s"},
        {-65 * USEC_PER_SEC, "-1m05s"},
        {3 * USEC_PER_HOUR + 10 * USEC_PER_MINUTE + 59 * USEC_PER_SEC, "3h10m"},
    };
    char text[MOMENT_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_string_equal(duration_tell(cases[i].duration, text), cases[i].text);
    duration_tell(INT64_MIN, text); /* nothing overflows */
}

static void the_clocks_run(void **state)
{
    usec_t wall = moment_now(), clock = moment_monotonic();

    (void)state;
    assert_true(llabs(wall - time(NULL) * USEC_PER_SEC) < 60 * USEC_PER_SEC);
    for (usec_t later = clock; later - clock < 1000; later = moment_monotonic())
        assert_true(later >= clock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moments_are_read),
        cmocka_unit_test(what_is_no_moment_is_refused),
        cmocka_unit_test(moments_are_written),
        cmocka_unit_test(moments_survive_a_round_trip),
        cmocka_unit_test(the_calendar_is_gregorian),
        cmocka_unit_test(durations_are_read),
        cmocka_unit_test(durations_are_written),
        cmocka_unit_test(durations_survive_a_round_trip),
        cmocka_unit_test(durations_are_told),
        cmocka_unit_test(the_clocks_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
