/* SPDX-License-Identifier: PostgreSQL */
/* host: what tells this host from others, for the jitter of its jobs: the daemon's timers and --next agree on it. */
#ifndef RM_HOST_H
#define RM_HOST_H

#include "moment.h"

/* How much later than its occurrences a job fires on this host: fixed, below `jitter`; see agenda_offset(). */
usec_t host_offset(const char *job, usec_t jitter);

#endif
