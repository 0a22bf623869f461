/* SPDX-License-Identifier: PostgreSQL */
/*
 * configuration: libconfig's tree -> struct configuration, by tables of settings.
 *
 * Every group of the file is a table of struct setting_spec: a key that is in none is unknown, a value is judged by
 * setting.c alone. What is wrong is collected by source.c and never stops the reading, so one pass finds it all; only
 * libconfig's own syntax errors do. Nothing here logs, connects, or asks the clock.
 */
#include "configuration.h"

#include <errno.h>
#include <inttypes.h>
#include <libconfig.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "conninfo.h"
#include "db.h"
#include "mem.h"
#include "source.h"

#define LONGEST_IDENTIFIER 63 /* NAMEDATALEN - 1 */
#define LONGEST_TIME (36525 * USEC_PER_DAY)

static const struct setting_spec root_specs[] = {
    {.name = "max_clock_skew",
     .type = SETTING_DURATION,
     .fallback = "30s",
     .least = USEC_PER_SEC,
     .most = USEC_PER_DAY},
    {.name = "max_replica_lag", .type = SETTING_DURATION, .fallback = "0s", .least = 0, .most = LONGEST_TIME},
    {.name = "max_slot_wal", .type = SETTING_SIZE, .fallback = "0B"},
    {0},
};
static const struct setting_spec database_specs[] = {
    {.name = "conninfo", .type = SETTING_TEXT, .fallback = "", .may_be_empty = true},
    {0},
};
static const struct setting_spec ledger_specs[] = {
    {.name = "schema", .type = SETTING_TEXT, .fallback = "roundsman"},
    {.name = "keep", .type = SETTING_DURATION, .fallback = "90d", .least = USEC_PER_SEC, .most = LONGEST_TIME},
    {.name = "role", .type = SETTING_TEXT, .fallback = "roundsman"},
    {0},
};

/* One table of keys that a group may have, and where their values go. */
struct keys {
    const struct setting_spec *specs;
    struct settings *into;
};

static unsigned line_of(const config_setting_t *setting)
{
    return (unsigned)config_setting_source_line(setting);
}

/* The line of a group's key, or of the group when it has no such key. */
static unsigned line_of_key(const config_setting_t *group, const char *name)
{
    const config_setting_t *member = config_setting_get_member(group, name);

    return line_of(member != NULL ? member : group);
}

/* ---- One value ---- */

static const char *wanted(const struct setting_spec *spec)
{
    static const char *const texts[] = {
        [SETTING_INTEGER] = "a whole number without quotes, such as 10 or 10000L",
        [SETTING_DURATION] = "a duration in quotes, such as \"250ms\", \"30s\", \"30m\", \"12h\" or \"90d\"",
        [SETTING_SIZE] = "a size in quotes, such as \"512MB\" or \"10GB\"",
        [SETTING_BOOLEAN] = "true or false, without quotes",
        [SETTING_TEXT] = "a text in quotes",
        [SETTING_WORDS] = "an array of texts or whole numbers, such as [\"PAYING\", \"CREATED\"]",
    };

    return spec->may_be_number ? "a text in quotes or a whole number" : texts[spec->type];
}

/* What a value is, for a message; the caller frees it. */
static char *describe(const config_setting_t *value)
{
    switch (config_setting_type(value)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        return mem_print("the number %lld", config_setting_get_int64(value));
    case CONFIG_TYPE_FLOAT:
        return mem_print("the number %g", config_setting_get_float(value));
    case CONFIG_TYPE_BOOL:
        return mem_copy(config_setting_get_bool(value) ? "true" : "false");
    case CONFIG_TYPE_STRING:
        return mem_print("the text \"%s\"", config_setting_get_string(value));
    case CONFIG_TYPE_GROUP:
        return mem_copy("a group");
    case CONFIG_TYPE_ARRAY:
        return mem_copy("an array [ ]");
    default:
        return mem_copy("a list ( )");
    }
}

/* A scalar as setting.c takes it, or NULL when its type is not one for `spec`; the caller frees it. */
static char *scalar_text(const config_setting_t *value, const struct setting_spec *spec)
{
    enum setting_type type = spec->type;

    switch (config_setting_type(value)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        if (type == SETTING_INTEGER || type == SETTING_WORDS || spec->may_be_number)
            return mem_print("%lld", config_setting_get_int64(value));
        return NULL;
    case CONFIG_TYPE_BOOL:
        return type == SETTING_BOOLEAN ? mem_copy(config_setting_get_bool(value) ? "true" : "false") : NULL;
    case CONFIG_TYPE_STRING:
        if (type == SETTING_TEXT || type == SETTING_DURATION || type == SETTING_SIZE || type == SETTING_WORDS)
            return mem_copy(config_setting_get_string(value));
        return NULL;
    default:
        return NULL;
    }
}

/* An integer that source.c has reported and taken out. */
static bool is_misfit(const config_setting_t *value)
{
    return config_setting_type(value) == CONFIG_TYPE_FLOAT && config_setting_get_float(value) >= SOURCE_MISFIT;
}

/* Returns whether the value was good. */
static bool read_value(struct source *source, const config_setting_t *value, const struct setting_spec *specs,
                       const struct setting_spec *spec, struct settings *into)
{
    bool is_list = config_setting_is_array(value) || config_setting_is_list(value);
    size_t count = is_list ? (size_t)config_setting_length(value) : 1, good = 0;
    char **words = mem_alloc((count + 1) * sizeof(*words));
    const config_setting_t *wrong = is_list != (spec->type == SETTING_WORDS) ? value : NULL;
    bool is_good = false;

    for (; wrong == NULL && good < count; good++) {
        const config_setting_t *element = is_list ? config_setting_get_elem(value, (unsigned)good) : value;

        words[good] = scalar_text(element, spec);
        if (words[good] == NULL)
            wrong = element;
    }
    if (wrong == NULL) {
        AUTO_TEXT error = NULL;

        is_good = settings_set_words(into, specs, spec->name, count, (const char *const *)words, &error) == 0;
        if (!is_good)
            source_report(source, line_of(value), "%s", error);
    } else if (!is_misfit(wrong)) {
        AUTO_TEXT given = describe(wrong);

        source_report(source, line_of(wrong), "%s must be %s, not %s", spec->name, wanted(spec), given);
    }
    for (size_t i = 0; i < good; i++)
        free(words[i]);
    free(words);
    return is_good;
}

/* ---- One group ---- */

/* Names for suggestions. */
struct names {
    const char **list; /* NULL-terminated */
    size_t count;
};

static void add_name(struct names *names, const char *name)
{
    names->list = mem_resize(names->list, names->count + 2, sizeof(*names->list));
    names->list[names->count++] = name;
    names->list[names->count] = NULL;
}

static void add_specs(struct names *names, const struct setting_spec *specs)
{
    for (; specs->name != NULL; specs++)
        add_name(names, specs->name);
}

static bool has_name(const struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->list[i], name) == 0)
            return true;
    return false;
}

/*
 * Reads the keys of `group` into the tables of `keys` (the last has no specs). Keys named in `others` are somebody
 * else's. `place` is where this is, for a message. Returns whether all values were good.
 */
static bool read_group(struct source *source, const config_setting_t *group, const char *place, const struct keys *keys,
                       const struct names *others)
{
    struct names names = {0};
    bool all_good = true;

    for (const struct keys *table = keys; table->specs != NULL; table++)
        add_specs(&names, table->specs);
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *member = config_setting_get_elem(group, (unsigned)i);
        const char *name = config_setting_name(member), *nearest;
        const struct setting_spec *spec = NULL;

        for (const struct keys *table = keys; spec == NULL && table->specs != NULL; table++) {
            spec = setting_spec_find(table->specs, name);
            if (spec != NULL && !read_value(source, member, table->specs, spec, table->into))
                all_good = false;
        }
        if (spec != NULL || has_name(others, name))
            continue;
        nearest = names.count == 0 ? NULL : setting_nearest(name, names.list);
        if (nearest == NULL && others->count > 0)
            nearest = setting_nearest(name, others->list);
        if (nearest == NULL)
            source_report(source, line_of(member), "unknown key \"%s\" %s", name, place);
        else
            source_report(source, line_of(member), "unknown key \"%s\" %s; did you mean \"%s\"?", name, place, nearest);
    }
    free(names.list);
    return all_good;
}

/* The member `name` when it is a group; NULL when there is none, or, reported, when it is something else. */
static const config_setting_t *find_group(struct source *source, const config_setting_t *parent, const char *name)
{
    const config_setting_t *group = parent == NULL ? NULL : config_setting_get_member(parent, name);

    if (group == NULL || config_setting_is_group(group))
        return group;

    AUTO_TEXT given = describe(group);

    source_report(source, line_of(group), "%s must be a group, %s = { ... }, not %s", name, name, given);
    return NULL;
}

/* Reads a group that is one table and may be absent; what is not given gets its fallback. */
static const config_setting_t *read_section(struct source *source, const config_setting_t *parent, const char *name,
                                            const char *place, const struct setting_spec *specs, struct settings *into)
{
    const config_setting_t *group = find_group(source, parent, name);

    if (group != NULL)
        read_group(source, group, place, (const struct keys[]){{specs, into}, {0}}, &(const struct names){0});
    settings_complete(into, specs, NULL);
    return group;
}

/* ---- The groups but jobs ---- */

static void read_database(struct source *source, const config_setting_t *root, struct configuration *configuration)
{
    struct settings values = {0};
    const config_setting_t *group = read_section(source, root, "database", "in database", database_specs, &values);
    AUTO_TEXT error = NULL;
    bool secret = false;

    configuration->conninfo = mem_copy(setting_text(&values, "conninfo"));
    if (group != NULL) {
        unsigned line = line_of_key(group, "conninfo");
        const struct source_file *file = source_file_at(source, line);

        if (conninfo_inspect(configuration->conninfo, &secret, &error) < 0)
            source_report(source, line, "%s", error);
        else if (db_verify_conninfo(configuration->conninfo, &error) < 0)
            source_report(source, line, "conninfo cannot be used: %s", error);
        else if (secret && S_ISREG(file->mode) && (file->mode & S_IROTH) != 0)
            source_report(source, line, "conninfo holds a password, and everybody can read this file: chmod o-r %s",
                          file->path);
    }
    settings_free(&values);
}

/* Names are taken as they are, and quoted by us: quotes around one would become a part of it. */
static bool is_quoted(const char *name, size_t length)
{
    return length >= 2 && name[0] == '"' && name[length - 1] == '"';
}

static void check_identifier(struct source *source, const config_setting_t *group, const char *name, const char *value)
{
    if (is_quoted(value, strlen(value)))
        source_report(source, line_of_key(group, name), "%s = %s: leave the quotes inside of the text out", name, value);
    else if (strlen(value) > LONGEST_IDENTIFIER)
        source_report(source, line_of_key(group, name), "%s has %zu bytes: a name in PostgreSQL has at most %d", name,
                      strlen(value), LONGEST_IDENTIFIER);
}

static void check_ledger_schema(struct source *source, unsigned line, const char *schema)
{
    if (strncmp(schema, "pg_", 3) == 0)
        source_report(source, line, "schema \"%s\": PostgreSQL keeps names that begin with pg_ for itself", schema);
    else if (strcmp(schema, "information_schema") == 0)
        source_report(source, line, "schema \"%s\": PostgreSQL keeps that name for itself", schema);
    else if (strcmp(schema, "public") == 0)
        source_report(source, line,
                      "schema \"%s\": the ledger has tables with names such as run and job, and needs a schema of its "
                      "own, such as \"roundsman\"",
                      schema);
}

static void read_ledger(struct source *source, const config_setting_t *root, struct configuration *configuration)
{
    struct settings values = {0};
    const config_setting_t *group = read_section(source, root, "ledger", "in ledger", ledger_specs, &values);

    configuration->ledger_schema = mem_copy(setting_text(&values, "schema"));
    configuration->ledger_role = mem_copy(setting_text(&values, "role"));
    configuration->ledger_keep = setting_integer(&values, "keep");
    if (group != NULL) {
        check_identifier(source, group, "schema", configuration->ledger_schema);
        check_identifier(source, group, "role", configuration->ledger_role);
        check_ledger_schema(source, line_of_key(group, "schema"), configuration->ledger_schema);
    }
    settings_free(&values);
}

/* The key `name` is "timezone" or "touched_zone". */
static void check_zone(struct source *source, const config_setting_t *group, const char *name)
{
    const char *zone = NULL;

    if (config_setting_lookup_string(group, name, &zone) && *zone != '\0' && !schedule_zone_exists(zone))
        source_report(source, line_of_key(group, name),
                      "unknown %s \"%s\": give an IANA name that this host has, such as \"Asia/Seoul\" "
                      "(timedatectl list-timezones prints them)",
                      name, zone);
}

/* "schema.table" or "table". */
static void check_table(struct source *source, const config_setting_t *group, const char *value)
{
    const char *dot = strchr(value, '.');
    const char *last = dot == NULL ? value : dot + 1;
    size_t schema = dot == NULL ? 0 : (size_t)(dot - value), table = strlen(last);

    if (is_quoted(value, strlen(value)) || is_quoted(value, schema) || is_quoted(last, table))
        source_report(source, line_of_key(group, "table"), "table = %s: leave the quotes inside of the text out", value);
    else if (dot != NULL && (schema == 0 || table == 0 || strchr(dot + 1, '.') != NULL))
        source_report(source, line_of_key(group, "table"), "table must be \"table\" or \"schema.table\", not \"%s\"",
                      value);
    else if (schema > LONGEST_IDENTIFIER || table > LONGEST_IDENTIFIER)
        source_report(source, line_of_key(group, "table"), "table \"%s\": a name in PostgreSQL has at most %d bytes",
                      value, LONGEST_IDENTIFIER);
}

/* The names of one of the user's tables: shop_names[first] up to the next group's. */
static void read_shop_table(struct source *source, const config_setting_t *tables, size_t first, struct shop *shop)
{
    const char *name = shop_names[first].group;
    AUTO_TEXT place = mem_print("in tables.%s", name);
    struct setting_spec specs[SHOP_NAMES + 1] = {0};
    struct settings values = {0};
    size_t count = 0;

    for (; first + count < SHOP_NAMES && strcmp(shop_names[first + count].group, name) == 0; count++) {
        const struct shop_name *column = &shop_names[first + count];

        specs[count] = (struct setting_spec){.name = column->name,
                                             .type = SETTING_TEXT,
                                             .fallback = column->fallback,
                                             .may_be_empty = column->may_be_empty};
    }

    const config_setting_t *group = read_section(source, tables, name, place, specs, &values);

    for (size_t i = 0; i < count; i++) {
        const char *value = setting_text(&values, specs[i].name);

        *shop_slot(shop, &shop_names[first + i]) = mem_copy(value);
        if (group != NULL && strcmp(specs[i].name, "table") == 0)
            check_table(source, group, value);
        else if (group != NULL)
            check_identifier(source, group, specs[i].name, value);
    }

    const char *touched = setting_text(&values, "touched"), *zone = setting_text(&values, "touched_zone");

    if (group != NULL && touched != NULL && *touched == '\0' && *zone != '\0')
        source_report(source, line_of_key(group, "touched_zone"),
                      "touched_zone is the zone of touched, but touched is \"\": leave it out");
    else if (group != NULL)
        check_zone(source, group, "touched_zone");
    settings_free(&values);
}

static void read_tables(struct source *source, const config_setting_t *root, struct shop *shop)
{
    const config_setting_t *tables = find_group(source, root, "tables");
    struct names groups = {0};

    for (size_t i = 0; i < SHOP_NAMES; i++)
        if (i == 0 || strcmp(shop_names[i].group, shop_names[i - 1].group) != 0) {
            add_name(&groups, shop_names[i].group);
            read_shop_table(source, tables, i, shop);
        }
    if (tables != NULL)
        read_group(source, tables, "in tables", (const struct keys[]){{0}}, &groups);
    free(groups.list);
}

/* ---- Jobs ---- */

static void check_name(struct source *source, const config_setting_t *jobs, struct configuration *configuration,
                       size_t index)
{
    const config_setting_t *group = config_setting_get_elem(jobs, (unsigned)index);
    const char *name = configuration->jobs[index].name;
    unsigned line = line_of_key(group, "name");
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    if (name[strspn(name, letters)] != '\0' || *name == '-')
        source_report(source, line,
                      "name \"%s\": a job's name has letters, digits, \".\", \"_\" and \"-\", and does not "
                      "begin with \"-\"",
                      name);
    else if (strlen(name) > LONGEST_IDENTIFIER)
        source_report(source, line, "name \"%s\": a job's name has at most %d bytes", name, LONGEST_IDENTIFIER);
    for (size_t i = 0; i < index; i++) {
        const char *other = configuration->jobs[i].name;

        if (other != NULL && strcmp(other, name) == 0) {
            unsigned first = line_of_key(config_setting_get_elem(jobs, (unsigned)i), "name");

            source_report(source, line, "there is a job \"%s\" already, at %s:%u: give this one a name of its own",
                          name, source_file_at(source, first)->path, source_line_at(source, first).line);
            return;
        }
    }
}

static void check_kind(struct source *source, const config_setting_t *group, const char *name)
{
    struct names kinds = {0};
    AUTO_BUF list = {0};

    for (size_t i = 0; task_kinds[i] != NULL; i++) {
        add_name(&kinds, task_kinds[i]->name);
        buf_print(&list, "%s\"%s\"", i == 0 ? "" : task_kinds[i + 1] == NULL ? " and " : ", ", task_kinds[i]->name);
    }

    const char *nearest = setting_nearest(name, kinds.list);

    if (nearest != NULL)
        source_report(source, line_of_key(group, "kind"), "unknown kind \"%s\"; did you mean \"%s\"?", name, nearest);
    else
        source_report(source, line_of_key(group, "kind"), "unknown kind \"%s\": there are %s", name, list.text);
    free(kinds.list);
}

/* Keys that belong to other kinds than the job's. */
static void check_other_kinds(struct source *source, const config_setting_t *group, const char *place,
                              const struct task_kind *kind)
{
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *member = config_setting_get_elem(group, (unsigned)i);
        const char *name = config_setting_name(member);

        if (setting_spec_find(job_specs, name) != NULL || setting_spec_find(kind->settings, name) != NULL)
            continue;
        for (size_t k = 0; task_kinds[k] != NULL; k++)
            if (setting_spec_find(task_kinds[k]->settings, name) != NULL) {
                source_report(source, line_of(member),
                              "unknown key \"%s\" %s: it is for jobs of kind \"%s\", not \"%s\"", name, place,
                              task_kinds[k]->name, kind->name);
                break;
            }
    }
    if (!kind->takes_where && config_setting_get_member(group, "where") != NULL)
        source_report(source, line_of_key(group, "where"), "jobs of kind \"%s\" take no where", kind->name);
}

static void check_required(struct source *source, const config_setting_t *group, const char *place,
                           const struct setting_spec *specs)
{
    for (; specs->name != NULL; specs++)
        if (specs->required && config_setting_get_member(group, specs->name) == NULL)
            source_report(source, line_of(group), "no \"%s\" %s", specs->name, place);
}

/* Jitter delays an occurrence; delayed up to its successor it would have no meaning. */
static void check_jitter(struct source *source, const config_setting_t *group, const struct job *job)
{
    struct occurrence occurrence;
    usec_t last = MOMENT_NONE, shortest = INT64_MAX, at = INT64_C(1767225600) * USEC_PER_SEC; /* 2026 begins */
    char jitter[MOMENT_TEXT_MAX], pause[MOMENT_TEXT_MAX];

    if (job->schedule == NULL || job->jitter == 0)
        return;
    for (int i = 0; i < 100 && schedule_next(job->schedule, at, &occurrence) == 0; i++) {
        at = occurrence.at;
        if (last != MOMENT_NONE && at - last < shortest)
            shortest = at - last;
        last = at;
    }
    if (job->jitter >= shortest)
        source_report(source, line_of_key(group, "jitter"),
                      "jitter must be below %s, the shortest time between two occurrences of \"%s\", not %s",
                      duration_format(shortest, pause), job->schedule_text, duration_format(job->jitter, jitter));
}

static void read_schedule(struct source *source, const config_setting_t *group, struct job *job)
{
    AUTO_TEXT error = NULL;

    check_zone(source, group, "timezone");
    if (job->schedule_text == NULL)
        return;

    const char *zone = *job->timezone == '\0' || schedule_zone_exists(job->timezone) ? job->timezone : "UTC";

    if (schedule_parse(job->schedule_text, zone, &job->schedule, &error) < 0)
        source_report(source, line_of_key(group, "schedule"), "schedule \"%s\": %s", job->schedule_text, error);
    check_jitter(source, group, job);
}

/* What its kind says of its settings together. */
static void check_rules(struct source *source, const config_setting_t *group, const struct job *job)
{
    AUTO_BUF reasons = {0};

    job->kind->refuse(&job->settings, &reasons);
    for (const char *line = reasons.text; line != NULL && *line != '\0'; line = strchr(line, '\n') + 1)
        source_report(source, line_of(group), "%.*s", (int)strcspn(line, "\n"), line);
}

static void read_kind(struct source *source, const config_setting_t *group, const char *place, struct job *job,
                      struct settings *common)
{
    struct names others = {0};
    const char *kind = NULL;

    if (config_setting_lookup_string(group, "kind", &kind))
        job->kind = task_kind_find(kind);
    for (size_t k = 0; task_kinds[k] != NULL; k++)
        add_specs(&others, task_kinds[k]->settings);

    const struct keys keys[] = {
        {job_specs, common}, {job->kind == NULL ? NULL : job->kind->settings, &job->settings}, {0}};

    bool all_good = read_group(source, group, place, keys, &others);

    free(others.list);
    check_required(source, group, place, job_specs);
    if (job->kind == NULL) {
        if (kind != NULL && *kind != '\0')
            check_kind(source, group, kind);
        return;
    }
    check_other_kinds(source, group, place, job->kind);
    check_required(source, group, place, job->kind->settings);
    if (settings_complete(&job->settings, job->kind->settings, NULL) == 0 && all_good && job->kind->refuse != NULL)
        check_rules(source, group, job);
}

static void read_job(struct source *source, const config_setting_t *jobs, size_t index, const struct settings *defaults,
                     struct configuration *configuration)
{
    const config_setting_t *group = config_setting_get_elem(jobs, (unsigned)index);
    struct job *job = &configuration->jobs[index];
    struct settings common = settings_copy(defaults);
    const char *name = NULL;

    if (config_setting_is_group(group)) {
        AUTO_TEXT place = config_setting_lookup_string(group, "name", &name) ? mem_print("in job \"%s\"", name)
                                                                             : mem_print("in job %zu", index + 1);

        job->line = (int)source_line_at(source, line_of(group)).line;
        read_kind(source, group, place, job, &common);
        settings_complete(&common, job_specs, NULL);
        job_fill(job, &common);
        if (job->name != NULL)
            check_name(source, jobs, configuration, index);
        read_schedule(source, group, job);
    } else {
        AUTO_TEXT given = describe(group);

        source_report(source, line_of(group), "a job must be a group, { name = ...; }, not %s", given);
    }
    settings_free(&common);
}

static void read_jobs(struct source *source, const config_setting_t *root, struct configuration *configuration)
{
    const config_setting_t *jobs = config_setting_get_member(root, "jobs");
    const config_setting_t *group = find_group(source, root, "defaults");
    struct settings defaults = {0};

    if (group != NULL) {
        read_group(source, group, "in defaults", (const struct keys[]){{job_default_specs, &defaults}, {0}},
                   &(const struct names){0});
        check_zone(source, group, "timezone");
    }
    if (jobs == NULL) {
        source_report(source, 0, "no \"jobs\": there is nothing to do without jobs = ( { name = ...; }, ... )");
    } else if (!config_setting_is_list(jobs)) {
        AUTO_TEXT given = describe(jobs);

        source_report(source, line_of(jobs), "jobs must be a list of groups, jobs = ( { name = ...; }, ... ), not %s",
                      given);
    } else if (config_setting_length(jobs) == 0) {
        source_report(source, line_of(jobs), "jobs is empty: there is nothing to do");
    } else {
        configuration->job_count = (size_t)config_setting_length(jobs);
        configuration->jobs = mem_alloc(configuration->job_count * sizeof(*configuration->jobs));
        for (size_t i = 0; i < configuration->job_count; i++)
            read_job(source, jobs, i, &defaults, configuration);
    }
    settings_free(&defaults);
}

/* ---- The file ---- */

static void read_root(struct source *source, const config_setting_t *root, struct configuration *configuration)
{
    static const char *sections[] = {"database", "ledger", "tables", "defaults", "jobs", NULL};
    struct settings values = {0};

    read_group(source, root, "at the top level", (const struct keys[]){{root_specs, &values}, {0}},
               &(const struct names){sections, ELEMENTS(sections) - 1});
    settings_complete(&values, root_specs, NULL);
    configuration->max_clock_skew = setting_integer(&values, "max_clock_skew");
    configuration->max_replica_lag = setting_integer(&values, "max_replica_lag");
    configuration->max_slot_wal = setting_integer(&values, "max_slot_wal");
    settings_free(&values);
    read_database(source, root, configuration);
    read_ledger(source, root, configuration);
    read_tables(source, root, &configuration->shop);
    read_jobs(source, root, configuration);
}

#ifdef __SANITIZE_ADDRESS__
/* At a syntax error libconfig drops the text it holds. It is the only library here that does, and we cannot mend it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig.so\n";
}

const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}
#endif

/* libconfig's own messages, for an operator. */
static const char *explain(const char *error)
{
    static const struct {
        const char *error, *text;
    } texts[] = {
        {"syntax error", "syntax error, here or just before"},
        {"duplicate setting name", "a name here or just before is given twice in one group: take one of the two out"},
        {"mismatched element type in array", "an array [ ] takes values of one type: make it a list ( )"},
    };

    for (size_t i = 0; i < ELEMENTS(texts); i++)
        if (strcmp(texts[i].error, error) == 0)
            return texts[i].text;
    return error;
}

int configuration_load(const char *path, struct configuration **ret, char **ret_errors)
{
    struct configuration *configuration = mem_alloc(sizeof(*configuration));
    struct source source = {0};
    config_t config;

    configuration->path = mem_copy(path);
    config_init(&config);
    if (source_read(&source, path) == 0) {
        if (config_read_string(&config, source.text.text) == CONFIG_TRUE)
            read_root(&source, config_root_setting(&config), configuration);
        else
            source_report(&source, (unsigned)config_error_line(&config), "%s", explain(config_error_text(&config)));
    }
    config_destroy(&config);

    AUTO_TEXT errors = source_problems(&source);

    source_free(&source);
    if (*errors != '\0') {
        configuration_free(configuration);
        return mem_fail(-EINVAL, ret_errors, "%s", errors);
    }
    *ret = configuration;
    return 0;
}

void configuration_free(struct configuration *configuration)
{
    if (configuration == NULL)
        return;
    for (size_t i = 0; i < configuration->job_count; i++)
        job_clear(&configuration->jobs[i]);
    free(configuration->jobs);
    for (size_t i = 0; i < SHOP_NAMES; i++)
        free((char *)(uintptr_t)*shop_slot(&configuration->shop, &shop_names[i]));
    free(configuration->path);
    free(configuration->conninfo);
    free(configuration->ledger_schema);
    free(configuration->ledger_role);
    free(configuration);
}

const struct job *configuration_job(const struct configuration *configuration, const char *name)
{
    for (size_t i = 0; i < configuration->job_count; i++)
        if (strcmp(configuration->jobs[i].name, name) == 0)
            return &configuration->jobs[i];
    return NULL;
}

const char *configuration_nearest_job(const struct configuration *configuration, const char *name)
{
    struct names names = {0};

    for (size_t i = 0; i < configuration->job_count; i++)
        add_name(&names, configuration->jobs[i].name);

    const char *nearest = names.count == 0 ? NULL : setting_nearest(name, names.list);

    free(names.list);
    return nearest;
}
