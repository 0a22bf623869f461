/* SPDX-License-Identifier: PostgreSQL */
#include "ledger.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sql.h"

#define USEC_OF(column) "(extract(epoch FROM " column ") * 1000000)::bigint"
#define MOMENT(parameter) "to_timestamp(0) + " parameter "::bigint * interval '1 microsecond'"

void ledger_sql(struct buf *buf, const char *schema, const char *sql)
{
    static const char mark[] = "ledger.";
    const char *found;

    while ((found = strstr(sql, mark)) != NULL) {
        buf_add_bytes(buf, sql, (size_t)(found - sql));
        buf_add(buf, schema);
        buf_add(buf, ".");
        sql = found + strlen(mark);
    }
    buf_add(buf, sql);
}

static int ask(const struct ledger *ledger, const char *sql, size_t count, const char *const *values, struct rows **ret)
{
    AUTO_BUF text = {0};

    ledger_sql(&text, ledger->schema, sql);
    return db_query(ledger->db, text.text, count, values, ret);
}

/* A gated write: it returns a row when the gate let it through. */
static int write_gated(const struct ledger *ledger, const char *sql, size_t count, const char *const *values)
{
    AUTO_ROWS rows = NULL;
    int r = ask(ledger, sql, count, values, &rows);

    return r < 0 ? r : rows_count(rows) == 0 ? -ESTALE : 0;
}

#define ASK(ledger, ret, sql, ...) \
    ask(ledger, sql, ELEMENTS(((const char *[]){__VA_ARGS__})), (const char *[]){__VA_ARGS__}, ret)
#define WRITE(ledger, sql, ...) \
    write_gated(ledger, sql, ELEMENTS(((const char *[]){__VA_ARGS__})), (const char *[]){__VA_ARGS__})

struct number {
    char text[24];
};

static const char *number(int64_t value, struct number *room)
{
    snprintf(room->text, sizeof(room->text), "%lld", (long long)value);
    return room->text;
}
#define NUMBER(value) number(value, &(struct number){""})
#define NUMBER_OR_NULL(moment) ((moment) == MOMENT_NONE ? NULL : NUMBER(moment))

static usec_t moment_of(const struct rows *rows, int row, int column)
{
    return rows_text(rows, row, column) == NULL ? MOMENT_NONE : rows_integer(rows, row, column);
}

static char *copy_of(const struct rows *rows, int row, int column)
{
    return mem_copy(rows_text(rows, row, column));
}

int ledger_version(const struct ledger *ledger, int *ret)
{
    AUTO_ROWS rows = NULL;
    AUTO_TEXT table = mem_print("%s.migration", ledger->schema);
    int r = db_query(ledger->db, "SELECT to_regclass($1) IS NOT NULL", 1, (const char *[]){table}, &rows);

    if (r < 0)
        return r;
    if (!rows_boolean(rows, 0, 0))
        return -ENOENT;
    rows_free_pointer(&rows);
    r = ask(ledger, "SELECT max(version) FROM ledger.migration", 0, NULL, &rows);
    if (r == 0)
        *ret = (int)rows_integer(rows, 0, 0);
    return r;
}

/* ---- Jobs ---- */

void ledger_job_free(struct ledger_job *job)
{
    free(job->kind);
    free(job->schedule);
    free(job->timezone);
    *job = (struct ledger_job){0};
}

int ledger_find_job(const struct ledger *ledger, const char *name, struct ledger_job *ret)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows,
                "SELECT id, kind, schedule, timezone, enabled, " USEC_OF("first_seen") ", " USEC_OF(
                    "settled_through") ", " USEC_OF("pruned_from") ", " USEC_OF("pruned_through") ", " USEC_OF(
                    "clock_timestamp()") " FROM ledger.job WHERE name = $1",
                name);

    if (r < 0)
        return r;
    if (rows_count(rows) == 0)
        return -ENOENT;
    *ret = (struct ledger_job){
        .id = (int)rows_integer(rows, 0, 0),
        .kind = copy_of(rows, 0, 1),
        .schedule = copy_of(rows, 0, 2),
        .timezone = copy_of(rows, 0, 3),
        .enabled = rows_boolean(rows, 0, 4),
        .first_seen = moment_of(rows, 0, 5),
        .settled_through = moment_of(rows, 0, 6),
        .pruned_from = moment_of(rows, 0, 7),
        .pruned_through = moment_of(rows, 0, 8),
        .now = moment_of(rows, 0, 9),
    };
    return 0;
}

int ledger_see_job(const struct ledger *ledger, const char *name, const char *kind, const char *schedule,
                   const char *timezone, bool enabled, struct ledger_job *ret)
{
    int r = ledger_find_job(ledger, name, ret);

    if (r != -ENOENT)
        return r;
    r = ASK(ledger, NULL,
            "INSERT INTO ledger.job (name, kind, schedule, timezone, enabled) VALUES ($1, $2, $3, $4, $5::boolean)"
            " ON CONFLICT (name) DO NOTHING",
            name, kind, schedule, timezone, enabled ? "t" : "f");
    return r < 0 ? r : ledger_find_job(ledger, name, ret);
}

int ledger_apply_job(const struct ledger *ledger, int job, const char *kind, const char *schedule, const char *timezone,
                     bool enabled)
{
    return ASK(ledger, NULL,
               "UPDATE ledger.job SET kind = $2, schedule = $3, timezone = $4, enabled = $5::boolean,"
               " settled_through = CASE WHEN (schedule, timezone, enabled) IS DISTINCT FROM ($3, $4, $5::boolean)"
               " THEN greatest(settled_through, clock_timestamp()) ELSE settled_through END"
               " WHERE id = $1::integer AND (kind, schedule, timezone, enabled) IS DISTINCT FROM ($2, $3, $4, $5::boolean)",
               NUMBER(job), kind, schedule, timezone, enabled ? "t" : "f");
}

int ledger_try_lock(const struct ledger *ledger, int job, bool *ret_locked)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows, "SELECT pg_try_advisory_lock($1::integer, $2::integer)", NUMBER(LEDGER_LOCK_CLASS),
                NUMBER(job));

    if (r == 0)
        *ret_locked = rows_boolean(rows, 0, 0);
    return r;
}

/* ---- Runs ---- */

void ledger_ranges_free(struct ledger_range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(ranges[i].from);
        free(ranges[i].to);
    }
    free(ranges);
}

void ledger_run_free(struct ledger_run *run)
{
    free(run->trigger);
    free(run->state);
    *run = (struct ledger_run){0};
}

/* What every reader of a run selects; rows of a run in progress are its lanes' sums. */
#define RUN_COLUMNS \
    "r.id, " USEC_OF("r.due") ", r.trigger, r.state, r.attempt, r.job_id," \
    " coalesce((SELECT sum(l.rows_done) FROM ledger.lane l WHERE l.run_id = r.id), 0)::bigint," \
    " coalesce((SELECT sum(l.rows_skipped) FROM ledger.lane l WHERE l.run_id = r.id), 0)::bigint," \
    " (SELECT count(*) FROM ledger.leftover o WHERE o.run_id = r.id)"

static void read_run(const struct rows *rows, struct ledger_run *ret)
{
    *ret = (struct ledger_run){
        .id = rows_integer(rows, 0, 0),
        .due = moment_of(rows, 0, 1),
        .trigger = copy_of(rows, 0, 2),
        .state = copy_of(rows, 0, 3),
        .attempt = (int)rows_integer(rows, 0, 4),
        .rows_done = rows_integer(rows, 0, 6),
        .rows_skipped = rows_integer(rows, 0, 7),
        .leftovers = rows_integer(rows, 0, 8),
    };
}

/* The one row that was asked for with RUN_COLUMNS, `r` being what asking returned. */
static int take_run(int r, const struct rows *rows, struct ledger_run *ret)
{
    if (r < 0)
        return r;
    if (rows_count(rows) == 0)
        return -ENOENT;
    read_run(rows, ret);
    return 0;
}

int ledger_unfinished(const struct ledger *ledger, int job, bool manual_too, const char *request, struct ledger_run *ret)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows,
                "SELECT " RUN_COLUMNS ", r.params->'request' IS NOT DISTINCT FROM $3::jsonb FROM ledger.run r"
                " WHERE r.job_id = $1::integer AND r.state IN ('running', 'failed', 'interrupted')"
                " AND (r.due IS NOT NULL OR $2::boolean) ORDER BY r.due NULLS LAST, r.id LIMIT 1",
                NUMBER(job), manual_too ? "t" : "f", request);

    r = take_run(r, rows, ret);
    if (r == 0)
        ret->same_request = rows_boolean(rows, 0, 9);
    return r;
}

int ledger_manual_to_close(const struct ledger *ledger, int job, const char *request, struct ledger_run *ret)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows,
                "SELECT " RUN_COLUMNS " FROM ledger.run r WHERE r.job_id = $1::integer AND r.due IS NULL"
                " AND r.params->'request' IS NOT DISTINCT FROM $2::jsonb AND (r.state = 'done' AND r.reported_at IS NULL"
                " OR r.state = 'partial') ORDER BY r.state = 'partial', r.id LIMIT 1",
                NUMBER(job), request);

    return take_run(r, rows, ret);
}

int ledger_first_partial(const struct ledger *ledger, int job, bool settled, struct ledger_run *ret)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows,
                "SELECT " RUN_COLUMNS " FROM ledger.run r WHERE r.job_id = $1::integer AND r.state = 'partial'"
                " AND NOT ($2::boolean AND EXISTS (SELECT 1 FROM ledger.leftover o WHERE o.run_id = r.id))"
                " ORDER BY r.due NULLS LAST, r.id LIMIT 1",
                NUMBER(job), settled ? "t" : "f");

    return take_run(r, rows, ret);
}

int ledger_only_open(const struct ledger *ledger, int job, struct ledger_run *ret)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows,
                "SELECT " RUN_COLUMNS ", count(*) OVER (PARTITION BY r.state = 'partial') FROM ledger.run r"
                " WHERE r.job_id = $1::integer AND r.state IN ('running', 'failed', 'interrupted', 'partial')"
                " ORDER BY r.state = 'partial', r.id LIMIT 1",
                NUMBER(job));

    if (r == 0 && rows_count(rows) > 0 && rows_integer(rows, 0, 9) > 1)
        return -EEXIST;
    return take_run(r, rows, ret);
}

int ledger_find_run(const struct ledger *ledger, int64_t id, int *ret_job, struct ledger_run *ret)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows, "SELECT " RUN_COLUMNS " FROM ledger.run r WHERE r.id = $1::bigint", NUMBER(id));

    r = take_run(r, rows, ret);
    if (r == 0 && ret_job != NULL)
        *ret_job = (int)rows_integer(rows, 0, 5);
    return r;
}

int ledger_find_due(const struct ledger *ledger, int job, usec_t due, struct ledger_run *ret)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows,
                "SELECT " RUN_COLUMNS " FROM ledger.run r WHERE r.job_id = $1::integer AND r.due = " MOMENT("$2"),
                NUMBER(job), NUMBER(due));

    return take_run(r, rows, ret);
}

int ledger_start_run(const struct ledger *ledger, const struct ledger_start *start, int64_t *ret_id)
{
    const char **from = mem_alloc((start->range_count + 1) * sizeof(*from));
    const char **to = mem_alloc((start->range_count + 1) * sizeof(*to));
    AUTO_TEXT from_array = NULL;
    AUTO_TEXT to_array = NULL;
    AUTO_ROWS rows = NULL;
    int r;

    /* The first lane's range_from is NULL, which a text array of ours has no word for: it is left out and put back. */
    for (size_t i = 0; i < start->range_count; i++) {
        if (i > 0)
            from[i - 1] = start->ranges[i].from;
        to[i] = start->ranges[i].to;
    }
    from_array = sql_array(from);
    to_array = sql_array(to);
    free(from);
    free(to);
    r = ASK(ledger, &rows,
            "WITH settle AS ("
            " UPDATE ledger.job SET settled_through = CASE WHEN $8::boolean THEN " MOMENT("$2") " ELSE settled_through END"
            " WHERE id = $1::integer AND (NOT $8::boolean OR settled_through = " MOMENT("$9") ") RETURNING id),"
            " run AS ("
            " INSERT INTO ledger.run (job_id, due, trigger, state, attempt, params, started_at)"
            " SELECT id, " MOMENT("$2") ", $3, 'running', 1, $4::jsonb, " MOMENT("$5") " FROM settle"
            " ON CONFLICT (job_id, due) DO NOTHING RETURNING id),"
            " lane AS ("
            " INSERT INTO ledger.lane (run_id, lane, attempt, range_from, range_to)"
            " SELECT run.id, n - 1, 1, f, t FROM run, unnest(ARRAY[NULL] || $6::text[], $7::text[]) WITH ORDINALITY AS u(f, t, n)"
            " WHERE t IS NOT NULL)"
            " SELECT (SELECT id FROM run), EXISTS (SELECT 1 FROM settle)",
            NUMBER(start->job), NUMBER_OR_NULL(start->due), start->trigger, start->params, NUMBER(start->started),
            from_array, to_array, start->settles ? "t" : "f", NUMBER_OR_NULL(start->settled));
    if (r < 0)
        return r;
    if (!rows_boolean(rows, 0, 1))
        return -ESTALE;
    if (rows_text(rows, 0, 0) == NULL)
        return -EEXIST;
    *ret_id = rows_integer(rows, 0, 0);
    return 0;
}

int ledger_skip(const struct ledger *ledger, int job, usec_t settled, usec_t from, usec_t through, int64_t occurrences,
                const char *reason)
{
    return WRITE(ledger,
                 "WITH settle AS ("
                 " UPDATE ledger.job SET settled_through = " MOMENT("$4")
                 " WHERE id = $1::integer AND settled_through = " MOMENT("$2") " AND settled_through < " MOMENT("$4")
                 " RETURNING id)"
                 " INSERT INTO ledger.skip (job_id, due_from, due_through, occurrences, reason)"
                 " SELECT id, " MOMENT("$3") ", " MOMENT("$4") ", $5::bigint, $6 FROM settle RETURNING 1",
                 NUMBER(job), NUMBER(settled), NUMBER(from), NUMBER(through), NUMBER(occurrences), reason);
}

int ledger_take_up(const struct ledger *ledger, int64_t run, int attempt, int *ret_attempt)
{
    AUTO_BUF take = {0}, fence = {0};
    const char *const values[] = {NUMBER(run), NUMBER(attempt)};
    struct db_statement statements[] = {{NULL, 2, values}, {NULL, 2, values}};
    struct rows *rows[2];
    int r;

    ledger_sql(&take, ledger->schema,
               "UPDATE ledger.run SET attempt = attempt + 1, state = 'running', error = NULL, finished_at = NULL"
               " WHERE id = $1::bigint AND attempt = $2::integer AND state IN ('running', 'failed', 'interrupted')"
               " RETURNING attempt");
    /*
     * Touching the lanes waits for a batch of an earlier attempt that is just being committed: after it, none can be. A
     * statement of its own, since a lane may just have been parted: only a later snapshot sees the new one.
     */
    ledger_sql(&fence, ledger->schema,
               "UPDATE ledger.lane l SET attempt = r.attempt FROM ledger.run r WHERE r.id = l.run_id"
               " AND l.run_id = $1::bigint AND r.attempt = $2::integer + 1 AND r.state = 'running'");
    statements[0].sql = take.text;
    statements[1].sql = fence.text;
    r = db_transaction(ledger->db, statements, ELEMENTS(statements), rows);
    if (r < 0)
        return r;
    if (rows_count(rows[0]) > 0)
        *ret_attempt = (int)rows_integer(rows[0], 0, 0);
    else
        r = -ESTALE;
    for (size_t i = 0; i < ELEMENTS(rows); i++)
        rows_free(rows[i]);
    return r;
}

void ledger_lane_free(struct ledger_lane *lane)
{
    free(lane->from);
    free(lane->to);
    free(lane->cursor);
    *lane = (struct ledger_lane){0};
}

int ledger_lanes(const struct ledger *ledger, int64_t run, struct ledger_lane **ret, size_t *ret_count)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows,
                "SELECT lane, range_from, range_to, cursor, rows_done, rows_skipped FROM ledger.lane"
                " WHERE run_id = $1::bigint ORDER BY lane",
                NUMBER(run));

    if (r < 0)
        return r;
    *ret_count = (size_t)rows_count(rows);
    *ret = mem_alloc(*ret_count * sizeof(**ret));
    for (int i = 0; i < rows_count(rows); i++)
        (*ret)[i] = (struct ledger_lane){
            .lane = (int)rows_integer(rows, i, 0),
            .from = copy_of(rows, i, 1),
            .to = copy_of(rows, i, 2),
            .cursor = copy_of(rows, i, 3),
            .rows_done = rows_integer(rows, i, 4),
            .rows_skipped = rows_integer(rows, i, 5),
        };
    return 0;
}

int ledger_params(const struct ledger *ledger, int64_t run, struct rows **ret)
{
    return ASK(ledger, ret,
               "WITH RECURSIVE flat(path, value) AS ("
               " SELECT key, value FROM ledger.run, jsonb_each(params) WHERE id = $1::bigint"
               " UNION ALL"
               " SELECT flat.path || '.' || e.key, e.value FROM flat,"
               " jsonb_each(CASE jsonb_typeof(flat.value) WHEN 'object' THEN flat.value ELSE '{}' END) e)"
               " SELECT path, jsonb_typeof(value) = 'array', CASE jsonb_typeof(value) WHEN 'array' THEN e.element ELSE value #>> '{}' END FROM flat"
               " LEFT JOIN LATERAL jsonb_array_elements_text("
               " CASE jsonb_typeof(value) WHEN 'array' THEN value ELSE '[]' END) WITH ORDINALITY AS e(element, n) ON true"
               " WHERE jsonb_typeof(value) <> 'object' ORDER BY path, e.n",
               NUMBER(run));
}

#define SUMS \
    " rows_done = coalesce((SELECT sum(l.rows_done) FROM ledger.lane l WHERE l.run_id = $1::bigint), 0)," \
    " rows_skipped = coalesce((SELECT sum(l.rows_skipped) FROM ledger.lane l WHERE l.run_id = $1::bigint), 0)"

int ledger_stop_run(const struct ledger *ledger, int64_t run, int attempt, const char *state, const char *error)
{
    return WRITE(ledger,
                 "UPDATE ledger.run SET state = $3, error = $4, finished_at = NULL," SUMS
                 " WHERE id = $1::bigint AND attempt = $2::integer AND state IN ('running', 'failed', 'interrupted') RETURNING 1",
                 NUMBER(run), NUMBER(attempt), state, error);
}

int ledger_finish_run(const struct ledger *ledger, int64_t run, int attempt, struct ledger_run *ret)
{
#define ENDED \
    " AND NOT EXISTS (SELECT 1 FROM ledger.lane l WHERE l.run_id = $1::bigint AND l.cursor IS DISTINCT FROM l.range_to)"
    int r = WRITE(ledger,
                  "UPDATE ledger.run SET state = 'partial', finished_at = clock_timestamp()," SUMS
                  " WHERE id = $1::bigint AND attempt = $2::integer AND state = 'running'" ENDED
                  " AND EXISTS (SELECT 1 FROM ledger.leftover o WHERE o.run_id = $1::bigint) RETURNING 1",
                  NUMBER(run), NUMBER(attempt));

    if (r == 0 || r == -ESTALE)
        r = WRITE(ledger,
                  "UPDATE ledger.run SET state = 'done', finished_at = clock_timestamp()," SUMS
                  " WHERE id = $1::bigint AND attempt = $2::integer AND state IN ('running', 'partial')" ENDED
                  " AND NOT EXISTS (SELECT 1 FROM ledger.leftover o WHERE o.run_id = $1::bigint) RETURNING 1",
                  NUMBER(run), NUMBER(attempt));
#undef ENDED
    if (r < 0 && r != -ESTALE)
        return r;
    r = ledger_find_run(ledger, run, NULL, ret);
    if (r < 0)
        return r;
    return ret->attempt == attempt && (strcmp(ret->state, "done") == 0 || strcmp(ret->state, "partial") == 0) ? 0 : -ESTALE;
}

int ledger_reported(const struct ledger *ledger, int64_t run)
{
    return ASK(ledger, NULL,
               "UPDATE ledger.run SET reported_at = clock_timestamp() WHERE id = $1::bigint AND reported_at IS NULL"
               " AND state IN ('done', 'partial', 'abandoned')",
               NUMBER(run));
}

int ledger_abandon(const struct ledger *ledger, int64_t run, int attempt, const char *reason)
{
    return WRITE(ledger,
                 "WITH run AS ("
                 " UPDATE ledger.run SET attempt = attempt + (state = 'partial')::integer, state = 'abandoned', error = $3,"
                 " finished_at = clock_timestamp(), reported_at = clock_timestamp()," SUMS
                 " WHERE id = $1::bigint AND attempt = $2::integer"
                 " AND state IN ('running', 'partial') RETURNING id, attempt),"
                 " lanes AS (UPDATE ledger.lane l SET attempt = run.attempt FROM run WHERE l.run_id = run.id)"
                 " SELECT 1 FROM run",
                 NUMBER(run), NUMBER(attempt), reason);
}

int ledger_prune(const struct ledger *ledger, int job, usec_t keep)
{
    return ASK(ledger, NULL,
               "WITH gone AS ("
               " DELETE FROM ledger.run r WHERE job_id = $1::integer AND state IN ('done', 'abandoned')"
               " AND CASE WHEN due IS NULL THEN reported_at IS NOT NULL" /* a run made with --due waits to be settled, too */
               " ELSE due <= (SELECT settled_through FROM ledger.job WHERE id = $1::integer) END"
               " AND finished_at < clock_timestamp() - $2::bigint * interval '1 microsecond'"
               " AND NOT EXISTS (SELECT 1 FROM ledger.leftover o WHERE o.run_id = r.id) RETURNING due),"
               " skips AS ("
               " DELETE FROM ledger.skip WHERE job_id = $1::integer"
               " AND skipped_at < clock_timestamp() - $2::bigint * interval '1 microsecond')"
               " UPDATE ledger.job SET pruned_from = least(pruned_from, (SELECT min(due) FROM gone)),"
               " pruned_through = greatest(pruned_through, (SELECT max(due) FROM gone))"
               " WHERE id = $1::integer AND EXISTS (SELECT 1 FROM gone WHERE due IS NOT NULL)",
               NUMBER(job), NUMBER(keep));
}

/* ---- Leftovers ---- */

void ledger_leftovers_free(struct ledger_leftover *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i].key);
        free(list[i].reason);
        free(list[i].error);
        free(list[i].sqlstate);
    }
    free(list);
}

int ledger_leftovers(const struct ledger *ledger, int job, int64_t run, const char *after, int most,
                     struct ledger_leftover **ret, size_t *ret_count)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows,
                "SELECT * FROM (SELECT o.run_id, o.lane, o.key, o.reason, o.error, o.sqlstate, o.attempts, r.attempt,"
                " o.next_attempt FROM ledger.leftover o JOIN ledger.run r ON r.id = o.run_id"
                " WHERE CASE WHEN $2::bigint = 0 THEN r.job_id = $1::integer AND r.state = 'partial'"
                " AND o.next_attempt <= clock_timestamp()"
                " ELSE r.id = $2::bigint AND ($3::text IS NULL OR (length(o.key), o.key) > (length($3::text), $3::text)) END"
                " ORDER BY CASE WHEN $2::bigint = 0 THEN o.next_attempt END, length(o.key), o.key LIMIT $4::integer) AS page"
                " ORDER BY run_id, CASE WHEN $2::bigint = 0 THEN next_attempt END, length(key), key",
                NUMBER(job), NUMBER(run), after, NUMBER(most));

    if (r < 0)
        return r;
    *ret_count = (size_t)rows_count(rows);
    *ret = mem_alloc(*ret_count * sizeof(**ret));
    for (int i = 0; i < rows_count(rows); i++)
        (*ret)[i] = (struct ledger_leftover){
            .run = rows_integer(rows, i, 0),
            .lane = (int)rows_integer(rows, i, 1),
            .key = copy_of(rows, i, 2),
            .reason = copy_of(rows, i, 3),
            .error = copy_of(rows, i, 4),
            .sqlstate = copy_of(rows, i, 5),
            .attempts = (int)rows_integer(rows, i, 6),
            .run_attempt = (int)rows_integer(rows, i, 7),
        };
    return 0;
}

int ledger_put_off(const struct ledger *ledger, const struct ledger_leftover *leftover, const char *reason,
                   const char *sqlstate, const char *error, usec_t delay)
{
    int r;

    for (int i = 0; i < leftover->attempts && delay < LEDGER_MOST_DELAY; i++)
        delay *= 2;
    if (delay > LEDGER_MOST_DELAY)
        delay = LEDGER_MOST_DELAY;
    r = WRITE(ledger,
              "UPDATE ledger.leftover SET attempts = attempts + 1, reason = $4, sqlstate = $5, error = $6,"
              " next_attempt = clock_timestamp() + $7::bigint * interval '1 microsecond'"
              " WHERE run_id = $1::bigint AND key = $2 AND attempts = $3::integer"
              " AND EXISTS (SELECT 1 FROM ledger.run WHERE id = $1::bigint AND attempt = $8::integer) RETURNING 1",
              NUMBER(leftover->run), leftover->key, NUMBER(leftover->attempts), reason, sqlstate, error, NUMBER(delay),
              NUMBER(leftover->run_attempt));
    return r;
}

int ledger_next_attempt(const struct ledger *ledger, int job, usec_t *ret)
{
    AUTO_ROWS rows = NULL;
    int r = ASK(ledger, &rows,
                "SELECT " USEC_OF("min(o.next_attempt)") " FROM ledger.leftover o JOIN ledger.run r ON r.id = o.run_id"
                " WHERE r.job_id = $1::integer AND r.state = 'partial'",
                NUMBER(job));

    if (r == 0)
        *ret = moment_of(rows, 0, 0);
    return r;
}

/* ---- Halves of an engine's statements ---- */

void ledger_add_gate(struct buf *buf, const char *schema)
{
    ledger_sql(buf, schema,
               "rm_gate AS MATERIALIZED (SELECT pg_current_wal_insert_lsn() AS began FROM ledger.lane WHERE run_id = $1::bigint AND lane = $2::integer"
               " AND attempt = $3::integer AND cursor IS NOT DISTINCT FROM $4::text FOR NO KEY UPDATE)");
}

void ledger_add_move(struct buf *buf, const char *schema, const char *done, const char *skipped)
{
    AUTO_TEXT sql = mem_print("UPDATE ledger.lane SET cursor = $5::text, rows_done = rows_done + %s,"
                              " rows_skipped = rows_skipped + %s"
                              " WHERE run_id = $1::bigint AND lane = $2::integer AND EXISTS (SELECT 1 FROM rm_gate)"
                              " RETURNING rows_done, rows_skipped,"
                              " (pg_current_wal_insert_lsn() - (SELECT began FROM rm_gate))::bigint",
                              done, skipped);

    ledger_sql(buf, schema, sql);
}

void ledger_add_part(struct buf *buf, const char *schema)
{
    ledger_sql(buf, schema,
               "WITH run AS MATERIALIZED ("
               " SELECT 1 FROM ledger.run WHERE id = $1::bigint AND attempt = $3::integer FOR NO KEY UPDATE),"
               " parted AS ("
               " UPDATE ledger.lane SET range_to = $6::text WHERE EXISTS (SELECT 1 FROM run) AND run_id = $1::bigint AND lane = $2::integer"
               " AND attempt = $3::integer AND cursor = $4::text AND range_to = $5::text RETURNING run_id, attempt)"
               " INSERT INTO ledger.lane (run_id, lane, attempt, range_from, range_to)"
               " SELECT run_id, $7::integer, attempt, $6::text, $5::text FROM parted RETURNING 1");
}

void ledger_add_leave(struct buf *buf, const char *schema)
{
    ledger_sql(buf, schema,
               "INSERT INTO ledger.leftover (run_id, key, lane, reason, error, sqlstate, next_attempt) ");
}
