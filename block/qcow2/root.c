/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Roots: the few numbers by which everything else is found - where the L1 and the refcount
 * table are, where a refcount block is. One that changes refers to a table that is durable
 * already; but a write or sync of the number itself that fails leaves it unknown which of
 * the two the disk names. It may turn out either way after a crash.
 *
 * R1 after such a failure the driver goes on with the new table, and nothing that needs it
 *    on the disk happens before the number has been written again and synced: no
 *    allocation from new clusters, no epoch (and so no flush, and nothing let go of);
 * R2 until then the old table is complete for all that is durable, and its clusters are
 *    not free.
 */
#include <errno.h>
#include <string.h>

#include "block/break.h"
#include "block/qcow2/qcow2.h"

static int coroutine_fn co_write_root(Qcow2 *q, const UnsettledRoot *root)
{
    /* in the header a field, anywhere else an entry of a table */
    if (root->offset < q->cluster_size) {
        return header_co_write_field(q, root->offset, root->bytes, root->len);
    }
    return node_co_write_buf(q->file, root->offset, root->len, root->bytes, 0);
}

int coroutine_fn root_co_write(Qcow2 *q, uint64_t offset, const void *bytes, size_t len,
                               bool sync)
{
    UnsettledRoot root = {.offset = offset, .len = (uint8_t)len};

    g_assert(len <= sizeof(root.bytes) && !q->unsettled.len);
    memcpy(root.bytes, bytes, len);
    int ret = co_write_root(q, &root);
    if (ret == 0 && sync) {
        ret = node_co_flush(q->file);
    }
    if (ret < 0 && !BROKEN(BREAK_ROOT)) {
        q->unsettled = root;
    }
    return ret;
}

int coroutine_fn root_co_settle(Qcow2 *q)
{
    if (!q->unsettled.len) {
        return 0;
    }
    int ret = co_write_root(q, &q->unsettled);
    if (ret == 0) {
        ret = node_co_flush(q->file);
    }
    if (ret == 0) {
        q->unsettled.len = 0;
    }
    return ret;
}
