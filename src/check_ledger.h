/* SPDX-License-Identifier: PostgreSQL */
/* check_ledger: the ledger's part of --check: whether it can be used, and what in it wants an operator's eye. */
#ifndef RM_CHECK_LEDGER_H
#define RM_CHECK_LEDGER_H

#include "configuration.h"
#include "db.h"
#include "problem.h"

/* Each prints its headings and notes to standard output, and returns 0, or as db_query(). */

/* The schema, its version and the grants on it. *ret_usable: the ones below can be called. */
int check_ledger(struct db *, const struct configuration *, struct problems *, bool *ret_usable);

/* A configured job's books: settled_through, leftovers, a schedule that is not applied yet. */
int check_ledger_job(struct db *, const struct configuration *, const struct job *, struct problems *);

/* Unfinished runs of jobs that the file has no more: no daemon will finish them. */
int check_ledger_strays(struct db *, const struct configuration *, struct problems *);

#endif
