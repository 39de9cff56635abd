/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes that map cannot answer: allocation, copy-on-write, L2 tables.
 *
 * Two ways to make a guest cluster writable:
 *  - *in place of nothing*: the guest reads zeros there through the whole chain and the new
 *    cluster is known to read as zeros. Its entry is published at once, and the caller
 *    maps again and writes the guest's bytes only (MAP_AGAIN);
 *  - *by copy*: head and tail are read through the old mapping, [head | guest | tail] is
 *    written, then published. Until then other writers of the cluster wait (CowRange).
 *
 * W1 no yield between looking at an entry and replacing it;
 * W2 a cluster being copied has no entry yet: reads see the old contents.
 */
#include <errno.h>
#include <string.h>

#include "block/base/iov.h"
#include "block/base/ablate.h"
#include "block/break.h"
#include "block/qcow2/qcow2.h"

#define COPY_PIECE (256 * KiB)
#define MAX_ALLOC_BYTES (16 * MiB) /* of one request at a time */

/* ---- clusters being copied ---- */

static CowRange *find_cow(Qcow2 *q, uint64_t first, uint64_t count)
{
    if (BROKEN(BREAK_COW_OVERLAP)) {
        return NULL;
    }
    list_foreach(it, &q->cows) {
        CowRange *cow = container_of(it, CowRange, link);
        if (ranges_overlap(first, count, cow->first, cow->count)) {
            return cow;
        }
    }
    return NULL;
}

bool coroutine_fn qcow2_co_wait_cow(Qcow2 *q, uint64_t first, uint64_t count)
{
    bool waited = false;
    while (find_cow(q, first, count)) {
        co_queue_wait(&q->cow_changed);
        waited = true;
    }
    return waited;
}

/* ---- L2 tables ---- */

static void l1_set(Qcow2 *q, uint64_t index, uint64_t entry)
{
    uint64_t block = index / 64;
    q->l1[index] = entry;
    overlap_note(q, entry & QCOW2_L1_OFFSET_MASK);
    q->l1_dirty[block / 8] |= (uint8_t)(1 << (block % 8));
    q->l1_any_dirty = true;
}

/* Fill the new table at @offset: zeros, or the shared table that it replaces. */
static int coroutine_fn fill_table(Qcow2 *q, uint64_t offset, uint64_t old, bool zero)
{
    if (!old) {
        /* Written out even where zeros are read: a full disk shows now, to the one who
         * asked, and not when a flush must write the table. */
        node_co_event(q->file, BLKDEBUG_EVENT_L2_ALLOC_WRITE);
        int ret = node_co_write_zero_data(q->file, offset, q->cluster_size);
        /* order: Q4. Said when it is written: an epoch that began meanwhile takes the flag
         * along, but its sync need not cover the table */
        q->copied_since_sync |= !zero && !BROKEN(BREAK_Q4_REUSED);
        return ret;
    }
    uint8_t *buf = disk_buffer_try_alloc(4096, MAX(q->cluster_size, 4096));
    if (!buf) {
        return -ENOMEM;
    }
    node_co_event(q->file, BLKDEBUG_EVENT_L2_ALLOC_COW_READ);
    int ret = node_co_read_buf(q->file, old, q->cluster_size, buf);
    if (ret == 0) {
        node_co_event(q->file, BLKDEBUG_EVENT_L2_ALLOC_WRITE);
        ret = node_co_write_buf(q->file, offset, q->cluster_size, buf, 0);
    }
    q->copied_since_sync |= !BROKEN(BREAK_Q4_TABLE); /* order: Q4, durable before the L1 entry */
    disk_buffer_free(buf);
    return ret;
}

/* Make the table of this L1 entry exist and be ours alone; l1_lock held. */
static int coroutine_fn make_table(Qcow2 *q, uint64_t l1_index)
{
    uint64_t entry = q->l1[l1_index];
    uint64_t offset, count;
    bool zero;

    if ((entry & QCOW2_L1_OFFSET_MASK) && (entry & QCOW2_COPIED)) {
        return 0; /* somebody else made it while we waited for the lock */
    }
    int ret = alloc_co_clusters(q, 1, &offset, &count, &zero);
    if (ret < 0) {
        return ret;
    }
    uint64_t old = entry & QCOW2_L1_OFFSET_MASK;
    if (BROKEN(BREAK_L1_ENOSPC)) {
        l1_set(q, l1_index, offset | QCOW2_COPIED);
    }
    ret = fill_table(q, offset, old, zero);
    if (ret < 0) {
        alloc_co_unused(q, offset, 1);
        return ret;
    }
    l1_set(q, l1_index, offset | QCOW2_COPIED);
    if (!old) {
        l2_table_is_empty(q, l1_index);
    }
    if (BROKEN(BREAK_TABLE_FREED)) {
        alloc_co_unused(q, offset, 1);
    }
    if (old) {
        alloc_drop(q, old, q->cluster_size);
    }
    return 0;
}

int coroutine_fn qcow2_co_get_slice(Qcow2 *q, uint64_t guest_cluster)
{
    uint64_t l1_index = guest_cluster >> q->l2_bits;
    for (;;) {
        uint64_t entry = q->l1[l1_index];
        int r = 0;
        if (!(entry & QCOW2_L1_OFFSET_MASK) || !(entry & QCOW2_COPIED)) {
            co_mutex_lock(&q->l1_lock);
            r = make_table(q, l1_index);
            co_mutex_unlock(&q->l1_lock);
        } else {
            if (l2_is_loaded(q, guest_cluster)) {
                return 0;
            }
            r = l2_co_load(q, guest_cluster, 0);
        }
        if (r < 0) {
            return r;
        }
    }
}

void qcow2_drop_entry(Qcow2 *q, uint64_t entry)
{
    if (entry == QCOW2_ENTRY_INVALID) {
        return;
    }
    if (entry & QCOW2_COMPRESSED) {
        uint64_t offset, len;
        compressed_location(q, entry, &offset, &len);
        alloc_drop(q, offset, len);
    } else if (entry & QCOW2_L2_OFFSET_MASK) {
        alloc_drop(q, entry & QCOW2_L2_OFFSET_MASK, q->cluster_size);
    }
}

/* ---- in place of nothing ---- */

/* Does nothing but zeros lie under this range of guest clusters?  Unallocated or zero
 * here, and zero through the backing chain. Yields. */
static int coroutine_fn co_reads_zero_below(Qcow2 *q, uint64_t offset, uint64_t len,
                                            bool *ret_zero)
{
    BlockNode *backing = q->node->backing_child;
    uint64_t zero = 0;
    *ret_zero = true;
    if (!backing || offset >= backing->length) {
        return 0;
    }
    len = min_u64(len, backing->length - offset);
    int ret = node_co_known_zero(backing, offset, len, &zero);
    *ret_zero = zero == len;
    return ret;
}

static bool is_nothing(uint64_t entry)
{
    return entry == 0 || (entry & ~QCOW2_COPIED) == QCOW2_ZERO;
}

/* From @first on: clusters without a host cluster, whose contents are the backing chain's
 * (entry 0) or zeros; all alike in that. */
static uint64_t count_alike(const Qcow2 *q, uint64_t first,
                            uint64_t max)
{
    uint64_t left = l2_slice_entries(q) - (first & (l2_slice_entries(q) - 1));
    uint64_t entry = l2_get(q, first);
    uint64_t n = 1;
    while (n < max && n < left && l2_get(q, first + n) == entry) {
        n++;
    }
    return n;
}

/* Publish @count clusters from @first on at @offset. W1: does not yield. */
static int publish(Qcow2 *q, uint64_t first, uint64_t count,
                   uint64_t offset)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t old = l2_get(q, first + i);
        uint64_t entry = (offset + (i << q->cluster_bits)) |
                         (BROKEN(BREAK_NO_COPIED) ? 0 : QCOW2_COPIED);
        if (!l2_set(q, first + i, entry)) {
            return -EIO; /* the first ones stay published, which is no harm (Q7) */
        }
        if ((old ^ entry) & QCOW2_L2_OFFSET_MASK || old & QCOW2_COMPRESSED) {
            qcow2_drop_entry(q, old);
        }
    }
    return 0;
}

/* Zero clusters for [first, first + count), published at once. MAP_AGAIN, 0 when it does
 * not apply (not known zero), or -errno. */
static int coroutine_fn co_alloc_zero(Qcow2 *q, uint64_t first, uint64_t count)
{
    uint64_t offset, got;
    bool zero;

    int ret = alloc_co_clusters(q, count, &offset, &got, &zero);
    if (ret < 0) {
        return ret;
    }
    if (!zero) {
        alloc_co_unused(q, offset, got);
        return 0;
    }
    ret = qcow2_co_get_slice(q, first);
    if (ret < 0) {
        alloc_co_unused(q, offset, got);
        return ret;
    }
    /* Others may have been here while we waited. */
    if (find_cow(q, first, got) || !is_nothing(l2_get(q, first)) ||
        count_alike(q, first, got) < got) {
        alloc_co_unused(q, offset, got);
        return MAP_AGAIN;
    }
    ret = publish(q, first, got, offset);
    return ret < 0 ? ret : MAP_AGAIN;
}

/* ---- by copy ---- */

typedef struct Copy {
    Qcow2 *q;
    uint64_t first, count;  /* guest clusters */
    uint64_t host;          /* their new place */
    uint64_t offset, len;   /* the guest's bytes */
    const struct iovec *iov;
    int niov;
} Copy;

/* Copy [from, to) of guest offsets through the old mapping, in pieces. */
static int coroutine_fn co_copy_range(const Copy *c, uint64_t from, uint64_t to)
{
    Qcow2 *q = c->q;
    uint64_t piece_max = min_u64(to - from, KNOB(copy_piece, COPY_PIECE));
    uint64_t base = c->first << q->cluster_bits;
    uint8_t *buf = node_co_copy_buffer_get(q->node, (uint32_t)piece_max);
    int ret = buf ? 0 : -ENOMEM;

    while (ret == 0 && from < to) {
        uint64_t piece = min_u64(piece_max, to - from);
        uint64_t readable = from < q->node->length
                                ? min_u64(piece, q->node->length - from)
                                : 0;
        memset(buf + readable, 0, piece - readable);
        if (readable) {
            node_co_event(q->file, BLKDEBUG_EVENT_COW_READ);
            ret = node_co_read_buf(q->node, from, readable, buf);
        }
        if (ret == 0) {
            node_co_event(q->file, BLKDEBUG_EVENT_COW_WRITE);
            ret = node_co_write_buf(q->file, c->host + (from - base), piece, buf, 0);
        }
        from += piece;
    }
    if (buf) {
        node_copy_buffer_put(q->node, buf, (uint32_t)piece_max);
    }
    return ret;
}

/* Read what surrounds the guest's bytes: the head to the start of @buf and the tail to @at.
 * One read when @at leaves room for the guest's bytes between them. */
#define COPY_IOV 32
#define READ_GAP (32 * KiB)
static int coroutine_fn co_read_around(const Copy *c, uint8_t *buf, uint64_t head,
                                       uint64_t tail, uint64_t at)
{
    BlockNode *node = c->q->node;
    const uint64_t start = c->offset - head, behind = c->offset + c->len;

    if (!head && !tail) {
        return 0;
    }
    node_co_event(c->q->file, BLKDEBUG_EVENT_COW_READ);
    if (head && tail && at > head) {
        return node_co_read_buf(node, start, at + tail, buf);
    }
    int ret = head ? node_co_read_buf(node, start, head, buf) : 0;
    if (ret == 0 && tail) {
        uint64_t wrong = BROKEN(BREAK_COW_OFFSET) && c->count > 1 ? c->q->cluster_size : 0;
        ret = node_co_read_buf(node, behind - wrong, tail, buf + at);
    }
    return ret;
}

/* Small clusters: one read of what surrounds the guest's bytes, one vectored write. */
static int coroutine_fn co_copy_at_once(const Copy *c)
{
    Qcow2 *q = c->q;
    const uint64_t start = c->first << q->cluster_bits;
    const uint64_t bytes = c->count << q->cluster_bits;
    const uint64_t head = c->offset - start, behind = c->offset + c->len;
    const uint64_t tail = start + bytes - behind;
    const uint64_t readable =
        behind < q->node->length ? min_u64(tail, q->node->length - behind) : 0;
    const bool gap = head && readable && c->len <= READ_GAP && !BROKEN(BREAK_COW_OFFSET);
    const uint64_t at = head + (gap ? c->len : 0); /* of the tail, in the buffer */
    const uint32_t room = (uint32_t)max_u64(at + tail, 1);
    struct iovec iov[COPY_IOV];
    int n = 0;

    uint8_t *buf = node_co_copy_buffer_get(q->node, room);
    if (!buf) {
        return -ENOMEM;
    }
    int ret = co_read_around(c, buf, head, readable, at);
    memset(buf + at + readable, 0, tail - readable);
    if (head) {
        iov[n++] = (struct iovec){buf, head};
    }
    int guest = iov_slice(c->iov, c->niov, 0, c->len, iov + n, COPY_IOV - 2);
    n += guest;
    if (tail) {
        iov[n++] = (struct iovec){buf + at, tail};
    }
    if (ret == 0) {
        node_co_event(q->file, head || tail ? BLKDEBUG_EVENT_COW_WRITE
                                            : BLKDEBUG_EVENT_WRITE_AIO);
        ret = guest < 0 ? -EINVAL : node_co_write(q->file, c->host, bytes, iov, n, 0);
    }
    node_copy_buffer_put(q->node, buf, room);
    return ret;
}

static int coroutine_fn co_copy(const Copy *c)
{
    Qcow2 *q = c->q;
    uint64_t start = c->first << q->cluster_bits;
    uint64_t end = start + (c->count << q->cluster_bits);

    const uint64_t piece = KNOB(copy_piece, COPY_PIECE);
    if (q->cluster_size <= piece && c->niov <= COPY_IOV - 2 &&
        !ablated(ABLATE_COPY_AT_ONCE)) {
        return co_copy_at_once(c);
    }
    int ret = 0;
    if (c->offset > start) {
        ret = co_copy_range(c, start, c->offset);
    }
    if (ret == 0 && end > c->offset + c->len) {
        ret = co_copy_range(c, c->offset + c->len, end);
    }
    if (ret == 0) {
        node_co_event(q->file, BLKDEBUG_EVENT_WRITE_AIO);
        ret = node_co_write(q->file, c->host + (c->offset - start), c->len, c->iov, c->niov,
                            0);
    }
    return ret;
}

/* The clusters of @c, which wait for us as a CowRange, get a host range and the data. */
static int coroutine_fn co_copy_and_publish(Copy *c, uint64_t reuse_host)
{
    Qcow2 *q = c->q;

    int ret = co_copy(c);
    if (ret == 0) {
        ret = qcow2_co_get_slice(q, c->first);
    }
    if (ret == 0) {
        q->copied_since_sync = true; /* order: Q2, the data before its entry */
        return publish(q, c->first, c->count, c->host);
    }
    if (!reuse_host || BROKEN(BREAK_Q7)) {
        alloc_co_unused(q, c->host, c->count);
    }
    return ret;
}

/* How many clusters from @first on may be done by one copy. */
static uint64_t copy_count(const Qcow2 *q, uint64_t first,
                           uint64_t max, uint64_t *ret_reuse)
{
    uint64_t entry = l2_get(q, first);
    *ret_reuse = 0;
    if ((entry & QCOW2_COPIED) && (entry & QCOW2_ZERO)) {
        *ret_reuse = entry & QCOW2_L2_OFFSET_MASK; /* zero, with a cluster of its own */
        return 1;
    }
    uint64_t left = l2_slice_entries(q) - (first & (l2_slice_entries(q) - 1));
    uint64_t n = 1;
    while (n < max && n < left) {
        entry = l2_get(q, first + n);
        if (entry == QCOW2_ENTRY_INVALID || (entry & QCOW2_COPIED)) {
            break;
        }
        n++;
    }
    return n;
}

static __attribute__((noinline)) int coroutine_fn co_write_by_copy(Qcow2 *q, uint64_t offset, uint64_t len,
                                         const struct iovec *iov, int niov,
                                         uint64_t *ret_done)
{
    uint64_t first = offset >> q->cluster_bits;
    uint64_t max = ((offset + len - 1) >> q->cluster_bits) - first + 1;
    struct iovec part[64];
    uint64_t reuse, got = 1;
    bool zero;

    int ret = qcow2_co_get_slice(q, first);
    if (ret < 0) {
        return ret;
    }
    uint64_t count = copy_count(q, first, max, &reuse);
    if (find_cow(q, first, count)) {
        qcow2_co_wait_cow(q, first, count);
        return MAP_AGAIN;
    }
    uint64_t entry = l2_get(q, first);
    if ((entry & (QCOW2_COPIED | QCOW2_ZERO | QCOW2_COMPRESSED)) == QCOW2_COPIED) {
        return MAP_AGAIN; /* writable by now */
    }
    CowRange cow = {.first = first, .count = count};
    list_append(&q->cows, &cow.link);
    Copy c = {.q = q, .first = first, .host = reuse, .offset = offset};
    if (!reuse) {
        ret = alloc_co_clusters(q, count, &c.host, &got, &zero);
    }
    if (ret == 0) {
        c.count = cow.count = got;
        if (BROKEN(BREAK_COW_WIDE) && got > 1) {
            cow.count--;
        }
        c.len = min_u64(len, ((first + got) << q->cluster_bits) - offset);
        c.niov = iov_slice(iov, niov, 0, c.len, part, G_N_ELEMENTS(part));
        c.iov = part;
        if (c.niov < 0) { /* the walk limits vectors to 64 pieces */
            ret = -EINVAL;
        } else {
            ret = co_copy_and_publish(&c, reuse);
        }
    }
    list_remove(&cow.link);
    co_queue_wake_all(&q->cow_changed);
    *ret_done = c.len;
    return ret;
}

/* ---- the entry ---- */

/* One step: done bytes in *ret_done with 0, MAP_AGAIN, or -errno. */
static __attribute__((noinline)) int coroutine_fn co_write_step(Qcow2 *q, uint64_t offset, uint64_t len,
                                      const struct iovec *iov, int niov,
                                      uint64_t *ret_done)
{
    uint64_t first = offset >> q->cluster_bits;
    uint64_t count = ((offset + len - 1) >> q->cluster_bits) - first + 1;

    if (qcow2_co_wait_cow(q, first, count)) {
        return MAP_AGAIN;
    }
    int ret = qcow2_co_get_slice(q, first);
    if (ret < 0) {
        return ret;
    }
    uint64_t entry = l2_get(q, first);
    if (entry == QCOW2_ENTRY_INVALID || l2_has_invalid(q, first)) {
        return -EIO;
    }
    if (is_nothing(entry) && !ablated(ABLATE_KNOWN_ZERO)) {
        bool zero = true;
        count = count_alike(q, first, count);
        if (entry == 0) {
            ret = co_reads_zero_below(q, first << q->cluster_bits, count << q->cluster_bits,
                                      &zero);
        }
        if (ret == 0 && zero) {
            ret = co_alloc_zero(q, first, count);
        }
        if (ret != 0) {
            return ret;
        }
    }
    return co_write_by_copy(q, offset, len, iov, niov, ret_done);
}

/* What lies in clusters of its own by now, and in one piece of the file: written there, the
 * bytes in *ret_done. MAP_AGAIN: nothing does.
 * Not by the walk, which would come back here for what follows: the guest decides how often
 * the two kinds of clusters alternate, and a stack has an end. */
static __attribute__((noinline)) int coroutine_fn co_write_in_place(Qcow2 *q, uint64_t offset,
                                                                    uint64_t len,
                                                                    const struct iovec *iov,
                                                                    int niov, uint64_t *ret_done)
{
    struct iovec part[64];
    MapResult map;

    qcow2_map(q->node, MAP_OP_WRITE, offset, len, &map);
    if (map.kind != MAP_CHILD) {
        return map.kind == MAP_ERROR ? -EIO : MAP_AGAIN;
    }
    *ret_done = min_u64(map.len, len);
    int n = iov_slice(iov, niov, 0, *ret_done, part, G_N_ELEMENTS(part));
    node_co_event(q->file, BLKDEBUG_EVENT_WRITE_AIO);
    return n < 0 ? -EINVAL : node_co_write(q->file, map.offset, *ret_done, part, n, 0);
}

int coroutine_fn qcow2_co_write(BlockNode *node, uint64_t offset, uint64_t len,
                                const struct iovec *iov, int niov, unsigned flags)
{
    Qcow2 *q = node->state;
    struct iovec part[64];
    uint64_t done = 0;

    if (alloc_quarantine_full(q)) {
        qcow2_co_epoch(q);
    }
    while (done < len) {
        uint64_t step = min_u64(len - done, MAX_ALLOC_BYTES), did = 0;
        int n = iov_slice(iov, niov, done, step, part, G_N_ELEMENTS(part));
        if (n < 0) {
            return -EINVAL;
        }
        int ret = co_write_step(q, offset + done, step, part, n, &did);
        if (ret < 0) {
            return ret;
        }
        if (ret == MAP_AGAIN) {
            if (done == 0) {
                return MAP_AGAIN;
            }
            /* The first part is written: the rest is done here. */
            did = 0;
            ret = co_write_in_place(q, offset + done, step, part, n, &did);
            if (ret < 0) {
                return ret;
            }
        }
        done += did;
    }
    return 0;
}
