/* SPDX-License-Identifier: PostgreSQL */
/* kinds: the table of the kinds of job there are. */
#ifndef RM_KINDS_H
#define RM_KINDS_H

#include "task.h"

extern const struct task_kind *const task_kinds[]; /* NULL-terminated */

const struct task_kind *task_kind_find(const char *name); /* NULL: unknown */

#endif
