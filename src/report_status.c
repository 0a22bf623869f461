/* SPDX-License-Identifier: PostgreSQL */
/*
 * report_status: --status, a Nagios plugin: one line that sums up, then a table (or one JSON object), and the exit
 * status 0, 1 or 2. Judged out of the ledger and the schedules alone: no daemon is asked, so it also tells when none is
 * there.
 */
#include "report.h"

#include <stdlib.h>
#include <string.h>

#include "report_judge.h"
#include "table.h"

#define UNKNOWN 3 /* a Nagios plugin's, beside enum level: of a job nothing is unknown */

static const char *const level_names[] = {
    [LEVEL_OK] = "OK",
    [LEVEL_WARNING] = "WARNING",
    [LEVEL_CRITICAL] = "CRITICAL",
};

static enum level worst(const struct view *views, size_t count)
{
    enum level level = LEVEL_OK;

    for (size_t i = 0; i < count; i++)
        level = views[i].level > level ? views[i].level : level;
    return level;
}

/* The worst complaints come first: a pager shows the beginning of the line. */
static char *sum_up(enum level level, const char *skewed, const struct view *views, size_t count)
{
    struct buf line = {0};
    const char *between = skewed != NULL ? "; " : "";
    size_t running = 0, disabled = 0;

    buf_print(&line, "roundsman %s: %s", level_names[level], skewed != NULL ? skewed : "");
    for (enum level l = LEVEL_CRITICAL; l > LEVEL_OK; l--)
        for (size_t i = 0; i < count; i++)
            for (size_t k = 0; k < views[i].complaint_count; k++)
                if (views[i].complaints[k].level == l) {
                    buf_print(&line, "%s%s: %s", between, views[i].name, views[i].complaints[k].text);
                    between = "; ";
                }
    if (level > LEVEL_OK)
        return buf_take(&line);
    for (size_t i = 0; i < count; i++) {
        running += views[i].running;
        disabled += !views[i].job->enabled;
    }
    buf_print(&line, "%zu job%s, %zu running, %zu disabled", count, count == 1 ? "" : "s", running, disabled);
    return buf_take(&line);
}

/* ---- For people ---- */

static void show_run(struct table *table, const struct rows *rows, int row)
{
    static const enum fact facts[] = {
        FACT_ID,           FACT_TRIGGER,   FACT_STATE,        FACT_DUE,       FACT_FINISHED_AT,
        FACT_TOOK_SECONDS, FACT_ROWS_DONE, FACT_ROWS_SKIPPED, FACT_LEFTOVERS,
    };

    for (size_t k = 0; k < ELEMENTS(facts); k++) {
        const char *text = row < 0 ? NULL : rows_text(rows, row, (int)facts[k]);
        AUTO_TEXT took = facts[k] == FACT_TOOK_SECONDS ? report_seconds(text) : NULL;

        table_add(table, took != NULL ? took : text);
    }
}

static char *notes(const struct view *view)
{
    struct buf text = {0};

    if (view->job != NULL && !view->job->enabled)
        buf_add(&text, "disabled");
    for (size_t k = 0; k < view->complaint_count; k++)
        buf_print(&text, "%s%s", text.length > 0 ? "; " : "", view->complaints[k].text);
    return buf_take(&text);
}

static void show_table(const struct view *views, size_t count, const struct rows *rows)
{
    static const struct table_column columns[] = {
        {"JOB", false}, {"RUN", true},  {"TRIGGER", false}, {"STATE", false}, {"DUE", false},      {"FINISHED", false},
        {"TOOK", true}, {"DONE", true}, {"SKIPPED", true},  {"LEFT", true},   {"NEXT DUE", false}, {"NOTE", false},
    };
    AUTO_TABLE table = {.columns = columns, .width = ELEMENTS(columns)};
    char text[MOMENT_TEXT_MAX];

    for (size_t v = 0; v < count; v++)
        for (int i = 0; i == 0 || i < views[v].count; i++) {
            AUTO_TEXT note = i == 0 ? notes(&views[v]) : mem_copy("");

            table_add(&table, i == 0 ? views[v].name : "");
            show_run(&table, rows, i < views[v].count ? views[v].first + i : -1);
            table_add(&table, i > 0 ? "" : views[v].next == MOMENT_NONE ? NULL : moment_format(views[v].next, text));
            table_add(&table, note);
        }
    table_write(&table, stdout, table_terminal(stdout));
}

/* ---- For programs: what PostgreSQL cannot make, since it may be out of reach ---- */

static void json_text(struct buf *buf, const char *text)
{
    buf_add(buf, "\"");
    for (; *text != '\0'; text++)
        if (*text == '"' || *text == '\\')
            buf_print(buf, "\\%c", *text);
        else if ((unsigned char)*text < ' ')
            buf_print(buf, "\\u%04x", (unsigned)*text);
        else
            buf_add_bytes(buf, text, 1);
    buf_add(buf, "\"");
}

static void json_field(struct buf *buf, const char *name, const char *text)
{
    buf_print(buf, ",\"%s\":", name);
    if (text == NULL)
        buf_add(buf, "null");
    else
        json_text(buf, text);
}

static void json_moment(struct buf *buf, const char *name, usec_t moment)
{
    char text[MOMENT_TEXT_MAX];

    json_field(buf, name, moment == MOMENT_NONE ? NULL : moment_format(moment, text));
}

static void json_view(struct buf *out, const struct view *view, const struct rows *rows)
{
    const struct job *job = view->job;
    bool seen = view->count > 0;

    buf_print(out, "{\"status\":%d", (int)view->level);
    json_field(out, "job", view->name);
    json_field(out, "kind", job == NULL ? NULL : job->kind->name);
    buf_print(out, ",\"configured\":%s,\"enabled\":%s,\"seen\":%s,\"running\":%s", job != NULL ? "true" : "false",
              job != NULL && job->enabled ? "true" : "false", seen ? "true" : "false",
              view->running ? "true" : "false");
    json_moment(out, "next_due", view->next);
    json_moment(out, "owed_since", view->owed);
    json_moment(out, "settled_through",
                seen ? (usec_t)rows_integer(rows, view->first, JUDGED_SETTLED_THROUGH) : MOMENT_NONE);
    buf_print(out, ",\"leftovers\":%s,\"problems\":[", seen ? rows_text(rows, view->first, JUDGED_LEFTOVERS) : "0");
    for (size_t k = 0; k < view->complaint_count; k++) {
        buf_add(out, k == 0 ? "" : ",");
        json_text(out, view->complaints[k].text);
    }
    buf_add(out, "],\"runs\":[");
    for (int i = view->first; i < view->first + view->count; i++)
        if (rows_text(rows, i, FACT_ID) != NULL)
            buf_print(out, "%s%s", i == view->first ? "" : ",", rows_text(rows, i, JUDGED_RUN));
    buf_add(out, "]}");
}

static void show_json(int status, const char *summary, const struct view *views, size_t count, const struct rows *rows)
{
    AUTO_BUF out = {0};

    buf_print(&out, "{\"status\":%d", status);
    json_field(&out, "summary", summary);
    buf_add(&out, ",\"jobs\":[");
    for (size_t i = 0; i < count; i++) {
        buf_add(&out, i == 0 ? "\n" : ",\n");
        json_view(&out, &views[i], rows);
    }
    buf_add(&out, "]}");
    puts(out.text);
}

/* A run that ends between the statement's snapshot and its look at the locks seems unattended: a second look tells. */
static int ask(const struct configuration *configuration, usec_t *ret_ahead, struct rows **ret, char **ret_error)
{
    AUTO_TEXT sql = judge_question();
    bool unattended = false;
    int r = report_ask(configuration, sql, 0, NULL, ret_ahead, ret, ret_error);

    for (int i = 0; r == 0 && i < rows_count(*ret); i++)
        unattended |= rows_text(*ret, i, FACT_ATTENDED) != NULL && !rows_boolean(*ret, i, FACT_ATTENDED);
    if (unattended) {
        rows_free_pointer(ret);
        r = report_ask(configuration, sql, 0, NULL, ret_ahead, ret, ret_error);
    }
    return r;
}

/* Why nothing is run at all, whatever the jobs are like; NULL: the clocks agree. The caller frees it. */
static char *judge_clocks(const struct configuration *configuration, usec_t ahead)
{
    char apart[MOMENT_TEXT_MAX], most[MOMENT_TEXT_MAX];
    usec_t skew = ahead < 0 ? -ahead : ahead;

    if (skew <= configuration->max_clock_skew)
        return NULL;
    return mem_print("the server's clock is %s %s this host's, and beyond %s (max_clock_skew) nothing is run",
                     duration_tell(skew, apart), ahead < 0 ? "behind" : "ahead of",
                     duration_format(configuration->max_clock_skew, most));
}

int report_status(const struct configuration *configuration, bool json)
{
    enum level level = LEVEL_CRITICAL;
    struct view *views = NULL;
    size_t count = 0;
    usec_t now = moment_now(), ahead;
    AUTO_ROWS rows = NULL;
    AUTO_TEXT error = NULL;
    AUTO_TEXT skewed = NULL;
    AUTO_TEXT summary = NULL;

    if (ask(configuration, &ahead, &rows, &error) < 0) {
        summary = mem_print("roundsman CRITICAL: %s", error);
    } else {
        views = judge(configuration, rows, ahead < 0 ? now + ahead : now, &count);
        skewed = judge_clocks(configuration, ahead);
        level = skewed != NULL ? LEVEL_CRITICAL : worst(views, count);
        summary = sum_up(level, skewed, views, count);
    }
    if (json)
        show_json((int)level, summary, views, count, rows);
    else
        puts(summary);
    if (!json && count > 0) {
        putchar('\n');
        show_table(views, count, rows);
    }
    views_free(views, count);
    return (int)level;
}

void report_unknown(const char *why, bool json)
{
    AUTO_TEXT summary = mem_print("roundsman UNKNOWN: %.*s", (int)strcspn(why, "\n"), why);

    if (json)
        show_json(UNKNOWN, summary, NULL, 0, NULL);
    else
        puts(summary);
}
