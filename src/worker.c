/* SPDX-License-Identifier: PostgreSQL */
/*
 * worker: see worker.h.
 *
 * A job's errors are its child's to log; here they become one line with the instant of the next attempt. A child that
 * was sent before a reload says nothing about the configuration after it: its RECORD_APPLIED and its exit status for a
 * broken configuration do not count.
 */
#include "config.h"

#include "worker.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "run.h"
#include "status.h"

void worker_init(struct worker *worker, const char *name)
{
    *worker = (struct worker){.name = mem_copy(name), .limit = MOMENT_NONE};
    agenda_init(&worker->agenda, moment_now());
}

void worker_free(struct worker *worker)
{
    free(worker->name);
}

/* ---- Orders to the child ---- */

static void ask_to_stop(struct worker *worker)
{
    if (worker->pid == 0 || worker->asked)
        return;
    kill(worker->pid, SIGTERM); /* it is reaped after worker_ended(), so the pid is still its own */
    worker->asked = true;
    worker->limit = moment_monotonic() + WORKER_GRACE;
}

void worker_recall(struct worker *worker)
{
    worker->recalled = true;
    ask_to_stop(worker);
}

void worker_limit(struct worker *worker)
{
    char text[MOMENT_TEXT_MAX];

    worker->limit = MOMENT_NONE;
    if (worker->asked) {
        log_job(LOG_ERR, worker->name, "did not stop within %s of SIGTERM: killed; the next run resumes it",
                duration_format(WORKER_GRACE, text));
        kill(worker->pid, SIGKILL);
    } else {
        log_job(LOG_WARNING, worker->name, "run %lld has taken all of max_runtime (%s): asked to stop",
                (long long)worker->run.run, duration_format(worker->max_runtime, text));
        ask_to_stop(worker);
    }
}

static bool same_schedule(const struct job *a, const struct job *b)
{
    return a != NULL && b != NULL && a->enabled == b->enabled && strcmp(a->schedule_text, b->schedule_text) == 0 &&
           strcmp(a->timezone, b->timezone) == 0;
}

void worker_configure(struct worker *worker, const struct job *job, usec_t offset)
{
    if (job != NULL)
        agenda_configure(&worker->agenda, job->enabled ? job->schedule : NULL, offset, job->retry_delay,
                         !same_schedule(worker->job, job), moment_now());
    else
        worker->agenda.schedule = NULL;
    worker->job = job;
    worker->current = false;
    /* A standby waits with the schedule of before, for as long as another daemon lives. */
    if (worker->pid != 0 && (job == NULL || !job->enabled || worker->standby))
        worker_recall(worker);
}

bool worker_send(struct worker *worker, const struct configuration *configuration)
{
    struct errand errand = {
        .configuration = configuration,
        .job = worker->job,
        .apply = worker->agenda.apply,
        .due = agenda_send(&worker->agenda),
        .until = worker->agenda.seen,
    };
    int pipe;
    pid_t pid = child_start(run_settle, &errand, &pipe);

    if (pid < 0) {
        log_job(LOG_ERR, worker->name, "cannot start a process: %s", strerror(-pid));
        agenda_failed(&worker->agenda, errand.due, moment_now());
        return false;
    }
    worker->pid = pid;
    worker->pipe = pipe;
    worker->due = errand.due;
    worker->max_runtime = worker->job->max_runtime;
    worker->limit = MOMENT_NONE;
    worker->current = true;
    worker->asked = worker->recalled = worker->standby = false;
    worker->run = (struct record){0};
    log_job(LOG_DEBUG, worker->name, "child %d sent%s", (int)pid, errand.apply ? " to apply the configuration" : "");
    return true;
}

/* ---- What it tells ---- */

static void note(struct worker *worker, const struct record *record)
{
    switch (record->type) {
    case RECORD_STANDBY:
        worker->standby = true;
        break;
    case RECORD_APPLIED:
        worker->standby = false;
        if (worker->current)
            worker->agenda.apply = false;
        break;
    case RECORD_STARTED:
        worker->standby = false;
        worker->run = *record;
        if (worker->max_runtime > 0 && !worker->asked)
            worker->limit = moment_monotonic() + worker->max_runtime;
        break;
    case RECORD_PROGRESS:
        worker->run = *record;
        break;
    case RECORD_ENDED:
        worker->run.run = 0;
        if (!worker->asked)
            worker->limit = MOMENT_NONE;
        break;
    case RECORD_RETRY:
        if (worker->agenda.leftovers == MOMENT_NONE || record->at < worker->agenda.leftovers)
            worker->agenda.leftovers = record->at;
        break;
    }
}

bool worker_read(struct worker *worker)
{
    struct record record;
    int r;

    while ((r = child_read(worker->pipe, &record)) > 0)
        note(worker, &record);
    return r == 0;
}

void worker_ended(struct worker *worker, int wait_status)
{
    AUTO_TEXT sentence = child_sentence(wait_status);
    int status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
    usec_t now = moment_now();
    char text[MOMENT_TEXT_MAX];

    worker_read(worker);
    close(worker->pipe);
    worker->pid = 0;
    worker->limit = MOMENT_NONE;

    if (status == STATUS_DONE || status == STATUS_LEFT_OVER) {
        log_job(LOG_INFO, worker->name, "the child %s", sentence);
        agenda_settled(&worker->agenda, now);
    } else if (worker->recalled) {
        log_job(LOG_INFO, worker->name, "the child was asked to stop, and %s", sentence);
        agenda_recalled(&worker->agenda, worker->due);
    } else if ((status == STATUS_USAGE || status == STATUS_CONFIGURATION) && worker->current) {
        log_job(LOG_ERR, worker->name, "the child %s; no further attempt before a reload", sentence);
        worker->agenda.halted = true;
    } else {
        agenda_failed(&worker->agenda, worker->due, now);
        if (worker->asked && status == STATUS_INTERRUPTED) /* by us: it was not recalled */
            mem_replace(&sentence, mem_print("exited with status %d: interrupted because max_runtime was over", status));
        log_job(LOG_WARNING, worker->name, "the child %s; next attempt in %s", sentence,
                duration_format(worker->agenda.delay, text));
    }
}

/* ---- What is told about it ---- */

const char *worker_clock(usec_t at, usec_t now, char text[static MOMENT_TEXT_MAX])
{
    moment_format(at - at % USEC_PER_SEC, text);
    return at / USEC_PER_DAY == now / USEC_PER_DAY ? text + strlen("2026-11-22T") : text;
}

void worker_describe(const struct worker *worker, usec_t now, struct buf *text)
{
    const struct record *run = &worker->run;
    char at[MOMENT_TEXT_MAX];

    if (worker->pid != 0 && worker->asked) {
        buf_print(text, "; %s stopping", worker->name);
    } else if (worker->pid != 0 && worker->standby) {
        buf_print(text, "; %s standing by", worker->name);
    } else if (worker->pid != 0 && run->run != 0) {
        buf_print(text, "; %s running (run %lld", worker->name, (long long)run->run);
        if (run->rows_total > 0) { /* an estimate: there may be more */
            int64_t passed = run->rows_done + run->rows_skipped;

            passed = passed < run->rows_total ? passed : run->rows_total;
            buf_print(text, ", %d %%", (int)(100 * (double)passed / (double)run->rows_total));
        }
        if (run->held[0] != '\0')
            buf_print(text, ", held back: %s", run->held);
        buf_add(text, ")");
    } else if (worker->pid == 0 && worker->agenda.halted) {
        buf_print(text, "; %s waits for a reload", worker->name);
    } else if (worker->pid == 0 && worker->agenda.delay != 0) {
        buf_print(text, "; %s failed, next attempt %s", worker->name,
                  worker_clock(worker->agenda.not_before, now, at));
    }
}
