/* SPDX-License-Identifier: PostgreSQL */
#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BAR_WIDTH 30

static bool drawn;

void progress_clear(void)
{
    if (drawn)
        fputs("\r\033[K", stderr);
    drawn = false;
}

static void draw(const struct progress *progress, const struct record *record)
{
    double seconds = (double)(moment_monotonic() - progress->began) / (double)USEC_PER_SEC;
    double passed = (double)(record->rows_done + record->rows_skipped);
    double share = record->rows_total > 0 ? passed / (double)record->rows_total : -1;
    char bar[BAR_WIDTH + 1];

    progress_clear();
    if (share >= 0) {
        int full = (int)((share > 1 ? 1 : share) * BAR_WIDTH);

        memset(bar, '#', (size_t)full);
        memset(bar + full, '.', (size_t)(BAR_WIDTH - full));
        bar[BAR_WIDTH] = '\0';
        fprintf(stderr, "[%s] %3.0f %%  ", bar, (share > 1 ? 1 : share) * 100);
    }
    fprintf(stderr, "%lld row%s", (long long)record->rows_done, record->rows_done == 1 ? "" : "s");
    if (seconds > 0)
        fprintf(stderr, "  %.0f rows/s", (double)(record->rows_done - progress->before) / seconds);
    drawn = true;
}

static void show(struct reporter *reporter, const struct record *record)
{
    struct progress *progress = (struct progress *)reporter;

    if (!progress->terminal)
        return;
    if (record->type == RECORD_STARTED) {
        progress->began = moment_monotonic();
        progress->before = record->rows_done;
    }
    if (record->type == RECORD_PROGRESS)
        draw(progress, record);
    else
        progress_clear();
}

struct progress progress_begin(void)
{
    return (struct progress){
        .reporter = {.report = show},
        .terminal = isatty(STDERR_FILENO) == 1 && isatty(STDOUT_FILENO) == 1,
        .began = moment_monotonic(),
    };
}
