/* SPDX-License-Identifier: PostgreSQL */
/* report_ledger: how --status and --history see the ledger: one set of columns, one way of asking. */
#ifndef RM_REPORT_LEDGER_H
#define RM_REPORT_LEDGER_H

#include "configuration.h"
#include "db.h"

/*
 * A SELECT of these columns from the runs (r) and jobs (j), to be followed by a WHERE. The columns' names are the names
 * of the fields that --json shows, and documented in roundsman(8).
 */
extern const char report_run_facts[];

enum fact {
    FACT_ID,
    FACT_JOB,
    FACT_TRIGGER,
    FACT_DUE,
    FACT_STATE,
    FACT_ATTEMPT,
    FACT_STARTED_AT,
    FACT_FINISHED_AT,
    FACT_TOOK_SECONDS,
    FACT_ROWS_DONE,
    FACT_ROWS_SKIPPED,
    FACT_LEFTOVERS,
    FACT_ATTENDED, /* of a running run: whether a process holds its job's lock */
    FACT_ERROR,
    FACTS
};

/*
 * Connects, asks and disconnects. Returns 0 and sets *ret, and *ret_ahead (which may be NULL) to how far the server's clock is
 * ahead of this host's, as far as that is certain; or -EIO or -EBADMSG with *ret_error a sentence for the operator (the
 * caller frees it).
 */
int report_ask(const struct configuration *, const char *sql, size_t count, const char *const *values,
               usec_t *ret_ahead, struct rows **ret, char **ret_error);

/* How long something took, the text of a numeric of seconds, as duration_tell() has it; NULL gives NULL. The caller frees it. */
char *report_seconds(const char *seconds);

#endif
