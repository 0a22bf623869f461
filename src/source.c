/* SPDX-License-Identifier: PostgreSQL */
/*
 * source: joins the files, and finds what libconfig would not report: integers that it wraps, comments and texts
 * without an end, included files that include themselves.
 *
 * The scanner follows the tokens of libconfig's own: names, numbers, texts, three styles of comment, and @include at
 * the beginning of a line. It never judges what they mean.
 */
#include "source.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGEST_FILE (1 << 20)
#define DEEPEST_INCLUDE 10 /* as libconfig's */

/* One file being scanned. */
struct scan {
    struct source *source;
    const struct scan *parent; /* the one that includes it; NULL: none */
    dev_t device;
    ino_t inode;
    size_t file;
    unsigned line, depth;
    const char *at, *end; /* what is not scanned yet; *end is NUL */
    bool line_begins;     /* nothing but blanks so far on this line */
    bool broken;
};

static void report_at(struct source *source, struct source_line at, const char *format, va_list list)
{
    struct buf text = {0};

    buf_vprint(&text, format, list);
    source->problems = mem_resize(source->problems, source->problem_count + 1, sizeof(*source->problems));
    source->problems[source->problem_count] =
        (struct source_problem){.at = at, .order = source->problem_count, .text = buf_take(&text)};
    source->problem_count++;
}

static void PRINTF_LIKE(3, 4) report(struct scan *scan, unsigned line, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    report_at(scan->source, (struct source_line){scan->file, line}, format, list);
    va_end(list);
}

void source_report(struct source *source, unsigned line, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    report_at(source, source_line_at(source, line), format, list);
    va_end(list);
}

struct source_line source_line_at(const struct source *source, unsigned line)
{
    if (line == 0 || source->line_count == 0)
        return (struct source_line){0};
    return source->lines[line <= source->line_count ? line - 1 : source->line_count - 1];
}

const struct source_file *source_file_at(const struct source *source, unsigned line)
{
    return &source->files[source_line_at(source, line).file];
}

static int compare(const void *left, const void *right)
{
    const struct source_problem *a = left, *b = right;

    if (a->at.file != b->at.file)
        return a->at.file < b->at.file ? -1 : 1;
    if (a->at.line != b->at.line)
        return a->at.line < b->at.line ? -1 : 1;
    return a->order < b->order ? -1 : 1;
}

char *source_problems(struct source *source)
{
    struct buf lines = {0};

    if (source->problem_count > 0)
        qsort(source->problems, source->problem_count, sizeof(*source->problems), compare);
    for (size_t i = 0; i < source->problem_count; i++) {
        const struct source_problem *problem = &source->problems[i];

        buf_add(&lines, source->files[problem->at.file].path);
        if (problem->at.line > 0)
            buf_print(&lines, ":%u", problem->at.line);
        buf_print(&lines, ": %s\n", problem->text);
    }
    return buf_take(&lines);
}

void source_free(struct source *source)
{
    for (size_t i = 0; i < source->file_count; i++)
        free(source->files[i].path);
    for (size_t i = 0; i < source->problem_count; i++)
        free(source->problems[i].text);
    free(source->files);
    free(source->lines);
    free(source->problems);
    buf_free(&source->text);
    *source = (struct source){0};
}

/* ---- Tokens ---- */

static void pass(struct scan *scan, size_t count)
{
    struct source *source = scan->source;

    for (; count > 0 && scan->at < scan->end; count--) {
        buf_add_bytes(&source->text, scan->at, 1);
        if (*scan->at++ == '\n') {
            source->lines = mem_resize(source->lines, source->line_count + 1, sizeof(*source->lines));
            source->lines[source->line_count++] = (struct source_line){scan->file, ++scan->line};
            scan->line_begins = true;
        }
    }
}

static bool next_is(const struct scan *scan, const char *token)
{
    return strncmp(scan->at, token, strlen(token)) == 0; /* *end is NUL, so this stops there */
}

static void pass_comment(struct scan *scan)
{
    unsigned line = scan->line;

    for (pass(scan, 2); scan->at < scan->end; pass(scan, 1))
        if (next_is(scan, "*/")) {
            pass(scan, 2);
            return;
        }
    report(scan, line, "the comment that begins here has no end: */ is missing");
    buf_add(&scan->source->text, "*/"); /* an included file's does not reach into the including one */
}

static void pass_text(struct scan *scan)
{
    unsigned line = scan->line;

    for (pass(scan, 1); scan->at < scan->end; pass(scan, *scan->at == '\\' ? 2 : 1))
        if (*scan->at == '"') {
            pass(scan, 1);
            return;
        }
    report(scan, line, "the text that begins here has no end: \" is missing (or one is too many before it)");
    buf_add(&scan->source->text, "\"");
}

/* Whether the digits at `digits` are within `most`, in base 10 or 16. */
static bool fits(const char *digits, size_t length, unsigned base, uint64_t most)
{
    uint64_t value = 0;

    for (size_t i = 0; i < length; i++) {
        int c = tolower((unsigned char)digits[i]);
        uint64_t digit = (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);

        if (value > (most - digit) / base)
            return false;
        value = value * base + digit;
    }
    return true;
}

static void pass_number(struct scan *scan)
{
    const char *begin = scan->at, *digits = begin + (*begin == '-' || *begin == '+');
    bool hex = digits == begin && *begin == '0' && tolower((unsigned char)begin[1]) == 'x' &&
               isxdigit((unsigned char)begin[2]);
    uint64_t negative = *begin == '-';

    digits += hex ? 2 : 0;

    size_t length = strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");
    const char *end = digits + length;

    if (!hex && (*end == '.' || *end == 'e' || *end == 'E')) { /* a float */
        pass(scan, (size_t)(end + 1 - begin));
        return;
    }

    bool is_long = *end == 'L';

    end += is_long ? 1 + (end[1] == 'L') : 0;
    if (fits(digits, length, hex ? 16 : 10, (is_long ? (uint64_t)INT64_MAX : INT32_MAX) + negative)) {
        pass(scan, (size_t)(end - begin));
        return;
    }
    if (fits(digits, length, hex ? 16 : 10, (uint64_t)INT64_MAX + negative))
        report(scan, scan->line, "%.*s does not fit 32 bits: write %.*sL", (int)(end - begin), begin,
               (int)(end - begin), begin);
    else
        report(scan, scan->line, "%.*s does not fit 64 bits", (int)(end - begin), begin);
    scan->at = end;
    buf_print(&scan->source->text, "%g", SOURCE_MISFIT);
}

/* ---- UTF-8 ---- */

/* The length of the character at `at`, which a NUL ends at the latest; 0: it is none that the server would take. */
static size_t character(const unsigned char *at)
{
    size_t length = at[0] < 0x80 ? 1 : at[0] < 0xC2 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : at[0] < 0xF5 ? 4 : 0;

    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    if ((at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xF0 && at[1] < 0x90)) /* longer than it need be */
        return 0;
    if ((at[0] == 0xED && at[1] > 0x9F) || (at[0] == 0xF4 && at[1] > 0x8F)) /* a surrogate, or beyond Unicode */
        return 0;
    return length;
}

/* Our sessions talk UTF-8. Of what is not, the first byte of each file is told: one remedy mends all of them. */
static void check_encoding(struct scan *scan)
{
    unsigned line = scan->line, byte = 1;
    size_t length;

    for (const char *at = scan->at; at < scan->end; at += length) {
        length = character((const unsigned char *)at);
        if (length == 0) {
            report(scan, line,
                   "the file must be UTF-8, and byte %u of this line (0x%02x) is not; if it is Latin-1, "
                   "iconv -f LATIN1 -t UTF-8 converts it",
                   byte, (unsigned)(unsigned char)*at);
            return;
        }
        byte = *at == '\n' ? 1 : byte + (unsigned)length;
        line += *at == '\n';
    }
}

/* ---- Files ---- */

static int scan_file(struct source *source, const struct scan *parent, const char *path);

/* "conf.d/jobs.conf" beside "/etc/roundsman/roundsman.conf". */
static char *beside(const char *including, const char *path)
{
    const char *slash = strrchr(including, '/');

    if (*path == '/' || slash == NULL)
        return mem_copy(path);
    return mem_print("%.*s/%s", (int)(slash - including), including, path);
}

static void follow_include(struct scan *scan)
{
    struct source *source = scan->source;
    const char *at = scan->at + strlen("@include");
    AUTO_BUF name = {0};

    at += strspn(at, " \t");
    if (*at == '"')
        for (at++; *at != '"' && *at != '\n' && at < scan->end; at++) {
            at += *at == '\\' && (at[1] == '"' || at[1] == '\\');
            buf_add_bytes(&name, at, 1);
        }
    if (*at != '"' || name.length == 0) {
        report(scan, scan->line, "@include needs the name of a file in quotes: @include \"jobs.conf\"");
        scan->broken = true;
        scan->at += strcspn(scan->at, "\n");
        return;
    }
    scan->at = at + 1;

    AUTO_TEXT path = beside(source->files[scan->file].path, name.text);

    if (scan_file(source, scan, path) < 0)
        scan->broken = true;
    source->lines[source->line_count - 1] = (struct source_line){scan->file, scan->line};
    buf_add(&source->text, "/**/"); /* what follows is not the beginning of a line: libconfig must include nothing */
    scan->line_begins = false;
}

static void scan_text(struct scan *scan)
{
    while (scan->at < scan->end && !scan->broken) {
        char c = *scan->at;

        if (scan->line_begins && next_is(scan, "@include")) {
            follow_include(scan);
            continue;
        }
        scan->line_begins = scan->line_begins && (c == ' ' || c == '\t');
        if (c == '#' || next_is(scan, "//"))
            pass(scan, strcspn(scan->at, "\n"));
        else if (next_is(scan, "/*"))
            pass_comment(scan);
        else if (c == '"')
            pass_text(scan);
        else if (isalpha((unsigned char)c) || c == '*')
            pass(scan, strspn(scan->at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_*"));
        else if (isdigit((unsigned char)c) || ((c == '-' || c == '+') && isdigit((unsigned char)scan->at[1])))
            pass_number(scan);
        else
            pass(scan, 1);
    }
}

/* Reads a file whole. Returns 0 or negative errno. */
static int read_file(const char *path, struct buf *text, struct stat *status)
{
    int file = open(path, O_RDONLY | O_CLOEXEC), error = 0;
    char block[16384];
    ssize_t got;

    if (file < 0)
        return -errno;
    if (fstat(file, status) < 0)
        error = -errno;
    while (error == 0 && (got = read(file, block, sizeof(block))) != 0) {
        if (got > 0)
            buf_add_bytes(text, block, (size_t)got);
        if (got < 0 && errno != EINTR)
            error = -errno;
        if (text->length > LARGEST_FILE)
            error = -EFBIG;
    }
    close(file);
    return error;
}

/* A file that cannot be taken is a problem of the line that includes it, or of the first file as a whole. */
static int PRINTF_LIKE(4, 5)
    refuse(struct source *source, const struct scan *parent, const char *path, const char *format, ...)
{
    AUTO_BUF reason = {0};
    va_list list;

    va_start(list, format);
    buf_vprint(&reason, format, list);
    va_end(list);
    if (parent == NULL)
        source_report(source, 0, "%s", reason.text);
    else
        source_report(source, (unsigned)source->line_count, "cannot include %s: %s", path, reason.text);
    return -EINVAL;
}

static int scan_file(struct source *source, const struct scan *parent, const char *path)
{
    AUTO_BUF text = {0};
    struct stat status = {0};
    int error = read_file(path, &text, &status);

    if (parent == NULL) { /* also when it cannot be read: problems name it */
        source->files = mem_alloc(sizeof(*source->files));
        source->files[source->file_count++] = (struct source_file){mem_copy(path), status.st_mode};
    }
    if (error < 0)
        return refuse(source, parent, path, "%s%s", parent == NULL ? "cannot read this file: " : "", strerror(-error));
    if (parent == NULL && text.length == 0)
        return refuse(source, parent, path, "this file is empty");
    if (memchr(text.text == NULL ? "" : text.text, '\0', text.length) != NULL)
        return refuse(source, parent, path, "it has a NUL byte: this is no text");
    if (parent != NULL && parent->depth == DEEPEST_INCLUDE)
        return refuse(source, parent, path, "files include files %d deep", DEEPEST_INCLUDE);
    for (const struct scan *above = parent; above != NULL; above = above->parent)
        if (above->device == status.st_dev && above->inode == status.st_ino)
            return refuse(source, parent, path, "it would include itself");
    if (parent != NULL) {
        source->files = mem_resize(source->files, source->file_count + 1, sizeof(*source->files));
        source->files[source->file_count++] = (struct source_file){mem_copy(path), status.st_mode};
    } else {
        source->lines = mem_alloc(sizeof(*source->lines));
        source->line_count = 1;
    }

    /* libconfig knows no comment that ends with the file, and the including file goes on on a line of its own. */
    if (text.length == 0 || text.text[text.length - 1] != '\n')
        buf_add(&text, "\n");

    struct scan scan = {
        .source = source,
        .parent = parent,
        .device = status.st_dev,
        .inode = status.st_ino,
        .file = source->file_count - 1,
        .line = 1,
        .depth = parent == NULL ? 1 : parent->depth + 1,
        .at = text.text,
        .end = text.text + text.length,
        .line_begins = true,
    };

    source->lines[source->line_count - 1] = (struct source_line){scan.file, 1};
    check_encoding(&scan);
    scan_text(&scan);
    return scan.broken ? -EINVAL : 0;
}

int source_read(struct source *source, const char *path)
{
    return scan_file(source, NULL, path);
}
