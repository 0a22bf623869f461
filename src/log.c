/* SPDX-License-Identifier: PostgreSQL */
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

static struct {
    int level;
    bool daemon, journal;
    char *job;
    usec_t due;
    int64_t run;
} log_state = {.level = LOG_NOTICE, .due = MOMENT_NONE};

/* systemd.exec(5), $JOURNAL_STREAM: device and inode of the stream that standard error is connected to. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
           st.st_dev == device && st.st_ino == inode;
}

void log_open(int level, bool daemon)
{
    log_state.level = level;
    log_state.daemon = daemon;
    log_state.journal = stderr_is_journal();
}

void log_about(const char *job, usec_t due, int64_t run)
{
    if (job != log_state.job) {
        free(log_state.job);
        log_state.job = mem_copy(job);
    }
    log_state.due = due;
    log_state.run = run;
}

static void to_journal(int priority, const char *job, const char *due, int64_t run, const char *line)
{
    char *fields[5];
    struct iovec vector[ELEMENTS(fields)];
    int count = 0;

    fields[count++] = mem_print("PRIORITY=%d", priority);
    fields[count++] = mem_print("MESSAGE=%s", line);
    if (job != NULL)
        fields[count++] = mem_print("ROUNDSMAN_JOB=%s", job);
    if (due != NULL)
        fields[count++] = mem_print("ROUNDSMAN_OCCURRENCE=%s", due);
    if (run != 0)
        fields[count++] = mem_print("ROUNDSMAN_RUN=%lld", (long long)run);
    for (int i = 0; i < count; i++)
        vector[i] = (struct iovec){.iov_base = fields[i], .iov_len = strlen(fields[i])};
    sd_journal_sendv(vector, count);
    for (int i = 0; i < count; i++)
        free(fields[i]);
}

static void say(int priority, const char *job, usec_t due, int64_t run, const char *format, va_list list)
{
    char due_text[MOMENT_TEXT_MAX], now_text[MOMENT_TEXT_MAX];
    AUTO_BUF line = {0};

    if (priority > log_state.level)
        return;
    if (job != NULL)
        buf_print(&line, "%s", job);
    if (run != 0)
        buf_print(&line, " run %lld", (long long)run);
    if (due != MOMENT_NONE)
        buf_print(&line, " due %s", moment_format(due, due_text));
    if (job != NULL)
        buf_add(&line, ": ");
    buf_vprint(&line, format, list);
    for (char *c = line.text; *c != '\0'; c++)
        if (*c == '\n')
            *c = ' '; /* one line, whatever a server's message holds */

    if (log_state.journal) {
        to_journal(priority, job, due != MOMENT_NONE ? due_text : NULL, run, line.text);
    } else if (log_state.daemon) {
        usec_t now = moment_now();

        fprintf(stderr, "%s %s%s\n", moment_format(now - now % USEC_PER_SEC, now_text),
                priority <= LOG_ERR ? "error: " : priority == LOG_WARNING ? "warning: " : "", line.text);
    } else {
        fprintf(stderr, "roundsman: %s%s\n", priority == LOG_WARNING ? "warning: " : "", line.text);
    }
}

void log_say(int priority, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    say(priority, log_state.job, log_state.due, log_state.run, format, list);
    va_end(list);
}

void log_job(int priority, const char *job, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    say(priority, job, MOMENT_NONE, 0, format, list);
    va_end(list);
}
