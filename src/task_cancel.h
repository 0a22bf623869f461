/* SPDX-License-Identifier: PostgreSQL */
#ifndef RM_TASK_CANCEL_H
#define RM_TASK_CANCEL_H

#include "task.h"

extern const struct task_kind task_cancel;

#endif
