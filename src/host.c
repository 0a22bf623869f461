/* SPDX-License-Identifier: PostgreSQL */
#include "config.h"

#include "host.h"

#include <string.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "agenda.h"

/* sd_id128_get_machine_app_specific(3): the machine's own id is not to be given away, not even as a delay. */
#define APPLICATION_ID SD_ID128_MAKE(a2, 5c, 0f, 61, 9b, 7d, 4e, 4b, 8c, 3a, 17, f2, d6, e0, 94, b8)

usec_t host_offset(const char *job, usec_t jitter)
{
    char name[256] = "";
    sd_id128_t id;

    if (jitter == 0)
        return 0;
    if (sd_id128_get_machine_app_specific(APPLICATION_ID, &id) >= 0)
        return agenda_offset(&id, sizeof(id), job, jitter);
    (void)gethostname(name, sizeof(name) - 1); /* no /etc/machine-id: a container */
    return agenda_offset(name, strlen(name), job, jitter);
}
