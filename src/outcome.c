/* SPDX-License-Identifier: PostgreSQL */
#include "outcome.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "status.h"

#define SHOWN_LEFTOVERS 10

static void say(const struct books *books, int priority, const char *line)
{
    if (books->tool)
        printf("%s\n", line);
    else
        log_say(priority, "%s", line);
}

static void show_leftovers(struct books *books, const struct ledger_run *run)
{
    struct ledger_leftover *list = NULL;
    size_t count = 0;

    if (ledger_leftovers(&books->ledger, books->row.id, run->id, NULL, SHOWN_LEFTOVERS, &list, &count) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        AUTO_TEXT line = mem_print("left over: key %s, %s: %s (SQLSTATE %s)", list[i].key, list[i].reason,
                                   list[i].error != NULL ? list[i].error : "", list[i].sqlstate != NULL ? list[i].sqlstate : "");

        say(books, LOG_WARNING, line);
    }
    if (run->leftovers > (int64_t)count) {
        AUTO_TEXT line = mem_print("left over: and %lld more", (long long)(run->leftovers - (int64_t)count));

        say(books, LOG_WARNING, line);
    }
    ledger_leftovers_free(list, count);
}

/* The log's lines have the job and the run in front of them already. */
static void sum_up(const struct books *books, const struct ledger_run *run, const char *prefix, const char *when,
                   struct buf *line)
{
    char due[MOMENT_TEXT_MAX];

    if (books->tool) {
        buf_print(line, "%s: ", books->job->name);
        if (run->due == MOMENT_NONE)
            buf_print(line, "manual run %lld ", (long long)run->id);
        else
            buf_print(line, "run %lld due %s ", (long long)run->id, moment_format(run->due, due));
    }
    buf_print(line, "%s%s: %lld row%s changed%s", prefix, run->state, (long long)run->rows_done, run->rows_done == 1 ? "" : "s",
              when);
    if (run->rows_skipped > 0)
        buf_print(line, ", %lld skipped", (long long)run->rows_skipped);
    if (run->leftovers > 0)
        buf_print(line, ", %lld left over", (long long)run->leftovers);
}

void outcome_so_far(struct books *books, const struct ledger_run *run, int64_t rows)
{
    int64_t rest = rows - run->rows_done - run->rows_skipped - run->leftovers;
    AUTO_BUF line = {0};

    sum_up(books, run, "", " so far", &line);
    if (rest > 0)
        buf_print(&line, ", about %lld to be looked at", (long long)rest);
    say(books, LOG_NOTICE, line.text);
    if (run->leftovers > 0)
        show_leftovers(books, run);
}

int outcome_report(struct books *books, const struct ledger_run *run, const char *prefix, const char *remark)
{
    AUTO_BUF line = {0};

    sum_up(books, run, prefix, "", &line);
    if (remark != NULL)
        buf_print(&line, "; %s", remark);
    say(books, run->leftovers > 0 ? LOG_WARNING : LOG_NOTICE, line.text);
    if (run->leftovers > 0)
        show_leftovers(books, run);
    if (fflush(stdout) != 0) { /* it stays unreported, and typing the command again reports it */
        log_say(LOG_ERR, "the outcome cannot be printed: standard output: %s", strerror(errno));
        return run->leftovers > 0 ? STATUS_LEFT_OVER : STATUS_FAILED;
    }
    if (ledger_reported(&books->ledger, run->id) < 0)
        log_say(LOG_WARNING, "the run's report could not be recorded: %s", db_error(books->db)->message);
    return run->leftovers > 0 ? STATUS_LEFT_OVER : STATUS_DONE;
}
