/* SPDX-License-Identifier: PostgreSQL */
#include "horizon.h"

#include <stdio.h>

#define OLD_SECONDS "300"
#define OLD_TRANSACTIONS "100000" /* for those whose time is not shown to us: five minutes of a busy shop */

/* Who has it, how old it is, whether it is too old, and what to do. Sessions of other databases are not in the way. */
static const char snapshots_sql[] =
    "SELECT who, age, coalesce(seconds, 0), coalesce(seconds, 0) > " OLD_SECONDS " OR age > " OLD_TRANSACTIONS
    ", remedy"
    "  FROM (SELECT format('%s %s (%s)', CASE WHEN r.pid IS NULL THEN 'process' ELSE 'the standby of process' END, pid,"
    /* Processes of the server's own have no role; what they are is not shown to every role. */
    "                      CASE WHEN s.usename IS NULL THEN coalesce(s.backend_type, 'one of the server''s own')"
    "                           ELSE format('%s of role %s', coalesce(nullif(s.application_name, ''), 'a session'),"
    "                                       s.usename) END) AS who,"
    "               greatest(age(s.backend_xid), age(s.backend_xmin)) AS age,"
    "               extract(epoch FROM clock_timestamp() - s.xact_start)::bigint AS seconds,"
    "               CASE WHEN r.pid IS NULL THEN format('SELECT pg_terminate_backend(%s);', pid)"
    "                    ELSE 'end the long query on the standby, or set hot_standby_feedback = off there' END"
    "               AS remedy"
    "          FROM pg_stat_activity s LEFT JOIN pg_stat_replication r USING (pid)"
    "         WHERE pid <> pg_backend_pid() AND (s.datname = current_database() OR r.pid IS NOT NULL)"
    "           AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)"
    "        UNION ALL SELECT format('replication slot %s', slot_name), age(xmin), NULL,"
    "               CASE WHEN active THEN 'end the long query on its standby, or set hot_standby_feedback = off there'"
    "                    ELSE format('SELECT pg_drop_replication_slot(%L); -- if its standby is gone', slot_name) END"
    "          FROM pg_replication_slots"
    "        UNION ALL SELECT format('prepared transaction %L of role %s', gid, owner), age(transaction),"
    "               extract(epoch FROM clock_timestamp() - prepared)::bigint,"
    "               format('ROLLBACK PREPARED %L; -- or COMMIT PREPARED, as whoever prepared it decides', gid)"
    "          FROM pg_prepared_xacts WHERE database = current_database()) AS holder"
    " WHERE age IS NOT NULL ORDER BY age DESC, who LIMIT 1";
enum { WHO, AGE, SECONDS, OLD, REMEDY };

int horizon_examine(struct db *db, struct problems *advice)
{
    AUTO_ROWS rows = NULL;
    AUTO_TEXT lasting = NULL;
    char seconds[MOMENT_TEXT_MAX];
    int r = db_query(db, snapshots_sql, 0, NULL, &rows);

    if (r < 0)
        return r;
    if (rows_count(rows) == 0) {
        puts("price: no session, slot or prepared transaction holds back vacuum");
        return 0;
    }
    if (rows_integer(rows, 0, SECONDS) > 0)
        lasting = mem_print(" and %s", duration_tell(rows_integer(rows, 0, SECONDS) * USEC_PER_SEC, seconds));
    printf("price: the oldest snapshot is %s transaction%s%s old: %s\n", rows_text(rows, 0, AGE),
           rows_integer(rows, 0, AGE) == 1 ? "" : "s", lasting != NULL ? lasting : "", rows_text(rows, 0, WHO));
    if (rows_boolean(rows, 0, OLD))
        problems_add(advice, true, rows_text(rows, 0, REMEDY),
                     "%s holds back vacuum, and room on the page with it: what %s transaction%s left behind stays",
                     rows_text(rows, 0, WHO), rows_text(rows, 0, AGE), rows_integer(rows, 0, AGE) == 1 ? "" : "s");
    return 0;
}
