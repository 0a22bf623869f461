/* SPDX-License-Identifier: PostgreSQL */
#include "status.h"

#include <stddef.h>

#include "mem.h"

static const struct {
    enum status status;
    const char *sentence;
} sentences[] = {
    {STATUS_DONE, "done, or nothing was left to do"},
    {STATUS_FAILED, "the run failed"},
    {STATUS_USAGE, "usage: unknown option or job"},
    {STATUS_CONFIGURATION, "the configuration has errors"},
    {STATUS_LEFT_OVER, "done, but this run left rows over"},
    {STATUS_INTERRUPTED, "interrupted by a signal"},
    {STATUS_BUSY, "another process is running this job"},
};

const char *status_sentence(int status)
{
    for (size_t i = 0; i < ELEMENTS(sentences); i++)
        if ((int)sentences[i].status == status)
            return sentences[i].sentence;
    return "it ended with a status that is not roundsman's";
}
