/* SPDX-License-Identifier: PostgreSQL */
/*
 * work: a run in progress, and what an engine does for it. The lanes' poll loop asks the engine for the next statements
 * of a lane and hands the answers back; the engine never waits, never connects and never logs.
 */
#ifndef RM_WORK_H
#define RM_WORK_H

#include "db.h"
#include "governor.h"
#include "ledger.h"
#include "relation.h"
#include "task.h"

/* What a run does: frozen in the ledger when it starts (frozen.h). */
struct task {
    const struct task_kind *kind;
    struct settings settings; /* of the kind, complete */
    struct shop shop;         /* strings are the task's, NULL where the kind does not need them */
    char *where;              /* NULL: all rows */
    char **only;              /* keys, NULL-terminated; NULL: all rows */
    struct key_type key;      /* of the rows that are walked */
    usec_t started;           /* by the database's clock; ages are judged against it */
    int64_t rows;             /* how many there were about then: an estimate, for progress */
};

struct lane;

struct work {
    const struct task *task;
    const char *ledger; /* the ledger's schema, quoted */
    char run[24], job[24], attempt[16]; /* as parameters of statements */
    struct governor governor; /* of all lanes together */
    int batch_max;
    usec_t retry_delay; /* of leftovers, the first one */
    struct lane *lanes;
    size_t lane_count, lane_room; /* more lanes are made when one is parted, up to the room */
    usec_t last_batch_time; /* send to commit */
    char *held;             /* why nothing is sent now; NULL: nothing holds it back */
    enum work_end {
        WORK_GOES_ON,
        WORK_FENCED, /* the ledger says that another process has taken the run up */
        WORK_FAILED, /* error says why */
    } end;
    char *error;
};

/* One key range on one session. */
struct lane {
    struct ledger_lane at; /* range, cursor and counts, as the ledger has them */
    char number[16];
    struct db *db;
    void *state;   /* the engine's */
    bool finished; /* the cursor is at the range's end */
    bool busy;     /* answers are outstanding */
    usec_t rests_until; /* monotonic: nothing is sent before */
    bool waits;         /* as many lanes as may work at a time are before it */
    bool yields;        /* it is to be parted as soon as nothing is in flight */
    bool small;         /* what is left of it is not worth parting */
    enum sharing {      /* an idle lane's part in taking over the rest of lane number `sharing_with` */
        SHARING_NOTHING,
        SHARING_ASKED,  /* for a key in the middle */
        SHARING_TOLD,
        SHARING_PARTING,
        SHARING_PARTED,
    } sharing;
    size_t sharing_with;
    char *middle;        /* NULL: nothing is between */
    int64_t middle_rows; /* about how many rows are left there */
};

enum retried { RETRIED_SETTLED, RETRIED_AGAIN };

#define WORK_PREVIEW_KEYS 5
struct preview {
    int64_t rows;     /* that would change */
    int64_t skipped;  /* that would be looked at and not be changed */
    char *by;         /* "1000000 points" */
    char **keys;      /* the first few, NULL-terminated */
};

struct engine {
    /* Of its lanes' sessions: see db_options. NULL: commits are synchronous. */
    bool (*asynchronous)(const struct task *);
    bool nested_loops;

    /*
     * Splits what there is to do into at most `lanes` key ranges, and sets task->started and task->rows. Synchronous, outside
     * of any run. Returns 0, or as db_query().
     */
    int (*split)(struct db *, struct task *, int lanes, struct ledger_range **ret, size_t *ret_count);

    /* Prepares a lane's statements on its fresh session, and sets lane->state. Returns 0, or as db_query(). */
    int (*prepare)(struct work *, struct lane *);

    /* Queues what the lane should send now, which may be nothing. `stopping`: nothing new, only what ends cleanly. */
    int (*send)(struct work *, struct lane *, bool stopping);

    /* Takes an answer (and its rows). Returns 0, or -EIO; how the work ended otherwise is in work->end. */
    int (*answer)(struct work *, struct lane *, struct answer *);

    void (*release)(struct lane *);

    /*
     * On the session of an idle lane, about another one that has nothing in flight and a cursor: asks for a key in the middle
     * of what is left of it (the answer fills idle->middle and middle_rows), and parts it there in the ledger, the rest being
     * lane number work->lane_count. Both are queued, as by send; idle->sharing tells how far it is. Returns 0 or -EIO. An
     * engine may be without them (NULL).
     */
    int (*find_middle)(struct work *, struct lane *idle, const struct lane *);
    int (*part)(struct work *, struct lane *idle, const struct lane *);

    /* The lane, which has nothing in flight, ends at another key now: forget what was planned beyond it. */
    void (*shorten)(struct lane *);

    /*
     * Tries a leftover once more, with the deletion of its row as the gate. RETRIED_AGAIN: it stays, with db_error() of
     * the session (or a lock that somebody holds: then *ret_locked). Returns enum retried, or -EIO.
     */
    int (*retry)(struct work *, struct db *, const struct ledger_leftover *, bool *ret_locked);

    /* Counts what a run would change, in the READ ONLY transaction that the caller opened. Returns as db_query(). */
    int (*preview)(struct db *, const struct task *, struct preview *ret);
};

/* Ends the work with an error; takes over `error`. Returns 0, for engines to return. */
int work_fail(struct work *, char *error);

/* The same with what a statement met. */
int work_fail_statement(struct work *, const char *message, const char *sqlstate);

/* Lets the lane rest after what it has just done, as the governor says. */
void work_rest(struct work *, struct lane *, usec_t worked, int64_t rows, int64_t bytes);

/* What a failed statement means for the run. */
enum failure {
    FAILURE_LOCKED, /* somebody else's lock: 55P03, 40P01, 40001 */
    FAILURE_ROW,    /* this row's change fails: constraints, data, triggers, a timeout */
    FAILURE_RUN,    /* nothing of this kind can succeed now: no table, no privilege, no disk, shutdown */
    FAILURE_FENCED, /* the ledger refused it */
};
enum failure work_failure(const char *sqlstate);

/*
 * Whether triggers of the application see each row of the table before it is changed: then what they made of it has to be
 * verified. Returns as db_query().
 */
int work_watched(struct db *, const char *table, bool *ret);

void work_touched(struct buf *, const char *column, const char *zone); /* ", column = now()", or nothing for "" */

#endif
