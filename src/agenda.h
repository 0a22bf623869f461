/* SPDX-License-Identifier: PostgreSQL */
/*
 * agenda: when a job's next child is to be sent, and what for, as a value: instants in, instants out.
 *
 * The scheduler tells it what happened (an instant passed, a child was sent, settled, failed) and asks it when to wake up.
 * Nothing here reads a clock, forks, or logs, so everything about overlap, backoff and late timers is tested as a table.
 */
#ifndef RM_AGENDA_H
#define RM_AGENDA_H

#include <stdbool.h>
#include <stddef.h>

#include "moment.h"
#include "schedule.h"

#define AGENDA_DELAY_MAX (5 * USEC_PER_MINUTE) /* where the doubling of retry_delay ends */
#define AGENDA_ON_TIME USEC_PER_MINUTE         /* an occurrence noticed later than this was missed, not fired */

struct agenda {
    const struct schedule *schedule; /* NULL: nothing falls due (a disabled job); the owner's */
    usec_t offset;                   /* this host's jitter: an occurrence fires so much later */
    usec_t retry_delay;
    usec_t seen;       /* the occurrences up to here have fired */
    usec_t due;        /* the latest that fired and that no child was sent for; MOMENT_NONE */
    usec_t leftovers;  /* when they are to be retried; MOMENT_NONE */
    usec_t delay;      /* of the retry after the last failure; 0 when there was none */
    usec_t not_before; /* no child before this instant */
    bool wanted;       /* a child is to be sent whatever the schedule says */
    bool apply;        /* the ledger does not have the configured schedule, zone and enabled yet */
    bool halted;       /* no child can succeed until the configuration changes */
};

/* Empty; agenda_configure() must follow. */
void agenda_init(struct agenda *, usec_t now);

/*
 * At start-up and after each reload: a child is wanted that applies what was configured. `changed`: the schedule is
 * another one than before, and owes nothing from before now.
 */
void agenda_configure(struct agenda *, const struct schedule *, usec_t offset, usec_t retry_delay, bool changed, usec_t now);

/* Notices the occurrences that fired up to now. Returns whether `due` is another one than before. */
bool agenda_look(struct agenda *, usec_t now);

bool agenda_ready(const struct agenda *, usec_t now); /* whether a child is to be sent now */

/* A child is sent: returns the occurrence it is sent for, or MOMENT_NONE. */
usec_t agenda_send(struct agenda *);

/* The child that was sent for `due` ended: well; badly, and is to be sent again; because it was asked to. */
void agenda_settled(struct agenda *, usec_t now);
void agenda_failed(struct agenda *, usec_t due, usec_t now);
void agenda_recalled(struct agenda *, usec_t due);

/* The clock was set. */
void agenda_clock_set(struct agenda *, usec_t now);

/* The next occurrence that has not fired, or MOMENT_NONE. */
usec_t agenda_next(const struct agenda *);

/* When to look again, or MOMENT_NONE: never. `busy`: a child is at work, so only occurrences matter. */
usec_t agenda_wake(const struct agenda *, bool busy);

/* A fixed offset in [0, jitter) for a job on a host; 0 without jitter. */
usec_t agenda_offset(const void *host, size_t host_length, const char *job, usec_t jitter);

#endif
