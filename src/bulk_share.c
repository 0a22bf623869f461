/* SPDX-License-Identifier: PostgreSQL */
#include "bulk_share.h"

#include <stdio.h>
#include <string.h>

#include "bulk_sql.h"
#include "sql.h"

/* Rows under which a second lane is not worth its connection. */
#define FEW_ROWS 2000
#define SAMPLE_ROWS 30000

/* Tags of answers; bulk.c has others. */
enum { MIDDLE = 'm', PART = 'p' };

static int read_extent(struct db *db, struct task *task, const struct change *change, char **ret_last)
{
    AUTO_ROWS rows = NULL;
    AUTO_BUF sql = {0}, table = {0};
    int r;

    sql_quote_name(&table, change->table);
    buf_add(
        &sql,
        "SELECT (extract(epoch FROM now()) * 1000000)::bigint, (SELECT coalesce(sum(CASE WHEN reltuples > 0"
        " THEN reltuples ELSE pg_relation_size(oid) / 100 END), 0)::bigint FROM pg_class"
        " WHERE relkind <> 'p' AND (oid = $1::regclass OR oid IN (SELECT relid FROM pg_partition_tree($1::regclass)))),"
        " (SELECT t.");
    sql_quote(&sql, change->key);
    buf_print(&sql, "::text FROM %s AS t ORDER BY t.", table.text);
    sql_quote(&sql, change->key);
    buf_add(&sql, " DESC LIMIT 1)");
    r = db_query(db, sql.text, 1, (const char *[]){table.text}, &rows);
    if (r < 0)
        return r;
    task->started = rows_integer(rows, 0, 0);
    task->rows = rows_integer(rows, 0, 1);
    *ret_last = mem_copy(rows_text(rows, 0, 2));
    return 0;
}

/* Of the table, so that a sample has about SAMPLE_ROWS rows. */
static double sample_percent(const struct task *task)
{
    return task->rows > SAMPLE_ROWS ? 100.0 * SAMPLE_ROWS / (double)task->rows : 100;
}

/* Keys that part the rows of a sample into `lanes` equal shares. Any keys are correct; these balance. */
static int sample(struct db *db, const struct task *task, const struct change *change, const char *last, int lanes,
                  struct rows **ret)
{
    AUTO_BUF sql = {0}, shares = {0};

    for (int i = 1; i < lanes; i++)
        buf_print(&shares, "%s%.6f", i == 1 ? "{" : ",", (double)i / lanes);
    buf_add(&shares, "}");
    buf_add(&sql, "SELECT DISTINCT part, part::text AS words FROM unnest((SELECT percentile_disc($1::float8[]) WITHIN "
                  "GROUP (ORDER BY t.");
    sql_quote(&sql, change->key);
    buf_add(&sql, ") FROM ");
    sql_quote_name(&sql, change->table);
    buf_print(&sql, " AS t TABLESAMPLE SYSTEM (%.4f))) AS u(part) WHERE part < $2::%s ORDER BY 1", sample_percent(task),
              task->key.type);
    return db_query(db, sql.text, 2, (const char *[]){shares.text, last}, ret);
}

int bulk_share_split(struct db *db, struct task *task, int lanes, struct ledger_range **ret, size_t *ret_count)
{
    struct change change = bulk_change(task, 0);
    AUTO_ROWS parts = NULL;
    AUTO_TEXT last = NULL;
    size_t count = 0, inner = 0;
    int r = read_extent(db, task, &change, &last);

    if (r == 0 && last != NULL && lanes > 1 && task->rows >= FEW_ROWS && task->only == NULL)
        r = sample(db, task, &change, last, lanes, &parts);
    bulk_change_free(&change);
    if (r < 0)
        return r;
    inner = parts != NULL ? (size_t)rows_count(parts) : 0;
    *ret = mem_alloc((inner + 1) * sizeof(**ret));
    for (; last != NULL && count <= inner; count++)
        (*ret)[count] = (struct ledger_range){
            .from = count == 0 ? NULL : mem_copy(rows_text(parts, (int)count - 1, 1)),
            .to = mem_copy(count == inner ? last : rows_text(parts, (int)count, 1)),
        };
    *ret_count = count;
    if (task->only != NULL)
        for (task->rows = 0; task->only[task->rows] != NULL;)
            task->rows++;
    return 0;
}

int bulk_share_prepare(const struct work *work, const struct lane *lane)
{
    struct change change = bulk_walk(work->task, 0);
    AUTO_TEXT middle = bulk_middle_sql(work->task, &change, sample_percent(work->task));
    AUTO_BUF part = {0};
    int r = db_prepare(lane->db, "middle", middle);

    bulk_change_free(&change);
    ledger_add_part(&part, work->ledger);
    return r < 0 ? r : db_prepare(lane->db, "part", part.text);
}

static int send(struct lane *idle, const char *name, const char *const *values, size_t count, int tag)
{
    int r = db_send(idle->db, name, count, values, tag);

    idle->busy = true;
    return r < 0 ? r : db_end(idle->db, tag);
}

int bulk_share_find_middle(struct work *work, struct lane *idle, const struct lane *lane)
{
    (void)work;
    idle->sharing = SHARING_ASKED;
    return send(idle, "middle", (const char *[]){lane->at.to, lane->at.cursor}, 2, MIDDLE);
}

int bulk_share_part(struct work *work, struct lane *idle, const struct lane *lane)
{
    char number[16];
    const char *values[] = {work->run, lane->number, work->attempt, lane->at.cursor, lane->at.to, idle->middle, number};

    snprintf(number, sizeof(number), "%zu", work->lane_count);
    idle->sharing = SHARING_PARTING;
    return send(idle, "part", values, ELEMENTS(values), PART);
}

bool bulk_share_sent(int tag)
{
    return tag == MIDDLE || tag == PART;
}

int bulk_share_answer(struct work *work, struct lane *idle, struct answer *answer)
{
    if (answer->kind == ANSWER_ERROR) {
        const struct db_error *error = db_error(idle->db);

        return work_fail_statement(work, error->message, error->sqlstate);
    }
    if (answer->kind == ANSWER_ROWS && answer->tag == MIDDLE) {
        mem_replace(&idle->middle, mem_copy(rows_text(answer->rows, 0, 0)));
        idle->middle_rows = (int64_t)((double)rows_integer(answer->rows, 0, 1) * 100 / sample_percent(work->task));
    } else if (answer->kind == ANSWER_ROWS && rows_count(answer->rows) == 0) {
        work->end = WORK_FENCED;
    } else if (answer->kind == ANSWER_END) {
        idle->busy = false;
        idle->sharing = answer->tag == MIDDLE ? SHARING_TOLD : SHARING_PARTED;
    }
    rows_free(answer->rows);
    return 0;
}

