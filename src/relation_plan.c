/* SPDX-License-Identifier: PostgreSQL */
#include "relation_plan.h"

#include <errno.h>
#include <string.h>

#include "sql.h"

/* ---- where ---- */

/*
 * What the server objects to in `where`, without what only the statement around it has: a place that the user did not write
 * ("at or near "THEN"", "at end of input"), a CASE/WHEN. The caller frees it; "": that it is wrong, and no more.
 */
static char *objection(const char *where, const char *message)
{
    static const char near[] = " at or near \"", end[] = " at end of input", type[] = "argument of CASE/WHEN must be ";
    const char *place = strstr(message, near), *quote = strrchr(message, '"');
    size_t length = strlen(message);

    if (strncmp(message, type, strlen(type)) == 0)
        return mem_print("it must be %s", message + strlen(type));
    if (place != NULL && quote >= place + strlen(near)) {
        AUTO_TEXT named = strndup(place + strlen(near), (size_t)(quote - place) - strlen(near));

        if (strstr(where, named) != NULL)
            return mem_copy(message);
    }
    if (place == NULL)
        place = strstr(message, end);
    if (place != NULL)
        length = (size_t)(place - message);
    return strncmp(message, "syntax error", length) == 0 ? mem_copy("") : strndup(message, length);
}

/*
 * As a run asks it, of the table as t; but as a whole inside CASE: text that is no expression by itself ("a) OR (b")
 * would let rows from outside of a batch into it. The newline ends a comment.
 */
int relation_plan_where(struct examined *examined)
{
    const char *where = examined->need->where, *sqlstate;
    AUTO_TEXT sql = mem_print("EXPLAIN SELECT FROM %s AS t WHERE CASE WHEN %s\nTHEN true END", examined->table, where);
    AUTO_TEXT remedy = NULL;
    AUTO_TEXT said = NULL;
    bool syntax;
    int r = db_query(examined->db, sql, 0, NULL, NULL);

    if (r != -EBADMSG)
        return r;
    sqlstate = db_error(examined->db)->sqlstate;
    syntax = strcmp(sqlstate, "42601") == 0 || strcmp(sqlstate, "42804") == 0; /* that: of another type than boolean */
    said = objection(where, db_error(examined->db)->message);
    if (strcmp(sqlstate, "42501") == 0)
        remedy = mem_print("GRANT SELECT ON %s TO %s;", examined->table, examined->role);
    else
        remedy = mem_copy("mend `where`: it must be an SQL condition on one row of the table");
    examined_refuse(examined, remedy, "where = \"%s\" %s%s%s", where,
                    syntax ? "is no valid SQL condition" : "cannot be evaluated", said[0] != '\0' ? ": " : "", said);
    return 0;
}

/* ---- call ---- */

/* In a WHERE clause of the key's table: the server finds the function as it will, and lets only a boolean one pass. */
int relation_plan_call(struct examined *examined)
{
    const char *call = examined->need->call;
    AUTO_BUF name = {0}, key = {0};
    AUTO_TEXT sql = NULL;
    AUTO_TEXT remedy = NULL;
    const char *sqlstate;
    int r;

    sql_quote_name(&name, call);
    sql_quote(&key, examined->need->shop->orders.key);
    sql = mem_print("EXPLAIN SELECT FROM %s WHERE %s(%s)", examined->table, name.text, key.text);
    r = db_query(examined->db, sql, 0, NULL, NULL);
    if (r != -EBADMSG)
        return r;
    sqlstate = db_error(examined->db)->sqlstate;
    if (strcmp(sqlstate, "42501") == 0) {
        const char *dot = strchr(call, '.');
        AUTO_TEXT schema = dot != NULL ? strndup(call, (size_t)(dot - call)) : mem_copy("public");
        AUTO_BUF quoted = {0};

        sql_quote(&quoted, schema);
        remedy = mem_print("GRANT USAGE ON SCHEMA %s TO %s; GRANT EXECUTE ON FUNCTION %s TO %s;", quoted.text,
                           examined->role, name.text, examined->role);
    } else {
        remedy = mem_print("a function of one argument, the order's key, that RETURNS boolean, named in `call` as "
                           "schema.function");
    }
    examined_refuse(examined, remedy, "call = \"%s\" cannot cancel its rows: %s", call,
                    db_error(examined->db)->message);
    return 0;
}

/* ---- statuses ---- */

/* The status column: its name and type, an enum's labels, and the table's CHECK constraints on it alone. */
static const char status_sql[] =
    "SELECT quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),"
    "       (SELECT format('%I.%I', nspname, typname) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace"
    "         WHERE t.oid = a.atttypid),"
    "       (SELECT string_agg(enumlabel, ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = a.atttypid),"
    "       (SELECT string_agg('(' || pg_get_expr(conbin, conrelid) || ')', ' AND ') FROM pg_constraint"
    "         WHERE conrelid = a.attrelid AND contype = 'c' AND conkey = ARRAY[a.attnum])"
    "  FROM pg_attribute a WHERE a.attrelid = $1::oid AND a.attname = $2";
enum { NAME, TYPE, ENUM, LABELS, CHECKS };

static int examine_status(struct examined *examined, const char *status, const struct rows *column)
{
    const char *labels = rows_text(column, 0, LABELS), *checks = rows_text(column, 0, CHECKS);
    AUTO_BUF literal = {0};
    AUTO_TEXT sql = NULL;
    AUTO_TEXT remedy = NULL;
    AUTO_ROWS rows = NULL;
    int r;

    sql_literal(&literal, status);
    sql = mem_print("SELECT %s::text = %s, %s FROM (SELECT CAST(%s AS %s) AS %s) AS new", rows_text(column, 0, NAME),
                    literal.text, checks != NULL ? checks : "true", literal.text, rows_text(column, 0, TYPE),
                    rows_text(column, 0, NAME));
    r = db_query(examined->db, sql, 0, NULL, &rows);
    if (r == -EIO)
        return r;
    if (labels != NULL)
        remedy = mem_print("ALTER TYPE %s ADD VALUE %s; -- or write one of its values in the file: %s",
                           rows_text(column, 0, ENUM), literal.text, labels);
    else
        remedy = mem_copy("write one that it takes in the file (statuses, unpaid_statuses, canceled)");
    if (r == -EBADMSG)
        examined_refuse(examined, remedy, "column %s cannot be %s: %s", rows_text(column, 0, NAME), literal.text,
                        db_error(examined->db)->message);
    else if (!rows_boolean(rows, 0, 0))
        examined_refuse(examined, remedy, "column %s cannot be %s: its type is %s", rows_text(column, 0, NAME),
                        literal.text, rows_text(column, 0, TYPE));
    else if (rows_text(rows, 0, 1) != NULL && !rows_boolean(rows, 0, 1))
        examined_refuse(examined, remedy, "column %s cannot be %s: CHECK (%s)", rows_text(column, 0, NAME),
                        literal.text, checks);
    return 0;
}

int relation_plan_statuses(struct examined *examined)
{
    const struct relation_need *need = examined->need;
    const char *const canceled[] = {need->call == NULL ? need->canceled : NULL, NULL}; /* a `call` sets what it likes */
    const char *const *const lists[] = {need->statuses, need->unpaid_statuses, canceled};
    AUTO_ROWS column = NULL;
    int r =
        db_query(examined->db, status_sql, 2, (const char *const[]){examined->oid, need->shop->orders.status}, &column);

    for (size_t i = 0; i < ELEMENTS(lists); i++)
        for (const char *const *status = lists[i]; r == 0 && *status != NULL; status++)
            r = examine_status(examined, *status, column);
    return r;
}

/* ---- The scan for stale orders ---- */

/* IN ('CREATED', 'PAYING'), with literals: a parameter would not prove a partial index's condition. */
static void add_statuses(struct buf *sql, const struct relation_need *need)
{
    const char *const *const lists[] = {need->statuses, need->unpaid_statuses};
    const char *separator = "IN (";

    for (size_t i = 0; i < ELEMENTS(lists); i++)
        for (const char *const *status = lists[i]; *status != NULL; status++) {
            buf_add(sql, separator);
            sql_literal(sql, *status);
            separator = ", ";
        }
    buf_add(sql, ")");
}

static char *candidate_scan(const struct examined *examined)
{
    const struct shop_orders *orders = &examined->need->shop->orders;
    AUTO_BUF touched = {0}, key = {0}, status = {0};
    struct buf sql = {0};

    sql_quote(&touched, orders->touched);
    sql_quote(&status, orders->status);
    sql_quote(&key, orders->key);
    buf_print(&sql, "EXPLAIN (FORMAT JSON) SELECT %s, %s FROM %s WHERE %s ", key.text, touched.text, examined->table,
              status.text);
    add_statuses(&sql, examined->need);
    buf_print(&sql, " AND %s < (now() - interval '30 minutes')", touched.text);
    if (orders->touched_zone[0] != '\0') {
        buf_add(&sql, " AT TIME ZONE ");
        sql_literal(&sql, orders->touched_zone);
    }
    buf_print(&sql, " ORDER BY %s, %s LIMIT 256", touched.text, key.text);
    return buf_take(&sql);
}

/*
 * Reads a plan ($1, JSON): whether each scan of the table finds rows by age ($2), and does not wade through those in
 * other states ($3): by a partial index, or by the state as well. Then the indexes it takes, and for the remedy the
 * names (with the key's, $4) as one would write them.
 */
static const char plan_sql[] =
    "SELECT count(*) > 0 AND bool_and(coalesce(node ->> 'Index Cond' ~ names.touched"
    "                                 AND (node ->> 'Filter' ~ names.status IS NOT TRUE OR partial.is), false)),"
    "       string_agg(DISTINCT node ->> 'Index Name', ', '), format('%I, %I', $2::text, $4::text), quote_ident($3)"
    "  FROM jsonb_path_query($1::jsonb, 'strict $.**?(exists(@.\"Relation Name\"))') AS node"
    " CROSS JOIN (SELECT '(^|\\W)' || regexp_replace(quote_ident($2), '(\\W)', '\\\\\\1', 'g') || '(\\W|$)',"
    "                    '(^|\\W)' || regexp_replace(quote_ident($3), '(\\W)', '\\\\\\1', 'g') || '(\\W|$)')"
    "         AS names (touched, status)"
    " CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    "                     WHERE c.relname = node ->> 'Index Name' AND i.indpred IS NOT NULL) AS is) AS partial";

enum { SERVED, INSTEAD, COLUMNS, STATUS };

static void advise_index(struct examined *examined, const struct rows *judged)
{
    const char *instead = rows_text(judged, 0, INSTEAD), *status = rows_text(judged, 0, STATUS);
    AUTO_BUF statuses = {0};
    AUTO_TEXT remedy = NULL;

    add_statuses(&statuses, examined->need);
    remedy = mem_print("CREATE INDEX %sON %s (%s) WHERE %s %s;", examined_concurrently(examined), examined->table,
                       rows_text(judged, 0, COLUMNS), status, statuses.text);
    examined_advise(examined, remedy, "no index finds the stale orders (%s %s, by %s): each scan would read %s%s",
                    status, statuses.text, examined->need->shop->orders.touched,
                    instead != NULL ? "all of index " : "the whole table", instead != NULL ? instead : "");
}

int relation_plan_candidates(struct examined *examined)
{
    const struct shop_orders *orders = &examined->need->shop->orders;
    AUTO_TEXT scan = candidate_scan(examined);
    const struct db_statement statements[] = {
        /* On a table that is small today every plan is cheap: let it count what is looked at, filtered and sorted. */
        {"SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),"
         "       set_config('cpu_operator_cost', '1000', true)",
         0, NULL},
        {scan, 0, NULL},
    };
    struct rows *plans[ELEMENTS(statements)];
    AUTO_ROWS judged = NULL;
    int r = db_transaction(examined->db, statements, ELEMENTS(statements), plans);

    if (r < 0)
        return r;
    r = db_query(examined->db, plan_sql, 4,
                 (const char *const[]){rows_text(plans[1], 0, 0), orders->touched, orders->status, orders->key},
                 &judged);
    for (size_t i = 0; i < ELEMENTS(plans); i++)
        rows_free(plans[i]);
    if (r == 0 && !rows_boolean(judged, 0, SERVED))
        advise_index(examined, judged);
    return r;
}
