/* SPDX-License-Identifier: PostgreSQL */
#include "check.h"

#include <errno.h>
#include <stdio.h>

#include "check_ledger.h"
#include "db.h"
#include "horizon.h"
#include "price.h"
#include "relation.h"
#include "relation_trigger.h"
#include "status.h"

/* What is being printed, and how far. */
struct sheet {
    struct problems problems, advice; /* advice is nothing that fails a check */
    size_t printed, advised;
};

static void print_list(const char *title, const struct problems *list, size_t *printed)
{
    for (; *printed < list->count; ++*printed) {
        const struct problem *problem = &list->list[*printed];

        printf("%s: %s\n", title, problem->text);
        if (problem->remedy != NULL)
            printf("    remedy: %s\n", problem->remedy);
    }
}

static void print_new(struct sheet *sheet)
{
    print_list("advice", &sheet->advice, &sheet->advised);
    print_list("problem", &sheet->problems, &sheet->printed);
    fflush(stdout);
}

/* A question that the server would not answer ends the check of what it was about. */
static int failed(struct db *db, struct problems *problems, const char *what, int error)
{
    problems_add(problems, false, NULL, "%s could not be examined: %s", what, db_error(db)->message);
    return error == -EIO ? -EIO : 0;
}

/* ---- The server ---- */

static void examine_skew(const struct configuration *configuration, usec_t skew, struct problems *problems)
{
    char offset[MOMENT_TEXT_MAX], most[MOMENT_TEXT_MAX];
    usec_t size = skew < 0 ? -skew : skew;

    if (size <= configuration->max_clock_skew)
        return;
    problems_add(problems, false, "keep both clocks with NTP (max_clock_skew is how far they may be apart)",
                 "the server's clock is %s %s this host's, and nothing is settled beyond %s",
                 duration_tell(size, offset), skew < 0 ? "behind" : "ahead of",
                 duration_format(configuration->max_clock_skew, most));
}

/* Without the privilege pg_stat_replication shows nothing of others, and a run that asks for it holds back until it has it. */
static int examine_replicas(struct db *db, const struct configuration *configuration, struct problems *problems)
{
    AUTO_ROWS rows = NULL;
    AUTO_TEXT remedy = NULL;
    int r;

    if (configuration->max_replica_lag == 0)
        return 0;
    r = db_query(db, "SELECT pg_has_role('pg_read_all_stats', 'USAGE'), quote_ident(current_user)", 0, NULL, &rows);
    if (r < 0)
        return failed(db, problems, "the role's privileges", r);
    if (rows_boolean(rows, 0, 0))
        return 0;
    remedy = mem_print("GRANT pg_read_all_stats TO %s;", rows_text(rows, 0, 1));
    problems_add(problems, false, remedy,
                 "max_replica_lag is set, but role %s cannot read the lag of replicas: every run would hold back",
                 rows_text(rows, 0, 1));
    return 0;
}

/* The server's clock against the middle of the time that asking took. */
static int examine_server(struct db *db, const struct configuration *configuration, struct problems *problems)
{
    AUTO_ROWS rows = NULL;
    usec_t before = moment_now(), after, skew;
    char apart[MOMENT_TEXT_MAX];
    bool pooler;
    int r = db_query(db,
                     "SELECT current_setting('server_version'), current_database(), current_user, pg_is_in_recovery(),"
                     "       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
                     0, NULL, &rows);

    if (r < 0)
        return failed(db, problems, "the server", r);
    after = moment_now();
    skew = rows_integer(rows, 0, 4) - before - (after - before) / 2;
    printf("server: PostgreSQL %s, database %s as role %s, its clock %s %s this host's\n", rows_text(rows, 0, 0),
           rows_text(rows, 0, 1), rows_text(rows, 0, 2), duration_tell(skew < 0 ? -skew : skew, apart),
           skew < 0 ? "behind" : "ahead of");
    if (rows_boolean(rows, 0, 3))
        problems_add(problems, false,
                     "name the primary in database.conninfo, or all hosts and target_session_attrs=read-write",
                     "the server is a standby, which takes no changes");
    examine_skew(configuration, skew, problems);
    r = db_behind_pooler(db, &pooler);
    if (r < 0)
        return failed(db, problems, "the connection", r);
    if (pooler)
        problems_add(
            problems, false, "name the server itself in database.conninfo",
            "a pooler answers in the server's place: session locks and settings would be lost between transactions");
    return examine_replicas(db, configuration, problems);
}

/* ---- Jobs ---- */

static int examine_timeouts(struct db *db, const struct job *job, struct problems *problems)
{
    AUTO_ROWS rows = NULL;
    char deadlock[MOMENT_TEXT_MAX], lock[MOMENT_TEXT_MAX], half[MOMENT_TEXT_MAX];
    AUTO_TEXT remedy = NULL;
    usec_t deadlock_timeout;
    int r = db_query(db, "SELECT setting FROM pg_settings WHERE name = 'deadlock_timeout'", 0, NULL, &rows);

    if (r < 0)
        return failed(db, problems, "deadlock_timeout", r);
    deadlock_timeout = rows_integer(rows, 0, 0) * USEC_PER_MSEC;
    if (job->lock_timeout <= deadlock_timeout / 2)
        return 0;
    duration_format(deadlock_timeout, deadlock);
    duration_format(job->lock_timeout, lock);
    duration_format(deadlock_timeout / 2, half);
    remedy = mem_print("lock_timeout = \"%s\"; for the job, or a longer deadlock_timeout on the server", half);
    problems_add(problems, false, remedy,
                 "job %s: its lock_timeout of %s is not well below the server's deadlock_timeout of %s: in a deadlock "
                 "the shop's own transaction could be the one that fails",
                 job->name, lock, deadlock);
    return 0;
}

static int examine_job(struct db *db, const struct configuration *configuration, const struct job *job,
                       struct problems *problems, struct problems *advice)
{
    struct relation_need need;
    AUTO_TEXT what = mem_print("job %s", job->name);
    int r;

    printf("job %s: %s, %s in %s%s\n", job->name, job->kind->name, job->schedule_text, schedule_zone(job->schedule),
           job->enabled ? "" : ", not enabled");
    if (!job->enabled)
        return 0;
    r = examine_timeouts(db, job, problems);
    if (r < 0)
        return r;
    relation_need_fill(&need, &configuration->shop, job->kind, &job->settings, job->where);
    r = relation_examine(db, &need, problems);
    if (r == 0)
        r = relation_triggers_examine(db, &need, advice);
    return r < 0 ? failed(db, problems, what, r) : 0;
}

/* ---- All of it, in the order an operator would mend it ---- */

static int examine(struct db *db, const struct configuration *configuration, struct sheet *sheet)
{
    bool usable;
    int r = examine_server(db, configuration, &sheet->problems);

    if (r == 0) {
        r = horizon_examine(db, &sheet->advice);
        if (r < 0)
            r = failed(db, &sheet->problems, "the oldest snapshot", r);
    }
    print_new(sheet);
    if (r < 0)
        return r;
    r = check_ledger(db, configuration, &sheet->problems, &usable);
    if (r < 0)
        r = failed(db, &sheet->problems, "the ledger", r);
    print_new(sheet);
    for (size_t i = 0; r == 0 && i < configuration->job_count; i++) {
        const struct job *job = &configuration->jobs[i];

        r = examine_job(db, configuration, job, &sheet->problems, &sheet->advice);
        if (r == 0 && job->enabled) {
            r = price_job(db, configuration, job, &sheet->advice);
            if (r < 0)
                r = failed(db, &sheet->problems, "the job's price", r);
        }
        if (r == 0 && usable) {
            r = check_ledger_job(db, configuration, job, &sheet->problems);
            if (r < 0)
                r = failed(db, &sheet->problems, "the job's books", r);
        }
        print_new(sheet);
    }
    if (r == 0 && usable) {
        r = check_ledger_strays(db, configuration, &sheet->problems);
        if (r < 0)
            r = failed(db, &sheet->problems, "the ledger", r);
        print_new(sheet);
    }
    return r;
}

int check_run(const struct configuration *configuration)
{
    AUTO_TEXT path = relation_search_path(&configuration->shop);
    AUTO_TEXT error = NULL;
    struct db_options options = {
        .conninfo = configuration->conninfo,
        .purpose = "check",
        .search_path = path,
        .lock_timeout = 2 * USEC_PER_SEC, /* planning waits for an ALTER TABLE */
        .statement_timeout = 30 * USEC_PER_SEC,
    };
    struct sheet sheet = {0};
    struct db *db = NULL;
    size_t count;

    if (db_connect(&options, &db, &error) < 0)
        problems_add(&sheet.problems, false, "see database.conninfo in the file, and run this as the daemon's user; the server's log says more", "%s", error);
    else
        examine(db, configuration, &sheet);
    print_new(&sheet);
    db_close(db);
    count = sheet.problems.count;
    problems_free(&sheet.problems);
    problems_free(&sheet.advice);
    if (count == 0)
        puts("All is well.");
    else
        printf("%zu problem%s.\n", count, count == 1 ? "" : "s");
    return count == 0 ? STATUS_DONE : STATUS_FAILED;
}
