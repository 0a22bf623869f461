/* SPDX-License-Identifier: PostgreSQL */
/*
 * mem: allocation that succeeds or ends the process, and a growing string.
 *
 * A daemon that cannot get a few hundred bytes cannot do anything useful with the error either, so no caller
 * checks for NULL. A message goes to standard error before abort().
 */
#ifndef RM_MEM_H
#define RM_MEM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define ELEMENTS(array) (sizeof(array) / sizeof(*(array)))

void *mem_alloc(size_t size);                            /* zeroed; never NULL */
void *mem_resize(void *block, size_t count, size_t size); /* count * size bytes, overflow checked; contents kept */
char *mem_copy(const char *text);                        /* NULL gives NULL */
char *mem_print(const char *format, ...) PRINTF_LIKE(1, 2);

/* Sets *ret_error (when ret_error is not NULL) to the formatted text, which the caller frees, and returns `error`. */
int mem_fail(int error, char **ret_error, const char *format, ...) PRINTF_LIKE(3, 4);

void mem_replace(char **text, char *by); /* frees the text and takes over `by` */
void mem_free_text(char **text); /* for cleanup attributes */
#define AUTO_TEXT __attribute__((cleanup(mem_free_text))) char *

/* A growing string. All zero is empty; `text` is NULL until something was added. */
struct buf {
    char *text;
    size_t length, room;
};

void buf_add(struct buf *, const char *text);
void buf_add_bytes(struct buf *, const char *bytes, size_t length);
void buf_print(struct buf *, const char *format, ...) PRINTF_LIKE(2, 3);
void buf_vprint(struct buf *, const char *format, va_list);
void buf_clear(struct buf *); /* empty, the room kept */
void buf_free(struct buf *);
char *buf_take(struct buf *); /* the text (never NULL), now the caller's; the buffer is empty again */
#define AUTO_BUF __attribute__((cleanup(buf_free))) struct buf

#endif
