/* SPDX-License-Identifier: PostgreSQL */
/*
 * books: a job's session with the ledger: connected, verified, and (when asked) holding the job's lock.
 *
 * Problems are logged here, once, as what the operator has to know.
 */
#ifndef RM_BOOKS_H
#define RM_BOOKS_H

#include "child.h"
#include "configuration.h"
#include "frozen.h"
#include "ledger.h"

#define BOOKS_STATEMENT_TIMEOUT (60 * USEC_PER_SEC) /* of statements on rows of live traffic */
#define BOOKS_LOCK_TIMEOUT (10 * USEC_PER_SEC) /* for rows of the ledger, which nobody holds for longer than a batch */

struct books {
    const struct configuration *configuration;
    const struct job *job; /* NULL: --abandon of a job that is no longer configured */
    struct reporter *reporter;
    bool tool; /* an admin command: outcomes go to standard output; otherwise to the log */
    struct db *db;
    char *schema;      /* of the ledger, quoted */
    char *search_path; /* of the sessions */
    struct ledger ledger;
    struct ledger_job row;
    usec_t behind; /* how far the database's clock is behind the host's (negative: ahead) */
};

/*
 * Connects, and verifies server, ledger and clocks. With `skew_matters`, a skew over max_clock_skew is an error: nothing is
 * settled. Returns 0, or a negative errno (logged).
 */
int books_open(struct books *, bool skew_matters);
void books_close(struct books *);

/*
 * Compares the clocks (again, after a long wait), and sets books->behind. Returns 0, or a negative errno (logged): with
 * `skew_matters` also when they disagree by more than max_clock_skew.
 */
int books_clocks(struct books *, bool skew_matters);

/* The job's row in the ledger: made when there is none; read again. Returns 0 or a negative errno (logged). */
int books_see(struct books *);

/* Tries the job's lock once. Returns 1 (held), 0 (another process has it) or a negative errno (logged). */
int books_lock(struct books *);

/* The zone's name as the ledger has it. The caller frees it. */
char *books_zone(const struct job *);

/* Whether the ledger's kind, schedule, zone and enabled are those of the configuration, and how they differ, for a message. */
bool books_agree(const struct books *);
char *books_difference(const struct books *);

/* The latest instant whose occurrences may be settled now: no clock is past it less than the other. */
usec_t books_now(const struct books *);

/* What the session's last failed statement met; sets *ret_error to it or logs it. Both return `error` (a negative errno). */
int books_fail(const struct books *, int error, char **ret_error, const char *doing);
int books_failed(const struct books *, int error, const char *doing);

/* A run's task, out of its frozen parameters. Returns 0, or a negative errno and *ret_error; the caller frees either. */
int books_task(struct books *, int64_t run, struct task *ret, char **ret_error);

/* How fast a run of the job goes, if it begins now. */
struct governor books_governor(const struct books *);

/* What names a run to the engine's statements, and how fast it goes. */
void books_name_work(struct work *, const struct books *, const struct task *, int64_t run, int attempt);

#endif
