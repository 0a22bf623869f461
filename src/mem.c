/* SPDX-License-Identifier: PostgreSQL */
#include "mem.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *demand(void *block)
{
    if (block == NULL) {
        fputs("roundsman: out of memory\n", stderr);
        abort();
    }
    return block;
}

void *mem_alloc(size_t size)
{
    return demand(calloc(1, size == 0 ? 1 : size));
}

void *mem_resize(void *block, size_t count, size_t size)
{
    return demand(reallocarray(block, count == 0 ? 1 : count, size));
}

char *mem_copy(const char *text)
{
    return text == NULL ? NULL : demand(strdup(text));
}

char *mem_print(const char *format, ...)
{
    struct buf buf = {0};
    va_list list;

    va_start(list, format);
    buf_vprint(&buf, format, list);
    va_end(list);
    return buf_take(&buf);
}

int mem_fail(int error, char **ret_error, const char *format, ...)
{
    if (ret_error != NULL) {
        struct buf buf = {0};
        va_list list;

        va_start(list, format);
        buf_vprint(&buf, format, list);
        va_end(list);
        *ret_error = buf_take(&buf);
    }
    return error;
}

void mem_replace(char **text, char *by)
{
    free(*text);
    *text = by;
}

void mem_free_text(char **text)
{
    free(*text);
    *text = NULL;
}

static void reserve(struct buf *buf, size_t more)
{
    size_t need = buf->length + more + 1;

    if (need > buf->room) {
        buf->room = need < 64 ? 64 : need * 2;
        buf->text = mem_resize(buf->text, buf->room, 1);
    }
}

void buf_add_bytes(struct buf *buf, const char *bytes, size_t length)
{
    reserve(buf, length);
    memcpy(buf->text + buf->length, bytes, length);
    buf->length += length;
    buf->text[buf->length] = '\0';
}

void buf_add(struct buf *buf, const char *text)
{
    buf_add_bytes(buf, text, strlen(text));
}

void buf_vprint(struct buf *buf, const char *format, va_list list)
{
    va_list again;
    int length;

    va_copy(again, list);
    length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (length < 0)
        abort(); /* a format of ours is broken */
    reserve(buf, (size_t)length);
    vsnprintf(buf->text + buf->length, (size_t)length + 1, format, list);
    buf->length += (size_t)length;
}

void buf_print(struct buf *buf, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    buf_vprint(buf, format, list);
    va_end(list);
}

void buf_clear(struct buf *buf)
{
    buf->length = 0;
    if (buf->text != NULL)
        buf->text[0] = '\0';
}

void buf_free(struct buf *buf)
{
    free(buf->text);
    *buf = (struct buf){0};
}

char *buf_take(struct buf *buf)
{
    char *text = buf->text != NULL ? buf->text : mem_copy("");

    *buf = (struct buf){0};
    return text;
}
