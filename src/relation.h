/* SPDX-License-Identifier: PostgreSQL */
/*
 * relation: what the catalog says of the user's tables, and whether a kind of job can work on them.
 *
 * One set of rules for --check (every problem) and for the start of a run (the first one). Nothing here logs.
 */
#ifndef RM_RELATION_H
#define RM_RELATION_H

#include <stdbool.h>

#include "db.h"
#include "shop.h"

/* The type of a key, as a run needs it to cast parameters, and to notice when the order of keys may have changed. */
struct key_type {
    char *type;      /* SQL name: "bigint", "character varying(20)" */
    char *collation; /* of the column: "pg_catalog.\"default\"", NULL for a type without collations */
    char *version;   /* the version of the collation (or of the database's default one) that the server's library provides now;
                        NULL where there is none */
};
void key_type_free(struct key_type *);

struct problem {
    bool advice;  /* true: the work can be done all the same, only worse */
    char *text;   /* "table shop.users: column points is nullable" */
    char *remedy; /* exact SQL where there is one ("ALTER TABLE … SET NOT NULL;"), or what to do; NULL: none */
};
struct problems {
    struct problem *list;
    size_t count;
};
void problems_free(struct problems *);
void problems_add(struct problems *, bool advice, const char *remedy, const char *format, ...) PRINTF_LIKE(4, 5);

/*
 * What of the shop a run with these tables and columns needs. `writes` are the columns whose values change, beside
 * `touched`: they may be in no unique index (postgres: it would take FOR UPDATE), not generated, not part of a partition
 * key.
 */
struct relation_need {
    const struct shop *shop;
    unsigned tables;      /* enum shop_tables that are read or written */
    const char *call;     /* cancel's `call` (then items, users and order_items are not touched by us); NULL */
    const char *where;    /* condition of a bulk job; NULL */
    enum shop_tables target; /* the table whose rows a run walks */
    const char *const *statuses, *const *unpaid_statuses; /* cancel; NULL otherwise */
    const char *canceled;
};

/*
 * Looks at all of it: existence, kind of relation (no view, no inheritance parent, no table partitioned by a column that
 * changes), column types, NOT NULLs, the key's unique index (one column, valid, immediate, not partial, NOT NULL),
 * grants of the current role, the type of `touched` and its zone, statuses that the status column can take, `call`'s
 * function and `where` (by EXPLAIN), the index that the candidate scan needs (by the planner's own plan, an advice).
 * Adds to *problems. Returns 0, or -EIO/-EBADMSG (see db_error()) when the catalog could not be read.
 */
int relation_examine(struct db *, const struct relation_need *, struct problems *problems);

/* The key type of the target table. Returns 0, -ENOENT (no such table or column), or -EIO/-EBADMSG. */
int relation_key_type(struct db *, const struct relation_need *, struct key_type *ret);

/* Quoted schemas of the shop's tables, for db_options.search_path. The caller frees it. */
char *relation_search_path(const struct shop *);

#endif
