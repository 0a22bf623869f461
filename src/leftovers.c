/* SPDX-License-Identifier: PostgreSQL */
#include "leftovers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "outcome.h"
#include "status.h"

#define RETRY_PAGE 500
#define OWN_PAGE 50

/* Returns 1 when it is settled, 0 when it was put off. */
static int retry_one(struct books *books, struct work *work, const struct ledger_leftover *leftover)
{
    bool locked = false;
    const struct db_error *error;
    AUTO_TEXT message = NULL;
    char sqlstate[6];
    enum failure failure;
    int r = work->task->kind->engine->retry(work, books->db, leftover, &locked);

    if (r == RETRIED_SETTLED)
        return 1;
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
 * otherwise waits for rows of the ledger alone, gives way as a lane does. Returns how many were settled.
 */
static int retry_list(struct books *books, const struct task *task, const struct ledger_leftover *list, size_t count)
{
    int settled = 0;
    struct work work = {0};
    int r = set_timeouts(books, books->job->lock_timeout, BOOKS_STATEMENT_TIMEOUT);

    books_name_work(&work, books, task, list[0].run, list[0].run_attempt);
    for (size_t i = 0; i < count && r == 0; i++) {
        r = child_stop ? -EINTR : retry_one(books, &work, &list[i]);
        if (r > 0) {
            settled++;
            r = 0;
        }
    }
    if (r == 0)
        r = set_timeouts(books, BOOKS_LOCK_TIMEOUT, 0);
    return r < 0 ? r : settled;
}

/* One run's share of a list. Returns 0 or a negative errno. */
static int retry_run(struct books *books, const struct ledger_leftover *list, size_t count)
{
    struct task task = {0};
    AUTO_TEXT error = NULL;
    int r = books_task(books, list[0].run, &task, &error);

    if (r < 0)
        log_say(LOG_ERR, "%s", error);
    else
        r = retry_list(books, &task, list, count);
    task_free(&task);
    return r < 0 ? r : 0;
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
            outcome_report(books, &run, "", "its last leftover is settled");
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

int leftovers_retry(struct books *books, int64_t run)
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

/* Most locks are gone by the end of the run. Where most are not, the others may wait for their time, and the run may end. */
int leftovers_retry_own(struct books *books, const struct task *task, int64_t run, int attempt)
{
    AUTO_TEXT after = NULL;
    size_t count;
    int r;

    do {
        struct ledger_leftover *list = NULL;

        count = 0;
        r = ledger_leftovers(&books->ledger, books->row.id, run, after, OWN_PAGE, &list, &count);
        if (r < 0)
            return books_failed(books, r, "reading the leftovers");
        for (size_t i = 0; i < count; i++) /* not whatever it is by now: somebody else may have taken the run up */
            list[i].run_attempt = attempt;
        if (count > 0) {
            r = retry_list(books, task, list, count);
            mem_replace(&after, mem_copy(list[count - 1].key));
        }
        ledger_leftovers_free(list, count);
    } while (count == OWN_PAGE && r > OWN_PAGE / 2);
    return r < 0 ? r : 0;
}
