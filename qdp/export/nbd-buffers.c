/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Aligned I/O buffers by power-of-two classes, kept for reuse up to a limit per class. */
#include <glib.h>

#include "block/aio/disk.h"
#include "qdp/export/nbd.h"

#define MIN_CLASS 12 /* 4 KiB */
#define MAX_CLASS 25 /* 32 MiB */
#define KEEP_BYTES (8u << 20) /* per class, while clients are connected */

typedef struct FreeBuffer {
    struct FreeBuffer *next;
} FreeBuffer;

struct NbdBuffers {
    FreeBuffer *free[MAX_CLASS + 1];
    uint32_t count[MAX_CLASS + 1];
};

static unsigned class_of(uint32_t len)
{
    unsigned bits = len <= 1 ? 0 : 32 - (unsigned)__builtin_clz(len - 1);
    return MAX(bits, MIN_CLASS);
}

struct NbdBuffers *nbd_buffers_new(void)
{
    return g_new0(struct NbdBuffers, 1);
}

void nbd_buffers_trim(struct NbdBuffers *buffers)
{
    for (int c = MIN_CLASS; c <= MAX_CLASS; c++) {
        while (buffers->free[c]) {
            FreeBuffer *buf = buffers->free[c];
            buffers->free[c] = buf->next;
            disk_buffer_free(buf);
        }
        buffers->count[c] = 0;
    }
}

void nbd_buffers_free(struct NbdBuffers *buffers)
{
    nbd_buffers_trim(buffers);
    g_free(buffers);
}

void *nbd_buffer_get(struct NbdBuffers *buffers, uint32_t len)
{
    unsigned c = class_of(len);
    FreeBuffer *buf = buffers->free[c];
    if (buf) {
        buffers->free[c] = buf->next;
        buffers->count[c]--;
        return buf;
    }
    return disk_buffer_try_alloc(4096, (size_t)1 << c);
}

void nbd_buffer_put(struct NbdBuffers *buffers, void *ptr, uint32_t len)
{
    unsigned c = class_of(len);
    if (((uint64_t)buffers->count[c] + 1) << c > KEEP_BYTES) {
        disk_buffer_free(ptr);
        return;
    }
    FreeBuffer *buf = ptr;
    buf->next = buffers->free[c];
    buffers->free[c] = buf;
    buffers->count[c]++;
}
