/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flush: a group commit by epoch.
 *
 * A flush belongs to the first epoch that starts after it arrived.  An epoch:
 *   1. captures: the dirty slices and L1 blocks as they are now, and what was dropped;
 *   2. writes refcounts;
 *   3. syncs, if anything captured depends on data or counts that are not durable yet
 *      (order: Q1, Q2, Q4, Q10);
 *   4. writes the captured slices and L1 blocks;
 *   5. syncs again (order: the flush's promise; Q3 for what was dropped);
 *   6. lets the dropped clusters into quarantine.
 * An entry set after the capture belongs to the next epoch, wherever this one stands:
 * what is written is the copy.
 *
 * A failure leaves everything captured dirty again (Q13).
 */
#include <errno.h>
#include <string.h>

#include "block/base/ablate.h"
#include "block/break.h"
#include "block/qcow2/qcow2.h"

#define L1_BLOCK 512u
#define MAX_CAPTURE_BYTES (16 * MiB) /* more is captured in further rounds */

typedef struct CapturedSlice {
    uint32_t index; /* of the slice */
    uint64_t disk_offset;
    be64 *copy;
} CapturedSlice;

typedef struct Capture {
    GArray *slices; /* CapturedSlice */
    uint32_t *l1_blocks;
    be64 *l1_copies;
    unsigned nb_l1_blocks;
    GArray *dropped; /* Dropped */
    uint64_t dropped_bytes;
    bool needs_first_sync;
    bool copied, reserved;
    bool partial; /* more was dirty than fits */
} Capture;

static size_t slice_bytes(const Qcow2 *q)
{
    return l2_slice_entries(q) * sizeof(be64);
}

static be64 *encode(const Qcow2 *q, uint32_t index)
{
    be64 *copy = disk_buffer_try_alloc(4096, MAX(slice_bytes(q), 512));
    if (copy) {
        l2_encode(q, index, copy);
    }
    return copy;
}

static int by_offset(const void *a, const void *b)
{
    const CapturedSlice *x = a, *y = b;
    return x->disk_offset < y->disk_offset ? -1 : x->disk_offset > y->disk_offset;
}

static int capture_slices(Qcow2 *q, Capture *cap)
{
    uint64_t bytes = 0;
    uint32_t index;
    while (l2_first_dirty(q, &index)) {
        if (bytes && bytes + slice_bytes(q) > KNOB(capture_bytes, MAX_CAPTURE_BYTES)) {
            cap->partial = true;
            break;
        }
        CapturedSlice c = {index, l2_slice_disk_offset(q, index), encode(q, index)};
        if (!c.copy) {
            return -ENOMEM;
        }
        bytes += slice_bytes(q);
        l2_begin_write(q, index);
        g_array_append_val(cap->slices, c);
    }
    g_array_sort(cap->slices, by_offset);
    return 0;
}

static uint32_t l1_blocks(const Qcow2 *q)
{
    return (uint32_t)div_round_up((uint64_t)q->l1_size * 8, L1_BLOCK);
}

static void encode_l1_block(const Qcow2 *q, uint32_t block, be64 *copy)
{
    const unsigned per_block = L1_BLOCK / 8;
    for (unsigned i = 0; i < per_block; i++) {
        uint64_t index = (uint64_t)block * per_block + i;
        copy[i] = be64_make(index < q->l1_size ? q->l1[index] : 0);
    }
}

static int capture_l1(Qcow2 *q, Capture *cap)
{
    uint32_t n = l1_blocks(q), dirty = 0;
    if (!q->l1_any_dirty) {
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) {
        dirty += (q->l1_dirty[i / 8] >> (i % 8)) & 1;
    }
    cap->l1_blocks = g_try_new(uint32_t, MAX(dirty, 1));
    cap->l1_copies = disk_buffer_try_alloc(4096, MAX(dirty, 1) * (size_t)L1_BLOCK);
    if (!cap->l1_blocks || !cap->l1_copies) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        if ((q->l1_dirty[i / 8] >> (i % 8)) & 1) {
            encode_l1_block(q, i, cap->l1_copies + cap->nb_l1_blocks * (L1_BLOCK / 8));
            cap->l1_blocks[cap->nb_l1_blocks++] = i;
        }
    }
    memset(q->l1_dirty, 0, div_round_up(n, 8));
    q->l1_any_dirty = false;
    return 0;
}

static int capture(Qcow2 *q, Capture *cap)
{
    cap->slices = g_array_new(FALSE, FALSE, sizeof(CapturedSlice));
    cap->dropped = g_array_new(FALSE, FALSE, sizeof(Dropped));
    cap->copied = q->copied_since_sync;
    cap->reserved = q->reserved_since_sync;
    cap->needs_first_sync = (cap->copied && !BROKEN(BREAK_Q2)) || cap->reserved ||
                            ablated(ABLATE_GROUP_COMMIT);
    /* order: slices first; when they do not all fit, what was dropped waits, for its
     * entry may be in one that is left. */
    int ret = capture_slices(q, cap);
    if (ret == 0) {
        ret = capture_l1(q, cap);
    }
    if (ret == 0 && !cap->partial) {
        g_array_append_vals(cap->dropped, q->dropped->data, q->dropped->len);
        g_array_set_size(q->dropped, 0);
        cap->dropped_bytes = q->dropped_bytes;
        q->dropped_bytes = 0;
    }
    q->copied_since_sync = false;
    q->reserved_since_sync = false;
    return ret;
}

/* The epoch failed: everything is dirty again. */
static void restore(Qcow2 *q, Capture *cap)
{
    if (BROKEN(BREAK_Q13)) {
        return;
    }
    for (guint i = 0; i < cap->slices->len; i++) {
        l2_write_failed(q, g_array_index(cap->slices, CapturedSlice, i).index);
    }
    for (unsigned i = 0; i < cap->nb_l1_blocks; i++) {
        q->l1_dirty[cap->l1_blocks[i] / 8] |= (uint8_t)(1 << (cap->l1_blocks[i] % 8));
        q->l1_any_dirty = true;
    }
    g_array_append_vals(q->dropped, cap->dropped->data, cap->dropped->len);
    q->dropped_bytes += cap->dropped_bytes;
    q->copied_since_sync |= cap->copied;
    q->reserved_since_sync |= cap->reserved;
}

static void capture_free(Qcow2 *q, Capture *cap)
{
    for (guint i = 0; i < cap->slices->len; i++) {
        CapturedSlice *c = &g_array_index(cap->slices, CapturedSlice, i);
        l2_end_write(q, c->index);
        disk_buffer_free(c->copy);
    }
    l2_make_room(q, 0); /* what was dirty can go now */
    g_array_free(cap->slices, TRUE);
    g_array_free(cap->dropped, TRUE);
    g_free(cap->l1_blocks);
    disk_buffer_free(cap->l1_copies);
}

typedef struct SliceWriter {
    Qcow2 *q;
    const Capture *cap;
    guint next; /* of the slices */
    int ret;
} SliceWriter;

/* Slices that follow each other on disk go out in one write. */
#define WRITE_RUN 64
static int coroutine_fn write_runs(void *opaque)
{
    SliceWriter *w = opaque;
    Qcow2 *q = w->q;
    const GArray *slices = w->cap->slices;
    struct iovec iov[WRITE_RUN];

    while (w->next < slices->len && w->ret == 0) {
        const CapturedSlice *first = &g_array_index(slices, CapturedSlice, w->next);
        int n = 0;
        for (; w->next < slices->len && n < WRITE_RUN; w->next++, n++) {
            const CapturedSlice *c = &g_array_index(slices, CapturedSlice, w->next);
            if (c->disk_offset != first->disk_offset + n * slice_bytes(q)) {
                break;
            }
            iov[n].iov_base = c->copy;
            iov[n].iov_len = slice_bytes(q);
        }
        node_co_event(q->file, BLKDEBUG_EVENT_L2_UPDATE);
        int ret = node_co_write(q->file, first->disk_offset, n * slice_bytes(q), iov, n, 0);
        w->ret = w->ret ? w->ret : ret;
    }
    return w->ret;
}

static int coroutine_fn write_slices(Qcow2 *q, const Capture *cap)
{
    SliceWriter w = {.q = q, .cap = cap};
    return co_together(graph_loop(q->node->graph),
                       MIN(cap->slices->len, qcow2_metadata_writers()), write_runs, &w);
}

static int coroutine_fn write_l1(Qcow2 *q, const Capture *cap)
{
    int ret = 0;
    for (unsigned i = 0; i < cap->nb_l1_blocks && ret == 0; i++) {
        uint64_t start = (uint64_t)cap->l1_blocks[i] * L1_BLOCK;
        uint64_t len = min_u64(L1_BLOCK, (uint64_t)q->l1_size * 8 - start);
        node_co_event(q->file, BLKDEBUG_EVENT_L1_UPDATE);
        ret = node_co_write_buf(q->file, q->l1_offset + start, len,
                                cap->l1_copies + i * (L1_BLOCK / 8), 0);
    }
    return ret;
}

static int coroutine_fn write_refcounts(Qcow2 *q)
{
    co_mutex_lock(&q->alloc_lock);
    int ret = root_co_settle(q);
    if (ret == 0) {
        ret = refcount_co_write_dirty(q);
    }
    co_mutex_unlock(&q->alloc_lock);
    return ret;
}

static int coroutine_fn write_captured(Qcow2 *q, const Capture *cap)
{
    bool metadata = cap->slices->len || cap->nb_l1_blocks;
    int ret = 0;

    if ((refcount_any_dirty(q) && !BROKEN(BREAK_Q1)) || q->unsettled.len) {
        ret = write_refcounts(q);
    }
    if (ret == 0 && metadata && cap->needs_first_sync) {
        q->early_syncs++;
        ret = node_co_flush(q->file);
    }
    if (ret == 0) {
        ret = write_slices(q, cap);
    }
    if (ret == 0) {
        ret = write_l1(q, cap);
    }
    if (ret == 0 && BROKEN(BREAK_Q1)) {
        ret = write_refcounts(q);
    }
    if (ret == 0) {
        q->syncs++;
        ret = node_co_flush(q->file);
    }
    return ret;
}

/* One round: what fits into MAX_CAPTURE_BYTES. */
static int coroutine_fn epoch_round(Qcow2 *q, bool *ret_more)
{
    Capture cap = {0};
    int ret = capture(q, &cap);
    if (ret == 0) {
        ret = write_captured(q, &cap);
    }
    if (ret < 0) {
        restore(q, &cap);
    } else if (cap.dropped->len) {
        alloc_captured_dropped(q, cap.dropped);
    }
    *ret_more = ret == 0 && cap.partial;
    capture_free(q, &cap);
    return ret;
}

static int coroutine_fn run_epoch(void *opaque)
{
    Qcow2 *q = opaque;
    bool more = true;
    int ret = 0;
    while (ret == 0 && more) {
        ret = epoch_round(q, &more);
    }
    q->epochs++;
    q->synced |= ret == 0;
    return ret;
}

static int coroutine_fn join_epoch(Qcow2 *q)
{
    return ablated(ABLATE_GROUP_COMMIT) ? co_group_alone(&q->flushes, run_epoch, q)
                                        : co_group_join(&q->flushes, run_epoch, q);
}

/*
 * Q2, the other way round: data in place needs nothing but itself to be durable when the
 * entry that leads to it is, and all above.  What a clean slice says is on the disk; it is
 * durable once a sync that began after the image was opened has succeeded: whoever wrote
 * before us may have died without one.
 */
bool qcow2_map_is_durable(const BlockNode *node, uint64_t offset)
{
    const Qcow2 *q = node->state;
    return BROKEN(BREAK_FUA) ||
           (q->synced && !q->l1_any_dirty && !q->unsettled.len &&
            co_group_idle(&q->flushes) && l2_is_clean(q, offset >> q->cluster_bits));
}

static int coroutine_fn flush_data(Qcow2 *q)
{
    int ret = node_co_flush(q->file);
    q->synced |= ret == 0;
    return ret;
}

int coroutine_fn qcow2_co_flush(BlockNode *node)
{
    Qcow2 *q = node->state;
    if (node->read_only) { /* a corrupt image: what was acknowledged is written still */
        return 0;
    }
    if (list_empty(&q->cache.dirty) && !q->l1_any_dirty && !refcount_any_dirty(q) &&
        !q->dropped->len && co_group_idle(&q->flushes) && !q->unsettled.len) {
        return flush_data(q); /* nothing to order */
    }
    return join_epoch(q);
}

void coroutine_fn qcow2_co_epoch(Qcow2 *q)
{
    join_epoch(q);
    alloc_co_throttle(q);
}
