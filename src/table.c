/* SPDX-License-Identifier: PostgreSQL */
#include "table.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GAP 2              /* blanks between columns */
#define LEAST_LAST_CELL 20 /* a cell cut shorter says nothing: rather let the line wrap */

static void append(struct table *table, char *cell)
{
    for (char *c = cell; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
    table->cells = mem_resize(table->cells, table->count + 1, sizeof(*table->cells));
    table->cells[table->count++] = cell;
}

void table_add(struct table *table, const char *text)
{
    append(table, mem_copy(text == NULL ? "-" : text));
}

void table_print(struct table *table, const char *format, ...)
{
    AUTO_BUF buf = {0};
    va_list list;

    va_start(list, format);
    buf_vprint(&buf, format, list);
    va_end(list);
    append(table, buf_take(&buf));
}

/* Characters of UTF-8, near enough to columns for names and numbers. */
static size_t characters(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

/* Blanks are owed, and paid only before more text: no line ends in one. */
static void write_cell(FILE *file, const char *text, size_t width, bool right, size_t *owed)
{
    size_t pad = width > characters(text) ? width - characters(text) : 0;

    if (right)
        *owed += pad;
    if (*text != '\0') {
        fprintf(file, "%*s%s", (int)*owed, "", text);
        *owed = 0;
    }
    if (!right)
        *owed += pad;
    *owed += GAP;
}

static void write_cut(FILE *file, const char *text, size_t room, size_t owed)
{
    size_t n = 0;
    const char *end = text;

    if (*text == '\0')
        return;
    for (; *end != '\0'; end++)
        if (((unsigned char)*end & 0xc0) != 0x80 && ++n >= room)
            break;
    if (characters(text) <= room)
        fprintf(file, "%*s%s", (int)owed, "", text);
    else
        fprintf(file, "%*s%.*s…", (int)owed, "", (int)(end - text), text);
}

static void write_row(FILE *file, const struct table *table, const char *const *cells, const size_t *widths,
                      size_t limit)
{
    size_t last = table->width - 1, owed = 0, before = 0;

    for (size_t i = 0; i < last; i++) {
        write_cell(file, cells[i], widths[i], table->columns[i].right, &owed);
        before += widths[i] + GAP;
    }
    if (limit != 0 && limit >= before + LEAST_LAST_CELL)
        write_cut(file, cells[last], limit - before, owed);
    else
        write_cell(file, cells[last], 0, false, &owed);
    fputc('\n', file);
}

void table_write(const struct table *table, FILE *file, size_t limit)
{
    size_t *widths = mem_alloc(table->width * sizeof(*widths));
    const char **headings = mem_alloc(table->width * sizeof(*headings));

    for (size_t i = 0; i < table->width; i++) {
        headings[i] = table->columns[i].heading == NULL ? "" : table->columns[i].heading;
        widths[i] = characters(headings[i]);
    }
    for (size_t i = 0; i < table->count; i++) {
        size_t n = characters(table->cells[i]), *width = &widths[i % table->width];

        *width = n > *width ? n : *width;
    }
    if (table->columns[0].heading != NULL)
        write_row(file, table, headings, widths, limit);
    for (size_t i = 0; i + table->width <= table->count; i += table->width)
        write_row(file, table, (const char *const *)&table->cells[i], widths, limit);
    free(headings);
    free(widths);
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    table->cells = NULL;
    table->count = 0;
}

size_t table_terminal(FILE *file)
{
    struct winsize size;

    if (!isatty(fileno(file)) || ioctl(fileno(file), TIOCGWINSZ, &size) != 0)
        return 0;
    return size.ws_col;
}
