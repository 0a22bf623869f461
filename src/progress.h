/* SPDX-License-Identifier: PostgreSQL */
/* progress: --run-once's reporter: a bar on the terminal that standard error is, nothing otherwise. */
#ifndef RM_PROGRESS_H
#define RM_PROGRESS_H

#include "child.h"

struct progress {
    struct reporter reporter; /* first: the reporter is the progress */
    bool terminal;
    usec_t began;
    int64_t before; /* rows that earlier attempts did */
};

struct progress progress_begin(void);

/* Removes the bar, so that a line can be printed. */
void progress_clear(void);

#endif
