/* SPDX-License-Identifier: PostgreSQL */
/*
 * db: a PostgreSQL session. The only file that knows libpq.
 *
 * Connecting pins what a run depends on (search_path, DateStyle, TimeZone, isolation, row_security, timeouts), so no
 * caller can forget it. A session is either asked one statement at a time (db_query), or driven as a pipeline of
 * transactions (db_send … db_end … db_receive) by a poll loop. After an error of the connection itself the session is
 * dead: every call returns -EIO until it is closed. Nothing here logs.
 */
#ifndef RM_DB_H
#define RM_DB_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem.h"
#include "moment.h"

struct db;   /* a session */
struct rows; /* the rows of one result */

struct db_options {
    const char *conninfo;    /* any libpq conninfo or URI */
    const char *purpose;     /* application_name becomes "roundsman PURPOSE" unless the conninfo has one */
    const char *search_path; /* quoted schemas after pg_catalog, "" for none; see sql_quote() */
    usec_t lock_timeout;     /* 0: none */
    usec_t statement_timeout; /* 0: none */
    bool asynchronous_commit; /* synchronous_commit = off: for one-order transactions only */
    bool key_order;           /* pin the plan shapes that lock rows in key order, and generic plans */
    bool nested_loops;        /* look a handful of rows up by index, whatever the tables' statistics say */
    const volatile sig_atomic_t *stop; /* when it becomes true, connecting gives up (-ECANCELED); may be NULL */
};

/* Whether libpq understands it. Returns 0, or -EINVAL with *ret_error one line (the caller frees it). Connects to nothing. */
int db_verify_conninfo(const char *conninfo, char **ret_error);

/*
 * Connects and pins. Returns 0 and sets *ret; -EIO (no server, refused, …) or -ECANCELED with *ret_error one line (the
 * caller frees it).
 */
int db_connect(const struct db_options *, struct db **ret, char **ret_error);
void db_close(struct db *); /* NULL is fine */

/* The same, and waits until the server's process has ended, too, or so long at most. */
void db_close_and_wait(struct db *, usec_t patience);

int db_server_version(const struct db *); /* 150004 */

int db_process(const struct db *); /* the number of the server's process */

/* Whether a pooler answers in the server's place: it reported another process than the one that runs our statements. */
int db_behind_pooler(struct db *, bool *ret);

/* What the last call that returned -EBADMSG or -EIO met. Owned by the session, valid until its next call. */
struct db_error {
    char sqlstate[6];    /* "" when the connection was lost */
    const char *message; /* one line: the primary message, then its detail where there is one */
    bool inside;         /* it came from inside of something that the statement set off: a function, a trigger */
};
const struct db_error *db_error(const struct db *);

/*
 * One statement, its own transaction. `values` are `count` text parameters ($1 …), NULL elements are SQL NULL. Returns
 * 0 and sets *ret (ret may be NULL when no rows are wanted), -EBADMSG (the server refused it: db_error()), or -EIO (the
 * connection is gone, and whether the statement was committed is unknown). Not in the middle of a pipeline.
 */
int db_query(struct db *, const char *sql, size_t count, const char *const *values, struct rows **ret);

/*
 * The same without waiting: db_query_send() asks (0 or -EIO), and db_query_take() gives 1 and sets *ret, 0 (no answer yet),
 * -EBADMSG, -EIO, or -ENODATA: there is no answer to come, as the session was asked something else in between.
 */
int db_query_send(struct db *, const char *sql, size_t count, const char *const *values);
int db_query_take(struct db *, struct rows **ret);

/* A script of several statements without parameters (BEGIN … COMMIT inside as one likes). Returns as db_query(). */
int db_script(struct db *, const char *sql);

/*
 * Several statements as one transaction, sent whole with its end, so that no pause of ours can leave it open. Results of
 * all of them are collected: rets[i] is set for each (NULL where none is wanted: rets may be NULL). Returns as
 * db_query(); on -EBADMSG nothing was committed and no rets[i] is set.
 */
struct db_statement {
    const char *sql;
    size_t count;
    const char *const *values;
};
int db_transaction(struct db *, const struct db_statement *statements, size_t count, struct rows **rets);

/* Rows. Row and column numbers are from 0 and must exist. */
int rows_count(const struct rows *);
const char *rows_text(const struct rows *, int row, int column); /* NULL for SQL NULL; owned by the rows */
int64_t rows_integer(const struct rows *, int row, int column);  /* a bigint's text; SQL NULL is 0 */
bool rows_boolean(const struct rows *, int row, int column);     /* SQL NULL is false */
void rows_free(struct rows *);                                   /* NULL is fine */
void rows_free_pointer(struct rows **);
#define AUTO_ROWS __attribute__((cleanup(rows_free_pointer))) struct rows *

/* ---- A pipeline, for the poll loop of the lanes ---- */

/* Prepares `sql` under `name`, synchronously. Returns as db_query(). Before db_pipeline(). */
int db_prepare(struct db *, const char *name, const char *sql);

/* From here on only the calls below are allowed, until db_close(). Returns 0 or -EIO. */
int db_pipeline(struct db *);

/* Queues an execution of a prepared statement; `tag` comes back with its answer. Returns 0 or -EIO. */
int db_send(struct db *, const char *name, size_t count, const char *const *values, int tag);

/* Asks for the answers to what was queued before its transaction ends, so that the time of its commit can be told. */
int db_ask(struct db *);

/*
 * Ends the transaction of what was queued since the last db_end(). What is queued is sent by db_push(), or here before it
 * comes near 8 kB, where libpq would send a part by itself: a process stopped then would leave a transaction open.
 */
int db_end(struct db *, int tag);

/*
 * Several transactions in a group, each with a commit of its own: db_begin(), db_send() …, db_commit(). They are sent together,
 * and the server answers them together, at db_push() or before they come near 8 kB: a third less work for both sides than a
 * db_end() each. When one fails, those behind it that are in flight are undone as well (they were not executed, or rolled
 * back): send them again.
 */
int db_begin(struct db *);
int db_commit(struct db *, int tag);

/* Hands what is queued to the kernel, as far as it goes. Returns 0 or -EIO. */
int db_push(struct db *);

enum answer_kind {
    ANSWER_ROWS,    /* `rows` is the caller's */
    ANSWER_ERROR,   /* the statement (or, with db_end()'s tag, the commit) failed: db_error(); all of it is rolled back */
    ANSWER_SKIPPED, /* not executed, because an earlier statement of its transaction (or group) failed */
    ANSWER_END,     /* the transaction ended: one for each db_end() and db_commit(), with its tag, */
    ANSWER_UNDONE,  /* or this for a db_commit(): nothing of the transaction is done */
};
struct answer {
    enum answer_kind kind;
    int tag;
    struct rows *rows;
};

/* Takes the next answer without waiting. Returns 1 and sets *ret, 0 (none yet), or -EIO. */
int db_receive(struct db *, struct answer *ret);

int db_fd(const struct db *);
short db_events(const struct db *); /* what poll() should wait for: POLLIN, and POLLOUT while output is stuck */
int db_ready(struct db *, short revents); /* reads and writes what can be; 0 or -EIO. Call it after poll(). */

#endif
