/* SPDX-License-Identifier: PostgreSQL */
/*
 * shop: the names that the configuration gives the user's tables and columns. Names only: what the catalog says of
 * them is relation's, how they are quoted is db's.
 */
#ifndef RM_SHOP_H
#define RM_SHOP_H

#include <stdbool.h>
#include <stddef.h>

/*
 * `table` may be "schema.table" or "table" (then schema public). A column that is "" does not exist in the user's
 * schema. The strings belong to the configuration, or to the frozen parameters of a run.
 */
struct shop_users {
    const char *table, *key, *points, *touched, *touched_zone;
};
struct shop_items {
    const char *table, *key, *stock, *touched, *touched_zone;
};
struct shop_orders {
    const char *table, *key, *status, *user, *points_spent, *touched, *touched_zone;
};
struct shop_order_items {
    const char *table, *order, *item, *quantity;
};

struct shop {
    struct shop_users users;
    struct shop_items items;
    struct shop_orders orders;
    struct shop_order_items order_items;
};

/* One configurable name: where it stands in the file, and in the struct. */
struct shop_name {
    const char *group, *name; /* "users", "points" */
    const char *fallback;     /* the reference schema's name */
    bool may_be_empty;
    size_t offset; /* of the const char * in struct shop */
};

#define SHOP_NAMES 21

/* All of them, in the order of the struct; also how a run's frozen parameters store them ("users.points"). */
extern const struct shop_name shop_names[SHOP_NAMES];

const char **shop_slot(struct shop *, const struct shop_name *);

/* Which tables a kind of job reads or writes. */
enum shop_tables {
    SHOP_USERS = 1,
    SHOP_ITEMS = 2,
    SHOP_ORDERS = 4,
    SHOP_ORDER_ITEMS = 8,
};

#endif
