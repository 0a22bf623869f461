/* SPDX-License-Identifier: PostgreSQL */
/*
 * schedule: cron's fields as bit masks, and the search for the next instant that matches them in a zone.
 *
 * Two rules carry all of daylight saving. A fixed time L occurs at the first instant at which the local clock has
 * reached L: in a gap that is the transition, in an overlap the first pass. A wildcard occurs at every instant at which
 * the local clock shows a match. Fields are skipped as a whole, so a search costs the same for a minute and a century.
 *
 * GLib tells the zone's offset at an instant, but not where its intervals end; those are found by bisection, close to
 * the instant in question only. Its tables end in the year 2999, so that later instants are looked up in the equal
 * year of an earlier 400-year cycle of the calendar. It misreads one zone's rule for the years that the zone's file does
 * not spell out (Debian's do until 2037): Europe/Dublin, whose daylight saving is negative and ends at an offset of zero.
 *
 * Where crontab(5) leaves room: a step needs a range or `*` before it ("5/10" is refused) and is at most the field's
 * size; a range of weekdays may end on a Sunday ("fri-sun"); `L` may stand in a list.
 *
 * Errors: -EINVAL with a sentence, -ERANGE. Never logs, reads a clock or TZ or TZDIR, or keeps state between calls.
 */
#include "schedule.h"

#include <errno.h>
#include <glib.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"

#define ZONEINFO "/usr/share/zoneinfo/"
#define DAY INT64_C(86400)
#define CYCLE (146097 * DAY)            /* 400 years: whole weeks, too */
#define CYCLE_FROM INT64_C(26192246400) /* 2800-01-01: later than any zone's last special rule, and known to GLib */
#define END INT64_C(253370764800)       /* 9999-01-01 */
#define REACH (3 * DAY)                 /* more than any two offsets of a zone differ, date line included */

enum part { SECOND, MINUTE, HOUR, MONTH_DAY, MONTH, WEEK_DAY, PARTS };

static const struct field {
    const char *name;
    int min, max, size;   /* size: of the cycle; Sunday is 0 and 7 */
    const char *names;    /* three letters each, from min */
    const char *and_else; /* what is allowed beside numbers */
} fields[PARTS] = {
    [SECOND] = {"second", 0, 59, 60, NULL, ", ranges, lists, steps and *"},
    [MINUTE] = {"minute", 0, 59, 60, NULL, ", ranges, lists, steps and *"},
    [HOUR] = {"hour", 0, 23, 24, NULL, ", ranges, lists, steps and *"},
    [MONTH_DAY] = {"day-of-month", 1, 31, 31, NULL, ", L (the last day), ranges, lists, steps and *"},
    [MONTH] = {"month", 1, 12, 12, "janfebmaraprmayjunjulaugsepoctnovdec", ", jan-dec, ranges, lists, steps and *"},
    [WEEK_DAY] = {"day-of-week", 0, 7, 7, "sunmontuewedthufrisat", ", sun-sat, ranges, lists, steps and *"},
};

static const struct alias {
    const char *name, *fields;
} aliases[] = {
    {"@hourly", "0 * * * *"},  {"@daily", "0 0 * * *"},  {"@midnight", "0 0 * * *"}, {"@weekly", "0 0 * * 0"},
    {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"},
};

struct set {
    uint64_t bits; /* bit n is the value n */
    bool starred; /* hour, minute: contains a `*`, so it follows the clock; days: begins with one, so is unrestricted */
    bool last;    /* has an `L` */
};

struct schedule {
    int64_t every; /* seconds; 0: the sets count */
    struct set sets[PARTS];
    GTimeZone *zone;
    char *zone_text;
};

/* ---- The text of a schedule ---- */

/* Reads a number or a name of `field`, and moves *text on. */
static int parse_value(const struct field *field, const char **text, const char *element, int *ret, char **ret_error)
{
    size_t digits = strspn(*text, "0123456789");
    long value;

    if (digits > 0) {
        value = strtol(*text, NULL, 10); /* LONG_MAX on overflow, which is out of range as well */
        if (value < field->min || value > field->max)
            return mem_fail(-EINVAL, ret_error, "%s %.*s is out of range %d-%d", field->name, (int)digits, *text,
                            field->min, field->max);
        *ret = (int)value;
        *text += digits;
        return 0;
    }
    for (int i = 0; field->names != NULL && i < field->size; i++)
        if (g_ascii_strncasecmp(*text, field->names + 3 * i, 3) == 0 && !g_ascii_isalnum((*text)[3])) {
            *ret = field->min + i;
            *text += 3;
            return 0;
        }
    return mem_fail(-EINVAL, ret_error, "%s \"%s\" is not understood: %d-%d%s are allowed", field->name, element,
                    field->min, field->max, field->and_else);
}

/* Reads the "/n" after a range or `*`. */
static int parse_step(const struct field *field, const char *text, const char *element, int *ret, char **ret_error)
{
    size_t digits = strspn(text, "0123456789");
    long step = strtol(text, NULL, 10);

    if (digits == 0 || text[digits] != '\0')
        return mem_fail(-EINVAL, ret_error, "%s \"%s\": a step is a number from 1 to %d", field->name, element,
                        field->size);
    if (step < 1 || step > field->size)
        return mem_fail(-EINVAL, ret_error, "%s step %s is out of range 1-%d", field->name, text, field->size);
    *ret = (int)step;
    return 0;
}

/* Adds one element of a list: `*`, a value, or a range, the first and last with an optional step; or `L`. */
static int parse_element(const struct field *field, const char *element, struct set *set, char **ret_error)
{
    const char *text = element;
    int from = field->min, to = field->max, step = 1, r;
    bool single = false;

    if (*text == '\0')
        return mem_fail(-EINVAL, ret_error, "%s has an empty element in its list", field->name);
    if (field == fields + MONTH_DAY && g_ascii_strcasecmp(text, "L") == 0) {
        set->last = true;
        return 0;
    }
    if (*text == '*') {
        text++;
    } else {
        if ((r = parse_value(field, &text, element, &from, ret_error)) < 0)
            return r;
        to = from;
        single = *text != '-';
        if (!single) {
            text++;
            if ((r = parse_value(field, &text, element, &to, ret_error)) < 0)
                return r;
            if (field == fields + WEEK_DAY && to == 0 && from > 0)
                to = 7; /* "fri-sun" */
            if (to < from)
                return mem_fail(-EINVAL, ret_error, "%s range %s runs backwards; write %d-%d,%d-%d", field->name,
                                element, from, field->max, field->min, to);
        }
    }
    if (*text == '/' && single)
        return mem_fail(-EINVAL, ret_error, "%s \"%s\": a step needs a range or * before it, as in %d-%d%s",
                        field->name, element, from, field->max, text);
    if (*text == '/' && (r = parse_step(field, text + 1, element, &step, ret_error)) < 0)
        return r;
    if (*text != '\0' && *text != '/')
        return mem_fail(-EINVAL, ret_error, "%s \"%s\" is not understood after \"%.*s\"", field->name, element,
                        (int)(text - element), element);
    for (int value = from; value <= to; value += step)
        set->bits |= UINT64_C(1) << (field == fields + WEEK_DAY ? value % 7 : value);
    return 0;
}

static int parse_field(enum part part, const char *text, struct set *set, char **ret_error)
{
    AUTO_TEXT copy = mem_copy(text);
    char *rest = copy, *element;
    int r;

    if (part == MINUTE || part == HOUR)
        set->starred = strchr(text, '*') != NULL;
    else if (part == MONTH_DAY || part == WEEK_DAY)
        set->starred = text[0] == '*';
    while ((element = strsep(&rest, ",")) != NULL)
        if ((r = parse_element(fields + part, element, set, ret_error)) < 0)
            return r;
    return 0;
}

static int parse_fields(const char *spec, struct schedule *schedule, char **ret_error)
{
    AUTO_TEXT copy = mem_copy(spec);
    char *words[PARTS], *rest = NULL;
    int count = 0, r;

    for (char *word = strtok_r(copy, " \t\r\n", &rest); word != NULL; word = strtok_r(NULL, " \t\r\n", &rest)) {
        if (count < PARTS)
            words[count] = word;
        count++;
    }
    if (count != PARTS && count != PARTS - 1)
        return mem_fail(-EINVAL, ret_error,
                        "a schedule has five fields (minute hour day-of-month month day-of-week), or six with seconds "
                        "first, or is @hourly, @daily, @weekly, @monthly, @yearly or @every DURATION; this has %d",
                        count);
    if (count < PARTS)
        schedule->sets[SECOND].bits = 1; /* second 0 */
    for (int i = 0; i < count; i++) {
        enum part part = (enum part)(PARTS - count + i);

        if ((r = parse_field(part, words[i], schedule->sets + part, ret_error)) < 0)
            return r;
    }
    return 0;
}

static int parse_every(const char *text, struct schedule *schedule, char **ret_error)
{
    AUTO_TEXT copy = mem_copy(text + strspn(text, " \t"));
    usec_t length = 0;
    int r;

    for (size_t end = strlen(copy); end > 0 && g_ascii_isspace(copy[end - 1]); end--)
        copy[end - 1] = '\0';
    r = duration_parse(copy, &length);
    if (r == -ERANGE)
        return mem_fail(-EINVAL, ret_error, "@every %s is out of range 1s to 36525d", copy);
    if (r < 0 || length < USEC_PER_SEC || length % USEC_PER_SEC != 0)
        return mem_fail(-EINVAL, ret_error,
                        "@every \"%s\": a duration of whole seconds is needed, at least 1s, such as @every 30m", copy);
    schedule->every = length / USEC_PER_SEC;
    return 0;
}

static int parse_spec(const char *spec, struct schedule *schedule, char **ret_error)
{
    size_t length;

    spec += strspn(spec, " \t\r\n");
    if (*spec != '@')
        return parse_fields(spec, schedule, ret_error);
    length = strcspn(spec, " \t\r\n");
    if (length == strlen("@every") && g_ascii_strncasecmp(spec, "@every", length) == 0)
        return parse_every(spec + length, schedule, ret_error);
    for (size_t i = 0; i < ELEMENTS(aliases); i++)
        if (strlen(aliases[i].name) == length && g_ascii_strncasecmp(spec, aliases[i].name, length) == 0 &&
            spec[length + strspn(spec + length, " \t\r\n")] == '\0')
            return parse_fields(aliases[i].fields, schedule, ret_error);
    return mem_fail(-EINVAL, ret_error,
                    "\"%s\" is not known: @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually and "
                    "@every DURATION are",
                    spec);
}

static uint64_t stepped(const struct field *field, int step)
{
    uint64_t bits = 0;

    for (int value = field->min; value < field->min + field->size; value += step)
        bits |= UINT64_C(1) << value;
    return bits;
}

/* A list, with ranges where they read better: "1-5,10-50/10,55". */
static void print_list(uint64_t bits, const char *comma, struct buf *buf)
{
    while (bits != 0) {
        int from = __builtin_ctzll(bits), step = 0, to = from, count = 1;

        bits &= bits - 1;
        if (bits != 0)
            step = __builtin_ctzll(bits) - from;
        while (step > 0 && to + step < 64 && (bits >> (to + step) & 1) != 0) {
            to += step;
            count++;
        }
        if (count < (step == 1 ? 3 : 4)) {
            buf_print(buf, "%s%d", comma, from);
        } else {
            buf_print(buf, "%s%d-%d", comma, from, to);
            if (step > 1)
                buf_print(buf, "/%d", step);
            for (int value = from; value <= to; value += step)
                bits &= ~(UINT64_C(1) << value);
        }
        comma = ",";
    }
}

static void print_field(enum part part, const struct set *set, struct buf *buf)
{
    const struct field *field = fields + part;
    const char *comma = "";
    uint64_t bits = set->bits;
    int step = 1;

    /* Where `*` has a meaning of its own, it is kept: its widest part first ("*" + "/60" is minute 0 at least). */
    if (set->starred || ((part == SECOND || part == MONTH) && bits == stepped(field, 1))) {
        while ((stepped(field, step) & ~bits) != 0)
            step++;
        buf_add(buf, "*");
        if (step > 1)
            buf_print(buf, "/%d", step);
        bits &= ~stepped(field, step);
        comma = ",";
    }
    print_list(bits, comma, buf);
    if (set->last)
        buf_print(buf, "%sL", set->bits != 0 ? "," : "");
}

char *schedule_print(const struct schedule *schedule)
{
    struct buf buf = {0};
    char duration[MOMENT_TEXT_MAX];

    if (schedule->every > 0)
        return mem_print("@every %s", duration_format(schedule->every * USEC_PER_SEC, duration));
    for (enum part part = schedule->sets[SECOND].bits == 1 ? MINUTE : SECOND; part < PARTS; part++) {
        if (buf.length > 0)
            buf_add(&buf, " ");
        print_field(part, schedule->sets + part, &buf);
    }
    return buf_take(&buf);
}

/* ---- Zones ---- */

/*
 * The zone of an IANA name, or NULL. GLib gets a path, not the name: it would take "+09:00" and "EST5" for rules, and
 * look at TZDIR. No zone's name begins with a small letter or has a dot in it, but the other files in the zoneinfo
 * directory do (zone.tab, posixrules, right/…), and of those GLib complains on standard error.
 */
static GTimeZone *open_zone(const char *name)
{
    AUTO_TEXT path = NULL;

    if (name == NULL || !g_ascii_isupper(name[0]) || strstr(name, "//") != NULL ||
        name[strspn(name, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "_+-/")] != '\0')
        return NULL;
    path = mem_print(ZONEINFO "%s", name);
    return g_time_zone_new_identifier(path);
}

/* The host's zone: where the link /etc/localtime leads to, else what /etc/timezone names, else UTC as localtime(5) has it. */
static GTimeZone *open_host_zone(char **ret_name)
{
    char text[PATH_MAX] = "", *name;
    ssize_t length = readlink("/etc/localtime", text, sizeof(text) - 1);
    bool absent = length < 0 && errno == ENOENT;
    GTimeZone *zone = NULL;
    FILE *file;

    if (length > 0 && (name = strstr(text, "zoneinfo/")) != NULL) {
        name += strlen("zoneinfo/");
        zone = open_zone(name);
        *ret_name = mem_copy(name);
    }
    if (zone == NULL && (file = fopen("/etc/timezone", "re")) != NULL) {
        free(*ret_name);
        *ret_name = mem_copy(fgets(text, sizeof(text), file) != NULL ? text : "");
        (*ret_name)[strcspn(*ret_name, " \t\r\n#")] = '\0';
        zone = open_zone(*ret_name);
        fclose(file);
    } else if (zone == NULL && absent) {
        *ret_name = mem_copy("UTC");
        zone = open_zone(*ret_name);
    }
    return zone;
}

static int parse_zone(const char *name, struct schedule *schedule, char **ret_error)
{
    AUTO_TEXT host = NULL;

    if (name != NULL && name[0] != '\0') {
        schedule->zone = open_zone(name);
        schedule->zone_text = mem_copy(name);
        if (schedule->zone == NULL)
            return mem_fail(-EINVAL, ret_error,
                            "time zone \"%s\" is not known on this host: an IANA name such as Europe/Berlin is needed",
                            name);
        return 0;
    }
    schedule->zone = open_host_zone(&host);
    if (schedule->zone == NULL)
        return mem_fail(-EINVAL, ret_error,
                        "the host's time zone has no known name (/etc/localtime is no link to one, /etc/timezone names "
                        "none): set an IANA name such as Europe/Berlin");
    schedule->zone_text = mem_print("%s (the host's)", host);
    return 0;
}

const char *schedule_zone(const struct schedule *schedule)
{
    return schedule->zone_text;
}

bool schedule_zone_exists(const char *name)
{
    GTimeZone *zone = open_zone(name);

    if (zone != NULL)
        g_time_zone_unref(zone);
    return zone != NULL;
}

/* The number of the interval of one offset that `at` is in; it changes where, and only where, the zone's rules do. */
static int interval(const struct schedule *schedule, int64_t at)
{
    if (at >= CYCLE_FROM)
        at = CYCLE_FROM - CYCLE + (at - CYCLE_FROM) % CYCLE;
    return g_time_zone_find_interval(schedule->zone, G_TIME_TYPE_UNIVERSAL, at);
}

static int64_t offset(const struct schedule *schedule, int64_t at)
{
    return g_time_zone_get_offset(schedule->zone, interval(schedule, at));
}

/* The first instant after `from` that is in another interval; `to` must be in another one. */
static int64_t transition(const struct schedule *schedule, int64_t from, int64_t to)
{
    int number = interval(schedule, from);

    while (to - from > 1) {
        int64_t middle = from + (to - from) / 2;

        if (interval(schedule, middle) == number)
            from = middle;
        else
            to = middle;
    }
    return to;
}

char *schedule_local(const struct schedule *schedule, usec_t at)
{
    static const char days[][4] = {"Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"}; /* 1970-01-01 was a Thursday */
    int64_t second = at / USEC_PER_SEC - (at % USEC_PER_SEC < 0), east = offset(schedule, second), day,
            size = llabs(east);
    char text[MOMENT_TEXT_MAX];
    struct buf buf = {0};

    if (second >= END || second <= -END) /* MOMENT_NONE among them; near the type's ends, arithmetic would overflow */
        return mem_copy(moment_format(at, text));
    second += east;
    day = second / DAY - (second % DAY < 0);
    moment_format(second * USEC_PER_SEC, text);
    text[strlen(text) - 1] = '\0'; /* the Z */
    *strchr(text, 'T') = ' ';
    buf_print(&buf, "%s %s %s %c%02d:%02d", days[(day % 7 + 7) % 7], text,
              g_time_zone_get_abbreviation(schedule->zone, interval(schedule, second - east)), east < 0 ? '-' : '+',
              (int)(size / 3600), (int)(size / 60 % 60));
    if (size % 60 != 0)
        buf_print(&buf, ":%02d", (int)(size % 60));
    return buf_take(&buf);
}

/* ---- The next match on a calendar without zones, in local seconds since 1970-01-01T00:00:00 ---- */

static int first_bit(uint64_t bits, int from)
{
    bits = from < 64 ? bits >> from << from : 0;
    return bits != 0 ? __builtin_ctzll(bits) : -1;
}

/* The first matching second of a day that is not before `from` (a second of the day), or -1. */
static int64_t match_time(const struct set *sets, int64_t from)
{
    int from_hour = (int)(from / 3600), from_minute = (int)(from / 60 % 60), from_second = (int)(from % 60);

    for (int hour = from_hour; (hour = first_bit(sets[HOUR].bits, hour)) >= 0; hour++)
        for (int minute = hour > from_hour ? 0 : from_minute; (minute = first_bit(sets[MINUTE].bits, minute)) >= 0;
             minute++) {
            bool later = hour > from_hour || minute > from_minute;
            int second = first_bit(sets[SECOND].bits, later ? 0 : from_second);

            if (second >= 0)
                return hour * 3600 + minute * 60 + second;
        }
    return -1;
}

/* crontab(5): where both day fields are restricted, that is, begin with no `*`, either suffices. */
static bool match_day(const struct set *sets, int month_day, int month_days, int week_day)
{
    bool by_month = (sets[MONTH_DAY].bits >> month_day & 1) != 0 || (sets[MONTH_DAY].last && month_day == month_days);
    bool by_week = (sets[WEEK_DAY].bits >> week_day & 1) != 0;

    return sets[MONTH_DAY].starred || sets[WEEK_DAY].starred ? by_month && by_week : by_month || by_week;
}

/* The first matching local second that is not before `from`; false when there is none before the year 10000. */
static bool match(const struct set *sets, int64_t from, int64_t *ret)
{
    int64_t day = from / DAY - (from % DAY < 0), midnight = match_time(sets, 0),
            time = match_time(sets, from - day * DAY);
    struct civil civil;

    if (time < 0) {
        day++;
        time = midnight;
    }
    civil = civil_from_day(day);
    while (civil.year <= 9999) {
        int days = civil_month_days(civil.year, civil.month);

        if ((sets[MONTH].bits >> civil.month & 1) != 0) {
            for (; civil.day <= days; civil.day++, day++, time = midnight)
                if (match_day(sets, civil.day, days, (int)((day % 7 + 7 + 4) % 7))) {
                    *ret = day * DAY + time;
                    return true;
                }
        } else {
            day += days - civil.day + 1;
            time = midnight;
        }
        civil.day = 1;
        if (++civil.month > 12) {
            civil.month = 1;
            civil.year++;
        }
    }
    return false;
}

/* ---- The next occurrence, in seconds ---- */

static int64_t next_every(int64_t every, int64_t after)
{
    return (after / every - (after % every < 0) + 1) * every;
}

/* The first instant at which the local clock has reached `local`. */
static int64_t first_reached(const struct schedule *schedule, int64_t local)
{
    int64_t from = local - REACH;

    for (;;) {
        int64_t at = MAX(from, local - offset(schedule, from));

        if (interval(schedule, at) == interval(schedule, from))
            return at;
        from = transition(schedule, from, at);
    }
}

/* Whether the local clock, which shows `local` at `at`, soon shows it again. */
static bool comes_again(const struct schedule *schedule, int64_t at, int64_t local)
{
    for (int64_t from = at, to = at + REACH; interval(schedule, from) != interval(schedule, to);) {
        from = transition(schedule, from, to);
        at = local - offset(schedule, from);
        if (interval(schedule, at) == interval(schedule, from))
            return true;
    }
    return false;
}

static int next_fixed(const struct schedule *schedule, int64_t after, int64_t *ret, enum occurrence_mark *ret_mark)
{
    int64_t high = after + offset(schedule, after), local, at;

    /* The latest that the local clock has shown: what it passed before it was put back is done. */
    for (int64_t from = after - REACH; interval(schedule, from) != interval(schedule, after);) {
        int64_t end = transition(schedule, from, after);

        high = MAX(high, end - 1 + offset(schedule, from));
        from = end;
    }
    if (!match(schedule->sets, high + 1, &local))
        return -ERANGE;
    at = first_reached(schedule, local);
    *ret = at;
    *ret_mark = at + offset(schedule, at) > local  ? OCCURRENCE_GAP
                : comes_again(schedule, at, local) ? OCCURRENCE_OVERLAP
                                                   : OCCURRENCE_PLAIN;
    return 0;
}

static int next_wild(const struct schedule *schedule, int64_t after, int64_t *ret)
{
    int64_t from = after + 1, local;

    while (from < END && match(schedule->sets, from + offset(schedule, from), &local)) {
        *ret = local - offset(schedule, from);
        if (interval(schedule, *ret) == interval(schedule, from))
            return 0;
        from = transition(schedule, from, *ret); /* the clock shows something else by then: look again from there */
    }
    return -ERANGE;
}

int schedule_next(const struct schedule *schedule, usec_t after, struct occurrence *ret)
{
    int64_t second = after / USEC_PER_SEC - (after % USEC_PER_SEC < 0), at = END;
    enum occurrence_mark mark = OCCURRENCE_PLAIN;
    int r = 0;

    if (second >= END)
        return -ERANGE;
    if (schedule->every > 0)
        at = next_every(schedule->every, second);
    else if (schedule->sets[MINUTE].starred || schedule->sets[HOUR].starred)
        r = next_wild(schedule, second, &at);
    else
        r = next_fixed(schedule, second, &at, &mark);
    if (r < 0 || at >= END)
        return -ERANGE;
    *ret = (struct occurrence){.at = at * USEC_PER_SEC, .mark = mark};
    return 0;
}

bool schedule_has(const struct schedule *schedule, usec_t at)
{
    struct occurrence next;

    return at % USEC_PER_SEC == 0 && schedule_next(schedule, at - 1, &next) == 0 && next.at == at;
}

int schedule_parse(const char *spec, const char *zone, struct schedule **ret, char **ret_error)
{
    struct schedule *schedule = mem_alloc(sizeof(*schedule));
    int64_t any;
    int r = parse_spec(spec, schedule, ret_error);

    if (r == 0 && schedule->every == 0 && !match(schedule->sets, 0, &any))
        r = mem_fail(-EINVAL, ret_error,
                     "\"%s\" would never run: no month of its month field has a day that its "
                     "day-of-month field allows",
                     spec);
    if (r == 0)
        r = parse_zone(zone, schedule, ret_error);
    if (r < 0) {
        schedule_free(schedule);
        return r;
    }
    *ret = schedule;
    return 0;
}

void schedule_free(struct schedule *schedule)
{
    if (schedule == NULL)
        return;
    if (schedule->zone != NULL)
        g_time_zone_unref(schedule->zone);
    free(schedule->zone_text);
    free(schedule);
}
