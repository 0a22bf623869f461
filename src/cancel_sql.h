/* SPDX-License-Identifier: PostgreSQL */
/*
 * cancel_sql: the statements that cancel orders, as text with numbered parameters. Pure: a task in, SQL out.
 *
 * An order's transaction is two statements (three with `call`) sent in one piece: the lock, whose row says that the order
 * is still to be canceled, and the change, whose snapshot begins after the lock and which does nothing without it. What
 * ties them together is a setting of the transaction, roundsman.order, that the lock sets to the order's key.
 */
#ifndef RM_CANCEL_SQL_H
#define RM_CANCEL_SQL_H

#include "work.h"

#define CANCEL_PAGE 1024 /* candidates that one scan brings */

enum cancel_from {
    CANCEL_FROM_START,  /* the range has no beginning */
    CANCEL_FROM_RANGE,  /* after the range's beginning: one more parameter */
    CANCEL_FROM_CURSOR, /* at or after the cursor: one more parameter. What was done there is no candidate any more */
    CANCEL_FROM_ORDER,  /* after (touched, key): two more parameters */
};

/* The type of orders' `touched`: "timestamptz", or "timestamp" where it has a zone. */
const char *cancel_touched_type(const struct task *);

/* What is older than this is canceled, in microseconds: the run's start less older_than. */
usec_t cancel_cutoff(const struct task *);

/* $1 microseconds of older_than: started (microseconds), cutoff (as `touched` has it). Needs nothing of task->started. */
char *cancel_edge_sql(const struct task *);
/* $1 range end, $2 cutoff, [only]: the number of candidates. */
char *cancel_count_sql(const struct task *);
/* The same: `touched` of the candidates that part task->rows of them into so many lanes, ascending. */
char *cancel_parts_sql(const struct task *, int lanes);

/* $1 range end, $2 cutoff, $3 job, [only], and what `from` needs: key, touched of the next candidates. */
char *cancel_page_sql(const struct task *, const char *ledger, enum cancel_from from);

/* $1 key, $2 key as text, $3 cutoff: a row when the order is locked and to be canceled. */
char *cancel_lock_sql(const struct task *);
/* The same for a leftover: $4 run, $5 attempt, $6 attempts of the leftover. */
char *cancel_relock_sql(const struct task *, const char *ledger);
/* $1 key, $2 key as text: calls the application's function. Only with `call`. */
char *cancel_call_sql(const struct task *);
/* $1 key, $2 key as text, $3 run, $4 lane, $5 attempt: true when the order is canceled, no row when it is not locked. With
 * `call`: the check after it. `watched`: triggers see the rows first, and what they make of them is verified. */
char *cancel_change_sql(const struct task *, const char *ledger, bool watched);

/* $1 … $5 as above, $6 cutoff, $7 delay, $8 reason, $9 sqlstate, $10 error, $11 job: a row when it is left over now. */
char *cancel_leave_sql(const struct task *, const char *ledger);
/* $1 run, $2 lane, $3 attempt, $4 cursor, $5 new cursor, $6 how many were skipped. */
char *cancel_move_sql(const char *ledger);

/* $1 key, $2 key as text, $3 cutoff, $4 run, $5 attempt, $6 attempts: deletes the leftover; true when it did. */
char *cancel_settle_sql(const struct task *, const char *ledger);
/* $1 run: its counts are its lanes' sums. */
char *cancel_sum_sql(const char *ledger);

/* $1 cutoff, [only]: rows, points, pieces; and the first keys. */
char *cancel_preview_sql(const struct task *);
char *cancel_keys_sql(const struct task *);

#endif
