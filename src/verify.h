/* SPDX-License-Identifier: PostgreSQL */
/*
 * verify: what has to be right before a run touches any row. All return 0, or a negative errno and set *ret_error to the
 * problem with its remedy, which the caller frees. Nothing here logs.
 */
#ifndef RM_VERIFY_H
#define RM_VERIFY_H

#include "books.h"

/* The tables are fit for the task. Sets *ret_key, which the caller frees. */
int verify_task(struct books *, struct task *, struct key_type *ret_key, char **ret_error);

/* Each key of --only is one: the server casts it. -EDOM: one is not. */
int verify_keys(struct books *, const struct task *, char **ret_error);

/* The keys of an unfinished run are in the order in which it left them. */
int verify_order(const struct books *, const struct task *, const struct key_type *now, int64_t run, char **ret_error);

#endif
