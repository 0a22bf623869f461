/* SPDX-License-Identifier: PostgreSQL */
#include "watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define EVERY USEC_PER_SEC
#define WELL_BELOW 0.8 /* of a limit: where holding back ends, so that it does not flutter */

/* Whether a signal is over its limit, with the hysteresis of `over`. */
static bool judge(bool over, int64_t value, int64_t limit)
{
    return over ? (double)value > WELL_BELOW * (double)limit : value > limit;
}

static void add_reason(struct buf *reasons, const char *reason)
{
    buf_print(reasons, "%s%s", reasons->length > 0 ? "; " : "", reason);
}

/* pg_stat_replication shows other roles' rows empty without the privilege: that is no lag of zero. */
static int look_at_replicas(struct watch *watch, struct db *db, struct buf *reasons)
{
    char lag[MOMENT_TEXT_MAX], limit[MOMENT_TEXT_MAX];
    AUTO_ROWS rows = NULL;
    AUTO_TEXT reason = NULL;
    int r = db_query(db,
                     "SELECT pg_has_role('pg_read_all_stats', 'USAGE'),"
                     " coalesce(max(extract(epoch FROM replay_lag) * 1000000), 0)::bigint, quote_ident(current_user)"
                     " FROM pg_stat_replication",
                     0, NULL, &rows);

    if (r == -EIO)
        return r;
    if (r < 0 || !rows_boolean(rows, 0, 0)) {
        reason = r < 0 ? mem_print("the lag of replicas cannot be read: %s", db_error(db)->message)
                       : mem_print("the lag of replicas cannot be read; GRANT pg_read_all_stats TO %s;", rows_text(rows, 0, 2));
        add_reason(reasons, reason);
        return 0;
    }
    watch->lagging = judge(watch->lagging, rows_integer(rows, 0, 1), watch->max_replica_lag);
    if (!watch->lagging)
        return 0;
    reason = mem_print("replica lag %s (max_replica_lag %s)", duration_format(rows_integer(rows, 0, 1), lag),
                       duration_format(watch->max_replica_lag, limit));
    add_reason(reasons, reason);
    return 0;
}

static int look_at_slots(struct watch *watch, struct db *db, struct buf *reasons)
{
    AUTO_ROWS rows = NULL;
    AUTO_TEXT reason = NULL;
    int r = db_query(db,
                     "SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::bigint"
                     " FROM pg_replication_slots",
                     0, NULL, &rows);

    if (r == -EIO)
        return r;
    if (r < 0) {
        reason = mem_print("the WAL that slots hold back cannot be read: %s", db_error(db)->message);
        add_reason(reasons, reason);
        return 0;
    }
    watch->filling = judge(watch->filling, rows_integer(rows, 0, 0), watch->max_slot_wal);
    if (!watch->filling)
        return 0;
    reason = mem_print("slots hold back %lld MB of WAL (max_slot_wal %lld MB)", (long long)(rows_integer(rows, 0, 0) >> 20),
                       (long long)(watch->max_slot_wal >> 20));
    add_reason(reasons, reason);
    return 0;
}

/* pg_blocking_pids() takes the lock manager's own locks: it is asked only about sessions that have waited for long. */
static int look_at_waiters(const struct watch *watch, struct db *db, struct work *work)
{
    AUTO_BUF pids = {0};
    AUTO_ROWS rows = NULL;
    char patience[24];
    int r;

    for (size_t i = 0; i < work->lane_count; i++)
        if (work->lanes[i].db != NULL)
            buf_print(&pids, "%s%d", pids.length > 0 ? "," : "{", db_process(work->lanes[i].db));
    if (pids.length == 0)
        return 0;
    buf_add(&pids, "}");
    snprintf(patience, sizeof(patience), "%lld", (long long)watch->lock_timeout);
    r = db_query(db,
                 "SELECT count(*) FROM pg_locks WHERE NOT granted AND NOT pid = ANY ($2::integer[])"
                 " AND waitstart < clock_timestamp() - $1::bigint * interval '1 microsecond'"
                 " AND pg_blocking_pids(pid) && $2::integer[]",
                 2, (const char *[]){patience, pids.text}, &rows);
    if (r == 0 && rows_integer(rows, 0, 0) > 0)
        governor_blocked(&work->governor, moment_monotonic());
    return r == -EIO ? r : 0;
}

int watch_look(struct watch *watch, struct db *db, struct work *work)
{
    struct buf reasons = {0};
    usec_t now = moment_monotonic();
    int r;

    if (now < watch->next)
        return 0;
    watch->next = now + EVERY;
    r = look_at_waiters(watch, db, work);
    if (r == 0 && watch->max_replica_lag > 0)
        r = look_at_replicas(watch, db, &reasons);
    if (r == 0 && watch->max_slot_wal > 0)
        r = look_at_slots(watch, db, &reasons);
    free(work->held);
    work->held = reasons.text;
    return r;
}
