/* SPDX-License-Identifier: PostgreSQL */
#ifndef RM_TASK_RESTOCK_H
#define RM_TASK_RESTOCK_H

#include "task.h"

extern const struct task_kind task_restock;

#endif
