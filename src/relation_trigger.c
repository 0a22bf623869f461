/* SPDX-License-Identifier: PostgreSQL */
#include "relation_trigger.h"

#include "relation_table.h"
#include "sql.h"

/*
 * Enabled ones that an update of the columns ($2) of the table ($1, quoted) or a partition fires, whose functions are
 * text that is only understood when it runs. Where our path has the function's own schema and public, it has what the
 * server's default path has. A trigger of a partition that stands for the whole table's is not told again.
 */
static const char triggers_sql[] =
    "SELECT format('%I.%I', n.nspname, c.relname), quote_ident(t.tgname), format('%I.%I', fn.nspname, f.proname),"
    "       array_to_string(array_remove(current_schemas(false), 'pg_catalog'), ', '),"
    "       (SELECT string_agg(quote_ident(name), ', ' ORDER BY position)"
    "          FROM (SELECT name, min(position) AS position"
    "                  FROM unnest(ARRAY[fn.nspname, n.nspname, 'public']) WITH ORDINALITY AS one (name, position)"
    "                 GROUP BY name) AS path)"
    "  FROM parse_ident($1) AS part JOIN pg_namespace rn ON rn.nspname = part[1]"
    "  JOIN pg_class root ON root.relnamespace = rn.oid AND root.relname = part[2]"
    "  JOIN pg_trigger t ON t.tgrelid = root.oid OR t.tgrelid IN (SELECT relid FROM pg_partition_tree(root.oid))"
    "  JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    "  JOIN pg_proc f ON f.oid = t.tgfoid JOIN pg_namespace fn ON fn.oid = f.pronamespace"
    "  JOIN pg_language l ON l.oid = f.prolang AND l.lanname IN ('plpgsql', 'sql')"
    " WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled IN ('O', 'A') AND t.tgtype & 16 <> 0"
    "   AND (cardinality(t.tgattr::int2[]) = 0"
    "        OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.tgrelid AND a.attnum = ANY (t.tgattr::int2[])"
    "                                                AND a.attname = ANY ($2::text[])))"
    "   AND NOT EXISTS (SELECT FROM unnest(f.proconfig) AS setting WHERE setting LIKE 'search_path=%')"
    "   AND NOT ARRAY[fn.nspname, 'public'] <@ current_schemas(false)"
    " ORDER BY c.oid, t.tgname";
enum { TABLE, TRIGGER, FUNCTION, OURS, THEIRS };

/* The tables with columns that a kind of job changes, and which. */
static const struct {
    enum shop_tables table;
    size_t columns[2]; /* offsets of their names in struct shop */
} changed[] = {
    {SHOP_USERS, {offsetof(struct shop, users.points), offsetof(struct shop, users.touched)}},
    {SHOP_ITEMS, {offsetof(struct shop, items.stock), offsetof(struct shop, items.touched)}},
    {SHOP_ORDERS, {offsetof(struct shop, orders.status), offsetof(struct shop, orders.touched)}},
};

static const char *name_at(const struct shop *shop, size_t offset)
{
    return *(const char *const *)(const void *)((const char *)shop + offset);
}

static int examine_table(struct db *db, const char *table, const char *columns, struct problems *advice)
{
    AUTO_ROWS rows = NULL;
    int r = db_query(db, triggers_sql, 2, (const char *const[]){table, columns}, &rows);

    for (int i = 0; r == 0 && i < rows_count(rows); i++) {
        const char *function = rows_text(rows, i, FUNCTION);
        AUTO_TEXT remedy = mem_print("ALTER FUNCTION %s() SET search_path = %s; -- or those of the application",
                                     function, rows_text(rows, i, THEIRS));

        problems_add(
            advice, true, remedy,
            "table %s: trigger %s calls %s, which has no search_path of its own: names without a schema in it are "
            "looked for in %s alone, and where one is not found, the row is left over",
            rows_text(rows, i, TABLE), rows_text(rows, i, TRIGGER), function, rows_text(rows, i, OURS));
    }
    return r;
}

int relation_triggers_examine(struct db *db, const struct relation_need *need, struct problems *advice)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < ELEMENTS(changed) && need->call == NULL; i++) {
        const char *const names[] = {name_at(need->shop, changed[i].columns[0]),
                                     name_at(need->shop, changed[i].columns[1]), NULL};
        AUTO_TEXT table = NULL;
        AUTO_TEXT columns = NULL;

        if ((need->tables & changed[i].table) == 0)
            continue;
        table = relation_table_name(need->shop, changed[i].table);
        columns = sql_array(names);
        r = examine_table(db, table, columns, advice);
    }
    return r;
}
