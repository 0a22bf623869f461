/* SPDX-License-Identifier: PostgreSQL */
/* job: a configured job: the settings that every job has, and what --set overrides of them for one extra run. */
#ifndef RM_JOB_H
#define RM_JOB_H

#include <stdbool.h>

#include "governor.h"
#include "moment.h"
#include "schedule.h"
#include "setting.h"
#include "task.h"

enum catch_up { CATCH_UP_LATEST, CATCH_UP_ALL, CATCH_UP_NONE };

struct job {
    char *name;
    const struct task_kind *kind;
    int line; /* where its group begins, for messages */
    bool enabled;
    char *schedule_text; /* as written in the file */
    char *timezone;      /* as written, with defaults applied; "" is the host's */
    struct schedule *schedule;
    enum catch_up catch_up;
    usec_t catch_up_max_age, jitter, max_runtime, retry_delay, batch_time, lock_timeout;
    enum pace pace;
    usec_t finish_within; /* 0: as soon as the pace lets it */
    int lanes;
    int batch_max;
    char *where;              /* NULL: all rows; only kinds with a `where` may have it */
    struct settings settings; /* the kind's own, complete */
};

/* The settings of every job: a job's own, and from job_default_specs on those that `defaults` may give for all. */
extern const struct setting_spec job_specs[];
extern const struct setting_spec *const job_default_specs;

/* Fills all but kind, line, schedule and settings out of complete values of job_specs. */
void job_fill(struct job *, const struct settings *values);
void job_clear(struct job *); /* frees what it owns */

/* What --set overrides. All zero is empty. */
struct overrides {
    struct settings kind; /* the kind's own */
    struct settings run;  /* how a run goes: lanes, batch_time, … */
    char *where;          /* NULL: the job's */
};
void overrides_clear(struct overrides *);

/*
 * Adds NAME=VALUE to the overrides. Returns 0, or a negative errno with *ret_error one sentence: unknown, no value for it, or
 * no setting of a single run (schedule, enabled, …).
 */
int job_override(struct overrides *, const struct job *, const char *name, const char *value, char **ret_error);

/*
 * The job as overridden, which shares what is not overridden with `job` and is cleared with job_overridden_clear(). Returns
 * 0, or -EINVAL with *ret_error when the settings do not fit each other.
 */
int job_overridden(const struct job *, const struct overrides *, struct job *ret, char **ret_error);
void job_overridden_clear(struct job *);

#endif
