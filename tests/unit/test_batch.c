/* SPDX-License-Identifier: PostgreSQL */
/* The batch controller: traces recorded on a real server, laws over models of one, and the edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "batch.h"

#define MS 1000

struct step {
    int rows;
    usec_t elapsed;
    int then; /* the size after it */
};

static void replay(struct batch *batch, const struct step *steps, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        batch_took(batch, steps[i].rows, steps[i].elapsed);
        if (batch->size != steps[i].then)
            fail_msg("step %zu: %d rows in %lld us: size %d, not %d", i, steps[i].rows, (long long)steps[i].elapsed, batch->size,
                     steps[i].then);
    }
}
#define REPLAY(batch, ...) \
    replay(batch, (const struct step[]){__VA_ARGS__}, sizeof((const struct step[]){__VA_ARGS__}) / sizeof(struct step))

/* HOT updates of users, 25 ms, at most 10000 rows; each batch was sized before the one ahead of it was in. */
static void test_a_trace_of_a_quick_table(void **state)
{
    struct batch batch = batch_begin(25 * MS, 10000);

    (void)state;
    assert_int_equal(batch.size, 100);
    REPLAY(&batch, {100, 757, 200}, {100, 321, 200}, {200, 330, 400}, {200, 320, 400}, {400, 557, 800}, {400, 558, 800},
           {800, 1201, 1600}, {800, 1091, 1600}, {1600, 2210, 3200}, {1600, 2142, 3200}, {3200, 4481, 6400}, {3200, 4298, 6400},
           {6400, 8831, 10000}, {6400, 8954, 10000}, {10000, 14167, 10000}, {10000, 13644, 10000}, {10000, 24145, 10000});
}

/* The same with an index on points: a stall of 59 ms in the middle costs one short batch, and the size is back at once. */
static void test_a_trace_of_a_slow_table(void **state)
{
    struct batch batch = batch_begin(25 * MS, 10000);

    (void)state;
    REPLAY(&batch, {100, 1175, 200}, {100, 664, 200}, {200, 1042, 400}, {200, 1222, 400}, {400, 2191, 800}, {400, 1945, 800},
           {800, 3441, 1600}, {800, 3589, 1600}, {1600, 6572, 3200}, {1600, 6629, 3200}, {3200, 13296, 6016},
           {3200, 15040, 6016}, {6016, 25712, 5849}, {6016, 26751, 5622}, {5849, 27051, 5405}, {5622, 26001, 5405},
           {5405, 22191, 6089}, {5405, 24074, 6089}, {6089, 26685, 5704}, {6089, 58995, 2580}, {5704, 23995, 5942},
           {2580, 12731, 5942}, {5942, 25273, 5877}, {5942, 30844, 4816}, {5877, 27242, 4816}, {4816, 25864, 4655},
           {4816, 24013, 5013}, {4655, 29631, 3927}, {5013, 5283, 10000});
}

static void test_it_cuts_hard_and_grows_slowly(void **state)
{
    struct batch batch = batch_begin(25 * MS, 10000);

    (void)state;
    batch.size = 8000;
    REPLAY(&batch, {8000, 100 * MS, 2000}, {2000, 10000 * MS, 250}, {250, 10000 * MS, 31}, {31, 10000 * MS, 3}, {3, 10000 * MS, 1},
           {1, 10000 * MS, 1}, {1, 1, 2}, {2, 1, 4}, {4, 0, 8}, {8, -5, 16}, {16, 26 * MS, 15}, {15, 25 * MS, 15});
}

/* The last rows of a range, or none: they are quick, and say nothing of more of them; slow ones do. */
static void test_a_batch_that_was_not_full(void **state)
{
    struct batch batch = batch_begin(25 * MS, 10000);

    (void)state;
    batch.size = 1000;
    REPLAY(&batch, {10, 100, 1000}, {999, 100, 1000}, {0, 1, 1000}, {-1, 1, 1000}, {10, 250 * MS, 1});
    batch.size = 1000;
    REPLAY(&batch, {500, 50 * MS, 250});
}

/* A batch that was sized before a cut is slow for what is past: it takes nothing away twice, and does not grow it back. */
static void test_what_was_under_way(void **state)
{
    struct batch batch = batch_begin(25 * MS, 10000);

    (void)state;
    batch.size = 4000;
    REPLAY(&batch, {4000, 100 * MS, 1000}, {4000, 100 * MS, 1000}, {1000, 25 * MS, 1000});
}

static void test_edges(void **state)
{
    struct batch batch = batch_begin(1, 1);

    (void)state;
    assert_int_equal(batch.size, 1);
    REPLAY(&batch, {1, 1, 1}, {1, INT64_MAX, 1}, {1, 0, 1});
    batch = batch_begin(INT64_MAX, INT32_MAX);
    batch.size = INT32_MAX;
    REPLAY(&batch, {INT32_MAX, 1, INT32_MAX}, {INT32_MAX, INT64_MAX, INT32_MAX});
    batch = batch_begin(25 * MS, 37);
    assert_int_equal(batch.size, 37);
    REPLAY(&batch, {37, 1, 37});
}

/* Whatever it is told: from one row to the most, at most the double, at least an eighth. */
static void test_laws(void **state)
{
    (void)state;
    srand(1);
    for (int run = 0; run < 200; run++) {
        int most = 1 + rand() % 20000;
        struct batch batch = batch_begin(1 + rand() % 100000, most);

        for (int i = 0; i < 200; i++) {
            int before = batch.size, rows = rand() % 3 != 0 ? batch.size : 1 + rand() % most;
            usec_t elapsed = (usec_t)1 << (rand() % 30);

            batch_took(&batch, rows, elapsed);
            assert_in_range(batch.size, 1, most);
            assert_true(batch.size <= 2 * (int64_t)(rows > before ? rows : before));
            assert_true(batch.size >= (rows < before ? rows : before) / 8);
            if (elapsed > 2 * batch.target && rows >= 2)
                assert_true(batch.size < rows);
        }
    }
}

/* A server that takes `start` us and then `row` us a row: the batches come to last as long as they should, and stay so. */
static void test_it_settles(void **state)
{
    static const struct {
        double start, row;
    } servers[] = {{0, 1}, {0, 25}, {300, 3}, {5000, 10}, {300, 1000}, {0, 24000}};

    (void)state;
    for (size_t i = 0; i < sizeof(servers) / sizeof(*servers); i++) {
        struct batch batch = batch_begin(25 * MS, 100000);

        for (int n = 0; n < 60; n++) {
            double elapsed = servers[i].start + servers[i].row * batch.size;

            if (n >= 20 && (elapsed > 25 * MS * 1.1 || elapsed < 25 * MS * 0.5))
                fail_msg("server %zu, batch %d: %d rows take %.0f us", i, n, batch.size, elapsed);
            batch_took(&batch, batch.size, (usec_t)elapsed);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_trace_of_a_quick_table), cmocka_unit_test(test_a_trace_of_a_slow_table),
        cmocka_unit_test(test_it_cuts_hard_and_grows_slowly), cmocka_unit_test(test_a_batch_that_was_not_full),
        cmocka_unit_test(test_what_was_under_way), cmocka_unit_test(test_edges),
        cmocka_unit_test(test_laws), cmocka_unit_test(test_it_settles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
