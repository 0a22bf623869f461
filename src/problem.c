/* SPDX-License-Identifier: PostgreSQL */
#include "problem.h"

#include <stdlib.h>
#include <string.h>

void problems_free(struct problems *problems)
{
    for (size_t i = 0; i < problems->count; i++) {
        free(problems->list[i].text);
        free(problems->list[i].remedy);
    }
    free(problems->list);
    *problems = (struct problems){0};
}

void problems_add(struct problems *problems, bool advice, const char *remedy, const char *format, ...)
{
    AUTO_BUF text = {0};
    va_list list;

    va_start(list, format);
    buf_vprint(&text, format, list);
    va_end(list);
    for (size_t i = 0; i < problems->count; i++)
        if (strcmp(problems->list[i].text, text.text) == 0)
            return;
    problems->list = mem_resize(problems->list, problems->count + 1, sizeof(*problems->list));
    problems->list[problems->count++] =
        (struct problem){.advice = advice, .text = buf_take(&text), .remedy = mem_copy(remedy)};
}
