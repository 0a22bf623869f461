/* SPDX-License-Identifier: PostgreSQL */
/*
 * governor: how much of the server a run may take, so that live traffic does not notice. Pure: what was measured in, how long
 * batches may last and how long lanes rest out.
 *
 * What live traffic queues for first is the flush of WAL, and it shows in the latency of our own commits. The governor
 * learns the unloaded latency (the lower quartile: a least one would be luck), and treats a rise of the median past a set
 * multiple of it as congestion control treats delay: it cuts its share at once and grows it back in small steps. Congestion
 * itself teaches next to nothing of the unloaded latency, and what is over in a millisecond is none. A smaller share makes
 * batches shorter, lets fewer lanes work at a time, and those rest between batches. A pace sets the multiple, the largest share and the smallest. A share is one of the WAL that a lane would write if it
 * never rested, so a batch that cost more of it is followed by a longer rest.
 */
#ifndef RM_GOVERNOR_H
#define RM_GOVERNOR_H

#include "moment.h"

enum pace { PACE_GENTLE, PACE_NORMAL, PACE_FULL };

struct governor {
    enum pace pace;
    int lanes;           /* that the job may have: the share is one of their time */
    usec_t batch_time;   /* as configured */
    usec_t deadline;     /* when finish_within ends, monotonic; MOMENT_NONE: no such wish */
    double share;        /* of the time that all lanes would work if none ever rested: 0 to 1 */
    double unloaded;     /* lower quartile of the latency of commits, microseconds; 0: none yet */
    double latency;      /* its median of late */
    int64_t commits;     /* that were measured */
    usec_t next_step;    /* monotonic: the share changes once a step */
    double bytes_rate;   /* WAL bytes that a lane writes in a microsecond of work, smoothed; 0: none yet */
};

struct governor governor_begin(enum pace, int lanes, usec_t batch_time, usec_t deadline, usec_t now);

/* A batch was committed: its commit took `commit`. Not told of commits that do not wait for WAL. */
void governor_committed(struct governor *, usec_t commit);

/* Somebody waits for a lock of ours: the share is halved, whatever the latency says. */
void governor_blocked(struct governor *, usec_t now);

/* How long a batch may last now: not less than a commit takes, up to batch_time. Shorter ones would be mostly flushes. */
usec_t governor_batch_time(const struct governor *);

/*
 * How many lanes may work at a time: as few as the share takes. One that works all of the time is less in the way of others
 * than two that rest half of it: whoever has rested goes before them when it wakes up, on a server short of CPUs. It never
 * grows over what it is at the beginning.
 */
int governor_lanes(const struct governor *);

/*
 * How long the end of a session may be waited for before the next one is ended: a process that maps all of the server's buffers
 * keeps a processor busy with its end for tens of milliseconds, and two of them would keep two.
 */
usec_t governor_end_time(const struct governor *);

/*
 * How long a lane rests after a batch of `rows` rows that took `worked` and wrote `bytes` of WAL (0: unknown), when `rows_left`
 * rows are still to be done on all of the lanes (none or less: unknown). At most five seconds, or its part of the time to the
 * deadline. The share takes its steps here.
 */
struct governor_batch {
    usec_t worked;
    int64_t bytes, rows, rows_left;
    int lanes; /* that work at a time now */
};
usec_t governor_rest(struct governor *, const struct governor_batch *, usec_t now);

#endif
