/* SPDX-License-Identifier: PostgreSQL */
/*
 * watch: what says that live traffic or the replicas suffer, asked of the server at most once a second on the session that
 * holds the job's lock: sessions that wait for a lock of ours, the lag of replicas (max_replica_lag), and the WAL that slots
 * hold back (max_slot_wal). A configured signal that cannot be read counts as "hold back". The first look waits for its answer,
 * so that nothing is sent that should not be; no other does, since that session may be cut off and not know it. Nothing here logs.
 */
#ifndef RM_WATCH_H
#define RM_WATCH_H

#include "work.h"

struct watch {
    usec_t max_replica_lag; /* 0: not configured */
    int64_t max_slot_wal;   /* bytes; 0: not configured */
    usec_t lock_timeout;    /* who waits for us for longer suffers */
    usec_t next;            /* monotonic: when to look again */
    usec_t asked;           /* monotonic: when the question was sent whose answer is to come; 0: none is */
    bool lagging, filling;  /* over the limit, and not yet well below it */
};

/*
 * Looks, when it is time to: sets work->held to the reason for holding back (or frees it), and tells the governor of sessions
 * that wait for us. Returns 0, or -EIO when the session is dead.
 */
int watch_look(struct watch *, struct db *, struct work *);

#endif
