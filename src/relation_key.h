/* SPDX-License-Identifier: PostgreSQL */
/* relation_key: whether a table has the index that a run walks its key by. */
#ifndef RM_RELATION_KEY_H
#define RM_RELATION_KEY_H

#include "examined.h"

/* `column` is quoted where SQL needs it. Returns 0, or -EIO/-EBADMSG (see db_error()). */
int relation_key_examine(struct examined *, const char *column);

#endif
