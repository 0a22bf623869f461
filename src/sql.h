/* SPDX-License-Identifier: PostgreSQL */
/* sql: names and values as parts of SQL text. Names can be anything; values that can be parameters are none of this. */
#ifndef RM_SQL_H
#define RM_SQL_H

#include "mem.h"

void sql_quote(struct buf *, const char *identifier);         /* "identifier", whatever it holds */
void sql_quote_name(struct buf *, const char *name);          /* "schema.table" or "table" (schema public), quoted part by part */
void sql_literal(struct buf *, const char *value);            /* 'value', E'' where it must; NULL gives NULL */
char *sql_array(const char *const *words);                    /* {"a","b"}: the text form of an array of the words */

#endif
