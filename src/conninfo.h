/* SPDX-License-Identifier: PostgreSQL */
/*
 * conninfo: what the configuration must know of a libpq connection string before anything connects: whether it has
 * the form of one, and whether it holds a secret. Not a second libpq: unknown keywords and wrong values are libpq's.
 */
#ifndef RM_CONNINFO_H
#define RM_CONNINFO_H

#include <stdbool.h>

/*
 * Looks through a conninfo string or URI (PostgreSQL, "Connection Strings"). Returns 0 and sets *ret_secret, or -EINVAL
 * with *ret_error one sentence about its form.
 */
int conninfo_inspect(const char *conninfo, bool *ret_secret, char **ret_error);

#endif
