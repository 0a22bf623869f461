/* SPDX-License-Identifier: PostgreSQL */
#include "books.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "migration.h"
#include "sql.h"

int books_fail(const struct books *books, int error, char **ret_error, const char *doing)
{
    return mem_fail(error, ret_error, "%s: %s", doing,
                    error == -ESTALE ? "another process changed the ledger meanwhile; the next attempt reads it again"
                                     : db_error(books->db)->message);
}

int books_failed(const struct books *books, int error, const char *doing)
{
    AUTO_TEXT text = NULL;

    books_fail(books, error, &text, doing);
    log_say(LOG_ERR, "%s", text);
    return error;
}

static int verify_server(struct books *books)
{
    bool pooler = false;
    AUTO_ROWS rows = NULL;
    int r = db_behind_pooler(books->db, &pooler);

    if (r == 0)
        r = db_query(books->db, "SELECT pg_is_in_recovery()", 0, NULL, &rows);
    if (r < 0)
        return books_failed(books, r, "asking the server who it is");
    if (pooler) {
        log_say(LOG_ERR, "a connection pooler is between roundsman and the server, and session locks do not survive it: let "
                         "database.conninfo name the server itself");
        return -EPERM;
    }
    if (rows_boolean(rows, 0, 0)) {
        log_say(LOG_ERR, "the server is a standby, and nothing can be changed there: let database.conninfo name the primary (or "
                         "all hosts, with target_session_attrs=read-write)");
        return -EROFS;
    }
    return 0;
}

static int verify_ledger(struct books *books)
{
    int version = 0, r = ledger_version(&books->ledger, &version);

    if (r == -ENOENT) {
        log_say(LOG_ERR, "there is no ledger in schema %s: create it with roundsman --install",
                books->configuration->ledger_schema);
        return r;
    }
    if (r < 0)
        return books_failed(books, r, "reading the ledger's version");
    if (version != migration_latest()) {
        log_say(LOG_ERR, "the ledger in schema %s has version %d, and this roundsman needs %d: %s",
                books->configuration->ledger_schema, version, migration_latest(),
                version < migration_latest() ? "upgrade it with roundsman --install" : "upgrade roundsman on this host");
        return -EPROTO;
    }
    return 0;
}

/* The database's clock is read between two readings of ours: half of the distance is the error. */
int books_clocks(struct books *books, bool skew_matters)
{
    char host[MOMENT_TEXT_MAX], database[MOMENT_TEXT_MAX];
    AUTO_ROWS rows = NULL;
    usec_t before = moment_now(), after, there, skew;
    int r = db_query(books->db, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", 0, NULL, &rows);

    if (r < 0)
        return books_failed(books, r, "reading the database's clock");
    after = moment_now();
    there = rows_integer(rows, 0, 0);
    books->behind = before + (after - before) / 2 - there;
    skew = (books->behind < 0 ? -books->behind : books->behind) - (after - before) / 2;
    if (!skew_matters || skew <= books->configuration->max_clock_skew)
        return 0;
    log_say(LOG_ERR, "the clocks disagree by %lld s (this host: %s, database: %s): nothing is settled until both are right",
            (long long)(skew / USEC_PER_SEC), moment_format(before, host), moment_format(there, database));
    return -ETIME;
}

int books_open(struct books *books, bool skew_matters)
{
    struct buf schema = {0};
    struct db_options options = {
        .conninfo = books->configuration->conninfo,
        .purpose = books->job != NULL ? books->job->name : "",
        .lock_timeout = BOOKS_LOCK_TIMEOUT,
        .stop = &child_stop,
    };
    char *error = NULL;
    int r;

    sql_quote(&schema, books->configuration->ledger_schema);
    books->schema = buf_take(&schema);
    options.search_path = books->search_path = relation_search_path(&books->configuration->shop);
    r = db_connect(&options, &books->db, &error);
    if (r < 0) {
        log_say(r == -ECANCELED ? LOG_NOTICE : LOG_ERR, "%s", error);
        free(error);
        return r;
    }
    books->ledger = (struct ledger){.db = books->db, .schema = books->schema};
    r = verify_server(books);
    if (r == 0)
        r = verify_ledger(books);
    if (r == 0)
        r = books_clocks(books, skew_matters);
    return r;
}

void books_close(struct books *books)
{
    db_close(books->db);
    free(books->schema);
    free(books->search_path);
    ledger_job_free(&books->row);
    *books = (struct books){0};
}

char *books_zone(const struct job *job)
{
    /* The host's zone goes by its name, so that two hosts agree on what it was. */
    const char *shown = schedule_zone(job->schedule);
    const char *blank = strchr(shown, ' ');

    return job->timezone[0] != '\0' || blank == NULL ? mem_copy(job->timezone[0] != '\0' ? job->timezone : shown)
                                                     : strndup(shown, (size_t)(blank - shown));
}

int books_see(struct books *books)
{
    const struct job *job = books->job;
    AUTO_TEXT zone = books_zone(job);
    int r;

    ledger_job_free(&books->row);
    r = ledger_see_job(&books->ledger, job->name, job->kind->name, job->schedule_text, zone, job->enabled, &books->row);
    return r < 0 ? books_failed(books, r, "reading the job's row in the ledger") : 0;
}

int books_lock(struct books *books)
{
    bool locked = false;
    int r = ledger_try_lock(&books->ledger, books->row.id, &locked);

    return r < 0 ? books_failed(books, r, "taking the job's lock") : locked;
}

bool books_agree(const struct books *books)
{
    AUTO_TEXT zone = books_zone(books->job);

    return strcmp(books->row.schedule, books->job->schedule_text) == 0 && strcmp(books->row.timezone, zone) == 0 &&
           books->row.enabled == books->job->enabled && strcmp(books->row.kind, books->job->kind->name) == 0;
}

char *books_difference(const struct books *books)
{
    const struct ledger_job *row = &books->row;
    const struct job *job = books->job;
    AUTO_TEXT zone = books_zone(job);
    bool kind = strcmp(row->kind, job->kind->name) != 0;

    return mem_print("the ledger has schedule \"%s\" in %s (%s%s%s), and this process \"%s\" in %s (%s%s%s)", row->schedule,
                     row->timezone, row->enabled ? "enabled" : "disabled", kind ? ", kind " : "", kind ? row->kind : "",
                     job->schedule_text, zone, job->enabled ? "enabled" : "disabled", kind ? ", kind " : "",
                     kind ? job->kind->name : "");
}

usec_t books_now(const struct books *books)
{
    usec_t now = moment_now();

    return books->behind > 0 ? now - books->behind : now;
}

int books_task(struct books *books, int64_t run, struct task *ret, char **ret_error)
{
    AUTO_ROWS rows = NULL;
    AUTO_TEXT error = NULL;
    int r = ledger_params(&books->ledger, run, &rows);

    if (r < 0)
        return books_fail(books, r, ret_error, "reading the run's parameters");
    r = frozen_read(rows, ret, &error);
    return r < 0 ? mem_fail(r, ret_error, "the parameters of run %lld cannot be used: %s", (long long)run, error) : 0;
}

struct governor books_governor(const struct books *books)
{
    const struct job *job = books->job;
    usec_t now = moment_monotonic();

    return governor_begin(job->pace, job->lanes, job->batch_time,
                          job->finish_within > 0 ? now + job->finish_within : MOMENT_NONE, now);
}

/* What identifies a work to the engine's statements. */
void books_name_work(struct work *work, const struct books *books, const struct task *task, int64_t run, int attempt)
{
    work->task = task;
    work->ledger = books->schema;
    work->governor = books_governor(books);
    work->batch_max = books->job->batch_max;
    work->retry_delay = books->job->retry_delay;
    snprintf(work->run, sizeof(work->run), "%lld", (long long)run);
    snprintf(work->job, sizeof(work->job), "%d", books->row.id);
    snprintf(work->attempt, sizeof(work->attempt), "%d", attempt);
}
