/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HOT. The direct path: walk the graph by map, without I/O and without a coroutine, to the
 * extents of files a request is made of; then start all of them at once.
 *
 * Nothing is started before everything is known: when any part is not in memory, or needs
 * allocation, the whole request goes to the coroutine path (port.c), which walks by the
 * same map.
 */
#include <errno.h>
#include <limits.h>

#include "block/base/ablate.h"
#include "block/base/iov.h"
#include "block/break.h"
#include "block/graph-private.h"

typedef struct Extent {
    MapKind kind; /* MAP_FILE, MAP_ZERO or MAP_DONE */
    TrackedFile *file;
    uint64_t offset;
    uint64_t len;
    bool fua;
} Extent;

_Static_assert(BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF == 0, "tested as a truth value");

/* Beyond so many steps the layers are worth remembering (map-flat.h). */
#define LONG_WAY KNOB(flat_hops, 4)

static void __attribute__((noinline)) long_way(BlockNode *node, uint64_t offset)
{
    while (node->drv->is_filter && node->file_child) {
        node = node->file_child;
    }
    if (node->drv->learn_below) {
        node->drv->learn_below(node, offset);
    }
}

/* The end of the walk for the first byte: MAP_FILE, MAP_ZERO, MAP_DONE or a reason why
 * there is none.  *@fua: in, the data must be durable; out, the file must be told so. */
static inline void walk(BlockNode *node, MapOp op, uint64_t offset, uint64_t len, bool *fua,
                        MapResult *ret)
{
    BlockNode *root = node;
    uint64_t from = offset;
    unsigned steps = 0;

    for (;; steps++) {
        if (op == MAP_OP_WRITE && node->detect_zeroes) { /* it must look at the data */
            ret->kind = MAP_SLOW;
            return;
        }
        node->drv->map(node, op, offset, len, ret);
        if (ret->kind != MAP_CHILD) {
            break;
        }
        if (G_UNLIKELY(*fua) && node->drv->map_is_durable &&
            !node->drv->map_is_durable(node, offset)) {
            ret->kind = MAP_SLOW; /* it joins an epoch, behind its data */
            return;
        }
        node = ret->child;
        offset = ret->offset;
        len = ret->len;
    }
    if (G_UNLIKELY(steps > LONG_WAY) && op == MAP_OP_READ && ret->kind != MAP_MISS) {
        long_way(root, from);
    }
    *fua &= !node->cache_no_flush;
}

/* May a write that needs FUA go out on its own?  Those that come together are cheaper with
 * one sync for all of them. Not on a buffered file: of ENOSPC there nobody knows whether the
 * write met it, which harms nobody, or the sync of pages written before, which must be
 * remembered (Q13); in two steps it is known. */
static inline bool fua_alone(const TrackedFile *file)
{
    return file->nb_syncs == 0 && file->info.direct && !ablated(ABLATE_FUA_IN_PLACE);
}

/* Number of extents, or -1 when the coroutine path has to decide. */
static int resolve(BlockRequest *req, Extent *extents)
{
    MapOp op = req->op == BLOCK_WRITE              ? MAP_OP_WRITE
               : req->flags & BLOCK_NO_PROMOTE ? MAP_OP_SCAN
                                                   : MAP_OP_READ;
    uint64_t offset = req->offset, left = req->len;
    int n = 0;

    while (left > 0) {
        MapResult map;
        bool fua = op == MAP_OP_WRITE && (req->flags & BLOCK_FUA);
        walk(req->port->root, op, offset, left, &fua, &map);
        if (map.kind == MAP_FILE) {
            const DiskFileInfo *info = &map.file->info;
            if (((map.offset | map.len) & (info->offset_align - 1)) ||
                (op == MAP_OP_WRITE && tracked_must_wait(map.file)) ||
                (fua && !fua_alone(map.file))) {
                return -1;
            }
        } else if (map.kind != MAP_ZERO && map.kind != MAP_DONE) {
            return -1;
        }
        if (n == NB_EXTENTS_DIRECT) {
            return -1;
        }
        extents[n++] = (Extent){map.kind, map.file, map.offset, map.len, fua};
        offset += map.len;
        left -= map.len;
    }
    return n;
}

static DirectOp *direct_op_get(Graph *graph)
{
    DirectOp *dop = graph->free_ops;
    if (dop) {
        graph->free_ops = dop->next_free;
        return dop;
    }
    dop = g_try_malloc(sizeof(*dop));
    if (dop) {
        graph->nb_ops++;
        list_init(&dop->write.link);
    }
    return dop;
}

static void direct_op_put(Graph *graph, DirectOp *dop)
{
    dop->next_free = graph->free_ops;
    graph->free_ops = dop;
}

static void direct_done(DiskOp *op, int ret)
{
    DirectOp *dop = container_of(op, DirectOp, op);
    BlockRequest *req = dop->req;

    if (op->type == DISK_WRITE) {
        uint64_t end = op->offset + op->len;
        if (ret == 0 && end > dop->file->known_size) {
            dop->file->known_size = end;
        }
        tracked_write_end(dop->file, &dop->write);
        if (op->flags & DISK_FUA) {
            ret = tracked_sync_ended(dop->file, ret);
        }
    }
    direct_op_put(req->port->graph, dop);
    if (ret < 0 && req->result == 0) {
        req->result = ret;
    }
    if (--req->nb_pending == 0) {
        request_finish(req, req->result);
    }
}

/* Point @dop at the part of the request's buffer that starts @skip bytes in. */
static bool direct_op_set_iov(DirectOp *dop, const BlockRequest *req, uint64_t skip,
                              const Extent *extent)
{
    uint32_t align = extent->file->info.mem_align;
    if (skip == 0 && extent->len == req->len) {
        dop->op.iov = req->iov;
        dop->op.niov = req->niov;
    } else {
        dop->op.niov = iov_slice(req->iov, req->niov, skip, extent->len, dop->iov,
                                 NB_IOV_DIRECT);
        dop->op.iov = dop->iov;
        if (dop->op.niov < 0) {
            return false;
        }
    }
    return dop->op.niov <= IOV_MAX &&
           (align <= 1 || iov_is_aligned(dop->op.iov, dop->op.niov, align));
}

/* Make the operation of one extent; NULL when memory or alignment forbid it. */
static DirectOp *direct_op_make(BlockRequest *req, const Extent *extent, uint64_t skip)
{
    DirectOp *dop = direct_op_get(req->port->graph);
    if (!dop) {
        return NULL;
    }
    dop->req = req;
    dop->file = extent->file;
    dop->op.file = extent->file->disk;
    dop->op.done = direct_done;
    dop->op.offset = extent->offset;
    dop->op.len = extent->len;
    dop->op.type = req->op == BLOCK_WRITE ? DISK_WRITE : DISK_READ;
    dop->op.flags = extent->fua ? DISK_FUA : 0;
    if (!direct_op_set_iov(dop, req, skip, extent)) {
        direct_op_put(req->port->graph, dop);
        return NULL;
    }
    return dop;
}

bool resolve_and_submit(BlockRequest *req)
{
    Extent extents[NB_EXTENTS_DIRECT];
    DirectOp *ops[NB_EXTENTS_DIRECT];
    int n = resolve(req, extents);
    if (n < 0) {
        return false;
    }

    uint64_t skip = 0;
    int nb_ops = 0;
    for (int i = 0; i < n; i++) {
        if (extents[i].kind == MAP_FILE) {
            ops[nb_ops] = direct_op_make(req, &extents[i], skip);
            if (!ops[nb_ops]) {
                while (nb_ops > 0) {
                    direct_op_put(req->port->graph, ops[--nb_ops]);
                }
                return false;
            }
            nb_ops++;
        }
        skip += extents[i].len;
    }

    skip = 0;
    bool all_zero = req->op == BLOCK_READ;
    for (int i = 0; i < n; i++) {
        if (extents[i].kind == MAP_ZERO) {
            iov_memset(req->iov, req->niov, skip, 0, extents[i].len);
        } else {
            all_zero = false;
        }
        skip += extents[i].len;
    }
    req->was_zero = all_zero;
    if (nb_ops == 0) {
        request_finish_later(req, 0);
        return true;
    }
    req->nb_pending = nb_ops;
    for (int i = 0; i < nb_ops; i++) {
        if (ops[i]->op.type == DISK_WRITE) {
            tracked_write_begin(ops[i]->file, &ops[i]->write, ops[i]->op.offset,
                                ops[i]->op.len);
            ops[i]->file->nb_syncs += !!(ops[i]->op.flags & DISK_FUA);
        }
        disk_submit(&ops[i]->op);
    }
    return true;
}
