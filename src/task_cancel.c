/* SPDX-License-Identifier: PostgreSQL */
/* cancel: cancels the orders that sit in an unfinished status, each in a transaction of its own. */
#include "task_cancel.h"

#include <string.h>

#include "cancel.h"
#include "moment.h"

static const struct setting_spec settings[] = {
    {.name = "older_than", .type = SETTING_DURATION, .fallback = "30m", .least = USEC_PER_SEC, .most = 36525 * USEC_PER_DAY},
    {.name = "statuses", .type = SETTING_WORDS, .fallback = "PAYING"},
    {.name = "unpaid_statuses", .type = SETTING_WORDS, .fallback = ""},
    {.name = "canceled", .type = SETTING_TEXT, .fallback = "CANCELED", .may_be_number = true},
    {.name = "call", .type = SETTING_TEXT},
    {0},
};

static bool among(const char *word, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(*words, word) == 0)
            return true;
    return false;
}

static void refuse(const struct settings *values, struct buf *ret)
{
    const char *const *statuses = setting_words(values, "statuses");
    const char *const *unpaid = setting_words(values, "unpaid_statuses");
    const char *canceled = setting_text(values, "canceled");

    if (statuses[0] == NULL && unpaid[0] == NULL)
        buf_add(ret, "statuses and unpaid_statuses are both empty: no order would ever be canceled\n");
    for (const char *const *word = unpaid; *word != NULL; word++)
        if (among(*word, statuses))
            buf_print(ret, "\"%s\" is in both statuses and unpaid_statuses: it either reserved stock or it did not\n", *word);
    if (among(canceled, statuses) || among(canceled, unpaid))
        buf_print(ret,
                  "canceled = \"%s\" is also among the statuses to cancel: an order would be canceled for ever\n",
                  canceled);
}

const struct task_kind task_cancel = {
    .name = "cancel",
    .settings = settings,
    .tables = SHOP_USERS | SHOP_ITEMS | SHOP_ORDERS | SHOP_ORDER_ITEMS,
    .target = SHOP_ORDERS,
    .refuse = refuse,
    .engine = &cancel_engine,
};
