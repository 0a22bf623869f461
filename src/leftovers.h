/* SPDX-License-Identifier: PostgreSQL */
/* leftovers: tries again what runs could not do, each row by the statement that deletes its leftover, with its own run's task. */
#ifndef RM_LEFTOVERS_H
#define RM_LEFTOVERS_H

#include "books.h"

/*
 * Retries leftovers: of the run `run`, whether they are due or not, or (0) those of the job's partial runs that are due. A
 * run whose last leftover is settled is done. Returns STATUS_DONE (also when some are left), STATUS_FAILED or
 * STATUS_INTERRUPTED.
 */
int leftovers_retry(struct books *, int64_t run);

/*
 * Those of a run that is still running, once, as long as it helps. Returns 0 or a negative errno (-EINTR: stopped).
 */
int leftovers_retry_own(struct books *, const struct task *, int64_t run, int attempt);

#endif
