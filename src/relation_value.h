/* SPDX-License-Identifier: PostgreSQL */
/* relation_value: the values of a job's settings against the range of the column that they go into. */
#ifndef RM_RELATION_VALUE_H
#define RM_RELATION_VALUE_H

#include "examined.h"

/* `column`, quoted, is what the job changes, of this type (pg_type.typname, of a domain the one below it). */
void relation_values_examine(struct examined *, const char *column, const char *type);

#endif
