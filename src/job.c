/* SPDX-License-Identifier: PostgreSQL */
#include "job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

#define LONGEST_TIME (36525 * USEC_PER_DAY)

static const char *const catch_up_words[] = {
    [CATCH_UP_LATEST] = "latest", [CATCH_UP_ALL] = "all", [CATCH_UP_NONE] = "none", NULL};

static const char *const pace_words[] = {[PACE_GENTLE] = "gentle", [PACE_NORMAL] = "normal", [PACE_FULL] = "full", NULL};

/* The settings of every job: first a job's own, then those that `defaults` may give for all. */
const struct setting_spec job_specs[] = {
    {.name = "name", .type = SETTING_TEXT, .required = true},
    {.name = "kind", .type = SETTING_TEXT, .required = true},
    {.name = "schedule", .type = SETTING_TEXT, .required = true},
    {.name = "where", .type = SETTING_TEXT},
#define OWN_SPECS 4
    {.name = "enabled", .type = SETTING_BOOLEAN, .fallback = "true"},
    {.name = "timezone", .type = SETTING_TEXT, .fallback = "", .may_be_empty = true},
    {.name = "catch_up", .type = SETTING_TEXT, .fallback = "latest", .words = catch_up_words},
    {.name = "catch_up_max_age",
     .type = SETTING_DURATION,
     .fallback = "7d",
     .least = USEC_PER_SEC,
     .most = LONGEST_TIME},
    {.name = "jitter", .type = SETTING_DURATION, .fallback = "0s", .least = 0, .most = USEC_PER_DAY},
    {.name = "retry_delay",
     .type = SETTING_DURATION,
     .fallback = "1s",
     .least = USEC_PER_SEC,
     .most = 5 * USEC_PER_MINUTE,
     .reason = "it doubles with every attempt, up to 5m"},
    {.name = "max_runtime", .type = SETTING_DURATION, .fallback = "0s", .least = 0, .most = LONGEST_TIME},
    {.name = "lanes", .type = SETTING_INTEGER, .fallback = "2", .least = 1, .most = 64},
    {.name = "batch_time",
     .type = SETTING_DURATION,
     .fallback = "25ms",
     .least = USEC_PER_MSEC,
     .most = 10 * USEC_PER_SEC},
    {.name = "batch_max", .type = SETTING_INTEGER, .fallback = "10000", .least = 1, .most = 1000000},
    {.name = "lock_timeout",
     .type = SETTING_DURATION,
     .fallback = "100ms",
     .least = USEC_PER_MSEC,
     .most = 500 * USEC_PER_MSEC,
     .reason = "it has to stay well below the server's deadlock_timeout (1s), so that live traffic never loses a "
               "deadlock to us"},
    {.name = "pace", .type = SETTING_TEXT, .fallback = "normal", .words = pace_words},
    {.name = "finish_within", .type = SETTING_DURATION, .fallback = "0s", .least = 0, .most = 30 * USEC_PER_DAY},
    {0},
};
const struct setting_spec *const job_default_specs = job_specs + OWN_SPECS;

/* How one run goes, from max_runtime on: what is not frozen with it, and --set can say for this time. */
static const struct setting_spec *run_specs(void)
{
    return setting_spec_find(job_specs, "max_runtime");
}

/* The place of a word that the settings' table allows. */
static int place_of(const char *word, const char *const *words)
{
    int place = 0;

    while (strcmp(words[place], word) != 0)
        place++;
    return place;
}

/* Those that are set. */
static void fill_run(struct job *job, const struct settings *values)
{
    if (setting_find(values, "max_runtime") != NULL)
        job->max_runtime = setting_integer(values, "max_runtime");
    if (setting_find(values, "retry_delay") != NULL)
        job->retry_delay = setting_integer(values, "retry_delay");
    if (setting_find(values, "batch_time") != NULL)
        job->batch_time = setting_integer(values, "batch_time");
    if (setting_find(values, "lock_timeout") != NULL)
        job->lock_timeout = setting_integer(values, "lock_timeout");
    if (setting_find(values, "lanes") != NULL)
        job->lanes = (int)setting_integer(values, "lanes");
    if (setting_find(values, "batch_max") != NULL)
        job->batch_max = (int)setting_integer(values, "batch_max");
    if (setting_find(values, "pace") != NULL)
        job->pace = (enum pace)place_of(setting_text(values, "pace"), pace_words);
    if (setting_find(values, "finish_within") != NULL)
        job->finish_within = setting_integer(values, "finish_within");
}

void job_fill(struct job *job, const struct settings *common)
{
    job->name = mem_copy(setting_text(common, "name"));
    job->enabled = setting_integer(common, "enabled") != 0;
    job->schedule_text = mem_copy(setting_text(common, "schedule"));
    job->timezone = mem_copy(setting_text(common, "timezone"));
    job->catch_up = (enum catch_up)place_of(setting_text(common, "catch_up"), catch_up_words);
    job->catch_up_max_age = setting_integer(common, "catch_up_max_age");
    job->jitter = setting_integer(common, "jitter");
    job->where = mem_copy(setting_text(common, "where"));
    fill_run(job, common);
}

void job_clear(struct job *job)
{
    free(job->name);
    free(job->schedule_text);
    free(job->timezone);
    schedule_free(job->schedule);
    free(job->where);
    settings_free(&job->settings);
    *job = (struct job){0};
}

/* ---- --set ---- */

static int override_where(struct overrides *overrides, const struct job *job, const char *value, char **ret_error)
{
    struct settings given = {0};
    int r;

    if (!job->kind->takes_where)
        return mem_fail(-EINVAL, ret_error, "jobs of kind \"%s\" take no where", job->kind->name);
    r = settings_set(&given, job_specs, "where", value, ret_error);
    if (r == 0)
        mem_replace(&overrides->where, mem_copy(value));
    settings_free(&given);
    return r;
}

int job_override(struct overrides *overrides, const struct job *job, const char *name, const char *value, char **ret_error)
{
    if (strcmp(name, "where") == 0)
        return override_where(overrides, job, value, ret_error);
    if (setting_spec_find(run_specs(), name) != NULL)
        return settings_set(&overrides->run, run_specs(), name, value, ret_error);
    if (setting_spec_find(job_specs, name) != NULL)
        return mem_fail(-EINVAL, ret_error, "%s is no setting of a single run", name);
    return settings_set(&overrides->kind, job->kind->settings, name, value, ret_error);
}

int job_overridden(const struct job *job, const struct overrides *overrides, struct job *ret, char **ret_error)
{
    AUTO_BUF reasons = {0};

    *ret = *job;
    ret->settings = settings_copy(&job->settings);
    for (size_t i = 0; i < overrides->kind.count; i++) {
        AUTO_TEXT value = setting_print(&overrides->kind.list[i]);

        settings_set(&ret->settings, job->kind->settings, overrides->kind.list[i].spec->name, value, NULL);
    }
    fill_run(ret, &overrides->run);
    if (overrides->where != NULL)
        ret->where = overrides->where;
    job->kind->refuse(&ret->settings, &reasons);
    if (reasons.length == 0)
        return 0;
    job_overridden_clear(ret);
    return mem_fail(-EINVAL, ret_error, "%.*s", (int)strcspn(reasons.text, "\n"), reasons.text); /* the first one */
}

void job_overridden_clear(struct job *job)
{
    settings_free(&job->settings);
    *job = (struct job){0};
}

void overrides_clear(struct overrides *overrides)
{
    settings_free(&overrides->kind);
    settings_free(&overrides->run);
    free(overrides->where);
    *overrides = (struct overrides){0};
}
