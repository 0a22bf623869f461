/* SPDX-License-Identifier: PostgreSQL */
/* relation_table: a table as a whole: its kind of relation, who may use it, and the indexes it should not have. */
#ifndef RM_RELATION_TABLE_H
#define RM_RELATION_TABLE_H

#include "examined.h"

/* "shop"."users": the configured name of a table, quoted. The caller frees it. */
char *relation_table_name(const struct shop *, enum shop_tables);

/*
 * Adds what is wrong with one table of `need` and with its columns. Returns 0 and sets *ret (the caller frees it), or
 * -EIO/-EBADMSG (see db_error()).
 */
int relation_table_examine(struct db *, const struct relation_need *, enum shop_tables, struct problems *,
                           struct examined *ret);

#endif
