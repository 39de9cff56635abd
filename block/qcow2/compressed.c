/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compressed clusters, reading: raw deflate with a window of 4 KiB.
 * spec: qcow2, "Compressed Clusters Descriptor": x = 62 - (cluster_bits - 8); bits 0..x-1
 * are the host offset, bits x..61 the number of further 512-byte sectors.
 */
#include <errno.h>
#include <zlib.h>

#include "block/base/iov.h"
#include "block/qcow2/qcow2.h"

void compressed_location(const Qcow2 *q, uint64_t entry, uint64_t *ret_offset,
                         uint64_t *ret_len)
{
    unsigned x = 62 - (q->cluster_bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << x) - 1);
    uint64_t sectors = ((entry & ((UINT64_C(1) << 62) - 1)) >> x) + 1;
    *ret_offset = offset;
    *ret_len = sectors * 512 - (offset & 511);
}

/* @in_len may be more than the stream has. Fills exactly @out_len bytes, or fails. */
static int inflate_cluster(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
    z_stream strm = {.next_in = (Bytef *)in, .avail_in = (uInt)in_len, .next_out = out,
                     .avail_out = (uInt)out_len};
    if (inflateInit2(&strm, -12) != Z_OK) {
        return -ENOMEM;
    }
    int ret = inflate(&strm, Z_FINISH);
    bool full = strm.avail_out == 0;
    inflateEnd(&strm);
    /* Z_BUF_ERROR: the output is full and the input has padding behind the stream. */
    return full && (ret == Z_STREAM_END || ret == Z_BUF_ERROR) ? 0 : -EIO;
}

static int coroutine_fn co_read_cluster(Qcow2 *q, uint64_t entry, uint8_t *out)
{
    uint64_t host, len;
    compressed_location(q, entry, &host, &len);
    uint8_t *in = disk_buffer_try_alloc(4096, round_up(len, 4096));
    if (!in) {
        return -ENOMEM;
    }
    node_co_event(q->file, BLKDEBUG_EVENT_READ_COMPRESSED);
    int ret = node_co_read_buf(q->file, host, len, in);
    if (ret == 0) {
        ret = inflate_cluster(in, len, out, q->cluster_size);
    }
    disk_buffer_free(in);
    return ret;
}

int coroutine_fn qcow2_co_read_compressed(BlockNode *node, uint64_t offset, uint64_t len,
                                          const struct iovec *iov, int niov,
                                          unsigned flags)
{
    Qcow2 *q = node->state;
    uint64_t cluster = offset >> q->cluster_bits;
    if (!l2_is_loaded(q, cluster)) {
        return MAP_AGAIN;
    }
    uint64_t entry = l2_get(q, cluster);
    if (entry == QCOW2_ENTRY_INVALID || !(entry & QCOW2_COMPRESSED)) {
        return MAP_AGAIN; /* it was rewritten */
    }
    uint8_t *out = disk_buffer_try_alloc(4096, MAX(q->cluster_size, 4096));
    if (!out) {
        return -ENOMEM;
    }
    int ret = co_read_cluster(q, entry, out);
    if (ret == 0) {
        iov_from_buf(iov, niov, 0, out + (offset & (q->cluster_size - 1)), len);
    }
    disk_buffer_free(out);
    return ret;
}
