/* SPDX-License-Identifier: PostgreSQL */
#include "round.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.h"
#include "log.h"
#include "status.h"

#define LANE_STATEMENT_TIMEOUT (60 * USEC_PER_SEC)
#define RETRY_PAGE 500
#define SHOWN_LEFTOVERS 10

/* A run in progress. */
struct round {
    struct books *books;
    struct task *task;
    int64_t id;
    int attempt;
    usec_t due, began;
    struct work work;
};

static void report(struct round *round, enum record_type type, enum run_state state)
{
    struct record record = {
        .type = type,
        .state = state,
        .run = round->id,
        .due = round->due,
        .rows_total = round->task->rows,
        .batch_time = round->work.last_batch_time,
    };

    for (size_t i = 0; i < round->work.lane_count; i++) {
        record.rows_done += round->work.lanes[i].at.rows_done;
        record.rows_skipped += round->work.lanes[i].at.rows_skipped;
    }
    round->books->reporter->report(round->books->reporter, &record);
}

static void on_progress(const struct work *work, void *argument)
{
    (void)work;
    report(argument, RECORD_PROGRESS, RUN_RUNNING);
}

/* ---- What is verified before any row is touched ---- */

static int verify_task(struct books *books, struct task *task, struct key_type *ret_key)
{
    struct relation_need need;
    struct problems problems = {0};
    int r;

    relation_need_fill(&need, &task->shop, task->kind, &task->settings, task->where);
    r = relation_examine(books->db, &need, &problems);
    if (r < 0) {
        problems_free(&problems);
        return books_failed(books, r, "examining the tables");
    }
    for (size_t i = 0; i < problems.count; i++) {
        const struct problem *problem = &problems.list[i];

        if (problem->advice)
            continue;
        log_say(LOG_ERR, "%s%s%s", problem->text, problem->remedy != NULL ? "; remedy: " : "",
                problem->remedy != NULL ? problem->remedy : "");
        problems_free(&problems);
        return -EINVAL;
    }
    problems_free(&problems);
    r = relation_key_type(books->db, &need, ret_key);
    return r < 0 ? books_failed(books, r, "reading the key's type") : 0;
}

/* Each key of --only must be one: the server casts it. -EDOM: one is not (logged). */
static int verify_keys(struct books *books, const struct task *task)
{
    AUTO_TEXT sql = mem_print("SELECT $1::%s", task->key.type);

    for (size_t i = 0; task->only != NULL && task->only[i] != NULL; i++) {
        int r = db_query(books->db, sql, 1, (const char *[]){task->only[i]}, NULL);

        if (r == -EBADMSG) {
            log_say(LOG_ERR, "--only %s: %s", task->only[i], db_error(books->db)->message);
            return -EDOM;
        }
        if (r < 0)
            return books_failed(books, r, "reading the keys of --only");
    }
    return 0;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Ranges and cursors mean nothing when keys are in another order now. */
static int verify_order(const struct books *books, const struct task *task, const struct key_type *now, int64_t run)
{
    const struct key_type *then = &task->key;

    if (strcmp(then->type, now->type) == 0 && same_text(then->collation, now->collation) &&
        same_text(then->version, now->version))
        return 0;
    log_say(LOG_ERR,
            "not resumed, because its keys may be in another order now: they were %s (collation %s, version %s) when it started, "
            "and are %s (collation %s, version %s): give it up with roundsman --abandon %s -n %lld",
            then->type, then->collation != NULL ? then->collation : "none", then->version != NULL ? then->version : "none",
            now->type, now->collation != NULL ? now->collation : "none", now->version != NULL ? now->version : "none",
            books->job->name, (long long)run);
    return -EINVAL;
}

/* ---- Outcomes ---- */

static void say(const struct books *books, int priority, const char *line)
{
    if (books->tool)
        printf("%s\n", line);
    else
        log_say(priority, "%s", line);
}

static void show_leftovers(struct books *books, const struct ledger_run *run)
{
    struct ledger_leftover *list = NULL;
    size_t count = 0;

    if (ledger_leftovers(&books->ledger, books->row.id, run->id, NULL, SHOWN_LEFTOVERS, &list, &count) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        AUTO_TEXT line = mem_print("left over: key %s, %s: %s (SQLSTATE %s)", list[i].key, list[i].reason,
                                   list[i].error != NULL ? list[i].error : "", list[i].sqlstate != NULL ? list[i].sqlstate : "");

        say(books, LOG_WARNING, line);
    }
    if (run->leftovers > (int64_t)count) {
        AUTO_TEXT line = mem_print("left over: and %lld more", (long long)(run->leftovers - (int64_t)count));

        say(books, LOG_WARNING, line);
    }
    ledger_leftovers_free(list, count);
}

int round_outcome(struct books *books, const struct ledger_run *run, const char *prefix)
{
    AUTO_BUF line = {0};
    char due[MOMENT_TEXT_MAX];

    if (books->tool) {
        buf_print(&line, "%s: ", books->job->name);
        if (run->due == MOMENT_NONE)
            buf_print(&line, "manual run %lld ", (long long)run->id);
        else
            buf_print(&line, "run %lld due %s ", (long long)run->id, moment_format(run->due, due));
    }
    buf_print(&line, "%s%s: %lld rows changed", prefix, run->state, (long long)run->rows_done);
    if (run->rows_skipped > 0)
        buf_print(&line, ", %lld skipped", (long long)run->rows_skipped);
    if (run->leftovers > 0)
        buf_print(&line, ", %lld left over", (long long)run->leftovers);
    say(books, run->leftovers > 0 ? LOG_WARNING : LOG_NOTICE, line.text);
    if (run->leftovers > 0)
        show_leftovers(books, run);
    if (fflush(stdout) != 0) { /* it stays unreported, and typing the command again reports it */
        log_say(LOG_ERR, "the outcome cannot be printed: standard output: %s", strerror(errno));
        return run->leftovers > 0 ? STATUS_LEFT_OVER : STATUS_FAILED;
    }
    if (ledger_reported(&books->ledger, run->id) < 0)
        log_say(LOG_WARNING, "the run's report could not be recorded: %s", db_error(books->db)->message);
    return run->leftovers > 0 ? STATUS_LEFT_OVER : STATUS_DONE;
}

/* The attempt ended before the run did. */
static int stop(struct round *round, const char *state, const char *error)
{
    char text[MOMENT_TEXT_MAX];
    int r;

    if (error != NULL)
        log_say(LOG_ERR, "%s", error);
    r = ledger_stop_run(&round->books->ledger, round->id, round->attempt, state, error);
    if (r < 0 && (r != -EIO || error == NULL)) /* of a lost connection the error speaks already */
        log_say(LOG_WARNING, "the run could not be marked %s in the ledger: %s", state,
                r == -ESTALE ? "another process has taken it up" : db_error(round->books->db)->message);
    report(round, RECORD_ENDED, error != NULL ? RUN_FAILED : RUN_INTERRUPTED);
    if (error == NULL && child_stop == SIGALRM)
        log_say(LOG_NOTICE, "max_runtime (%s) is over: interrupted; the next run resumes it",
                duration_format(round->books->job->max_runtime, text));
    else if (error == NULL)
        log_say(LOG_NOTICE, "interrupted; the next run resumes it");
    return error != NULL ? STATUS_FAILED : STATUS_INTERRUPTED;
}

/* Keys of --only that are in none of the run's counts: there is no such row, or it is not one to change. */
static void show_unmatched(const struct round *round, const struct ledger_run *run)
{
    int64_t count = -run->rows_done - run->rows_skipped - run->leftovers;

    for (size_t i = 0; round->task->only != NULL && round->task->only[i] != NULL; i++)
        count++;
    if (count > 0)
        log_say(LOG_WARNING, "%lld of the keys named are no row to change", (long long)count);
}

/* Whoever names rows wants to know when they are not there. */
static void say_untouched(const struct task *task, const struct ledger_run *run)
{
    int64_t named = 0, found = run->rows_done + run->rows_skipped + run->leftovers;

    while (task->only != NULL && task->only[named] != NULL)
        named++;
    if (found < named)
        log_say(LOG_NOTICE, "--only: for %lld of %lld keys there is no row that this job would change now", (long long)(named - found),
                (long long)named);
}

static int finish(struct round *round)
{
    struct books *books = round->books;
    struct ledger_run run = {0};
    struct record record;
    int r = ledger_finish_run(&books->ledger, round->id, round->attempt, &run);

    if (r < 0) {
        ledger_run_free(&run);
        books_failed(books, r, "marking the run done");
        return STATUS_FAILED;
    }
    record = (struct record){
        .type = RECORD_ENDED,
        .state = run.leftovers > 0 ? RUN_PARTIAL : RUN_DONE,
        .run = round->id,
        .due = round->due,
        .rows_done = run.rows_done,
        .rows_skipped = run.rows_skipped,
        .leftovers = run.leftovers,
    };
    books->reporter->report(books->reporter, &record);
    say_untouched(round->task, &run);
    log_say(LOG_INFO, "took %.1f s", (double)(moment_monotonic() - round->began) / (double)USEC_PER_SEC);
    show_unmatched(round, &run);
    r = round_outcome(books, &run, "");
    ledger_run_free(&run);
    return r;
}

/* ---- Leftovers ---- */

/* What identifies a work to the engine's statements. */
static void name_work(struct work *work, const struct books *books, const struct task *task, int64_t run, int attempt)
{
    work->task = task;
    work->ledger = books->schema;
    work->batch_time = books->job->batch_time;
    work->batch_max = books->job->batch_max;
    work->retry_delay = books->job->retry_delay;
    snprintf(work->run, sizeof(work->run), "%lld", (long long)run);
    snprintf(work->job, sizeof(work->job), "%d", books->row.id);
    snprintf(work->attempt, sizeof(work->attempt), "%d", attempt);
}

static int retry_one(struct books *books, struct work *work, const struct ledger_leftover *leftover)
{
    bool locked = false;
    const struct db_error *error;
    AUTO_TEXT message = NULL;
    char sqlstate[6];
    enum failure failure;
    int r = work->task->kind->engine->retry(work, books->db, leftover, &locked);

    if (r == RETRIED_SETTLED)
        return 0;
    if (r < 0)
        return books_failed(books, r, "retrying a leftover");
    error = db_error(books->db);
    message = mem_copy(locked ? "another session holds a lock on the row" : error->message);
    memcpy(sqlstate, locked ? "55P03" : error->sqlstate, sizeof(sqlstate));
    /* What ails more than this row, the statement that puts it off meets, too: nothing else waits for one row's sake. */
    failure = work_failure(sqlstate);
    if (failure == FAILURE_FENCED) {
        log_say(LOG_ERR, "retrying the leftover key %s: %s", leftover->key, message);
        return -EBADMSG;
    }
    r = ledger_put_off(&books->ledger, leftover, failure == FAILURE_LOCKED ? "locked" : "failed", sqlstate, message,
                       work->retry_delay);
    return r < 0 && r != -ESTALE ? books_failed(books, r, "putting a leftover off") : 0;
}

static int set_timeouts(struct books *books, usec_t lock, usec_t statement)
{
    AUTO_TEXT sql = mem_print("SET lock_timeout = '%lldms'; SET statement_timeout = '%lldms'", (long long)(lock / USEC_PER_MSEC),
                              (long long)(statement / USEC_PER_MSEC));
    int r = db_script(books->db, sql);

    return r < 0 ? books_failed(books, r, "setting timeouts") : 0;
}

/*
 * Retries the listed leftovers, all of one run, with that run's task. They are rows of live traffic: this session, which
 * otherwise waits for rows of the ledger alone, gives way as a lane does.
 */
static int retry_list(struct books *books, const struct task *task, const struct ledger_leftover *list, size_t count)
{
    struct work work = {0};
    int r = set_timeouts(books, books->job->lock_timeout, LANE_STATEMENT_TIMEOUT);

    name_work(&work, books, task, list[0].run, list[0].run_attempt);
    for (size_t i = 0; i < count && r == 0; i++)
        r = child_stop ? -EINTR : retry_one(books, &work, &list[i]);
    return r == 0 ? set_timeouts(books, BOOKS_LOCK_TIMEOUT, 0) : r;
}

static int read_task(struct books *books, int64_t run, struct task *ret)
{
    AUTO_ROWS rows = NULL;
    AUTO_TEXT error = NULL;
    int r = ledger_params(&books->ledger, run, &rows);

    if (r < 0)
        return books_failed(books, r, "reading the run's parameters");
    r = frozen_read(rows, ret, &error);
    if (r < 0)
        log_say(LOG_ERR, "the parameters of run %lld cannot be used: %s", (long long)run, error);
    return r;
}

/* One run's share of a list. */
static int retry_run(struct books *books, const struct ledger_leftover *list, size_t count)
{
    struct task task = {0};
    int r = read_task(books, list[0].run, &task);

    if (r == 0)
        r = retry_list(books, &task, list, count);
    task_free(&task);
    return r;
}

/* Closes the runs of which nothing is left; one may have been killed before it came to that. */
static int close_settled(struct books *books)
{
    struct ledger_run run = {0};
    int r;

    while ((r = ledger_first_partial(&books->ledger, books->row.id, true, &run)) == 0) {
        int64_t id = run.id;
        int attempt = run.attempt;

        ledger_run_free(&run);
        log_about(books->job->name, MOMENT_NONE, id);
        r = ledger_finish_run(&books->ledger, id, attempt, &run);
        if (r == 0 && strcmp(run.state, "done") != 0)
            r = -ESTALE;
        if (r < 0)
            books_failed(books, r, "closing a run whose leftovers are settled");
        else
            round_outcome(books, &run, "its last leftover is settled: ");
        ledger_run_free(&run);
        log_about(books->job->name, MOMENT_NONE, 0);
        if (r < 0)
            return r;
    }
    return r == -ENOENT ? 0 : books_failed(books, r, "looking for runs whose leftovers are settled");
}

/* One page of leftovers. Returns how many there were, and in `*after` the last one's key. */
static int retry_page(struct books *books, int64_t run, char **after)
{
    struct ledger_leftover *list = NULL;
    size_t count = 0;
    int r = ledger_leftovers(&books->ledger, books->row.id, run, *after, RETRY_PAGE, &list, &count);

    if (r < 0)
        return books_failed(books, r, "reading the leftovers");
    for (size_t first = 0, end; first < count && r == 0; first = end) {
        for (end = first + 1; end < count && list[end].run == list[first].run;)
            end++;
        log_about(books->job->name, MOMENT_NONE, list[first].run);
        log_say(LOG_INFO, "retrying %zu leftovers", end - first);
        r = retry_run(books, list + first, end - first);
        log_about(books->job->name, MOMENT_NONE, 0);
    }
    free(*after);
    *after = count > 0 ? mem_copy(list[count - 1].key) : NULL;
    ledger_leftovers_free(list, count);
    return r < 0 ? r : (int)count;
}

int round_retry(struct books *books, int64_t run)
{
    AUTO_TEXT after = NULL;
    int r;

    /* What is due again soon after it was put off waits for the next call: this one comes to an end. */
    do
        r = retry_page(books, run, &after);
    while (r == RETRY_PAGE && run != 0);
    if (r >= 0)
        r = close_settled(books);
    return r >= 0 ? STATUS_DONE : r == -EINTR ? STATUS_INTERRUPTED : STATUS_FAILED;
}

/* Rows that were locked or failed are tried once more at the end of their run: most locks are gone by then. */
static int retry_own(struct round *round)
{
    struct books *books = round->books;
    struct ledger_leftover *list = NULL;
    size_t count = 0;
    int r = ledger_leftovers(&books->ledger, books->row.id, round->id, NULL, RETRY_PAGE, &list, &count);

    if (r < 0)
        return books_failed(books, r, "reading the leftovers");
    if (count > 0)
        r = retry_list(books, round->task, list, count);
    ledger_leftovers_free(list, count);
    return r;
}

/* ---- A run ---- */

static int load_lanes(struct round *round)
{
    struct work *work = &round->work;
    struct ledger_lane *list = NULL;
    int r = ledger_lanes(&round->books->ledger, round->id, &list, &work->lane_count);

    if (r < 0)
        return books_failed(round->books, r, "reading the run's lanes");
    work->lanes = mem_alloc(work->lane_count * sizeof(*work->lanes));
    for (size_t i = 0; i < work->lane_count; i++) {
        work->lanes[i].at = list[i];
        snprintf(work->lanes[i].number, sizeof(work->lanes[i].number), "%d", list[i].lane);
    }
    free(list);
    return 0;
}

static int drive(struct round *round)
{
    struct books *books = round->books;
    struct work *work = &round->work;
    struct lanes_options options = {
        .session =
            {
                .conninfo = books->configuration->conninfo,
                .purpose = books->job->name,
                .search_path = books->search_path,
                .lock_timeout = books->job->lock_timeout,
                .statement_timeout = LANE_STATEMENT_TIMEOUT,
                .stop = &child_stop,
            },
        .control = books->db,
        .stop = &child_stop,
        .progress = on_progress,
        .argument = round,
    };
    int r;

    lanes_run(work, &options);
    report(round, RECORD_PROGRESS, RUN_RUNNING);
    if (work->end == WORK_FENCED) {
        log_say(LOG_ERR, "another process has taken the run up; this one stops");
        return STATUS_FAILED;
    }
    if (child_stop && !lanes_finished(work))
        return stop(round, "interrupted", NULL);
    if (work->end == WORK_FAILED)
        return stop(round, "failed", work->error);
    r = retry_own(round);
    if (r == -EINTR)
        return stop(round, "interrupted", NULL);
    if (r < 0) { /* logged; a lost connection leaves the ledger as it is */
        AUTO_TEXT error = mem_copy(db_error(books->db)->message);

        ledger_stop_run(&books->ledger, round->id, round->attempt, "failed", error);
        report(round, RECORD_ENDED, RUN_FAILED);
        return STATUS_FAILED;
    }
    return finish(round);
}

static int make(struct round *round)
{
    struct books *books = round->books;
    int status;

    log_about(books->job->name, round->due, round->id);
    round->began = moment_monotonic();
    name_work(&round->work, books, round->task, round->id, round->attempt);
    if (load_lanes(round) < 0) {
        status = STATUS_FAILED;
    } else {
        report(round, RECORD_STARTED, RUN_RUNNING);
        log_say(LOG_INFO, "attempt %d with %zu lanes", round->attempt, round->work.lane_count);
        status = drive(round);
    }
    for (size_t i = 0; i < round->work.lane_count; i++)
        ledger_lane_free(&round->work.lanes[i].at);
    free(round->work.lanes);
    free(round->work.error);
    log_about(books->job->name, MOMENT_NONE, 0);
    return status;
}

int round_start(struct books *books, struct task *task, const struct round_start *start)
{
    const struct engine *engine = task->kind->engine;
    struct round round = {.books = books, .task = task, .due = start->due, .attempt = 1};
    struct ledger_start row = {
        .job = books->row.id,
        .due = start->due,
        .trigger = start->trigger,
        .settles = start->settles,
        .settled = books->row.settled_through,
    };
    struct ledger_range *ranges = NULL;
    AUTO_TEXT params = NULL;
    int status = STATUS_FAILED, r;

    r = verify_task(books, task, &task->key);
    if (r == 0)
        r = verify_keys(books, task);
    if (r == 0 && (r = engine->split(books->db, task, books->job->lanes, &ranges, &row.range_count)) < 0)
        books_failed(books, r, "splitting the work into lanes");
    if (r == 0) {
        params = frozen_write(task, start->request);
        row.params = params;
        row.started = task->started;
        row.ranges = ranges;
        r = ledger_start_run(&books->ledger, &row, &round.id);
        if (r < 0 && r != -EEXIST)
            books_failed(books, r, "starting the run in the ledger");
        if (start->settles && (r == 0 || r == -EEXIST))
            books->row.settled_through = start->due;
    }
    ledger_ranges_free(ranges, row.range_count);
    if (r == 0)
        status = make(&round);
    else if (r == -EEXIST || r == -EDOM)
        status = r == -EDOM ? STATUS_USAGE : STATUS_DONE;
    task_free(task);
    return status;
}

int round_resume(struct books *books, const struct ledger_run *run)
{
    struct task task = {0};
    struct key_type key = {0};
    struct round round = {.books = books, .task = &task, .id = run->id, .due = run->due};
    int status = STATUS_FAILED, r;

    log_about(books->job->name, run->due, run->id);
    r = read_task(books, run->id, &task);
    if (r == 0)
        r = verify_task(books, &task, &key);
    if (r == 0)
        r = verify_order(books, &task, &key, run->id);
    if (r == 0 && (r = ledger_take_up(&books->ledger, run->id, run->attempt, &round.attempt)) < 0)
        books_failed(books, r, "taking the run up");
    if (r == 0)
        status = make(&round);
    key_type_free(&key);
    task_free(&task);
    log_about(books->job->name, MOMENT_NONE, 0);
    return status;
}

/* ---- Preview ---- */

int round_preview(struct books *books, struct task *task)
{
    struct preview preview = {0};
    int r = verify_task(books, task, &task->key);

    if (r == 0)
        r = verify_keys(books, task);
    if (r == 0) {
        task->started = moment_now() - books->behind;
        r = task->kind->engine->preview(books->db, task, &preview);
        if (r < 0)
            books_failed(books, r, "counting");
    }
    if (r == 0) {
        printf("%s: would change %lld rows", books->job->name, (long long)preview.rows);
        if (preview.by != NULL)
            printf(", by %s", preview.by);
        if (preview.skipped > 0)
            printf(", and leave %lld as they are", (long long)preview.skipped);
        for (size_t i = 0; preview.keys[i] != NULL; i++)
            printf("%s%s", i == 0 ? "; the first keys: " : ", ", preview.keys[i]);
        printf("\n");
    }
    for (size_t i = 0; preview.keys != NULL && preview.keys[i] != NULL; i++)
        free(preview.keys[i]);
    free(preview.keys);
    free(preview.by);
    task_free(task);
    return r == 0 ? STATUS_DONE : r == -EDOM ? STATUS_USAGE : STATUS_FAILED;
}
