/* SPDX-License-Identifier: PostgreSQL */
#include "cancel_sql.h"

#include "sql.h"

#define LOCKED(text) "current_setting('roundsman.order', true) = '=' || " text "::text"

const char *cancel_touched_type(const struct task *task)
{
    return task->shop.orders.touched_zone[0] != '\0' ? "timestamp" : "timestamptz";
}

usec_t cancel_cutoff(const struct task *task)
{
    return task->started - setting_integer(&task->settings, "older_than");
}

/* "t.column" of the orders. */
static void add_column(struct buf *sql, const char *column)
{
    buf_add(sql, "t.");
    sql_quote(sql, column);
}

static void add_orders(struct buf *sql, const struct task *task)
{
    sql_quote_name(sql, task->shop.orders.table);
    buf_add(sql, " AS t");
}

static void add_key(struct buf *sql, const struct task *task)
{
    add_column(sql, task->shop.orders.key);
}

/* "t.status IN ('PAYING')": literals, since a parameter would lose the partial index under a generic plan. */
static void add_status(struct buf *sql, const struct task *task, bool reserved, bool unpaid)
{
    const char *const *lists[] = {setting_words(&task->settings, "statuses"), setting_words(&task->settings, "unpaid_statuses")};
    const bool wanted[] = {reserved, unpaid};
    const char *separator = "";

    if (!(reserved && lists[0][0] != NULL) && !(unpaid && lists[1][0] != NULL)) {
        buf_add(sql, "false");
        return;
    }
    add_column(sql, task->shop.orders.status);
    buf_add(sql, " IN (");
    for (size_t i = 0; i < ELEMENTS(lists); i++)
        for (size_t n = 0; wanted[i] && lists[i][n] != NULL; n++) {
            buf_add(sql, separator);
            sql_literal(sql, lists[i][n]);
            separator = ", ";
        }
    buf_add(sql, ")");
}

/*
 * The order's age, by parameter `cutoff`. A timestamp without zone that the clock passes twice in autumn counts as the
 * later one (AT TIME ZONE takes standard time), so that no order looks older than it is.
 */
static void add_age(struct buf *sql, const struct task *task, int cutoff)
{
    const struct shop_orders *orders = &task->shop.orders;

    add_column(sql, orders->touched);
    if (orders->touched_zone[0] != '\0') {
        buf_add(sql, " AT TIME ZONE ");
        sql_literal(sql, orders->touched_zone);
    }
    buf_print(sql, " <= to_timestamp(0) + $%d::bigint * interval '1 microsecond'", cutoff);
}

static void add_candidate(struct buf *sql, const struct task *task, int cutoff)
{
    add_status(sql, task, true, true);
    buf_add(sql, " AND ");
    add_age(sql, task, cutoff);
}

/* Adds the condition of --only as parameter `number`; returns the number of the next parameter. */
static int add_only(struct buf *sql, const struct task *task, int number)
{
    if (task->only == NULL)
        return number;
    buf_add(sql, " AND ");
    add_key(sql, task);
    buf_print(sql, " = ANY ($%d::%s[])", number, task->key.type);
    return number + 1;
}

char *cancel_edge_sql(const struct task *task)
{
    struct buf sql = {0};

    buf_add(&sql, "SELECT (extract(epoch FROM now()) * 1000000)::bigint, ((now() - $1::bigint * interval '1 microsecond')");
    if (task->shop.orders.touched_zone[0] != '\0') {
        buf_add(&sql, " AT TIME ZONE ");
        sql_literal(&sql, task->shop.orders.touched_zone);
    }
    buf_add(&sql, ")::text");
    return buf_take(&sql);
}

/* FROM and WHERE of the candidates up to the range's end $1; the cutoff is $2. Returns the next parameter's number. */
static int add_scan(struct buf *sql, const struct task *task, int next)
{
    buf_add(sql, " FROM ");
    add_orders(sql, task);
    buf_add(sql, " WHERE ");
    add_column(sql, task->shop.orders.touched);
    buf_print(sql, " <= $1::%s AND ", cancel_touched_type(task));
    add_candidate(sql, task, 2);
    return add_only(sql, task, next);
}

char *cancel_count_sql(const struct task *task)
{
    struct buf sql = {0};

    buf_add(&sql, "SELECT count(*)");
    add_scan(&sql, task, 3);
    return buf_take(&sql);
}

char *cancel_parts_sql(const struct task *task, int lanes)
{
    struct buf sql = {0};

    buf_add(&sql, "SELECT part::text FROM (SELECT DISTINCT part FROM unnest(ARRAY[");
    for (int i = 1; i < lanes; i++) {
        buf_add(&sql, i == 1 ? "(SELECT " : ", (SELECT ");
        add_column(&sql, task->shop.orders.touched);
        add_scan(&sql, task, 3);
        buf_add(&sql, " ORDER BY ");
        add_column(&sql, task->shop.orders.touched);
        buf_print(&sql, " OFFSET %lld LIMIT 1)", (long long)(task->rows * i / lanes));
    }
    buf_print(&sql, "]) AS u(part) WHERE part < $1::%s) AS parts ORDER BY part", cancel_touched_type(task));
    return buf_take(&sql);
}

char *cancel_page_sql(const struct task *task, const char *ledger, enum cancel_from from)
{
    const char *touched_type = cancel_touched_type(task);
    struct buf touched = {0}, key = {0}, sql = {0};
    int next;

    add_column(&touched, task->shop.orders.touched);
    add_key(&key, task);
    buf_print(&sql, "SELECT %s::text, %s::text", key.text, touched.text);
    next = add_scan(&sql, task, 4);
    if (from == CANCEL_FROM_RANGE || from == CANCEL_FROM_CURSOR)
        buf_print(&sql, " AND %s %s $%d::%s", touched.text, from == CANCEL_FROM_RANGE ? ">" : ">=", next, touched_type);
    else if (from == CANCEL_FROM_ORDER)
        buf_print(&sql, " AND (%s, %s) > ($%d::%s, $%d::%s)", touched.text, key.text, next, touched_type, next + 1,
                  task->key.type);
    /* What an earlier run left over is retried as its leftover, and what this one did, too. */
    if (task->only == NULL) {
        ledger_sql(&sql, ledger,
                   " AND NOT EXISTS (SELECT 1 FROM ledger.leftover o JOIN ledger.run r ON r.id = o.run_id"
                   " WHERE r.job_id = $3::integer AND r.state <> 'abandoned' AND o.key = ");
        buf_print(&sql, "%s::text)", key.text);
    } else {
        buf_add(&sql, " AND $3::integer IS NOT NULL");
    }
    buf_print(&sql, " ORDER BY %s, %s LIMIT %d", touched.text, key.text, CANCEL_PAGE);
    buf_free(&touched);
    buf_free(&key);
    return buf_take(&sql);
}

static void add_lock(struct buf *sql, const struct task *task)
{
    /* A select list is computed before rows are locked: hence a part of its own, which is only locked and checked. */
    buf_add(sql, "WITH held AS MATERIALIZED (SELECT 1 FROM ");
    add_orders(sql, task);
    buf_add(sql, " WHERE ");
    add_key(sql, task);
    buf_print(sql, " = $1::%s AND ", task->key.type);
    add_candidate(sql, task, 3);
}

#define LOCK_END \
    " FOR NO KEY UPDATE OF t SKIP LOCKED) SELECT set_config('roundsman.order', '=' || $2::text, true) FROM held"

char *cancel_lock_sql(const struct task *task)
{
    struct buf sql = {0};

    add_lock(&sql, task);
    buf_add(&sql, LOCK_END);
    return buf_take(&sql);
}

/* The leftover and its run are as they were read. */
#define LEFTOVER_IS_THERE \
    "o.run_id = $4::bigint AND o.key = $2::text AND o.attempts = $6::integer AND r.id = o.run_id AND r.attempt = $5::integer"

char *cancel_relock_sql(const struct task *task, const char *ledger)
{
    struct buf sql = {0};

    add_lock(&sql, task);
    ledger_sql(&sql, ledger, " AND EXISTS (SELECT 1 FROM ledger.leftover o, ledger.run r WHERE " LEFTOVER_IS_THERE ")");
    buf_add(&sql, LOCK_END);
    return buf_take(&sql);
}

char *cancel_settle_sql(const struct task *task, const char *ledger)
{
    struct buf sql = {0};

    ledger_sql(&sql, ledger,
               "WITH gone AS (DELETE FROM ledger.leftover o USING ledger.run r WHERE " LEFTOVER_IS_THERE
               " AND (" LOCKED("$2") " OR NOT EXISTS (SELECT 1 FROM ");
    add_orders(&sql, task);
    buf_add(&sql, " WHERE ");
    add_key(&sql, task);
    buf_print(&sql, " = $1::%s AND ", task->key.type);
    add_candidate(&sql, task, 3);
    /* Without the deletion, the change that follows must find the order unlocked. */
    buf_add(&sql, ")) RETURNING 1) SELECT EXISTS (SELECT 1 FROM gone), CASE WHEN EXISTS (SELECT 1 FROM gone) THEN NULL"
                  " ELSE set_config('roundsman.order', '', true) END");
    return buf_take(&sql);
}

char *cancel_call_sql(const struct task *task)
{
    struct buf sql = {0};

    buf_add(&sql, "WITH o AS MATERIALIZED (SELECT ");
    add_key(&sql, task);
    buf_add(&sql, " AS row_key FROM ");
    add_orders(&sql, task);
    buf_add(&sql, " WHERE ");
    add_key(&sql, task);
    buf_print(&sql, " = $1::%s AND " LOCKED("$2") ") SELECT set_config('roundsman.called', coalesce(", task->key.type);
    sql_quote_name(&sql, setting_text(&task->settings, "call"));
    buf_add(&sql, "(o.row_key)::text, 'null'), true) FROM o");
    return buf_take(&sql);
}

/* One more order in the lane's count, gated on the run's attempt: a fenced process cancels nothing. */
static void add_book(struct buf *sql, const char *ledger, const char *done, const char *skipped)
{
    AUTO_TEXT text = mem_print(", book AS (UPDATE ledger.lane SET rows_done = rows_done + %s, rows_skipped = rows_skipped + %s"
                               " WHERE run_id = $3::bigint AND lane = $4::integer AND attempt = $5::integer"
                               " AND EXISTS (SELECT 1 FROM o) RETURNING 1)",
                               done, skipped);

    ledger_sql(sql, ledger, text);
}

static void add_refusal(struct buf *sql, const char *ledger, const char *condition, const char *state, const char *reason)
{
    buf_print(sql, " WHEN %s THEN %s.refuse('%s', ", condition, ledger, state);
    sql_literal(sql, reason);
    buf_add(sql, ")");
}

#define FENCED "NOT EXISTS (SELECT 1 FROM book)"
#define FENCED_REASON "the run was taken up by another process"

static char *check_sql(const struct task *task, const char *ledger)
{
    struct buf sql = {0};
    const char *called = "(current_setting('roundsman.called', true) = 'true')::integer";
    const char *not_called = "(current_setting('roundsman.called', true) = 'false')::integer";

    buf_add(&sql, "WITH o AS MATERIALIZED (SELECT 1 WHERE " LOCKED("$2") "), still AS MATERIALIZED (SELECT 1 FROM ");
    add_orders(&sql, task);
    buf_add(&sql, " WHERE ");
    add_key(&sql, task);
    buf_print(&sql, " = $1::%s AND ", task->key.type);
    add_status(&sql, task, true, true);
    buf_add(&sql, ")");
    add_book(&sql, ledger, called, not_called);
    buf_add(&sql, " SELECT CASE");
    add_refusal(&sql, ledger, FENCED, LEDGER_FENCED, FENCED_REASON);
    add_refusal(&sql, ledger, "current_setting('roundsman.called', true) = 'null'", LEDGER_ROW,
                "the function returned NULL, neither true (canceled) nor false (nothing to cancel)");
    add_refusal(&sql, ledger, "current_setting('roundsman.called', true) = 'true' AND EXISTS (SELECT 1 FROM still)", LEDGER_ROW,
                "the function returned true, but the order's status is still one of those to cancel");
    buf_add(&sql, " ELSE current_setting('roundsman.called', true) = 'true' END FROM o");
    return buf_take(&sql);
}

/*
 * The order's lines by item, their items locked in key order, and their stock given back. Where triggers see the rows first,
 * locking is a step of its own, which says what has to become of the stock.
 */
static void add_stock(struct buf *sql, const struct task *task, const char *ledger, bool watched)
{
    const struct shop_order_items *lines = &task->shop.order_items;
    const struct shop_items *items = &task->shop.items;
    struct buf item = {0}, quantity = {0}, key = {0}, stock = {0}, unknown = {0};

    sql_quote(&item, lines->item);
    sql_quote(&quantity, lines->quantity);
    sql_quote(&key, items->key);
    sql_quote(&stock, items->stock);
    buf_print(sql, ", line AS MATERIALIZED (SELECT %s AS item, sum(%s) AS quantity, CASE", item.text, quantity.text);
    buf_print(&unknown, "bool_or(%s IS NULL)", quantity.text);
    add_refusal(sql, ledger, unknown.text, LEDGER_ROW, "a line of the order has no quantity (NULL)");
    buf_add(sql, " END FROM ");
    sql_quote_name(sql, lines->table);
    buf_add(sql, " WHERE ");
    sql_quote(sql, lines->order);
    buf_print(sql, " = $1::%s AND (SELECT o.reserved FROM o) GROUP BY %s)", task->key.type, item.text);
    if (watched) {
        buf_print(sql, ", held AS MATERIALIZED (SELECT i.%s AS item, line.quantity, i.%s + line.quantity AS wanted FROM line JOIN ",
                  key.text, stock.text);
        sql_quote_name(sql, items->table);
        buf_print(sql, " AS i ON i.%s = line.item ORDER BY i.%s FOR NO KEY UPDATE OF i)", key.text, key.text);
    }
    buf_add(sql, ", stock AS (UPDATE ");
    sql_quote_name(sql, items->table);
    buf_print(sql, " AS i SET %s = i.%s + held.quantity", stock.text, stock.text);
    work_touched(sql, items->touched, items->touched_zone);
    buf_print(sql, " FROM %s WHERE i.%s = held.item RETURNING i.%s %s AS exact)",
              watched ? "held" : "(SELECT item, quantity FROM line ORDER BY item) AS held", key.text, stock.text,
              watched ? "= held.wanted" : "IS NOT NULL");
    buf_add(sql, ", given AS MATERIALIZED (SELECT count(*) FILTER (WHERE exact) AS items FROM stock)");
    buf_free(&item);
    buf_free(&quantity);
    buf_free(&key);
    buf_free(&stock);
    buf_free(&unknown);
}

/* The count of items makes it come after them: order, items, user. */
#define RETURNED "o.reserved AND o.points <> 0 AND (SELECT items FROM given) >= 0"

/*
 * The user's points given back. Where triggers see the row first, the user is locked first, so that what they made of the
 * points can be told from what a live transaction did.
 */
static void add_points(struct buf *sql, const struct task *task, bool watched)
{
    const struct shop_users *users = &task->shop.users;

    struct buf table = {0}, key = {0}, points = {0};

    sql_quote_name(&table, users->table);
    sql_quote(&key, users->key);
    sql_quote(&points, users->points);
    if (watched) {
        buf_print(sql, ", owner AS MATERIALIZED (SELECT u.%s AS row_key, o.points, u.%s + o.points AS wanted FROM o JOIN %s AS u"
                       " ON u.%s = o.owner WHERE " RETURNED " FOR NO KEY UPDATE OF u)",
                  key.text, points.text, table.text, key.text);
        buf_print(sql, ", points AS (UPDATE %s AS u SET %s = u.%s + owner.points", table.text, points.text, points.text);
    } else {
        buf_print(sql, ", points AS (UPDATE %s AS u SET %s = u.%s + o.points", table.text, points.text, points.text);
    }
    work_touched(sql, users->touched, users->touched_zone);
    if (watched)
        buf_print(sql, " FROM owner WHERE u.%s = owner.row_key RETURNING u.%s = owner.wanted AS exact)", key.text, points.text);
    else
        buf_print(sql, " FROM o WHERE u.%s = o.owner AND " RETURNED " RETURNING u.%s IS NOT NULL AS exact)", key.text, points.text);
    buf_free(&table);
    buf_free(&key);
    buf_free(&points);
}

static void add_canceled(struct buf *sql, const struct task *task)
{
    buf_add(sql, ", canceled AS (UPDATE ");
    add_orders(sql, task);
    buf_add(sql, " SET ");
    sql_quote(sql, task->shop.orders.status);
    buf_add(sql, " = ");
    sql_literal(sql, setting_text(&task->settings, "canceled"));
    work_touched(sql, task->shop.orders.touched, task->shop.orders.touched_zone);
    buf_add(sql, " FROM o WHERE ");
    add_key(sql, task);
    buf_add(sql, " = o.row_key RETURNING ");
    add_column(sql, task->shop.orders.status);
    buf_add(sql, " = ");
    sql_literal(sql, setting_text(&task->settings, "canceled"));
    buf_add(sql, " AS exact)");
}

char *cancel_change_sql(const struct task *task, const char *ledger, bool watched)
{
    bool points = task->shop.orders.points_spent[0] != '\0';
    struct buf sql = {0};

    if (setting_text(&task->settings, "call") != NULL)
        return check_sql(task, ledger);
    buf_add(&sql, "WITH o AS MATERIALIZED (SELECT ");
    add_key(&sql, task);
    buf_add(&sql, " AS row_key, ");
    add_status(&sql, task, true, false);
    buf_add(&sql, " AS reserved");
    if (points) {
        buf_add(&sql, ", ");
        add_column(&sql, task->shop.orders.user);
        buf_add(&sql, " AS owner, ");
        add_column(&sql, task->shop.orders.points_spent);
        buf_add(&sql, " AS points");
    }
    buf_add(&sql, " FROM ");
    add_orders(&sql, task);
    buf_add(&sql, " WHERE ");
    add_key(&sql, task);
    buf_print(&sql, " = $1::%s AND " LOCKED("$2") ")", task->key.type);
    add_stock(&sql, task, ledger, watched);
    if (points)
        add_points(&sql, task, watched);
    add_canceled(&sql, task);
    add_book(&sql, ledger, "1", "0");
    buf_add(&sql, " SELECT CASE");
    add_refusal(&sql, ledger, FENCED, LEDGER_FENCED, FENCED_REASON);
    add_refusal(&sql, ledger, "asked.items <> given.items", LEDGER_ROW,
                "not every item of the order got its stock back: an item is gone, or a trigger or a NULL swallowed the change");
    if (points) {
        add_refusal(&sql, ledger, "o.reserved AND o.points IS NULL", LEDGER_ROW,
                    "the order does not say how many points were spent (NULL)");
        add_refusal(&sql, ledger, "o.reserved AND o.points <> 0 AND NOT EXISTS (SELECT 1 FROM points WHERE exact)", LEDGER_ROW,
                    "the user did not get the points back: the user is gone, or a trigger or a NULL swallowed the change");
    }
    add_refusal(&sql, ledger, "NOT EXISTS (SELECT 1 FROM canceled WHERE exact)", LEDGER_ROW,
                "the order's status did not change: a trigger or a rule swallowed the change");
    /* Starting the executor is half of what an order costs: hence few sub-plans, and a verdict that is one row or none. */
    buf_add(&sql, " ELSE true END FROM o, given, (SELECT count(*) AS items FROM line) AS asked");
    return buf_take(&sql);
}

char *cancel_leave_sql(const struct task *task, const char *ledger)
{
    struct buf sql = {0};

    /* The lane's row is held, as in every write of a lane: whoever takes the run up waits until this is committed. */
    ledger_sql(&sql, ledger,
               "WITH rm_gate AS MATERIALIZED (SELECT 1 FROM ledger.lane WHERE run_id = $3::bigint AND lane = $4::integer"
               " AND attempt = $5::integer FOR NO KEY UPDATE) ");
    ledger_add_leave(&sql, ledger);
    buf_add(&sql, "SELECT $3::bigint, $2::text, $4::integer, $8::text, $10::text, $9::text,"
                  " clock_timestamp() + $7::bigint * interval '1 microsecond' FROM ");
    add_orders(&sql, task);
    buf_add(&sql, " WHERE ");
    add_key(&sql, task);
    buf_print(&sql, " = $1::%s AND ", task->key.type);
    add_candidate(&sql, task, 6);
    ledger_sql(&sql, ledger,
               " AND EXISTS (SELECT 1 FROM rm_gate)"
               " AND NOT EXISTS (SELECT 1 FROM ledger.leftover o JOIN ledger.run r ON r.id = o.run_id"
               " WHERE r.job_id = $11::integer AND r.state <> 'abandoned' AND o.key = $2::text)"
               " ON CONFLICT DO NOTHING RETURNING 1");
    return buf_take(&sql);
}

char *cancel_move_sql(const char *ledger)
{
    struct buf sql = {0};

    buf_add(&sql, "WITH ");
    ledger_add_gate(&sql, ledger);
    buf_add(&sql, " ");
    ledger_add_move(&sql, ledger, "0", "$6::bigint");
    return buf_take(&sql);
}

char *cancel_sum_sql(const char *ledger)
{
    struct buf sql = {0};

    ledger_sql(&sql, ledger,
               "UPDATE ledger.run SET rows_done = s.done, rows_skipped = s.skipped FROM (SELECT sum(rows_done) AS done,"
               " sum(rows_skipped) AS skipped FROM ledger.lane WHERE run_id = $1::bigint) AS s WHERE id = $1::bigint");
    return buf_take(&sql);
}

char *cancel_preview_sql(const struct task *task)
{
    bool given_back = setting_text(&task->settings, "call") == NULL;
    struct buf sql = {0};

    buf_add(&sql, "SELECT count(*)");
    if (given_back && task->shop.orders.points_spent[0] != '\0') {
        buf_add(&sql, ", coalesce(sum(");
        add_column(&sql, task->shop.orders.points_spent);
        buf_add(&sql, ") FILTER (WHERE ");
        add_status(&sql, task, true, false);
        buf_add(&sql, "), 0)");
    } else {
        buf_add(&sql, ", 0");
    }
    if (given_back) {
        buf_add(&sql, ", coalesce(sum((SELECT sum(l.");
        sql_quote(&sql, task->shop.order_items.quantity);
        buf_add(&sql, ") FROM ");
        sql_quote_name(&sql, task->shop.order_items.table);
        buf_add(&sql, " AS l WHERE l.");
        sql_quote(&sql, task->shop.order_items.order);
        buf_add(&sql, " = ");
        add_key(&sql, task);
        buf_add(&sql, ")) FILTER (WHERE ");
        add_status(&sql, task, true, false);
        buf_add(&sql, "), 0)");
    } else {
        buf_add(&sql, ", 0");
    }
    buf_add(&sql, " FROM ");
    add_orders(&sql, task);
    buf_add(&sql, " WHERE ");
    add_candidate(&sql, task, 1);
    add_only(&sql, task, 2);
    return buf_take(&sql);
}

char *cancel_keys_sql(const struct task *task)
{
    struct buf sql = {0};

    buf_add(&sql, "SELECT ");
    add_key(&sql, task);
    buf_add(&sql, "::text FROM ");
    add_orders(&sql, task);
    buf_add(&sql, " WHERE ");
    add_candidate(&sql, task, 1);
    add_only(&sql, task, 2);
    buf_add(&sql, " ORDER BY ");
    add_column(&sql, task->shop.orders.touched);
    buf_add(&sql, ", ");
    add_key(&sql, task);
    buf_print(&sql, " LIMIT %d", WORK_PREVIEW_KEYS);
    return buf_take(&sql);
}
