/* SPDX-License-Identifier: PostgreSQL */
/*
 * relation: what the catalog says of the user's tables, and whether a kind of job can work on them.
 *
 * One set of rules for --check (every problem) and for the start of a run (the first one). Nothing here logs.
 */
#ifndef RM_RELATION_H
#define RM_RELATION_H

#include "db.h"
#include "need.h"
#include "problem.h"

/* The type of a key, as a run needs it to cast parameters and to notice that the order of keys may have changed. */
struct key_type {
    char *type;      /* SQL name: "bigint", "character varying"; no length, to which a cast would cut silently */
    char *collation; /* of the column: "pg_catalog.\"default\"", NULL for a type without collations */
    /* Of that collation (or of the database's default one), as the server's library provides it now; NULL where there
       is none (PostgreSQL 14 knows none of the database's default). */
    char *version;
};
void key_type_free(struct key_type *);

/*
 * Looks at all of it: existence, kind of relation (no view, no inheritance parent, no table partitioned by a column
 * that changes), column types and whether they hold the settings' values, NOT NULLs, the key's unique index (one
 * column, valid, immediate, not partial, NOT NULL), grants of the current role, the type of `touched` and its zone,
 * statuses that the status column can take, `call`'s function and `where` (by EXPLAIN), the index that the candidate
 * scan needs (by the planner's own plan, an advice). Statements are planned only on tables in which nothing else was
 * found. Adds to *problems. Returns 0, or -EIO/-EBADMSG (see db_error()) when the catalog could not be read. The session
 * needs relation_search_path(), as a run's has it.
 */
int relation_examine(struct db *, const struct relation_need *, struct problems *problems);

/* The key type of the target table. Returns 0, -ENOENT (no such table or column), or -EIO/-EBADMSG. */
int relation_key_type(struct db *, const struct relation_need *, struct key_type *ret);

#endif
