/* SPDX-License-Identifier: PostgreSQL */
#include "need.h"

#include <string.h>

#include "db.h"
#include "sql.h"

static const char *const *words(const struct settings *settings, const char *name)
{
    return setting_find(settings, name) == NULL ? NULL : setting_words(settings, name);
}

void relation_need_fill(struct relation_need *ret, const struct shop *shop, const struct task_kind *kind,
                        const struct settings *settings, const char *where)
{
    *ret = (struct relation_need){
        .shop = shop,
        .tables = kind->tables,
        .target = kind->target,
        .settings = settings,
        .where = where != NULL && where[0] != '\0' ? where : NULL,
        .call = setting_text(settings, "call"),
        .statuses = words(settings, "statuses"),
        .unpaid_statuses = words(settings, "unpaid_statuses"),
        .canceled = setting_text(settings, "canceled"),
    };
    if (ret->statuses == NULL)
        return;
    if (ret->call != NULL || ret->statuses[0] == NULL)
        ret->tables = SHOP_ORDERS;
    else if (shop->orders.points_spent[0] == '\0')
        ret->tables &= ~(unsigned)SHOP_USERS;
}

static void add_schema(struct buf *path, const char *table)
{
    const char *dot = strchr(table, '.');
    AUTO_TEXT schema = dot != NULL ? strndup(table, (size_t)(dot - table)) : mem_copy("public");

    sql_quote(path, schema);
}

char *relation_search_path(const struct shop *shop)
{
    const char *const tables[] = {shop->users.table, shop->items.table, shop->orders.table, shop->order_items.table};
    AUTO_BUF path = {0};

    for (size_t i = 0; i < ELEMENTS(tables); i++) {
        AUTO_BUF quoted = {0};

        if (tables[i] == NULL)
            continue;
        add_schema(&quoted, tables[i]);
        if (path.text != NULL && strstr(path.text, quoted.text) != NULL)
            continue;
        buf_print(&path, "%s%s", path.length > 0 ? ", " : "", quoted.text);
    }
    return buf_take(&path);
}
