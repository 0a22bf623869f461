/* SPDX-License-Identifier: PostgreSQL */
/*
 * bulk: the engine of kinds that change one column of every row of a table, in batches in key order.
 *
 * A batch is one round trip and one transaction: the lane's row is the gate, then a range UPDATE on the key, then the
 * cursor's move. A batch that loses a wait for a lock is done again with SKIP LOCKED, what is still locked becomes a
 * leftover. A batch that fails is halved until the failing row stands alone, and becomes a leftover with its error. Where
 * triggers of the application see the rows first, a batch fails, too, when they swallow a row's change or make another of it.
 */
#ifndef RM_BULK_H
#define RM_BULK_H

#include "work.h"

extern const struct engine bulk_engine;

#endif
