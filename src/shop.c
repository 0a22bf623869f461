/* SPDX-License-Identifier: PostgreSQL */
#include "shop.h"

#define NAME(group, name, fallback, may_be_empty) \
    {#group, #name, fallback, may_be_empty, offsetof(struct shop, group.name)}

const struct shop_name shop_names[SHOP_NAMES] = {
    NAME(users, table, "shop.users", false),
    NAME(users, key, "id", false),
    NAME(users, points, "points", false),
    NAME(users, touched, "last_modified_at", true),
    NAME(users, touched_zone, "", true),
    NAME(items, table, "shop.menu_items", false),
    NAME(items, key, "id", false),
    NAME(items, stock, "stock", false),
    NAME(items, touched, "last_modified_at", true),
    NAME(items, touched_zone, "", true),
    NAME(orders, table, "shop.orders", false),
    NAME(orders, key, "id", false),
    NAME(orders, status, "status", false),
    NAME(orders, user, "user_id", false),
    NAME(orders, points_spent, "points_spent", true),
    NAME(orders, touched, "last_modified_at", false),
    NAME(orders, touched_zone, "", true),
    NAME(order_items, table, "shop.order_items", false),
    NAME(order_items, order, "order_id", false),
    NAME(order_items, item, "item_id", false),
    NAME(order_items, quantity, "quantity", false),
};

const char **shop_slot(struct shop *shop, const struct shop_name *name)
{
    return (const char **)(void *)((char *)shop + name->offset);
}
