/* SPDX-License-Identifier: PostgreSQL */
#include "owed.h"

#include <errno.h>

#include "log.h"
#include "status.h"

int owed_worse(int a, int b)
{
    static const int order[] = {STATUS_FAILED, STATUS_INTERRUPTED, STATUS_LEFT_OVER};

    for (size_t i = 0; i < ELEMENTS(order); i++)
        if (a == order[i] || b == order[i])
            return order[i];
    return STATUS_DONE;
}

struct owed owed_find(const struct books *books, usec_t until)
{
    const struct job *job = books->job;
    struct owed owed = {.first = MOMENT_NONE, .before_last = MOMENT_NONE, .last = MOMENT_NONE};
    struct occurrence next = {.at = books->row.settled_through};

    while (schedule_next(job->schedule, next.at, &next) == 0 && next.at <= until) {
        if (next.at < until - job->catch_up_max_age) {
            if (owed.too_old++ == 0)
                owed.too_old_from = next.at;
            owed.too_old_through = next.at;
            continue;
        }
        if (owed.count++ == 0)
            owed.first = next.at;
        owed.before_last = owed.last;
        owed.last = next.at;
    }
    return owed;
}

static int skip(struct books *books, usec_t from, usec_t through, int64_t count, const char *reason)
{
    char first[MOMENT_TEXT_MAX], last[MOMENT_TEXT_MAX];
    int r = ledger_skip(&books->ledger, books->row.id, books->row.settled_through, from, through, count, reason);

    if (r < 0)
        return books_failed(books, r, "recording skipped occurrences");
    books->row.settled_through = through;
    if (count == 1)
        log_say(LOG_NOTICE, "skipped the occurrence %s: %s", moment_format(from, first), reason);
    else
        log_say(LOG_NOTICE, "skipped %lld occurrences, %s to %s: %s", (long long)count, moment_format(from, first),
                moment_format(through, last), reason);
    return 0;
}

/* Records what catch_up does not make up for. */
int owed_skip(struct books *books, const struct owed *owed, usec_t on_time)
{
    enum catch_up catch_up = books->job->catch_up;
    int r = 0;

    if (owed->too_old > 0)
        r = skip(books, owed->too_old_from, owed->too_old_through, owed->too_old, "older than catch_up_max_age");
    if (r < 0 || owed->count == 0 || catch_up == CATCH_UP_ALL)
        return r;
    if (catch_up == CATCH_UP_NONE && owed->last != on_time)
        return skip(books, owed->first, owed->last, owed->count, "catch_up is none");
    if (owed->count > 1)
        return skip(books, owed->first, owed->before_last, owed->count - 1,
                    catch_up == CATCH_UP_NONE ? "catch_up is none" : "catch_up is latest");
    return 0;
}

/* Makes the runs that are owed up to `until`. `on_time` is the occurrence that a timer fired for. */
int owed_settle(struct books *books, usec_t until, usec_t on_time)
{
    struct owed owed = owed_find(books, until);
    struct occurrence next;
    int status = STATUS_DONE, made;

    if (owed_skip(books, &owed, on_time) < 0)
        return STATUS_FAILED;
    next.at = books->row.settled_through;
    while (status != STATUS_FAILED && status != STATUS_INTERRUPTED && schedule_next(books->job->schedule, next.at, &next) == 0 &&
           next.at <= until) {
        struct task task;

        if (child_stop)
            return STATUS_INTERRUPTED;
        task = task_of_job(books->configuration, books->job, NULL);
        made = round_verify(books, &task);
        if (made == STATUS_DONE)
            made = round_start(books, &task,
                               &(struct round_start){
                                   .due = next.at,
                                   .trigger = next.at == on_time ? "schedule" : "catch_up",
                                   .settles = true,
                               });
        task_free(&task);
        status = owed_worse(status, made);
    }
    return status;
}

int owed_verify(const struct books *books)
{
    char settled[MOMENT_TEXT_MAX], now[MOMENT_TEXT_MAX];

    if (books->row.settled_through <= books->row.now + books->configuration->max_clock_skew)
        return 0;
    log_say(LOG_ERR, "the ledger says that all is settled through %s, and the database's clock says %s: nothing is settled until "
                     "the clock is right",
            moment_format(books->row.settled_through, settled), moment_format(books->row.now, now));
    return -ETIME;
}
