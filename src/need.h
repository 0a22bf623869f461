/* SPDX-License-Identifier: PostgreSQL */
/* need: what of the shop a job or a run works with, for relation to examine. Names only; nothing here connects. */
#ifndef RM_NEED_H
#define RM_NEED_H

#include "setting.h"
#include "shop.h"
#include "task.h"

struct relation_need {
    const struct shop *shop;
    unsigned tables;                 /* enum shop_tables that are read or written by statements of ours */
    enum shop_tables target;         /* the table whose rows a run walks; among `tables` */
    const struct settings *settings; /* the kind's own */
    const char *where;               /* condition of a bulk job; NULL: all rows */
    const char *call; /* cancel's `call`: then orders is the only table, and only locked and read; NULL */
    const char *const *statuses, *const *unpaid_statuses; /* cancel, NULL-terminated; NULL otherwise */
    const char *canceled;                                 /* cancel; NULL otherwise */
};

/*
 * Fills it for a kind of job with these settings (of the file, or of a run's frozen parameters) and `where` (NULL or
 * "": all rows). It points into all of them. Tables that the kind could need and these settings leave alone are not in
 * it: orders that only change state need no items, and without a column of points spent there is nothing to give back.
 */
void relation_need_fill(struct relation_need *ret, const struct shop *, const struct task_kind *,
                        const struct settings *, const char *where);

/* Quoted schemas of the tables that it names, for db_options.search_path. The caller frees it. */
char *relation_search_path(const struct shop *);

#endif
