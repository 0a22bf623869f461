/* SPDX-License-Identifier: PostgreSQL */
/*
 * table: lines of cells in aligned columns, for people.
 *
 * Cells are collected and written at once, because a column is as wide as its widest cell. What would break a line or
 * drive a terminal (control characters, which may come out of a server's error) is written as a blank. The last column
 * is not padded, and is cut where a terminal's line ends. Never fails.
 */
#ifndef RM_TABLE_H
#define RM_TABLE_H

#include <stdio.h>

#include "mem.h"

struct table_column {
    const char *heading; /* of the first column NULL: the table has no line of headings */
    bool right;          /* numbers */
};

struct table {
    const struct table_column *columns;
    size_t width; /* number of columns */
    char **cells; /* row by row */
    size_t count;
};

/* Appends the next cell. NULL is shown as "-". */
void table_add(struct table *, const char *text);
void table_print(struct table *, const char *format, ...) PRINTF_LIKE(2, 3);

/* Writes the rows. `limit` is the number of characters a line may take, 0 for any: see table_terminal(). */
void table_write(const struct table *, FILE *, size_t limit);
void table_free(struct table *); /* empties it */
#define AUTO_TABLE __attribute__((cleanup(table_free))) struct table

/* How wide the terminal behind `file` is; 0 when it is none. */
size_t table_terminal(FILE *file);

#endif
