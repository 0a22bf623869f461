/* SPDX-License-Identifier: PostgreSQL */
#ifndef RM_TASK_POINTS_H
#define RM_TASK_POINTS_H

#include "task.h"

extern const struct task_kind task_points;

#endif
