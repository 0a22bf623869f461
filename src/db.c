/* SPDX-License-Identifier: PostgreSQL */
#include "db.h"

#include <ctype.h>
#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGE_BYTES 64 /* of Bind, Describe, Execute and Sync, beside the values */
#define PUSH_BYTES 4096
#define QUERY_CANCELED "57014" /* by statement_timeout, mostly */

struct db {
    PGconn *conn;
    struct db_error error;
    char *error_text;
    bool dead;
    bool dismissed; /* the server said why it closes the connection: that is the error */
    /* Pipeline: what was queued and is not yet answered, in order. */
    struct queued {
        int tag;
        enum entry {
            STATEMENT,
            END,      /* a Sync that ends the transaction before it */
            BEGIN,    /* of one of a group of transactions, */
            MEMBER,   /* a statement of it, */
            COMMIT,   /* its end, */
            UNDONE,   /* the same when it failed, and the error was handed out */
            SYNC,     /* after a group */
            ROLLBACK, /* after one that failed */
        } entry;
    } *queue;
    size_t first, count, room;
    bool output_stuck;
    bool in_group;       /* a group is queued whose Sync is not */
    bool in_transaction; /* of a group */
    bool broken;         /* one failed, and the ROLLBACK after it is not answered yet */
    size_t unsent; /* bytes queued since the last push, roughly */
};

struct rows {
    PGresult *result;
};

/* ---- Errors ---- */

/* Makes one line of it: without "ERROR:  ", and without libpq's hints, which stand on lines that begin with a tab. */
static char *one_line(const char *text)
{
    struct buf line = {0};

    while (*text != '\0') {
        size_t length = strcspn(text, "\n");

        if (*text != '\t' && length > 0) {
            if (line.length > 0)
                buf_add(&line, "; ");
            for (size_t i = 0; i < length; i++) {
                if (strncmp(text + i, "ERROR:  ", 8) == 0 || strncmp(text + i, "FATAL:  ", 8) == 0)
                    i += 8;
                buf_add_bytes(&line, text[i] == '\t' ? " " : text + i, i < length);
            }
        }
        text += length + (text[length] == '\n');
    }
    return line.length > 0 ? buf_take(&line) : mem_copy("");
}

static void set_error(struct db *db, const char *sqlstate, char *text)
{
    free(db->error_text);
    db->error_text = text;
    db->error.message = text;
    db->error.inside = false;
    memset(db->error.sqlstate, 0, sizeof(db->error.sqlstate));
    if (sqlstate != NULL)
        strncpy(db->error.sqlstate, sqlstate, sizeof(db->error.sqlstate) - 1);
}

static int connection_lost(struct db *db)
{
    if (!db->dead && !db->dismissed)
        set_error(db, NULL, one_line(PQerrorMessage(db->conn)));
    db->dead = true;
    return -EIO;
}

/* Keeps what the server said of a failed statement. */
static void keep_error(struct db *db, const PGresult *result)
{
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    AUTO_TEXT both = NULL;

    if (primary == NULL)
        primary = PQresultErrorMessage(result);
    both = detail != NULL ? mem_print("%s (%s)", primary, detail) : mem_copy(primary);
    set_error(db, PQresultErrorField(result, PG_DIAG_SQLSTATE), one_line(both));
    db->error.inside = PQresultErrorField(result, PG_DIAG_CONTEXT) != NULL;
    db->dismissed = severity != NULL && strcmp(severity, "FATAL") == 0;
}

static int refused(struct db *db, const PGresult *result)
{
    keep_error(db, result);
    if (PQstatus(db->conn) != CONNECTION_BAD)
        return -EBADMSG;
    db->dead = true; /* the server said why it closed the connection: keep that */
    return -EIO;
}

const struct db_error *db_error(const struct db *db)
{
    return &db->error;
}

/* ---- Connecting ---- */

static void ignore_notice(void *argument, const char *message)
{
    (void)argument;
    (void)message;
}

static char *timeouts(const struct db_options *options)
{
    return mem_print("SET lock_timeout = '%lldms'; SET statement_timeout = '%lldms'",
                     (long long)(options->lock_timeout / USEC_PER_MSEC),
                     (long long)(options->statement_timeout / USEC_PER_MSEC));
}

/* Pins what a run depends on (design: a database or role may default to anything). */
static char *pins(const struct db_options *options, int server_version)
{
    struct buf sql = {0};

    buf_print(&sql, "SET search_path = pg_catalog%s%s, pg_temp;", options->search_path[0] != '\0' ? ", " : "",
              options->search_path);
    buf_add(&sql, "SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres';"
                  "SET bytea_output = 'hex'; SET extra_float_digits = 1; SET client_min_messages = warning;"
                  "SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off;"
                  "SET default_transaction_deferrable = off; SET row_security = off;"
                  "SET idle_in_transaction_session_timeout = '10s'; SET client_connection_check_interval = '5s';"
                  "SET idle_session_timeout = 0;" /* the job's lock lives on a session that idles while the lanes work */
                  "SET jit = off;"); /* it takes a guess at the ledger's rows for dear, and compiles for longer than they take */
    if (options->asynchronous_commit)
        buf_add(&sql, "SET synchronous_commit = off;");
    else /* a run that is said to be done stays done, whatever the database defaults to */
        buf_add(&sql, "SELECT set_config('synchronous_commit', 'on', false)"
                      " WHERE current_setting('synchronous_commit') = 'off';");
    if (options->key_order)
        buf_add(&sql, "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_indexscan = on; SET max_parallel_workers_per_gather = 0;"
                      "SET plan_cache_mode = force_generic_plan;");
    if (options->nested_loops)
        buf_add(&sql, "SET enable_hashjoin = off; SET enable_mergejoin = off;");
    if (server_version >= 170000)
        buf_print(&sql, "SET transaction_timeout = '%lldms';", (long long)(2 * options->statement_timeout / USEC_PER_MSEC));
    return buf_take(&sql);
}

/*
 * The timeouts come first and alone: the timer of a message is set by what was in force before it. A default of a few
 * milliseconds may strike even these.
 */
static int set_up(struct db *db, const struct db_options *options)
{
    AUTO_TEXT first = timeouts(options);
    AUTO_TEXT rest = pins(options, PQserverVersion(db->conn));
    int r = -EBADMSG;

    for (int tries = 0; tries < 10 && r == -EBADMSG; tries++) {
        r = db_script(db, first);
        if (r == 0)
            r = db_script(db, rest);
        if (r == -EBADMSG && strcmp(db->error.sqlstate, QUERY_CANCELED) != 0)
            break;
    }
    return r;
}

/* A keyword's value in what the user wrote, or NULL. */
static const char *given(const PQconninfoOption *options, const char *keyword)
{
    for (; options->keyword != NULL; options++)
        if (strcmp(options->keyword, keyword) == 0)
            return options->val;
    return NULL;
}

static int parse(const char *conninfo, PQconninfoOption **ret, char **ret_error)
{
    char *error = NULL;
    AUTO_TEXT why = NULL;

    *ret = PQconninfoParse(conninfo, &error);
    if (*ret != NULL)
        return 0;
    why = one_line(error != NULL ? error : "out of memory");
    PQfreemem(error);
    return mem_fail(-EINVAL, ret_error, "%s", why);
}

int db_verify_conninfo(const char *conninfo, char **ret_error)
{
    PQconninfoOption *options;
    int r = parse(conninfo, &options, ret_error);

    PQconninfoFree(options);
    return r;
}

/*
 * Defaults for what the user did not write. Death of the server's host must be noticed, since the job's lock lives on a
 * connection; among several hosts only the one that takes writes is of use.
 */
static int open_connection(const struct db_options *options, PGconn **ret, char **ret_error)
{
    PQconninfoOption *user = NULL;
    int r = parse(options->conninfo, &user, ret_error);
    AUTO_TEXT name = mem_print("roundsman%s%s", options->purpose[0] != '\0' ? " " : "", options->purpose);
    /* Later keywords win over what conninfo says: the file is UTF-8, and so are the keys and messages that come back. */
    const char *keywords[12] = {"dbname", "fallback_application_name", "client_encoding"};
    const char *values[12] = {options->conninfo, name, "UTF8"};
    size_t count = 3;
    const char *hosts;
    const struct {
        const char *keyword, *value;
    } defaults[] = {
        {"connect_timeout", "10"},  {"keepalives_idle", "10"},   {"keepalives_interval", "5"},
        {"keepalives_count", "3"},  {"tcp_user_timeout", "20000"},
    };

    if (r < 0)
        return r;
    for (size_t i = 0; i < ELEMENTS(defaults); i++)
        if (given(user, defaults[i].keyword) == NULL) {
            keywords[count] = defaults[i].keyword;
            values[count++] = defaults[i].value;
        }
    hosts = given(user, "host") != NULL ? given(user, "host") : given(user, "hostaddr");
    if (hosts != NULL && strchr(hosts, ',') != NULL && given(user, "target_session_attrs") == NULL) {
        keywords[count] = "target_session_attrs";
        values[count++] = "read-write";
    }
    PQconninfoFree(user);
    *ret = PQconnectdbParams(keywords, values, 1);
    return 0;
}

int db_connect(const struct db_options *options, struct db **ret, char **ret_error)
{
    struct db *db;
    PGconn *conn;
    int r;

    if (options->stop != NULL && *options->stop)
        return mem_fail(-ECANCELED, ret_error, "asked to stop before the connection was made");
    r = open_connection(options, &conn, ret_error);
    if (r < 0)
        return r;
    db = mem_alloc(sizeof(*db));
    db->conn = conn;
    if (conn == NULL || PQstatus(conn) != CONNECTION_OK) {
        AUTO_TEXT why = one_line(conn != NULL ? PQerrorMessage(conn) : "out of memory");

        db_close(db);
        return mem_fail(-EIO, ret_error, "no connection to the database: %s", why);
    }
    PQsetNoticeProcessor(conn, ignore_notice, NULL);
    if (PQserverVersion(conn) < 140000) {
        r = mem_fail(-EIO, ret_error, "the server is PostgreSQL %d, and roundsman needs 14 or later",
                     PQserverVersion(conn) / 10000);
        db_close(db);
        return r;
    }
    if (set_up(db, options) < 0) {
        r = mem_fail(-EIO, ret_error, "the new session could not be set up: %s", db->error.message);
        db_close(db);
        return r;
    }
    *ret = db;
    return 0;
}

void db_close(struct db *db)
{
    if (db == NULL)
        return;
    PQfinish(db->conn);
    free(db->error_text);
    free(db->queue);
    free(db);
}

/*
 * libpq closes its socket at once, but a second descriptor of it sees when the other side is closed as well: by the kernel, when
 * the process has given its memory back.
 */
void db_close_and_wait(struct db *db, usec_t patience)
{
    int fd = db != NULL && !db->dead ? dup(PQsocket(db->conn)) : -1;
    usec_t end = moment_monotonic() + patience, now;
    char rest[256];

    db_close(db);
    if (fd < 0)
        return;
    while ((now = moment_monotonic()) < end) {
        struct pollfd closed = {.fd = fd, .events = POLLIN};

        if (poll(&closed, 1, (int)((end - now) / USEC_PER_MSEC) + 1) != 1 || recv(fd, rest, sizeof(rest), MSG_DONTWAIT) <= 0)
            break;
    }
    close(fd);
}

int db_server_version(const struct db *db)
{
    return PQserverVersion(db->conn);
}

int db_process(const struct db *db)
{
    return PQbackendPID(db->conn);
}

int db_behind_pooler(struct db *db, bool *ret)
{
    AUTO_ROWS rows = NULL;
    int r = db_query(db, "SELECT pg_backend_pid()", 0, NULL, &rows);

    if (r < 0)
        return r;
    *ret = rows_integer(rows, 0, 0) != PQbackendPID(db->conn);
    return 0;
}

/* ---- One statement at a time ---- */

static bool succeeded(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);

    return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY;
}

static struct rows *wrap(PGresult *result)
{
    struct rows *rows = mem_alloc(sizeof(*rows));

    rows->result = result;
    return rows;
}

/* Takes over `result`. */
static int finish(struct db *db, PGresult *result, struct rows **ret)
{
    int r = 0;

    if (result == NULL)
        return connection_lost(db);
    if (!succeeded(result))
        r = refused(db, result);
    else if (ret != NULL) {
        *ret = wrap(result);
        return 0;
    }
    PQclear(result);
    return r;
}

int db_query(struct db *db, const char *sql, size_t count, const char *const *values, struct rows **ret)
{
    if (db->dead)
        return -EIO;
    return finish(db, PQexecParams(db->conn, sql, (int)count, NULL, values, NULL, NULL, 0), ret);
}

int db_query_send(struct db *db, const char *sql, size_t count, const char *const *values)
{
    if (db->dead)
        return -EIO;
    return PQsendQueryParams(db->conn, sql, (int)count, NULL, values, NULL, NULL, 0) == 1 ? 0 : connection_lost(db);
}

int db_query_take(struct db *db, struct rows **ret)
{
    PGresult *result;
    int r;

    if (db->dead)
        return -EIO;
    if (PQconsumeInput(db->conn) != 1)
        return connection_lost(db);
    if (PQisBusy(db->conn))
        return 0;
    result = PQgetResult(db->conn);
    if (result == NULL)
        return -ENODATA;
    r = finish(db, result, ret);
    while (r != -EIO && (result = PQgetResult(db->conn)) != NULL) /* its end comes along with it */
        PQclear(result);
    return r == 0 ? 1 : r;
}

int db_script(struct db *db, const char *sql)
{
    if (db->dead)
        return -EIO;
    return finish(db, PQexec(db->conn, sql), NULL);
}

int db_prepare(struct db *db, const char *name, const char *sql)
{
    if (db->dead)
        return -EIO;
    return finish(db, PQprepare(db->conn, name, sql, 0, NULL), NULL);
}

/* Collects the results of a transaction that was sent whole, up to its end. */
static int collect(struct db *db, size_t count, struct rows **rets)
{
    int failure = 0;

    for (size_t i = 0; i < count; i++) {
        PGresult *result = PQgetResult(db->conn);

        if (result == NULL)
            return connection_lost(db);
        if (succeeded(result) && rets != NULL) {
            rets[i] = wrap(result);
            result = NULL;
        } else if (!succeeded(result) && failure == 0) {
            failure = refused(db, result);
        }
        PQclear(result);
        if (failure == -EIO)
            return failure;
        while ((result = PQgetResult(db->conn)) != NULL)
            PQclear(result);
    }
    for (;;) {
        PGresult *result = PQgetResult(db->conn);
        ExecStatusType status;

        if (result == NULL && PQstatus(db->conn) == CONNECTION_BAD)
            return connection_lost(db);
        if (result == NULL) /* between two results */
            continue;
        status = PQresultStatus(result);
        if (status == PGRES_FATAL_ERROR) /* a commit that failed: deferred constraints, 40001 */
            failure = refused(db, result);
        PQclear(result);
        if (failure == -EIO)
            return failure;
        if (status == PGRES_PIPELINE_SYNC)
            return failure;
    }
}

int db_transaction(struct db *db, const struct db_statement *statements, size_t count, struct rows **rets)
{
    int r = 0;

    if (rets != NULL)
        memset(rets, 0, count * sizeof(*rets));
    if (db->dead)
        return -EIO;
    if (PQenterPipelineMode(db->conn) != 1)
        return connection_lost(db);
    for (size_t i = 0; i < count && r == 0; i++)
        if (PQsendQueryParams(db->conn, statements[i].sql, (int)statements[i].count, NULL, statements[i].values, NULL, NULL,
                              0) != 1)
            r = connection_lost(db);
    if (r == 0 && PQpipelineSync(db->conn) != 1)
        r = connection_lost(db);
    if (r == 0)
        r = collect(db, count, rets);
    if (r != -EIO && PQexitPipelineMode(db->conn) != 1)
        r = connection_lost(db);
    if (r < 0 && rets != NULL)
        for (size_t i = 0; i < count; i++)
            rows_free_pointer(&rets[i]);
    return r;
}

/* ---- Rows ---- */

int rows_count(const struct rows *rows)
{
    return PQntuples(rows->result);
}

const char *rows_text(const struct rows *rows, int row, int column)
{
    return PQgetisnull(rows->result, row, column) ? NULL : PQgetvalue(rows->result, row, column);
}

int64_t rows_integer(const struct rows *rows, int row, int column)
{
    const char *text = rows_text(rows, row, column);

    return text == NULL ? 0 : strtoll(text, NULL, 10);
}

bool rows_boolean(const struct rows *rows, int row, int column)
{
    const char *text = rows_text(rows, row, column);

    return text != NULL && text[0] == 't';
}

void rows_free(struct rows *rows)
{
    if (rows == NULL)
        return;
    PQclear(rows->result);
    free(rows);
}

void rows_free_pointer(struct rows **rows)
{
    rows_free(*rows);
    *rows = NULL;
}

/* ---- The pipeline ---- */

int db_pipeline(struct db *db)
{
    static const char *const words[] = {"BEGIN", "COMMIT", "ROLLBACK"};
    int r = 0;

    for (size_t i = 0; i < ELEMENTS(words) && r == 0; i++)
        r = db_prepare(db, words[i], words[i]);
    if (r < 0)
        return r;
    if (PQsetnonblocking(db->conn, 1) != 0 || PQenterPipelineMode(db->conn) != 1)
        return connection_lost(db);
    return 0;
}

static void push(struct db *db, int tag, enum entry entry)
{
    if (db->first > 0 && db->first + db->count == db->room) {
        memmove(db->queue, db->queue + db->first, db->count * sizeof(*db->queue));
        db->first = 0;
    }
    if (db->count == db->room) {
        db->room = db->room == 0 ? 64 : db->room * 2;
        db->queue = mem_resize(db->queue, db->room, sizeof(*db->queue));
    }
    db->queue[db->first + db->count++] = (struct queued){tag, entry};
}

static void pop(struct db *db)
{
    db->first++;
    if (--db->count == 0)
        db->first = 0;
}

static int queue_statement(struct db *db, const char *name, size_t count, const char *const *values, int tag, enum entry entry)
{
    if (db->dead)
        return -EIO;
    if (PQsendQueryPrepared(db->conn, name, (int)count, values, NULL, NULL, 0) != 1)
        return connection_lost(db);
    push(db, tag, entry);
    for (size_t i = 0; i < count; i++)
        db->unsent += 8 + (values[i] != NULL ? strlen(values[i]) : 0);
    db->unsent += MESSAGE_BYTES;
    return 0;
}

static int queue_sync(struct db *db, int tag, enum entry entry)
{
    if (db->dead)
        return -EIO;
    if (PQpipelineSync(db->conn) != 1)
        return connection_lost(db);
    push(db, tag, entry);
    db->in_group = false;
    return 0;
}

int db_send(struct db *db, const char *name, size_t count, const char *const *values, int tag)
{
    if (db->in_transaction)
        return queue_statement(db, name, count, values, tag, MEMBER);
    if (db->in_group && queue_sync(db, 0, SYNC) < 0) /* what failed there must not keep this from being done */
        return -EIO;
    return queue_statement(db, name, count, values, tag, STATEMENT);
}

int db_ask(struct db *db)
{
    if (db->dead)
        return -EIO;
    return PQsendFlushRequest(db->conn) == 1 ? 0 : connection_lost(db);
}

int db_end(struct db *db, int tag)
{
    int r = queue_sync(db, tag, END);

    return r == 0 && db->unsent >= PUSH_BYTES ? db_push(db) : r;
}

int db_begin(struct db *db)
{
    db->in_group = db->in_transaction = true;
    return queue_statement(db, "BEGIN", 0, NULL, 0, BEGIN);
}

int db_commit(struct db *db, int tag)
{
    int r = queue_statement(db, "COMMIT", 0, NULL, tag, COMMIT);

    db->in_transaction = false;
    return r == 0 && db->unsent >= PUSH_BYTES ? db_push(db) : r;
}

int db_push(struct db *db)
{
    int r;

    if (db->in_group && (r = queue_sync(db, 0, SYNC)) < 0)
        return r;
    if (db->dead)
        return -EIO;
    db->unsent = 0;
    r = PQflush(db->conn);
    if (r < 0)
        return connection_lost(db);
    db->output_stuck = r == 1;
    return 0;
}

/*
 * A transaction of a group failed: what follows up to its Sync is skipped, and what is in flight after that finds itself in
 * the failed transaction. Everything that is sent from now on comes after a ROLLBACK.
 */
static int mend(struct db *db)
{
    int r = 0;

    if (db->broken)
        return 0;
    db->broken = true;
    if (db->in_group)
        r = queue_sync(db, 0, SYNC);
    if (r == 0)
        r = queue_statement(db, "ROLLBACK", 0, NULL, 0, ROLLBACK);
    if (r == 0)
        r = queue_sync(db, 0, SYNC);
    return r < 0 ? r : db_push(db);
}

/* What one result says of an entry of the queue. */
static enum answer_kind kind_of(enum entry entry, const PGresult *result)
{
    switch (PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
        return ANSWER_END;
    case PGRES_PIPELINE_ABORTED:
        return entry == COMMIT ? ANSWER_UNDONE : ANSWER_SKIPPED;
    default:
        return !succeeded(result) ? ANSWER_ERROR : entry == COMMIT ? ANSWER_END : ANSWER_ROWS;
    }
}

/* Takes the result as the answer to the head of the queue. Returns 1, 0 (it was about a group as such) or -EIO. */
static int understand(struct db *db, PGresult *result, struct answer *ret)
{
    struct queued *head = &db->queue[db->first];
    enum entry entry = head->entry;

    *ret = (struct answer){.tag = head->tag, .kind = kind_of(entry, result)};
    if (ret->kind == ANSWER_ERROR)
        keep_error(db, result);
    if (ret->kind == ANSWER_ERROR && entry == COMMIT)
        head->entry = UNDONE;
    else if (ret->kind != ANSWER_ERROR || entry != END) /* else the commit itself failed, and the end is still to come */
        pop(db);
    if (entry == ROLLBACK && ret->kind == ANSWER_ROWS)
        db->broken = false;
    if (ret->kind == ANSWER_ROWS && (entry == STATEMENT || entry == MEMBER))
        ret->rows = wrap(result);
    else
        PQclear(result);
    if (ret->kind == ANSWER_ERROR && (entry == BEGIN || entry == MEMBER || entry == COMMIT) && mend(db) < 0)
        return -EIO;
    return entry != BEGIN && entry != SYNC && entry != ROLLBACK;
}

int db_receive(struct db *db, struct answer *ret)
{
    if (db->dead)
        return -EIO;
    /* libpq returns NULL once between two statements; twice in a row says that there is nothing more to take now. */
    for (int nulls = 0; nulls < 2 && db->count > 0 && !PQisBusy(db->conn); nulls++) {
        PGresult *result;

        if (db->queue[db->first].entry == UNDONE) {
            *ret = (struct answer){.kind = ANSWER_UNDONE, .tag = db->queue[db->first].tag};
            pop(db);
            return 1;
        }
        result = PQgetResult(db->conn);
        if (result != NULL) {
            int r = understand(db, result, ret);

            if (r != 0)
                return r;
            nulls = -1;
        }
    }
    return PQstatus(db->conn) == CONNECTION_BAD ? connection_lost(db) : 0;
}

int db_fd(const struct db *db)
{
    return PQsocket(db->conn);
}

short db_events(const struct db *db)
{
    return (short)(POLLIN | (db->output_stuck ? POLLOUT : 0));
}

int db_ready(struct db *db, short revents)
{
    if (db->dead)
        return -EIO;
    if ((revents & (POLLIN | POLLHUP | POLLERR)) != 0 && PQconsumeInput(db->conn) != 1)
        return connection_lost(db);
    if (db->output_stuck)
        return db_push(db);
    return 0;
}
