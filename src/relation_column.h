/* SPDX-License-Identifier: PostgreSQL */
/* relation_column: the columns of a table against the table of rules for them, and the grants they need. */
#ifndef RM_RELATION_COLUMN_H
#define RM_RELATION_COLUMN_H

#include "examined.h"

/* Returns 0, or -EIO/-EBADMSG (see db_error()). */
int relation_columns_examine(struct examined *);

#endif
