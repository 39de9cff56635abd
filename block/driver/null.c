/* SPDX-License-Identifier: GPL-2.0-or-later */
/* null-co and null-aio: a disk that does nothing, to measure everything above it. */
#include <errno.h>

#include "block/base/error.h"
#include "block/base/iov.h"
#include "block/driver/table.h"

#define DEFAULT_SIZE (INT64_C(1) << 30)

typedef struct NullState {
    uint64_t latency_ns;
    bool has_size, has_read_zeroes;
    uint64_t size; /* as given */
    bool read_zeroes;
} NullState;

static bool coroutine_fn null_co_open(BlockNode *node, const BlockdevOptions *options,
                                      const OpenInherit *inherit, GError **errp)
{
    const BlockdevOptionsNull *o = options->driver == BLOCKDEV_DRIVER_NULL_CO
                                       ? &options->u.null_co
                                       : &options->u.null_aio;
    if (o->has_size && o->size < 0) {
        error_set(errp, "size must be non-negative");
        return false;
    }
    if (o->has_latency_ns && o->latency_ns > INT64_MAX) {
        error_set(errp, "latency-ns is invalid");
        return false;
    }
    NullState *s = g_new0(NullState, 1);
    s->latency_ns = o->has_latency_ns ? o->latency_ns : 0;
    s->read_zeroes = o->has_read_zeroes && o->read_zeroes;
    s->has_size = o->has_size;
    s->size = o->has_size ? (uint64_t)o->size : 0;
    s->has_read_zeroes = o->has_read_zeroes;
    node->state = s;
    node->length = round_up(o->has_size ? (uint64_t)o->size : DEFAULT_SIZE, 512);
    node->filename = g_strdup_printf("%s://", node->drv->name);
    return true;
}

static void coroutine_fn null_co_close(BlockNode *node)
{
    g_free(node->state);
}

static void null_map(BlockNode *node, MapOp op, uint64_t offset, uint64_t len,
                     MapResult *ret)
{
    const NullState *s = node->state;
    ret->len = len;
    ret->offset = offset;
    ret->extent_flags = op == MAP_OP_STATUS ? EXTENT_OFFSET : 0;
    if (s->latency_ns && op != MAP_OP_STATUS) {
        ret->kind = MAP_SLOW;
    } else if (op != MAP_OP_WRITE && s->read_zeroes) {
        ret->kind = MAP_ZERO;
    } else {
        ret->kind = MAP_DONE;
    }
}

static int coroutine_fn null_co_delay(BlockNode *node)
{
    const NullState *s = node->state;
    if (s->latency_ns) {
        co_sleep_ns(graph_loop(node->graph), (int64_t)s->latency_ns);
    }
    return 0;
}

static int coroutine_fn null_co_read(BlockNode *node, uint64_t offset, uint64_t len,
                                     const struct iovec *iov, int niov, unsigned flags)
{
    const NullState *s = node->state;
    if (s->read_zeroes) {
        iov_memset(iov, niov, 0, 0, len);
    }
    return null_co_delay(node);
}

static int coroutine_fn null_co_write(BlockNode *node, uint64_t offset, uint64_t len,
                                      const struct iovec *iov, int niov, unsigned flags)
{
    return null_co_delay(node);
}

static int coroutine_fn null_co_write_zeroes(BlockNode *node, uint64_t offset,
                                             uint64_t len, unsigned flags)
{
    return null_co_delay(node);
}

static bool null_name_options(const BlockNode *node, JsonValue *options)
{
    const NullState *s = node->state;
    if (s->has_size) {
        json_object_set_uint(options, "size", s->size);
    }
    if (s->has_read_zeroes) {
        json_object_set_bool(options, "read-zeroes", s->read_zeroes);
    }
    return s->has_size || s->has_read_zeroes;
}

static int64_t null_allocated_size(BlockNode *node)
{
    return 0;
}

#define NULL_DRIVER(var, text, id)                                                     \
    const BlockDriver var = {                                                          \
        .name = text,                                                                  \
        .qapi_id = id,                                                                 \
        .co_open = null_co_open,                                                       \
        .co_close = null_co_close,                                                     \
        .map = null_map,                                                               \
        .co_read = null_co_read,                                                       \
        .co_write = null_co_write,                                                     \
        .co_write_zeroes = null_co_write_zeroes,                                       \
        .co_flush = null_co_delay,                                                     \
        .allocated_size = null_allocated_size,                                         \
        .name_options = null_name_options,                                             \
        .child_perm = filter_child_perm,                                               \
    }

NULL_DRIVER(driver_null_co, "null-co", BLOCKDEV_DRIVER_NULL_CO);
NULL_DRIVER(driver_null_aio, "null-aio", BLOCKDEV_DRIVER_NULL_AIO);
