/* SPDX-License-Identifier: PostgreSQL */
/* bulk_change: what a bulk kind puts into the statements of bulk_sql. */
#ifndef RM_BULK_CHANGE_H
#define RM_BULK_CHANGE_H

#include "work.h"

/* As SQL over the row `t`. Values are parameters: bulk_value() adds one, and returns its "$n::type". */
struct change {
    const char *table, *key, *column, *touched, *zone; /* unquoted */
    const char *unit;                                  /* for people: "points" */
    struct buf value;                                  /* the column's new value */
    struct buf needs; /* that the row needs the change and can take it; empty: always */
    bool watched;     /* a trigger of the application may keep a row as it is, or make something else of it */
    bool marks;       /* rows' xmax may be read, and says which of them were come to: not where `watched` locks all rows first */

    size_t next;            /* the number of the next parameter */
    const char *values[8];  /* parameters so far, in the order of their numbers */
    size_t value_count;
    char *texts[8]; /* what bulk_value() returned, and the values it made */
    size_t text_count;
    size_t only; /* the number of the parameter that is the array of --only's keys; 0: all rows */
};

/* Adds the task's integer setting `name` as a parameter. What it returns lives as long as the change. */
const char *bulk_value(struct change *, const struct task *, const char *name);

#endif
