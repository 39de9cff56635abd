/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Just as much of glib as the headers of block/aio need to be compiled for a machine for
 * which there is no glib here (test-coroutine-cross.py).
 */
#ifndef TESTS_UNIT_CROSS_GLIB_H
#define TESTS_UNIT_CROSS_GLIB_H

#include <stdio.h>
#include <stdlib.h>

typedef struct GError GError;
#define g_assert(condition)                                                            \
    do {                                                                               \
        if (!(condition)) {                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
            abort();                                                                   \
        }                                                                              \
    } while (0)
#define g_error(...)                                                                   \
    do {                                                                               \
        fprintf(stderr, __VA_ARGS__);                                                  \
        abort();                                                                       \
    } while (0)
#define G_UNLIKELY(x) (x)
#define G_LIKELY(x)   (x)

#endif
