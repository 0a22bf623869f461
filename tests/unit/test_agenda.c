/* SPDX-License-Identifier: PostgreSQL */
/* agenda: overlap, late timers, backoff, reloads and clocks that are set, on instants of the test's own. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agenda.h"

#define MINUTE USEC_PER_MINUTE
#define SECOND USEC_PER_SEC
#define NOON (INT64_C(1774180800) * USEC_PER_SEC) /* 2026-03-22T12:00:00Z, a whole minute */

static struct schedule *minutely;

static int parse(void **state)
{
    (void)state;
    return schedule_parse("* * * * *", "UTC", &minutely, NULL);
}

static int release(void **state)
{
    (void)state;
    schedule_free(minutely);
    return 0;
}

/* An agenda whose start-up child has come back well. */
static struct agenda settled(usec_t now, usec_t offset)
{
    struct agenda agenda;

    agenda_init(&agenda, now);
    agenda_configure(&agenda, minutely, offset, SECOND, true, now);
    agenda_send(&agenda);
    agenda.apply = false;
    agenda_settled(&agenda, now);
    return agenda;
}

static void test_first_child_applies(void **state)
{
    struct agenda agenda;

    (void)state;
    agenda_init(&agenda, NOON);
    agenda_configure(&agenda, minutely, 0, SECOND, true, NOON);
    assert_false(agenda_look(&agenda, NOON)); /* noon itself is the start-up child's, by the books */
    assert_true(agenda_ready(&agenda, NOON));
    assert_true(agenda.apply);
    assert_int_equal(agenda_send(&agenda), MOMENT_NONE);
    assert_false(agenda_ready(&agenda, NOON + SECOND));
    agenda_settled(&agenda, NOON + SECOND);
    assert_true(agenda.apply); /* only RECORD_APPLIED ends that */
    assert_false(agenda_ready(&agenda, NOON + SECOND)); /* but it is no reason to send one after the other */
    assert_int_equal(agenda_wake(&agenda, false), NOON + MINUTE);
}

static void test_disabled_is_only_applied(void **state)
{
    struct agenda agenda = settled(NOON, 0);

    (void)state;
    agenda.due = NOON;
    agenda.leftovers = NOON + SECOND;
    agenda_configure(&agenda, NULL, 0, SECOND, true, NOON + SECOND);
    assert_int_equal(agenda_send(&agenda), MOMENT_NONE);
    agenda_settled(&agenda, NOON + SECOND);
    assert_int_equal(agenda_wake(&agenda, false), MOMENT_NONE);
    assert_false(agenda_look(&agenda, NOON + 10 * MINUTE));
    assert_false(agenda_ready(&agenda, NOON + 10 * MINUTE));
}

static void test_due_fires_once(void **state)
{
    struct agenda agenda = settled(NOON, 0);

    (void)state;
    assert_false(agenda_look(&agenda, NOON + MINUTE - 1));
    assert_true(agenda_look(&agenda, NOON + MINUTE));
    assert_false(agenda_look(&agenda, NOON + MINUTE));
    assert_int_equal(agenda_send(&agenda), NOON + MINUTE);
    assert_false(agenda_look(&agenda, NOON + MINUTE + SECOND));
    assert_int_equal(agenda_wake(&agenda, true), NOON + 2 * MINUTE);
}

static void test_overlap_keeps_the_latest(void **state)
{
    struct agenda agenda = settled(NOON, 0);

    (void)state;
    agenda_look(&agenda, NOON + MINUTE);
    agenda_send(&agenda);
    assert_true(agenda_look(&agenda, NOON + 2 * MINUTE)); /* the child of the first is still at work */
    assert_true(agenda_look(&agenda, NOON + 3 * MINUTE));
    agenda_settled(&agenda, NOON + 3 * MINUTE + SECOND);
    assert_true(agenda_ready(&agenda, NOON + 3 * MINUTE + SECOND));
    assert_int_equal(agenda_send(&agenda), NOON + 3 * MINUTE);
    assert_false(agenda_ready(&agenda, NOON + 3 * MINUTE + SECOND));
}

static void test_jitter_fires_later(void **state)
{
    struct agenda agenda = settled(NOON, 20 * SECOND);

    (void)state;
    assert_int_equal(agenda_wake(&agenda, false), NOON + MINUTE + 20 * SECOND);
    assert_false(agenda_look(&agenda, NOON + MINUTE + 20 * SECOND - 1));
    assert_true(agenda_look(&agenda, NOON + MINUTE + 20 * SECOND));
    assert_int_equal(agenda_send(&agenda), NOON + MINUTE); /* the occurrence keeps its name */
}

static void test_slept_through_is_missed(void **state)
{
    struct agenda agenda = settled(NOON, 0);

    (void)state;
    /* Three hours later: the books are settled, and only what fired just now is on time. */
    assert_true(agenda_look(&agenda, NOON + 180 * MINUTE + 30 * SECOND));
    assert_true(agenda.wanted);
    assert_int_equal(agenda_send(&agenda), NOON + 180 * MINUTE);
    assert_int_equal(agenda_wake(&agenda, true), NOON + 181 * MINUTE);
}

static void test_backoff_doubles_to_its_end(void **state)
{
    static const int delays[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300};
    struct agenda agenda = settled(NOON, 0);
    usec_t now = NOON + MINUTE;

    (void)state;
    agenda_look(&agenda, now);
    for (size_t i = 0; i < sizeof(delays) / sizeof(*delays); i++) {
        usec_t due = agenda_send(&agenda);

        assert_int_equal(due, NOON + MINUTE); /* kept through all of them */
        agenda_failed(&agenda, due, now);
        assert_int_equal(agenda.not_before - now, delays[i] * SECOND);
        assert_false(agenda_ready(&agenda, agenda.not_before - 1));
        assert_true(agenda_ready(&agenda, agenda.not_before));
        agenda.seen = now = agenda.not_before; /* so that no later occurrence takes its place here */
        assert_int_equal(agenda_wake(&agenda, false), now);
    }
    agenda_send(&agenda);
    agenda_settled(&agenda, now);
    agenda_send(&agenda);
    agenda_failed(&agenda, MOMENT_NONE, now);
    assert_int_equal(agenda.delay, SECOND); /* from the start again */
}

static void test_retry_delay_over_five_minutes(void **state)
{
    struct agenda agenda = settled(NOON, 0);

    (void)state;
    agenda.retry_delay = 600 * SECOND;
    agenda_failed(&agenda, MOMENT_NONE, NOON);
    agenda_failed(&agenda, MOMENT_NONE, NOON);
    assert_int_equal(agenda.delay, 600 * SECOND);
    agenda.delay = agenda.retry_delay = 0;
    agenda_failed(&agenda, MOMENT_NONE, NOON);
    assert_true(agenda.not_before > NOON); /* never a loop */
}

static void test_later_due_wins_in_backoff(void **state)
{
    struct agenda agenda = settled(NOON, 0);

    (void)state;
    agenda_look(&agenda, NOON + MINUTE);
    agenda_send(&agenda);
    agenda_look(&agenda, NOON + 2 * MINUTE);
    agenda_failed(&agenda, NOON + MINUTE, NOON + 2 * MINUTE);
    assert_int_equal(agenda.due, NOON + 2 * MINUTE); /* the first is in the ledger, or is for catch_up to judge */
}

static void test_leftovers_have_their_time(void **state)
{
    struct agenda agenda = settled(NOON, 0);

    (void)state;
    agenda.leftovers = NOON + 10 * SECOND;
    agenda_settled(&agenda, NOON);
    assert_int_equal(agenda_wake(&agenda, false), NOON + 10 * SECOND);
    assert_int_equal(agenda_wake(&agenda, true), NOON + MINUTE);
    assert_false(agenda_ready(&agenda, NOON + 10 * SECOND - 1));
    assert_true(agenda_ready(&agenda, NOON + 10 * SECOND));
    assert_int_equal(agenda_send(&agenda), MOMENT_NONE);
    assert_int_equal(agenda.leftovers, MOMENT_NONE);
    agenda.leftovers = NOON - SECOND; /* the server's clock is behind: not at once, all the same */
    agenda_settled(&agenda, NOON);
    assert_int_equal(agenda.leftovers, NOON + SECOND);
}

static void test_halted_until_configured(void **state)
{
    struct agenda agenda = settled(NOON, 0);

    (void)state;
    agenda.halted = true;
    assert_int_equal(agenda_wake(&agenda, false), MOMENT_NONE);
    agenda_look(&agenda, NOON + MINUTE);
    assert_false(agenda_ready(&agenda, NOON + MINUTE));
    agenda_configure(&agenda, minutely, 0, SECOND, false, NOON + MINUTE);
    assert_true(agenda_ready(&agenda, NOON + MINUTE));
}

static void test_reload_keeps_or_drops_what_is_due(void **state)
{
    struct agenda agenda = settled(NOON, 0);

    (void)state;
    agenda_look(&agenda, NOON + MINUTE);
    agenda_configure(&agenda, minutely, 0, SECOND, false, NOON + MINUTE + SECOND);
    assert_int_equal(agenda.due, NOON + MINUTE);
    agenda_configure(&agenda, minutely, 0, SECOND, true, NOON + MINUTE + SECOND);
    assert_int_equal(agenda.due, MOMENT_NONE); /* another schedule owes nothing from before it was there */
    agenda_recalled(&agenda, NOON + 30 * SECOND);
    assert_int_equal(agenda.due, MOMENT_NONE); /* nor is an instant given back that it does not have */
    agenda_recalled(&agenda, NOON + 2 * MINUTE);
    assert_int_equal(agenda.due, NOON + 2 * MINUTE);
}

static void test_clock_set_back(void **state)
{
    struct agenda agenda = settled(NOON, 0);
    usec_t earlier = NOON - 180 * MINUTE;

    (void)state;
    agenda_look(&agenda, NOON + MINUTE);
    agenda_failed(&agenda, agenda_send(&agenda), NOON + MINUTE);
    agenda_clock_set(&agenda, NOON + MINUTE - 5 * SECOND);
    assert_int_equal(agenda_next(&agenda), NOON + 2 * MINUTE); /* a correction repeats nothing */
    agenda_clock_set(&agenda, earlier);
    assert_int_equal(agenda_next(&agenda), earlier + MINUTE); /* not silent for three hours */
    assert_int_equal(agenda.not_before, earlier + SECOND);
}

static void test_offset_is_fixed_and_spread(void **state)
{
    int tenths[10] = {0};
    char job[16];

    (void)state;
    assert_int_equal(agenda_offset("host", 4, "restock", 0), 0);
    assert_int_equal(agenda_offset("host", 4, "restock", MINUTE), agenda_offset("host", 4, "restock", MINUTE));
    assert_int_not_equal(agenda_offset("host", 4, "restock", MINUTE), agenda_offset("tost", 4, "restock", MINUTE));
    for (int i = 0; i < 1000; i++) {
        usec_t offset;

        snprintf(job, sizeof(job), "job-%d", i);
        offset = agenda_offset("host", 4, job, MINUTE);
        assert_in_range(offset, 0, MINUTE - 1);
        tenths[offset / (MINUTE / 10)]++;
    }
    for (int i = 0; i < 10; i++)
        assert_in_range(tenths[i], 50, 150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_child_applies),
        cmocka_unit_test(test_disabled_is_only_applied),
        cmocka_unit_test(test_due_fires_once),
        cmocka_unit_test(test_overlap_keeps_the_latest),
        cmocka_unit_test(test_jitter_fires_later),
        cmocka_unit_test(test_slept_through_is_missed),
        cmocka_unit_test(test_backoff_doubles_to_its_end),
        cmocka_unit_test(test_retry_delay_over_five_minutes),
        cmocka_unit_test(test_later_due_wins_in_backoff),
        cmocka_unit_test(test_leftovers_have_their_time),
        cmocka_unit_test(test_halted_until_configured),
        cmocka_unit_test(test_reload_keeps_or_drops_what_is_due),
        cmocka_unit_test(test_clock_set_back),
        cmocka_unit_test(test_offset_is_fixed_and_spread),
    };

    return cmocka_run_group_tests(tests, parse, release);
}
