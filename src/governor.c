/* SPDX-License-Identifier: PostgreSQL */
#include "governor.h"

#include <stdbool.h>

#define STEP (100 * USEC_PER_MSEC)     /* between two changes of the share: several commits of every lane */
#define UNFELT 1000.0                  /* microseconds: a commit that takes no longer is no congestion, whatever others took */
#define SMOOTHING 0.2                  /* a fifth of each new measurement */
#define QUICK 0.1                      /* how far a measurement moves the median of late, */
#define SLOW 0.005                     /* and the quartile: it remembers some hundred of them, */
#define LEARNING 30                    /* but not of the first few, one of which may be luck */
#define FORGETTING 0.002               /* what a congested step adds to it: what lasts for minutes is how the server is */
#define CUT 0.7                        /* what congestion leaves of the share */
#define GROWTH 1.05                    /* what a calm step makes of it */
#define SHORTEST_SHARE 0.25            /* at the least share, batches last for this part of what they do at the largest */
#define BLOCKED_CUT 0.5
#define LONGEST_REST (5.0 * USEC_PER_SEC) /* where no time is to spare */
#define LONGEST_END USEC_PER_SEC          /* of a session */

/* What a pace allows. */
static const struct {
    double multiple;       /* of the unloaded latency, past which it is congestion; 0: never */
    double most, least;    /* of the share */
    double batch;          /* part of batch_time */
} paces[] = {
    [PACE_GENTLE] = {.multiple = 2, .most = 0.15, .least = 0.05, .batch = 0.2},
    [PACE_NORMAL] = {.multiple = 4, .most = 0.5, .least = 0.3, .batch = 0.5},
    [PACE_FULL] = {.multiple = 0, .most = 1, .least = 1, .batch = 1},
};

struct governor governor_begin(enum pace pace, int lanes, usec_t batch_time, usec_t deadline, usec_t now)
{
    return (struct governor){
        .pace = pace,
        .lanes = lanes,
        .batch_time = batch_time,
        .deadline = deadline,
        .share = paces[pace].most,
        .next_step = now + STEP,
    };
}

static double smooth(double old, double new)
{
    return old == 0 ? new : old + SMOOTHING * (new - old);
}

static double clamp(double value, double least, double most)
{
    return value < least ? least : value > most ? most : value;
}

static void set_share(struct governor *governor, double share)
{
    governor->share = clamp(share, paces[governor->pace].least, paces[governor->pace].most);
}

static bool congested(const struct governor *governor)
{
    double multiple = paces[governor->pace].multiple;

    return multiple != 0 && governor->commits >= LEARNING && governor->latency > UNFELT &&
           governor->latency > multiple * governor->unloaded;
}

static void step(struct governor *governor, usec_t now)
{
    if (now < governor->next_step)
        return;
    governor->next_step = now + STEP;
    if (congested(governor))
        governor->unloaded *= 1 + FORGETTING;
    set_share(governor, governor->share * (congested(governor) ? CUT : GROWTH));
}

void governor_committed(struct governor *governor, usec_t commit)
{
    double latency = commit > 0 ? (double)commit : 1;
    double quick = governor->commits < LEARNING ? 3 * QUICK : QUICK, slow = governor->commits < LEARNING ? QUICK : SLOW;

    if (governor->commits++ == 0)
        governor->latency = governor->unloaded = latency;
    /* A quantile is where steps up and down balance: as many up as down, or three of four up. */
    governor->latency *= latency > governor->latency ? 1 + quick : 1 / (1 + quick);
    if (latency <= governor->unloaded)
        governor->unloaded /= 1 + 3 * slow;
    else if (!congested(governor)) /* which would teach it to take congestion for the normal */
        governor->unloaded *= 1 + slow;
}

void governor_blocked(struct governor *governor, usec_t now)
{
    governor->next_step = now + STEP;
    if (governor->pace != PACE_FULL)
        set_share(governor, governor->share * BLOCKED_CUT);
}

usec_t governor_batch_time(const struct governor *governor)
{
    double most = paces[governor->pace].most, least = paces[governor->pace].least;
    double above = most > least ? (governor->share - least) / (most - least) : 1;
    double shrunk = SHORTEST_SHARE + (1 - SHORTEST_SHARE) * above;
    double time = (double)governor->batch_time * paces[governor->pace].batch * shrunk;

    if (time < governor->latency) /* more of it would be flushes, which is what others queue for */
        time = governor->latency < (double)governor->batch_time ? governor->latency : (double)governor->batch_time;
    return time > USEC_PER_MSEC ? (usec_t)time : USEC_PER_MSEC;
}

int governor_lanes(const struct governor *governor)
{
    double lanes = governor->share * governor->lanes;
    int whole = (int)lanes;

    return whole < 1 || lanes > whole + 1e-6 ? whole + 1 : whole;
}

usec_t governor_end_time(const struct governor *governor)
{
    return governor->pace == PACE_FULL ? 0 : LONGEST_END;
}

usec_t governor_rest(struct governor *governor, const struct governor_batch *batch, usec_t now)
{
    double worked = batch->worked > 0 ? (double)batch->worked : 1;
    double cost = worked; /* what the batch cost, as the time in which a lane usually writes as much WAL */
    double duty, rest;

    step(governor, now);
    duty = clamp(governor->share * governor->lanes / governor_lanes(governor), 0, 1);
    if (batch->bytes > 0) {
        governor->bytes_rate = smooth(governor->bytes_rate, (double)batch->bytes / worked);
        cost = clamp((double)batch->bytes / governor->bytes_rate, worked / 4, worked * 4);
    }
    rest = clamp(cost * (1 / duty - 1), 0, LONGEST_REST);
    /* With time to spare, a batch of so many rows may take its part of what is left of it. */
    if (governor->deadline != MOMENT_NONE && governor->deadline > now && batch->rows_left > 0) {
        double part = (double)batch->rows * batch->lanes / (double)(batch->rows * batch->lanes + batch->rows_left);
        double spare = (double)(governor->deadline - now) * part - worked;

        if (spare > rest)
            rest = spare;
    }
    return (usec_t)rest;
}
