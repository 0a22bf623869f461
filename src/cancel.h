/* SPDX-License-Identifier: PostgreSQL */
/*
 * cancel: the engine that cancels orders, each in a transaction of its own, many of them in flight on each lane.
 *
 * A lane walks its range of `touched` in pages, in the order of the index, and its cursor follows the pages; what an order's
 * transaction did is told by the order's own status, so the cursor only saves work. An order that is locked, or whose
 * change fails, is left over in a transaction of its own, and is no candidate of later scans.
 */
#ifndef RM_CANCEL_H
#define RM_CANCEL_H

#include "work.h"

extern const struct engine cancel_engine;

#endif
