/* SPDX-License-Identifier: PostgreSQL */
#include "batch.h"

#define FIRST_SIZE 100

static int clamp(int64_t size, int64_t least, int64_t most)
{
    return (int)(size < least ? least : size > most ? most : size);
}

struct batch batch_begin(usec_t target, int most)
{
    return (struct batch){.target = target, .most = most, .size = clamp(FIRST_SIZE, 1, most)};
}

void batch_took(struct batch *batch, int rows, usec_t elapsed)
{
    double fits;
    int64_t fitting;

    if (rows <= 0)
        return;
    if (elapsed <= 0)
        elapsed = 1;
    fits = (double)rows * (double)batch->target / (double)elapsed;
    fitting = fits < INT32_MAX ? (int64_t)fits : INT32_MAX;
    if (fitting < rows) {
        int64_t least = rows / 8 > 1 ? rows / 8 : 1;
        int size = clamp(fitting, least, batch->most);

        if (size < batch->size)
            batch->size = size;
    } else if (rows >= batch->size) {
        batch->size = clamp(fitting < 2 * (int64_t)rows ? fitting : 2 * (int64_t)rows, batch->size, batch->most);
    }
}
