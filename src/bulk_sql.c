/* SPDX-License-Identifier: PostgreSQL */
#include "bulk_sql.h"

#include <stdlib.h>

#include "sql.h"

static const char *keep(struct change *change, char *text)
{
    change->texts[change->text_count++] = text;
    return text;
}

const char *bulk_value(struct change *change, const struct task *task, const char *name)
{
    change->values[change->value_count++] =
        keep(change, mem_print("%lld", (long long)setting_integer(&task->settings, name)));
    return keep(change, mem_print("$%zu::bigint", change->next++));
}

static void add_only(struct change *change, const struct task *task)
{
    if (task->only == NULL)
        return;
    change->only = change->next++;
    change->values[change->value_count++] = keep(change, sql_array((const char *const *)task->only));
}

struct change bulk_change(const struct task *task, size_t fixed)
{
    struct change change = {.next = fixed + 1};

    task->kind->change(task, &change);
    add_only(&change, task);
    return change;
}

struct change bulk_walk(const struct task *task, size_t fixed)
{
    struct change change = {.next = fixed + 1};

    task->kind->change(task, &change);
    change.next = fixed + 1; /* a parameter that a statement does not use has no type that the server could find out */
    change.value_count = 0;
    add_only(&change, task);
    return change;
}

void bulk_change_free(struct change *change)
{
    buf_free(&change->value);
    buf_free(&change->needs);
    for (size_t i = 0; i < change->text_count; i++)
        free(change->texts[i]);
    *change = (struct change){0};
}

static void add_key(struct buf *sql, const struct change *change)
{
    buf_add(sql, "t.");
    sql_quote(sql, change->key);
}

static void add_table(struct buf *sql, const struct change *change)
{
    sql_quote_name(sql, change->table);
    buf_add(sql, " AS t");
}

/* "t.key <= $6", as long as the gate is open. As a bound of the scan it costs no row anything, where EXISTS would. */
static void add_gated(struct buf *sql, const struct task *task, const struct change *change)
{
    buf_add(sql, " AND ");
    add_key(sql, change);
    buf_print(sql, " <= (SELECT $6::%s FROM rm_gate)", task->key.type);
}

/* The rows of a key range that a run is about: after the lower key, up to and with parameter `upper`. */
static void add_range(struct buf *sql, const struct task *task, const struct change *change, size_t upper, bool lower)
{
    add_key(sql, change);
    buf_print(sql, " <= $%zu::%s", upper, task->key.type);
    if (lower) {
        buf_add(sql, " AND ");
        add_key(sql, change);
        buf_print(sql, " > $%zu::%s", change->next, task->key.type);
    }
    if (change->only != 0) {
        buf_add(sql, " AND ");
        add_key(sql, change);
        buf_print(sql, " = ANY ($%zu::%s[])", change->only, task->key.type);
    }
}

/*
 * A user's condition may end in a comment: hence the newline. Inside CASE it is tested on the rows of a range, and no more:
 * no index on its columns and no join takes the place of the walk by key, whose order is that of the locks.
 */
static void add_where(struct buf *sql, const struct task *task)
{
    if (task->where != NULL)
        buf_print(sql, " AND CASE WHEN (%s\n) THEN true END", task->where);
}

static void add_needs(struct buf *sql, const struct change *change)
{
    if (change->needs.length > 0)
        buf_print(sql, " AND %s", change->needs.text);
}

static void add_set(struct buf *sql, const struct change *change)
{
    buf_add(sql, " SET ");
    sql_quote(sql, change->column);
    buf_print(sql, " = %s", change->value.text);
    work_touched(sql, change->touched, change->zone);
}

static void add_update(struct buf *sql, const struct change *change)
{
    buf_add(sql, "UPDATE ");
    add_table(sql, change);
    add_set(sql, change);
}

#define CHANGED "(SELECT count(*) FROM rm_change)"
#define VERIFIED "(SELECT rows FROM rm_sure)" /* after add_verified() */

/* The rows of the range, whether they need the change or not: those that it does not touch are counted as skipped. */
static void add_seen(struct buf *sql, const struct task *task, const struct change *change, bool lower)
{
    buf_add(sql, ", rm_seen AS (SELECT count(*) AS rows FROM ");
    add_table(sql, change);
    buf_add(sql, " WHERE ");
    add_range(sql, task, change, 6, lower);
    add_gated(sql, task, change);
    add_where(sql, task);
    buf_add(sql, ")");
}

/* WHERE: the rows to change, of the range, that need it. */
static void add_wanting(struct buf *sql, const struct task *task, const struct change *change, bool lower)
{
    buf_add(sql, " WHERE ");
    add_range(sql, task, change, 6, lower);
    add_gated(sql, task, change);
    add_where(sql, task);
    add_needs(sql, change);
}

static void add_todo(struct buf *sql, const struct task *task, const struct change *change, bool lower,
                     const char *more)
{
    buf_add(sql, " FROM ");
    add_table(sql, change);
    add_wanting(sql, task, change, lower);
    buf_print(sql, "%s ORDER BY ", more);
    add_key(sql, change);
}

/* How many of rm_change became what rm_held wanted; anything but all of them is an error. */
static void add_sure(struct buf *sql, const char *ledger)
{
    ledger_sql(sql, ledger,
               ", rm_sure AS MATERIALIZED (SELECT CASE WHEN count(*) = (SELECT count(*) FROM rm_held) THEN count(*)"
               " ELSE ledger.refuse('" LEDGER_ROW
               "', 'a trigger or a rule swallowed the change, or made another of it')::integer"
               " END AS rows FROM rm_change JOIN rm_held USING (row_key) WHERE rm_change.made = rm_held.wanted)");
}

static void add_returning(struct buf *sql, const struct change *change)
{
    buf_add(sql, " RETURNING ");
    add_key(sql, change);
    buf_add(sql, " AS row_key, t.");
    sql_quote(sql, change->column);
    buf_add(sql, " AS made)");
}

/*
 * The change in two steps: the rows are locked, which says what has to become of them, and then changed, which says what did.
 * The second goes over the range once more with a hash of what is held: a join would look each key up in the index. IS TRUE
 * keeps it from one.
 */
static void add_verified(struct buf *sql, const struct task *task, const struct change *change, const char *ledger,
                         bool lower, const char *lock)
{
    buf_add(sql, ", rm_held AS MATERIALIZED (SELECT ");
    add_key(sql, change);
    buf_print(sql, " AS row_key, %s AS wanted", change->value.text);
    add_todo(sql, task, change, lower, "");
    buf_print(sql, " FOR NO KEY UPDATE OF t%s), rm_change AS (", lock);
    add_update(sql, change);
    buf_add(sql, " WHERE ");
    add_range(sql, task, change, 6, lower);
    buf_add(sql, " AND (");
    add_key(sql, change);
    buf_add(sql, " IN (SELECT row_key FROM rm_held)) IS TRUE");
    add_returning(sql, change);
    add_sure(sql, ledger);
}

char *bulk_bounds_sql(const struct task *task, const struct change *change, bool lower)
{
    struct buf sql = {0};

    buf_add(&sql, "SELECT ");
    add_key(&sql, change);
    buf_add(&sql, "::text FROM ");
    add_table(&sql, change);
    buf_add(&sql, " WHERE ");
    add_range(&sql, task, change, 1, lower);
    buf_add(&sql, " ORDER BY ");
    add_key(&sql, change);
    buf_add(&sql, " OFFSET $2::bigint LIMIT 1");
    return buf_take(&sql);
}

char *bulk_middle_sql(const struct task *task, const struct change *change, double percent)
{
    struct buf sql = {0};

    buf_add(&sql, "SELECT (percentile_disc(0.5) WITHIN GROUP (ORDER BY ");
    add_key(&sql, change);
    buf_add(&sql, "))::text, count(*) FROM ");
    add_table(&sql, change);
    buf_print(&sql, " TABLESAMPLE SYSTEM (%.4f) WHERE ", percent);
    add_key(&sql, change);
    buf_print(&sql, " < $1::%s AND ", task->key.type);
    add_key(&sql, change);
    buf_print(&sql, " > $2::%s", task->key.type);
    return buf_take(&sql);
}

/* The plain form: one step, and the number of changed rows is what it is. With `sparing`, all but rm_stuck's. */
static void add_plain(struct buf *sql, const struct task *task, const struct change *change, bool lower, bool sparing)
{
    buf_add(sql, ", rm_change AS (");
    add_update(sql, change);
    add_wanting(sql, task, change, lower);
    if (sparing) {
        buf_add(sql, " AND NOT (");
        add_key(sql, change);
        buf_add(sql, " IN (SELECT row_key FROM rm_stuck))");
    }
    buf_add(sql, " RETURNING 1)");
}

/* "name AS MATERIALIZED (SELECT key AS row_key FROM … WHERE …": keys of a range, for the caller to narrow down. */
static void add_keys(struct buf *sql, const struct task *task, const struct change *change, const char *name,
                     size_t upper, bool lower)
{
    buf_print(sql, "%s AS MATERIALIZED (SELECT ", name);
    add_key(sql, change);
    buf_add(sql, " AS row_key FROM ");
    add_table(sql, change);
    buf_add(sql, " WHERE ");
    add_range(sql, task, change, upper, lower);
}

/*
 * SKIP LOCKED for all rows costs as much again as their change. Only a row with an xmax can be locked, and few rows have one:
 * those are tried, and what is locked of them is rm_stuck. A lock that is younger than the statement is waited for.
 */
static void add_sparing(struct buf *sql, const struct task *task, const struct change *change, bool lower)
{
    buf_add(sql, ", rm_marked AS MATERIALIZED (SELECT ");
    add_key(sql, change);
    buf_add(sql, " AS row_key");
    add_todo(sql, task, change, lower, " AND t.xmax <> 0");
    buf_add(sql, "), ");
    add_keys(sql, task, change, "rm_free", 6, lower); /* in its range, or each key is looked for in every partition */
    buf_add(sql, " AND ");
    add_key(sql, change);
    buf_add(sql, " = ANY (ARRAY(SELECT row_key FROM rm_marked)) ORDER BY ");
    add_key(sql, change);
    buf_add(sql, " FOR NO KEY UPDATE OF t SKIP LOCKED),"
                 " rm_stuck AS MATERIALIZED (SELECT row_key FROM rm_marked EXCEPT SELECT row_key FROM rm_free)");
    add_plain(sql, task, change, lower, true);
}

/* SKIP LOCKED for all rows, each of which is compared with what it should be. */
static void add_skipping(struct buf *sql, const struct task *task, const struct change *change, const char *ledger,
                         bool lower)
{
    buf_add(sql, ", rm_todo AS MATERIALIZED (SELECT ");
    add_key(sql, change);
    buf_add(sql, " AS row_key");
    add_todo(sql, task, change, lower, "");
    buf_add(sql, ")");
    add_verified(sql, task, change, ledger, lower, " SKIP LOCKED");
    buf_add(sql, ", rm_stuck AS (SELECT row_key FROM rm_todo EXCEPT SELECT row_key FROM rm_held)");
}

char *bulk_change_sql(const struct task *task, const struct change *change, const char *ledger, bool lower)
{
    struct buf sql = {0};
    bool counts = change->needs.length > 0;
    const char *changed = change->watched ? VERIFIED : CHANGED;
    AUTO_TEXT skipped = mem_print("greatest((SELECT rows FROM rm_seen) - %s, 0)", changed);

    buf_add(&sql, "WITH ");
    ledger_add_gate(&sql, ledger);
    if (change->watched)
        add_verified(&sql, task, change, ledger, lower, "");
    else
        add_plain(&sql, task, change, lower, false);
    if (counts)
        add_seen(&sql, task, change, lower);
    buf_add(&sql, " ");
    ledger_add_move(&sql, ledger, changed, counts ? skipped : "0");
    return buf_take(&sql);
}

char *bulk_careful_sql(const struct task *task, const struct change *change, const char *ledger, bool lower)
{
    struct buf sql = {0};
    bool counts = change->needs.length > 0;
    const char *changed = change->marks ? CHANGED : VERIFIED;
    AUTO_TEXT skipped =
        mem_print("greatest((SELECT rows FROM rm_seen) - %s - (SELECT count(*) FROM rm_late), 0)", changed);

    buf_add(&sql, "WITH ");
    ledger_add_gate(&sql, ledger);
    if (change->marks)
        add_sparing(&sql, task, change, lower);
    else
        add_skipping(&sql, task, change, ledger, lower);
    if (counts)
        add_seen(&sql, task, change, lower);
    buf_add(&sql, ", rm_late AS (");
    ledger_add_leave(&sql, ledger);
    buf_add(
        &sql,
        "SELECT $1::bigint, row_key::text, $2::integer, 'locked', 'another session holds a lock on the row', '55P03',"
        " clock_timestamp() + $7::bigint * interval '1 microsecond' FROM rm_stuck RETURNING 1) ");
    ledger_add_move(&sql, ledger, changed, counts ? skipped : "0");
    buf_add(&sql, ", (SELECT count(*) FROM rm_late)");
    return buf_take(&sql);
}

char *bulk_stopped_sql(const struct task *task, const struct change *change, const char *ledger, bool lower)
{
    struct buf sql = {0};

    buf_add(&sql, "WITH ");
    add_keys(&sql, task, change, "rm_last", 1, lower);
    ledger_sql(&sql, ledger,
               " AND t.xmax = (SELECT xmax FROM ledger.lane WHERE run_id = $2::bigint AND lane = $3::integer)");
    buf_add(&sql, " ORDER BY row_key DESC LIMIT 1), ");
    add_keys(&sql, task, change, "rm_first", 1, lower);
    buf_add(&sql, " AND ");
    add_key(&sql, change);
    if (lower)
        buf_print(&sql, " > coalesce((SELECT row_key FROM rm_last), $%zu::%s)", change->next, task->key.type);
    else
        buf_add(&sql, " > (SELECT row_key FROM rm_last)");
    add_where(&sql, task);
    add_needs(&sql, change);
    /* All parameters must be used; this costs nothing. */
    buf_print(&sql, " AND CASE WHEN false THEN %s END IS NULL ORDER BY row_key LIMIT 1), ", change->value.text);
    add_keys(&sql, task, change, "rm_before", 1, lower);
    buf_add(&sql, " AND ");
    add_key(&sql, change);
    buf_add(&sql, " < (SELECT row_key FROM rm_first)) SELECT row_key::text, (SELECT count(*) FROM rm_before),"
                  " (SELECT b.row_key::text FROM rm_before AS b ORDER BY b.row_key DESC LIMIT 1) FROM rm_first");
    return buf_take(&sql);
}

char *bulk_leave_sql(const struct task *task, const struct change *change, const char *ledger, bool lower)
{
    struct buf sql = {0};

    buf_add(&sql, "WITH ");
    ledger_add_gate(&sql, ledger);
    buf_add(&sql, ", rm_late AS (");
    ledger_add_leave(&sql, ledger);
    buf_add(&sql, "SELECT $1::bigint, ");
    add_key(&sql, change);
    buf_add(&sql, "::text, $2::integer, $8::text, $10::text, $9::text,"
                  " clock_timestamp() + $7::bigint * interval '1 microsecond' FROM ");
    add_table(&sql, change);
    buf_add(&sql, " WHERE ");
    add_range(&sql, task, change, 6, lower);
    add_gated(&sql, task, change);
    buf_add(&sql, " RETURNING 1) ");
    ledger_add_move(&sql, ledger, "0", "0");
    return buf_take(&sql);
}

char *bulk_retry_sql(const struct task *task, const struct change *change, const char *ledger)
{
    struct buf sql = {0};

    buf_add(&sql, "WITH rm_target AS MATERIALIZED (SELECT ");
    add_key(&sql, change);
    /* Where the row needs no change any more, what would have become of it may not even be a value. */
    buf_add(&sql, " AS row_key, CASE WHEN true");
    add_where(&sql, task);
    add_needs(&sql, change);
    buf_print(&sql, " THEN %s END AS wanted FROM ", change->value.text);
    add_table(&sql, change);
    buf_add(&sql, " WHERE ");
    add_key(&sql, change);
    buf_print(&sql, " = $6::%s", task->key.type);
    ledger_sql(
        &sql, ledger,
        " AND EXISTS (SELECT 1 FROM ledger.leftover o JOIN ledger.run r ON r.id = o.run_id WHERE r.id = $1::bigint"
        " AND o.key = $2::text AND o.attempts = $3::integer AND r.attempt = $4::integer)"
        " FOR NO KEY UPDATE OF t SKIP LOCKED),"
        " rm_gone AS (DELETE FROM ledger.leftover o USING ledger.run r WHERE r.id = o.run_id AND o.run_id = $1::bigint"
        " AND o.key = $2::text AND o.attempts = $3::integer AND r.attempt = $4::integer"
        " AND (EXISTS (SELECT 1 FROM rm_target) OR NOT EXISTS (SELECT 1 FROM ");
    add_table(&sql, change);
    buf_add(&sql, " WHERE ");
    add_key(&sql, change);
    buf_print(&sql,
              " = $6::%s)) RETURNING 1), rm_held AS MATERIALIZED (SELECT row_key, wanted FROM rm_target"
              " WHERE wanted IS NOT NULL AND EXISTS (SELECT 1 FROM rm_gone)), rm_change AS (",
              task->key.type);
    add_update(&sql, change);
    buf_add(&sql, " FROM rm_held WHERE ");
    add_key(&sql, change);
    buf_add(&sql, " = rm_held.row_key");
    add_returning(&sql, change);
    add_sure(&sql, ledger);
    ledger_sql(&sql, ledger,
               ", rm_lane AS (UPDATE ledger.lane SET rows_done = rows_done + " VERIFIED
               ", rows_skipped = rows_skipped + 1 - " VERIFIED
               " WHERE run_id = $1::bigint AND lane = $5::integer AND EXISTS (SELECT 1 FROM rm_gone))"
               " UPDATE ledger.run SET rows_done = rows_done + " VERIFIED
               ", rows_skipped = rows_skipped + 1 - " VERIFIED
               " WHERE id = $1::bigint AND EXISTS (SELECT 1 FROM rm_gone) RETURNING 1");
    return buf_take(&sql);
}

/* WHERE, without a range. */
static void add_all(struct buf *sql, const struct task *task, const struct change *change)
{
    buf_add(sql, " WHERE true");
    if (change->only != 0) {
        buf_add(sql, " AND ");
        add_key(sql, change);
        buf_print(sql, " = ANY ($%zu::%s[])", change->only, task->key.type);
    }
    add_where(sql, task);
}

char *bulk_count_sql(const struct task *task, const struct change *change)
{
    const char *needs = change->needs.length > 0 ? change->needs.text : "true";
    struct buf sql = {0};

    buf_print(&sql, "SELECT count(*) FILTER (WHERE %s), coalesce(sum(%s - t.", needs, change->value.text);
    sql_quote(&sql, change->column);
    buf_print(&sql, ") FILTER (WHERE %s), 0), count(*) FILTER (WHERE NOT (%s)) FROM ", needs, needs);
    add_table(&sql, change);
    add_all(&sql, task, change);
    return buf_take(&sql);
}

char *bulk_keys_sql(const struct task *task, const struct change *change)
{
    struct buf sql = {0};

    buf_add(&sql, "SELECT ");
    add_key(&sql, change);
    buf_add(&sql, "::text FROM ");
    add_table(&sql, change);
    add_all(&sql, task, change);
    add_needs(&sql, change);
    /* The parameters are those of bulk_count_sql(), and all must be used: this is always true. */
    buf_print(&sql, " AND (%s) IS NOT DISTINCT FROM (%s) ORDER BY ", change->value.text, change->value.text);
    add_key(&sql, change);
    buf_print(&sql, " LIMIT %d", WORK_PREVIEW_KEYS);
    return buf_take(&sql);
}
