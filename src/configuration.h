/* SPDX-License-Identifier: PostgreSQL */
/*
 * configuration: the libconfig file as an immutable value. The only file that knows libconfig.
 *
 * Everything that is wrong with the file is found in one pass and returned as "FILE:LINE: message" lines, each with its
 * remedy where there is one (the nearest known key, the allowed range). Nothing here logs, and nothing connects.
 */
#ifndef RM_CONFIGURATION_H
#define RM_CONFIGURATION_H

#include <stdbool.h>
#include <stddef.h>

#include "job.h"
#include "kinds.h"
#include "shop.h"

struct configuration {
    char *path;
    char *conninfo;
    char *ledger_schema, *ledger_role;
    usec_t ledger_keep;
    usec_t max_clock_skew;
    usec_t max_replica_lag; /* 0: replicas are not looked at */
    int64_t max_slot_wal;   /* bytes; 0: slots are not looked at */
    struct shop shop; /* strings are the configuration's */
    struct job *jobs;
    size_t job_count;
};

/*
 * Reads `path`. Returns 0 and sets *ret (the caller frees it with configuration_free()), or -EINVAL with *ret_errors
 * set to one or more lines, each ended by a newline (the caller frees it). A file that cannot be read is an error of
 * this form, too ("FILE:0: …" has no line: then "FILE: …").
 */
int configuration_load(const char *path, struct configuration **ret, char **ret_errors);
void configuration_free(struct configuration *); /* NULL is fine */

const struct job *configuration_job(const struct configuration *, const char *name); /* NULL: unknown */

/* The job whose name is nearest to `name`, for a suggestion; NULL when none is near. */
const char *configuration_nearest_job(const struct configuration *, const char *name);

#endif
