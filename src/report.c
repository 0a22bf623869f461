/* SPDX-License-Identifier: PostgreSQL */
/*
 * report: the questions that --status and --history ask the ledger, and --history's answer.
 *
 * Both see a run as the same set of columns, report_run_facts, whose names are those of the JSON objects: PostgreSQL makes
 * the objects out of the columns. Everything here reads, in one statement (so that one snapshot is judged), with short
 * timeouts, since monitoring calls it every minute.
 */
#include "report_ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ledger.h"
#include "log.h"
#include "report.h"
#include "sql.h"
#include "status.h"
#include "table.h"

#define AS_TEXT(number) #number
#define TEXT_OF(macro) AS_TEXT(macro)

/* Times in RFC 3339, in UTC since db_connect() pins TimeZone. A process that works on a job holds its advisory lock. */
const char report_run_facts[] =
    "SELECT r.id, j.name AS job, r.trigger, to_char(r.due, f.rfc3339) AS due, r.state, r.attempt, "
    "to_char(r.started_at, f.rfc3339) AS started_at, to_char(r.finished_at, f.rfc3339) AS finished_at, "
    "round(extract(epoch FROM CASE r.state WHEN 'running' THEN now() ELSE r.finished_at END - r.started_at), 3) "
    "AS took_seconds, "
    "greatest(r.rows_done, (SELECT sum(l.rows_done) FROM lane l WHERE l.run_id = r.id))::bigint AS rows_done, "
    "greatest(r.rows_skipped, (SELECT sum(l.rows_skipped) FROM lane l WHERE l.run_id = r.id))::bigint AS rows_skipped, "
    "(SELECT count(*) FROM leftover o WHERE o.run_id = r.id) AS leftovers, "
    "CASE r.state WHEN 'running' THEN EXISTS (SELECT 1 FROM pg_locks k WHERE k.locktype = 'advisory' AND k.granted "
    "AND k.classid = " TEXT_OF(LEDGER_LOCK_CLASS) " AND k.objid = r.job_id::bigint AND k.objsubid = 2 "
                                                  "AND k.database = (SELECT oid FROM pg_database WHERE datname = "
                                                  "current_database())) END AS attended, r.error "
                                                  "FROM (VALUES ('YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')) f (rfc3339), run r "
                                                  "JOIN job j ON j.id = r.job_id";

/* It was read between two readings of ours: within these the clocks agree. */
static int ask_clock(struct db *db, usec_t *ret_ahead)
{
    AUTO_ROWS rows = NULL;
    usec_t before = moment_now(), after, there;
    int r = db_query(db, "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", 0, NULL, &rows);

    if (r < 0)
        return r;
    after = moment_now();
    there = rows_integer(rows, 0, 0);
    *ret_ahead = there < before ? there - before : there > after ? there - after : 0;
    return 0;
}

int report_ask(const struct configuration *configuration, const char *sql, size_t count, const char *const *values,
               usec_t *ret_ahead, struct rows **ret, char **ret_error)
{
    AUTO_BUF search_path = {0};
    struct db *db;
    const struct db_error *error;
    int r;

    sql_quote(&search_path, configuration->ledger_schema);
    r = db_connect(&(struct db_options){.conninfo = configuration->conninfo,
                                        .purpose = "report",
                                        .search_path = search_path.text,
                                        .lock_timeout = 2 * USEC_PER_SEC,
                                        .statement_timeout = 10 * USEC_PER_SEC},
                   &db, ret_error);
    if (r < 0)
        return r;
    r = ret_ahead != NULL ? ask_clock(db, ret_ahead) : 0;
    if (r == 0)
        r = db_query(db, sql, count, values, ret);
    error = db_error(db);
    if (r == -EIO)
        mem_fail(r, ret_error, "the connection was lost while reading the ledger: %s", error->message);
    else if (r < 0 && strcmp(error->sqlstate, "42P01") == 0)
        mem_fail(r, ret_error, "there is no ledger in schema %s: roundsman --install creates it",
                 configuration->ledger_schema);
    else if (r < 0 && strcmp(error->sqlstate, "42501") == 0)
        mem_fail(r, ret_error, "the ledger may not be read (%s): roundsman --install grants it to ledger.role",
                 error->message);
    else if (r < 0)
        mem_fail(r, ret_error, "the ledger could not be read: %s", error->message);
    db_close(db);
    return r;
}

char *report_seconds(const char *seconds)
{
    char text[MOMENT_TEXT_MAX];

    return seconds == NULL ? NULL
                           : mem_copy(duration_tell((usec_t)(strtod(seconds, NULL) * (double)USEC_PER_SEC), text));
}

/* ---- --history ---- */

static void show(const struct rows *rows)
{
    static const struct table_column columns[] = {
        {"RUN", true},      {"JOB", false}, {"TRIGGER", false}, {"DUE", false},    {"STATE", false}, {"ATTEMPT", true},
        {"STARTED", false}, {"TOOK", true}, {"DONE", true},     {"SKIPPED", true}, {"LEFT", true},   {"ERROR", false},
    };
    static const enum fact facts[ELEMENTS(columns)] = {
        FACT_ID,         FACT_JOB,          FACT_TRIGGER,   FACT_DUE,          FACT_STATE,     FACT_ATTEMPT,
        FACT_STARTED_AT, FACT_TOOK_SECONDS, FACT_ROWS_DONE, FACT_ROWS_SKIPPED, FACT_LEFTOVERS, FACT_ERROR,
    };
    AUTO_TABLE table = {.columns = columns, .width = ELEMENTS(columns)};

    for (int i = 0; i < rows_count(rows); i++)
        for (size_t k = 0; k < ELEMENTS(facts); k++) {
            const char *text = rows_text(rows, i, (int)facts[k]);
            AUTO_TEXT took = facts[k] == FACT_TOOK_SECONDS ? report_seconds(text) : NULL;

            table_add(&table, took != NULL ? took : text == NULL && facts[k] == FACT_ERROR ? "" : text);
        }
    table_write(&table, stdout, table_terminal(stdout));
}

/* A job that is configured no more has its runs still, and --abandon asks for their numbers. */
static int find_job(const struct configuration *configuration, const char *job)
{
    const char *nearest = configuration_nearest_job(configuration, job);
    AUTO_TEXT error = NULL;
    AUTO_ROWS rows = NULL;

    if (configuration_job(configuration, job) != NULL)
        return STATUS_DONE;
    if (report_ask(configuration, "SELECT FROM job WHERE name = $1", 1, &job, NULL, &rows, &error) < 0) {
        log_say(LOG_ERR, "%s has no job \"%s\", and of the ledger's: %s", configuration->path, job, error);
        return STATUS_FAILED;
    }
    if (rows_count(rows) > 0)
        return STATUS_DONE;
    log_say(LOG_ERR, "neither %s nor the ledger has a job \"%s\"%s%s%s", configuration->path, job,
            nearest != NULL ? "; did you mean \"" : "", nearest != NULL ? nearest : "", nearest != NULL ? "\"?" : "");
    return STATUS_USAGE;
}

int report_history(const struct configuration *configuration, const char *job, int count, bool json)
{
    AUTO_TEXT error = NULL;
    AUTO_TEXT limit = mem_print("%d", count);
    AUTO_ROWS rows = NULL;
    AUTO_TEXT newest =
        mem_print("%s WHERE $1::text IS NULL OR j.name = $1 ORDER BY r.id DESC LIMIT $2::bigint", report_run_facts);
    AUTO_TEXT array = mem_print("SELECT coalesce(json_agg(f), '[]') FROM (%s) f", newest);
    const char *values[] = {job, limit};
    int status = job == NULL ? STATUS_DONE : find_job(configuration, job);

    if (status != STATUS_DONE)
        return status;
    if (report_ask(configuration, json ? array : newest, ELEMENTS(values), values, NULL, &rows, &error) < 0) {
        log_say(LOG_ERR, "%s", error);
        return STATUS_FAILED;
    }
    if (json)
        puts(rows_text(rows, 0, 0));
    else if (rows_count(rows) > 0)
        show(rows);
    else if (job != NULL)
        printf("no runs of %s yet\n", job);
    else
        puts("no runs yet");
    return STATUS_DONE;
}
