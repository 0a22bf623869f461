/* SPDX-License-Identifier: PostgreSQL */
#include "frozen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kinds.h"

/* ---- JSON ---- */

static void add_string(struct buf *json, const char *text)
{
    if (text == NULL) {
        buf_add(json, "null");
        return;
    }
    buf_add(json, "\"");
    for (; *text != '\0'; text++)
        if (*text == '"' || *text == '\\')
            buf_print(json, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            buf_print(json, "\\u%04x", (unsigned)*text);
        else
            buf_add_bytes(json, text, 1);
    buf_add(json, "\"");
}

static void add_name(struct buf *json, const char *name)
{
    if (json->text[json->length - 1] != '{')
        buf_add(json, ", ");
    add_string(json, name);
    buf_add(json, ": ");
}

static void add_words(struct buf *json, const char *const *words)
{
    buf_add(json, "[");
    for (size_t i = 0; words[i] != NULL; i++) {
        if (i > 0)
            buf_add(json, ", ");
        add_string(json, words[i]);
    }
    buf_add(json, "]");
}

static void add_settings(struct buf *json, const struct settings *settings)
{
    for (size_t i = 0; i < settings->count; i++) {
        const struct setting *setting = &settings->list[i];

        add_name(json, setting->spec->name);
        if (setting->spec->type == SETTING_INTEGER) {
            buf_print(json, "%lld", (long long)setting->integer);
        } else if (setting->spec->type == SETTING_BOOLEAN) {
            buf_add(json, setting->integer != 0 ? "true" : "false");
        } else if (setting->spec->type == SETTING_WORDS) {
            add_words(json, (const char *const *)setting->words);
        } else {
            AUTO_TEXT text = setting_print(setting);

            add_string(json, text);
        }
    }
}

/* ---- Tasks ---- */

static const struct {
    const char *name;
    enum shop_tables table;
} groups[] = {
    {"users", SHOP_USERS}, {"items", SHOP_ITEMS}, {"orders", SHOP_ORDERS}, {"order_items", SHOP_ORDER_ITEMS},
};

static char **copy_words(const char *const *words)
{
    size_t count = 0;
    char **copy;

    while (words[count] != NULL)
        count++;
    copy = mem_alloc((count + 1) * sizeof(*copy));
    for (size_t i = 0; i < count; i++)
        copy[i] = mem_copy(words[i]);
    return copy;
}

struct task task_of_job(const struct configuration *configuration, const struct job *job, const char *const *only)
{
    struct task task = {
        .kind = job->kind,
        .settings = settings_copy(&job->settings),
        .where = mem_copy(job->where),
        .only = only != NULL ? copy_words(only) : NULL,
    };
    struct shop shop = configuration->shop;

    for (size_t i = 0; i < SHOP_NAMES; i++)
        *shop_slot(&task.shop, &shop_names[i]) = mem_copy(*shop_slot(&shop, &shop_names[i]));
    return task;
}

void task_free(struct task *task)
{
    settings_free(&task->settings);
    for (size_t i = 0; i < SHOP_NAMES; i++)
        free((char *)(uintptr_t)*shop_slot(&task->shop, &shop_names[i]));
    free(task->where);
    for (size_t i = 0; task->only != NULL && task->only[i] != NULL; i++)
        free(task->only[i]);
    free(task->only);
    key_type_free(&task->key);
    *task = (struct task){0};
}

static void add_tables(struct buf *json, const struct task *task)
{
    struct shop shop = task->shop;

    for (size_t g = 0; g < ELEMENTS(groups); g++) {
        if ((task->kind->tables & groups[g].table) == 0)
            continue;
        add_name(json, groups[g].name);
        buf_add(json, "{");
        for (size_t i = 0; i < SHOP_NAMES; i++)
            if (strcmp(shop_names[i].group, groups[g].name) == 0) {
                add_name(json, shop_names[i].name);
                add_string(json, *shop_slot(&shop, &shop_names[i]));
            }
        buf_add(json, "}");
    }
}

char *frozen_write(const struct task *task, const char *request)
{
    struct buf json = {0};

    buf_add(&json, "{");
    add_name(&json, "kind");
    add_string(&json, task->kind->name);
    add_settings(&json, &task->settings);
    if (task->where != NULL) {
        add_name(&json, "where");
        add_string(&json, task->where);
    }
    if (task->only != NULL) {
        add_name(&json, "only");
        add_words(&json, (const char *const *)task->only);
    }
    add_name(&json, "started");
    buf_print(&json, "%lld", (long long)task->started);
    add_name(&json, "rows");
    buf_print(&json, "%lld", (long long)task->rows);
    add_name(&json, "key");
    buf_add(&json, "{");
    add_name(&json, "type");
    add_string(&json, task->key.type);
    add_name(&json, "collation");
    add_string(&json, task->key.collation);
    add_name(&json, "version");
    add_string(&json, task->key.version);
    buf_add(&json, "}");
    add_name(&json, "tables");
    buf_add(&json, "{");
    add_tables(&json, task);
    buf_add(&json, "}");
    if (request != NULL) {
        add_name(&json, "request");
        buf_add(&json, request);
    }
    buf_add(&json, "}");
    return buf_take(&json);
}

char *frozen_request(const char *const *only, const struct overrides *overrides)
{
    struct buf json = {0};

    if (only == NULL && overrides->kind.count == 0 && overrides->where == NULL)
        return NULL;
    buf_add(&json, "{");
    if (only != NULL) {
        add_name(&json, "only");
        add_words(&json, only);
    }
    if (overrides->kind.count > 0) {
        add_name(&json, "set");
        buf_add(&json, "{");
        add_settings(&json, &overrides->kind);
        buf_add(&json, "}");
    }
    if (overrides->where != NULL) {
        add_name(&json, "where");
        add_string(&json, overrides->where);
    }
    buf_add(&json, "}");
    return buf_take(&json);
}

/* ---- Back ---- */

/* One path of the flattened parameters: its elements are rows `first` to before `end`. */
struct path {
    const char *name;
    bool list;
    const char **words; /* NULL-terminated; an empty list has none */
    size_t count;
};

static int take_shop_name(struct task *task, const struct path *path)
{
    for (size_t i = 0; i < SHOP_NAMES; i++) {
        AUTO_TEXT name = mem_print("tables.%s.%s", shop_names[i].group, shop_names[i].name);

        if (strcmp(name, path->name) == 0) {
            *shop_slot(&task->shop, &shop_names[i]) = mem_copy(path->words[0]);
            return 0;
        }
    }
    return -ENOENT;
}

static int take_path(struct task *task, const struct path *path, char **ret_error)
{
    static const char tables[] = "tables.", request[] = "request.";

    if (strcmp(path->name, "kind") == 0 || strncmp(path->name, request, strlen(request)) == 0)
        return 0;
    if (strcmp(path->name, "where") == 0)
        task->where = mem_copy(path->words[0]);
    else if (strcmp(path->name, "only") == 0)
        task->only = copy_words(path->words);
    else if (strcmp(path->name, "started") == 0)
        task->started = strtoll(path->words[0], NULL, 10);
    else if (strcmp(path->name, "rows") == 0)
        task->rows = strtoll(path->words[0], NULL, 10);
    else if (strcmp(path->name, "key.type") == 0)
        task->key.type = mem_copy(path->words[0]);
    else if (strcmp(path->name, "key.collation") == 0)
        task->key.collation = mem_copy(path->words[0]);
    else if (strcmp(path->name, "key.version") == 0)
        task->key.version = mem_copy(path->words[0]);
    else if (strncmp(path->name, tables, strlen(tables)) == 0)
        return take_shop_name(task, path) < 0 ? mem_fail(-EINVAL, ret_error, "unknown name \"%s\"", path->name) : 0;
    else
        return settings_set_words(&task->settings, task->kind->settings, path->name, path->count, path->words, ret_error) < 0
                   ? -EINVAL
                   : 0;
    return 0;
}

static const struct task_kind *kind_of(const struct rows *rows)
{
    for (int i = 0; i < rows_count(rows); i++)
        if (strcmp(rows_text(rows, i, 0), "kind") == 0)
            return task_kind_find(rows_text(rows, i, 2));
    return NULL;
}

int frozen_read(const struct rows *rows, struct task *ret, char **ret_error)
{
    struct task task = {.kind = kind_of(rows)};
    const char **words = mem_alloc(((size_t)rows_count(rows) + 1) * sizeof(*words));
    int r = task.kind == NULL ? mem_fail(-EINVAL, ret_error, "it names no kind of job that this program knows") : 0;

    for (int first = 0, end; first < rows_count(rows) && r == 0; first = end) {
        struct path path = {.name = rows_text(rows, first, 0), .list = rows_boolean(rows, first, 1), .words = words};

        for (end = first; end < rows_count(rows) && strcmp(rows_text(rows, end, 0), path.name) == 0; end++)
            if (rows_text(rows, end, 2) != NULL)
                words[path.count++] = rows_text(rows, end, 2);
        words[path.count] = NULL;
        if (path.count > 0 || path.list)
            r = take_path(&task, &path, ret_error);
    }
    if (r == 0 && (task.key.type == NULL || task.started == 0))
        r = mem_fail(-EINVAL, ret_error, "they lack the key's type or the start");
    for (size_t i = 0; r == 0 && i < SHOP_NAMES; i++)
        if (*shop_slot(&task.shop, &shop_names[i]) == NULL)
            *shop_slot(&task.shop, &shop_names[i]) = mem_copy("");
    free(words);
    if (r < 0)
        task_free(&task);
    else
        *ret = task;
    return r;
}
