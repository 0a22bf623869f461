/* SPDX-License-Identifier: PostgreSQL */
/* points: adds an amount to every user's points. A deduction skips the users whom it would take below zero. */
#include "task_points.h"

static const struct setting_spec settings[] = {
    {.name = "amount", .type = SETTING_INTEGER, .required = true},
    {0},
};

static const char *refuse(const struct settings *values)
{
    return setting_integer(values, "amount") == 0 ? "amount is 0, which would change nothing: give the points to add, or a "
                                                    "negative number to deduct"
                                                  : NULL;
}

const struct task_kind task_points = {
    .name = "points",
    .settings = settings,
    .tables = SHOP_USERS,
    .target = SHOP_USERS,
    .takes_where = true,
    .refuse = refuse,
};
