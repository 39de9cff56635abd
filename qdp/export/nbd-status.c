/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BLOCK_STATUS: many extents, from metadata alone, in one chunk.
 *
 * Each request runs in a coroutine, for metadata may have to be loaded.
 */
#include <errno.h>

#include "qdp/export/nbd.h"

typedef struct WireExtent {
    be32 len, flags;
} WireExtent;

/* spec: base:allocation; HOLE says "not allocated", ZERO "reads as zeros". */
static uint32_t allocation_flags(const BlockExtent *extent)
{
    uint32_t flags = 0;
    if (!(extent->flags & EXTENT_ALLOCATED) ||
        ((extent->flags & EXTENT_ZERO) && !(extent->flags & (EXTENT_DATA | EXTENT_OFFSET)))) {
        flags |= NBD_STATE_HOLE;
    }
    if (extent->flags & EXTENT_ZERO) {
        flags |= NBD_STATE_ZERO;
    }
    return flags;
}

static uint32_t depth_value(const BlockExtent *extent)
{
    return extent->flags & EXTENT_ALLOCATED ? (uint32_t)MIN(extent->depth + 1, 2) : 0;
}

/* Fill @out with at most @max extents of one context; neighbours alike become one. */
static int coroutine_fn collect(NbdSlot *slot, bool depth, WireExtent *out, uint32_t max,
                                uint32_t *ret_count)
{
    BlockPort *port = slot->conn->export->port;
    uint64_t offset = slot->req.offset, left = slot->len;
    uint32_t n = 0, last_len = 0, last_flags = 0;

    while (left) {
        BlockExtent extent;
        int ret = port_co_status(port, offset, left, &extent);
        if (ret < 0) {
            return ret;
        }
        uint32_t flags = depth ? depth_value(&extent) : allocation_flags(&extent);
        if (n && flags == last_flags) {
            last_len += (uint32_t)extent.len;
        } else if (n == max) {
            break;
        } else {
            n++;
            last_len = (uint32_t)extent.len;
            last_flags = flags;
        }
        out[n - 1] = (WireExtent){be32_make(last_len), be32_make(last_flags)};
        offset += extent.len;
        left -= extent.len;
    }
    *ret_count = n;
    return 0;
}

static void coroutine_fn status_entry(void *opaque)
{
    NbdSlot *slot = opaque;
    NbdConn *conn = slot->conn;
    uint64_t length = port_length(conn->export->port);
    uint32_t max = slot->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_MAX_EXTENTS;
    uint32_t count = 0;

    /* The payload: the context's id, then its extents. */
    be32 *payload = g_try_malloc(sizeof(be32) + max * sizeof(WireExtent));
    if (!payload) {
        slot->error = -ENOMEM;
    } else if (slot->len == 0 || slot->req.offset > length ||
               slot->len > length - slot->req.offset) {
        slot->error = -EINVAL;
    } else {
        bool depth = !conn->meta_allocation;
        payload[0] = be32_make(depth ? 2 : 1);
        slot->error = collect(slot, depth, (WireExtent *)(payload + 1), max, &count);
    }
    slot->payload = payload;
    slot->payload_len = slot->error ? 0 : (uint32_t)(sizeof(be32) + count * sizeof(WireExtent));
    nbd_slot_reply(slot);
}

void nbd_status_start(NbdSlot *slot)
{
    slot->req.was_zero = false;
    coroutine_enter(coroutine_new(status_entry, slot, CO_STACK_DATA));
}
