/* SPDX-License-Identifier: PostgreSQL */
/*
 * bulk_share: how lanes of a bulk change share a table. A sample of the keys parts it at the beginning, and once more when a
 * lane is done while another one is not. Any keys are correct parts; these balance.
 */
#ifndef RM_BULK_SHARE_H
#define RM_BULK_SHARE_H

#include "work.h"

/* As engine.split, engine.find_middle and engine.part (work.h). */
int bulk_share_split(struct db *, struct task *, int lanes, struct ledger_range **ret, size_t *ret_count);
int bulk_share_find_middle(struct work *, struct lane *idle, const struct lane *);
int bulk_share_part(struct work *, struct lane *idle, const struct lane *);

/* The statements of the latter two, on a lane's fresh session. Returns as db_query(). */
int bulk_share_prepare(const struct work *, const struct lane *);

bool bulk_share_sent(int tag); /* whether an answer is to one of them, and so for bulk_share_answer() */
int bulk_share_answer(struct work *, struct lane *idle, struct answer *); /* as engine.answer */

#endif
