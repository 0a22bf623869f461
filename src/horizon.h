/* SPDX-License-Identifier: PostgreSQL */
/*
 * horizon: the oldest snapshot of the server, for --check. What it may still see can be cleared away neither by vacuum nor
 * on the page, so that rounds find no room where they made some.
 */
#ifndef RM_HORIZON_H
#define RM_HORIZON_H

#include "db.h"
#include "problem.h"

/* Prints a "price:" line to standard output; adds to *advice when it is too old. Returns 0, or as db_query(). */
int horizon_examine(struct db *, struct problems *advice);

#endif
