/* SPDX-License-Identifier: PostgreSQL */
/*
 * relation_plan: what only the server's own parser and planner can say of a need: whether `where` and `call` mean
 * something, whether statuses fit their column, which index the scan for stale orders takes. Nothing is executed.
 */
#ifndef RM_RELATION_PLAN_H
#define RM_RELATION_PLAN_H

#include "examined.h"

/* Each takes the target table, found sound, and returns 0, or -EIO/-EBADMSG (see db_error()). */
int relation_plan_where(struct examined *);
int relation_plan_call(struct examined *);
int relation_plan_statuses(struct examined *);
int relation_plan_candidates(struct examined *);

#endif
