/* SPDX-License-Identifier: PostgreSQL */
/*
 * frozen: a run's parameters, from the configuration into the ledger (jsonb) and back. A resumed run uses what is in the
 * ledger, whatever the file says now. How fast it goes (batch_time, lock_timeout, …) is not frozen.
 */
#ifndef RM_FROZEN_H
#define RM_FROZEN_H

#include "configuration.h"
#include "work.h"

/* A task as the job has it, for the keys `only` (NULL: all rows). The key's type and the start are not known yet. */
struct task task_of_job(const struct configuration *, const struct job *, const char *const *only);
void task_free(struct task *);

/* The jsonb text; `request` is jsonb, or NULL. The caller frees it. */
char *frozen_write(const struct task *, const char *request);

/* Reads what ledger_params() gave. Returns 0, or -EINVAL with *ret_error: it was written by another version. */
int frozen_read(const struct rows *, struct task *ret, char **ret_error);

/*
 * What an extra run was asked for, as jsonb, so that the same command typed again is known again: {"only": …, "set": …,
 * "where": …}. NULL when nothing was asked for of which rows change, or how. The caller frees it.
 */
char *frozen_request(const char *const *only, const struct overrides *);

#endif
