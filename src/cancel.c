/* SPDX-License-Identifier: PostgreSQL */
#include "cancel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cancel_sql.h"
#include "sql.h"

#define IN_FLIGHT 64 /* orders on one lane whose commit has not been answered yet */
#define FEW_ORDERS 500 /* under which a second lane is not worth its connection */

enum piece { LOCK, CALL, CHANGE, LEAVE, PAGE, MOVE, PIECES };

struct order {
    char *key, *touched;
    bool held, canceled, failed, to_leave;
    bool again; /* it was undone by the failure of another order, and is to be sent again */
    enum failure failure;
    char *error, sqlstate[6];
};

struct cancel_lane {
    struct order orders[CANCEL_PAGE];
    int count;     /* orders of the page */
    int next;      /* the first one not yet sent */
    int in_flight; /* sent, unanswered */
    int to_leave;  /* answered, and to be left over */
    int again;     /* answered, and to be sent again */
    int settled;   /* done, left over or found not to need it */
    int skipped;   /* of these, not canceled and not left over */
    bool loaded, last; /* the page is here; it is the range's last one */
    bool moved;
    usec_t began;  /* monotonic: when the page was asked for */
    int ends;      /* transactions in flight, of any kind */
    char *after_touched, *after_key; /* where the next page begins */
    char *cursor;  /* that MOVE will set */
    bool call;
    char *only; /* an array, or NULL */
    char cutoff[24], delay[24];
};

/* ---- Splitting ---- */

/* The ranges of so many lanes, or of fewer; the last one's end is values[0]. One statement finds them, so that they ascend. */
static int parts(struct db *db, const struct task *task, const char *const *values, size_t count, int lanes,
                 struct ledger_range **ret, size_t *ret_count)
{
    AUTO_TEXT sql = cancel_parts_sql(task, lanes);
    AUTO_ROWS rows = NULL;
    int r = lanes > 1 ? db_query(db, sql, count, values, &rows) : 0, inner = r == 0 && lanes > 1 ? rows_count(rows) : 0;

    if (r < 0)
        return r;
    *ret_count = (size_t)inner + 1;
    *ret = mem_alloc(*ret_count * sizeof(**ret));
    for (int i = 0; i <= inner; i++)
        (*ret)[i] = (struct ledger_range){
            .from = i > 0 ? mem_copy(rows_text(rows, i - 1, 0)) : NULL,
            .to = mem_copy(i < inner ? rows_text(rows, i, 0) : values[0]),
        };
    return 0;
}

static int split(struct db *db, struct task *task, int lanes, struct ledger_range **ret, size_t *ret_count)
{
    AUTO_TEXT edge_sql = cancel_edge_sql(task);
    AUTO_TEXT count_sql = cancel_count_sql(task);
    AUTO_TEXT only = task->only != NULL ? sql_array((const char *const *)task->only) : NULL;
    AUTO_ROWS edge = NULL;
    AUTO_ROWS rows = NULL;
    char age[24], cutoff[24];
    const char *values[3];
    int r;

    snprintf(age, sizeof(age), "%lld", (long long)setting_integer(&task->settings, "older_than"));
    r = db_query(db, edge_sql, 1, (const char *[]){age}, &edge);
    if (r < 0)
        return r;
    task->started = rows_integer(edge, 0, 0);
    snprintf(cutoff, sizeof(cutoff), "%lld", (long long)cancel_cutoff(task));
    values[0] = rows_text(edge, 0, 1);
    values[1] = cutoff;
    values[2] = only;
    r = db_query(db, count_sql, only != NULL ? 3 : 2, values, &rows);
    if (r < 0)
        return r;
    task->rows = rows_integer(rows, 0, 0);
    if (task->rows == 0) { /* most rounds of a shop: nothing to do, and no lane to open */
        *ret_count = 0;
        return 0;
    }
    return parts(db, task, values, only != NULL ? 3 : 2, task->rows >= FEW_ORDERS && only == NULL ? lanes : 1, ret, ret_count);
}

/* ---- A lane ---- */

static const char *const page_names[] = {"page_start", "page_range", "page_cursor", "page_order"};
static const char *const names[PIECES] = {"lock", "call", "change", "leave", NULL, "move"};

static int prepare_one(struct lane *lane, const char *name, char *sql)
{
    int r = db_prepare(lane->db, name, sql);

    free(sql);
    return r;
}

/* Whether triggers see the rows of any table that a cancelation changes. */
static int read_watched(struct lane *lane, const struct task *task, bool *ret)
{
    const char *const tables[] = {task->shop.orders.table, task->shop.items.table, task->shop.users.table};
    int r = 0;

    for (size_t i = 0; i < ELEMENTS(tables) && r == 0 && !*ret; i++)
        if (tables[i][0] != '\0')
            r = work_watched(lane->db, tables[i], ret);
    return r;
}

static int prepare(struct work *work, struct lane *lane)
{
    const struct task *task = work->task;
    struct cancel_lane *state = mem_alloc(sizeof(*state));
    bool watched = false;
    int r;

    lane->state = state;
    state->call = setting_text(&task->settings, "call") != NULL;
    state->only = task->only != NULL ? sql_array((const char *const *)task->only) : NULL;
    snprintf(state->cutoff, sizeof(state->cutoff), "%lld", (long long)cancel_cutoff(task));
    snprintf(state->delay, sizeof(state->delay), "%lld", (long long)work->retry_delay);
    r = state->call ? 0 : read_watched(lane, task, &watched);
    for (int from = CANCEL_FROM_START; r == 0 && from <= CANCEL_FROM_ORDER; from++)
        r = prepare_one(lane, page_names[from], cancel_page_sql(task, work->ledger, (enum cancel_from)from));
    if (r == 0)
        r = prepare_one(lane, names[LOCK], cancel_lock_sql(task));
    if (r == 0 && state->call)
        r = prepare_one(lane, names[CALL], cancel_call_sql(task));
    if (r == 0)
        r = prepare_one(lane, names[CHANGE], cancel_change_sql(task, work->ledger, watched));
    if (r == 0)
        r = prepare_one(lane, names[LEAVE], cancel_leave_sql(task, work->ledger));
    if (r == 0)
        r = prepare_one(lane, names[MOVE], cancel_move_sql(work->ledger));
    return r;
}

static void clear_page(struct cancel_lane *state)
{
    for (int i = 0; i < state->count; i++) {
        free(state->orders[i].key);
        free(state->orders[i].touched);
        free(state->orders[i].error);
        state->orders[i] = (struct order){0};
    }
    state->count = state->next = state->settled = state->skipped = 0; /* nothing is in flight, to leave or to send again */
    state->loaded = false;
}

static void release(struct lane *lane)
{
    struct cancel_lane *state = lane->state;

    if (state == NULL)
        return;
    clear_page(state);
    free(state->after_touched);
    free(state->after_key);
    free(state->cursor);
    free(state->only);
    free(state);
    lane->state = NULL;
}

static void expect_end(struct lane *lane)
{
    struct cancel_lane *state = lane->state;

    state->ends++;
    lane->busy = true;
}

/* Of what is sent alone. */
static int end(struct lane *lane, int tag)
{
    expect_end(lane);
    return db_end(lane->db, tag);
}

/* Of one of many transactions in flight. */
static int commit(struct lane *lane, int tag)
{
    expect_end(lane);
    return db_commit(lane->db, tag);
}

/* Which order and which statement an answer is about. */
static int tag_of(int order, enum piece piece)
{
    return order * PIECES + (int)piece;
}

static int send_page(struct work *work, struct lane *lane)
{
    struct cancel_lane *state = lane->state;
    enum cancel_from from = state->after_key != NULL    ? CANCEL_FROM_ORDER
                            : lane->at.cursor != NULL ? CANCEL_FROM_CURSOR
                            : lane->at.from != NULL   ? CANCEL_FROM_RANGE
                                                      : CANCEL_FROM_START;
    const char *values[6] = {lane->at.to, state->cutoff, work->job};
    size_t count = 3;
    int r;

    if (state->only != NULL)
        values[count++] = state->only;
    if (from == CANCEL_FROM_ORDER) {
        values[count++] = state->after_touched;
        values[count++] = state->after_key;
    } else if (from != CANCEL_FROM_START) {
        values[count++] = from == CANCEL_FROM_CURSOR ? lane->at.cursor : lane->at.from;
    }
    state->began = moment_monotonic();
    r = db_send(lane->db, page_names[from], count, values, tag_of(0, PAGE));
    return r < 0 ? r : end(lane, tag_of(0, PAGE));
}

/* One order's transaction, whole. */
static int send_order(struct work *work, struct lane *lane, int index)
{
    struct cancel_lane *state = lane->state;
    struct order *order = &state->orders[index];
    const char *key = order->key;
    int r = db_begin(lane->db);

    order->held = order->canceled = false;
    if (r == 0)
        r = db_send(lane->db, names[LOCK], 3, (const char *[]){key, key, state->cutoff}, tag_of(index, LOCK));
    if (r == 0 && state->call)
        r = db_send(lane->db, names[CALL], 2, (const char *[]){key, key}, tag_of(index, CALL));
    if (r == 0)
        r = db_send(lane->db, names[CHANGE], 5, (const char *[]){key, key, work->run, lane->number, work->attempt},
                    tag_of(index, CHANGE));
    state->in_flight++;
    return r < 0 ? r : commit(lane, tag_of(index, CHANGE));
}

static int send_leave(struct work *work, struct lane *lane, int index)
{
    struct cancel_lane *state = lane->state;
    struct order *order = &state->orders[index];
    const char *values[] = {
        order->key,     order->key,   work->run,
        lane->number,   work->attempt, state->cutoff,
        state->delay,   order->failed && order->failure == FAILURE_ROW ? "failed" : "locked",
        order->failed ? order->sqlstate : "55P03", order->failed ? order->error : "another session holds a lock on the order",
        work->job,
    };
    int r = db_begin(lane->db);

    if (r == 0)
        r = db_send(lane->db, names[LEAVE], ELEMENTS(values), values, tag_of(index, LEAVE));
    order->to_leave = false;
    state->to_leave--;
    return r < 0 ? r : commit(lane, tag_of(index, LEAVE));
}

/* The page is settled: the cursor follows. */
static int send_move(struct work *work, struct lane *lane)
{
    struct cancel_lane *state = lane->state;
    const char *touched = state->count > 0 ? state->orders[state->count - 1].touched : NULL;
    char skipped[16];
    int r;

    work->last_batch_time = moment_monotonic() - state->began;
    work_rest(work, lane, work->last_batch_time, state->count, 0);
    snprintf(skipped, sizeof(skipped), "%d", state->skipped);
    /* The range's end is the last page's alone: orders of the same instant may follow on the next one. */
    if (state->last)
        mem_replace(&state->cursor, mem_copy(lane->at.to));
    else
        mem_replace(&state->cursor, mem_copy(strcmp(touched, lane->at.to) == 0 ? lane->at.cursor : touched));
    if (touched != NULL) {
        mem_replace(&state->after_key, mem_copy(state->orders[state->count - 1].key));
        mem_replace(&state->after_touched, mem_copy(touched));
    }
    state->moved = false;
    r = db_send(lane->db, names[MOVE], 6,
                (const char *[]){work->run, lane->number, work->attempt, lane->at.cursor, state->cursor, skipped},
                tag_of(0, MOVE));
    clear_page(state);
    return r < 0 ? r : end(lane, tag_of(0, MOVE));
}

/* What was undone, in its order. */
static int send_again(struct work *work, struct lane *lane)
{
    struct cancel_lane *state = lane->state;
    int r = 0;

    for (int i = 0; i < state->next && r == 0 && state->again > 0; i++)
        if (state->orders[i].again) {
            state->orders[i].again = false;
            state->again--;
            r = send_order(work, lane, i);
        }
    return r;
}

static int send_next(struct work *work, struct lane *lane, bool stopping)
{
    struct cancel_lane *state = lane->state;
    int r = 0;

    if (lane->finished)
        return 0;
    if (!state->loaded)
        return lane->busy || stopping ? 0 : send_page(work, lane);
    for (int i = 0; i < state->next && r == 0 && state->to_leave > 0; i++)
        if (state->orders[i].to_leave)
            r = send_leave(work, lane, i);
    if (r == 0 && !stopping)
        r = send_again(work, lane);
    /* Half of the window at a time: in a group they cost fewer system calls on both sides. */
    if (state->in_flight <= IN_FLIGHT / 2)
        while (r == 0 && !stopping && state->next < state->count && state->in_flight < IN_FLIGHT)
            r = send_order(work, lane, state->next++);
    if (r == 0 && !lane->busy && state->settled == state->count)
        r = send_move(work, lane);
    return r;
}

static void take_page(struct lane *lane, const struct rows *rows)
{
    struct cancel_lane *state = lane->state;

    state->count = rows_count(rows);
    state->last = state->count < CANCEL_PAGE;
    state->loaded = true;
    for (int i = 0; i < state->count; i++)
        state->orders[i] = (struct order){.key = mem_copy(rows_text(rows, i, 0)), .touched = mem_copy(rows_text(rows, i, 1))};
}

static void take_rows(struct lane *lane, int index, enum piece piece, const struct rows *rows)
{
    struct cancel_lane *state = lane->state;
    struct order *order = &state->orders[index];

    switch (piece) {
    case LOCK:
        order->held = rows_count(rows) > 0;
        break;
    case CHANGE:
        order->canceled = rows_count(rows) > 0 && rows_boolean(rows, 0, 0);
        break;
    case LEAVE:
        order->held = rows_count(rows) > 0; /* or it was paid meanwhile, or left over by an earlier run already */
        break;
    case PAGE:
        take_page(lane, rows);
        break;
    case MOVE:
        state->moved = rows_count(rows) > 0;
        break;
    default:
        break;
    }
}

static void take_error(struct work *work, struct lane *lane, int index, enum piece piece)
{
    struct cancel_lane *state = lane->state;
    struct order *order = &state->orders[index];
    const struct db_error *error = db_error(lane->db);
    enum failure failure = work_failure(error->sqlstate);

    /* Functions and triggers of the application raise what they like: whatever ails us all, the lock and the ledger meet. */
    if (failure == FAILURE_RUN && (piece == CALL || piece == CHANGE))
        failure = FAILURE_ROW;
    if (failure == FAILURE_FENCED) {
        work->end = WORK_FENCED;
    } else if (failure == FAILURE_RUN || piece == PAGE || piece == MOVE || piece == LEAVE) {
        work_fail_statement(work, error->message, error->sqlstate);
    } else {
        order->failed = true;
        order->failure = failure;
        mem_replace(&order->error, mem_copy(error->message));
        memcpy(order->sqlstate, error->sqlstate, sizeof(order->sqlstate));
    }
}

static void ended(struct work *work, struct lane *lane, int index, enum piece piece)
{
    struct cancel_lane *state = lane->state;
    struct order *order = &state->orders[index];

    switch (piece) {
    case CHANGE:
        state->in_flight--;
        if (order->failed || !order->held) {
            order->to_leave = true;
            state->to_leave++;
        } else {
            lane->at.rows_done += order->canceled;
            lane->at.rows_skipped += !order->canceled;
            state->settled++;
        }
        break;
    case LEAVE:
        state->skipped += !order->held;
        state->settled++;
        break;
    case MOVE:
        if (!state->moved) {
            work->end = WORK_FENCED;
            break;
        }
        mem_replace(&lane->at.cursor, state->cursor);
        state->cursor = NULL;
        lane->finished = state->last;
        break;
    default:
        break;
    }
}

/* Nothing of an order's transaction is done, of its cancelation or of its being left over. */
static void undone(struct work *work, struct lane *lane, int index, enum piece piece)
{
    struct cancel_lane *state = lane->state;
    struct order *order = &state->orders[index];

    if (piece == LEAVE) {
        order->to_leave = true;
        state->to_leave++;
    } else if (order->failed) {
        ended(work, lane, index, piece);
    } else {
        state->in_flight--;
        order->again = true;
        state->again++;
    }
}

static int answer(struct work *work, struct lane *lane, struct answer *answer)
{
    struct cancel_lane *state = lane->state;
    int index = answer->tag / PIECES;
    enum piece piece = (enum piece)(answer->tag % PIECES);

    switch (answer->kind) {
    case ANSWER_ROWS:
        take_rows(lane, index, piece, answer->rows);
        break;
    case ANSWER_ERROR:
        take_error(work, lane, index, piece);
        break;
    case ANSWER_SKIPPED:
        break;
    case ANSWER_END:
        lane->busy = --state->ends > 0;
        if (work->end == WORK_GOES_ON)
            ended(work, lane, index, piece);
        break;
    case ANSWER_UNDONE:
        lane->busy = --state->ends > 0;
        if (work->end == WORK_GOES_ON)
            undone(work, lane, index, piece);
        break;
    }
    rows_free(answer->rows);
    return 0;
}

/* ---- Leftovers, preview ---- */

static int retry(struct work *work, struct db *db, const struct ledger_leftover *leftover, bool *ret_locked)
{
    const struct task *task = work->task;
    bool call = setting_text(&task->settings, "call") != NULL;
    AUTO_TEXT relock = cancel_relock_sql(task, work->ledger);
    AUTO_TEXT settle = cancel_settle_sql(task, work->ledger);
    AUTO_TEXT called = call ? cancel_call_sql(task) : NULL;
    AUTO_TEXT change = cancel_change_sql(task, work->ledger, true);
    AUTO_TEXT sum = cancel_sum_sql(work->ledger);
    char run[24], attempts[16], run_attempt[16], lane[16], cutoff[24];
    const char *const gate[] = {leftover->key, leftover->key, cutoff, run, run_attempt, attempts};
    const char *const order[] = {leftover->key, leftover->key, run, lane, run_attempt};
    struct db_statement statements[5] = {{relock, 6, gate}, {settle, 6, gate}};
    struct rows *rows[5] = {0};
    size_t count = 2;
    int r;

    snprintf(run, sizeof(run), "%lld", (long long)leftover->run);
    snprintf(attempts, sizeof(attempts), "%d", leftover->attempts);
    snprintf(run_attempt, sizeof(run_attempt), "%d", leftover->run_attempt);
    snprintf(lane, sizeof(lane), "%d", leftover->lane);
    snprintf(cutoff, sizeof(cutoff), "%lld", (long long)cancel_cutoff(task));
    if (call)
        statements[count++] = (struct db_statement){called, 2, order};
    statements[count++] = (struct db_statement){change, 5, order};
    statements[count++] = (struct db_statement){sum, 1, (const char *[]){run}};
    r = db_transaction(db, statements, count, rows);
    *ret_locked = r == 0 && !rows_boolean(rows[1], 0, 0);
    for (size_t i = 0; i < count; i++)
        rows_free(rows[i]);
    if (r == -EIO)
        return r;
    return r < 0 || *ret_locked ? RETRIED_AGAIN : RETRIED_SETTLED;
}

static int preview(struct db *db, const struct task *task, struct preview *ret)
{
    AUTO_TEXT count_sql = cancel_preview_sql(task);
    AUTO_TEXT keys_sql = cancel_keys_sql(task);
    AUTO_TEXT only = task->only != NULL ? sql_array((const char *const *)task->only) : NULL;
    AUTO_ROWS counts = NULL;
    AUTO_ROWS keys = NULL;
    char cutoff[24];
    const char *values[] = {cutoff, only};
    size_t count = only != NULL ? 2 : 1;
    int r;

    snprintf(cutoff, sizeof(cutoff), "%lld", (long long)cancel_cutoff(task));
    r = db_query(db, count_sql, count, values, &counts);
    if (r == 0)
        r = db_query(db, keys_sql, count, values, &keys);
    if (r < 0)
        return r;
    ret->rows = rows_integer(counts, 0, 0);
    if (setting_text(&task->settings, "call") == NULL)
        ret->by = mem_print("%s pieces and %s points given back", rows_text(counts, 0, 2), rows_text(counts, 0, 1));
    ret->keys = mem_alloc(((size_t)rows_count(keys) + 1) * sizeof(*ret->keys));
    for (int i = 0; i < rows_count(keys); i++)
        ret->keys[i] = mem_copy(rows_text(keys, i, 0));
    return 0;
}

static bool asynchronous(const struct task *task)
{
    return setting_text(&task->settings, "call") == NULL;
}

const struct engine cancel_engine = {
    .asynchronous = asynchronous,
    .nested_loops = true,
    .split = split,
    .prepare = prepare,
    .send = send_next,
    .answer = answer,
    .release = release,
    .retry = retry,
    .preview = preview,
};
