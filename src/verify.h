/* SPDX-License-Identifier: PostgreSQL */
/* verify: what has to be right before a run touches any row. All return 0 or a negative errno (logged, with the remedy). */
#ifndef RM_VERIFY_H
#define RM_VERIFY_H

#include "books.h"

/* The tables are fit for the task. Sets *ret_key, which the caller frees. */
int verify_task(struct books *, struct task *, struct key_type *ret_key);

/* Each key of --only is one: the server casts it. */
int verify_keys(struct books *, const struct task *);

/* The keys of an unfinished run are in the order in which it left them. */
int verify_order(const struct books *, const struct task *, const struct key_type *now, int64_t run);

#endif
