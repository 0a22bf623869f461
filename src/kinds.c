/* SPDX-License-Identifier: PostgreSQL */
#include "kinds.h"

#include <string.h>

#include "task_cancel.h"
#include "task_points.h"
#include "task_restock.h"

const struct task_kind *const task_kinds[] = {&task_points, &task_restock, &task_cancel, NULL};

const struct task_kind *task_kind_find(const char *name)
{
    for (size_t i = 0; task_kinds[i] != NULL; i++)
        if (strcmp(task_kinds[i]->name, name) == 0)
            return task_kinds[i];
    return NULL;
}
