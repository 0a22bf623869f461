/* SPDX-License-Identifier: PostgreSQL */
/*
 * child: what a forked child starts with, how it is stopped, and that its records arrive.
 *
 * What happens in a child is seen through memory that it shares with the test, through its records and its exit status.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "child.h"
#include "mem.h"
#include "status.h"

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

/* Reads one record, waiting for it; false at the end. */
static bool next_record(int pipe, struct record *ret)
{
    struct pollfd ready = {.fd = pipe, .events = POLLIN};
    int r;

    while ((r = child_read(pipe, ret)) == 0)
        assert_int_equal(poll(&ready, 1, 20000), 1);
    if (r < 0)
        assert_int_equal(r, -EPIPE);
    return r > 0;
}

static int wait_for(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* ---- Records ---- */

#define FLOOD 3000

static int flood(const void *argument, struct reporter *reporter)
{
    (void)argument;
    for (int i = 0; i < FLOOD; i++) {
        struct record record = {.type = RECORD_PROGRESS, .run = i, .due = MOMENT_NONE, .rows_done = i * 7, .at = -i};

        reporter->report(reporter, &record);
        record.type = RECORD_ENDED;
        reporter->report(reporter, &record);
    }
    return STATUS_LEFT_OVER;
}

static void test_records_are_whole_and_in_order(void **state)
{
    struct pollfd end = {.events = 0};
    int progress = 0, ended = 0, pipe;
    pid_t pid = child_start(flood, NULL, &pipe);
    struct record record;

    (void)state;
    assert_true(pid > 0);
    assert_true(fcntl(pipe, F_GETFD) & FD_CLOEXEC);
    end.fd = pipe;
    assert_int_equal(poll(&end, 1, 300), 0); /* nobody reads: the child must wait, not go on without its records */
    while (next_record(pipe, &record)) {
        assert_int_equal(record.rows_done, record.run * 7);
        assert_int_equal(record.at, -record.run);
        assert_int_equal(record.due, MOMENT_NONE);
        if (record.type == RECORD_PROGRESS)
            progress++;
        else
            assert_int_equal(record.run, ended++);
    }
    assert_int_equal(ended, FLOOD);
    assert_in_range(progress, 1, FLOOD - 1); /* some found no room */
    assert_int_equal(WEXITSTATUS(wait_for(pid)), STATUS_LEFT_OVER);
    close(pipe);
}

static int quiet_until_stopped(const void *argument, struct reporter *reporter)
{
    (void)argument;
    (void)reporter;
    while (!child_stop)
        nap();
    return STATUS_INTERRUPTED;
}

static void test_read_does_not_wait(void **state)
{
    struct record record;
    int pipe;
    pid_t pid = child_start(quiet_until_stopped, NULL, &pipe);

    (void)state;
    assert_int_equal(child_read(pipe, &record), 0);
    kill(pid, SIGTERM);
    wait_for(pid);
    assert_int_equal(child_read(pipe, &record), -EPIPE);
    close(pipe);
}

static int tell_after_parent_closed(const void *argument, struct reporter *reporter)
{
    struct record record = {.type = RECORD_ENDED};

    (void)argument;
    while (!child_stop)
        nap();
    reporter->report(reporter, &record);
    return STATUS_DONE;
}

static void test_closed_pipe_does_not_kill(void **state)
{
    int pipe;
    pid_t pid = child_start(tell_after_parent_closed, NULL, &pipe);

    (void)state;
    close(pipe);
    kill(pid, SIGTERM);
    assert_int_equal(wait_for(pid), W_EXITCODE(STATUS_DONE, 0));
}

/* ---- Signals ---- */

static void test_no_stop_is_lost(void **state)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGALRM};

    (void)state;
    for (int i = 0; i < 300; i++) {
        int pipe;
        pid_t pid = child_start(quiet_until_stopped, NULL, &pipe);

        kill(pid, signals[i % 3]); /* often before the child ran at all */
        assert_int_equal(wait_for(pid), W_EXITCODE(STATUS_INTERRUPTED, 0));
        close(pipe);
    }
}

static void never(int signal)
{
    (void)signal;
    abort();
}

static int tell_signals(const void *argument, struct reporter *reporter)
{
    struct record record = {.type = RECORD_ENDED};
    struct sigaction action;
    sigset_t mask;

    (void)argument;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    record.rows_done = 0;
    for (int signal = 1; signal < NSIG; signal++)
        record.rows_done += sigismember(&mask, signal) == 1;
    sigaction(SIGHUP, NULL, &action);
    record.rows_skipped = action.sa_handler == SIG_DFL;
    sigaction(SIGPIPE, NULL, &action);
    record.rows_total = action.sa_handler == SIG_IGN;
    sigaction(SIGTERM, NULL, &action);
    record.leftovers = (action.sa_flags & SA_RESTART) == 0 && action.sa_handler != SIG_DFL;
    record.run = child_stop;
    reporter->report(reporter, &record);
    return STATUS_DONE;
}

static void test_signals_are_as_in_a_fresh_process(void **state)
{
    struct sigaction action = {.sa_handler = never}, before;
    sigset_t blocked, old, now;
    struct record record;
    int pipe;
    pid_t pid;

    (void)state;
    sigaction(SIGHUP, &action, &before);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGHUP);
    sigprocmask(SIG_BLOCK, &blocked, &old);
    child_stop = 1;
    pid = child_start(tell_signals, NULL, &pipe);
    child_stop = 0;
    sigprocmask(SIG_SETMASK, &old, &now);
    sigaction(SIGHUP, &before, NULL);

    assert_true(sigismember(&now, SIGTERM) && sigismember(&now, SIGHUP)); /* the parent's mask came back */
    assert_false(sigismember(&now, SIGUSR1));
    assert_true(next_record(pipe, &record));
    assert_int_equal(record.rows_done, 0);    /* nothing blocked */
    assert_int_equal(record.rows_skipped, 1); /* default handlers */
    assert_int_equal(record.rows_total, 1);   /* SIGPIPE ignored */
    assert_int_equal(record.leftovers, 1);    /* SIGTERM caught, and it interrupts system calls */
    assert_int_equal(record.run, 0);          /* the parent's child_stop is not the child's */
    assert_int_equal(wait_for(pid), 0);
    close(pipe);
}

static int rest_when_stopped(const void *argument, struct reporter *reporter)
{
    (void)argument;
    (void)reporter;
    raise(SIGTERM); /* after the caller has looked at child_stop, and before it sleeps */
    child_rest(600 * USEC_PER_SEC);
    return STATUS_INTERRUPTED;
}

static void test_a_rest_is_not_slept_over(void **state)
{
    int pipe, status = 0;
    pid_t pid = child_start(rest_when_stopped, NULL, &pipe), ended = 0;

    (void)state;
    for (int i = 0; i < 5000 && (ended = waitpid(pid, &status, WNOHANG)) == 0; i++)
        nap();
    if (ended == 0)
        kill(pid, SIGKILL);
    assert_int_equal(ended, pid);
    assert_int_equal(status, W_EXITCODE(STATUS_INTERRUPTED, 0));
    close(pipe);
}

static int alarm_twice(const void *argument, struct reporter *reporter)
{
    struct record record = {.type = RECORD_ENDED};

    (void)argument;
    raise(SIGALRM);
    record.run = child_stop;
    record.rows_done = alarm(0); /* what is left until the second one */
    reporter->report(reporter, &record);
    close(STDERR_FILENO); /* where it says why it ends */
    raise(SIGALRM);
    return STATUS_DONE;
}

static void test_the_second_alarm_ends_it(void **state)
{
    struct record record;
    int pipe;
    pid_t pid = child_start(alarm_twice, NULL, &pipe);

    (void)state;
    assert_true(next_record(pipe, &record));
    assert_int_equal(record.run, SIGALRM);
    assert_in_range(record.rows_done, CHILD_GRACE - 1, CHILD_GRACE);
    assert_int_equal(wait_for(pid), W_EXITCODE(STATUS_INTERRUPTED, 0));
    close(pipe);
}

struct shared {
    volatile pid_t pid;
    volatile int stopped;
};

static int note_stop(const void *argument, struct reporter *reporter)
{
    struct shared *shared = *(struct shared *const *)argument;

    (void)reporter;
    shared->pid = getpid();
    while (!child_stop)
        nap();
    shared->stopped = 1;
    return STATUS_INTERRUPTED;
}

static void test_parent_death_stops_the_child(void **state)
{
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t parent;

    (void)state;
    assert_ptr_not_equal(shared, MAP_FAILED);
    parent = fork();
    if (parent == 0) {
        int pipe;

        child_start(note_stop, &shared, &pipe);
        while (shared->pid == 0)
            nap();
        raise(SIGKILL);
    }
    assert_int_equal(WTERMSIG(wait_for(parent)), SIGKILL);
    for (int i = 0; i < 5000 && !shared->stopped; i++)
        nap();
    assert_int_equal(shared->stopped, 1);
    munmap(shared, sizeof(*shared));
}

/* ---- Descriptors ---- */

static int tell_descriptors(const void *argument, struct reporter *reporter)
{
    const int *fds = argument;
    struct record record = {.type = RECORD_ENDED};

    for (int i = 0; i < 4; i++)
        record.rows_done |= (fcntl(fds[i], F_GETFD) >= 0) << i;
    for (int fd = 0; fd < 1024; fd++)
        record.rows_total += fcntl(fd, F_GETFD) >= 0;
    reporter->report(reporter, &record);
    return STATUS_DONE;
}

static void check_descriptors(void)
{
    int fds[4], pair[2], pipe;
    struct record record;
    pid_t pid;

    fds[0] = open("/dev/null", O_RDONLY);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    fds[1] = pair[0];
    fds[2] = socket(AF_UNIX, SOCK_DGRAM, 0); /* as libsystemd has for the journal */
    fds[3] = fcntl(fds[0], F_DUPFD, 900);
    pid = child_start(tell_descriptors, fds, &pipe);
    assert_true(next_record(pipe, &record));
    assert_int_equal(record.rows_done, 1 << 2);
    assert_in_range(record.rows_total, 2, 5); /* 0, 1, 2 as far as the test has them; the pipe; that socket */
    assert_int_equal(wait_for(pid), 0);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    close(pair[1]);
    close(pipe);
}

static void test_descriptors_are_closed(void **state)
{
    (void)state;
    check_descriptors();
}

/* As in a container whose filter does not know it, or on an old kernel. */
static void forbid_close_range(int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = ELEMENTS(filter), .filter = filter};

    assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    assert_int_equal(close_range(900, 901, 0), -1);
    assert_int_equal(errno, error);
}

/* Last, since a filter stays. */
static void test_descriptors_are_closed_without_close_range(void **state)
{
    (void)state;
    forbid_close_range(EPERM);
    check_descriptors();
}

/* ---- Sentences ---- */

static void test_sentences(void **state)
{
    static const struct {
        int wait_status;
        const char *sentence;
    } rows[] = {
        {W_EXITCODE(0, 0), "exited with status 0: done"},
        {W_EXITCODE(1, 0), "exited with status 1: the run failed"},
        {W_EXITCODE(11, 0), "exited with status 11: interrupted by a signal"},
        {W_EXITCODE(99, 0), "exited with status 99: it ended with a status that is not roundsman's"},
        {W_EXITCODE(0, SIGKILL), "was killed by signal 9 (Killed)"},
        {W_EXITCODE(0, SIGSEGV) | WCOREFLAG, "was killed by signal 11 (Segmentation fault)"},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        AUTO_TEXT sentence = child_sentence(rows[i].wait_status);

        assert_memory_equal(sentence, rows[i].sentence, strlen(rows[i].sentence));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_are_whole_and_in_order),
        cmocka_unit_test(test_read_does_not_wait),
        cmocka_unit_test(test_closed_pipe_does_not_kill),
        cmocka_unit_test(test_no_stop_is_lost),
        cmocka_unit_test(test_signals_are_as_in_a_fresh_process),
        cmocka_unit_test(test_a_rest_is_not_slept_over),
        cmocka_unit_test(test_the_second_alarm_ends_it),
        cmocka_unit_test(test_parent_death_stops_the_child),
        cmocka_unit_test(test_descriptors_are_closed),
        cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_descriptors_are_closed_without_close_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
