/* SPDX-License-Identifier: PostgreSQL */
#include "lanes.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROGRESS_EVERY (250 * USEC_PER_MSEC)

bool lanes_finished(const struct work *work)
{
    for (size_t i = 0; i < work->lane_count; i++)
        if (!work->lanes[i].finished)
            return false;
    return true;
}

static void open_lane(struct work *work, struct lane *lane, const struct lanes_options *options)
{
    const struct engine *engine = work->task->kind->engine;
    struct db_options session = options->session;
    char *error = NULL;

    session.asynchronous_commit = engine->asynchronous != NULL && engine->asynchronous(work->task);
    session.key_order = true;
    session.nested_loops = engine->nested_loops;
    if (db_connect(&session, &lane->db, &error) < 0)
        work_fail(work, error);
    else if (engine->prepare(work, lane) < 0 || db_pipeline(lane->db) < 0)
        work_fail(work, mem_copy(db_error(lane->db)->message));
}

static void lost(struct work *work, struct db *db)
{
    work_fail(work, mem_print("the connection to the server was lost: %s", db_error(db)->message));
}

/* Lets the first unfinished lanes work, as many as may at a time; the others wait until one of these is done. */
static void choose(struct work *work)
{
    int places = governor_lanes(&work->governor);

    for (size_t i = 0; i < work->lane_count; i++)
        work->lanes[i].waits = !work->lanes[i].finished && places-- <= 0;
}

static bool may_send(const struct work *work, const struct lane *lane, usec_t now)
{
    if (lane->finished || lane->yields)
        return false;
    return lane->busy || (!lane->waits && lane->rests_until <= now && work->held == NULL);
}

static void send_all(struct work *work, bool stopping)
{
    usec_t now = moment_monotonic();

    choose(work);
    for (size_t i = 0; i < work->lane_count && work->end == WORK_GOES_ON; i++) {
        struct lane *lane = &work->lanes[i];

        if (!may_send(work, lane, now))
            continue;
        if (work->task->kind->engine->send(work, lane, stopping) < 0 || db_push(lane->db) < 0)
            lost(work, lane->db);
    }
}

/* Whether an answer or the end of a rest is still to come. */
static bool goes_on(const struct work *work, bool stopping)
{
    for (size_t i = 0; i < work->lane_count; i++)
        if (work->lanes[i].busy || (!work->lanes[i].finished && !stopping))
            return true;
    return false;
}

/* Milliseconds until the first rest ends, at most a progress report's time; a little more, so that it is over then. */
static int patience(const struct work *work)
{
    usec_t now = moment_monotonic(), wait = PROGRESS_EVERY;

    for (size_t i = 0; i < work->lane_count && work->held == NULL; i++) {
        const struct lane *lane = &work->lanes[i];

        if (!lane->busy && !lane->finished && !lane->yields && !lane->waits && lane->rests_until - now < wait)
            wait = lane->rests_until - now;
    }
    return wait <= 0 ? 0 : (int)((wait + USEC_PER_MSEC - 1) / USEC_PER_MSEC);
}

static void receive(struct work *work, struct lane *lane, short revents)
{
    struct answer answer;
    int r = db_ready(lane->db, revents);

    while (r >= 0 && work->end == WORK_GOES_ON && (r = db_receive(lane->db, &answer)) > 0)
        r = work->task->kind->engine->answer(work, lane, &answer);
    if (r < 0)
        lost(work, lane->db);
}

/* One wait for whichever session answers first; the last place is the control session's. */
static void wait_for_answers(struct work *work, struct pollfd *fds, const struct lanes_options *options)
{
    size_t count = work->lane_count;

    for (size_t i = 0; i < count; i++)
        fds[i] = work->lanes[i].busy
                     ? (struct pollfd){.fd = db_fd(work->lanes[i].db), .events = db_events(work->lanes[i].db)}
                     : (struct pollfd){.fd = -1};
    fds[count] = (struct pollfd){.fd = db_fd(options->control), .events = POLLIN};
    if (poll(fds, count + 1, patience(work)) < 0 && errno != EINTR)
        work_fail(work, mem_print("poll: %s", strerror(errno)));
    for (size_t i = 0; i < count && work->end == WORK_GOES_ON; i++)
        if (fds[i].fd >= 0 && fds[i].revents != 0)
            receive(work, &work->lanes[i], fds[i].revents);
    if (fds[count].revents != 0 && db_ready(options->control, fds[count].revents) < 0)
        lost(work, options->control);
}

/* ---- Idle lanes take over half of what is left of the slowest ---- */

/* Rows under which parting a lane costs more than it gains. */
#define FEW_ROWS 20000

/* The one that is taking over already, or else the first that is done: one at a time, or two would part the same lane. */
static struct lane *idle_lane(const struct work *work)
{
    struct lane *first = NULL;

    for (size_t i = 0; i < work->lane_count; i++) {
        struct lane *lane = &work->lanes[i];

        if (!lane->finished || lane->db == NULL)
            continue;
        if (lane->sharing != SHARING_NOTHING)
            return lane;
        if (first == NULL)
            first = lane;
    }
    return first;
}

/* A lane that may be worth parting: lanes began as equal shares, so that the first that is left is as good as any. */
static struct lane *slow_lane(const struct work *work)
{
    struct lane *first = NULL;
    int unfinished = 0;

    for (size_t i = 0; i < work->lane_count; i++) {
        struct lane *lane = &work->lanes[i];

        if (lane->yields && !lane->finished) /* it was told so, and waits for it */
            return lane;
        if (first == NULL && !lane->finished && !lane->small && lane->at.cursor != NULL)
            first = lane;
        unfinished += !lane->finished;
    }
    return unfinished < governor_lanes(&work->governor) ? first : NULL;
}

/* The session of an idle lane goes on with the rest of another one. */
static void hand_over(struct work *work, struct lane *idle, struct lane *lane)
{
    struct lane *rest = &work->lanes[work->lane_count];

    assert(!lane->busy); /* a batch in flight may go beyond the new end */
    *rest = (struct lane){
        .at = {.lane = (int)work->lane_count, .from = mem_copy(idle->middle), .to = lane->at.to},
        .db = idle->db,
        .state = idle->state,
    };
    snprintf(rest->number, sizeof(rest->number), "%zu", work->lane_count);
    lane->at.to = idle->middle;
    lane->yields = false;
    work->task->kind->engine->shorten(lane);
    work->lane_count++;
    idle->db = NULL;
    idle->state = NULL;
    idle->middle = NULL;
}

/* One step of it, whenever the one before is answered. The slow lane rests meanwhile, so that its cursor stands still. */
static int share(struct work *work)
{
    const struct engine *engine = work->task->kind->engine;
    struct lane *idle = idle_lane(work);
    struct lane *lane = idle != NULL && idle->sharing != SHARING_NOTHING ? &work->lanes[idle->sharing_with] : slow_lane(work);

    if (idle == NULL || lane == NULL || engine->part == NULL || idle->busy)
        return 0;
    switch (idle->sharing) {
    case SHARING_NOTHING:
        if (work->lane_count == work->lane_room)
            return 0;
        lane->yields = true;
        idle->sharing_with = (size_t)(lane - work->lanes);
        return lane->busy ? 0 : engine->find_middle(work, idle, lane);
    case SHARING_TOLD:
        if (idle->middle != NULL && idle->middle_rows >= FEW_ROWS)
            return engine->part(work, idle, lane);
        lane->small = true;
        lane->yields = false;
        idle->sharing = SHARING_NOTHING;
        return 0;
    case SHARING_PARTED:
        idle->sharing = SHARING_NOTHING;
        hand_over(work, idle, lane);
        return 0;
    default:
        return 0;
    }
}

/* Lets what was begun come to its end, and begins nothing while the run stops or holds back. */
static void share_out(struct work *work, bool stopping)
{
    struct lane *idle = idle_lane(work);

    if (work->end != WORK_GOES_ON || idle == NULL || ((stopping || work->held != NULL) && idle->sharing == SHARING_NOTHING))
        return;
    if (share(work) < 0 || (idle->db != NULL && db_push(idle->db) < 0))
        lost(work, idle->db);
}

static void drive(struct work *work, const struct lanes_options *options)
{
    struct pollfd *fds = mem_alloc((work->lane_room + 1) * sizeof(*fds));
    usec_t reported = moment_monotonic();

    for (;;) {
        bool stopping = *options->stop != 0;

        if (options->watch(work, options->argument) < 0)
            lost(work, options->control);
        share_out(work, stopping);
        send_all(work, stopping);
        if (work->end != WORK_GOES_ON || !goes_on(work, stopping))
            break;
        wait_for_answers(work, fds, options);
        if (moment_monotonic() - reported >= PROGRESS_EVERY) {
            options->progress(work, options->argument);
            reported = moment_monotonic();
        }
    }
    free(fds);
}

void lanes_run(struct work *work, const struct lanes_options *options)
{
    for (size_t i = 0; i < work->lane_count && work->end == WORK_GOES_ON; i++) {
        struct lane *lane = &work->lanes[i];

        lane->finished = lane->at.cursor != NULL && strcmp(lane->at.cursor, lane->at.to) == 0;
        if (!lane->finished)
            open_lane(work, lane, options);
    }
    if (work->end == WORK_GOES_ON)
        drive(work, options);
    for (size_t i = 0; i < work->lane_count; i++) {
        work->task->kind->engine->release(&work->lanes[i]);
        free(work->lanes[i].middle);
        work->lanes[i].middle = NULL;
        db_close_and_wait(work->lanes[i].db, work->lanes[i].busy ? 0 : governor_end_time(&work->governor));
        work->lanes[i].db = NULL;
    }
}
