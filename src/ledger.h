/* SPDX-License-Identifier: PostgreSQL */
/*
 * ledger: every statement on the ledger's tables, but for the two halves of a batch that an engine joins to its own change
 * (the gate and the move below).
 *
 * Every write is gated: on the run's attempt and state, on the lane's cursor, on the row's absence. A write that its gate
 * refused changes nothing and returns -ESTALE: somebody else went on, and the caller must read the ledger again.
 * All functions return 0, -ESTALE, or as db_query() (-EBADMSG, -EIO; db_error() of the session says why).
 * Instants come from the database's clock. Nothing here logs.
 */
#ifndef RM_LEDGER_H
#define RM_LEDGER_H

#include "db.h"
#include "moment.h"

/* SQLSTATEs that statements of ours raise through the ledger's function refuse(). */
#define LEDGER_ROW "RM001"    /* this row cannot be done */
#define LEDGER_FENCED "RM002" /* the run was taken up by another process */

/* The ledger as a place: an open session and its quoted schema. */
struct ledger {
    struct db *db;
    const char *schema;
};

/* Adds `sql` with every "ledger." replaced by the schema. Not for text that a user wrote. */
void ledger_sql(struct buf *, const char *schema, const char *sql);

/* -ENOENT: there is no ledger in the schema; otherwise sets *ret to its version. */
int ledger_version(const struct ledger *, int *ret);

/* ---- Jobs ---- */

struct ledger_job {
    int id;
    char *kind, *schedule, *timezone;
    bool enabled;
    usec_t first_seen, settled_through;
    usec_t pruned_from, pruned_through; /* MOMENT_NONE: nothing was deleted */
    usec_t now;                         /* the database's clock when this was read */
};
void ledger_job_free(struct ledger_job *); /* empties it */

/* The job's row, made when there is none (then it owes nothing from before now). */
int ledger_see_job(const struct ledger *, const char *name, const char *kind, const char *schedule, const char *timezone,
                   bool enabled, struct ledger_job *ret);
/* The job's row; -ENOENT. */
int ledger_find_job(const struct ledger *, const char *name, struct ledger_job *ret);

/* A changed schedule, zone or enabled takes effect: from now on. Does nothing when nothing changed. */
int ledger_apply_job(const struct ledger *, int job, const char *kind, const char *schedule, const char *timezone,
                     bool enabled);

/* The job's advisory lock, for this session; never waits. */
#define LEDGER_LOCK_CLASS 1919184238 /* "rdmn" */
int ledger_try_lock(const struct ledger *, int job, bool *ret_locked);

/* ---- Runs ---- */

struct ledger_range {
    char *from, *to; /* keys as text; from NULL: from the first one */
};
void ledger_ranges_free(struct ledger_range *, size_t count);

struct ledger_run {
    int64_t id;
    usec_t due; /* MOMENT_NONE: manual */
    char *trigger, *state;
    int attempt;
    int64_t rows_done, rows_skipped, leftovers;
    bool same_request; /* as asked of ledger_unfinished() */
};
void ledger_run_free(struct ledger_run *);

/* `request` (jsonb, or NULL) is compared with what the run was asked for. All: -ENOENT when there is none. */
int ledger_unfinished(const struct ledger *, int job, bool manual_too, const char *request, struct ledger_run *ret);
/* The first manual run of this request that was finished and not reported, or else the last one when it has leftovers. */
int ledger_manual_to_close(const struct ledger *, int job, const char *request, struct ledger_run *ret);
/* The oldest run with leftovers whose lanes are all at their ends; `settled`: the oldest whose leftovers are all gone since. */
int ledger_first_partial(const struct ledger *, int job, bool settled, struct ledger_run *ret);
/* The one unfinished run, or else the one with leftovers; -EEXIST when there are several. */
int ledger_only_open(const struct ledger *, int job, struct ledger_run *ret);
int ledger_find_run(const struct ledger *, int64_t id, int *ret_job, struct ledger_run *ret);
int ledger_find_due(const struct ledger *, int job, usec_t due, struct ledger_run *ret);

/*
 * Starts a run with its lanes, in one statement. With `settles`, settled_through moves from `settled` to `due` in it.
 * Returns -EEXIST when the occurrence has its run already, -ESTALE when settled_through is not what was read.
 */
struct ledger_start {
    int job;
    usec_t due;
    const char *trigger, *params; /* params: jsonb */
    usec_t started;
    const struct ledger_range *ranges;
    size_t range_count;
    bool settles;
    usec_t settled;
};
int ledger_start_run(const struct ledger *, const struct ledger_start *, int64_t *ret_id);

/* Occurrences that are not made up for: records them and moves settled_through from `settled` to `through`. */
int ledger_skip(const struct ledger *, int job, usec_t settled, usec_t from, usec_t through, int64_t occurrences,
                const char *reason);

/* Takes the run up: a new attempt, which fences every earlier one out. */
int ledger_take_up(const struct ledger *, int64_t run, int attempt, int *ret_attempt);

struct ledger_lane {
    int lane;
    char *from, *to, *cursor;
    int64_t rows_done, rows_skipped;
};
void ledger_lane_free(struct ledger_lane *);
int ledger_lanes(const struct ledger *, int64_t run, struct ledger_lane **ret, size_t *ret_count);

/* The frozen parameters, flattened: rows of (path, element number or NULL, text), ordered. */
int ledger_params(const struct ledger *, int64_t run, struct rows **ret);

/*
 * Ends an attempt, or one that could not be begun (then `attempt` is the last one): `state` is "interrupted" or "failed". It
 * says how an unfinished run is, no more: lanes and their gate stay as they are, and the next attempt takes it up.
 */
int ledger_stop_run(const struct ledger *, int64_t run, int attempt, const char *state, const char *error);

/* All lanes are at their ends: done, or partial when there are leftovers. Sets *ret to what it is now. */
int ledger_finish_run(const struct ledger *, int64_t run, int attempt, struct ledger_run *ret);

int ledger_reported(const struct ledger *, int64_t run);
/* Gives up a run that was taken up for it, or a partial one, whose attempt this raises, so that no retry is in its way. */
int ledger_abandon(const struct ledger *, int64_t run, int attempt, const char *reason);

/* Deletes what is finished for longer than `keep`, and remembers of which times. */
int ledger_prune(const struct ledger *, int job, usec_t keep);

/* ---- Leftovers ---- */

struct ledger_leftover {
    int64_t run;
    int lane;
    char *key, *reason, *error, *sqlstate;
    int attempts;
    int run_attempt;
};
void ledger_leftovers_free(struct ledger_leftover *, size_t count);

/*
 * At most `most` leftovers: of the run, in the order of their keys' length and text, after `after` (NULL: from the first);
 * or (run 0) of all partial runs of the job, those whose next attempt is due, the longest due first.
 */
int ledger_leftovers(const struct ledger *, int job, int64_t run, const char *after, int most,
                     struct ledger_leftover **ret, size_t *ret_count);

/* One more attempt failed: the next one after `delay`, doubled for each attempt, at most LEDGER_MOST_DELAY. */
#define LEDGER_MOST_DELAY (5 * USEC_PER_MINUTE)
int ledger_put_off(const struct ledger *, const struct ledger_leftover *, const char *reason, const char *sqlstate,
                   const char *error, usec_t delay);

/* When the job's next leftover is due; MOMENT_NONE: there are none. */
int ledger_next_attempt(const struct ledger *, int job, usec_t *ret);

/* ---- Halves of an engine's statements ---- */

/*
 * The gate: a CTE "rm_gate" that locks the lane's row while its cursor is $4 and its attempt $3. Parameters: $1 run, $2
 * lane, $3 attempt, $4 cursor (text, NULL at the beginning). All CTEs of ours begin with rm_, so that none hides a table
 * that a job's `where` reads.
 */
void ledger_add_gate(struct buf *, const char *schema);

/*
 * The move, as the statement's main part after the CTEs: the cursor becomes $5, and the counts grow by the two SQL
 * expressions. Returns one row (done, skipped, bytes of WAL that the
 * server wrote meanwhile) or none when the gate was shut.
 */
void ledger_add_move(struct buf *, const char *schema, const char *done, const char *skipped);

/*
 * Parts a lane: it ends at $6 now, and lane number $7 begins there and has the rest. Parameters: $1 run, $2 lane, $3 attempt,
 * $4 cursor (text), $5 the lane's end. Returns a row, or none when one of these was not so. It holds the run's row, so that
 * whoever takes the run up meanwhile waits, and sees the new lane.
 */
void ledger_add_part(struct buf *, const char *schema);

/* "INSERT INTO leftover (…) ", to be followed by a SELECT of (run, key, lane, reason, error, sqlstate, next_attempt). */
void ledger_add_leave(struct buf *, const char *schema);

#endif
