/* SPDX-License-Identifier: PostgreSQL */
#include "once.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "leftovers.h"
#include "log.h"
#include "outcome.h"
#include "owed.h"
#include "round.h"
#include "status.h"

static const char *due_text(const struct ledger_run *run, char text[static MOMENT_TEXT_MAX])
{
    return run->due == MOMENT_NONE ? "manual" : moment_format(run->due, text);
}

static int refuse_beside(const struct books *books, const struct ledger_run *run, const char *what)
{
    char text[MOMENT_TEXT_MAX];

    log_say(LOG_ERR, "%s is refused while run %lld (%s, %s) is unfinished: finish it with roundsman --run-once %s, or give it up with "
                     "roundsman --abandon %s -n %lld",
            what, (long long)run->id, due_text(run, text), run->state, books->job->name, books->job->name, (long long)run->id);
    return STATUS_USAGE;
}

/* A disabled job's tables may be under somebody's hands: nothing is begun, resumed or retried, not even by hand. */
static int refuse_disabled(const struct ledger_run *run)
{
    char text[MOMENT_TEXT_MAX];

    if (run == NULL)
        log_say(LOG_ERR, "no run is made while the job is disabled (enabled = false)");
    else
        log_say(LOG_ERR, "run %lld (%s) is %s, and is not resumed while the job is disabled (enabled = false)",
                (long long)run->id, due_text(run, text), strcmp(run->state, "partial") == 0 ? "partial" : "unfinished");
    return STATUS_FAILED;
}

static int resume(struct books *books, const struct request *request, const struct ledger_run *run)
{
    char text[MOMENT_TEXT_MAX];

    if (!books->job->enabled)
        return refuse_disabled(run);
    log_say(LOG_NOTICE, "%s run %lld (%s, %s)", request->dry_run ? "dry run: would finish" : "finishing", (long long)run->id,
            due_text(run, text), run->state);
    return request->dry_run ? round_preview_resume(books, run) : round_resume(books, run);
}

/* Retries all leftovers of a run now, whenever they are due, and says how it stands after that. */
static int retry_now(struct books *books, const struct request *request, const struct ledger_run *run)
{
    struct ledger_run after = {0};
    char text[MOMENT_TEXT_MAX];
    int status;

    if (!books->job->enabled)
        return refuse_disabled(run);
    log_say(LOG_NOTICE, "%s the %lld row%s that run %lld (%s) left over, and nothing else (for an extra run, give the rest up "
                        "first with roundsman --abandon %s -n %lld, or ask for one with --only or --set)",
            request->dry_run ? "dry run: would retry" : "retrying", (long long)run->leftovers, run->leftovers == 1 ? "" : "s",
            (long long)run->id, due_text(run, text), books->job->name, (long long)run->id);
    if (request->dry_run)
        return outcome_so_far(books, run, 0), STATUS_DONE;
    status = leftovers_retry(books, run->id);
    if (status != STATUS_DONE)
        return status;
    if (ledger_find_run(&books->ledger, run->id, NULL, &after) < 0)
        return STATUS_FAILED;
    if (after.leftovers > 0)
        status = outcome_report(books, &after, "still ", NULL);
    ledger_run_free(&after);
    return status;
}

static int extra_run(struct books *books, const struct request *request, const char *asked)
{
    struct task task = task_of_job(books->configuration, books->job, request->only);
    int status = books->job->enabled ? round_verify(books, &task) : refuse_disabled(NULL);

    if (status == STATUS_DONE && asked != NULL && !request->dry_run)
        status = leftovers_retry(books, 0);
    if (status == STATUS_DONE && request->dry_run) {
        log_say(LOG_NOTICE, "dry run: would make an extra run");
        status = round_preview(books, &task);
    } else if (status == STATUS_DONE) {
        log_say(LOG_NOTICE, "making an extra run");
        status = round_start(books, &task, &(struct round_start){.due = MOMENT_NONE, .trigger = "manual", .request = asked});
    }
    task_free(&task);
    return status;
}

/* ---- --due: that occurrence, and nothing else ---- */

static int settle_with_run(struct books *books, const struct request *request, const struct ledger_run *run)
{
    char due[MOMENT_TEXT_MAX];

    if (strcmp(run->state, "partial") == 0)
        return retry_now(books, request, run);
    if (strcmp(run->state, "done") != 0 && strcmp(run->state, "abandoned") != 0)
        return resume(books, request, run);
    log_say(LOG_NOTICE, "nothing to do: %s is settled already, by run %lld (%s)", moment_format(run->due, due),
            (long long)run->id, run->state);
    return STATUS_DONE;
}

static int settle_with_new_run(struct books *books, const struct request *request)
{
    struct task task = task_of_job(books->configuration, books->job, NULL);
    char due[MOMENT_TEXT_MAX];
    int status = books->job->enabled ? round_verify(books, &task) : refuse_disabled(NULL);

    if (status == STATUS_DONE && request->dry_run) {
        log_say(LOG_NOTICE, "dry run: would settle the occurrence %s", moment_format(request->due, due));
        status = round_preview(books, &task);
    } else if (status == STATUS_DONE) {
        log_say(LOG_NOTICE, "settling the occurrence %s", moment_format(request->due, due));
        status = round_start(books, &task, &(struct round_start){.due = request->due, .trigger = "catch_up"});
    }
    task_free(&task);
    return status;
}

static int settle_due(struct books *books, const struct request *request)
{
    struct ledger_run run = {0};
    char due[MOMENT_TEXT_MAX], from[MOMENT_TEXT_MAX], through[MOMENT_TEXT_MAX];
    int status, r;

    moment_format(request->due, due);
    if (request->due > books_now(books)) {
        log_say(LOG_ERR, "--due %s is in the future", due);
        return STATUS_USAGE;
    }
    r = ledger_find_due(&books->ledger, books->row.id, request->due, &run);
    if (r == 0) {
        status = settle_with_run(books, request, &run);
        ledger_run_free(&run);
        return status;
    }
    if (r != -ENOENT)
        return books_failed(books, r, "looking for the occurrence's run"), STATUS_FAILED;
    if (books->row.pruned_from != MOMENT_NONE && request->due >= books->row.pruned_from &&
        request->due <= books->row.pruned_through) {
        log_say(LOG_ERR, "--due %s is from a time whose runs were deleted by ledger.keep (%s to %s): whether it was run is not known",
                due, moment_format(books->row.pruned_from, from), moment_format(books->row.pruned_through, through));
        return STATUS_FAILED;
    }
    r = ledger_unfinished(&books->ledger, books->row.id, true, NULL, &run);
    if (r == 0) {
        status = refuse_beside(books, &run, "--due");
        ledger_run_free(&run);
        return status;
    }
    if (r != -ENOENT)
        return books_failed(books, r, "looking for unfinished runs"), STATUS_FAILED;
    return settle_with_new_run(books, request);
}

/* ---- The first that applies ---- */

/* A manual run that was finished and not reported, or that has leftovers. */
static int close_run(struct books *books, const struct request *request, const struct ledger_run *run)
{
    if (strcmp(run->state, "partial") == 0)
        return retry_now(books, request, run);
    if (!request->dry_run)
        return outcome_report(books, run, "", "it was finished earlier and not reported; no new run is made");
    log_say(LOG_NOTICE, "dry run: would report run %lld (%s), and make no new one", (long long)run->id, run->state);
    return STATUS_DONE;
}

/*
 * What an earlier command left: unfinished, or finished and not reported, or with leftovers. Returns an exit status when that
 * is what this command is for, -ENOENT when there is nothing of it.
 */
static int earlier_run(struct books *books, const struct request *request, const char *asked)
{
    struct ledger_run run = {0};
    int status, r;

    r = ledger_unfinished(&books->ledger, books->row.id, true, asked, &run);
    if (r == 0) {
        if (asked != NULL && !(run.due == MOMENT_NONE && run.same_request))
            status = refuse_beside(books, &run, request->only != NULL ? "--only" : "--set");
        else
            status = resume(books, request, &run);
        ledger_run_free(&run);
        return status;
    }
    if (r != -ENOENT)
        return books_failed(books, r, "looking for unfinished runs"), STATUS_FAILED;
    r = ledger_manual_to_close(&books->ledger, books->row.id, asked, &run);
    if (r == -ENOENT)
        return -ENOENT;
    if (r < 0)
        return books_failed(books, r, "looking for runs that were not reported"), STATUS_FAILED;
    status = close_run(books, request, &run);
    ledger_run_free(&run);
    return status;
}

static void say_owed(const struct books *books, const struct owed *owed, const char *doing)
{
    char first[MOMENT_TEXT_MAX], last[MOMENT_TEXT_MAX];

    if (owed->count == 1)
        log_say(LOG_NOTICE, "%s the owed occurrence %s", doing, moment_format(owed->last, last));
    else if (books->job->catch_up == CATCH_UP_ALL)
        log_say(LOG_NOTICE, "%s the %lld owed occurrences from %s to %s", doing, (long long)owed->count,
                moment_format(owed->first, first), moment_format(owed->last, last));
    else
        log_say(LOG_NOTICE, "%s the occurrence %s, the latest of %lld that are owed (catch_up = \"latest\")", doing,
                moment_format(owed->last, last), (long long)owed->count);
}

/* What settling them would change, that is, the first one of them. */
static int preview_owed(struct books *books, const struct owed *owed)
{
    struct task task = task_of_job(books->configuration, books->job, NULL);
    int status = round_verify(books, &task);

    if (status == STATUS_DONE) {
        say_owed(books, owed, "dry run: would settle");
        status = round_preview(books, &task);
    }
    task_free(&task);
    return status;
}

/* The occurrences that are owed. -ENOENT: none are. */
static int owed_runs(struct books *books, const struct request *request)
{
    usec_t until = books_now(books); /* what falls due after this was not announced */
    struct owed owed;
    int status;

    if (!books_agree(books)) {
        AUTO_TEXT difference = books_difference(books);

        log_say(LOG_WARNING, "%s: what was changed takes effect when a daemon starts or reloads with it, and until then nothing "
                             "of it is owed",
                difference);
        return -ENOENT;
    }
    owed = owed_find(books, until);
    if (owed.count == 0 && owed.too_old == 0)
        return -ENOENT;
    if (owed.count == 0 || books->job->catch_up == CATCH_UP_NONE)
        return request->dry_run || owed_skip(books, &owed, MOMENT_NONE) == 0 ? -ENOENT : STATUS_FAILED;
    if (request->dry_run)
        return preview_owed(books, &owed);
    say_owed(books, &owed, "settling");
    status = leftovers_retry(books, 0);
    return status == STATUS_DONE ? owed_settle(books, until, MOMENT_NONE) : status;
}

/*
 * A scheduled run that left rows over: the command that made it is typed again, and means those rows, not one more round for
 * all others. -ENOENT: there is none.
 */
static int left_over_run(struct books *books, const struct request *request)
{
    struct ledger_run run = {0};
    int status, r = ledger_first_partial(&books->ledger, books->row.id, false, &run);

    if (r == -ENOENT)
        return r;
    if (r < 0)
        return books_failed(books, r, "looking for runs with leftovers"), STATUS_FAILED;
    status = retry_now(books, request, &run);
    ledger_run_free(&run);
    return status;
}

static int first_that_applies(struct books *books, const struct request *request)
{
    AUTO_TEXT asked = frozen_request(request->only, request->set);
    int status;

    if (request->due != MOMENT_NONE)
        return settle_due(books, request);
    status = earlier_run(books, request, asked);
    if (status == -ENOENT && asked == NULL && books->job->enabled)
        status = owed_runs(books, request);
    if (status == -ENOENT && asked == NULL)
        status = left_over_run(books, request);
    return status != -ENOENT ? status : extra_run(books, request, asked);
}

/*
 * The job's lock, at once. The moment that is given (0.1 s) is for a process that has just ended, or was killed: its session
 * ends when the server notices, and the command typed again must not find it there.
 */
static int lock_at_once(struct books *books)
{
    int r = books_lock(books);

    for (int i = 0; i < 4 && r == 0; i++) {
        child_rest(25 * USEC_PER_MSEC);
        r = books_lock(books);
    }
    return r;
}

/*
 * Nothing is written, not even the job's row, and nothing is locked. Each statement is a READ ONLY transaction of its own, so
 * that one that fails, as the examination's may, tells what is the matter and leaves the next one alone.
 */
static int rehearse(struct books *books, const struct request *request)
{
    int r = db_script(books->db, "SET default_transaction_read_only = on");

    if (r == 0)
        r = ledger_find_job(&books->ledger, books->job->name, &books->row);
    if (r == 0)
        return owed_verify(books) < 0 ? STATUS_FAILED : first_that_applies(books, request);
    if (r != -ENOENT)
        return books_failed(books, r, "reading the job's row in the ledger"), STATUS_FAILED;
    /* Never seen: no run is there, and nothing is owed. */
    books->row = (struct ledger_job){.pruned_from = MOMENT_NONE, .pruned_through = MOMENT_NONE};
    return request->due != MOMENT_NONE ? settle_due(books, request) : extra_run(books, request, NULL);
}

static int once(struct books *books, const struct request *request)
{
    if (request->dry_run)
        return rehearse(books, request);
    if (books_see(books) < 0)
        return STATUS_FAILED;
    switch (lock_at_once(books)) {
    case 1:
        break;
    case 0:
        log_say(LOG_ERR, "another process is running this job; roundsman --status shows it");
        return STATUS_BUSY;
    default:
        return STATUS_FAILED;
    }
    if (books_see(books) < 0 || owed_verify(books) < 0)
        return STATUS_FAILED;
    return first_that_applies(books, request);
}

int run_once(const struct configuration *configuration, const struct job *job, const struct request *request,
             struct reporter *reporter)
{
    struct books books = {.configuration = configuration, .job = job, .reporter = reporter, .tool = true};
    char due[MOMENT_TEXT_MAX];
    int status = STATUS_FAILED, r;

    log_about(job->name, MOMENT_NONE, 0);
    if (request->due != MOMENT_NONE && !schedule_has(job->schedule, request->due)) {
        log_say(LOG_ERR, "--due %s is no instant of the schedule \"%s\"; roundsman --next %s --from TIME shows them",
                moment_format(request->due, due), job->schedule_text, job->name);
        return STATUS_USAGE;
    }
    r = books_open(&books, true);
    if (r == 0)
        status = once(&books, request);
    else if (r == -ECANCELED)
        status = STATUS_INTERRUPTED;
    books_close(&books);
    return status;
}

/* ---- --abandon ---- */

/* What a killed process still has in flight is waited for and shut out first, so that the counts are the last ones. */
static int abandon(struct books *books, const char *job, struct ledger_run *run)
{
    AUTO_TEXT state = mem_copy(run->state);
    AUTO_TEXT reason = NULL;
    int64_t id = run->id;
    int attempt = 0, r = 0;

    if (strcmp(state, "partial") != 0) {
        r = ledger_take_up(&books->ledger, id, run->attempt, &attempt);
        ledger_run_free(run);
        if (r == 0)
            r = ledger_find_run(&books->ledger, id, NULL, run);
    }
    if (r < 0)
        return r;
    reason = mem_print("given up by the operator when it was %s: %lld %s changed, %lld left over", state,
                       (long long)run->rows_done, run->rows_done == 1 ? "row was" : "rows were", (long long)run->leftovers);
    r = ledger_abandon(&books->ledger, id, run->attempt, reason);
    if (r == 0)
        printf("%s: run %lld is abandoned: %lld %s changed and stay%s so, the rest is not done\n", job, (long long)id,
               (long long)run->rows_done, run->rows_done == 1 ? "row was" : "rows were", run->rows_done == 1 ? "s" : "");
    return r;
}

static int nothing_there(int64_t run)
{
    if (run != 0)
        log_say(LOG_ERR, "there is no run %lld of this job", (long long)run);
    else
        log_say(LOG_NOTICE, "nothing to do: no run is unfinished");
    return run != 0 ? STATUS_FAILED : STATUS_DONE;
}

static int give_up(struct books *books, const char *name, int64_t id)
{
    struct ledger_run run = {0};
    int job = 0, r;

    r = id != 0 ? ledger_find_run(&books->ledger, id, &job, &run) : ledger_only_open(&books->ledger, books->row.id, &run);
    if (r == -EEXIST) {
        log_say(LOG_ERR, "several runs are unfinished or have leftovers: name one with -n (roundsman --history shows them)");
        return STATUS_FAILED;
    }
    if (r == -ENOENT || (r == 0 && id != 0 && job != books->row.id)) {
        ledger_run_free(&run);
        return nothing_there(id);
    }
    if (r == 0 && (strcmp(run.state, "done") == 0 || strcmp(run.state, "abandoned") == 0))
        log_say(LOG_NOTICE, "nothing to do: run %lld is %s", (long long)run.id, run.state);
    else if (r == 0)
        r = abandon(books, name, &run);
    ledger_run_free(&run);
    return r < 0 ? books_failed(books, r, "abandoning the run"), STATUS_FAILED : STATUS_DONE;
}

static int refuse_unknown(const struct configuration *configuration, const char *job)
{
    const char *nearest = configuration_nearest_job(configuration, job);

    log_say(LOG_ERR, "neither the ledger nor %s has such a job%s%s%s", configuration->path,
            nearest != NULL ? "; did you mean \"" : "", nearest != NULL ? nearest : "", nearest != NULL ? "\"?" : "");
    return STATUS_USAGE;
}

int run_abandon(const struct configuration *configuration, const char *job, int64_t run)
{
    struct books books = {.configuration = configuration, .tool = true};
    int status = STATUS_FAILED, r;

    log_about(job, MOMENT_NONE, 0);
    r = books_open(&books, false);
    if (r == 0) {
        r = ledger_find_job(&books.ledger, job, &books.row);
        if (r == 0)
            r = lock_at_once(&books);
        else if (r != -ENOENT)
            books_failed(&books, r, "reading the job's row in the ledger");
        else if (configuration_job(configuration, job) != NULL) /* nothing has run it yet */
            status = nothing_there(run);
        else
            status = refuse_unknown(configuration, job);
    }
    if (r == 1) {
        status = give_up(&books, job, run);
    } else if (r == 0) {
        log_say(LOG_ERR, "another process is running this job: stop it first");
        status = STATUS_BUSY;
    }
    books_close(&books);
    return status;
}
