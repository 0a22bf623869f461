/* SPDX-License-Identifier: PostgreSQL */
#include "check_ledger.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "books.h"
#include "ledger.h"
#include "migration.h"
#include "sql.h"

#define DUE "coalesce(to_char(r.due, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), 'manual')" /* the session's zone is UTC */

static int ask(struct db *db, const struct configuration *configuration, const char *sql, size_t count,
               const char *const *values, struct rows **ret)
{
    AUTO_BUF schema = {0}, text = {0};

    sql_quote(&schema, configuration->ledger_schema);
    ledger_sql(&text, schema.text, sql);
    return db_query(db, text.text, count, values, ret);
}

/* ---- Whether it can be used ---- */

static int examine_version(struct db *db, const struct configuration *configuration, struct problems *problems,
                           bool *ret_usable)
{
    AUTO_BUF schema = {0};
    int version = 0, r;

    sql_quote(&schema, configuration->ledger_schema);
    r = ledger_version(&(struct ledger){.db = db, .schema = schema.text}, &version);
    if (r < 0)
        return r;
    printf("ledger: schema %s, version %d\n", configuration->ledger_schema, version);
    if (version < migration_latest())
        problems_add(problems, false, "roundsman --install",
                     "the ledger in schema %s is at version %d, and this roundsman needs version %d",
                     configuration->ledger_schema, version, migration_latest());
    else if (version > migration_latest())
        problems_add(problems, false, "install a roundsman that knows it",
                     "the ledger in schema %s is at version %d, and this roundsman knows it up to version %d",
                     configuration->ledger_schema, version, migration_latest());
    else
        *ret_usable = true;
    return 0;
}

/* Tables with the same grants missing, together. $1: the schema, $2: tables, $3: what is needed on each. */
static const char grants_sql[] =
    "SELECT privileges, string_agg(format('%I.%I', $1::text, name), ', ' ORDER BY name), quote_ident(current_user)"
    "  FROM (SELECT name, string_agg(privilege, ', ' ORDER BY position) AS privileges"
    "          FROM unnest($2::text[], $3::text[]) AS wanted (name, needs)"
    "         CROSS JOIN regexp_split_to_table(needs, ', ') WITH ORDINALITY AS one (privilege, position)"
    "          JOIN pg_namespace n ON n.nspname = $1 JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = name"
    "         WHERE NOT has_table_privilege(c.oid, privilege) GROUP BY name) AS missing"
    " GROUP BY privileges ORDER BY privileges";

static int examine_grants(struct db *db, const struct configuration *configuration, struct problems *problems,
                          bool *ret_granted)
{
    const char *names[16] = {NULL}, *needs[16] = {NULL};
    AUTO_TEXT name_array = NULL;
    AUTO_TEXT need_array = NULL;
    AUTO_ROWS rows = NULL;
    int r;

    for (size_t i = 0; migration_tables[i].name != NULL; i++) {
        names[i] = migration_tables[i].name;
        needs[i] = migration_tables[i].privileges;
    }
    name_array = sql_array(names);
    need_array = sql_array(needs);
    r = db_query(db, grants_sql, 3, (const char *const[]){configuration->ledger_schema, name_array, need_array}, &rows);
    if (r < 0)
        return r;
    for (int i = 0; i < rows_count(rows); i++) {
        AUTO_TEXT remedy =
            mem_print("GRANT %s ON %s TO %s;", rows_text(rows, i, 0), rows_text(rows, i, 1), rows_text(rows, i, 2));

        problems_add(problems, false, remedy, "role %s may not %s on %s", rows_text(rows, i, 2), rows_text(rows, i, 0),
                     rows_text(rows, i, 1));
    }
    *ret_granted = rows_count(rows) == 0;
    return 0;
}

int check_ledger(struct db *db, const struct configuration *configuration, struct problems *problems, bool *ret_usable)
{
    AUTO_ROWS rows = NULL;
    bool granted;
    int r = db_query(db,
                     "SELECT has_schema_privilege(n.oid, 'USAGE'), quote_ident(n.nspname), quote_ident(current_user)"
                     "  FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'migration'"
                     " WHERE n.nspname = $1",
                     1, (const char *const[]){configuration->ledger_schema}, &rows);

    *ret_usable = false;
    if (r < 0)
        return r;
    if (rows_count(rows) == 0) {
        problems_add(problems, false, "roundsman --install", "there is no ledger in schema %s of this database",
                     configuration->ledger_schema);
        return 0;
    }
    if (!rows_boolean(rows, 0, 0)) {
        AUTO_TEXT remedy = mem_print("GRANT USAGE ON SCHEMA %s TO %s;", rows_text(rows, 0, 1), rows_text(rows, 0, 2));

        problems_add(problems, false, remedy, "role %s may not use the ledger's schema %s", rows_text(rows, 0, 2),
                     configuration->ledger_schema);
    }
    r = examine_grants(db, configuration, problems, &granted);
    if (r < 0 || !granted || !rows_boolean(rows, 0, 0))
        return r;
    return examine_version(db, configuration, problems, ret_usable);
}

/* ---- What is in it ---- */

static int examine_leftovers(struct db *db, const struct configuration *configuration, const struct job *job,
                             struct problems *problems)
{
    AUTO_ROWS rows = NULL;
    int r = ask(db, configuration,
                "SELECT r.id, " DUE
                ", count(*), string_agg(key || ' (' || coalesce(l.error, reason) || ')', ', ' ORDER BY n)"
                "                                 FILTER (WHERE n <= 3)"
                "  FROM (SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY length(key), key) AS n"
                "          FROM ledger.leftover) AS l"
                "  JOIN ledger.run r ON r.id = l.run_id JOIN ledger.job j ON j.id = r.job_id"
                " WHERE j.name = $1 AND r.state <> 'abandoned' GROUP BY r.id ORDER BY r.id",
                1, (const char *const[]){job->name}, &rows);

    for (int i = 0; r == 0 && i < rows_count(rows); i++) {
        const char *run = rows_text(rows, i, 0);
        int64_t count = rows_integer(rows, i, 2);
        AUTO_TEXT remedy =
            mem_print("mend what the error names, and they are done with the job's next run; or give them up: "
                      "roundsman --abandon %s -n %s",
                      job->name, run);

        problems_add(problems, true, remedy, "job %s: run %s (%s) left %lld row%s over: %s%s", job->name, run,
                     rows_text(rows, i, 1), (long long)count, count == 1 ? "" : "s", rows_text(rows, i, 3),
                     count > 3 ? ", …" : "");
    }
    return r;
}

static void examine_settled(const struct configuration *configuration, const struct job *job,
                            const struct ledger_job *books, struct problems *problems)
{
    char settled[MOMENT_TEXT_MAX];
    AUTO_BUF name = {0}, schema = {0};
    AUTO_TEXT remedy = NULL;

    if (books->settled_through <= books->now)
        return;
    sql_literal(&name, job->name);
    sql_quote(&schema, configuration->ledger_schema);
    remedy = mem_print("UPDATE %s.job SET settled_through = now() WHERE name = %s; -- once the server's clock is right",
                       schema.text, name.text);
    problems_add(problems, false, remedy,
                 "job %s: it is settled through %s, which the server's clock has not reached: a clock was wrong, and "
                 "nothing runs until then",
                 job->name, moment_format(books->settled_through, settled));
}

/* No problem: an edited file is applied by the daemon that reads it. */
static void note_difference(const struct job *job, const struct ledger_job *books)
{
    AUTO_TEXT zone = books_zone(job);

    if (strcmp(books->schedule, job->schedule_text) != 0 || strcmp(books->timezone, zone) != 0 ||
        books->enabled != job->enabled)
        printf("note: the ledger has job %s with %s in %s%s: what the file says takes effect when a daemon starts or "
               "reloads with it\n",
               job->name, books->schedule, books->timezone, books->enabled ? "" : ", not enabled");
}

int check_ledger_job(struct db *db, const struct configuration *configuration, const struct job *job,
                     struct problems *problems)
{
    AUTO_BUF schema = {0};
    struct ledger_job books;
    int r;

    sql_quote(&schema, configuration->ledger_schema);
    r = ledger_find_job(&(struct ledger){.db = db, .schema = schema.text}, job->name, &books);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    note_difference(job, &books);
    examine_settled(configuration, job, &books, problems);
    ledger_job_free(&books);
    return examine_leftovers(db, configuration, job, problems);
}

int check_ledger_strays(struct db *db, const struct configuration *configuration, struct problems *problems)
{
    const char **names = mem_alloc((configuration->job_count + 1) * sizeof(*names));
    AUTO_TEXT array = NULL;
    AUTO_ROWS rows = NULL;
    int r;

    for (size_t i = 0; i < configuration->job_count; i++)
        names[i] = configuration->jobs[i].name;
    array = sql_array(names);
    free(names);
    r = ask(db, configuration,
            "SELECT j.name, r.id, r.state, " DUE "  FROM ledger.run r JOIN ledger.job j ON j.id = r.job_id"
            " WHERE r.state IN ('running', 'failed', 'interrupted', 'partial') AND j.name <> ALL ($1::text[])"
            " ORDER BY r.id",
            1, (const char *const[]){array}, &rows);
    for (int i = 0; r == 0 && i < rows_count(rows); i++) {
        AUTO_TEXT remedy = mem_print("roundsman --abandon %s -n %s", rows_text(rows, i, 0), rows_text(rows, i, 1));

        problems_add(problems, true, remedy,
                     "job %s is not in the file, and its run %s (%s) is %s: nothing will finish it",
                     rows_text(rows, i, 0), rows_text(rows, i, 1), rows_text(rows, i, 3), rows_text(rows, i, 2));
    }
    return r;
}
