/* SPDX-License-Identifier: PostgreSQL */
#include "relation_key.h"

#include <errno.h>
#include <string.h>

/*
 * Every unique index with the column, and why it is not the one to walk; the one that is sorts first, with no reason.
 * An index in another order than the column's own (another collation or operator class) cannot serve a walk by key.
 */
static const char indexes_sql[] =
    "SELECT " EXAMINED_INDEX ","
    "       CASE WHEN i.indnkeyatts > 1 THEN 'is on ' || i.indnkeyatts || ' columns'"
    "            WHEN i.indpred IS NOT NULL THEN 'is partial'"
    "            WHEN NOT i.indimmediate THEN 'is deferrable'"
    "            WHEN NOT (i.indisvalid AND i.indisready) THEN 'is invalid'"
    "            WHEN i.indcollation[0] <> a.attcollation THEN 'has another collation than the column'"
    "            WHEN NOT EXISTS (SELECT FROM pg_opclass o JOIN pg_opclass d"
    "                                 ON d.opcmethod = o.opcmethod AND d.opcintype = o.opcintype AND d.opcdefault"
    "                                AND d.opcfamily = o.opcfamily"
    "                              WHERE o.oid = i.indclass[0]) THEN 'is not in the order of the column''s type'"
    /* Without them < would quietly be another type's: a citext's, as of text, in another order than its index has. */
    "            WHEN EXISTS (SELECT FROM pg_opclass o JOIN pg_amop m ON m.amopfamily = o.opcfamily"
    "                             AND m.amoplefttype = o.opcintype AND m.amoprighttype = o.opcintype"
    "                         WHERE o.oid = i.indclass[0] AND NOT pg_operator_is_visible(m.amopopr))"
    "                 THEN 'compares by operators in another schema than those of the tables'"
    "       END AS reason,"
    "       (SELECT format('ALTER EXTENSION %I SET SCHEMA %I;', e.extname, n.nspname)"
    "          FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid,"
    "               pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace"
    "         WHERE d.classid = 'pg_opclass'::regclass AND d.objid = i.indclass[0] AND d.deptype = 'e'"
    "           AND t.oid = $1::oid)"
    "  FROM pg_attribute a JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisunique AND i.indislive"
    "   AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])"
    " WHERE a.attrelid = $1::oid AND quote_ident(a.attname) = $2"
    " ORDER BY reason NULLS FIRST, 1";

/* A type without an order has no such index either, but making one is no remedy. */
static int type_without_order(struct examined *examined, const char *column, bool *ret)
{
    AUTO_TEXT sql = mem_print("EXPLAIN SELECT %s FROM %s ORDER BY %s", column, examined->table, column);
    int r = db_query(examined->db, sql, 0, NULL, NULL);

    *ret = r == -EBADMSG && strcmp(db_error(examined->db)->sqlstate, "42883") == 0;
    return r == -EBADMSG ? 0 : r;
}

/*
 * A unique index of a partitioned table has all columns of the partition key, whatever is created. *ret: the partition key
 * (the caller frees it) where that is not the column alone; NULL.
 */
static int partitioned_otherwise(struct examined *examined, const char *column, char **ret)
{
    AUTO_ROWS rows = NULL;
    int r = db_query(
        examined->db,
        "SELECT pg_get_partkeydef($1::oid) FROM pg_partitioned_table p"
        " WHERE partrelid = $1::oid AND EXISTS (SELECT FROM unnest(partattrs::int2[]) AS k (number)"
        "                                        LEFT JOIN pg_attribute a ON attrelid = $1::oid AND attnum = number"
        "                                       WHERE number = 0 OR quote_ident(attname) <> $2)",
        2, (const char *const[]){examined->oid, column}, &rows);

    *ret = r == 0 && rows_count(rows) > 0 ? mem_copy(rows_text(rows, 0, 0)) : NULL;
    return r;
}

/* That there is none, why the indexes with the column are none, and how to make one. */
static void refuse(struct examined *examined, const char *column, const struct rows *indexes)
{
    AUTO_BUF reasons = {0};
    AUTO_TEXT remedy = NULL;

    for (int i = 0; i < rows_count(indexes); i++) {
        const char *index = rows_text(indexes, i, 0), *reason = rows_text(indexes, i, 1),
                   *mend = rows_text(indexes, i, 2);

        buf_print(&reasons, "%s%s %s", i == 0 ? " (" : ", ", index, reason);
        if (strcmp(reason, "is invalid") == 0 && remedy == NULL)
            remedy = mem_print("REINDEX INDEX CONCURRENTLY %s;", index);
        else if (strncmp(reason, "compares", strlen("compares")) == 0 && remedy == NULL)
            remedy = mem_copy(mend != NULL ? mend : "create the type in the tables' schema");
    }
    if (reasons.length > 0)
        buf_add(&reasons, ")");
    if (remedy == NULL)
        remedy =
            mem_print("CREATE UNIQUE INDEX %sON %s (%s);", examined_concurrently(examined), examined->table, column);
    examined_refuse(
        examined, remedy,
        "column %s has no unique index of its own that is valid, immediate and not partial, to walk the table by%s",
        column, reasons.length > 0 ? reasons.text : "");
}

int relation_key_examine(struct examined *examined, const char *column)
{
    AUTO_ROWS indexes = NULL;
    AUTO_TEXT partitions = NULL;
    bool orderless;
    int r = db_query(examined->db, indexes_sql, 2, (const char *const[]){examined->oid, column}, &indexes);

    if (r < 0 || (rows_count(indexes) > 0 && rows_text(indexes, 0, 1) == NULL))
        return r;
    r = type_without_order(examined, column, &orderless);
    if (r == 0)
        r = partitioned_otherwise(examined, column, &partitions);
    if (r < 0)
        return r;
    if (orderless)
        examined_refuse(examined, "name a column of an ordered type as its key",
                        "column %s cannot be its key: its type has no order", column);
    else if (partitions != NULL)
        examined_refuse(
            examined, NULL,
            "it is partitioned by %s, so that it can have no unique index on column %s alone, to walk it by",
            partitions, column);
    else
        refuse(examined, column, indexes);
    return 0;
}
