/* SPDX-License-Identifier: PostgreSQL */
#include "relation_column.h"

#include <errno.h>
#include <string.h>

#include "relation_key.h"
#include "relation_value.h"
#include "sql.h"

enum type_class { TYPE_ANY, TYPE_NUMBER, TYPE_STATUS, TYPE_MOMENT };

/* Which types (by pg_type.typname, a domain's by what is below it) a column may have. */
static const struct {
    const char *names[5]; /* of pg_type */
    char category;        /* of pg_type.typcategory: all of these, too */
    const char *allowed;
    const char *remedy; /* the type to change it to */
} type_classes[] = {
    [TYPE_NUMBER] = {{"int2", "int4", "int8", "numeric"},
                     0,
                     "smallint, integer, bigint or numeric, which add up exactly",
                     "bigint"},
    [TYPE_STATUS] = {{"int2", "int4", "int8"}, 'S', "a text type, an enum or an integer", "text"},
    [TYPE_MOMENT] = {{"timestamptz", "timestamp"}, 0, "timestamp with time zone", "timestamptz"},
};

/* A column that is needed, and what of it. */
struct rule {
    enum shop_tables table;
    size_t name;       /* offset of its name in struct shop */
    size_t zone;       /* TYPE_MOMENT: offset of the name of its zone */
    unsigned together; /* needed only where this table is, too (0: always) */
    enum type_class type;
    bool key, not_null, read, changed;
    bool indexed; /* rows are found by it */
};

#define COLUMN(member) .name = offsetof(struct shop, member)
#define MOMENT(member)                                                                                                 \
    .name = offsetof(struct shop, member), .zone = offsetof(struct shop, member##_zone), .type = TYPE_MOMENT

static const struct rule rules[] = {
    {SHOP_USERS, COLUMN(users.key), .key = true, .not_null = true, .read = true},
    {SHOP_USERS, COLUMN(users.points), .type = TYPE_NUMBER, .not_null = true, .read = true, .changed = true},
    {SHOP_USERS, MOMENT(users.touched), .changed = true},
    {SHOP_ITEMS, COLUMN(items.key), .key = true, .not_null = true, .read = true},
    {SHOP_ITEMS, COLUMN(items.stock), .type = TYPE_NUMBER, .not_null = true, .read = true, .changed = true},
    {SHOP_ITEMS, MOMENT(items.touched), .changed = true},
    {SHOP_ORDERS, COLUMN(orders.key), .key = true, .not_null = true, .read = true},
    {SHOP_ORDERS, COLUMN(orders.status), .type = TYPE_STATUS, .not_null = true, .read = true, .changed = true},
    {SHOP_ORDERS, COLUMN(orders.user), .together = SHOP_USERS, .read = true},
    {SHOP_ORDERS, COLUMN(orders.points_spent), .together = SHOP_USERS, .type = TYPE_NUMBER, .not_null = true,
     .read = true},
    {SHOP_ORDERS, MOMENT(orders.touched), .not_null = true, .read = true, .changed = true},
    {SHOP_ORDER_ITEMS, COLUMN(order_items.order), .read = true, .indexed = true},
    {SHOP_ORDER_ITEMS, COLUMN(order_items.item), .not_null = true, .read = true},
    {SHOP_ORDER_ITEMS, COLUMN(order_items.quantity), .type = TYPE_NUMBER, .not_null = true, .read = true},
};

/* One row for each name asked for, in that order. $1: the table's oid, $2: the names. */
static const char columns_sql[] =
    "SELECT quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), base.typname, base.category,"
    /* Since PostgreSQL 18 a column is marked so also by a NOT NULL that is not validated; before, there is no such row. */
    "       a.attnotnull AND pending.name IS NULL OR base.not_null, pending.name,"
    "       a.attgenerated <> '' OR a.attidentity = 'a',"
    "       has_column_privilege($1::oid, a.attnum, 'SELECT'), has_column_privilege($1::oid, a.attnum, 'UPDATE'),"
    "       EXISTS (SELECT FROM pg_partitioned_table p JOIN pg_attribute k ON k.attrelid = p.partrelid"
    "                WHERE p.partrelid = ANY (tree.oids) AND k.attname = a.attname"
    "                  AND k.attnum = ANY (p.partattrs::int2[])),"
    /* A non-partial unique index makes an update of its columns lock FOR UPDATE, which stops foreign-key checks. */
    "       (SELECT min(" EXAMINED_INDEX ")"
    "          FROM pg_index i JOIN pg_attribute k ON k.attrelid = i.indrelid"
    "         WHERE i.indrelid = ANY (tree.oids) AND k.attname = a.attname AND i.indisunique AND i.indislive"
    "           AND i.indpred IS NULL AND i.indexprs IS NULL"
    "           AND k.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])),"
    "       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = $1::oid AND i.indkey[0] = a.attnum AND i.indisvalid"
    "                  AND i.indpred IS NULL)"
    "  FROM unnest($2::text[]) WITH ORDINALITY AS wanted (name, position)"
    " CROSS JOIN (SELECT ARRAY(SELECT relid::oid FROM pg_partition_tree($1::oid)"
    "                          UNION SELECT $1::oid) AS oids) AS tree"
    "  LEFT JOIN pg_attribute a ON a.attrelid = $1::oid AND a.attname = wanted.name"
    "                          AND a.attnum > 0 AND NOT a.attisdropped"
    "  LEFT JOIN LATERAL ("
    "       WITH RECURSIVE type AS ("
    "           SELECT t.*, 1 AS depth FROM pg_type t WHERE t.oid = a.atttypid"
    "           UNION ALL SELECT t.*, depth + 1 FROM type JOIN pg_type t ON t.oid = type.typbasetype"
    "                      WHERE type.typtype = 'd')"
    "       SELECT (array_agg(typname ORDER BY depth DESC))[1] AS typname, bool_or(typnotnull) AS not_null,"
    /* An enum is as good as a text here. */
    "              (array_agg(CASE typtype WHEN 'e' THEN 'S' ELSE typcategory END"
    "                         ORDER BY depth DESC))[1] AS category"
    "         FROM type) AS base ON true"
    "  LEFT JOIN LATERAL ("
    "       SELECT quote_ident(min(conname)) AS name FROM pg_constraint"
    "        WHERE conrelid = a.attrelid AND contype = 'n' AND conkey = ARRAY[a.attnum]"
    "          AND NOT convalidated) AS pending ON true"
    " ORDER BY wanted.position";
/* clang-format off */
enum {
    NAME, TYPE, TYPE_NAME, CATEGORY, NOT_NULL, PENDING, GENERATED, MAY_SELECT, MAY_UPDATE, PARTITION_KEY, UNIQUE_INDEX,
    INDEXED
};
/* clang-format on */

/* A frozen run has NULL for names that its kind does not need. */
static const char *text_at(const struct shop *shop, size_t offset)
{
    const char *text = *(const char *const *)(const void *)((const char *)shop + offset);

    return text != NULL ? text : "";
}

/* Whether `need` wants this column of the table at hand. */
static bool wanted(const struct examined *examined, const struct rule *rule)
{
    return rule->table == examined->which && text_at(examined->need->shop, rule->name)[0] != '\0' &&
           (rule->together == 0 || (rule->together & examined->need->tables) != 0);
}

static bool changed(const struct examined *examined, const struct rule *rule)
{
    return rule->changed && examined->need->call == NULL; /* a `call` changes them itself */
}

static bool type_fits(enum type_class type, const char *name, char category)
{
    if (type == TYPE_ANY || category == type_classes[type].category)
        return true;
    for (const char *const *allowed = type_classes[type].names; *allowed != NULL; allowed++)
        if (strcmp(*allowed, name) == 0)
            return true;
    return false;
}

static int examine_zone(struct examined *examined, const char *column, const char *type, const char *zone)
{
    const char *const parameters[] = {zone};
    int r;

    if (strcmp(type, "timestamptz") == 0) {
        if (zone[0] != '\0')
            examined_refuse(examined, "take touched_zone out of the file",
                            "column %s is a timestamp with time zone, which touched_zone does not fit", column);
        return 0;
    }
    if (zone[0] == '\0') {
        examined_refuse(
            examined, "touched_zone = \"UTC\"; beside touched in the file: the zone in which the application writes it",
            "column %s is a timestamp without time zone, by which a fresh order can look hours old", column);
        return 0;
    }
    r = db_query(examined->db, "SELECT now() AT TIME ZONE $1", 1, parameters, NULL);
    if (r != -EBADMSG)
        return r;
    examined_refuse(examined, "SELECT name FROM pg_timezone_names; -- shows those it knows",
                    "the server does not know the touched_zone \"%s\" of column %s", zone, column);
    return 0;
}

static int examine_type(struct examined *examined, const struct rule *rule, const struct rows *columns, int row)
{
    const char *name = rows_text(columns, row, NAME), *type = rows_text(columns, row, TYPE_NAME);

    if (!type_fits(rule->type, type, rows_text(columns, row, CATEGORY)[0])) {
        AUTO_TEXT remedy = mem_print("ALTER TABLE %s ALTER COLUMN %s TYPE %s; -- this rewrites the table",
                                     examined->table, name, type_classes[rule->type].remedy);

        examined_refuse(examined, remedy, "column %s is of type %s; it has to be %s", name,
                        rows_text(columns, row, TYPE), type_classes[rule->type].allowed);
        return 0;
    }
    return rule->type == TYPE_MOMENT ? examine_zone(examined, name, type, text_at(examined->need->shop, rule->zone))
                                     : 0;
}

/* A column whose values roundsman changes. */
static void examine_changed(struct examined *examined, const struct rows *columns, int row)
{
    const char *name = rows_text(columns, row, NAME), *index = rows_text(columns, row, UNIQUE_INDEX);

    if (rows_boolean(columns, row, GENERATED))
        examined_refuse(examined, NULL, "column %s is generated by the server, and nobody else can set it", name);
    if (rows_boolean(columns, row, PARTITION_KEY))
        examined_refuse(examined, NULL,
                        "it is partitioned by column %s, which the job changes: rows would move under the run", name);
    if (index != NULL)
        examined_refuse(
            examined, NULL,
            "column %s is in the unique index %s: changing it would lock rows so that foreign-key checks wait; "
            "make the index partial, or not unique",
            name, index);
}

static void examine_not_null(struct examined *examined, const struct rows *columns, int row)
{
    const char *name = rows_text(columns, row, NAME), *pending = rows_text(columns, row, PENDING);
    AUTO_TEXT remedy = pending != NULL
                           ? mem_print("ALTER TABLE %s VALIDATE CONSTRAINT %s;", examined->table, pending)
                           : mem_print("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL;", examined->table, name);

    if (rows_boolean(columns, row, NOT_NULL))
        return;
    if (pending != NULL)
        examined_refuse(examined, remedy, "column %s may have NULLs from before its constraint %s, which is NOT VALID",
                        name, pending);
    else
        examined_refuse(examined, remedy, "column %s is nullable", name);
}

static int examine_column(struct examined *examined, const struct rule *rule, const struct rows *columns, int row)
{
    const char *name = rows_text(columns, row, NAME);
    int r;

    if (name == NULL) {
        examined_refuse(examined, "create it, or name the right column under `tables` in the file",
                        "there is no column %s", text_at(examined->need->shop, rule->name));
        return 0;
    }
    r = examine_type(examined, rule, columns, row);
    if (r < 0)
        return r;
    if (rule->not_null)
        examine_not_null(examined, columns, row);
    if (changed(examined, rule))
        examine_changed(examined, columns, row);
    if (changed(examined, rule) && rule->type == TYPE_NUMBER && rule->table == examined->need->target)
        relation_values_examine(examined, name, rows_text(columns, row, TYPE_NAME));
    if (rule->indexed && !rows_boolean(columns, row, INDEXED)) {
        AUTO_TEXT remedy =
            mem_print("CREATE INDEX %sON %s (%s);", examined_concurrently(examined), examined->table, name);

        examined_advise(examined, remedy, "no index on %s: every order canceled would read the whole table", name);
    }
    return rule->key && !examined->moves ? relation_key_examine(examined, name) : 0;
}

static void append(struct buf *list, const char *name)
{
    buf_print(list, "%s%s", list->length > 0 ? ", " : "", name);
}

/* One sentence and one GRANT for all that is missing on the table. */
static void examine_grants(struct examined *examined, const struct rule *const *of_row, const struct rows *columns)
{
    AUTO_BUF selects = {0}, updates = {0}, grant = {0};
    AUTO_TEXT remedy = NULL;

    for (int row = 0; row < rows_count(columns); row++) {
        const char *name = rows_text(columns, row, NAME);
        bool lock = of_row[row]->changed && !examined->may_lock;

        if (name == NULL)
            continue;
        if (of_row[row]->read && !rows_boolean(columns, row, MAY_SELECT))
            append(&selects, name);
        if (changed(examined, of_row[row]) ? !rows_boolean(columns, row, MAY_UPDATE) : lock && updates.length == 0)
            append(&updates, name);
    }
    if (selects.length > 0)
        buf_print(&grant, "SELECT (%s)", selects.text);
    if (updates.length > 0)
        buf_print(&grant, "%sUPDATE (%s)", grant.length > 0 ? ", " : "", updates.text);
    if (grant.length == 0)
        return;
    remedy = mem_print("GRANT %s ON %s TO %s;", grant.text, examined->table, examined->role);
    examined_refuse(examined, remedy, "role %s may not %s", examined->role, grant.text);
}

int relation_columns_examine(struct examined *examined)
{
    const char *names[ELEMENTS(rules) + 1] = {NULL};
    const struct rule *of_row[ELEMENTS(rules)];
    size_t count = 0;
    AUTO_TEXT array = NULL;
    AUTO_ROWS columns = NULL;
    int r;

    for (size_t i = 0; i < ELEMENTS(rules); i++)
        if (wanted(examined, &rules[i])) {
            names[count] = text_at(examined->need->shop, rules[i].name);
            of_row[count++] = &rules[i];
        }
    array = sql_array(names);
    r = db_query(examined->db, columns_sql, 2, (const char *const[]){examined->oid, array}, &columns);
    for (int row = 0; r == 0 && row < rows_count(columns); row++)
        examined->moves |= changed(examined, of_row[row]) && rows_boolean(columns, row, PARTITION_KEY);
    for (int row = 0; r == 0 && row < rows_count(columns); row++)
        r = examine_column(examined, of_row[row], columns, row);
    if (r == 0)
        examine_grants(examined, of_row, columns);
    return r;
}
