/* SPDX-License-Identifier: PostgreSQL */
/* restock: adds stock to every menu item, up to a cap, or fills it to a mark. An item at or over the mark is not written. */
#include "task_restock.h"

static const struct setting_spec settings[] = {
    {.name = "add", .type = SETTING_INTEGER, .least = 1, .most = INT64_MAX},
    {.name = "up_to", .type = SETTING_INTEGER, .least = 1, .most = INT64_MAX},
    {.name = "fill_to", .type = SETTING_INTEGER, .least = 1, .most = INT64_MAX},
    {0},
};

static const char *refuse(const struct settings *values)
{
    bool add = setting_find(values, "add") != NULL, up_to = setting_find(values, "up_to") != NULL;
    bool fill_to = setting_find(values, "fill_to") != NULL;

    if (!add && !fill_to)
        return "a restock needs add = N (with up_to = N as its cap, if there is one), or fill_to = N";
    if (fill_to && (add || up_to))
        return "fill_to stands alone: give either fill_to, or add with an optional up_to";
    return NULL;
}

const struct task_kind task_restock = {
    .name = "restock",
    .settings = settings,
    .tables = SHOP_ITEMS,
    .target = SHOP_ITEMS,
    .takes_where = true,
    .refuse = refuse,
};
