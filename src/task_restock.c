/* SPDX-License-Identifier: PostgreSQL */
/* restock: adds stock to every menu item, up to a cap, or fills it to a mark. An item at or over the mark is not written. */
#include "task_restock.h"

#include "bulk.h"
#include "bulk_change.h"
#include "sql.h"

static const struct setting_spec settings[] = {
    {.name = "add", .type = SETTING_INTEGER, .least = 1, .most = INT64_MAX},
    {.name = "up_to", .type = SETTING_INTEGER, .least = 1, .most = INT64_MAX},
    {.name = "fill_to", .type = SETTING_INTEGER, .least = 1, .most = INT64_MAX},
    {0},
};

static void refuse(const struct settings *values, struct buf *ret)
{
    bool add = setting_find(values, "add") != NULL, up_to = setting_find(values, "up_to") != NULL;
    bool fill_to = setting_find(values, "fill_to") != NULL;

    if (!add && !fill_to)
        buf_add(ret, "a restock needs add = N (with up_to = N as its cap, if there is one), or fill_to = N\n");
    if (fill_to && (add || up_to))
        buf_add(ret, "fill_to stands alone: give either fill_to, or add with an optional up_to\n");
}

static void change(const struct task *task, struct change *ret)
{
    bool fill = setting_find(&task->settings, "fill_to") != NULL;
    bool capped = setting_find(&task->settings, "up_to") != NULL;
    const char *mark = fill || capped ? bulk_value(ret, task, fill ? "fill_to" : "up_to") : NULL;
    struct buf stock = {0};

    ret->table = task->shop.items.table;
    ret->key = task->shop.items.key;
    ret->column = task->shop.items.stock;
    ret->touched = task->shop.items.touched;
    ret->zone = task->shop.items.touched_zone;
    ret->unit = "pieces";
    buf_add(&stock, "t.");
    sql_quote(&stock, ret->column);
    if (fill)
        buf_add(&ret->value, mark);
    else if (capped)
        buf_print(&ret->value, "least(%s + %s, %s)", stock.text, bulk_value(ret, task, "add"), mark);
    else
        buf_print(&ret->value, "%s + %s", stock.text, bulk_value(ret, task, "add"));
    if (mark != NULL)
        buf_print(&ret->needs, "%s < %s", stock.text, mark);
    buf_free(&stock);
}

const struct task_kind task_restock = {
    .name = "restock",
    .settings = settings,
    .tables = SHOP_ITEMS,
    .target = SHOP_ITEMS,
    .takes_where = true,
    .refuse = refuse,
    .engine = &bulk_engine,
    .change = change,
};
