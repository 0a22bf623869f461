/* SPDX-License-Identifier: PostgreSQL */
/*
 * report_judge: what --status says of each job, out of the ledger's rows and the schedules.
 *
 * What is owed are the occurrences after `settled_through`, by the same function that arms the daemon's timers. Nothing
 * here asks the database, reads a clock or prints.
 */
#ifndef RM_REPORT_JUDGE_H
#define RM_REPORT_JUDGE_H

#include "configuration.h"
#include "report_ledger.h"

/* The exit statuses of a Nagios plugin. */
enum level { LEVEL_OK, LEVEL_WARNING, LEVEL_CRITICAL };

/* What a row holds after the columns of a run (enum fact), which are NULL where a job has no run. */
enum judged {
    JUDGED_RUN = FACTS, /* the run as a JSON object */
    JUDGED_JOB,
    JUDGED_KIND,
    JUDGED_SCHEDULE,
    JUDGED_TIMEZONE,
    JUDGED_ENABLED,
    JUDGED_SETTLED_THROUGH, /* microseconds since the epoch */
    JUDGED_LEFTOVERS,       /* of all of the job's partial runs */
    JUDGED_LEFTOVER_RUNS,
    JUDGED_LEFTOVER_OLDEST, /* the number of the first of them */
};

/*
 * The question for these rows: each job of the ledger with its last run and its unfinished ones, newest first. Of
 * partial runs, which hold up nothing and may be many, only the last one is among them. The caller frees it.
 */
char *judge_question(void);

struct complaint {
    enum level level;
    char *text;
};

struct view {
    const char *name;      /* the configuration's or the rows' */
    const struct job *job; /* NULL: no longer configured */
    int first, count;      /* its rows; count is 0 when no daemon has seen it yet */
    bool running;          /* a process is at work on it */
    usec_t next, owed;     /* the next occurrence; the first one that is owed; MOMENT_NONE: none */
    enum level level;      /* the worst of its complaints */
    struct complaint *complaints;
    size_t complaint_count;
};

/*
 * Judges the jobs of the file, in its order, then those that only the ledger has and that are not finished with. `now`
 * is the earlier one of the host's clock and the server's, because no occurrence is settled before both have reached
 * it. Returns an array of *ret_count views for views_free().
 */
struct view *judge(const struct configuration *, const struct rows *, usec_t now, size_t *ret_count);
void views_free(struct view *, size_t count);

#endif
