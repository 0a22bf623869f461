/* SPDX-License-Identifier: PostgreSQL */
#include "examined.h"

#include <stdlib.h>

void examined_free(struct examined *examined)
{
    free(examined->oid);
    free(examined->table);
    free(examined->role);
    *examined = (struct examined){0};
}

static void add(struct examined *examined, bool advice, const char *remedy, const char *format, va_list list)
{
    AUTO_BUF text = {0};

    buf_vprint(&text, format, list);
    problems_add(examined->problems, advice, remedy, "table %s: %s", examined->table, text.text);
}

void examined_refuse(struct examined *examined, const char *remedy, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    add(examined, false, remedy, format, list);
    va_end(list);
    examined->sound = false;
}

void examined_advise(struct examined *examined, const char *remedy, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    add(examined, true, remedy, format, list);
    va_end(list);
}

const char *examined_concurrently(const struct examined *examined)
{
    return examined->partitioned ? "" : "CONCURRENTLY ";
}
