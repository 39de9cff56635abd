/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * raw: the bytes of the file child, as they are; optionally a window of them.
 *
 * R1 where the raw format was only guessed (probed), a guest must not write another
 *    format's magic into the first sector: the next open would believe it. Zeros can be
 *    part of a magic too;
 * R2 what changes that sector looks at it, and writes, alone (head_lock): two that come
 *    together would each see a sector without the other's bytes. Nothing else takes the
 *    lock.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/base/error.h"
#include "block/base/iov.h"
#include "block/driver/table.h"

typedef struct RawState {
    uint64_t offset;
    uint64_t size; /* with has_size */
    bool has_size;
    bool has_offset; /* also when it is 0 */
    CoMutex head_lock; /* R2 */
} RawState;

#define HEAD_BYTES 512

static uint64_t window_length(const RawState *s, uint64_t file_length)
{
    return s->has_size ? s->size : file_length - s->offset;
}

static bool check_window(const RawState *s, uint64_t file_length, GError **errp)
{
    if (s->offset > file_length ||
        (s->has_size && s->size > file_length - s->offset)) {
        if (s->has_size && s->offset <= file_length) {
            error_set(errp,
                      "The sum of offset (%" PRIu64 ") and size (%" PRIu64
                      ") has to be smaller or equal to the  actual size of the containing "
                      "file (%" PRIu64 ")",
                      s->offset, s->size, file_length);
        } else {
            error_set(errp,
                      "Offset (%" PRIu64 ") cannot be greater than size of the "
                      "containing file (%" PRIu64 ")",
                      s->offset, file_length);
        }
        return false;
    }
    if (s->has_size && s->size % 512) {
        error_set(errp, "Specified size is not multiple of %llu", 512ull);
        return false;
    }
    return true;
}

static bool coroutine_fn raw_co_open(BlockNode *node, const BlockdevOptions *options,
                                     const OpenInherit *inherit, GError **errp)
{
    const BlockdevOptionsRaw *o = &options->u.raw;
    if ((o->has_offset && o->offset < 0) || (o->has_size && o->size < 0)) {
        error_set(errp, "Parameter '%s' expects a non-negative number below 2^64",
                  o->has_offset && o->offset < 0 ? "offset" : "size");
        return false;
    }
    BlockEdge *edge = node_co_open_child(node, o->file, "file", inherit, errp);
    if (!edge) {
        return false;
    }
    g_autofree RawState *s = g_new0(RawState, 1);
    s->offset = o->has_offset ? (uint64_t)o->offset : 0;
    s->has_offset = o->has_offset;
    s->has_size = o->has_size;
    s->size = o->has_size ? (uint64_t)o->size : 0;
    co_mutex_init(&s->head_lock, graph_loop(node->graph));
    BlockNode *file = edge->child;
    if (!check_window(s, file->length, errp)) {
        return false;
    }
    node->length = window_length(s, file->length);
    node->read_only |= file->read_only;
    node->request_align = file->request_align;
    node->mem_align = file->mem_align;
    node->filename = g_strdup(file->filename);
    node->state = g_steal_pointer(&s);
    return true;
}

static void coroutine_fn raw_co_close(BlockNode *node)
{
    g_free(node->state);
}

static inline bool is_guarded(const BlockNode *node, uint64_t offset)
{
    return G_UNLIKELY(node->probed_raw) && offset < HEAD_BYTES;
}

static void raw_map(BlockNode *node, MapOp op, uint64_t offset, uint64_t len,
                    MapResult *ret)
{
    const RawState *s = node->state;
    ret->len = len;
    ret->extent_flags = 0;
    if (op == MAP_OP_WRITE && is_guarded(node, offset)) {
        ret->kind = MAP_SLOW;
        return;
    }
    ret->kind = MAP_CHILD;
    ret->child = node->file_child;
    ret->offset = offset + s->offset;
}

/* R1, with head_lock held: may the first sector become what this makes of it? Without @iov:
 * zeros. */
static int coroutine_fn co_check_head(BlockNode *node, uint64_t offset, uint64_t len,
                                      const struct iovec *iov, int niov)
{
    uint8_t head[HEAD_BYTES];
    struct iovec whole = {head, sizeof(head)};
    uint64_t here = min_u64(len, sizeof(head) - offset);
    int ret = node_co_read(node, 0, sizeof(head), &whole, 1, 0);
    if (ret < 0) {
        return ret;
    }
    if (iov) {
        iov_to_buf(iov, niov, 0, head + offset, here);
    } else {
        memset(head + offset, 0, here);
    }
    if (strcmp(driver_probe(head, sizeof(head))->name, "raw") != 0 ||
        driver_probe_foreign(head, sizeof(head))) {
        return -EPERM;
    }
    return 0;
}

/* Only what is guarded comes here. */
static int coroutine_fn raw_co_write(BlockNode *node, uint64_t offset, uint64_t len,
                                     const struct iovec *iov, int niov, unsigned flags)
{
    RawState *s = node->state;
    co_mutex_lock(&s->head_lock);
    int ret = co_check_head(node, offset, len, iov, niov);
    if (ret == 0) {
        ret = node_co_write(node->file_child, offset + s->offset, len, iov, niov, flags);
    }
    co_mutex_unlock(&s->head_lock);
    return ret;
}

static int coroutine_fn raw_co_write_zeroes(BlockNode *node, uint64_t offset,
                                            uint64_t len, unsigned flags)
{
    RawState *s = node->state;
    if (!is_guarded(node, offset)) {
        return node_co_write_zeroes(node->file_child, offset + s->offset, len, flags);
    }
    co_mutex_lock(&s->head_lock);
    int ret = co_check_head(node, offset, len, NULL, 0);
    if (ret == 0) {
        ret = node_co_write_zeroes(node->file_child, offset + s->offset, len, flags);
    }
    co_mutex_unlock(&s->head_lock);
    return ret;
}

static int coroutine_fn raw_co_discard(BlockNode *node, uint64_t offset, uint64_t len)
{
    RawState *s = node->state;
    if (!is_guarded(node, offset)) {
        return node_co_discard(node->file_child, offset + s->offset, len);
    }
    /* The whole sector, or nothing of it: of a part there is no knowing what becomes. */
    uint64_t skip = offset == 0 && len >= HEAD_BYTES ? 0 : HEAD_BYTES - offset;
    if (len <= skip) {
        return 0;
    }
    co_mutex_lock(&s->head_lock);
    int ret = node_co_discard(node->file_child, offset + skip + s->offset, len - skip);
    co_mutex_unlock(&s->head_lock);
    return ret;
}

static int coroutine_fn raw_co_flush(BlockNode *node)
{
    return node_co_flush(node->file_child);
}

static int coroutine_fn raw_co_status(BlockNode *node, uint64_t offset, uint64_t len,
                                      BlockExtent *ret)
{
    const RawState *s = node->state;
    return node_co_status(node->file_child, offset + s->offset, len, ret);
}

static bool coroutine_fn raw_co_truncate(BlockNode *node, uint64_t size, GError **errp)
{
    RawState *s = node->state;
    if (s->has_size) {
        error_set(errp, "Cannot resize fixed-size raw disks");
        return false;
    }
    if (size > INT64_MAX - s->offset) {
        error_set(errp, "Disk size too large for the chosen offset");
        return false;
    }
    if (!node_co_truncate(node->file_child, size + s->offset, errp)) {
        return false;
    }
    node_set_length(node, window_length(s, node->file_child->length));
    return true;
}

static bool raw_name_options(const BlockNode *node, JsonValue *options)
{
    const RawState *s = node->state;
    if (s->has_offset) {
        json_object_set_uint(options, "offset", s->offset);
    }
    if (s->has_size) {
        json_object_set_uint(options, "size", s->size);
    }
    return s->has_offset || s->has_size;
}

static int64_t raw_refresh_length(BlockNode *node)
{
    const RawState *s = node->state;
    int64_t length = node_refresh_length(node->file_child);
    if (length < 0) {
        return length;
    }
    if ((uint64_t)length < s->offset) {
        return -EIO;
    }
    return (int64_t)window_length(s, (uint64_t)length);
}

const BlockDriver driver_raw = {
    .name = "raw",
    .qapi_id = BLOCKDEV_DRIVER_RAW,
    .is_filter = true,
    .co_open = raw_co_open,
    .co_close = raw_co_close,
    .map = raw_map,
    .co_write = raw_co_write,
    .co_write_zeroes = raw_co_write_zeroes,
    .co_discard = raw_co_discard,
    .co_flush = raw_co_flush,
    .co_status = raw_co_status,
    .co_truncate = raw_co_truncate,
    .refresh_length = raw_refresh_length,
    .name_options = raw_name_options,
    .child_perm = filter_child_perm,
};
