/* SPDX-License-Identifier: PostgreSQL */
/*
 * roundsman: makes the rounds of a PostgreSQL database, and is the admin tool for it.
 *
 * Reads the options, then does one of: the daemon, a run, abandon, check, next, status, history, install. What an option may
 * stand beside is one table.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "configuration.h"
#include "db.h"
#include "install.h"
#include "log.h"
#include "progress.h"
#include "report.h"
#include "once.h"
#include "scheduler.h"
#include "status.h"

#define DEFAULT_FILE SYSCONFDIR "/roundsman/roundsman.conf"
#define STATUS_UNKNOWN 3 /* --status, as a Nagios plugin: usage or file */

enum mode { DAEMON = 1, RUN_ONCE = 2, ABANDON = 4, CHECK = 8, NEXT = 16, STATUS = 32, HISTORY = 64, INSTALL = 128 };

enum option_name {
    OPT_RUN_ONCE = 256, OPT_ABANDON, OPT_CHECK, OPT_NEXT, OPT_STATUS, OPT_HISTORY, OPT_INSTALL, OPT_DUE, OPT_ONLY, OPT_SET,
    OPT_DRY_RUN, OPT_OFFLINE, OPT_FROM, OPT_JSON, OPT_VERSION,
};

static const char short_options[] = ":c:d:n:vqh";

static const struct option long_options[] = {
    {"run-once", no_argument, NULL, OPT_RUN_ONCE}, {"abandon", no_argument, NULL, OPT_ABANDON},
    {"check", no_argument, NULL, OPT_CHECK},       {"next", no_argument, NULL, OPT_NEXT},
    {"status", no_argument, NULL, OPT_STATUS},     {"history", no_argument, NULL, OPT_HISTORY},
    {"install", no_argument, NULL, OPT_INSTALL},   {"due", required_argument, NULL, OPT_DUE},
    {"only", required_argument, NULL, OPT_ONLY},   {"set", required_argument, NULL, OPT_SET},
    {"dry-run", no_argument, NULL, OPT_DRY_RUN},   {"offline", no_argument, NULL, OPT_OFFLINE},
    {"from", required_argument, NULL, OPT_FROM},   {"json", no_argument, NULL, OPT_JSON},
    {"config", required_argument, NULL, 'c'},      {"database", required_argument, NULL, 'd'},
    {"number", required_argument, NULL, 'n'},      {"verbose", no_argument, NULL, 'v'},
    {"quiet", no_argument, NULL, 'q'},             {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, OPT_VERSION},   {0},
};

static const struct {
    int option;
    enum mode mode;
} mode_options[] = {
    {OPT_RUN_ONCE, RUN_ONCE}, {OPT_ABANDON, ABANDON}, {OPT_CHECK, CHECK},     {OPT_NEXT, NEXT},
    {OPT_STATUS, STATUS},     {OPT_HISTORY, HISTORY}, {OPT_INSTALL, INSTALL},
};

/* With which modes an option may stand. */
static const struct {
    int option;
    const char *name;
    unsigned modes;
} companions[] = {
    {OPT_DUE, "--due", RUN_ONCE},
    {OPT_ONLY, "--only", RUN_ONCE},
    {OPT_SET, "--set", RUN_ONCE},
    {OPT_DRY_RUN, "--dry-run", RUN_ONCE | INSTALL},
    {OPT_OFFLINE, "--offline", CHECK},
    {OPT_FROM, "--from", NEXT},
    {OPT_JSON, "--json", STATUS | HISTORY},
    {'n', "-n", ABANDON | NEXT | HISTORY},
    {'d', "-d", INSTALL},
};

static const char help_text[] =
    "usage: roundsman [-c FILE]                      the daemon, in the foreground\n"
    "       roundsman --run-once JOB [--due TIME | --only KEY… --set NAME=VALUE…] [--dry-run]\n"
    "       roundsman --abandon JOB [-n RUN]         give up an unfinished run\n"
    "       roundsman --check [--offline]            verify all that a run needs\n"
    "       roundsman --next [JOB] [-n N] [--from TIME]\n"
    "       roundsman --status [--json]              (exits as a Nagios plugin does)\n"
    "       roundsman --history [JOB] [-n N] [--json]\n"
    "       roundsman --install [-d CONNINFO] [--dry-run]\n"
    "       roundsman --version | --help\n"
    "options: -c, --config FILE (default " DEFAULT_FILE "), -v, --verbose, -q, --quiet\n"
    "See roundsman(8) and roundsman.conf(5).\n";

struct command {
    enum mode mode;
    const char *file, *database, *operand, *due, *from, *number;
    const char **only, **set; /* NULL-terminated, or NULL */
    size_t only_count, set_count;
    bool dry_run, offline, json;
    int level;
    int seen[64]; /* companions, in the order given */
    size_t seen_count;
};

/* Errors of usage have a status of their own where a monitoring plugin is asked for. */
static int usage_status(const struct command *command)
{
    return command->mode == STATUS ? STATUS_UNKNOWN : STATUS_USAGE;
}

static int usage(const struct command *command, const char *format, ...) PRINTF_LIKE(2, 3);
static int usage(const struct command *command, const char *format, ...)
{
    AUTO_BUF line = {0};
    va_list list;

    va_start(list, format);
    buf_vprint(&line, format, list);
    va_end(list);
    fprintf(stderr, "roundsman: %s (roundsman --help lists the options)\n", line.text);
    return usage_status(command);
}

static void append(const char ***list, size_t *count, const char *text)
{
    *list = mem_resize(*list, *count + 2, sizeof(**list));
    (*list)[(*count)++] = text;
    (*list)[*count] = NULL;
}

static bool has(const char *const *list, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], text) == 0)
            return true;
    return false;
}

static void note(struct command *command, int option)
{
    for (size_t i = 0; i < command->seen_count; i++)
        if (command->seen[i] == option)
            return;
    command->seen[command->seen_count++] = option;
}

/* The argument of an option, or a flag of it. */
static void take_option(struct command *command, int option)
{
    switch (option) {
    case 'c':
        command->file = optarg;
        break;
    case 'd':
        command->database = optarg;
        break;
    case 'n':
        command->number = optarg;
        break;
    case 'v':
        command->level++;
        break;
    case 'q':
        command->level--;
        break;
    case OPT_DUE:
        command->due = optarg;
        break;
    case OPT_FROM:
        command->from = optarg;
        break;
    case OPT_ONLY:
        if (!has(command->only, command->only_count, optarg))
            append(&command->only, &command->only_count, optarg);
        break;
    case OPT_SET:
        append(&command->set, &command->set_count, optarg);
        break;
    case OPT_DRY_RUN:
        command->dry_run = true;
        break;
    case OPT_OFFLINE:
        command->offline = true;
        break;
    case OPT_JSON:
        command->json = true;
        break;
    default:
        break;
    }
    for (size_t i = 0; i < ELEMENTS(companions); i++)
        if (companions[i].option == option)
            note(command, option);
}

/* Returns 0, or an exit status plus one: the program ends with it. */
static int read_options(struct command *command, int argc, char **argv)
{
    const char *mode_name = NULL;
    int option, index = 0, failure = 0;

    opterr = 0;
    while ((option = getopt_long(argc, argv, short_options, long_options, &index)) != -1) {
        if (option == 'h' || option == OPT_VERSION) {
            fputs(option == 'h' ? help_text : "roundsman " PACKAGE_VERSION "\n", stdout);
            return STATUS_DONE + 1;
        }
        if ((option == '?' || option == ':') && failure == 0) {
            const char letter[] = {'-', (char)optopt, '\0'};
            bool foreign = optopt > ' ' && optopt < 127 && strchr(short_options, optopt) == NULL;

            failure = 1; /* the mode may still follow, and it decides the status */
            fprintf(stderr, option == '?' ? "roundsman: unknown option %s (roundsman --help lists the options)\n"
                                          : "roundsman: option %s needs an argument (roundsman --help lists the options)\n",
                    option == '?' && foreign ? letter : argv[optind - 1]);
        }
        for (size_t i = 0; i < ELEMENTS(mode_options); i++)
            if (mode_options[i].option == option) {
                if (mode_name != NULL && command->mode != mode_options[i].mode)
                    return usage(command, "--%s and --%s contradict each other", mode_name, long_options[index].name) + 1;
                command->mode = mode_options[i].mode;
                mode_name = long_options[index].name;
            }
        take_option(command, option);
    }
    if (failure != 0)
        return usage_status(command) + 1;
    for (size_t i = 0; i < command->seen_count; i++)
        for (size_t n = 0; n < ELEMENTS(companions); n++)
            if (companions[n].option == command->seen[i] && (companions[n].modes & command->mode) == 0)
                return usage(command, "%s does not go with %s%s", companions[n].name, mode_name != NULL ? "--" : "",
                             mode_name != NULL ? mode_name : "the daemon") +
                       1;
    if (optind < argc)
        command->operand = argv[optind++];
    if (optind < argc)
        return usage(command, "unexpected operand \"%s\"", argv[optind]) + 1;
    if (command->operand != NULL && (command->mode & (RUN_ONCE | ABANDON | NEXT | HISTORY)) == 0)
        return usage(command, "unexpected operand \"%s\"", command->operand) + 1;
    if (command->operand == NULL && (command->mode & (RUN_ONCE | ABANDON)) != 0)
        return usage(command, "--%s needs the name of a job", mode_name) + 1;
    if (command->due != NULL && (command->only != NULL || command->set != NULL))
        return usage(command, "--due settles an occurrence as it is configured; it does not go with --only or --set") + 1;
    return 0;
}

/* A positive number after -n. Returns 0 or an exit status plus one. */
static int read_number(const struct command *command, long long fallback, long long *ret)
{
    char *end = NULL;

    *ret = fallback;
    if (command->number == NULL)
        return 0;
    errno = 0;
    *ret = strtoll(command->number, &end, 10);
    if (errno != 0 || end == command->number || *end != '\0' || *ret < 1)
        return usage(command, "-n %s is no positive number", command->number) + 1;
    return 0;
}

static int read_moment(const struct command *command, const char *option, const char *text, usec_t *ret)
{
    if (text != NULL && moment_parse(text, ret) < 0)
        return usage(command, "%s %s is no RFC 3339 time, like 2026-11-22T07:00:00Z", option, text) + 1;
    return 0;
}

/* The configured job that the operand names. Returns 0 (also when none is named) or an exit status plus one. */
static int find_job(const struct command *command, const struct configuration *configuration, const struct job **ret)
{
    const char *nearest;

    *ret = NULL;
    if (command->operand == NULL)
        return 0;
    *ret = configuration_job(configuration, command->operand);
    if (*ret != NULL)
        return 0;
    nearest = configuration_nearest_job(configuration, command->operand);
    return usage(command, "%s has no job \"%s\"%s%s%s", configuration->path, command->operand,
                 nearest != NULL ? "; did you mean \"" : "", nearest != NULL ? nearest : "", nearest != NULL ? "\"?" : "") +
           1;
}

/* --set NAME=VALUE, and the job as they override it. Returns 0 or an exit status plus one. */
static int read_set(const struct command *command, const struct job *job, struct overrides *overrides, struct job *ret)
{
    AUTO_TEXT error = NULL;

    for (size_t i = 0; i < command->set_count; i++) {
        const char *equals = strchr(command->set[i], '=');
        AUTO_TEXT name = strndup(command->set[i], equals != NULL ? (size_t)(equals - command->set[i]) : 0);

        if (name[0] == '\0')
            return usage(command, "--set %s is not of the form NAME=VALUE", command->set[i]) + 1;
        if (job_override(overrides, job, name, equals + 1, &error) < 0)
            return usage(command, "--set %s: %s", command->set[i], error) + 1;
    }
    return job_overridden(job, overrides, ret, &error) < 0 ? usage(command, "--set: %s", error) + 1 : 0;
}

static int do_run_once(const struct command *command, const struct configuration *configuration)
{
    struct progress progress = progress_begin();
    struct overrides overrides = {0};
    struct request request = {.due = MOMENT_NONE, .only = command->only, .set = &overrides, .dry_run = command->dry_run};
    const struct job *job;
    struct job overridden = {0};
    int r = find_job(command, configuration, &job);

    if (r == 0)
        r = read_moment(command, "--due", command->due, &request.due);
    if (r == 0)
        r = read_set(command, job, &overrides, &overridden);
    if (r == 0) {
        child_catch_signals();
        if (overridden.max_runtime > 0)
            alarm((unsigned)((overridden.max_runtime + USEC_PER_SEC - 1) / USEC_PER_SEC));
        r = run_once(configuration, &overridden, &request, &progress.reporter) + 1;
        progress_clear();
    }
    job_overridden_clear(&overridden);
    overrides_clear(&overrides);
    return r - 1;
}

static int do_abandon(const struct command *command, const struct configuration *configuration)
{
    long long run;
    int r = read_number(command, 0, &run);

    return r != 0 ? r - 1 : run_abandon(configuration, command->operand, run);
}

static int do_next(const struct command *command, const struct configuration *configuration)
{
    const struct job *job;
    usec_t from = moment_now();
    long long count;
    int r = find_job(command, configuration, &job);

    if (r == 0)
        r = read_number(command, 5, &count);
    if (r == 0)
        r = read_moment(command, "--from", command->from, &from);
    if (r == 0 && count > 1000000)
        r = usage(command, "-n %lld is over 1000000", count) + 1;
    return r != 0 ? r - 1 : report_next(configuration, job, (int)count, from);
}

static int do_history(const struct command *command, const struct configuration *configuration)
{
    long long count;
    int r = read_number(command, 20, &count);

    if (r == 0 && count > 1000000)
        r = usage(command, "-n %lld is over 1000000", count) + 1;
    return r != 0 ? r - 1 : report_history(configuration, command->operand, (int)count, command->json);
}

static int do_install(const struct command *command, const struct configuration *configuration)
{
    AUTO_TEXT error = NULL;

    if (command->database != NULL && db_verify_conninfo(command->database, &error) < 0)
        return usage(command, "-d cannot be used: %s", error);
    return install_run(configuration, command->database, command->dry_run);
}

static int do_command(const struct command *command, struct configuration *configuration)
{
    switch (command->mode) {
    case RUN_ONCE:
        return do_run_once(command, configuration);
    case ABANDON:
        return do_abandon(command, configuration);
    case CHECK:
        if (command->offline) {
            printf("%s: no errors in the file\n", configuration->path);
            return STATUS_DONE;
        }
        return check_run(configuration);
    case NEXT:
        return do_next(command, configuration);
    case STATUS:
        return report_status(configuration, command->json);
    case HISTORY:
        return do_history(command, configuration);
    case INSTALL:
        return do_install(command, configuration);
    case DAEMON:
    default:
        return STATUS_USAGE;
    }
}

/*
 * A closed one would be given to the next file that is opened, the connection to the server at worst, and what is printed
 * would go there. What stands in its place refuses what a terminal would take, so that nothing goes unnoticed.
 */
static void occupy_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(STATUS_FAILED);
}

int main(int argc, char **argv)
{
    struct command command = {.mode = DAEMON, .file = DEFAULT_FILE, .level = LOG_NOTICE};
    struct configuration *configuration = NULL;
    AUTO_TEXT errors = NULL;
    int status;

    occupy_standard_descriptors();
    status = read_options(&command, argc, argv) - 1;
    if (status < 0) {
        log_open(command.level, command.mode == DAEMON);
        if (command.mode == DAEMON)
            scheduler_hold_signals();
        if (configuration_load(command.file, &configuration, &errors) < 0) {
            fputs(errors, stderr);
            status = command.mode == STATUS ? STATUS_UNKNOWN : STATUS_CONFIGURATION;
        } else if (command.mode == DAEMON) {
            status = scheduler_run(configuration);
            configuration = NULL;
        } else {
            status = do_command(&command, configuration);
        }
    }
    if (command.mode == STATUS && status == STATUS_UNKNOWN)
        report_unknown(errors != NULL ? errors : "wrong usage, see standard error", command.json);
    configuration_free(configuration);
    free(command.only);
    free(command.set);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "roundsman: standard output: %s\n", strerror(errno));
        status = status == STATUS_DONE ? STATUS_FAILED : status;
    }
    return status;
}
