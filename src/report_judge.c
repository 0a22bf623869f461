/* SPDX-License-Identifier: PostgreSQL */
#include "report_judge.h"

#include <stdlib.h>
#include <string.h>

#include "books.h"

#define LATE_AFTER (2 * USEC_PER_MINUTE)
#define OVERDUE_AFTER (10 * USEC_PER_MINUTE)

/* What becomes of an unfinished run, to end a sentence with. Where the job is not configured it is said once, of all runs. */
static const char *what_then(const struct job *job, bool manual)
{
    if (job == NULL)
        return "";
    if (!job->enabled)
        return manual ? "; once the job is enabled, --run-once finishes it; --abandon gives it up"
                      : "; it is resumed once the job is enabled; --abandon gives it up";
    return manual ? "; finish it with --run-once, or give it up with --abandon" : "; the next run resumes it";
}

char *judge_question(void)
{
    return mem_print(
        "SELECT f.*, row_to_json(f), s.name, s.kind, s.schedule, s.timezone, s.enabled, "
        "(extract(epoch FROM s.settled_through) * 1000000)::bigint, "
        "p.leftovers, p.runs, p.oldest FROM job s "
        "LEFT JOIN LATERAL (%s WHERE r.job_id = s.id AND (r.state IN ('running', 'failed', 'interrupted') "
        "OR r.id = (SELECT max(m.id) FROM run m WHERE m.job_id = s.id))) f ON true "
        "LEFT JOIN LATERAL (SELECT count(*) AS leftovers, count(DISTINCT o.run_id) AS runs, min(o.run_id) AS oldest "
        "FROM run u JOIN leftover o ON o.run_id = u.id WHERE u.job_id = s.id AND u.state = 'partial') p "
        "ON true ORDER BY s.id, f.id DESC",
        report_run_facts);
}

static void complain(struct view *, enum level, const char *format, ...) PRINTF_LIKE(3, 4);

static void complain(struct view *view, enum level level, const char *format, ...)
{
    struct buf text = {0};
    va_list list;

    va_start(list, format);
    buf_vprint(&text, format, list);
    va_end(list);
    for (char *c = text.text; *c != '\0';
         c++) /* a Nagios plugin's summary is one line, whatever the server's errors hold */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
    view->complaints = mem_resize(view->complaints, view->complaint_count + 1, sizeof(*view->complaints));
    view->complaints[view->complaint_count++] = (struct complaint){level, buf_take(&text)};
    view->level = level > view->level ? level : view->level;
}

/* One run: the last one, or an older one that is unfinished. */
static void judge_run(struct view *view, const struct rows *rows, int row)
{
    const char *id = rows_text(rows, row, FACT_ID), *state = rows_text(rows, row, FACT_STATE);
    const char *error = rows_text(rows, row, FACT_ERROR);
    bool manual = strcmp(rows_text(rows, row, FACT_TRIGGER), "manual") == 0;
    bool retried = !manual && view->job != NULL && view->job->enabled; /* by the daemon, which needs no advice */
    const char *kind = manual ? "manual run" : "run", *then = what_then(view->job, manual);

    if (strcmp(state, "failed") == 0)
        complain(view, LEVEL_CRITICAL, "%s %s failed: %s%s", kind, id, error != NULL ? error : "for no known reason",
                 retried ? "" : then);
    else if (strcmp(state, "interrupted") == 0)
        complain(view, LEVEL_WARNING, "%s %s was interrupted%s", kind, id, then);
    else if (strcmp(state, "running") == 0 && !rows_boolean(rows, row, FACT_ATTENDED))
        complain(view, LEVEL_WARNING, "%s %s is running, but no process holds it%s", kind, id, then);
    else if (strcmp(state, "running") == 0)
        view->running = true;
}

/* While a process is at work on the job, what waits behind it is late, but not overdue. */
static void judge_schedule(struct view *view, usec_t settled, usec_t now, usec_t max_skew)
{
    struct occurrence occurrence;
    usec_t past;
    char text[MOMENT_TEXT_MAX], ago[MOMENT_TEXT_MAX];

    if (settled > now + max_skew)
        complain(view, LEVEL_CRITICAL, "settled through %s, which is in the future: nothing is run before that",
                 moment_format(settled, text));
    if (schedule_next(view->job->schedule, settled, &occurrence) < 0 || occurrence.at > now)
        return;
    view->owed = occurrence.at;
    past = now - occurrence.at - view->job->jitter;
    if (past > LATE_AFTER) {
        bool overdue = past > OVERDUE_AFTER && !view->running;

        complain(view, overdue ? LEVEL_CRITICAL : LEVEL_WARNING, "%s: was due at %s, %s ago",
                 overdue ? "overdue" : "late", moment_format(occurrence.at, text),
                 duration_tell(now - occurrence.at, ago));
    }
}

/* A change of these counts when a daemon starts or reloads with it: until then nothing can be said of what is owed. */
static bool edited(const struct job *job, const struct rows *rows, int row)
{
    AUTO_TEXT zone = books_zone(job);

    return strcmp(rows_text(rows, row, JUDGED_KIND), job->kind->name) != 0 ||
           strcmp(rows_text(rows, row, JUDGED_SCHEDULE), job->schedule_text) != 0 ||
           strcmp(rows_text(rows, row, JUDGED_TIMEZONE), zone) != 0 ||
           rows_boolean(rows, row, JUDGED_ENABLED) != job->enabled;
}

static void judge_leftovers(struct view *view, const struct rows *rows)
{
    long long leftovers = rows_integer(rows, view->first, JUDGED_LEFTOVERS);
    long long runs = rows_integer(rows, view->first, JUDGED_LEFTOVER_RUNS);
    const char *oldest = rows_text(rows, view->first, JUDGED_LEFTOVER_OLDEST);

    if (runs > 1)
        complain(view, LEVEL_WARNING, "%lld rows left over by %lld runs, the oldest of which is run %s", leftovers,
                 runs, oldest);
    else if (leftovers > 0)
        complain(view, LEVEL_WARNING, "%lld row%s left over by run %s", leftovers, leftovers == 1 ? "" : "s", oldest);
}

static void judge_job(struct view *view, const struct rows *rows, usec_t now, usec_t max_skew)
{
    const struct job *job = view->job;
    struct occurrence occurrence;

    if (job != NULL && job->enabled && schedule_next(job->schedule, now, &occurrence) == 0)
        view->next = occurrence.at;
    if (view->count == 0) {
        if (job->enabled)
            complain(view, LEVEL_WARNING, "not seen by a daemon yet");
        return;
    }
    if (job == NULL)
        complain(view, LEVEL_WARNING,
                 "no longer configured, so that nothing finishes its runs: --abandon gives them up");
    for (int i = view->first; i < view->first + view->count; i++)
        if (rows_text(rows, i, FACT_ID) != NULL)
            judge_run(view, rows, i);
    judge_leftovers(view, rows);
    if (job != NULL && edited(job, rows, view->first))
        complain(view, LEVEL_WARNING, "edited in the file, but no daemon has been reloaded with it");
    else if (job != NULL && job->enabled)
        judge_schedule(view, rows_integer(rows, view->first, JUDGED_SETTLED_THROUGH), now, max_skew);
}

static int rows_of(const struct rows *rows, const char *name, int *ret_first)
{
    int count = 0;

    for (int i = 0; i < rows_count(rows); i++)
        if (strcmp(rows_text(rows, i, JUDGED_JOB), name) == 0 && count++ == 0)
            *ret_first = i;
    return count;
}

static bool unfinished(const struct rows *rows, int row)
{
    const char *state = rows_text(rows, row, FACT_STATE);

    return rows_integer(rows, row, JUDGED_LEFTOVERS) > 0 ||
           (state != NULL && strcmp(state, "done") != 0 && strcmp(state, "abandoned") != 0);
}

struct view *judge(const struct configuration *configuration, const struct rows *rows, usec_t now, size_t *ret_count)
{
    size_t count = 0, room = configuration->job_count + (size_t)rows_count(rows);
    struct view *views = mem_alloc(room * sizeof(*views));

    for (size_t i = 0; i < configuration->job_count; i++)
        views[count++] = (struct view){.job = &configuration->jobs[i], .name = configuration->jobs[i].name};
    for (int i = 0; i < rows_count(rows); i++) {
        const char *name = rows_text(rows, i, JUDGED_JOB);

        if (configuration_job(configuration, name) == NULL && unfinished(rows, i) &&
            (count == 0 || strcmp(views[count - 1].name, name) != 0))
            views[count++] = (struct view){.name = name};
    }
    for (size_t i = 0; i < count; i++) {
        views[i].next = views[i].owed = MOMENT_NONE;
        views[i].count = rows_of(rows, views[i].name, &views[i].first);
        judge_job(&views[i], rows, now, configuration->max_clock_skew);
    }
    *ret_count = count;
    return views;
}

void views_free(struct view *views, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < views[i].complaint_count; k++)
            free(views[i].complaints[k].text);
        free(views[i].complaints);
    }
    free(views);
}
