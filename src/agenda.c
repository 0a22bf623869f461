/* SPDX-License-Identifier: PostgreSQL */
/* agenda: see agenda.h. */
#include "config.h"

#include "agenda.h"

#include <stdint.h>
#include <string.h>

#define DELAY_MIN (100 * USEC_PER_MSEC) /* whatever is configured, a retry is no loop */

static usec_t earlier(usec_t a, usec_t b)
{
    return a == MOMENT_NONE || (b != MOMENT_NONE && b < a) ? b : a;
}

static usec_t later(usec_t a, usec_t b)
{
    return a > b ? a : b;
}

void agenda_init(struct agenda *agenda, usec_t now)
{
    *agenda = (struct agenda){.seen = now, .due = MOMENT_NONE, .leftovers = MOMENT_NONE};
}

void agenda_configure(struct agenda *agenda, const struct schedule *schedule, usec_t offset, usec_t retry_delay,
                      bool changed, usec_t now)
{
    agenda->schedule = schedule;
    agenda->offset = offset;
    agenda->retry_delay = retry_delay;
    agenda->wanted = agenda->apply = true;
    agenda->halted = false;
    agenda->delay = agenda->not_before = 0;
    if (changed || schedule == NULL) {
        agenda->seen = now;
        agenda->due = MOMENT_NONE;
    }
    if (schedule == NULL)
        agenda->leftovers = MOMENT_NONE;
}

usec_t agenda_next(const struct agenda *agenda)
{
    struct occurrence next;

    if (agenda->schedule == NULL || schedule_next(agenda->schedule, agenda->seen, &next) < 0)
        return MOMENT_NONE;
    return next.at;
}

bool agenda_look(struct agenda *agenda, usec_t now)
{
    usec_t before = agenda->due, at;

    while ((at = agenda_next(agenda)) != MOMENT_NONE && at + agenda->offset <= now) {
        if (now - at - agenda->offset > AGENDA_ON_TIME) {
            /* The host slept, or its clock was set forward: what lies between is for the job's catch_up to judge. */
            agenda->wanted = true;
            agenda->seen = now - agenda->offset - AGENDA_ON_TIME - 1;
        } else {
            agenda->seen = agenda->due = at;
        }
    }
    return agenda->due != before;
}

bool agenda_ready(const struct agenda *agenda, usec_t now)
{
    return !agenda->halted && now >= agenda->not_before &&
           (agenda->wanted || agenda->due != MOMENT_NONE ||
            (agenda->leftovers != MOMENT_NONE && now >= agenda->leftovers));
}

usec_t agenda_send(struct agenda *agenda)
{
    usec_t due = agenda->due;

    agenda->due = agenda->leftovers = MOMENT_NONE;
    agenda->wanted = false;
    return due;
}

void agenda_settled(struct agenda *agenda, usec_t now)
{
    agenda->delay = agenda->not_before = 0;
    if (agenda->leftovers != MOMENT_NONE) /* by the server's clock, which may be behind ours */
        agenda->leftovers = later(agenda->leftovers, now + later(agenda->retry_delay, DELAY_MIN));
}

void agenda_recalled(struct agenda *agenda, usec_t due)
{
    /* An occurrence that no schedule has any more is not given back. */
    if (agenda->due == MOMENT_NONE && due != MOMENT_NONE && agenda->schedule != NULL &&
        schedule_has(agenda->schedule, due))
        agenda->due = due;
}

void agenda_failed(struct agenda *agenda, usec_t due, usec_t now)
{
    usec_t first = later(agenda->retry_delay, DELAY_MIN), most = later(first, AGENDA_DELAY_MAX);

    agenda_recalled(agenda, due);
    agenda->wanted = true;
    agenda->delay = agenda->delay == 0 ? first : agenda->delay > most / 2 ? most : agenda->delay * 2;
    agenda->not_before = now + agenda->delay;
}

void agenda_clock_set(struct agenda *agenda, usec_t now)
{
    if (agenda->seen > now + AGENDA_ON_TIME) /* set back by more than a correction: silence until then would be wrong */
        agenda->seen = now;
    if (agenda->not_before > now + agenda->delay)
        agenda->not_before = now + agenda->delay;
}

usec_t agenda_wake(const struct agenda *agenda, bool busy)
{
    usec_t wake = agenda_next(agenda);

    if (agenda->halted)
        return MOMENT_NONE;
    if (wake != MOMENT_NONE)
        wake += agenda->offset;
    if (busy)
        return wake;
    if (agenda->wanted || agenda->due != MOMENT_NONE)
        return earlier(wake, agenda->not_before);
    if (agenda->leftovers != MOMENT_NONE)
        return earlier(wake, later(agenda->leftovers, agenda->not_before));
    return wake;
}

/* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t hash(uint64_t state, const void *bytes, size_t length)
{
    for (const unsigned char *byte = bytes; length > 0; byte++, length--)
        state = (state ^ *byte) * UINT64_C(0x100000001b3);
    return state;
}

usec_t agenda_offset(const void *host, size_t host_length, const char *job, usec_t jitter)
{
    uint64_t state = hash(hash(UINT64_C(0xcbf29ce484222325), host, host_length), job, strlen(job));

    /* The last bytes of FNV reach the low bits only; without this, jobs named a1 and a2 would be neighbours. */
    state ^= state >> 33;
    state *= UINT64_C(0xff51afd7ed558ccd);
    state ^= state >> 33;
    return jitter > 0 ? (usec_t)(state % (uint64_t)jitter) : 0;
}
