/* SPDX-License-Identifier: PostgreSQL */
/* check: --check. Prints every problem with its remedy to standard output, in the order an operator would mend them. */
#ifndef RM_CHECK_H
#define RM_CHECK_H

#include "configuration.h"

/*
 * Connects, and verifies all that a run of each enabled job needs: ledger version, tables, columns, types, NOT NULLs,
 * grants, indexes, server role, clock skew, a pooler in between, leftovers, unfinished runs of jobs no longer
 * configured. Returns STATUS_DONE when all is well, else STATUS_FAILED.
 */
int check_run(const struct configuration *);

#endif
