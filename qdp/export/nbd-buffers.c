/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HOT. Aligned I/O buffers by power-of-two classes, kept for reuse.
 *
 * B1 at most KEEP_BYTES are kept unused; what is beyond goes back to the system;
 * B2 what was not needed during a whole TRIM_NS goes back too, so that an idle
 *    server holds nothing: neither buffers, nor stacks, nor what the C library
 *    keeps after them (the timer sleeps while nothing is kept).
 */
#include <glib.h>
#include <malloc.h>

#include "block/aio/disk.h"
#include "qdp/export/nbd.h"

#define MIN_CLASS  12 /* 4 KiB */
#define MAX_CLASS  25 /* 32 MiB */
#define KEEP_BYTES (16u << 20)
#define TRIM_NS    (INT64_C(1) * 1000000000)
#define ALIGN      4096 /* at least every port's mem_align */

typedef struct FreeBuffer {
    struct FreeBuffer *next;
} FreeBuffer;

typedef struct BufferClass {
    FreeBuffer *free;
    uint32_t nb_free;
    uint32_t low; /* the least nb_free since the last trim */
} BufferClass;

struct NbdBuffers {
    Loop *loop;
    LoopTimer trim_timer;
    uint64_t kept, in_use; /* bytes */
    BufferClass classes[MAX_CLASS + 1];
};

static unsigned class_of(uint32_t len)
{
    unsigned bits = len <= 1 ? 0 : 32 - (unsigned)__builtin_clz(len - 1);
    return MAX(bits, MIN_CLASS);
}

/* Give back the @count that were used longest ago: those at the end of the list. */
static void drop(NbdBuffers *buffers, unsigned c, uint32_t count)
{
    BufferClass *cls = &buffers->classes[c];
    FreeBuffer **end = &cls->free;

    for (uint32_t keep = cls->nb_free - count; keep > 0; keep--) {
        end = &(*end)->next;
    }
    while (*end) {
        FreeBuffer *buf = *end;
        *end = buf->next;
        disk_buffer_free(buf);
    }
    cls->nb_free -= count;
    cls->low = cls->nb_free;
    buffers->kept -= (uint64_t)count << c;
}

static void trim(LoopTimer *timer)
{
    NbdBuffers *buffers = container_of(timer, NbdBuffers, trim_timer);
    for (unsigned c = MIN_CLASS; c <= MAX_CLASS; c++) {
        drop(buffers, c, buffers->classes[c].low);
    }
    if (buffers->kept) {
        loop_timer_arm(timer, loop_now_ns(buffers->loop) + TRIM_NS);
        return;
    }
    coroutine_pool_trim();
#ifdef __GLIBC__
    malloc_trim(
        64u << 10); /* its own threshold grows with the largest block ever freed */
#endif
}

void nbd_buffers_trim_later(NbdBuffers *buffers)
{
    if (!loop_timer_armed(&buffers->trim_timer)) {
        loop_timer_arm(&buffers->trim_timer, loop_now_ns(buffers->loop) + TRIM_NS);
    }
}

NbdBuffers *nbd_buffers_new(Loop *loop)
{
    NbdBuffers *buffers = g_new0(NbdBuffers, 1);
    buffers->loop = loop;
    loop_timer_init(&buffers->trim_timer, loop, trim);
    return buffers;
}

void nbd_buffers_free(NbdBuffers *buffers)
{
    g_assert(buffers->in_use == 0);
    loop_timer_cancel(&buffers->trim_timer);
    for (unsigned c = MIN_CLASS; c <= MAX_CLASS; c++) {
        drop(buffers, c, buffers->classes[c].nb_free);
    }
    g_free(buffers);
}

void *nbd_buffer_get(NbdBuffers *buffers, uint32_t len)
{
    unsigned c = class_of(len);
    BufferClass *cls = &buffers->classes[c];
    void *ptr = cls->free;

    if (ptr) {
        cls->free = cls->free->next;
        cls->nb_free--;
        cls->low = MIN(cls->low, cls->nb_free);
        buffers->kept -= UINT64_C(1) << c;
    } else {
        ptr = disk_buffer_try_alloc(ALIGN, (size_t)1 << c);
    }
    if (ptr) {
        buffers->in_use += UINT64_C(1) << c;
    }
    return ptr;
}

void nbd_buffer_put(NbdBuffers *buffers, void *ptr, uint32_t len)
{
    unsigned c = class_of(len);
    BufferClass *cls = &buffers->classes[c];
    FreeBuffer *buf = ptr;

    buffers->in_use -= UINT64_C(1) << c;
    if (buffers->kept + (UINT64_C(1) << c) > KEEP_BYTES) {
        disk_buffer_free(ptr);
        return;
    }
    buf->next = cls->free;
    cls->free = buf;
    cls->nb_free++;
    buffers->kept += UINT64_C(1) << c;
    nbd_buffers_trim_later(buffers);
}

uint64_t nbd_buffers_in_use(const NbdBuffers *buffers)
{
    return buffers->in_use;
}
