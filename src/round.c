/* SPDX-License-Identifier: PostgreSQL */
#include "round.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.h"
#include "leftovers.h"
#include "log.h"
#include "outcome.h"
#include "status.h"
#include "verify.h"
#include "watch.h"

#define PARTED_LANES 32 /* how often idle lanes may take over a part of another lane's rest */

/* A run in progress. */
struct round {
    struct books *books;
    struct task *task;
    int64_t id;
    int attempt;
    usec_t due, began;
    struct work work;
    struct watch watch;
    bool holds; /* it was logged that the run holds back */
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
    if (round->work.held != NULL)
        snprintf(record.held, sizeof(record.held), "%s", round->work.held);
    round->books->reporter->report(round->books->reporter, &record);
}

static int on_watch(struct work *work, void *argument)
{
    struct round *round = argument;
    int r = watch_look(&round->watch, round->books->db, work);

    if (work->held != NULL && !round->holds)
        log_say(LOG_NOTICE, "holding back: %s", work->held);
    else if (work->held == NULL && round->holds)
        log_say(LOG_NOTICE, "going on: what held it back is over");
    round->holds = work->held != NULL;
    return r;
}

static void on_progress(const struct work *work, void *argument)
{
    (void)work;
    report(argument, RECORD_PROGRESS, RUN_RUNNING);
}

/* ---- Outcomes ---- */

static void mark(struct books *books, int64_t run, int attempt, const char *state, const char *error)
{
    int r = ledger_stop_run(&books->ledger, run, attempt, state, error);

    if (r < 0 && (r != -EIO || error == NULL)) /* of a lost connection the error speaks already */
        log_say(LOG_WARNING, "the run could not be marked %s in the ledger: %s", state,
                r == -ESTALE ? "another process has taken it up" : db_error(books->db)->message);
}

/* The attempt ended before the run did. */
static int stop(struct round *round, const char *state, const char *error)
{
    /* The daemon leaves manual runs alone. */
    const char *then = round->due == MOMENT_NONE ? "finish it with --run-once, or give it up with --abandon"
                                                 : "the next run resumes it";
    char text[MOMENT_TEXT_MAX];

    if (error != NULL)
        log_say(LOG_ERR, "%s", error);
    mark(round->books, round->id, round->attempt, state, error);
    report(round, RECORD_ENDED, error != NULL ? RUN_FAILED : RUN_INTERRUPTED);
    if (error == NULL && child_stop == SIGALRM)
        log_say(LOG_NOTICE, "max_runtime (%s) is over: interrupted; %s",
                duration_format(round->books->job->max_runtime, text), then);
    else if (error == NULL)
        log_say(LOG_NOTICE, "interrupted; %s", then);
    return error != NULL ? STATUS_FAILED : STATUS_INTERRUPTED;
}

/* Whoever names rows wants to know when they are not there. */
static void say_untouched(const struct task *task, const struct ledger_run *run)
{
    int64_t named = 0, found = run->rows_done + run->rows_skipped + run->leftovers;

    while (task->only != NULL && task->only[named] != NULL)
        named++;
    if (found < named)
        log_say(LOG_WARNING, "--only: for %lld of %lld keys there is no row that this job would change now",
                (long long)(named - found), (long long)named);
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
    r = outcome_report(books, &run, "", NULL);
    ledger_run_free(&run);
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
    work->lane_room = work->lane_count + PARTED_LANES;
    work->lanes = mem_alloc(work->lane_room * sizeof(*work->lanes));
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
                .statement_timeout = BOOKS_STATEMENT_TIMEOUT,
                .stop = &child_stop,
            },
        .control = books->db,
        .stop = &child_stop,
        .watch = on_watch,
        .progress = on_progress,
        .argument = round,
    };
    int r;

    round->watch = (struct watch){
        .max_replica_lag = books->configuration->max_replica_lag,
        .max_slot_wal = books->configuration->max_slot_wal,
        .lock_timeout = books->job->lock_timeout,
    };
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
    r = leftovers_retry_own(books, round->task, round->id, round->attempt);
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
    books_name_work(&round->work, books, round->task, round->id, round->attempt);
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
    free(round->work.held);
    log_about(books->job->name, MOMENT_NONE, 0);
    return status;
}

int round_verify(struct books *books, struct task *task)
{
    AUTO_TEXT error = NULL;
    int r = verify_task(books, task, &task->key, &error);

    if (r == 0)
        r = verify_keys(books, task, &error);
    if (r < 0)
        log_say(LOG_ERR, "%s", error);
    return r == 0 ? STATUS_DONE : r == -EDOM ? STATUS_USAGE : STATUS_FAILED;
}

int round_start(struct books *books, struct task *task, const struct round_start *start)
{
    const struct engine *engine = task->kind->engine;
    const struct governor governor = books_governor(books);
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
    /* No more lanes than its pace lets work at a time: each session costs the server its beginning and its end. */
    int r = engine->split(books->db, task, governor_lanes(&governor), &ranges, &row.range_count);

    if (r < 0)
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
    return r == 0 ? make(&round) : r == -EEXIST ? STATUS_DONE : STATUS_FAILED;
}

/* The run's task, if it can go on as it is now. Returns 0, or a negative errno and *ret_error. The caller frees either. */
static int verify_resume(struct books *books, const struct ledger_run *run, struct task *ret, char **ret_error)
{
    struct key_type key = {0};
    int r = books_task(books, run->id, ret, ret_error);

    if (r == 0)
        r = verify_task(books, ret, &key, ret_error);
    if (r == 0)
        r = verify_order(books, ret, &key, run->id, ret_error);
    key_type_free(&key);
    return r;
}

int round_resume(struct books *books, const struct ledger_run *run)
{
    struct task task = {0};
    struct round round = {.books = books, .task = &task, .id = run->id, .due = run->due};
    AUTO_TEXT error = NULL;
    int status = STATUS_FAILED;

    log_about(books->job->name, run->due, run->id);
    if (verify_resume(books, run, &task, &error) < 0) {
        log_say(LOG_ERR, "%s", error);
        mark(books, run->id, run->attempt, "failed", error);
    } else {
        int r = ledger_take_up(&books->ledger, run->id, run->attempt, &round.attempt);

        status = r < 0 ? books_failed(books, r, "taking the run up"), STATUS_FAILED : make(&round);
    }
    task_free(&task);
    log_about(books->job->name, MOMENT_NONE, 0);
    return status;
}

/* ---- Preview ---- */

int round_preview(struct books *books, struct task *task)
{
    struct preview preview = {0};
    int r = db_script(books->db, "BEGIN READ ONLY");

    task->started = moment_now() - books->behind;
    if (r == 0)
        r = task->kind->engine->preview(books->db, task, &preview);
    if (r == 0)
        r = db_script(books->db, "COMMIT");
    if (r < 0) {
        books_failed(books, r, "counting");
    } else {
        printf("%s: would change %lld row%s", books->job->name, (long long)preview.rows, preview.rows == 1 ? "" : "s");
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
    return r == 0 ? STATUS_DONE : STATUS_FAILED;
}

int round_preview_resume(struct books *books, const struct ledger_run *run)
{
    struct task task = {0};
    AUTO_TEXT error = NULL;
    int r = verify_resume(books, run, &task, &error);

    if (r < 0)
        log_say(LOG_ERR, "%s", error);
    else
        outcome_so_far(books, run, task.rows);
    task_free(&task);
    return r < 0 ? STATUS_FAILED : STATUS_DONE;
}
