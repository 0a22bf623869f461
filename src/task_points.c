/* SPDX-License-Identifier: PostgreSQL */
/* points: adds an amount to every user's points. A deduction skips the users whom it would take below zero. */
#include "task_points.h"

#include "bulk.h"
#include "bulk_change.h"
#include "sql.h"

static const struct setting_spec settings[] = {
    {.name = "amount", .type = SETTING_INTEGER, .required = true},
    {0},
};

static void refuse(const struct settings *values, struct buf *ret)
{
    if (setting_integer(values, "amount") == 0)
        buf_add(ret, "amount is 0, which would change nothing: give the points to add, or a negative number to deduct\n");
}

static void change(const struct task *task, struct change *ret)
{
    const char *amount = bulk_value(ret, task, "amount");

    ret->table = task->shop.users.table;
    ret->key = task->shop.users.key;
    ret->column = task->shop.users.points;
    ret->touched = task->shop.users.touched;
    ret->zone = task->shop.users.touched_zone;
    ret->unit = "points";
    buf_add(&ret->value, "t.");
    sql_quote(&ret->value, ret->column);
    buf_print(&ret->value, " + %s", amount);
    if (setting_integer(&task->settings, "amount") < 0)
        buf_print(&ret->needs, "%s >= 0", ret->value.text);
}

const struct task_kind task_points = {
    .name = "points",
    .settings = settings,
    .tables = SHOP_USERS,
    .target = SHOP_USERS,
    .takes_where = true,
    .refuse = refuse,
    .engine = &bulk_engine,
    .change = change,
};
