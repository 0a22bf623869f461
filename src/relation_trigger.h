/* SPDX-License-Identifier: PostgreSQL */
/* relation_trigger: the triggers that a job's changes fire, for --check. */
#ifndef RM_RELATION_TRIGGER_H
#define RM_RELATION_TRIGGER_H

#include "db.h"
#include "need.h"
#include "problem.h"

/*
 * Advises where a trigger's function may not find what it names, because our sessions have a search_path of their own and
 * it has none. The session needs relation_search_path(), as a run's has it. Returns 0, or as db_query().
 */
int relation_triggers_examine(struct db *, const struct relation_need *, struct problems *advice);

#endif
