/* SPDX-License-Identifier: PostgreSQL */
/*
 * report_next: --next, by the schedules alone. The daemon asks the same function for its timers, so that what is
 * printed here is what it does; and so of the offset that jitter gives this host. Neither the ledger nor a clock is read.
 */
#include "report.h"

#include <stdlib.h>

#include "host.h"
#include "status.h"
#include "table.h"

struct candidate {
    const struct job *job;
    struct occurrence next;
    bool ended; /* the schedule has no further occurrence */
};

static const char *const marks[] = {
    [OCCURRENCE_PLAIN] = NULL,
    [OCCURRENCE_GAP] = "(the clock skips this time: runs at the transition)",
    [OCCURRENCE_OVERLAP] = "(this time happens twice: runs on the first pass)",
};

static void step(struct candidate *candidate)
{
    candidate->ended = schedule_next(candidate->job->schedule, candidate->next.at, &candidate->next) != 0;
}

/* The earliest; of several at one instant the one that stands first in the file. */
static struct candidate *earliest(struct candidate *list, size_t count)
{
    struct candidate *best = NULL;

    for (size_t i = 0; i < count; i++)
        if (!list[i].ended && (best == NULL || list[i].next.at < best->next.at))
            best = &list[i];
    return best;
}

static void show(struct table *table, const struct candidate *candidate)
{
    const struct job *job = candidate->job;
    char text[MOMENT_TEXT_MAX];
    AUTO_TEXT local = schedule_local(job->schedule, candidate->next.at);
    AUTO_BUF notes = {0};

    if (!job->enabled)
        buf_add(&notes, " (disabled)");
    if (marks[candidate->next.mark] != NULL)
        buf_print(&notes, " %s", marks[candidate->next.mark]);
    if (job->jitter > 0)
        buf_print(&notes, " (jitter: on this host at %s)",
                  moment_format(candidate->next.at + host_offset(job->name, job->jitter) / USEC_PER_SEC * USEC_PER_SEC,
                                text));
    table_add(table, moment_format(candidate->next.at, text));
    table_add(table, local);
    table_print(table, "%s%s%s", job->name, notes.length > 0 ? " " : "", notes.length > 0 ? notes.text : "");
}

int report_next(const struct configuration *configuration, const struct job *job, int count, usec_t from)
{
    static const struct table_column columns[] = {{NULL, false}, {NULL, false}, {NULL, false}};
    struct candidate *list = mem_alloc(configuration->job_count * sizeof(*list)), *next;
    AUTO_TABLE table = {.columns = columns, .width = ELEMENTS(columns)};
    size_t candidates = 0;
    char text[MOMENT_TEXT_MAX];

    for (size_t i = 0; i < configuration->job_count; i++) {
        const struct job *each = &configuration->jobs[i];

        if (job == NULL ? each->enabled : each == job) {
            list[candidates] = (struct candidate){.job = each, .next.at = from};
            step(&list[candidates++]);
        }
    }
    while (count-- > 0 && (next = earliest(list, candidates)) != NULL) {
        show(&table, next);
        step(next);
    }
    free(list);
    if (candidates == 0)
        puts("no job is enabled");
    else if (table.count == 0)
        printf("no occurrence%s%s after %s: schedules end before the year 9999\n", job != NULL ? " of " : "",
               job != NULL ? job->name : "", moment_format(from, text));
    table_write(&table, stdout, 0);
    return STATUS_DONE;
}
