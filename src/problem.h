/* SPDX-License-Identifier: PostgreSQL */
/* problem: what stands between a job and its work, each with its remedy; a list, in the order they were found. */
#ifndef RM_PROBLEM_H
#define RM_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>

#include "mem.h"

struct problem {
    bool advice;  /* true: the work can be done all the same, only worse */
    char *text;   /* "table shop.users: column points is nullable" */
    char *remedy; /* exact SQL where there is one ("ALTER TABLE … SET NOT NULL;"), or what to do; NULL: none */
};

/* All zero is empty. */
struct problems {
    struct problem *list;
    size_t count;
};

void problems_free(struct problems *);

/* Adds one, unless the list has one of the same text: jobs share tables. `remedy` is copied. */
void problems_add(struct problems *, bool advice, const char *remedy, const char *format, ...) PRINTF_LIKE(4, 5);

#endif
