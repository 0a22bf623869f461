/* SPDX-License-Identifier: PostgreSQL */
#include "watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define EVERY USEC_PER_SEC
#define SILENCE (5 * USEC_PER_SEC) /* of the server, after which the signals count as unreadable */
#define WELL_BELOW 0.8             /* of a limit: where holding back ends, so that it does not flutter */

/* Whether a signal is over its limit, with the hysteresis of `over`. */
static bool judge(bool over, int64_t value, int64_t limit)
{
    return over ? (double)value > WELL_BELOW * (double)limit : value > limit;
}

static void start_reason(struct buf *reasons)
{
    if (reasons->length > 0)
        buf_add(reasons, "; ");
}

/* pg_stat_replication shows other roles' rows empty without the privilege: that is no lag of zero. */
static void judge_replicas(struct watch *watch, int64_t lag, const char *unprivileged, struct buf *reasons)
{
    char is[MOMENT_TEXT_MAX], limit[MOMENT_TEXT_MAX];

    watch->lagging = unprivileged == NULL && judge(watch->lagging, lag, watch->max_replica_lag);
    if (unprivileged == NULL && !watch->lagging)
        return;
    start_reason(reasons);
    if (unprivileged != NULL)
        buf_print(reasons, "the lag of replicas cannot be read; GRANT pg_read_all_stats TO %s;", unprivileged);
    else
        buf_print(reasons, "replica lag %s (max_replica_lag %s)", duration_format(lag, is),
                  duration_format(watch->max_replica_lag, limit));
}

static void judge_slots(struct watch *watch, int64_t wal, struct buf *reasons)
{
    watch->filling = judge(watch->filling, wal, watch->max_slot_wal);
    if (!watch->filling)
        return;
    start_reason(reasons);
    buf_print(reasons, "slots hold back %lld MB of WAL (max_slot_wal %lld MB)", (long long)(wal >> 20),
              (long long)(watch->max_slot_wal >> 20));
}

static bool configured(const struct watch *watch)
{
    return watch->max_replica_lag > 0 || watch->max_slot_wal > 0;
}

static void unreadable(const struct watch *watch, struct work *work, const char *why)
{
    if (!configured(watch))
        return;
    free(work->held);
    work->held = mem_print("%s cannot be read: %s",
                           watch->max_slot_wal == 0      ? "the lag of replicas"
                           : watch->max_replica_lag == 0 ? "the WAL that slots hold back"
                                                         : "the lag of replicas and the WAL that slots hold back",
                           why);
}

static void judge_all(struct watch *watch, const struct rows *rows, struct work *work)
{
    struct buf reasons = {0};

    if (rows_integer(rows, 0, 0) > 0)
        governor_blocked(&work->governor, moment_monotonic());
    if (watch->max_replica_lag > 0)
        judge_replicas(watch, rows_integer(rows, 0, 2), rows_text(rows, 0, 1), &reasons);
    if (watch->max_slot_wal > 0)
        judge_slots(watch, rows_integer(rows, 0, 3), &reasons);
    free(work->held);
    work->held = reasons.text;
}

/*
 * One statement: sessions that have waited for us for too long, whom to grant the privilege, the lag, the WAL.
 * pg_blocking_pids() takes the lock manager's own locks: it is asked only about sessions that have waited for long.
 */
static int ask(const struct watch *watch, struct db *db, const struct work *work, struct rows **ret)
{
    AUTO_BUF pids = {0}, sql = {0};
    char patience[24];
    const char *values[] = {patience, NULL};

    buf_add(&pids, "{");
    for (size_t i = 0; i < work->lane_count; i++)
        if (work->lanes[i].db != NULL)
            buf_print(&pids, "%s%d", pids.length > 1 ? "," : "", db_process(work->lanes[i].db));
    buf_add(&pids, "}");
    values[1] = pids.text;
    snprintf(patience, sizeof(patience), "%lld", (long long)watch->lock_timeout);
    buf_print(&sql,
              "SELECT (SELECT count(*) FROM pg_locks WHERE NOT granted AND NOT pid = ANY ($2::integer[])"
              " AND waitstart < clock_timestamp() - $1::bigint * interval '1 microsecond'"
              " AND pg_blocking_pids(pid) && $2::integer[]),"
              " CASE WHEN NOT pg_has_role('pg_read_all_stats', 'USAGE') THEN quote_ident(current_user) END, %s, %s",
              watch->max_replica_lag == 0
                  ? "NULL"
                  : "(SELECT max(extract(epoch FROM replay_lag) * 1000000)::bigint FROM pg_stat_replication)",
              watch->max_slot_wal == 0 ? "NULL"
                                       : "(SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))::bigint"
                                         " FROM pg_replication_slots)");
    return ret != NULL ? db_query(db, sql.text, 2, values, ret) : db_query_send(db, sql.text, 2, values);
}

int watch_look(struct watch *watch, struct db *db, struct work *work)
{
    usec_t now = moment_monotonic();
    bool first = watch->next == 0;
    AUTO_ROWS rows = NULL;
    int r;

    if (watch->asked == 0 && now < watch->next)
        return 0;
    if (watch->asked == 0) {
        watch->next = now + EVERY;
        r = ask(watch, db, work, first && configured(watch) ? &rows : NULL);
        if (rows == NULL && r == 0)
            watch->asked = now;
    } else {
        r = db_query_take(db, &rows);
        if (r != 0)
            watch->asked = 0;
        else if (now - watch->asked > SILENCE)
            unreadable(watch, work, "the server does not answer");
    }
    if (rows != NULL)
        judge_all(watch, rows, work);
    else if (r == -EBADMSG)
        unreadable(watch, work, db_error(db)->message);
    return r == -EIO ? r : 0;
}
