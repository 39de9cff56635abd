/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HOT. Aligned I/O buffers by power-of-two classes, kept for reuse.
 *
 * B1 at most keep_bytes are kept unused; what is beyond goes back to the system;
 * B2 what was not needed during a whole TRIM_NS goes back too, so that an idle
 *    server holds nothing: neither buffers, nor stacks, nor what the C library
 *    keeps after them (the timer sleeps while nothing is kept).
 */
#include <glib.h>
#include <malloc.h>

#include "block/aio/buffer-pool.h"
#include "block/aio/disk.h"

#define MIN_CLASS  12 /* 4 KiB */
#define MAX_CLASS  25 /* 32 MiB */
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

struct BufferPool {
    Loop *loop;
    LoopTimer trim_timer;
    uint64_t kept, in_use; /* bytes */
    uint64_t keep_bytes;
    BufferClass classes[MAX_CLASS + 1];
};

static unsigned class_of(uint32_t len)
{
    unsigned bits = len <= 1 ? 0 : 32 - (unsigned)__builtin_clz(len - 1);
    return MAX(bits, MIN_CLASS);
}

/* Give back the @count that were used longest ago: those at the end of the list. */
static void drop(BufferPool *pool, unsigned c, uint32_t count)
{
    BufferClass *cls = &pool->classes[c];
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
    pool->kept -= (uint64_t)count << c;
}

static void trim(LoopTimer *timer)
{
    BufferPool *pool = container_of(timer, BufferPool, trim_timer);
    for (unsigned c = MIN_CLASS; c <= MAX_CLASS; c++) {
        drop(pool, c, pool->classes[c].low);
    }
    if (pool->kept) {
        loop_timer_arm(timer, loop_now_ns(pool->loop) + TRIM_NS);
        return;
    }
    coroutine_pool_trim();
#ifdef __GLIBC__
    malloc_trim(
        64u << 10); /* its own threshold grows with the largest block ever freed */
#endif
}

void buffer_pool_trim_later(BufferPool *pool)
{
    if (!loop_timer_armed(&pool->trim_timer)) {
        loop_timer_arm(&pool->trim_timer, loop_now_ns(pool->loop) + TRIM_NS);
    }
}

BufferPool *buffer_pool_new(Loop *loop, uint64_t keep_bytes)
{
    BufferPool *pool = g_new0(BufferPool, 1);
    pool->loop = loop;
    pool->keep_bytes = keep_bytes;
    loop_timer_init(&pool->trim_timer, loop, trim);
    return pool;
}

void buffer_pool_free(BufferPool *pool)
{
    g_assert(pool->in_use == 0);
    loop_timer_cancel(&pool->trim_timer);
    for (unsigned c = MIN_CLASS; c <= MAX_CLASS; c++) {
        drop(pool, c, pool->classes[c].nb_free);
    }
    g_free(pool);
}

uint32_t buffer_pool_bytes(uint32_t len)
{
    return UINT32_C(1) << class_of(len);
}

void *buffer_pool_get(BufferPool *pool, uint32_t len)
{
    unsigned c = class_of(len);
    BufferClass *cls = &pool->classes[c];
    void *ptr = cls->free;

    if (ptr) {
        cls->free = cls->free->next;
        cls->nb_free--;
        cls->low = MIN(cls->low, cls->nb_free);
        pool->kept -= UINT64_C(1) << c;
    } else {
        ptr = disk_buffer_try_alloc(ALIGN, (size_t)1 << c);
    }
    if (ptr) {
        pool->in_use += UINT64_C(1) << c;
    }
    return ptr;
}

void buffer_pool_put(BufferPool *pool, void *ptr, uint32_t len)
{
    unsigned c = class_of(len);
    BufferClass *cls = &pool->classes[c];
    FreeBuffer *buf = ptr;

    pool->in_use -= UINT64_C(1) << c;
    if (pool->kept + (UINT64_C(1) << c) > pool->keep_bytes) {
        disk_buffer_free(ptr);
        return;
    }
    buf->next = cls->free;
    cls->free = buf;
    cls->nb_free++;
    pool->kept += UINT64_C(1) << c;
    buffer_pool_trim_later(pool);
}

uint64_t buffer_pool_in_use(const BufferPool *pool)
{
    return pool->in_use;
}
