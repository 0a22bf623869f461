/* SPDX-License-Identifier: PostgreSQL */
/*
 * bulk_sql: the statements of a bulk change, as text with numbered parameters. Pure: a task in, SQL out.
 *
 * Every statement exists in two forms: with a lower key (its last parameter), and without one, for a range that begins at
 * the first row. The parameters of a kind's change, and the keys of --only, stand between the fixed ones and the lower key.
 */
#ifndef RM_BULK_SQL_H
#define RM_BULK_SQL_H

#include "bulk_change.h"
#include "work.h"

/* The statement's fixed parameters, in the order of their numbers. */
enum {
    BULK_BOUNDS_FIXED = 2, /* range's end, offset */
    BULK_CHANGE_FIXED = 6, /* run, lane, attempt, cursor, new cursor, new cursor again (in the key's type) */
    BULK_CAREFUL_FIXED = 7, /* … and the delay of leftovers in microseconds */
    BULK_LEAVE_FIXED = 10, /* … and reason, sqlstate, error */
    BULK_STOPPED_FIXED = 3, /* range's end, run, lane */
    BULK_RETRY_FIXED = 6,  /* run, key, attempts, run's attempt, lane, key again */
};

/* The kind's change with its parameters numbered after `fixed` ones, and those of --only after them. */
struct change bulk_change(const struct task *, size_t fixed);
/* The same for a statement that changes nothing (BOUNDS, LEAVE): only --only's keys are parameters. */
struct change bulk_walk(const struct task *, size_t fixed);
void bulk_change_free(struct change *);

/* SQL texts; the caller frees them. `change` is the one made with the statement's number of fixed parameters. */
char *bulk_bounds_sql(const struct task *, const struct change *, bool lower);
/* $1 range's end, $2 its beginning: a key in the middle of a sample of `percent` of the table, and how many rows it had. */
char *bulk_middle_sql(const struct task *, const struct change *, double percent);
char *bulk_change_sql(const struct task *, const struct change *, const char *ledger, bool lower);
char *bulk_careful_sql(const struct task *, const struct change *, const char *ledger, bool lower);
/*
 * After a change that failed: the first key after the last row that it had changed, how many keys of the range are before it,
 * and the last of those; no row where it came to the end. Rows that it had changed still have its transaction in their xmax, as
 * has the lane's row, which its gate had locked. A hint only: another session may have written to a row since, and where it
 * holds a lock, too, the xmax is of both. It fails where `where` fails.
 */
char *bulk_stopped_sql(const struct task *, const struct change *, const char *ledger, bool lower);
char *bulk_leave_sql(const struct task *, const struct change *, const char *ledger, bool lower);
char *bulk_retry_sql(const struct task *, const struct change *, const char *ledger);
char *bulk_count_sql(const struct task *, const struct change *); /* rows, by how much, skipped */
char *bulk_keys_sql(const struct task *, const struct change *);  /* the first keys */

#endif
