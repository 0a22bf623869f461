/* SPDX-License-Identifier: PostgreSQL */
#include "bulk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "bulk_share.h"
#include "bulk_sql.h"
#include "sql.h"

/* Statements of a lane, by the name under which they are prepared: one letter and whether there is a lower key. */
enum piece {
    BOUNDS = 'b',
    CHANGE = 'c',
    CAREFUL = 's',  /* steps over rows that are locked */
    SKIPPING = 'k', /* the same where locks come and go too fast for CAREFUL: never waits, and costs more */
    STOPPED = 'w',  /* where the batch that failed had come to */
    LEAVE = 'l',
    ASYNCHRONOUS = 'a',
};

/* Where one row is locked, more are: so many batches after one that met a lock wait for none. */
#define CAREFUL_BATCHES 32
#define SMALL_BATCHES 8 /* after one that failed */
#define UNFLUSHED 8     /* in a row, and then one waits for the flush of all: the governor hears of that */
#define SMALLEST_CUT 32 /* rows down to which failures cut the batches that follow */

struct bulk_lane {
    struct change change; /* the values of CHANGE's and CAREFUL's parameters */
    struct change walk;   /* those of BOUNDS and LEAVE */
    bool marks;           /* see struct change */
    struct batch batch;
    char *upper;      /* the end of the current batch; NULL: not known yet */
    char *next_upper; /* the end of the batch after it, as far as known */
    int rows;         /* keys that the current batch has at most, and the next one */
    int next_rows;
    bool integers;         /* keys are whole numbers, and every row is the run's: a batch's end can be worked out */
    bool dense;            /* the last batch had a row for every other key at least: its end need not be looked for */
    int bad;               /* how many keys from the cursor on have a failing row among them; 0: none is known */
    char *stopped;         /* the end of the batch that failed, while STOPPED is to be asked */
    int small;             /* transactions that are small yet, after a failing row: they do not wait for their flush */
    int unflushed;         /* transactions that did not, in a row */
    enum piece stepping;   /* CAREFUL or SKIPPING: what steps over locked rows for now */
    int careful;           /* batches that still skip locked rows at once, after one that waited in vain */
    enum piece piece;      /* what the current batch is tried with */
    int ends;              /* transactions in flight */
    usec_t sent, executed; /* monotonic; executed: the statement was answered, and its commit is to come */
    int64_t bytes;         /* WAL, as the statement saw it grow */
    bool moved;
    bool changed; /* it changed rows */
    int64_t seen; /* how many rows it found: changed, skipped and left over */
    bool failed;
    bool maybe_all; /* the error may be every row's */
    bool doubt;     /* the row left over last had an error that may be every row's, and none was changed since */
    enum failure failure;
    char *error, sqlstate[6];
};

/* ---- A lane ---- */

static bool steps_over(enum piece piece)
{
    return piece == CAREFUL || piece == SKIPPING;
}

static char *sql_of(enum piece piece, const struct work *work, bool watched, bool marks, bool lower)
{
    const struct task *task = work->task;
    bool careful = steps_over(piece);
    struct change change = piece == BOUNDS    ? bulk_walk(task, BULK_BOUNDS_FIXED)
                           : piece == CHANGE  ? bulk_change(task, BULK_CHANGE_FIXED)
                           : careful          ? bulk_change(task, BULK_CAREFUL_FIXED)
                           : piece == STOPPED ? bulk_change(task, BULK_STOPPED_FIXED)
                                              : bulk_walk(task, BULK_LEAVE_FIXED);
    char *sql;

    change.watched = watched;
    change.marks = marks && piece != SKIPPING;
    sql = piece == BOUNDS    ? bulk_bounds_sql(task, &change, lower)
          : piece == CHANGE  ? bulk_change_sql(task, &change, work->ledger, lower)
          : careful          ? bulk_careful_sql(task, &change, work->ledger, lower)
          : piece == STOPPED ? bulk_stopped_sql(task, &change, work->ledger, lower)
                             : bulk_leave_sql(task, &change, work->ledger, lower);

    bulk_change_free(&change);
    return sql;
}

static const char *lower_of(const struct lane *lane)
{
    return lane->at.cursor != NULL ? lane->at.cursor : lane->at.from;
}

static bool whole_numbers(const struct task *task)
{
    const char *type = task->key.type;

    return task->where == NULL && task->only == NULL &&
           (strcmp(type, "bigint") == 0 || strcmp(type, "integer") == 0 || strcmp(type, "smallint") == 0);
}

/* Reading xmax is a right of its own where columns are granted one by one. */
static int read_marks(struct db *db, const char *table, bool *ret)
{
    AUTO_BUF name = {0};
    AUTO_ROWS rows = NULL;
    int r;

    sql_quote_name(&name, table);
    r = db_query(db, "SELECT has_column_privilege($1, 'xmax', 'SELECT')", 1, (const char *[]){name.text}, &rows);
    if (r == 0)
        *ret = rows_boolean(rows, 0, 0);
    return r;
}

static int prepare(struct work *work, struct lane *lane)
{
    struct bulk_lane *state = mem_alloc(sizeof(*state));
    static const enum piece pieces[] = {BOUNDS, CHANGE, CAREFUL, LEAVE, STOPPED, SKIPPING};
    bool watched = false;
    int r;

    lane->state = state;
    state->change = bulk_change(work->task, BULK_CHANGE_FIXED);
    state->walk = bulk_walk(work->task, BULK_BOUNDS_FIXED);
    state->batch = batch_begin(governor_batch_time(&work->governor), work->batch_max);
    state->piece = CHANGE;
    state->stepping = CAREFUL;
    state->integers = whole_numbers(work->task);
    r = work_watched(lane->db, state->change.table, &watched);
    if (r == 0 && !watched)
        r = read_marks(lane->db, state->change.table, &state->marks);
    if (r == 0)
        r = db_prepare(lane->db, "a0", "SELECT set_config('synchronous_commit', 'off', true)");
    if (r < 0)
        return r;
    for (size_t i = 0; i < ELEMENTS(pieces) - (state->marks ? 0 : 2); i++)
        for (int lower = lower_of(lane) != NULL; lower < 2; lower++) {
            AUTO_TEXT sql = sql_of(pieces[i], work, watched, state->marks, lower != 0);

            r = db_prepare(lane->db, (char[]){(char)pieces[i], (char)('0' + lower), '\0'}, sql);
            if (r < 0)
                return r;
        }
    return work->lane_count > 1 ? bulk_share_prepare(work, lane) : 0; /* a lane that is alone has nobody to share with */
}

static void release(struct lane *lane)
{
    struct bulk_lane *state = lane->state;

    if (state == NULL)
        return;
    bulk_change_free(&state->change);
    bulk_change_free(&state->walk);
    free(state->upper);
    free(state->next_upper);
    free(state->stopped);
    free(state->error);
    free(state);
    lane->state = NULL;
}

/* What a failing row cuts the work into is not waited for one by one, but a few at a time. */
static bool asynchronous(struct bulk_lane *state)
{
    state->unflushed = (state->bad > 0 || state->small > 0) && state->unflushed < UNFLUSHED ? state->unflushed + 1 : 0;
    return state->unflushed > 0;
}

/* Sends `piece` as a transaction of its own: the fixed parameters, the change's, the lower key. */
static int send_piece(struct lane *lane, enum piece piece, const char *const *fixed, size_t count, const char *lower)
{
    struct bulk_lane *state = lane->state;
    const struct change *more = piece == BOUNDS || piece == LEAVE ? &state->walk : &state->change;
    const char *values[24];
    bool reads = piece == BOUNDS || piece == STOPPED;
    int r = 0;

    memcpy(values, fixed, count * sizeof(*values));
    for (size_t i = 0; i < more->value_count; i++)
        values[count++] = more->values[i];
    if (lower != NULL)
        values[count++] = lower;
    if (!reads && asynchronous(state))
        r = db_send(lane->db, "a0", 0, NULL, ASYNCHRONOUS);
    if (r == 0)
        r = db_send(lane->db, (char[]){(char)piece, lower != NULL ? '1' : '0', '\0'}, count, values, (int)piece);
    if (r == 0 && !reads)
        r = db_ask(lane->db);
    if (r == 0)
        r = db_end(lane->db, (int)piece);
    state->ends++;
    lane->busy = true;
    return r;
}

/* Half of what has a failing row among it, or else what the controller says. */
static int rows_to_take(const struct bulk_lane *state, int bad)
{
    return bad > 0 ? (bad + 1) / 2 : state->batch.size;
}

static int send_bounds(struct lane *lane, const char *lower, int rows)
{
    struct bulk_lane *state = lane->state;
    char offset[16];

    state->next_rows = rows;
    snprintf(offset, sizeof(offset), "%d", state->next_rows - 1);
    return send_piece(lane, BOUNDS, (const char *[]){lane->at.to, offset}, BULK_BOUNDS_FIXED, lower);
}

static int send_stopped(struct work *work, struct lane *lane)
{
    struct bulk_lane *state = lane->state;

    return send_piece(lane, STOPPED, (const char *[]){state->stopped, work->run, lane->number}, BULK_STOPPED_FIXED,
                      lower_of(lane));
}

static int send_batch(struct work *work, struct lane *lane)
{
    struct bulk_lane *state = lane->state;
    char delay[24];
    const char *fixed[BULK_LEAVE_FIXED] = {
        work->run,       lane->number, work->attempt, lane->at.cursor,
        state->upper,    state->upper, delay,         state->failure == FAILURE_LOCKED ? "locked" : "failed",
        state->sqlstate, state->error,
    };
    size_t count = state->piece == CHANGE     ? BULK_CHANGE_FIXED
                   : steps_over(state->piece) ? BULK_CAREFUL_FIXED
                                              : BULK_LEAVE_FIXED;

    snprintf(delay, sizeof(delay), "%lld", (long long)work->retry_delay);
    state->moved = state->failed = false;
    state->sent = moment_monotonic();
    return send_piece(lane, state->piece, fixed, count, lower_of(lane));
}

/* How many keys lie after `from` up to `to`. */
static uint64_t span(const char *from, const char *to)
{
    return (uint64_t)strtoll(to, NULL, 10) - (uint64_t)strtoll(from, NULL, 10);
}

/* So many keys on from the cursor, some of which may have no row: no walk of the index, and no more than batch_max rows. */
static void step(struct lane *lane)
{
    struct bulk_lane *state = lane->state;
    const char *lower = lower_of(lane);

    state->rows = state->batch.size;
    state->upper = span(lower, lane->at.to) <= (uint64_t)state->rows
                       ? mem_copy(lane->at.to)
                       : mem_print("%lld", strtoll(lower, NULL, 10) + state->rows);
}

static int send_next(struct work *work, struct lane *lane, bool stopping)
{
    struct bulk_lane *state = lane->state;
    bool steps = state->dense && state->bad == 0;
    int r;

    if (lane->busy || lane->finished || stopping)
        return 0;
    if (state->stopped != NULL)
        return send_stopped(work, lane);
    if (state->upper == NULL && steps)
        step(lane);
    if (state->upper == NULL)
        return send_bounds(lane, lower_of(lane), rows_to_take(state, state->bad));
    r = send_batch(work, lane);
    /* The next batch's end comes along in the same round trip. */
    if (r == 0 && !steps && state->piece != LEAVE && strcmp(state->upper, lane->at.to) != 0)
        r = send_bounds(lane, state->upper, rows_to_take(state, state->bad - state->rows));
    return r;
}

/* The batch is in: the cursor is at its end. */
static void advance(struct lane *lane)
{
    struct bulk_lane *state = lane->state;

    if (state->piece != LEAVE && state->changed)
        state->doubt = false;
    state->bad = state->piece == LEAVE || state->bad < state->rows ? 0 : state->bad - state->rows;
    state->small = state->bad > 0 ? SMALL_BATCHES : state->small > 0 ? state->small - 1 : 0;
    if (state->careful > 0)
        state->careful--;
    if (state->careful == 0)
        state->stepping = CAREFUL;
    state->piece = state->careful > 0 ? state->stepping : CHANGE;
    mem_replace(&lane->at.cursor, state->upper);
    state->upper = NULL;
    lane->finished = strcmp(lane->at.cursor, lane->at.to) == 0;
    if (state->next_upper != NULL) {
        state->upper = state->next_upper;
        state->rows = state->next_rows;
        state->next_upper = NULL;
    }
}

/* After a wait that was lost: with what waits less, if there is anything. */
static bool step_over(struct bulk_lane *state)
{
    if (state->piece == CAREFUL && state->marks)
        state->stepping = SKIPPING;
    else if (state->piece != CHANGE)
        return false;
    state->piece = state->stepping;
    return true;
}

/* The batch is not in: decides what to try instead. */
static void reconsider(struct work *work, struct lane *lane)
{
    struct bulk_lane *state = lane->state;

    mem_replace(&state->next_upper, NULL); /* it began where this batch should have ended */
    if (state->failure == FAILURE_FENCED) {
        work->end = WORK_FENCED;
    } else if (state->failure == FAILURE_RUN || state->piece == LEAVE) {
        work_fail_statement(work, state->error, state->sqlstate);
    } else if (state->failure == FAILURE_LOCKED && step_over(state)) {
        state->careful = CAREFUL_BATCHES;
    } else if (state->rows > 1) {
        if (state->bad == 0 && state->batch.size > SMALLEST_CUT)
            state->batch.size /= 2;
        state->bad = state->rows;
        if (state->marks && state->failure == FAILURE_ROW)
            mem_replace(&state->stopped, mem_copy(state->upper));
        mem_replace(&state->upper, NULL);
    } else {
        state->piece = LEAVE;
        state->doubt = state->maybe_all;
    }
}

static void ended(struct work *work, struct lane *lane)
{
    struct bulk_lane *state = lane->state;

    if (state->upper == NULL) { /* only bounds were asked for */
        state->upper = state->next_upper;
        state->rows = state->next_rows;
        state->next_upper = NULL;
    } else if (state->failed) {
        reconsider(work, lane);
    } else if (!state->moved) {
        work->end = WORK_FENCED;
    } else {
        advance(lane);
    }
}

static void take_error(struct lane *lane, enum piece piece)
{
    struct bulk_lane *state = lane->state;
    const struct db_error *error = db_error(lane->db);

    state->failed = true;
    /* A walk of the index that fails is no row's fault. */
    state->failure = piece == BOUNDS ? FAILURE_RUN : work_failure(error->sqlstate);
    /* Triggers raise what they like, and call what is not there: one such row is a row, and two in a row are the run. */
    state->maybe_all = (piece == CHANGE || steps_over(piece)) && state->failure == FAILURE_RUN && error->inside;
    if (state->maybe_all && !state->doubt)
        state->failure = FAILURE_ROW;
    mem_replace(&state->error, mem_copy(error->message));
    memcpy(state->sqlstate, error->sqlstate, sizeof(state->sqlstate));
}

static void shorten(struct lane *lane)
{
    struct bulk_lane *state = lane->state;

    mem_replace(&state->upper, NULL);
    mem_replace(&state->next_upper, NULL);
    mem_replace(&state->stopped, NULL);
}

/* ---- Answers ---- */

/* A batch is committed: what its time says of the next ones. */
static void take_time(struct work *work, struct lane *lane)
{
    struct bulk_lane *state = lane->state;
    int rows = state->dense && state->seen < state->rows / 2 ? (int)state->seen : state->rows;
    usec_t now = moment_monotonic(), commit = now - state->executed, counted;

    work->last_batch_time = now - state->sent;
    if (state->unflushed == 0) /* others' commits wait for the flush, and tell of it */
        governor_committed(&work->governor, commit);
    work_rest(work, lane, work->last_batch_time, state->rows, state->bytes);
    state->batch.target = governor_batch_time(&work->governor);
    /* A slow flush is not made quicker by fewer rows: it counts for a part of the time only, or batches shrank to one row. */
    counted = commit < state->batch.target / 4 ? commit : state->batch.target / 4;
    if (state->piece != LEAVE && state->bad == 0)
        batch_took(&state->batch, rows, state->executed - state->sent + counted);
    state->dense = state->integers && lower_of(lane) != NULL && state->piece != LEAVE &&
                   span(lower_of(lane), state->upper) <= 2 * (uint64_t)state->seen;
}

static void take_counts(struct lane *lane, const struct rows *rows)
{
    struct bulk_lane *state = lane->state;
    int64_t done = rows_integer(rows, 0, 0), skipped = rows_integer(rows, 0, 1);
    int64_t late = steps_over(state->piece) ? rows_integer(rows, 0, 3) : 0;

    state->moved = true;
    state->executed = moment_monotonic();
    state->changed = done > lane->at.rows_done;
    state->seen = done - lane->at.rows_done + skipped - lane->at.rows_skipped + late;
    state->bytes = rows_integer(rows, 0, 2);
    lane->at.rows_done = done;
    lane->at.rows_skipped = skipped;
    if (late > 0)
        state->careful = CAREFUL_BATCHES;
}

/* Up to the row that failed, or else that row alone. */
static void take_stop(struct lane *lane, const struct rows *rows)
{
    struct bulk_lane *state = lane->state;
    int before;

    mem_replace(&state->stopped, NULL);
    if (rows_count(rows) == 0)
        return;
    before = (int)rows_integer(rows, 0, 1);
    state->next_upper = mem_copy(rows_text(rows, 0, before > 0 ? 2 : 0));
    state->next_rows = before > 0 ? before : 1;
    state->bad = before + 1;
}

static int answer(struct work *work, struct lane *lane, struct answer *answer)
{
    struct bulk_lane *state = lane->state;
    bool bounds = answer->tag == BOUNDS || answer->tag == STOPPED;

    if (bulk_share_sent(answer->tag))
        return bulk_share_answer(work, lane, answer);
    switch (answer->kind) {
    case ANSWER_ROWS:
        if (answer->tag == STOPPED) {
            take_stop(lane, answer->rows);
        } else if (bounds) {
            const char *key = rows_count(answer->rows) > 0 ? rows_text(answer->rows, 0, 0) : lane->at.to;

            mem_replace(&state->next_upper, mem_copy(key));
        } else if (answer->tag != ASYNCHRONOUS && rows_count(answer->rows) > 0) {
            take_counts(lane, answer->rows);
        }
        break;
    case ANSWER_ERROR:
        if (answer->tag == STOPPED) { /* `where` fails at that row, too: no hint, then */
            mem_replace(&state->stopped, NULL);
            break;
        }
        if (!state->failed)
            take_error(lane, (enum piece)answer->tag);
        if (bounds && state->upper == NULL)
            return work_fail_statement(work, state->error, state->sqlstate);
        break;
    case ANSWER_SKIPPED:
    case ANSWER_UNDONE: /* of groups */
        break;
    case ANSWER_END:
        if (!bounds && state->moved && !state->failed)
            take_time(work, lane);
        if (--state->ends == 0) {
            lane->busy = false;
            ended(work, lane);
        }
        break;
    }
    rows_free(answer->rows);
    return 0;
}

/* ---- Leftovers, preview ---- */

static int retry(struct work *work, struct db *db, const struct ledger_leftover *leftover, bool *ret_locked)
{
    struct change change = bulk_change(work->task, BULK_RETRY_FIXED);
    AUTO_TEXT sql = NULL;
    AUTO_ROWS rows = NULL;
    char run[24], attempts[16], run_attempt[16], lane[16];
    const char *values[16] = {run, leftover->key, attempts, run_attempt, lane, leftover->key};
    size_t count = BULK_RETRY_FIXED;
    int r;

    snprintf(run, sizeof(run), "%lld", (long long)leftover->run);
    snprintf(attempts, sizeof(attempts), "%d", leftover->attempts);
    snprintf(run_attempt, sizeof(run_attempt), "%d", leftover->run_attempt);
    snprintf(lane, sizeof(lane), "%d", leftover->lane);
    sql = bulk_retry_sql(work->task, &change, work->ledger);
    for (size_t i = 0; i < change.value_count - (change.only != 0); i++) /* its own key says which row: not --only's */
        values[count++] = change.values[i];
    r = db_query(db, sql, count, values, &rows);
    bulk_change_free(&change);
    *ret_locked = r == 0 && rows_count(rows) == 0;
    if (r == -EIO)
        return r;
    return r < 0 || *ret_locked ? RETRIED_AGAIN : RETRIED_SETTLED;
}

static int preview(struct db *db, const struct task *task, struct preview *ret)
{
    struct change change = bulk_change(task, 0);
    AUTO_TEXT count_sql = bulk_count_sql(task, &change);
    AUTO_TEXT keys_sql = bulk_keys_sql(task, &change);
    AUTO_ROWS counts = NULL;
    AUTO_ROWS keys = NULL;
    int r = db_query(db, count_sql, change.value_count, change.values, &counts);

    if (r == 0)
        r = db_query(db, keys_sql, change.value_count, change.values, &keys);
    if (r == 0) {
        int count = rows_count(keys);

        ret->rows = rows_integer(counts, 0, 0);
        ret->by = mem_print("%s %s", rows_text(counts, 0, 1), change.unit);
        ret->skipped = rows_integer(counts, 0, 2);
        ret->keys = mem_alloc(((size_t)count + 1) * sizeof(*ret->keys));
        for (int i = 0; i < count; i++)
            ret->keys[i] = mem_copy(rows_text(keys, i, 0));
    }
    bulk_change_free(&change);
    return r;
}

const struct engine bulk_engine = {
    .split = bulk_share_split,
    .prepare = prepare,
    .send = send_next,
    .answer = answer,
    .release = release,
    .find_middle = bulk_share_find_middle,
    .part = bulk_share_part,
    .shorten = shorten,
    .retry = retry,
    .preview = preview,
};
