/* SPDX-License-Identifier: PostgreSQL */
#include "relation.h"

#include <errno.h>
#include <stdlib.h>

#include "relation_plan.h"
#include "relation_table.h"

void key_type_free(struct key_type *key)
{
    free(key->type);
    free(key->collation);
    free(key->version);
    *key = (struct key_type){0};
}

/* ---- Keys and the columns that refer to them ---- */

/*
 * Which columns hold keys of which tables. They need not be of one type, but comparable without a cast of ours: of the
 * same, or both whole or both text.
 */
static const struct reference {
    enum shop_tables from, to;
    size_t column, key; /* offsets of their names in struct shop */
} references[] = {
    {SHOP_ORDERS, SHOP_USERS, offsetof(struct shop, orders.user), offsetof(struct shop, users.key)},
    {SHOP_ORDER_ITEMS, SHOP_ORDERS, offsetof(struct shop, order_items.order), offsetof(struct shop, orders.key)},
    {SHOP_ORDER_ITEMS, SHOP_ITEMS, offsetof(struct shop, order_items.item), offsetof(struct shop, items.key)},
};

static const char reference_sql[] =
    "SELECT format_type(c.atttypid, c.atttypmod), format_type(k.atttypid, k.atttypmod),"
    "       ct.oid = kt.oid OR ct.typcategory = kt.typcategory AND ct.typcategory IN ('N', 'S')"
    "  FROM pg_attribute c JOIN pg_type ct0 ON ct0.oid = c.atttypid"
    "  JOIN pg_type ct ON ct.oid = CASE ct0.typtype WHEN 'd' THEN ct0.typbasetype ELSE ct0.oid END,"
    "       pg_attribute k JOIN pg_type kt0 ON kt0.oid = k.atttypid"
    "  JOIN pg_type kt ON kt.oid = CASE kt0.typtype WHEN 'd' THEN kt0.typbasetype ELSE kt0.oid END"
    " WHERE c.attrelid = $1::oid AND c.attname = $2 AND k.attrelid = $3::oid AND k.attname = $4";

static int examine_reference(struct examined *from, const struct examined *to, const struct reference *reference)
{
    const struct shop *shop = from->need->shop;
    const char *column = *(const char *const *)(const void *)((const char *)shop + reference->column);
    const char *key = *(const char *const *)(const void *)((const char *)shop + reference->key);
    AUTO_ROWS rows = NULL;
    int r = db_query(from->db, reference_sql, 4, (const char *const[]){from->oid, column, to->oid, key}, &rows);

    if (r == 0 && rows_count(rows) == 1 && !rows_boolean(rows, 0, 2))
        examined_refuse(from, NULL, "column %s is of type %s and cannot hold a key of %s, whose %s is of type %s",
                        column, rows_text(rows, 0, 0), to->table, key, rows_text(rows, 0, 1));
    return r;
}

/* ---- All of a need ---- */

static const enum shop_tables tables[] = {SHOP_USERS, SHOP_ITEMS, SHOP_ORDERS, SHOP_ORDER_ITEMS};

/* The examined table, NULL when the need has it not or it is not there. */
static struct examined *find(struct examined *examined, enum shop_tables which)
{
    for (size_t i = 0; i < ELEMENTS(tables); i++)
        if (tables[i] == which && examined[i].oid != NULL)
            return &examined[i];
    return NULL;
}

static int examine_statements(struct examined *target)
{
    const struct relation_need *need = target->need;
    int r = 0;

    if (need->where != NULL)
        r = relation_plan_where(target);
    if (r == 0 && need->call != NULL)
        r = relation_plan_call(target);
    if (r == 0 && need->statuses != NULL)
        r = relation_plan_statuses(target);
    if (r == 0 && need->statuses != NULL && target->sound)
        r = relation_plan_candidates(target);
    return r;
}

static int examine(struct db *db, const struct relation_need *need, struct problems *problems,
                   struct examined *examined)
{
    struct examined *target;
    int r = 0;

    for (size_t i = 0; r == 0 && i < ELEMENTS(tables); i++)
        if ((need->tables & tables[i]) != 0)
            r = relation_table_examine(db, need, tables[i], problems, &examined[i]);
    for (size_t i = 0; r == 0 && i < ELEMENTS(references); i++) {
        struct examined *from = find(examined, references[i].from), *to = find(examined, references[i].to);

        if (from != NULL && to != NULL)
            r = examine_reference(from, to, &references[i]);
    }
    target = find(examined, need->target);
    if (r == 0 && target != NULL && target->sound)
        r = examine_statements(target);
    return r;
}

int relation_examine(struct db *db, const struct relation_need *need, struct problems *problems)
{
    struct examined examined[ELEMENTS(tables)] = {0};
    int r = examine(db, need, problems, examined);

    for (size_t i = 0; i < ELEMENTS(tables); i++)
        examined_free(&examined[i]);
    return r;
}

/* ---- The key's type ---- */

int relation_key_type(struct db *db, const struct relation_need *need, struct key_type *ret)
{
    const char *key = need->target == SHOP_USERS   ? need->shop->users.key
                      : need->target == SHOP_ITEMS ? need->shop->items.key
                                                   : need->shop->orders.key;
    AUTO_TEXT table = relation_table_name(need->shop, need->target);
    AUTO_ROWS rows = NULL;
    AUTO_TEXT sql = mem_print(
        "SELECT format_type(a.atttypid, -1), quote_ident(n.nspname) || '.' || quote_ident(l.collname),"
        "       CASE l.collprovider WHEN 'd' THEN %s ELSE pg_collation_actual_version(l.oid) END"
        "  FROM parse_ident($1) AS part"
        "  JOIN pg_namespace tn ON tn.nspname = part[1]"
        "  JOIN pg_class t ON t.relnamespace = tn.oid AND t.relname = part[2]"
        "  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped"
        "  LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = l.collnamespace",
        db_server_version(db) >= 150000
            ? "(SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database())"
            : "NULL::text");
    int r = db_query(db, sql, 2, (const char *const[]){table, key}, &rows);

    if (r < 0)
        return r;
    if (rows_count(rows) == 0)
        return -ENOENT;
    *ret = (struct key_type){
        .type = mem_copy(rows_text(rows, 0, 0)),
        .collation = mem_copy(rows_text(rows, 0, 1)),
        .version = mem_copy(rows_text(rows, 0, 2)),
    };
    return 0;
}
