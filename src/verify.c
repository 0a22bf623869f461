/* SPDX-License-Identifier: PostgreSQL */
#include "verify.h"

#include <errno.h>
#include <string.h>

int verify_task(struct books *books, struct task *task, struct key_type *ret_key, char **ret_error)
{
    struct relation_need need;
    struct problems problems = {0};
    int r;

    relation_need_fill(&need, &task->shop, task->kind, &task->settings, task->where);
    r = relation_examine(books->db, &need, &problems);
    if (r < 0) {
        problems_free(&problems);
        return books_fail(books, r, ret_error, "examining the tables");
    }
    for (size_t i = 0; i < problems.count; i++) {
        const struct problem *problem = &problems.list[i];

        if (problem->advice)
            continue;
        r = mem_fail(-EINVAL, ret_error, "%s%s%s", problem->text, problem->remedy != NULL ? "; remedy: " : "",
                     problem->remedy != NULL ? problem->remedy : "");
        problems_free(&problems);
        return r;
    }
    problems_free(&problems);
    r = relation_key_type(books->db, &need, ret_key);
    return r < 0 ? books_fail(books, r, ret_error, "reading the key's type") : 0;
}

int verify_keys(struct books *books, const struct task *task, char **ret_error)
{
    AUTO_TEXT sql = mem_print("SELECT $1::%s", task->key.type);

    for (size_t i = 0; task->only != NULL && task->only[i] != NULL; i++) {
        int r = db_query(books->db, sql, 1, (const char *[]){task->only[i]}, NULL);

        if (r == -EBADMSG)
            return mem_fail(-EDOM, ret_error, "--only %s: %s", task->only[i], db_error(books->db)->message);
        if (r < 0)
            return books_fail(books, r, ret_error, "reading the keys of --only");
    }
    return 0;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Ranges and cursors mean nothing when keys are in another order now. */
int verify_order(const struct books *books, const struct task *task, const struct key_type *now, int64_t run,
                 char **ret_error)
{
    const struct key_type *then = &task->key;

    if (strcmp(then->type, now->type) == 0 && same_text(then->collation, now->collation) &&
        same_text(then->version, now->version))
        return 0;
    return mem_fail(
        -EINVAL, ret_error,
        "not resumed, because its keys may be in another order now: they were %s (collation %s, version %s) when it started, "
        "and are %s (collation %s, version %s): give it up with roundsman --abandon %s -n %lld",
        then->type, then->collation != NULL ? then->collation : "none", then->version != NULL ? then->version : "none",
        now->type, now->collation != NULL ? now->collation : "none", now->version != NULL ? now->version : "none",
        books->job->name, (long long)run);
}
