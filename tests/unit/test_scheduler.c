/* SPDX-License-Identifier: PostgreSQL */
/*
 * scheduler: the real loop with real children, whose work and whose configuration are this file's own.
 *
 * run_settle() does as the job's script says and writes down when it was called and what for; configuration_load() reads
 * one job a line. The daemon is a process of its own, told what to do by signals and watched through its children's diary,
 * its NOTIFY_SOCKET and its log. worker.c is compiled in for a shorter grace period.
 */
#define WORKER_GRACE (800 * USEC_PER_MSEC)
#include "worker.c" /* includes config.h first */

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-event.h>
#include <time.h>

#include <cmocka.h>

#include "scheduler.h"

#define PATIENCE (20 * USEC_PER_SEC)
#define SLACK (2 * USEC_PER_SEC) /* how late a busy machine may be */

#define TO_THE_MIDDLE INT_MAX    /* of a second, after one second at least: far from what falls due at a beginning */

/* What a child does; times in milliseconds. */
struct step {
    int standby;       /* polls for the lock so long; -1: until it is stopped */
    bool silent;       /* does not report that the configuration was applied */
    int takes;         /* makes a run that takes so long */
    int parting;       /* goes on so long after it was asked to stop; -1: as if it had not been */
    int retry;         /* reports leftovers to be retried after so long */
    int status;
};

struct script {
    const char *job;
    struct step steps[6];
    int count; /* the last step is repeated */
};

struct entry {
    char job[16];
    pid_t pid;
    usec_t due, began, started, asked, ended, retry;
    bool apply;
    atomic_bool open;
};

/* Shared by the test, the daemon, and its children. */
static struct diary {
    atomic_int count;
    atomic_bool seen; /* by the test, which lets what takes -1 end */
    struct entry entries[200];
} *diary;

static struct script scripts[4];
static char directory[] = "/tmp/roundsman-test.XXXXXX";
static char path[64], log_path[64];
static int notify_socket;
static pid_t daemon_pid;
static int timers_left = INT_MAX; /* how many the loop still gives out */
static char *notes[1000]; /* what came by the socket, and how much of it a test has looked at */
static int note_count, notes_read;

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

/* ---- The neighbours ---- */

static int entries_of(const char *job)
{
    int count = 0;

    for (int i = 0; i < diary->count; i++)
        count += strcmp(diary->entries[i].job, job) == 0;
    return count;
}

static void work(struct entry *entry, int milliseconds, int parting)
{
    usec_t end = moment_monotonic() + milliseconds * USEC_PER_MSEC;

    while (milliseconds < 0 ? !diary->seen : moment_monotonic() < end) {
        if (child_stop && entry->asked == 0) {
            entry->asked = moment_now();
            if (parting >= 0) {
                milliseconds = 0;
                end = moment_monotonic() + parting * USEC_PER_MSEC;
            }
        }
        nap();
    }
}

static int lasting(int takes)
{
    int phase = (int)(moment_now() % USEC_PER_SEC / USEC_PER_MSEC);

    return takes == TO_THE_MIDDLE ? 1000 + (1500 - phase) % 1000 : takes;
}

int run_settle(const void *argument, struct reporter *reporter)
{
    const struct errand *errand = argument;
    const struct script *script = scripts;
    int nth = entries_of(errand->job->name);
    struct entry *entry = &diary->entries[diary->count++];
    struct record record = {.run = nth + 1, .due = errand->due, .rows_total = 100};
    const struct step *step;

    while (strcmp(script->job, errand->job->name) != 0)
        script++;
    step = &script->steps[nth < script->count ? nth : script->count - 1];
    snprintf(entry->job, sizeof(entry->job), "%s", errand->job->name);
    entry->pid = getpid();
    entry->due = errand->due;
    entry->apply = errand->apply;
    entry->began = moment_now();
    entry->open = true;

    if (step->standby != 0) {
        record.type = RECORD_STANDBY;
        reporter->report(reporter, &record);
        work(entry, step->standby, 0);
    }
    if (!step->silent && !child_stop) {
        record.type = RECORD_APPLIED;
        reporter->report(reporter, &record);
    }
    if (step->takes != 0 && !child_stop) {
        entry->started = moment_now();
        record.type = RECORD_STARTED;
        reporter->report(reporter, &record);
        record.type = RECORD_PROGRESS;
        record.rows_done = 40;
        reporter->report(reporter, &record);
        work(entry, lasting(step->takes), step->parting);
        record.type = RECORD_ENDED;
        reporter->report(reporter, &record);
    }
    if (step->retry != 0) {
        record.type = RECORD_RETRY;
        record.at = entry->retry = moment_now() + step->retry * USEC_PER_MSEC;
        reporter->report(reporter, &record);
    }
    entry->ended = moment_now();
    entry->open = false;
    return child_stop ? STATUS_INTERRUPTED : step->status;
}

/* In front of the library's. */
int sd_event_add_time(sd_event *loop, sd_event_source **ret, clockid_t clock, uint64_t usec, uint64_t accuracy,
                      sd_event_time_handler_t handler, void *userdata)
{
    int (*add)(sd_event *, sd_event_source **, clockid_t, uint64_t, uint64_t, sd_event_time_handler_t, void *) =
        (int (*)(sd_event *, sd_event_source **, clockid_t, uint64_t, uint64_t, sd_event_time_handler_t, void *))dlsym(
            RTLD_NEXT, "sd_event_add_time");

    return timers_left-- > 0 ? add(loop, ret, clock, usec, accuracy, handler, userdata) : -ENOMEM;
}

/* Lines of NAME ENABLED RETRY_DELAY_MS MAX_RUNTIME_MS SCHEDULE; everything else is an error. */
int configuration_load(const char *file, struct configuration **ret, char **ret_errors)
{
    struct configuration *configuration = mem_alloc(sizeof(*configuration));
    char line[200], name[16], schedule[100];
    int enabled, retry_delay, max_runtime, number = 0;
    AUTO_BUF errors = {0};
    FILE *stream = fopen(file, "r");

    assert_non_null(stream);
    configuration->path = mem_copy(file);
    while (fgets(line, sizeof(line), stream) != NULL) {
        struct job *job;

        number++;
        if (sscanf(line, "%15s %d %d %d %99[^\n]", name, &enabled, &retry_delay, &max_runtime, schedule) != 5) {
            buf_print(&errors, "%s:%d: what is this\n", file, number);
            continue;
        }
        configuration->jobs =
            mem_resize(configuration->jobs, configuration->job_count + 1, sizeof(*configuration->jobs));
        job = &configuration->jobs[configuration->job_count++];
        *job = (struct job){
            .name = mem_copy(name),
            .enabled = enabled,
            .schedule_text = mem_copy(schedule),
            .timezone = mem_copy("UTC"),
            .retry_delay = retry_delay * USEC_PER_MSEC,
            .max_runtime = max_runtime * USEC_PER_MSEC,
        };
        assert_int_equal(schedule_parse(schedule, "UTC", &job->schedule, NULL), 0);
    }
    fclose(stream);
    if (errors.length > 0) {
        configuration_free(configuration);
        *ret_errors = buf_take(&errors);
        return -EINVAL;
    }
    *ret = configuration;
    return 0;
}

void configuration_free(struct configuration *configuration)
{
    if (configuration == NULL)
        return;
    for (size_t i = 0; i < configuration->job_count; i++) {
        free(configuration->jobs[i].name);
        free(configuration->jobs[i].schedule_text);
        free(configuration->jobs[i].timezone);
        schedule_free(configuration->jobs[i].schedule);
    }
    free(configuration->jobs);
    free(configuration->path);
    free(configuration);
}

const struct job *configuration_job(const struct configuration *configuration, const char *name)
{
    for (size_t i = 0; i < configuration->job_count; i++)
        if (strcmp(configuration->jobs[i].name, name) == 0)
            return &configuration->jobs[i];
    return NULL;
}

/* ---- The daemon ---- */

static void write_configuration(const char *text)
{
    FILE *stream = fopen(path, "w");

    assert_non_null(stream);
    fputs(text, stream);
    fclose(stream);
}

static void start_daemon(const char *configuration_text)
{
    char *errors;
    struct configuration *configuration;

    write_configuration(configuration_text);
    fflush(NULL);
    daemon_pid = fork();
    assert_true(daemon_pid >= 0);
    if (daemon_pid == 0) {
        if (freopen(log_path, "w", stderr) == NULL || configuration_load(path, &configuration, &errors) < 0)
            abort();
        setvbuf(stderr, NULL, _IOLBF, 0);
        log_open(LOG_DEBUG, true);
        exit(scheduler_run(configuration));
    }
}

/* Lets some time pass. The socket holds ten datagrams, and then the daemon would wait for us. */
static void watch(void)
{
    char text[1000];
    ssize_t length;

    while ((length = recv(notify_socket, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0) {
        text[length] = '\0';
        assert_in_range(note_count, 0, ELEMENTS(notes) - 1);
        notes[note_count++] = mem_copy(text);
    }
    nap();
}

static int join_daemon(void)
{
    usec_t end = moment_monotonic() + PATIENCE;
    int status;
    pid_t pid;

    while ((pid = waitpid(daemon_pid, &status, WNOHANG)) == 0 && moment_monotonic() < end)
        watch();
    assert_int_equal(pid, daemon_pid);
    daemon_pid = 0;
    return status;
}

#define wait_until(condition)                                                                                          \
    do {                                                                                                               \
        usec_t end_ = moment_monotonic() + PATIENCE;                                                                   \
        while (!(condition) && moment_monotonic() < end_)                                                              \
            watch();                                                                                                   \
        assert_true(condition);                                                                                        \
    } while (0)

static bool noticed(const char *text)
{
    while (notes_read < note_count)
        if (strstr(notes[notes_read++], text) != NULL)
            return true;
    return false;
}

/* Waits for a notification that contains the text, after those that were waited for before. */
static void wait_notification(const char *text)
{
    usec_t end = moment_monotonic() + PATIENCE;

    while (!noticed(text)) {
        if (moment_monotonic() > end)
            fail_msg("no notification \"%s\"; the last was \"%s\"", text, note_count > 0 ? notes[note_count - 1] : "");
        watch();
    }
}

static int count_in_log(const char *text)
{
    FILE *stream = fopen(log_path, "r");
    char line[1000];
    int count = 0;

    assert_non_null(stream);
    while (fgets(line, sizeof(line), stream) != NULL)
        count += strstr(line, text) != NULL;
    fclose(stream);
    return count;
}

/* The nth entry of a job, from 0, once it is there. */
static struct entry *entry(const char *job, int nth)
{
    wait_until(entries_of(job) > nth);
    for (int i = 0;; i++)
        if (strcmp(diary->entries[i].job, job) == 0 && nth-- == 0) {
            struct entry *found = &diary->entries[i];

            wait_until(found->began != 0);
            return found;
        }
}

/* All children of a job, oldest first: none begins before the one before it ended. */
static void assert_no_overlap(const char *job)
{
    int count = entries_of(job);

    for (int i = 1; i < count; i++) {
        assert_int_not_equal(entry(job, i - 1)->ended, 0);
        assert_true(entry(job, i)->began >= entry(job, i - 1)->ended);
    }
}

static void script(int slot, const char *job, int count, const struct step *steps)
{
    scripts[slot] = (struct script){.job = job, .count = count};
    memcpy(scripts[slot].steps, steps, sizeof(*steps) * (size_t)count);
}

#define SCRIPT(slot, job, ...)                                                                                         \
    script(slot, job, sizeof((struct step[]){__VA_ARGS__}) / sizeof(struct step), (struct step[]){__VA_ARGS__})

static int begin(void **state)
{
    (void)state;
    memset(diary, 0, sizeof(*diary));
    memset(scripts, 0, sizeof(scripts));
    watch();
    while (note_count > 0)
        free(notes[--note_count]);
    notes_read = 0;
    return 0;
}

/* Whatever the test left running goes. */
static int end(void **state)
{
    (void)state;
    if (daemon_pid > 0) {
        kill(daemon_pid, SIGKILL);
        waitpid(daemon_pid, NULL, 0);
        daemon_pid = 0;
    }
    for (int i = 0; i < diary->count; i++)
        if (diary->entries[i].open)
            kill(diary->entries[i].pid, SIGKILL);
    return 0;
}

static void stop_daemon(void)
{
    kill(daemon_pid, SIGTERM);
    assert_int_equal(join_daemon(), W_EXITCODE(STATUS_DONE, 0));
}

#define YEARLY "@yearly\n" /* nothing falls due while the test runs */

/* ---- The tests ---- */

static void test_starts_and_tells(void **state)
{
    struct entry *first, *second;

    (void)state;
    SCRIPT(0, "often", {.takes = -1}, {.takes = 300});
    SCRIPT(1, "rare", {0});
    SCRIPT(2, "off", {0});
    start_daemon("often 1 100 0 @every 1s\nrare 1 100 0 " YEARLY "off 0 100 0 @every 1s\n");
    wait_notification("STATUS=3 jobs; next often ");
    wait_notification("READY=1");
    first = entry("often", 0);
    assert_true(first->apply);
    assert_int_equal(first->due, MOMENT_NONE);
    wait_notification("; often running (run 1, 40 %); next often ");
    diary->seen = true;
    second = entry("often", 1);
    assert_false(second->apply);
    assert_int_equal(second->due % USEC_PER_SEC, 0);
    assert_true(second->began >= second->due && second->began < second->due + SLACK);
    assert_true(entry("often", 2)->due > second->due);
    assert_int_equal(entries_of("rare"), 1);
    assert_true(entry("rare", 0)->apply);
    assert_int_equal(entries_of("off"), 1); /* applied, and that is all */
    assert_true(entry("off", 0)->apply);
    stop_daemon();
}

static void test_applies_until_applied(void **state)
{
    (void)state;
    SCRIPT(0, "a", {.silent = true, .status = STATUS_FAILED}, {.silent = true}, {0}, {0});
    start_daemon("a 1 100 0 @every 1s\n");
    assert_false(entry("a", 3)->apply);
    for (int i = 0; i < 3; i++)
        assert_true(entry("a", i)->apply);
    stop_daemon();
}

static void test_never_overlaps(void **state)
{
    (void)state;
    SCRIPT(0, "a", {0}, {.takes = TO_THE_MIDDLE});
    start_daemon("a 1 100 0 @every 1s\n");
    entry("a", 4);
    kill(daemon_pid, SIGTERM);
    assert_int_equal(join_daemon(), 0);
    assert_no_overlap("a");
    for (int i = 2; i <= 4; i++) {
        /* What fell due meanwhile was remembered: it is not the next timer's. */
        assert_true(entry("a", i)->due > entry("a", i - 1)->due);
        assert_true(entry("a", i)->due < entry("a", i - 1)->ended);
    }
}

static void test_failure_is_retried_with_its_due(void **state)
{
    usec_t due;

    (void)state;
    SCRIPT(0, "a", {0}, {.status = STATUS_FAILED}, {.status = STATUS_INTERRUPTED}, {.status = STATUS_LEFT_OVER}, {0});
    start_daemon("a 1 100 0 @every 3s\n");
    due = entry("a", 1)->due;
    assert_int_equal(entry("a", 3)->due, due);
    assert_int_equal(entry("a", 2)->due, due);
    wait_until(count_in_log("exited with status 1: the run failed") == 1);
    wait_until(count_in_log("next attempt in 100ms") == 1);
    wait_until(count_in_log("next attempt in 200ms") == 1);
    assert_true(entry("a", 4)->due > due);
    assert_int_equal(count_in_log("next attempt"), 2); /* 10 is no failure */
    stop_daemon();
}

static void test_backoff_doubles(void **state)
{
    usec_t gap = 100 * USEC_PER_MSEC;

    (void)state;
    SCRIPT(0, "a", {.status = STATUS_FAILED});
    start_daemon("a 1 100 0 " YEARLY);
    wait_notification("; a failed, next attempt ");
    for (int i = 1; i < 5; i++, gap *= 2) {
        usec_t waited = entry("a", i)->began - entry("a", i - 1)->ended;

        assert_true(waited >= gap && waited < gap + SLACK);
    }
    stop_daemon();
}

static void test_killed_child_is_replaced(void **state)
{
    (void)state;
    SCRIPT(0, "a", {.takes = -1}, {0});
    start_daemon("a 1 100 0 " YEARLY);
    wait_until(entry("a", 0)->started != 0);
    kill(entry("a", 0)->pid, SIGKILL);
    entry("a", 1);
    assert_int_equal(count_in_log("was killed by signal 9 (Killed); next attempt in 100ms"), 1);
    stop_daemon();
}

static void test_broken_configuration_halts_the_job(void **state)
{
    (void)state;
    SCRIPT(0, "a", {.status = STATUS_CONFIGURATION}, {0});
    SCRIPT(1, "clock", {0});
    start_daemon("a 1 100 0 @every 1s\nclock 1 100 0 @every 1s\n");
    wait_notification("; a waits for a reload");
    entry("clock", 3);
    assert_int_equal(entries_of("a"), 1);
    kill(daemon_pid, SIGHUP);
    assert_true(entry("a", 1)->apply);
    entry("a", 2); /* by its schedule again */
    stop_daemon();
}

static void test_leftovers_are_retried(void **state)
{
    (void)state;
    SCRIPT(0, "a", {.retry = 700, .status = STATUS_LEFT_OVER}, {0});
    start_daemon("a 1 100 0 " YEARLY);
    assert_int_equal(entry("a", 1)->due, MOMENT_NONE);
    assert_true(entry("a", 1)->began >= entry("a", 0)->retry);
    assert_true(entry("a", 1)->began < entry("a", 0)->retry + SLACK);
    stop_daemon();
}

static void test_max_runtime_warns_then_kills(void **state)
{
    struct entry *polite, *stubborn;

    (void)state;
    SCRIPT(0, "polite", {.standby = 900, .takes = -1}, {0});
    SCRIPT(1, "stubborn", {.takes = -1, .parting = -1}, {0});
    start_daemon("polite 1 100 600 " YEARLY "stubborn 1 100 600 " YEARLY);
    wait_notification("; polite standing by");
    polite = entry("polite", 0);
    stubborn = entry("stubborn", 0);
    entry("polite", 1);
    assert_true(polite->asked - polite->started >= 600 * USEC_PER_MSEC); /* waiting for the lock did not count */
    assert_true(polite->asked - polite->began >= 1500 * USEC_PER_MSEC);
    entry("stubborn", 1);
    assert_true(stubborn->open); /* it never came to its end */
    assert_true(entry("stubborn", 1)->began - stubborn->asked >= WORKER_GRACE);
    assert_int_equal(count_in_log("has taken all of max_runtime (600ms): asked to stop"), 2);
    assert_int_equal(count_in_log("polite: the child exited with status 11: interrupted because max_runtime was over"), 1);
    assert_int_equal(count_in_log("error: stubborn: did not stop within 800ms of SIGTERM: killed"), 1);
    assert_int_equal(count_in_log("polite: did not stop"), 0);
    stop_daemon();
}

static void test_reload_with_errors_changes_nothing(void **state)
{
    (void)state;
    SCRIPT(0, "a", {0});
    start_daemon("a 1 100 0 @every 1s\n");
    wait_notification("READY=1");
    write_configuration("a 1 100 0 @every 7s\nrubbish\n\nb 1 100 0 @every 1s\n");
    kill(daemon_pid, SIGHUP);
    wait_notification("RELOADING=1\nMONOTONIC_USEC=");
    wait_notification("STATUS=the changed configuration has errors, the previous one stays in use; 1 job; ");
    wait_notification("READY=1");
    assert_int_equal(count_in_log(":2: what is this"), 1);
    assert_int_equal(count_in_log(":3: what is this"), 1);
    assert_true(entry("a", 3)->due - entry("a", 2)->due < 7 * USEC_PER_SEC);
    for (int i = 1; i < 4; i++)
        assert_false(entry("a", i)->apply);
    write_configuration("a 1 100 0 @every 1s\n");
    kill(daemon_pid, SIGHUP);
    wait_notification("STATUS=1 job; ");
    stop_daemon();
}

static void test_a_reload_that_cannot_be_applied_ends_the_daemon(void **state)
{
    (void)state;
    SCRIPT(0, "a", {0});
    timers_left = 3; /* two a job */
    start_daemon("a 1 100 0 " YEARLY);
    timers_left = INT_MAX;
    wait_notification("READY=1");
    write_configuration("a 1 100 0 " YEARLY "b 1 100 0 " YEARLY);
    kill(daemon_pid, SIGHUP);
    assert_int_equal(join_daemon(), W_EXITCODE(STATUS_FAILED, 0));
    assert_int_equal(count_in_log("the event loop failed: Cannot allocate memory"), 1);
}

static void test_reload_changes_jobs(void **state)
{
    struct entry *added;

    (void)state;
    SCRIPT(0, "gone", {.takes = -1, .parting = 200});
    SCRIPT(1, "off", {.takes = -1, .parting = 200}, {0});
    SCRIPT(2, "busy", {.takes = 1000}, {0});
    SCRIPT(3, "new", {0});
    start_daemon("gone 1 100 0 @every 1s\noff 1 100 0 @every 1s\nbusy 1 100 0 " YEARLY);
    wait_until(entry("gone", 0)->started != 0 && entry("off", 0)->started != 0 && entry("busy", 0)->started != 0);
    write_configuration("off 0 100 0 @every 1s\nbusy 1 100 0 " YEARLY "new 1 100 0 @every 1s\n");
    kill(daemon_pid, SIGHUP);
    added = entry("new", 0);
    assert_true(added->apply);
    wait_until(!entry("gone", 0)->open);
    assert_int_not_equal(entry("gone", 0)->asked, 0);
    assert_true(entry("off", 1)->apply);
    assert_int_not_equal(entry("off", 0)->asked, 0);
    assert_true(entry("busy", 1)->apply); /* after its run, which was let be */
    assert_int_equal(entry("busy", 0)->asked, 0);
    entry("new", 3);
    assert_int_equal(entries_of("gone"), 1);
    assert_int_equal(entries_of("off"), 2);
    assert_no_overlap("off");
    assert_no_overlap("busy");
    assert_int_equal(count_in_log("next attempt"), 0); /* being in the way is no failure */
    stop_daemon();
}

static void test_reload_replaces_a_standby(void **state)
{
    (void)state;
    SCRIPT(0, "a", {.standby = -1}, {0});
    start_daemon("a 1 100 0 " YEARLY);
    wait_notification("; a standing by");
    kill(daemon_pid, SIGHUP);
    assert_true(entry("a", 1)->apply);
    assert_int_not_equal(entry("a", 0)->asked, 0);
    stop_daemon();
}

static void test_stop_waits_for_the_batch(void **state)
{
    (void)state;
    SCRIPT(0, "a", {.takes = -1, .parting = 400});
    start_daemon("a 1 100 0 @every 1s\n");
    wait_notification("; a running (run 1, 40 %)");
    kill(daemon_pid, SIGTERM);
    wait_notification("STOPPING=1");
    wait_notification("STATUS=stopping; 1 job; a stopping");
    assert_int_equal(join_daemon(), W_EXITCODE(STATUS_DONE, 0));
    assert_int_not_equal(entry("a", 0)->ended, 0);
    assert_true(entry("a", 0)->ended - entry("a", 0)->asked >= 400 * USEC_PER_MSEC);
    assert_int_equal(entries_of("a"), 1);
}

static void test_second_signal_kills(void **state)
{
    (void)state;
    SCRIPT(0, "a", {.takes = -1, .parting = -1});
    start_daemon("a 1 100 0 " YEARLY);
    wait_until(entry("a", 0)->started != 0);
    kill(daemon_pid, SIGINT);
    wait_until(entry("a", 0)->asked != 0);
    kill(daemon_pid, SIGINT);
    assert_int_equal(join_daemon(), W_EXITCODE(STATUS_DONE, 0));
    assert_int_equal(count_in_log("a: killed: the daemon was told twice to stop"), 1);
    assert_int_equal(count_in_log("did not stop within"), 0);
    assert_true(entry("a", 0)->open);
}

static void test_grace_period_ends_a_stop(void **state)
{
    (void)state;
    SCRIPT(0, "a", {.takes = -1, .parting = -1});
    start_daemon("a 1 100 0 " YEARLY);
    wait_until(entry("a", 0)->started != 0);
    stop_daemon();
    assert_int_equal(count_in_log("did not stop within 800ms of SIGTERM: killed"), 1);
}

static void test_stop_at_any_moment(void **state)
{
    (void)state;
    SCRIPT(0, "a", {.takes = 50});
    for (int i = 0; i < 40; i++) {
        diary->count = 0;
        start_daemon("a 1 100 0 @every 1s\n");
        wait_notification("STATUS="); /* the signals are blocked by then: nothing can be lost */
        for (int j = 0; j < i % 8; j++)
            watch();
        stop_daemon();
        watch();
        notes_read = note_count;
    }
}

static void test_watchdog_is_fed(void **state)
{
    (void)state;
    SCRIPT(0, "a", {0});
    setenv("WATCHDOG_USEC", "400000", 1);
    start_daemon("a 1 100 0 " YEARLY);
    unsetenv("WATCHDOG_USEC");
    wait_notification("WATCHDOG=1");
    wait_notification("WATCHDOG=1");
    stop_daemon();
}

static int prepare(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    (void)state;
    diary = mmap(NULL, sizeof(*diary), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (diary == MAP_FAILED || mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/jobs", directory);
    snprintf(log_path, sizeof(log_path), "%s/log", directory);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", directory);
    notify_socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    return bind(notify_socket, (const struct sockaddr *)&address, sizeof(address));
}

static int clean_up(void **state)
{
    (void)state;
    unlink(getenv("NOTIFY_SOCKET"));
    unlink(path);
    unlink(log_path);
    while (note_count > 0)
        free(notes[--note_count]);
    return rmdir(directory);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_starts_and_tells),
        TEST(test_applies_until_applied),
        TEST(test_never_overlaps),
        TEST(test_failure_is_retried_with_its_due),
        TEST(test_backoff_doubles),
        TEST(test_killed_child_is_replaced),
        TEST(test_broken_configuration_halts_the_job),
        TEST(test_leftovers_are_retried),
        TEST(test_max_runtime_warns_then_kills),
        TEST(test_reload_with_errors_changes_nothing),
        TEST(test_a_reload_that_cannot_be_applied_ends_the_daemon),
        TEST(test_reload_changes_jobs),
        TEST(test_reload_replaces_a_standby),
        TEST(test_stop_waits_for_the_batch),
        TEST(test_second_signal_kills),
        TEST(test_grace_period_ends_a_stop),
        TEST(test_stop_at_any_moment),
        TEST(test_watchdog_is_fed),
    };

    return cmocka_run_group_tests(tests, prepare, clean_up);
}
