/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Aligned buffers in power-of-two classes, kept for reuse: see buffer-pool.c. */
#ifndef BLOCK_AIO_BUFFER_POOL_H
#define BLOCK_AIO_BUFFER_POOL_H

#include <stdint.h>

#include "block/aio/loop.h"

typedef struct BufferPool BufferPool;

/* At most @keep_bytes of unused buffers are kept. */
BufferPool *buffer_pool_new(Loop *loop, uint64_t keep_bytes);
void buffer_pool_free(BufferPool *pool); /* all must be back */
/* @len 1 .. 32 MiB; NULL when there is no memory. */
void *buffer_pool_get(BufferPool *pool, uint32_t len);
void buffer_pool_put(BufferPool *pool, void *buf, uint32_t len); /* @len as asked for */
/* What a buffer of @len takes: whole classes. */
uint32_t buffer_pool_bytes(uint32_t len);
/* Something large was let go: when all is idle, give memory back to the system. */
void buffer_pool_trim_later(BufferPool *pool);
uint64_t buffer_pool_in_use(const BufferPool *pool); /* bytes handed out */

#endif
