/* SPDX-License-Identifier: PostgreSQL */
#include "run.h"

#include <errno.h>
#include <string.h>

#include "leftovers.h"
#include "log.h"
#include "owed.h"
#include "round.h"
#include "status.h"

#define STANDBY_POLL (500 * USEC_PER_MSEC)

static usec_t earlier(usec_t a, usec_t b)
{
    return a < b ? a : b;
}

/* A lock that another process holds is polled for: a session that waited inside the server would hold a snapshot. */
static int lock_or_stand_by(struct books *books)
{
    struct record record = {.type = RECORD_STANDBY};
    int r = books_lock(books);

    if (r != 0)
        return r < 0 ? r : 0;
    log_say(LOG_INFO, "another process has the job's lock; standing by");
    books->reporter->report(books->reporter, &record);
    while (r == 0 && !child_stop) {
        child_rest(STANDBY_POLL);
        r = books_lock(books);
    }
    return r == 0 ? -EINTR : r < 0 ? r : books_clocks(books, true);
}

/* Against the row as it was before. */
static void say_applied(const struct books *books, const char *zone)
{
    const struct ledger_job *row = &books->row;
    const struct job *job = books->job;
    bool schedule = strcmp(row->schedule, job->schedule_text) != 0 || strcmp(row->timezone, zone) != 0;

    if (strcmp(row->kind, job->kind->name) != 0)
        log_say(LOG_NOTICE, "the changed kind takes effect: it is %s, and was %s", job->kind->name, row->kind);
    if (schedule || row->enabled != job->enabled)
        log_say(LOG_NOTICE, "%s: \"%s\" in %s; nothing from before now is owed",
                !job->enabled ? "disabled" : schedule ? "the changed schedule takes effect" : "enabled", job->schedule_text,
                zone);
}

static int agree(struct books *books, bool apply)
{
    struct record record = {.type = RECORD_APPLIED};
    const struct job *job = books->job;
    AUTO_TEXT zone = books_zone(job);
    int r;

    if (!books_agree(books)) {
        if (!apply) {
            AUTO_TEXT difference = books_difference(books);

            log_say(LOG_ERR, "%s: the file was changed for another daemon only; reload the one whose file is old", difference);
            return -ESTALE;
        }
        r = ledger_apply_job(&books->ledger, books->row.id, job->kind->name, job->schedule_text, zone, job->enabled);
        if (r < 0)
            return books_failed(books, r, "applying the changed schedule");
        say_applied(books, zone);
        r = books_see(books);
        if (r < 0)
            return r;
    }
    if (apply)
        books->reporter->report(books->reporter, &record);
    return 0;
}

static int finish_unfinished(struct books *books)
{
    struct ledger_run run = {0};
    int status = STATUS_DONE, r;

    while ((status == STATUS_DONE || status == STATUS_LEFT_OVER) &&
           (r = ledger_unfinished(&books->ledger, books->row.id, false, NULL, &run)) != -ENOENT) {
        if (r < 0)
            return books_failed(books, r, "looking for unfinished runs"), STATUS_FAILED;
        status = owed_worse(status, round_resume(books, &run));
        ledger_run_free(&run);
    }
    return status;
}

static int close_errand(struct books *books)
{
    struct record record = {.type = RECORD_RETRY};
    int r = ledger_prune(&books->ledger, books->row.id, books->configuration->ledger_keep);

    if (r < 0)
        return books_failed(books, r, "deleting runs older than ledger.keep");
    r = ledger_next_attempt(&books->ledger, books->row.id, &record.at);
    if (r < 0)
        return books_failed(books, r, "reading when leftovers are due");
    if (record.at != MOMENT_NONE) {
        record.at += books->behind;
        books->reporter->report(books->reporter, &record);
    }
    return 0;
}

static int settle_books(struct books *books, const struct errand *errand)
{
    int status;

    if (books_see(books) < 0)
        return STATUS_FAILED;
    switch (lock_or_stand_by(books)) {
    case 0:
        break;
    case -EINTR:
        return STATUS_INTERRUPTED;
    default:
        return STATUS_FAILED;
    }
    if (books_see(books) < 0 || agree(books, errand->apply) < 0)
        return STATUS_FAILED;
    if (!errand->job->enabled)
        return STATUS_DONE;
    if (owed_verify(books) < 0)
        return STATUS_FAILED;
    status = finish_unfinished(books);
    if (status == STATUS_DONE || status == STATUS_LEFT_OVER)
        status = owed_worse(status, leftovers_retry(books, 0));
    if (status == STATUS_DONE || status == STATUS_LEFT_OVER) {
        /* A timer of a host whose clock is a little ahead: the database's clock must have come there, too. */
        while (errand->due != MOMENT_NONE && books_now(books) < errand->due && !child_stop)
            child_rest(errand->due - books_now(books));
        status = owed_worse(status, owed_settle(books, earlier(books_now(books), errand->until), errand->due));
    }
    if (status != STATUS_DONE && status != STATUS_LEFT_OVER)
        return status;
    return close_errand(books) < 0 ? STATUS_FAILED : status;
}

int run_settle(const void *argument, struct reporter *reporter)
{
    const struct errand *errand = argument;
    struct books books = {.configuration = errand->configuration, .job = errand->job, .reporter = reporter};
    int status = STATUS_FAILED, r;

    log_about(errand->job->name, MOMENT_NONE, 0);
    r = books_open(&books, true);
    if (r == 0)
        status = settle_books(&books, errand);
    else if (r == -ECANCELED)
        status = STATUS_INTERRUPTED;
    books_close(&books);
    log_about(NULL, MOMENT_NONE, 0);
    return status;
}
