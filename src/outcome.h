/* SPDX-License-Identifier: PostgreSQL */
/* outcome: how a run ended, for people: printed by an admin command, logged by the daemon's children. */
#ifndef RM_OUTCOME_H
#define RM_OUTCOME_H

#include "books.h"

/* Prints (or logs) how the run ended, marks it reported, and gives the exit status that says so. */
int outcome_report(struct books *, const struct ledger_run *, const char *prefix);

#endif
