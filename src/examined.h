/* SPDX-License-Identifier: PostgreSQL */
/* examined: one table of the shop while relation looks at it, and how what is found there is put. */
#ifndef RM_EXAMINED_H
#define RM_EXAMINED_H

#include "db.h"
#include "need.h"
#include "problem.h"

struct examined {
    struct db *db;
    const struct relation_need *need;
    enum shop_tables which;
    struct problems *problems;
    char *oid;   /* text */
    char *table; /* shop.users, quoted where SQL needs it */
    char *role;  /* the current one, likewise */
    bool partitioned;
    bool moves;    /* by a column that the job changes, so that no key would help */
    bool may_lock; /* it may UPDATE some column, which a row lock asks for */
    bool sound;    /* statements on it can be planned: nothing was refused so far */
};

/* SQL: the whole name of index i.indexrelid: a regclass leaves out a schema that is in the session's path. */
#define EXAMINED_INDEX                                                                                                 \
    "(SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"      \
    "  WHERE c.oid = i.indexrelid)"

void examined_free(struct examined *);
#define AUTO_EXAMINED __attribute__((cleanup(examined_free))) struct examined

/* Adds a problem of this table. Refused: nothing can be done here before it is mended. Advised: only worse. */
void examined_refuse(struct examined *, const char *remedy, const char *format, ...) PRINTF_LIKE(3, 4);
void examined_advise(struct examined *, const char *remedy, const char *format, ...) PRINTF_LIKE(3, 4);

/* "CONCURRENTLY " where CREATE INDEX can take it: not on a partitioned table. */
const char *examined_concurrently(const struct examined *);

#endif
