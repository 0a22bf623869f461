/* SPDX-License-Identifier: PostgreSQL */
#include "relation_table.h"

#include <string.h>

#include "relation_column.h"
#include "sql.h"

static const char *configured(const struct shop *shop, enum shop_tables which)
{
    switch (which) {
    case SHOP_USERS:
        return shop->users.table;
    case SHOP_ITEMS:
        return shop->items.table;
    case SHOP_ORDERS:
        return shop->orders.table;
    default:
        return shop->order_items.table;
    }
}

char *relation_table_name(const struct shop *shop, enum shop_tables which)
{
    struct buf name = {0};

    sql_quote_name(&name, configured(shop, which));
    return buf_take(&name);
}

/* By name and not by regclass, which fails without USAGE on the schema: that is one of the things to find out. */
static const char facts_sql[] =
    "SELECT quote_ident(current_user), quote_ident(part[1]), format('%I.%I', part[1], part[2]), n.oid,"
    "       has_schema_privilege(n.oid, 'USAGE'), c.oid, c.relkind, row_security_active(c.oid),"
    "       c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid),"
    "       EXISTS (SELECT FROM pg_partition_tree(c.oid) JOIN pg_class p ON p.oid = relid WHERE p.relkind = 'f'),"
    "       (SELECT quote_ident(min(rulename)) FROM pg_rewrite"
    "        WHERE ev_class = c.oid AND ev_type = '2' AND ev_enabled <> 'D' AND rulename <> '_RETURN'),"
    "       has_any_column_privilege(c.oid, 'UPDATE')"
    "  FROM parse_ident($1) AS part"
    "  LEFT JOIN pg_namespace n ON n.nspname = part[1]"
    "  LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = part[2]";
/* clang-format off */
enum {
    ROLE, SCHEMA, TABLE, SCHEMA_OID, SCHEMA_USAGE, OID, KIND, ROW_SECURITY, PARENT, FOREIGN_PARTITION, UPDATE_RULE,
    MAY_LOCK
};
/* clang-format on */

/* Why rows of such a relation cannot be walked; NULL: they can. */
static const char *kind_refused(char kind)
{
    switch (kind) {
    case 'r':
    case 'p':
        return NULL;
    case 'v':
        return "it is a view; name the table below it, whose rows can be locked and have an index";
    case 'm':
        return "it is a materialized view, which takes no changes; name the table below it";
    case 'f':
        return "it is a foreign table, whose rows this server cannot lock; run roundsman against the server that has "
               "it";
    default:
        return "it is no table";
    }
}

static void examine_kind(struct examined *examined, const struct rows *facts)
{
    const char *refused = kind_refused(rows_text(facts, 0, KIND)[0]);

    if (refused != NULL) {
        examined_refuse(examined, NULL, "%s", refused);
        return;
    }
    if (rows_boolean(facts, 0, PARENT))
        examined_refuse(examined, NULL, "other tables inherit from it, and no index of it covers their rows");
    if (rows_boolean(facts, 0, FOREIGN_PARTITION))
        examined_refuse(examined, NULL, "a partition of it is a foreign table, whose rows this server cannot lock");
    if (examined->which != SHOP_ORDER_ITEMS && rows_text(facts, 0, UPDATE_RULE) != NULL) {
        AUTO_TEXT remedy = mem_print("DROP RULE %s ON %s; -- a trigger can do its work",
                                     rows_text(facts, 0, UPDATE_RULE), examined->table);

        examined_refuse(examined, remedy, "rule %s rewrites updates, so that rows done could not be counted",
                        rows_text(facts, 0, UPDATE_RULE));
    }
    if (rows_boolean(facts, 0, ROW_SECURITY)) {
        AUTO_TEXT remedy = mem_print("ALTER ROLE %s BYPASSRLS;", examined->role);

        examined_refuse(examined, remedy,
                        "row level security applies to role %s: what it hides could not be done, so nothing would be",
                        examined->role);
    }
}

/* What an interrupted CREATE INDEX CONCURRENTLY leaves behind is kept up by every change, and serves no query. */
static int examine_invalid_indexes(struct examined *examined)
{
    AUTO_ROWS rows = NULL;
    int r = db_query(examined->db,
                     "SELECT " EXAMINED_INDEX ", c.relname ~ '_cc(new|old)[0-9]*$'"
                     "  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'"
                     " WHERE NOT (i.indisvalid AND i.indisready)"
                     "   AND (i.indrelid = $1::oid OR i.indrelid IN (SELECT relid FROM pg_partition_tree($1::oid)))"
                     " ORDER BY 1",
                     1, (const char *const[]){examined->oid}, &rows);

    for (int i = 0; r == 0 && i < rows_count(rows); i++) {
        const char *index = rows_text(rows, i, 0);
        AUTO_TEXT remedy = mem_print(
            rows_boolean(rows, i, 1) ? "DROP INDEX CONCURRENTLY %s;" : "REINDEX INDEX CONCURRENTLY %s;", index);

        examined_advise(examined, remedy,
                        "index %s is invalid: it is still being built, or building it was interrupted", index);
    }
    return r;
}

/* Nothing more can be said of a table that is not there. */
static bool found(struct examined *examined, const struct rows *facts)
{
    const char *schema = rows_text(facts, 0, SCHEMA);
    const char *remedy = "create it, or name the right table under `tables` in the file";

    if (rows_text(facts, 0, SCHEMA_OID) == NULL)
        examined_refuse(examined, remedy, "there is no schema %s in this database", schema);
    else if (rows_text(facts, 0, OID) == NULL)
        examined_refuse(examined, remedy, "there is no such table");
    else
        return true;
    return false;
}

static int examine(struct examined *examined, const struct rows *facts)
{
    int r = 0;

    if (!found(examined, facts))
        return 0;
    examine_kind(examined, facts);
    if (!rows_boolean(facts, 0, SCHEMA_USAGE)) {
        AUTO_TEXT remedy = mem_print("GRANT USAGE ON SCHEMA %s TO %s;", rows_text(facts, 0, SCHEMA), examined->role);

        examined_refuse(examined, remedy, "role %s may not use its schema", examined->role);
    }
    if (kind_refused(rows_text(facts, 0, KIND)[0]) == NULL)
        r = relation_columns_examine(examined);
    return r < 0 ? r : examine_invalid_indexes(examined);
}

int relation_table_examine(struct db *db, const struct relation_need *need, enum shop_tables which,
                           struct problems *problems, struct examined *ret)
{
    AUTO_TEXT name = relation_table_name(need->shop, which);
    AUTO_ROWS facts = NULL;
    AUTO_EXAMINED examined = {.db = db, .need = need, .which = which, .problems = problems, .sound = true};
    int r = db_query(db, facts_sql, 1, (const char *const[]){name}, &facts);

    if (r < 0)
        return r;
    examined.role = mem_copy(rows_text(facts, 0, ROLE));
    examined.table = mem_copy(rows_text(facts, 0, TABLE));
    examined.oid = mem_copy(rows_text(facts, 0, OID));
    examined.partitioned = rows_text(facts, 0, KIND) != NULL && rows_text(facts, 0, KIND)[0] == 'p';
    examined.may_lock = rows_boolean(facts, 0, MAY_LOCK);
    r = examine(&examined, facts);
    if (r < 0)
        return r;
    *ret = examined;
    examined = (struct examined){0};
    return 0;
}
