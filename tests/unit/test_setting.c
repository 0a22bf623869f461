/* SPDX-License-Identifier: PostgreSQL */
/* Tests of setting: every type from text and back, every message, suggestions. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mem.h"
#include "moment.h"
#include "setting.h"

static const char *const colors[] = {"red", "green", "blue", NULL};
static const char *const answers[] = {"yes", "no", NULL};

static const struct setting_spec specs[] = {
    {.name = "amount", .type = SETTING_INTEGER, .required = true},
    {.name = "lanes", .type = SETTING_INTEGER, .fallback = "2", .least = 1, .most = 64},
    {.name = "add", .type = SETTING_INTEGER, .least = 1, .most = INT64_MAX},
    {.name = "age", .type = SETTING_DURATION, .fallback = "30m", .least = USEC_PER_SEC, .most = USEC_PER_DAY},
    {.name = "wait", .type = SETTING_DURATION, .least = 0, .most = USEC_PER_SEC, .reason = "longer is rude"},
    {.name = "pause", .type = SETTING_DURATION},
    {.name = "size", .type = SETTING_SIZE},
    {.name = "room", .type = SETTING_SIZE, .least = 1024, .most = 1048576},
    {.name = "enabled", .type = SETTING_BOOLEAN, .fallback = "true"},
    {.name = "where", .type = SETTING_TEXT},
    {.name = "zone", .type = SETTING_TEXT, .fallback = "", .may_be_empty = true},
    {.name = "color", .type = SETTING_TEXT, .fallback = "red", .words = colors},
    {.name = "answer", .type = SETTING_TEXT, .words = answers},
    {.name = "statuses", .type = SETTING_WORDS, .fallback = "PAYING"},
    {.name = "none", .type = SETTING_WORDS, .fallback = ""},
    {0},
};

/* What settings_set() makes of a text: what setting_print() gives for it (NULL: the same text), or its error. */
static const struct {
    const char *name, *value, *printed, *error;
} cases[] = {
    {"amount", "10000", NULL, NULL},
    {"amount", "-5", NULL, NULL},
    {"amount", "+5", "5", NULL},
    {"amount", "007", "7", NULL},
    {"amount", "9223372036854775807", NULL, NULL},
    {"amount", "-9223372036854775808", NULL, NULL},
    {"amount", "9223372036854775808", NULL, "amount = 9223372036854775808 does not fit 64 bits"},
    {"amount", "-9223372036854775809", NULL, "amount = -9223372036854775809 does not fit 64 bits"},
    {"amount", "", NULL, "amount must be a whole number, not \"\""},
    {"amount", "-", NULL, "amount must be a whole number, not \"-\""},
    {"amount", "5x", NULL, "amount must be a whole number, not \"5x\""},
    {"amount", " 5", NULL, "amount must be a whole number, not \" 5\""},
    {"amount", "0x10", NULL, "amount must be a whole number, not \"0x10\""},
    {"amount", "1.5", NULL, "amount must be a whole number, not \"1.5\""},
    {"amount", "10000L", NULL, "amount must be a whole number, not \"10000L\""},
    {"lanes", "1", NULL, NULL},
    {"lanes", "64", NULL, NULL},
    {"lanes", "0", NULL, "lanes must be from 1 to 64, not 0"},
    {"lanes", "65", NULL, "lanes must be from 1 to 64, not 65"},
    {"add", "9223372036854775807", NULL, NULL},
    {"add", "0", NULL, "add must be at least 1, not 0"},
    {"age", "30m", NULL, NULL},
    {"age", "60s", "1m", NULL},
    {"age", "24h", "1d", NULL},
    {"age", "0s", NULL, "age must be from 1s to 1d, not 0s"},
    {"age", "25h", NULL, "age must be from 1s to 1d, not 25h"},
    {"age", "30", NULL, "age must be a duration such as \"250ms\", \"30s\", \"30m\", \"12h\" or \"90d\", not \"30\""},
    {"age", "", NULL, "age must be a duration such as \"250ms\", \"30s\", \"30m\", \"12h\" or \"90d\", not \"\""},
    {"wait", "0s", NULL, NULL},
    {"wait", "2s", NULL, "wait must be from 0s to 1s, not 2s: longer is rude"},
    {"pause", "90d", NULL, NULL},
    {"pause", "999999d", NULL, "pause = \"999999d\" is over 100 years"},
    {"size", "10GB", NULL, NULL},
    {"size", "0B", NULL, NULL},
    {"size", "0TB", "0B", NULL},
    {"size", "1B", NULL, NULL},
    {"size", "1023B", NULL, NULL},
    {"size", "1024B", "1kB", NULL},
    {"size", "1024MB", "1GB", NULL},
    {"size", "1536MB", NULL, NULL},
    {"size", "007kB", "7kB", NULL},
    {"size", "8388607TB", NULL, NULL},
    {"size", "999999999B", NULL, NULL},
    {"size", "8388608TB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"8388608TB\""},
    {"size", "999999999TB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"999999999TB\""},
    {"size", "1000000000B", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"1000000000B\""},
    {"size", "18446744073709551617B", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"18446744073709551617B\""},
    {"size", "10", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"10\""},
    {"size", "GB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"GB\""},
    {"size", "", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"\""},
    {"size", "10 GB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"10 GB\""},
    {"size", "10gb", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"10gb\""},
    {"size", "10Gb", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"10Gb\""},
    {"size", "10KB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"10KB\""},
    {"size", "10PB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"10PB\""},
    {"size", "-1GB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"-1GB\""},
    {"size", "+1GB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"+1GB\""},
    {"size", "1.5GB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"1.5GB\""},
    {"size", "0x1GB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"0x1GB\""},
    {"size", "10GB ", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"10GB \""},
    {"size", " 10GB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \" 10GB\""},
    {"size", "10GBB", NULL, "size must be a size such as \"512MB\" or \"10GB\", not \"10GBB\""},
    {"room", "1kB", NULL, NULL},
    {"room", "1MB", NULL, NULL},
    {"room", "1023B", NULL, "room must be from 1kB to 1MB, not 1023B"},
    {"room", "2MB", NULL, "room must be from 1kB to 1MB, not 2MB"},
    {"enabled", "true", NULL, NULL},
    {"enabled", "false", NULL, NULL},
    {"enabled", "yes", NULL, "enabled must be true or false, not \"yes\""},
    {"enabled", "", NULL, "enabled must be true or false, not \"\""},
    {"where", "points > 0, or so", NULL, NULL},
    {"where", "", NULL, "where must not be empty"},
    {"where", " \n", NULL, "where must not be empty"},
    {"zone", "", NULL, NULL},
    {"color", "blue", NULL, NULL},
    {"color", "Blue", NULL, "color must be \"red\", \"green\" or \"blue\", not \"Blue\""},
    {"color", "", NULL, "color must not be empty"},
    {"answer", "maybe", NULL, "answer must be \"yes\" or \"no\", not \"maybe\""},
    {"statuses", "PAYING", NULL, NULL},
    {"statuses", "PAYING,CREATED,7", NULL, NULL},
    {"statuses", "ON HOLD", NULL, NULL},
    {"statuses", "", NULL, NULL},
    {"statuses", "PAYING,", NULL, "statuses has an empty word among its words"},
    {"statuses", ",", NULL, "statuses has an empty word among its words"},
    {"statuses", "A, B", NULL, "statuses: \" B\" begins or ends with a blank, which is taken literally"},
    {"statuses", "A ,B", NULL, "statuses: \"A \" begins or ends with a blank, which is taken literally"},
};

static void test_set_and_print(void **state)
{
    (void)state;
    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        struct settings settings = {0};
        AUTO_TEXT error = NULL;
        int result = settings_set(&settings, specs, cases[i].name, cases[i].value, &error);

        print_message("%s = %s\n", cases[i].name, cases[i].value);
        if (cases[i].error != NULL) {
            assert_int_equal(result, -EINVAL);
            assert_string_equal(error, cases[i].error);
            assert_int_equal(settings.count, 0);
        } else {
            assert_int_equal(result, 0);
            assert_null(error);

            AUTO_TEXT printed = setting_print(setting_find(&settings, cases[i].name));

            assert_string_equal(printed, cases[i].printed != NULL ? cases[i].printed : cases[i].value);
            assert_int_equal(settings_set(&settings, specs, cases[i].name, printed, &error), 0);
            assert_int_equal(settings.count, 1);
        }
        settings_free(&settings);
    }
}

static void test_values(void **state)
{
    struct settings settings = {0};
    AUTO_TEXT error = NULL;

    (void)state;
    assert_int_equal(settings_set(&settings, specs, "amount", "-7", &error), 0);
    assert_int_equal(settings_set(&settings, specs, "age", "30m", &error), 0);
    assert_int_equal(settings_set(&settings, specs, "enabled", "false", &error), 0);
    assert_int_equal(settings_set(&settings, specs, "where", "x", &error), 0);
    assert_int_equal(settings_set(&settings, specs, "statuses", "A,B", &error), 0);
    assert_int_equal(setting_integer(&settings, "amount"), -7);
    assert_int_equal(setting_integer(&settings, "age"), 30 * USEC_PER_MINUTE);
    assert_int_equal(setting_integer(&settings, "enabled"), 0);
    assert_string_equal(setting_text(&settings, "where"), "x");
    assert_string_equal(setting_words(&settings, "statuses")[0], "A");
    assert_string_equal(setting_words(&settings, "statuses")[1], "B");
    assert_null(setting_words(&settings, "statuses")[2]);
    assert_null(setting_find(&settings, "lanes"));
    assert_null(setting_text(&settings, "zone"));

    /* The last one wins, and a wrong one changes nothing. */
    assert_int_equal(settings_set(&settings, specs, "where", "y", &error), 0);
    assert_int_equal(settings_set(&settings, specs, "statuses", "C", &error), 0);
    assert_int_equal(settings_set(&settings, specs, "where", "", &error), -EINVAL);
    assert_string_equal(setting_text(&settings, "where"), "y");
    assert_string_equal(setting_words(&settings, "statuses")[0], "C");
    assert_null(setting_words(&settings, "statuses")[1]);
    assert_int_equal(settings.count, 5);
    settings_free(&settings);
    assert_int_equal(settings.count, 0);
    assert_null(settings.list);
}

static void test_words_apart(void **state)
{
    struct settings settings = {0};
    AUTO_TEXT error = NULL;
    const char *const words[] = {"A B", "5"}, *const comma[] = {"A,B"};

    (void)state;
    assert_int_equal(settings_set_words(&settings, specs, "statuses", 2, words, &error), 0);
    assert_string_equal(setting_words(&settings, "statuses")[0], "A B");
    assert_string_equal(setting_words(&settings, "statuses")[1], "5");
    assert_int_equal(settings_set_words(&settings, specs, "statuses", 0, NULL, &error), 0);
    assert_null(setting_words(&settings, "statuses")[0]);
    assert_int_equal(settings_set_words(&settings, specs, "statuses", 1, comma, &error), -EINVAL);
    assert_string_equal(error, "statuses: \"A,B\" has a comma, which separates words");
    settings_free(&settings);
}

static void test_unknown(void **state)
{
    struct settings settings = {0};
    char *error = NULL;

    (void)state;
    assert_int_equal(settings_set(&settings, specs, "amout", "5", &error), -ENOENT);
    assert_string_equal(error, "unknown setting \"amout\"; did you mean \"amount\"?");
    free(error);
    assert_int_equal(settings_set(&settings, specs, "xyzzy", "5", &error), -ENOENT);
    assert_string_equal(error, "unknown setting \"xyzzy\"");
    free(error);
    assert_int_equal(settings_set(&settings, specs, "xyzzy", "5", NULL), -ENOENT);
    assert_int_equal(settings.count, 0);
}

static void test_complete(void **state)
{
    struct settings settings = {0};
    AUTO_TEXT error = NULL;

    (void)state;
    assert_int_equal(settings_set(&settings, specs, "lanes", "9", &error), 0);
    assert_int_equal(settings_complete(&settings, specs, &error), -EINVAL);
    assert_string_equal(error, "amount is missing");
    assert_int_equal(settings_set(&settings, specs, "amount", "1", NULL), 0);
    assert_int_equal(settings_complete(&settings, specs, NULL), 0);
    assert_int_equal(setting_integer(&settings, "lanes"), 9);
    assert_int_equal(setting_integer(&settings, "age"), 30 * USEC_PER_MINUTE);
    assert_int_equal(setting_integer(&settings, "enabled"), 1);
    assert_string_equal(setting_text(&settings, "zone"), "");
    assert_string_equal(setting_words(&settings, "statuses")[0], "PAYING");
    assert_null(setting_words(&settings, "none")[0]);
    assert_null(setting_find(&settings, "add"));
    settings_free(&settings);
}

static void test_copy(void **state)
{
    struct settings settings = {0}, none = {0}, copy, empty = settings_copy(&none);

    (void)state;
    assert_int_equal(settings_set(&settings, specs, "where", "x", NULL), 0);
    assert_int_equal(settings_set(&settings, specs, "statuses", "A,B", NULL), 0);
    copy = settings_copy(&settings);
    assert_int_equal(settings_set(&settings, specs, "where", "changed", NULL), 0);
    settings_free(&settings);
    assert_string_equal(setting_text(&copy, "where"), "x");
    assert_string_equal(setting_words(&copy, "statuses")[1], "B");
    settings_free(&copy);
    settings_free(&empty);
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"amount", "add", "up_to", "fill_to", "lock_timeout", "batch_time", NULL};
    static const struct {
        const char *name, *nearest;
    } near[] = {
        {"amout", "amount"},
        {"amuont", "amount"}, /* a swap is one step */
        {"AMOUNT", "amount"},
        {"ad", "add"},
        {"a", NULL},
        {"", NULL},
        {"upto", "up_to"},
        {"fillto", "fill_to"},
        {"locktimeout", "lock_timeout"},
        {"batch-time", "batch_time"},
        {"batchtmie", "batch_time"},
        {"timezone", NULL},
        {"0123456789012345678901234567890123456789012345678901234567890123", NULL}, /* 64 bytes: too long to compare */
        {"012345678901234567890123456789012345678901234567890123456789012", NULL},
    };
    static const char *const none[] = {NULL};

    (void)state;
    for (size_t i = 0; i < ELEMENTS(near); i++) {
        print_message("%s\n", near[i].name);
        if (near[i].nearest == NULL)
            assert_null(setting_nearest(near[i].name, names));
        else
            assert_string_equal(setting_nearest(near[i].name, names), near[i].nearest);
    }
    assert_null(setting_nearest("add", none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_print), cmocka_unit_test(test_values),   cmocka_unit_test(test_words_apart),
        cmocka_unit_test(test_unknown),       cmocka_unit_test(test_complete), cmocka_unit_test(test_copy),
        cmocka_unit_test(test_nearest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
