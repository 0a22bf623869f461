/* SPDX-License-Identifier: PostgreSQL */
/*
 * task: what a kind of job is. A new kind is one file with one struct task_kind, and one row in kinds.c.
 *
 * (The half that drives a run's statements is in work.h, which kinds include and the configuration does not.)
 */
#ifndef RM_TASK_H
#define RM_TASK_H

#include <stdbool.h>

#include "mem.h"
#include "setting.h"
#include "shop.h"

struct engine; /* work.h */
struct task;   /* work.h: one run's frozen parameters */
struct change; /* bulk_change.h */

struct task_kind {
    const char *name;                    /* "points" */
    const struct setting_spec *settings; /* beside those of every job; ended by a NULL name */
    unsigned tables;                     /* enum shop_tables it reads or writes */
    enum shop_tables target;             /* the table whose rows a run walks */
    bool takes_where;                    /* whether a job of this kind may have `where` */
    /* The rules over several settings: adds a line for the operator for each that they break. */
    void (*refuse)(const struct settings *, struct buf *ret);
    const struct engine *engine;
    void (*change)(const struct task *, struct change *ret); /* kinds whose engine is bulk_engine: what changes */
};

#endif
