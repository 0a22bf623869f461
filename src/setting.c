/* SPDX-License-Identifier: PostgreSQL */
/*
 * setting: one parser and one printer for every setting, whoever gives its value.
 *
 * Every error is one sentence that begins with the setting's name and says what is allowed, so that it reads well after
 * "FILE:LINE: " and after "--set ". Messages quote what was given. Nothing here logs.
 */
#include "setting.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "moment.h"

static void free_value(struct setting *setting)
{
    free(setting->text);
    for (char **word = setting->words; word != NULL && *word != NULL; word++)
        free(*word);
    free(setting->words);
}

void settings_free(struct settings *settings)
{
    for (size_t i = 0; i < settings->count; i++)
        free_value(&settings->list[i]);
    free(settings->list);
    *settings = (struct settings){0};
}

static char **copy_words(size_t count, const char *const *words)
{
    char **copy = mem_alloc((count + 1) * sizeof(*copy));

    for (size_t i = 0; i < count; i++)
        copy[i] = mem_copy(words[i]);
    return copy;
}

static size_t count_words(char *const *words)
{
    size_t count = 0;

    while (words[count] != NULL)
        count++;
    return count;
}

struct settings settings_copy(const struct settings *from)
{
    struct settings copy = {.list = mem_alloc(from->count * sizeof(*copy.list)), .count = from->count};

    for (size_t i = 0; i < from->count; i++) {
        const struct setting *setting = &from->list[i];

        copy.list[i] = *setting;
        copy.list[i].text = mem_copy(setting->text);
        if (setting->words != NULL)
            copy.list[i].words = copy_words(count_words(setting->words), (const char *const *)setting->words);
    }
    return copy;
}

const struct setting_spec *setting_spec_find(const struct setting_spec *specs, const char *name)
{
    for (; specs->name != NULL; specs++)
        if (strcmp(specs->name, name) == 0)
            return specs;
    return NULL;
}

static int unknown_setting(const struct setting_spec *specs, const char *name, char **ret_error)
{
    size_t count = 0;

    while (specs[count].name != NULL)
        count++;

    const char **names = mem_alloc((count + 1) * sizeof(*names));

    for (size_t i = 0; i < count; i++)
        names[i] = specs[i].name;

    const char *nearest = setting_nearest(name, names);

    free(names);
    if (nearest == NULL)
        return mem_fail(-ENOENT, ret_error, "unknown setting \"%s\"", name);
    return mem_fail(-ENOENT, ret_error, "unknown setting \"%s\"; did you mean \"%s\"?", name, nearest);
}

/* PostgreSQL's units: powers of 1024. */
static const struct {
    const char *name;
    int shift;
} units[] = {{"TB", 40}, {"GB", 30}, {"MB", 20}, {"kB", 10}, {"B", 0}};

static void print_size(int64_t size, char text[static MOMENT_TEXT_MAX])
{
    size_t i = 0;

    while (size % ((int64_t)1 << units[i].shift) != 0 || (size == 0 && units[i].shift != 0))
        i++;
    snprintf(text, MOMENT_TEXT_MAX, "%" PRId64 "%s", size >> units[i].shift, units[i].name);
}

/* A bound as the operator would write it. */
static const char *print_bound(const struct setting_spec *spec, int64_t bound, char text[static MOMENT_TEXT_MAX])
{
    if (spec->type == SETTING_DURATION)
        return duration_format(bound, text);
    if (spec->type == SETTING_SIZE)
        print_size(bound, text);
    else
        snprintf(text, MOMENT_TEXT_MAX, "%" PRId64, bound);
    return text;
}

static int check_bounds(const struct setting_spec *spec, int64_t value, char **ret_error)
{
    char given[MOMENT_TEXT_MAX], least[MOMENT_TEXT_MAX], most[MOMENT_TEXT_MAX];
    const char *colon = spec->reason == NULL ? "" : ": ", *reason = spec->reason == NULL ? "" : spec->reason;

    if ((spec->least == 0 && spec->most == 0) || (value >= spec->least && value <= spec->most))
        return 0;
    print_bound(spec, value, given);
    print_bound(spec, spec->least, least);
    if (spec->most == INT64_MAX)
        return mem_fail(-EINVAL, ret_error, "%s must be at least %s, not %s%s%s", spec->name, least, given, colon,
                        reason);
    return mem_fail(-EINVAL, ret_error, "%s must be from %s to %s, not %s%s%s", spec->name, least,
                    print_bound(spec, spec->most, most), given, colon, reason);
}

static int parse_integer(const struct setting_spec *spec, const char *text, int64_t *ret, char **ret_error)
{
    const char *digits = text + (*text == '-' || *text == '+');

    if (*digits == '\0' || digits[strspn(digits, "0123456789")] != '\0')
        return mem_fail(-EINVAL, ret_error, "%s must be a whole number, not \"%s\"", spec->name, text);
    errno = 0;
    *ret = strtoll(text, NULL, 10);
    if (errno == ERANGE)
        return mem_fail(-EINVAL, ret_error, "%s = %s does not fit 64 bits", spec->name, text);
    return check_bounds(spec, *ret, ret_error);
}

static int parse_duration(const struct setting_spec *spec, const char *text, int64_t *ret, char **ret_error)
{
    switch (duration_parse(text, ret)) {
    case 0:
        return check_bounds(spec, *ret, ret_error);
    case -ERANGE:
        return mem_fail(-EINVAL, ret_error, "%s = \"%s\" is over 100 years", spec->name, text);
    default:
        return mem_fail(-EINVAL, ret_error,
                        "%s must be a duration such as \"250ms\", \"30s\", \"30m\", \"12h\" or \"90d\", not \"%s\"",
                        spec->name, text);
    }
}

static int parse_size(const struct setting_spec *spec, const char *text, int64_t *ret, char **ret_error)
{
    size_t digits = strspn(text, "0123456789");
    int64_t number = strtoll(text, NULL, 10);

    for (size_t i = 0; i < ELEMENTS(units) && digits > 0 && digits < 10; i++)
        if (strcmp(text + digits, units[i].name) == 0 && number <= INT64_MAX >> units[i].shift) {
            *ret = number << units[i].shift;
            return check_bounds(spec, *ret, ret_error);
        }
    return mem_fail(-EINVAL, ret_error, "%s must be a size such as \"512MB\" or \"10GB\", not \"%s\"", spec->name, text);
}

static int parse_boolean(const struct setting_spec *spec, const char *text, int64_t *ret, char **ret_error)
{
    *ret = strcmp(text, "true") == 0;
    if (*ret == 0 && strcmp(text, "false") != 0)
        return mem_fail(-EINVAL, ret_error, "%s must be true or false, not \"%s\"", spec->name, text);
    return 0;
}

static int check_text(const struct setting_spec *spec, const char *text, char **ret_error)
{
    if (text[strspn(text, " \t\r\n\f\v")] == '\0' && (*text != '\0' || !spec->may_be_empty))
        return mem_fail(-EINVAL, ret_error, "%s must not be empty", spec->name);
    if (spec->words == NULL)
        return 0;

    AUTO_BUF allowed = {0};

    for (const char *const *word = spec->words; *word != NULL; word++) {
        if (strcmp(*word, text) == 0)
            return 0;
        buf_print(&allowed, "%s\"%s\"", word == spec->words ? "" : word[1] == NULL ? " or " : ", ", *word);
    }
    return mem_fail(-EINVAL, ret_error, "%s must be %s, not \"%s\"", spec->name, allowed.text, text);
}

static int check_words(const struct setting_spec *spec, size_t count, const char *const *words, char **ret_error)
{
    for (size_t i = 0; i < count; i++) {
        const char *word = words[i];

        if (*word == '\0')
            return mem_fail(-EINVAL, ret_error, "%s has an empty word among its words", spec->name);
        if (strchr(word, ',') != NULL)
            return mem_fail(-EINVAL, ret_error, "%s: \"%s\" has a comma, which separates words", spec->name, word);
        if (isspace((unsigned char)*word) || isspace((unsigned char)word[strlen(word) - 1]))
            return mem_fail(-EINVAL, ret_error, "%s: \"%s\" begins or ends with a blank, which is taken literally",
                            spec->name, word);
    }
    return 0;
}

static void put(struct settings *settings, const struct setting *value)
{
    for (size_t i = 0; i < settings->count; i++)
        if (settings->list[i].spec == value->spec) {
            free_value(&settings->list[i]);
            settings->list[i] = *value;
            return;
        }
    settings->list = mem_resize(settings->list, settings->count + 1, sizeof(*settings->list));
    settings->list[settings->count++] = *value;
}

int settings_set_words(struct settings *settings, const struct setting_spec *specs, const char *name, size_t count,
                       const char *const *words, char **ret_error)
{
    struct setting value = {.spec = setting_spec_find(specs, name)};
    int error = 0;

    if (value.spec == NULL)
        return unknown_setting(specs, name, ret_error);
    assert(count == 1 || value.spec->type == SETTING_WORDS);

    switch (value.spec->type) {
    case SETTING_INTEGER:
        error = parse_integer(value.spec, words[0], &value.integer, ret_error);
        break;
    case SETTING_DURATION:
        error = parse_duration(value.spec, words[0], &value.integer, ret_error);
        break;
    case SETTING_SIZE:
        error = parse_size(value.spec, words[0], &value.integer, ret_error);
        break;
    case SETTING_BOOLEAN:
        error = parse_boolean(value.spec, words[0], &value.integer, ret_error);
        break;
    case SETTING_TEXT:
        error = check_text(value.spec, words[0], ret_error);
        if (error == 0)
            value.text = mem_copy(words[0]);
        break;
    case SETTING_WORDS:
        error = check_words(value.spec, count, words, ret_error);
        if (error == 0)
            value.words = copy_words(count, words);
        break;
    }
    if (error == 0)
        put(settings, &value);
    return error;
}

int settings_set(struct settings *settings, const struct setting_spec *specs, const char *name, const char *value,
                 char **ret_error)
{
    const struct setting_spec *spec = setting_spec_find(specs, name);

    if (spec == NULL || spec->type != SETTING_WORDS)
        return settings_set_words(settings, specs, name, 1, &value, ret_error);

    AUTO_TEXT text = mem_copy(value);
    const char **words = NULL;
    size_t count = 0;

    for (char *word = text; *value != '\0' && word != NULL; count++) {
        char *comma = strchr(word, ',');

        if (comma != NULL)
            *comma++ = '\0';
        words = mem_resize(words, count + 1, sizeof(*words));
        words[count] = word;
        word = comma;
    }

    int error = settings_set_words(settings, specs, name, count, words, ret_error);

    free(words);
    return error;
}

int settings_complete(struct settings *settings, const struct setting_spec *specs, char **ret_error)
{
    const char *missing = NULL;

    for (const struct setting_spec *spec = specs; spec->name != NULL; spec++) {
        if (setting_find(settings, spec->name) != NULL)
            continue;
        if (spec->fallback != NULL) {
            int error = settings_set(settings, specs, spec->name, spec->fallback, NULL);

            assert(error == 0); /* a fallback of ours is out of its own bounds */
            (void)error;
        } else if (spec->required && missing == NULL) {
            missing = spec->name;
        }
    }
    return missing == NULL ? 0 : mem_fail(-EINVAL, ret_error, "%s is missing", missing);
}

const struct setting *setting_find(const struct settings *settings, const char *name)
{
    for (size_t i = 0; i < settings->count; i++)
        if (strcmp(settings->list[i].spec->name, name) == 0)
            return &settings->list[i];
    return NULL;
}

int64_t setting_integer(const struct settings *settings, const char *name)
{
    const struct setting *setting = setting_find(settings, name);

    assert(setting != NULL);
    return setting->integer;
}

const char *setting_text(const struct settings *settings, const char *name)
{
    const struct setting *setting = setting_find(settings, name);

    return setting == NULL ? NULL : setting->text;
}

const char *const *setting_words(const struct settings *settings, const char *name)
{
    const struct setting *setting = setting_find(settings, name);

    assert(setting != NULL && setting->words != NULL);
    return (const char *const *)setting->words;
}

char *setting_print(const struct setting *setting)
{
    char text[MOMENT_TEXT_MAX];
    struct buf buf = {0};

    switch (setting->spec->type) {
    case SETTING_INTEGER:
        return mem_print("%" PRId64, setting->integer);
    case SETTING_DURATION:
        return mem_copy(duration_format(setting->integer, text));
    case SETTING_SIZE:
        print_size(setting->integer, text);
        return mem_copy(text);
    case SETTING_BOOLEAN:
        return mem_copy(setting->integer != 0 ? "true" : "false");
    case SETTING_TEXT:
        return mem_copy(setting->text);
    case SETTING_WORDS:
        for (char **word = setting->words; *word != NULL; word++)
            buf_print(&buf, "%s%s", word == setting->words ? "" : ",", *word);
        break;
    }
    return buf_take(&buf);
}

/* No name of ours is as long; a longer one from an operator has no neighbours. */
#define LONGEST_NAME 63

static size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

static bool same_letter(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Insertions, deletions, replacements and swaps of neighbours that lead from one to the other (optimal alignment). */
static size_t edit_distance(const char *from, size_t from_length, const char *to, size_t to_length)
{
    size_t rows[3][LONGEST_NAME + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];

    for (size_t j = 0; j <= to_length; j++)
        above[j] = j;
    for (size_t i = 1; i <= from_length; i++) {
        row[0] = i;
        for (size_t j = 1; j <= to_length; j++) {
            row[j] = least_of(least_of(above[j], row[j - 1]) + 1, above[j - 1] + !same_letter(from[i - 1], to[j - 1]));
            if (i > 1 && j > 1 && same_letter(from[i - 1], to[j - 2]) && same_letter(from[i - 2], to[j - 1]))
                row[j] = least_of(row[j], before[j - 2] + 1);
        }

        size_t *spare = before;

        before = above;
        above = row;
        row = spare;
    }
    return above[to_length];
}

const char *setting_nearest(const char *name, const char *const *names)
{
    size_t length = strlen(name), best = SIZE_MAX;
    const char *nearest = NULL;

    if (length > LONGEST_NAME)
        return NULL;
    for (; *names != NULL; names++) {
        size_t other = strlen(*names), longer = other > length ? other : length;

        if (other > LONGEST_NAME)
            continue;

        size_t distance = edit_distance(name, length, *names, other);

        /* A third of the letters may differ, but not all of them: "a" is near nothing. */
        if (distance < best && distance <= (longer < 3 ? 1 : longer / 3) && distance < length) {
            best = distance;
            nearest = *names;
        }
    }
    return nearest;
}
