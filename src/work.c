/* SPDX-License-Identifier: PostgreSQL */
#include "work.h"

#include <stdlib.h>
#include <string.h>

#include "sql.h"

int work_fail(struct work *work, char *error)
{
    if (work->end == WORK_GOES_ON) {
        work->end = WORK_FAILED;
        work->error = error;
    } else {
        free(error);
    }
    return 0;
}

int work_fail_statement(struct work *work, const char *message, const char *sqlstate)
{
    return work_fail(work, mem_print("%s (SQLSTATE %s)", message, sqlstate));
}

void work_rest(struct work *work, struct lane *lane, usec_t worked, int64_t rows, int64_t bytes)
{
    struct governor_batch batch = {.worked = worked, .bytes = bytes, .rows = rows, .rows_left = work->task->rows};
    usec_t now = moment_monotonic();

    for (size_t i = 0; i < work->lane_count; i++) {
        batch.rows_left -= work->lanes[i].at.rows_done + work->lanes[i].at.rows_skipped;
        batch.lanes += !work->lanes[i].finished;
    }
    if (batch.lanes > governor_lanes(&work->governor))
        batch.lanes = governor_lanes(&work->governor);
    lane->rests_until = now + governor_rest(&work->governor, &batch, now);
}

enum failure work_failure(const char *sqlstate)
{
    /* Classes of errors (PostgreSQL, appendix A) that no other row would fare better with. */
    static const char *const hopeless[] = {"08", "0A", "25", "26", "28", "3D", "3F", "42",
                                           "53", "54", "55", "57P", "58", "XX", "F0"};

    if (strcmp(sqlstate, LEDGER_FENCED) == 0)
        return FAILURE_FENCED;
    if (strcmp(sqlstate, "55P03") == 0 || strcmp(sqlstate, "40P01") == 0 || strcmp(sqlstate, "40001") == 0)
        return FAILURE_LOCKED;
    for (size_t i = 0; i < ELEMENTS(hopeless); i++)
        if (strncmp(sqlstate, hopeless[i], strlen(hopeless[i])) == 0)
            return FAILURE_RUN;
    return FAILURE_ROW;
}

int work_watched(struct db *db, const char *table, bool *ret)
{
    AUTO_BUF name = {0};
    AUTO_ROWS rows = NULL;
    int r;

    sql_quote_name(&name, table);
    r = db_query(db,
                 "SELECT EXISTS (SELECT 1 FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')"
                 " AND tgtype & 19 = 19" /* FOR EACH ROW (1), BEFORE (2), UPDATE (16) */
                 " AND (tgrelid = $1::regclass OR tgrelid IN (SELECT relid FROM pg_partition_tree($1::regclass))))",
                 1, (const char *[]){name.text}, &rows);
    if (r == 0)
        *ret = rows_boolean(rows, 0, 0);
    return r;
}

void work_touched(struct buf *sql, const char *column, const char *zone)
{
    if (column == NULL || column[0] == '\0')
        return;
    buf_add(sql, ", ");
    sql_quote(sql, column);
    buf_add(sql, " = now()");
    if (zone != NULL && zone[0] != '\0') {
        buf_add(sql, " AT TIME ZONE ");
        sql_literal(sql, zone);
    }
}
