/* SPDX-License-Identifier: PostgreSQL */
/* outcome: how a run ended, for people: printed by an admin command, logged by the daemon's children. */
#ifndef RM_OUTCOME_H
#define RM_OUTCOME_H

#include "books.h"

/*
 * Prints (or logs) how the run ended, marks it reported, and gives the exit status that says so. `prefix` stands before its
 * state, `remark` (NULL: none) at the end.
 */
int outcome_report(struct books *, const struct ledger_run *, const char *prefix, const char *remark);

/* Prints how far an unfinished or partial run is; `rows`: how many it had to look at, an estimate (0 or less: unknown). */
void outcome_so_far(struct books *, const struct ledger_run *, int64_t rows);

#endif
