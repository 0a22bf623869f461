/* SPDX-License-Identifier: PostgreSQL */
/* The governor: traces of commits' latencies, calm, congested and noisy; rests; and a run spread over the time it has. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "governor.h"

#define MS USEC_PER_MSEC
#define BATCH_TIME (25 * MS)
#define UNLOADED (800.0) /* microseconds a commit takes */

static const enum pace all_paces[] = {PACE_GENTLE, PACE_NORMAL, PACE_FULL};
#define PACES (sizeof(all_paces) / sizeof(*all_paces))
static const double most[] = {[PACE_GENTLE] = 0.15, [PACE_NORMAL] = 0.5, [PACE_FULL] = 1};
static const double least[] = {[PACE_GENTLE] = 0.05, [PACE_NORMAL] = 0.3, [PACE_FULL] = 1};

/* A lane of a run whose batches last as long as they may. */
struct run {
    struct governor governor;
    usec_t now;
    double lowest, sum; /* of the shares that it had since the last look at it */
    int count;
};

static struct run begin(enum pace pace)
{
    return (struct run){.governor = governor_begin(pace, 1, BATCH_TIME, MOMENT_NONE, 0), .lowest = 1};
}

static usec_t rest_after(struct governor *governor, usec_t worked, int64_t bytes, usec_t now)
{
    const struct governor_batch batch = {.worked = worked, .bytes = bytes, .rows = 1000, .rows_left = 1000000, .lanes = 1};

    return governor_rest(governor, &batch, now);
}

static void commit(struct run *run, double latency)
{
    usec_t worked = governor_batch_time(&run->governor) + (usec_t)latency;

    run->now += worked;
    governor_committed(&run->governor, (usec_t)latency);
    run->now += rest_after(&run->governor, worked, 0, run->now);
    if (run->governor.share < run->lowest)
        run->lowest = run->governor.share;
    run->sum += run->governor.share;
    run->count++;
}

/* Commits of one latency for so many seconds. */
static void steady(struct run *run, double seconds, double latency)
{
    usec_t end = run->now + (usec_t)(seconds * USEC_PER_SEC);

    run->lowest = 1;
    run->sum = run->count = 0;
    while (run->now < end)
        commit(run, latency);
}

/* The same each time: a linear congruential generator of Knuth's. */
static uint64_t random_state;

static double draw(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return ((double)(random_state >> 11) + 0.5) / 9007199254740992.0;
}

static double lognormal(double sigma)
{
    return UNLOADED * exp(sigma * sqrt(-2 * log(draw())) * cos(6.283185307179586 * draw()));
}

static void test_calm(void **state)
{
    (void)state;
    for (size_t i = 0; i < PACES; i++) {
        enum pace pace = all_paces[i];
        struct run run = begin(pace);

        steady(&run, 20, UNLOADED);
        assert_true(run.lowest == most[pace]);
        assert_true(run.governor.share == most[pace]);
    }
}

/* Whatever is measured: full batches, and no rest. */
static void test_full_is_full(void **state)
{
    struct run run = begin(PACE_FULL);

    (void)state;
    for (int i = 0; i < 1000; i++) {
        governor_committed(&run.governor, i < 500 ? 1 : 10 * USEC_PER_SEC);
        run.now += 100 * MS;
        governor_blocked(&run.governor, run.now);
        assert_int_equal(rest_after(&run.governor, 25 * MS, i % 10 == 0 ? 100000000 : 1000, run.now), 0);
        assert_int_equal(governor_batch_time(&run.governor), BATCH_TIME);
    }
}

/* Six times the latency, for long: down to the least share, and back when it is over. */
static void test_congestion(void **state)
{
    (void)state;
    for (enum pace pace = PACE_GENTLE; pace <= PACE_NORMAL; pace++) {
        struct run run = begin(pace);
        usec_t longest = governor_batch_time(&run.governor);

        steady(&run, 5, UNLOADED);
        steady(&run, 2, 6 * UNLOADED);
        assert_true(run.governor.share == least[pace]);
        steady(&run, 8, 6 * UNLOADED);
        assert_true(run.sum == least[pace] * run.count || fabs(run.sum / run.count - least[pace]) < 1e-9);
        assert_in_range(governor_batch_time(&run.governor), longest / 4, 7 * (usec_t)UNLOADED);
        steady(&run, 6, UNLOADED);
        assert_true(run.governor.share == most[pace]);
        assert_int_equal(governor_batch_time(&run.governor), longest);
        steady(&run, 10, UNLOADED);
        assert_true(run.lowest == most[pace]);
    }
}

/* What lasts for minutes is how the server is now: a run does not creep for ever. */
static void test_a_slower_server_is_accepted_in_the_end(void **state)
{
    struct run run = begin(PACE_NORMAL);

    (void)state;
    steady(&run, 5, UNLOADED);
    steady(&run, 120, 6 * UNLOADED);
    assert_true(run.governor.share == most[PACE_NORMAL]);
    steady(&run, 10, 36 * UNLOADED);
    assert_true(run.governor.share == least[PACE_NORMAL]);
}

/* A flush that stalls is no congestion, however long; nor are a few of them. */
static void test_slow_commits(void **state)
{
    (void)state;
    for (enum pace pace = PACE_GENTLE; pace <= PACE_NORMAL; pace++)
        for (int stalls = 1; stalls <= 4; stalls++) {
            struct run run = begin(pace);

            steady(&run, 5, UNLOADED);
            for (int i = 0; i < stalls; i++)
                commit(&run, 300 * UNLOADED);
            steady(&run, 10, UNLOADED);
            assert_true(run.lowest == most[pace]);
        }
}

/* Every tenth commit stalls, for the whole of a run. */
static void test_a_disk_that_stutters(void **state)
{
    struct run run = begin(PACE_NORMAL);

    (void)state;
    for (int i = 0; i < 3000; i++)
        commit(&run, i % 10 == 0 ? 50 * UNLOADED : UNLOADED);
    assert_true(run.lowest == most[PACE_NORMAL]);
}

static void test_noise(void **state)
{
    (void)state;
    for (random_state = 1; random_state < 21;) {
        uint64_t seed = random_state;
        struct run run = begin(PACE_NORMAL);

        for (int i = 0; i < 2000; i++)
            commit(&run, lognormal(0.6));
        if (run.sum / run.count < 0.95 * most[PACE_NORMAL])
            fail_msg("seed %d: a mean share of %.3f", (int)seed, run.sum / run.count);
        random_state = seed + 1;
    }
}

/* The very first commits may be lucky ones, or slow: they are no measure for long. */
static void test_how_it_begins(void **state)
{
    (void)state;
    for (double first = UNLOADED / 30; first < UNLOADED * 31; first *= 30) {
        struct run run = begin(PACE_NORMAL);

        for (int i = 0; i < 3; i++)
            commit(&run, first);
        steady(&run, 5, UNLOADED);
        assert_true(run.sum / run.count > 0.9 * most[PACE_NORMAL]);
        assert_true(run.governor.share == most[PACE_NORMAL]);
        steady(&run, 3, 6 * UNLOADED);
        assert_true(run.governor.share == least[PACE_NORMAL]);
    }
}

/* A server whose latency rises with our share: it is found out how much it bears, again and again. */
static void test_congestion_of_our_own(void **state)
{
    struct run run = begin(PACE_NORMAL);

    (void)state;
    for (int i = 0; i < 50; i++)
        commit(&run, UNLOADED);
    run.sum = run.count = 0;
    for (int i = 0; i < 3000; i++)
        commit(&run, run.governor.share > 0.4 ? 8 * UNLOADED : UNLOADED);
    if (run.sum / run.count < 0.32 || run.sum / run.count > 0.45)
        fail_msg("a mean share of %.3f", run.sum / run.count);
}

static void test_blocked(void **state)
{
    struct run run = begin(PACE_NORMAL);

    (void)state;
    governor_blocked(&run.governor, run.now);
    assert_true(run.governor.share == least[PACE_NORMAL]); /* half would be less */
    for (int i = 0; i < 10; i++)
        governor_blocked(&run.governor, run.now);
    assert_true(run.governor.share == least[PACE_NORMAL]);
    steady(&run, 8, UNLOADED);
    assert_true(run.governor.share == most[PACE_NORMAL]);
}

/* A run whose commits are not measured is blocked no longer than others. */
static void test_blocked_without_measurements(void **state)
{
    struct governor governor = governor_begin(PACE_NORMAL, 1, BATCH_TIME, MOMENT_NONE, 0);

    (void)state;
    governor_blocked(&governor, 0);
    for (int i = 1; i <= 50; i++)
        rest_after(&governor, MS, 0, i * 100 * MS);
    assert_true(governor.share == most[PACE_NORMAL]);
}

static void test_rests(void **state)
{
    struct governor governor = governor_begin(PACE_GENTLE, 1, BATCH_TIME, MOMENT_NONE, 0);

    (void)state;
    assert_int_equal(governor_batch_time(&governor), 5 * MS);
    assert_in_range(rest_after(&governor, 3 * MS, 0, 0), 17 * MS - 1, 17 * MS);
    governor = governor_begin(PACE_NORMAL, 1, BATCH_TIME, MOMENT_NONE, 0);
    assert_int_equal(governor_batch_time(&governor), 12500);
    assert_in_range(rest_after(&governor, 7 * MS, 0, 0), 7 * MS - 1, 7 * MS);
    assert_in_range(rest_after(&governor, 0, 0, 0), 0, 1);
    assert_int_equal(rest_after(&governor, USEC_PER_DAY, 0, 0), 5 * USEC_PER_SEC);
    assert_int_equal(rest_after(&governor, INT64_MAX, INT64_MAX, 0), 5 * USEC_PER_SEC);
    governor = governor_begin(PACE_NORMAL, 1, MS, MOMENT_NONE, 0);
    assert_int_equal(governor_batch_time(&governor), MS);
}

/* The share is first taken by fewer lanes, and what is left of it by rests of those. */
static void test_lanes(void **state)
{
    struct governor governor = governor_begin(PACE_NORMAL, 1, BATCH_TIME, MOMENT_NONE, 0);
    struct governor_batch batch = {.worked = 6 * MS, .rows = 1000, .rows_left = 1000000, .lanes = 1};
    static const struct {
        double share;
        int of, lanes;
        usec_t rest; /* after 6 ms of work */
    } cases[] = {
        {1, 1, 1, 0},      {1, 4, 4, 0},      {0.5, 2, 1, 0},       {0.5, 4, 2, 0},      {0.5, 1, 1, 6 * MS},
        {0.25, 2, 1, 6 * MS}, {0.75, 2, 2, 2 * MS}, {0.5, 3, 2, 2 * MS}, {0.1, 2, 1, 24 * MS}, {0.1, 10, 1, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        governor.share = cases[i].share;
        governor.next_step = USEC_PER_DAY;
        governor.lanes = cases[i].of;
        assert_int_equal(governor_lanes(&governor), cases[i].lanes);
        assert_in_range(governor_rest(&governor, &batch, 0) + 1, cases[i].rest, cases[i].rest + 2);
    }
}

/* Sessions are ended one after another, but for the pace that minds nobody. */
static void test_ends_of_sessions(void **state)
{
    (void)state;
    for (size_t i = 0; i < PACES; i++) {
        struct run run = begin(all_paces[i]);

        assert_true((governor_end_time(&run.governor) > 0) == (all_paces[i] != PACE_FULL));
    }
}

/* A batch is not shorter than its commit, or a slow disk would see little else than flushes. */
static void test_a_disk_with_slow_flushes(void **state)
{
    (void)state;
    for (enum pace pace = PACE_GENTLE; pace <= PACE_NORMAL; pace++) {
        struct run run = begin(pace);

        steady(&run, 20, 15 * MS);
        assert_in_range(governor_batch_time(&run.governor), 10 * MS, 20 * MS);
        steady(&run, 60, 400 * MS);
        assert_int_equal(governor_batch_time(&run.governor), BATCH_TIME);
        steady(&run, 60, 0.5 * MS);
        assert_true(governor_batch_time(&run.governor) < 13 * MS);
    }
}

/* Latencies that nobody feels are no congestion, whatever multiple of each other they are. */
static void test_what_nobody_feels(void **state)
{
    struct run run = begin(PACE_GENTLE);

    (void)state;
    steady(&run, 20, 20);
    steady(&run, 20, 900);
    assert_true(run.lowest == most[PACE_GENTLE]);
    steady(&run, 20, 1100);
    assert_true(run.lowest == least[PACE_GENTLE]);
}

/* What counts is the WAL: a batch that wrote more of it in the same time is followed by a longer rest, one with less by a shorter. */
static void test_rests_by_wal(void **state)
{
    struct governor governor = governor_begin(PACE_NORMAL, 1, BATCH_TIME, MOMENT_NONE, 0);
    usec_t usual = 0, more, again;

    (void)state;
    for (int i = 0; i < 20; i++)
        usual = rest_after(&governor, 14 * MS, 1000000, 0);
    assert_in_range(usual, 14 * MS - 1, 14 * MS);
    more = rest_after(&governor, 14 * MS, 3000000, 0);
    assert_in_range(more, usual * 2, usual * 3);
    for (int i = 0; i < 50; i++)
        again = rest_after(&governor, 14 * MS, 3000000, 0); /* it is what is usual now */
    assert_in_range(again, usual - 1, usual + 1);
    assert_in_range(rest_after(&governor, 14 * MS, 1000000, 0), usual / 4, usual / 2);
    assert_in_range(rest_after(&governor, 14 * MS, INT64_MAX, 0), usual, 4 * usual);
}

/* ---- A run that has time ---- */

struct spread {
    int lanes;
    int64_t rows[4]; /* of each lane */
    usec_t within;
    double per_row;  /* microseconds */
    int64_t guess;   /* how many rows it takes them for; 0: it knows */
};

/* Simulates it to its end; returns that, and checks that the rows are done evenly. */
static usec_t simulate(const struct spread *spread, bool even)
{
    struct governor governor = governor_begin(PACE_NORMAL, 1, BATCH_TIME, spread->within, 0);
    int64_t left[4], all = 0, done = 0, batch = 100;
    usec_t at[4] = {0}, end = 0;
    int unfinished = spread->lanes;

    for (int i = 0; i < spread->lanes; i++)
        all += left[i] = spread->rows[i];
    while (unfinished > 0) {
        int lane = -1;

        for (int i = 0; i < spread->lanes; i++)
            if (left[i] > 0 && (lane < 0 || at[i] < at[lane]))
                lane = i;

        int64_t rows = batch < left[lane] ? batch : left[lane];
        usec_t worked = (usec_t)((double)rows * spread->per_row) + MS;

        end = at[lane] + worked;
        left[lane] -= rows;
        done += rows;
        unfinished -= left[lane] == 0;
        governor_committed(&governor, MS);
        at[lane] = end + governor_rest(&governor,
                                       &(struct governor_batch){.worked = worked,
                                                                .rows = rows,
                                                                .rows_left = (spread->guess > 0 ? spread->guess : all) - done,
                                                                .lanes = unfinished},
                                       end);
        if (batch < 1000)
            batch *= 2;

        double share = (double)done / (double)all, time = (double)end / (double)spread->within;

        if (even && fabs(share - time) > 0.05)
            fail_msg("%d lanes: %.3f of the rows in %.3f of the time", spread->lanes, share, time);
    }
    return end;
}

static void test_finish_within(void **state)
{
    static const struct spread evenly[] = {
        {1, {100000}, 30 * USEC_PER_SEC, 10, 0},
        {4, {100000, 100000, 100000, 100000}, 30 * USEC_PER_SEC, 10, 0},
        {1, {100000}, 2 * USEC_PER_HOUR, 10, 0},
        {4, {100000, 100000, 100000, 100000}, 2 * USEC_PER_HOUR, 10, 0},
        {4, {200000, 100000, 50000, 150000}, 2 * USEC_PER_HOUR, 10, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(evenly) / sizeof(*evenly); i++) {
        usec_t end = simulate(&evenly[i], evenly[i].rows[0] == evenly[i].rows[1] || evenly[i].lanes == 1);

        assert_in_range(end, evenly[i].within * 9 / 10, evenly[i].within);
    }
}

/* Fewer rows, or more, than it was thought: sooner, or not later than without the wish. */
static void test_finish_within_by_a_wrong_guess(void **state)
{
    static const struct spread fewer = {1, {50000}, 30 * USEC_PER_SEC, 10, 100000};
    static const struct spread more = {1, {200000}, 30 * USEC_PER_SEC, 10, 100000};

    (void)state;
    assert_in_range(simulate(&fewer, false), 14 * USEC_PER_SEC, 16 * USEC_PER_SEC);
    assert_in_range(simulate(&more, false), 30 * USEC_PER_SEC, 32 * USEC_PER_SEC);
}

/* Too little time: the pace alone says how fast it goes, and nothing waits for a deadline that is past. */
static void test_too_little_time(void **state)
{
    static const struct spread late = {4, {100000, 100000, 100000, 100000}, USEC_PER_SEC, 10, 0};
    static const struct spread never = {4, {100000, 100000, 100000, 100000}, MOMENT_NONE, 10, 0};
    struct governor governor = governor_begin(PACE_FULL, 1, BATCH_TIME, 10 * USEC_PER_SEC, 0);

    (void)state;
    assert_int_equal(simulate(&late, false), simulate(&never, false));
    assert_true(rest_after(&governor, MS, 0, 10 * USEC_PER_SEC - 1) <= 1);
    assert_int_equal(rest_after(&governor, MS, 0, 10 * USEC_PER_SEC), 0);
    assert_int_equal(rest_after(&governor, MS, 0, 3600 * USEC_PER_SEC), 0);
    assert_int_equal(governor_rest(&governor, &(struct governor_batch){.worked = MS, .rows = 10, .rows_left = -1, .lanes = 2}, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calm),
        cmocka_unit_test(test_full_is_full),
        cmocka_unit_test(test_congestion),
        cmocka_unit_test(test_a_slower_server_is_accepted_in_the_end),
        cmocka_unit_test(test_slow_commits),
        cmocka_unit_test(test_a_disk_that_stutters),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_how_it_begins),
        cmocka_unit_test(test_congestion_of_our_own),
        cmocka_unit_test(test_blocked),
        cmocka_unit_test(test_blocked_without_measurements),
        cmocka_unit_test(test_rests),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_ends_of_sessions),
        cmocka_unit_test(test_a_disk_with_slow_flushes),
        cmocka_unit_test(test_what_nobody_feels),
        cmocka_unit_test(test_rests_by_wal),
        cmocka_unit_test(test_finish_within),
        cmocka_unit_test(test_finish_within_by_a_wrong_guess),
        cmocka_unit_test(test_too_little_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
