/* SPDX-License-Identifier: PostgreSQL */
/*
 * setting: typed settings, as a table that a kind of job declares and values that a job, a run or --set fills in.
 *
 * One table serves the configuration file (types, defaults, bounds, suggestions), --set NAME=VALUE (from text), and
 * the frozen parameters of a run in the ledger (to and from lists of text). Nothing here logs or knows libconfig.
 */
#ifndef RM_SETTING_H
#define RM_SETTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum setting_type {
    SETTING_INTEGER,  /* int64 */
    SETTING_DURATION, /* microseconds, written "30m" */
    SETTING_SIZE,     /* bytes, written "10GB" */
    SETTING_BOOLEAN,
    SETTING_TEXT,
    SETTING_WORDS, /* a list of texts; integers in the file are taken as their decimal text */
};

struct setting_spec {
    const char *name; /* NULL ends a table */
    enum setting_type type;
    const char *fallback; /* as --set would take it; NULL: unset unless given (setting_find() gives NULL) */
    bool required;        /* an error when not given */
    int64_t least, most;  /* INTEGER, DURATION (microseconds), SIZE; both 0: any */
    const char *const *words; /* TEXT: the only values allowed, NULL-terminated; NULL: any */
    bool may_be_empty;        /* TEXT: "" is a value, too */
    bool may_be_number;       /* TEXT: so is a whole number without quotes */
    const char *reason;       /* why the bounds are what they are, to end their message with; NULL: it is plain */
};

struct setting {
    const struct setting_spec *spec;
    int64_t integer; /* INTEGER, DURATION, SIZE, BOOLEAN (0 or 1) */
    char *text;      /* TEXT */
    char **words;    /* WORDS: NULL-terminated, possibly empty */
};

/* Values for one table of specs: at most one per spec. All zero is empty. */
struct settings {
    struct setting *list;
    size_t count;
};

void settings_free(struct settings *); /* empties it */
struct settings settings_copy(const struct settings *);

/*
 * Sets `name` from text, as after --set: "10000", "30m", "true", "PAYING,CREATED" (WORDS split at commas; "" is the
 * empty list). Returns 0, -ENOENT (no such setting in `specs`; the message suggests the nearest one) or -EINVAL, with
 * *ret_error one sentence without file or line.
 */
int settings_set(struct settings *, const struct setting_spec *specs, const char *name, const char *value, char **ret_error);

/*
 * The same from words already apart (the configuration file's lists, the ledger); `count` is 1 for all other types. A
 * word is refused when settings_set() could not read it back: an empty one, one with a comma or an outer blank.
 */
int settings_set_words(struct settings *, const struct setting_spec *specs, const char *name, size_t count,
                       const char *const *words, char **ret_error);

/*
 * Gives all settings not yet set their fallbacks. Returns 0, or -EINVAL with *ret_error naming the first required one
 * that is missing.
 */
int settings_complete(struct settings *, const struct setting_spec *specs, char **ret_error);

const struct setting *setting_find(const struct settings *, const char *name); /* NULL: not set */
int64_t setting_integer(const struct settings *, const char *name);            /* asserts that it is set */
const char *setting_text(const struct settings *, const char *name);           /* NULL when not set */
const char *const *setting_words(const struct settings *, const char *name);   /* asserts that it is set */

/* The value as one text that settings_set() reads back (WORDS joined by commas); the caller frees it. */
char *setting_print(const struct setting *);

/* The table's entry of that name; NULL: it has none. */
const struct setting_spec *setting_spec_find(const struct setting_spec *specs, const char *name);

/* The name of `names` (NULL-terminated) nearest to `name` by edit distance, case aside, or NULL when none is near. */
const char *setting_nearest(const char *name, const char *const *names);

#endif
