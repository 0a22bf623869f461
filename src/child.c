/* SPDX-License-Identifier: PostgreSQL */
/*
 * child: see child.h.
 *
 * From before the fork until the child has its own handlers every signal is blocked, so one that is sent in between waits
 * instead of being lost. The parent's mask comes back as it was. Errors: child_start() returns a negative errno; a
 * record that cannot be sent because the parent is gone is dropped (the parent-death signal stops the child anyway).
 * Never executes a program, never logs.
 */
#include "config.h"

#include "child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mem.h"
#include "status.h"

#define KNOWN 1024 /* descriptors are given out from below, and neither parent nor child has more than a few dozen */

static_assert(sizeof(struct record) <= PIPE_BUF, "a record is written whole or not at all");

volatile sig_atomic_t child_stop;

struct pipe_reporter {
    struct reporter reporter; /* first: a pointer to it is a pointer to this */
    int pipe;
};

static const int stop_signals[] = {SIGTERM, SIGINT, SIGALRM};

static void on_stop(int signal)
{
    child_stop = signal;
}

/* The first alarm asks; the second one finds a process that still waits for a server, and its sessions die with it. */
static void on_alarm(int signal)
{
    static const char words[] = "roundsman: did not stop within the grace period after max_runtime: ended; the next run "
                                "resumes it\n";
    static volatile sig_atomic_t asked;
    int error = errno;

    if (asked) {
        ssize_t ignored = write(STDERR_FILENO, words, sizeof(words) - 1);

        (void)ignored;
        _exit(STATUS_INTERRUPTED);
    }
    asked = 1;
    alarm(CHILD_GRACE);
    errno = error;
    on_stop(signal);
}

void child_catch_signals(void)
{
    struct sigaction action = {.sa_flags = 0};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ELEMENTS(stop_signals); i++) {
        action.sa_handler = stop_signals[i] == SIGALRM ? on_alarm : on_stop;
        /* Whoever types Ctrl-C twice has a server in mind that does not answer: the second one ends it at once. */
        action.sa_flags = stop_signals[i] == SIGINT ? (int)SA_RESETHAND : 0;
        sigaction(stop_signals[i], &action, NULL);
        sigaddset(&set, stop_signals[i]);
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

void child_rest(usec_t duration)
{
    struct timespec time = {.tv_sec = duration / USEC_PER_SEC, .tv_nsec = duration % USEC_PER_SEC * 1000};
    sigset_t stop, before;

    /* Between a look at child_stop and a sleep that any signal ends, one would be slept over. */
    sigemptyset(&stop);
    for (size_t i = 0; i < ELEMENTS(stop_signals); i++)
        sigaddset(&stop, stop_signals[i]);
    sigprocmask(SIG_BLOCK, &stop, &before);
    if (!child_stop && duration > 0)
        ppoll(NULL, 0, &time, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* Only progress can be missed by the parent; for everything else the child waits until there is room. */
static void send_record(struct reporter *reporter, const struct record *record)
{
    int fd = ((struct pipe_reporter *)reporter)->pipe;

    while (write(fd, record, sizeof(*record)) < 0) {
        struct pollfd room = {.fd = fd, .events = POLLOUT};

        if (errno == EINTR)
            continue;
        if (errno != EAGAIN || record->type == RECORD_PROGRESS)
            return;
        poll(&room, 1, -1);
    }
}

/* libsystemd keeps the socket to the journal for itself, and would write into whatever took its number. */
static bool is_journal_socket(int fd)
{
    int domain, type;
    socklen_t domain_size = sizeof(domain), type_size = sizeof(type);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_size) == 0 && domain == AF_UNIX &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size) == 0 && type == SOCK_DGRAM;
}

/* A kernel without close_range(2), or a sandbox that forbids it, must not leave the child its parent's descriptors. */
static void close_from(int first, unsigned last)
{
    if (close_range((unsigned)first, last, 0) == 0)
        return;
    for (int fd = first; fd < KNOWN && (unsigned)fd <= last; fd++)
        close(fd);
}

static void close_inherited(int keep)
{
    int first = STDERR_FILENO + 1;

    for (int fd = first; fd < KNOWN; fd++) {
        if (fd != keep && !is_journal_socket(fd))
            continue;
        if (fd > first)
            close_from(first, (unsigned)fd - 1);
        first = fd + 1;
    }
    close_from(first, ~0U);
}

/*
 * The journal looks into /proc for the unit that a line came from, and so loses the last words of a process that has
 * gone meanwhile (`journalctl -u` does not find them). Waits until it has read them, for a tenth of a second at most.
 */
static void let_journal_read(void)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    int unread;

    for (int fd = STDERR_FILENO + 1; fd < KNOWN; fd++) {
        if (!is_journal_socket(fd))
            continue;
        for (int tries = 0; tries < 100 && ioctl(fd, SIOCOUTQ, &unread) == 0 && unread > 0; tries++)
            nanosleep(&moment, NULL);
        nanosleep(&moment, NULL); /* it has read the line, and now looks */
    }
}

static void forget_handlers(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};

    for (int signal = 1; signal < NSIG; signal++)
        sigaction(signal, &action, NULL); /* SIGKILL, SIGSTOP and libc's own refuse, as they should */
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL); /* a parent that went away is an error of write(2) */
}

/* The child's side of child_start(). All signals are blocked on entry. */
static _Noreturn void live(pid_t parent, int pipe, int (*work)(const void *, struct reporter *), const void *argument)
{
    struct pipe_reporter reporter = {.reporter.report = send_record, .pipe = pipe};
    sigset_t none;
    int status;

    child_stop = 0;
    forget_handlers();
    child_catch_signals();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(STATUS_INTERRUPTED); /* it died before that signal was set up */
    close_inherited(pipe);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    status = work(argument, &reporter.reporter);
    fflush(NULL);
    let_journal_read();
    _exit(status); /* what the parent registered with atexit(3) is not ours */
}

pid_t child_start(int (*work)(const void *argument, struct reporter *), const void *argument, int *ret_pipe)
{
    pid_t parent = getpid(), pid;
    sigset_t all, before;
    int fds[2], error;

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    fflush(NULL); /* what is buffered now would be written twice */
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0)
        live(parent, fds[1], work, argument);
    error = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(fds[1]);
    if (pid < 0) {
        close(fds[0]);
        return -error;
    }
    *ret_pipe = fds[0];
    return pid;
}

int child_read(int pipe, struct record *ret)
{
    struct record record;
    ssize_t length;

    do
        length = read(pipe, &record, sizeof(record));
    while (length < 0 && errno == EINTR);
    if (length < 0 && errno == EAGAIN)
        return 0;
    if (length != (ssize_t)sizeof(record))
        return -EPIPE;
    *ret = record;
    return 1;
}

char *child_sentence(int wait_status)
{
    if (WIFSIGNALED(wait_status))
        return mem_print("was killed by signal %d (%s)", WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    return mem_print("exited with status %d: %s", WEXITSTATUS(wait_status), status_sentence(WEXITSTATUS(wait_status)));
}
