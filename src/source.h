/* SPDX-License-Identifier: PostgreSQL */
/*
 * source: a configuration file and all that it includes, as one text whose every line knows where it came from, and the
 * list of what is wrong with it.
 *
 * libconfig could include files by itself, but from one directory only, and it wraps integers in silence. So the files
 * are joined here, each opened once: what is checked (its mode, its integers) is what is parsed.
 */
#ifndef RM_SOURCE_H
#define RM_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "mem.h"

struct source_file {
    char *path;
    mode_t mode; /* as fstat() found it */
};

struct source_line {
    size_t file;   /* in `files` */
    unsigned line; /* from 1; 0: the file as a whole */
};

struct source_problem {
    struct source_line at;
    size_t order; /* of being found */
    char *text;
};

struct source {
    struct buf text;
    struct source_file *files; /* the first is the file itself */
    size_t file_count;
    struct source_line *lines; /* lines[0] is the first line of `text` */
    size_t line_count;
    struct source_problem *problems;
    size_t problem_count;
};

/* What an integer that fits nothing is replaced by in `text` (no setting is a float), so that it is reported once. */
#define SOURCE_MISFIT 1e300

/*
 * Reads `path` and what it includes into an all-zero source. Returns 0 when `text` is worth parsing (there may be
 * problems all the same), or -EINVAL when a part is missing.
 */
int source_read(struct source *, const char *path);
void source_free(struct source *);

/* Adds a problem of line `line` of `text` (from 1; 0: of the first file as a whole). */
void source_report(struct source *, unsigned line, const char *format, ...) PRINTF_LIKE(3, 4);

/* Where line `line` of `text` (from 1) was read. */
struct source_line source_line_at(const struct source *, unsigned line);
const struct source_file *source_file_at(const struct source *, unsigned line);

/* The problems as "FILE:LINE: message" lines in the order of files and lines; "" when there are none. */
char *source_problems(struct source *);

#endif
