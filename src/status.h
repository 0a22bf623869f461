/* SPDX-License-Identifier: PostgreSQL */
/* status: what the process's exit status says, as a protocol between runs, the daemon, systemd and scripts. */
#ifndef RM_STATUS_H
#define RM_STATUS_H

enum status {
    STATUS_DONE = 0,
    STATUS_FAILED = 1,
    STATUS_USAGE = 2,
    STATUS_CONFIGURATION = 6,
    STATUS_LEFT_OVER = 10,
    STATUS_INTERRUPTED = 11,
    STATUS_BUSY = 75,
};

/* One sentence without a final period, for logs and the man page; never NULL, also for a status that is none of ours. */
const char *status_sentence(int status);

#endif
