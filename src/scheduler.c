/* SPDX-License-Identifier: PostgreSQL */
/*
 * scheduler: see scheduler.h.
 *
 * A post is a job's worker and its event sources. Whatever happens (a timer, a record, a child's end, a reload, a clock
 * that is set) is written into the worker, and proceed() works out from the facts what follows: send a child, arm the post's
 * timers. Nothing is counted down, so nothing drifts, and an idle daemon sleeps until the next occurrence.
 *
 * Errors: a job's end in its next attempt (worker), a wrong file keeps the configuration there is; only a loop that
 * cannot be set up fails the daemon.
 */
#include "config.h"

#include "scheduler.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "agenda.h"
#include "host.h"
#include "log.h"
#include "status.h"
#include "worker.h"

struct scheduler {
    sd_event *loop;
    int clock; /* tells when the clock is set */
    struct configuration *configuration;
    struct post *posts; /* in the order of the configuration that first had them */
    bool stopping;
    bool rejected; /* the last reload met errors */
    char *told; /* the STATUS= that systemd has */
};

struct post {
    struct worker worker;
    struct scheduler *scheduler;
    struct post *next;
    usec_t next_due;        /* as last logged */
    sd_event_source *timer; /* at agenda_wake() */
    sd_event_source *limit; /* at worker.limit */
    sd_event_source *on_pipe, *on_exit;
};

static void proceed(struct post *);

/* ---- What systemctl status shows ---- */

static void tell_status(struct scheduler *scheduler)
{
    size_t jobs = scheduler->configuration->job_count;
    usec_t now = moment_now(), first = MOMENT_NONE;
    const char *first_name = NULL;
    char at[MOMENT_TEXT_MAX];
    AUTO_BUF text = {0};

    if (scheduler->stopping)
        buf_add(&text, "stopping; ");
    else if (scheduler->rejected)
        buf_add(&text, "the changed configuration has errors, the previous one stays in use; ");
    buf_print(&text, "%zu job%s", jobs, jobs == 1 ? "" : "s");
    for (const struct post *post = scheduler->posts; post != NULL; post = post->next) {
        usec_t next = agenda_next(&post->worker.agenda);

        worker_describe(&post->worker, now, &text);
        if (next != MOMENT_NONE && (first_name == NULL || next < first)) {
            first = next;
            first_name = post->worker.name;
        }
    }
    if (first_name != NULL && !scheduler->stopping)
        buf_print(&text, "; next %s %s", first_name, worker_clock(first, now, at));

    if (scheduler->told == NULL || strcmp(text.text, scheduler->told) != 0) {
        free(scheduler->told);
        scheduler->told = buf_take(&text);
        sd_notifyf(0, "STATUS=%s", scheduler->told);
    }
}

/* ---- A child's events ---- */

static int on_pipe(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct post *post = userdata;

    (void)fd;
    (void)events;
    if (!worker_read(&post->worker))
        sd_event_source_set_enabled(source, SD_EVENT_OFF); /* its end comes next */
    proceed(post);
    return 0;
}

static void forget_child(struct post *post, int wait_status)
{
    post->on_pipe = sd_event_source_disable_unref(post->on_pipe);
    post->on_exit = sd_event_source_disable_unref(post->on_exit);
    worker_ended(&post->worker, wait_status);
}

static int on_exit_of_child(sd_event_source *source, const siginfo_t *info, void *userdata)
{
    struct post *post = userdata;

    (void)source;
    forget_child(post, W_EXITCODE(info->si_code == CLD_EXITED ? info->si_status : 0,
                                  info->si_code == CLD_EXITED ? 0 : info->si_status));
    proceed(post);
    return 0;
}

static void send_child(struct post *post)
{
    struct worker *worker = &post->worker;
    sd_event *loop = post->scheduler->loop;
    int r, wait_status;

    if (!worker_send(worker, post->scheduler->configuration))
        return;
    r = sd_event_add_io(loop, &post->on_pipe, worker->pipe, EPOLLIN, on_pipe, post);
    if (r >= 0)
        r = sd_event_add_child(loop, &post->on_exit, worker->pid, WEXITED, on_exit_of_child, post);
    if (r < 0) { /* whose end would never be noticed */
        log_job(LOG_ERR, worker->name, "cannot watch child %d: %s", (int)worker->pid, strerror(-r));
        kill(worker->pid, SIGKILL);
        waitpid(worker->pid, &wait_status, 0);
        forget_child(post, wait_status);
    }
}

/* ---- A post ---- */

static int on_timer(sd_event_source *source, uint64_t at, void *userdata)
{
    (void)source;
    (void)at;
    proceed(userdata);
    return 0;
}

static int on_limit(sd_event_source *source, uint64_t at, void *userdata)
{
    struct post *post = userdata;

    (void)source;
    (void)at;
    worker_limit(&post->worker);
    proceed(post);
    return 0;
}

static void arm(sd_event_source *timer, usec_t at)
{
    if (at == MOMENT_NONE) {
        sd_event_source_set_enabled(timer, SD_EVENT_OFF);
    } else {
        sd_event_source_set_time(timer, at > 0 ? (uint64_t)at : 0);
        sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
    }
}

static struct post *drop_post(struct post *post)
{
    struct post *next = post->next;

    sd_event_source_disable_unref(post->timer);
    sd_event_source_disable_unref(post->limit);
    sd_event_source_disable_unref(post->on_pipe);
    sd_event_source_disable_unref(post->on_exit);
    worker_free(&post->worker);
    free(post);
    return next;
}

/* The posts without a job and a child go; a daemon that stops ends when no child is left. */
static void tidy(struct scheduler *scheduler)
{
    bool busy = false;

    for (struct post **link = &scheduler->posts; *link != NULL;) {
        struct worker *worker = &(*link)->worker;

        busy = busy || worker->pid != 0;
        if (worker->pid == 0 && worker->job == NULL)
            *link = drop_post(*link);
        else
            link = &(*link)->next;
    }
    tell_status(scheduler);
    if (scheduler->stopping && !busy)
        sd_event_exit(scheduler->loop, STATUS_DONE);
}

/* The one place where something follows from the facts. */
static void act(struct post *post)
{
    struct worker *worker = &post->worker;
    struct agenda *agenda = &worker->agenda;
    bool stopping = post->scheduler->stopping;
    char text[MOMENT_TEXT_MAX];
    usec_t now = moment_now(), next;

    if (agenda_look(agenda, now))
        log_job(LOG_DEBUG, worker->name, "due %s%s", moment_format(agenda->due, text),
                worker->pid != 0 ? "; it waits for the child at work to end" : "");
    if (worker->pid == 0 && worker->job != NULL && !stopping && agenda_ready(agenda, now))
        send_child(post);
    arm(post->timer, stopping ? MOMENT_NONE : agenda_wake(agenda, worker->pid != 0));
    arm(post->limit, worker->limit);

    next = agenda_next(agenda);
    if (next != post->next_due && next != MOMENT_NONE)
        log_job(LOG_INFO, worker->name, "next due %s", moment_format(next, text));
    post->next_due = next;
}

/* Ends a callback that changed the facts of a post, which may be gone afterwards. */
static void proceed(struct post *post)
{
    struct scheduler *scheduler = post->scheduler;

    act(post);
    tidy(scheduler);
}

static void proceed_all(struct scheduler *scheduler)
{
    for (struct post *post = scheduler->posts; post != NULL; post = post->next)
        act(post);
    tidy(scheduler);
}

/* Returns 0 or a negative errno. */
static int add_post(struct scheduler *scheduler, const char *name)
{
    struct post *post = mem_alloc(sizeof(*post)), **end = &scheduler->posts;
    int r;

    post->scheduler = scheduler;
    post->next_due = MOMENT_NONE;
    worker_init(&post->worker, name);
    /* An accuracy of a microsecond: sd-event would otherwise gather wake-ups within a quarter of a second. */
    if ((r = sd_event_add_time(scheduler->loop, &post->timer, CLOCK_REALTIME, 0, 1, on_timer, post)) < 0 ||
        (r = sd_event_add_time(scheduler->loop, &post->limit, CLOCK_MONOTONIC, 0, 1, on_limit, post)) < 0) {
        drop_post(post);
        return r;
    }
    arm(post->timer, MOMENT_NONE);
    arm(post->limit, MOMENT_NONE);
    while (*end != NULL)
        end = &(*end)->next;
    *end = post;
    return 0;
}

static bool has_post(const struct scheduler *scheduler, const char *name)
{
    for (const struct post *post = scheduler->posts; post != NULL; post = post->next)
        if (strcmp(post->worker.name, name) == 0)
            return true;
    return false;
}

/* ---- The configuration ---- */

/*
 * Puts a configuration in force and frees the one before; NULL at start-up. Returns 0 or a negative errno: then some jobs
 * have no post, and the loop must end.
 */
static int use(struct scheduler *scheduler, struct configuration *before)
{
    const struct configuration *configuration = scheduler->configuration;
    int r = 0;

    for (size_t i = 0; i < configuration->job_count && r >= 0; i++)
        if (!has_post(scheduler, configuration->jobs[i].name))
            r = add_post(scheduler, configuration->jobs[i].name);
    if (r < 0) {
        configuration_free(before);
        return r;
    }
    for (struct post *post = scheduler->posts; post != NULL; post = post->next) {
        const struct job *job = configuration_job(configuration, post->worker.name);

        worker_configure(&post->worker, job, job == NULL ? 0 : host_offset(job->name, job->jitter));
    }
    configuration_free(before);
    proceed_all(scheduler);
    return 0;
}

static int on_reload(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    struct scheduler *scheduler = userdata;
    struct configuration *before = scheduler->configuration;
    AUTO_TEXT errors = NULL;
    char *rest;

    (void)source;
    (void)info;
    if (scheduler->stopping)
        return 0;
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reading %s", (long long)moment_monotonic(), before->path);
    free(scheduler->told);
    scheduler->told = NULL;
    scheduler->rejected = configuration_load(before->path, &scheduler->configuration, &errors) < 0;
    if (scheduler->rejected) {
        for (char *line = strtok_r(errors, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
            log_say(LOG_ERR, "%s", line);
        log_say(LOG_ERR, "the configuration was not reloaded: the previous one stays in use");
        tell_status(scheduler);
    } else {
        int r = use(scheduler, before);

        /* An error that a callback returns only turns this source off: the daemon would go on, and be deaf to reloads. */
        if (r < 0)
            return sd_event_exit(scheduler->loop, r);
        log_say(LOG_NOTICE, "reloaded %s: %zu job%s", scheduler->configuration->path, scheduler->configuration->job_count,
                scheduler->configuration->job_count == 1 ? "" : "s");
    }
    sd_notify(0, "READY=1");
    return 0;
}

/* ---- The daemon ---- */

static int on_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    struct scheduler *scheduler = userdata;
    bool again = scheduler->stopping;

    (void)source;
    if (!again) {
        scheduler->stopping = true;
        log_say(LOG_NOTICE, "stopping after SIG%s", sigabbrev_np((int)info->ssi_signo));
        sd_notify(0, "STOPPING=1");
    }
    for (struct post *post = scheduler->posts; post != NULL; post = post->next) {
        if (post->worker.pid != 0 && again) {
            log_job(LOG_WARNING, post->worker.name, "killed: the daemon was told twice to stop");
            kill(post->worker.pid, SIGKILL);
        } else if (post->worker.pid != 0) {
            worker_recall(&post->worker);
        }
    }
    proceed_all(scheduler);
    return 0;
}

/* timerfd_create(2): ECANCELED says that the clock was set. */
static int on_clock(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct scheduler *scheduler = userdata;
    uint64_t expirations;
    usec_t now = moment_now();

    (void)source;
    (void)events;
    if (read(fd, &expirations, sizeof(expirations)) >= 0 || errno != ECANCELED)
        return 0;
    log_say(LOG_INFO, "the clock was set");
    for (struct post *post = scheduler->posts; post != NULL; post = post->next)
        agenda_clock_set(&post->worker.agenda, now);
    proceed_all(scheduler);
    return 0;
}

static int watch_clock(struct scheduler *scheduler)
{
    struct itimerspec never = {.it_value.tv_sec = 7258118400}; /* the year 2200 */

    scheduler->clock = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (scheduler->clock < 0 ||
        timerfd_settime(scheduler->clock, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0)
        return -errno;
    return sd_event_add_io(scheduler->loop, NULL, scheduler->clock, EPOLLIN, on_clock, scheduler);
}

static int set_up(struct scheduler *scheduler)
{
    int r;

    /* Sources without a pointer belong to the loop. */
    if ((r = sd_event_new(&scheduler->loop)) < 0 ||
        (r = sd_event_add_signal(scheduler->loop, NULL, SIGTERM, on_stop, scheduler)) < 0 ||
        (r = sd_event_add_signal(scheduler->loop, NULL, SIGINT, on_stop, scheduler)) < 0 ||
        (r = sd_event_add_signal(scheduler->loop, NULL, SIGHUP, on_reload, scheduler)) < 0 ||
        (r = sd_event_set_watchdog(scheduler->loop, true)) < 0 || (r = watch_clock(scheduler)) < 0)
        return r;
    return use(scheduler, NULL);
}

static void tear_down(struct scheduler *scheduler)
{
    while (scheduler->posts != NULL)
        scheduler->posts = drop_post(scheduler->posts);
    sd_event_unref(scheduler->loop);
    if (scheduler->clock >= 0)
        close(scheduler->clock);
    configuration_free(scheduler->configuration);
    free(scheduler->told);
}

void scheduler_hold_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD); /* sd_event_add_child(3) wants it */
    sigprocmask(SIG_BLOCK, &set, NULL);
}

int scheduler_run(struct configuration *configuration)
{
    struct scheduler scheduler = {.configuration = configuration, .clock = -1};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    int r;

    scheduler_hold_signals();
    sigaction(SIGPIPE, &ignore, NULL); /* a standard error that went away is no reason to stop */

    log_say(LOG_NOTICE, "roundsman " PACKAGE_VERSION " started: %zu job%s of %s", configuration->job_count,
            configuration->job_count == 1 ? "" : "s", configuration->path);
    r = set_up(&scheduler);
    if (r >= 0) {
        sd_notify(0, "READY=1");
        r = sd_event_loop(scheduler.loop);
    }
    if (r < 0)
        log_say(LOG_CRIT, "the event loop failed: %s", strerror(-r));
    else
        log_say(LOG_NOTICE, "stopped");
    tear_down(&scheduler);
    return r < 0 ? STATUS_FAILED : r;
}
