/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cluster allocator: windows of reserved clusters, and what becomes of clusters that
 * the guest lets go of.
 *
 * A window is a run of clusters whose refcounts are raised at once, so that taking one is
 * a matter of memory.  A crash leaks at most what was reserved.
 *
 *   free --reserve--> window --take--> published --drop--> dropped --epoch--> quarantine
 *    ^                   |                                                        |
 *    +---- return -------+            <---------- grace period over, punched -----+
 *
 * A1 a window's clusters have refcount 1 and no owner but the window (Q5);
 * A2 the file covers a window before its refcounts are written (Q10);
 * A3 window_zero only where the storage was seen to guarantee it: grown by truncate on a
 *    regular file, or zeroed by a request that promises zeros.
 */
#include <errno.h>

#include "block/base/ablate.h"
#include "block/break.h"
#include "block/qcow2/qcow2.h"

#define WINDOW_BYTES        (4 * MiB)
#define WINDOW_MIN_CLUSTERS 16
#define GROW_STEP           (64 * MiB)
#define DROPPED_MAX_BYTES   (256 * MiB)
#define UNCOUNTED_RUN       32768
#define PIECE_BYTES         (256 * MiB) /* freed at once */
#define PIECES              8u /* freed before others get the lock of the allocator */
#define QUARANTINE_MAX      65536u /* ranges; then who lets go of more waits */
#define RECLAIM_AGAIN_NS    (INT64_C(20) * 1000000)
#define PUNCH_AT_REST_NS    (INT64_C(5) * 1000000000)
#define MAX_SEEN_BLOCKS     4096 /* full of counts behind the file's end: nonsense */

static uint64_t window_clusters(const Qcow2 *q, uint64_t want)
{
    if (ablated(ABLATE_ALLOC_WINDOW)) {
        return want;
    }
    uint64_t n = KNOB(window_clusters,
                      max_u64(WINDOW_BYTES >> q->cluster_bits, WINDOW_MIN_CLUSTERS));
    return max_u64(n, want);
}

/* Make the file cover @clusters; in steps, so that most windows find it long enough. */
static int coroutine_fn grow_file(Qcow2 *q, uint64_t clusters)
{
    uint64_t need = clusters << q->cluster_bits;
    if (need <= node_length(q->file)) {
        return 0;
    }
    uint64_t step = min_u64(KNOB(grow_step, GROW_STEP), max_u64(need, 16 * q->cluster_size));
    uint64_t size = round_up(need, max_u64(q->cluster_size, 4096)) + step;
    if (node_co_truncate(q->file, size, NULL) || node_co_truncate(q->file, need, NULL)) {
        return 0;
    }
    return -ENOSPC;
}

/* Free clusters inside the file: from earlier sessions, or reclaimed. */
static int coroutine_fn find_inside(Qcow2 *q, uint64_t want, uint64_t *ret_first,
                                    uint64_t *ret_count)
{
    *ret_count = 0;
    if (q->scan_cluster >= q->file_clusters) {
        return 0;
    }
    int ret = refcount_co_find_free(q, q->scan_cluster, q->file_clusters,
                                    window_clusters(q, want), ret_first, ret_count);
    if (ret == 0) {
        q->scan_cluster = *ret_count ? *ret_first : q->file_clusters;
    }
    return ret;
}

/*
 * The first @need clusters in a row behind the file whose counts are 0, for there may be
 * counts behind its end: another program was killed after it had written a count and
 * before it wrote the cluster. Many are looked at in one go.
 */
static int coroutine_fn find_uncounted(Qcow2 *q, uint64_t need, uint64_t *ret_first)
{
    uint64_t first = q->file_clusters, have = 0;

    if (first < q->uncounted_first || first > q->uncounted_end) {
        q->uncounted_first = q->uncounted_end = first;
    }
    have = q->uncounted_end - first;
    for (unsigned blocks = 0; have < need; blocks++) {
        uint64_t at = first + have, block_end = refcount_block_end(q, at), run, count;
        if (blocks == MAX_SEEN_BLOCKS) {
            return -EIO;
        }
        int ret = refcount_co_find_free(q, at, block_end, max_u64(need, UNCOUNTED_RUN),
                                        &run, &count);
        if (ret < 0) {
            return ret;
        }
        if (count == 0) { /* go on behind this block */
            run = block_end;
        }
        if (run != at) {
            first = run;
            have = 0;
        }
        have += count;
    }
    q->uncounted_first = first;
    q->uncounted_end = first + have;
    *ret_first = first;
    return 0;
}

/* Behind everything that was ever used: fresh zeros. */
static int coroutine_fn find_behind(Qcow2 *q, uint64_t want, uint64_t *ret_first,
                                    uint64_t *ret_count)
{
    uint64_t first;

    if (q->fixed_size) {
        return -ENOSPC;
    }
    int ret = find_uncounted(q, 1, &first);
    if (ret < 0) {
        return ret;
    }
    uint64_t end = min_u64(first + window_clusters(q, want), refcount_block_end(q, first));
    end = min_u64(end, q->uncounted_end);
    if (end << q->cluster_bits > QCOW2_MAX_OFFSET) {
        return -EFBIG;
    }
    ret = BROKEN(BREAK_Q10) ? 0 : grow_file(q, end);
    if (ret < 0) {
        return ret;
    }
    *ret_first = first;
    *ret_count = end - first;
    return 0;
}

/* Counts that call metadata free are wrong: nothing is written there, nor anywhere else. */
static bool coroutine_fn refuse_overlap(Qcow2 *q, uint64_t first, uint64_t count)
{
    uint64_t offset = first << q->cluster_bits, bytes = count << q->cluster_bits;
    const char *what = overlap_any(q, offset, bytes);

    if (what) {
        qcow2_co_mark_corrupt(q, (int64_t)offset, (int64_t)bytes,
                              "Preventing invalid write on metadata (overlaps with %s)",
                              what);
    }
    return what;
}

static int coroutine_fn reclaim_pieces(Qcow2 *q, bool drained, unsigned max,
                                       unsigned *ret_done);

static int coroutine_fn co_reserve(Qcow2 *q, uint64_t want)
{
    uint64_t first, count, used;
    bool fresh = false;

    int ret = root_co_settle(q);
    if (ret == 0) {
        unsigned done;
        ret = reclaim_pieces(q, false, PIECES, &done);
    }
    if (ret < 0) {
        return ret;
    }
    ret = find_inside(q, want, &first, &count);
    if (ret == 0 && count == 0) {
        fresh = true;
        ret = find_behind(q, want, &first, &count);
    }
    if (ret == 0 && refuse_overlap(q, first, count)) {
        ret = -EIO;
    }
    if (ret < 0) {
        return ret;
    }
    bool zero = fresh && node_grows_with_zeros(q->file);
    if (!fresh && BROKEN(BREAK_Q2_ZERO)) {
        zero = true;
    } else if (!fresh) {
        node_co_event(q->file, BLKDEBUG_EVENT_CLUSTER_ALLOC_SPACE);
        zero = node_co_write_zeroes(q->file, first << q->cluster_bits,
                                    count << q->cluster_bits,
                                    BLOCK_MAY_UNMAP | BLOCK_NO_FALLBACK) == 0;
    }
    ret = refcount_co_make_block(q, first, &used);
    if (used == 1 && BROKEN(BREAK_BLOCK_ON_DATA)) {
        used = 0;
    }
    if (fresh) {
        q->file_clusters = max_u64(q->file_clusters, first + max_u64(used, count));
    } else if (used) { /* a new table, perhaps beyond what was known */
        q->file_clusters = max_u64(q->file_clusters, first + used);
    }
    if (ret < 0) {
        return ret;
    }
    if (used >= count) { /* a new table took it all: go on behind it */
        return -EAGAIN;
    }
    ret = refcount_co_change(q, first + used, count - used, 1);
    if (ret < 0) {
        return ret;
    }
    q->window_next = first + used;
    q->window_end = first + count;
    q->window_zero = zero;
    q->reserved_since_sync = true;
    if (!fresh) {
        q->scan_cluster = first + count;
    }
    return 0;
}

int coroutine_fn alloc_co_make_table_room(Qcow2 *q)
{
    uint64_t data = clusters_for(q, q->node->length);
    uint64_t tables = (data >> q->l2_bits) + q->l1_size * 8 / q->cluster_size + 2;
    uint64_t per_block = refcount_counts_per_block(q);
    uint64_t all = data + tables + 64;
    all += all / per_block + 2;
    uint64_t need = div_round_up(all, per_block);
    uint64_t used = 0;
    if (BROKEN(BREAK_Q12_TABLE)) {
        return 0;
    }
    if (need <= q->rt_entries || need * 8 > QCOW2_MAX_RT_BYTES / 2 || q->fixed_size) {
        return 0; /* on a device it grows when it must */
    }
    uint64_t room = div_round_up(2 * need * 8, q->cluster_size), first;
    room += room / 32 + 8; /* the blocks that count the table; there are 64 counts in one at
                              least */
    co_mutex_lock(&q->alloc_lock);
    int ret = root_co_settle(q);
    if (ret == 0) {
        ret = find_uncounted(q, room, &first);
    }
    if (ret == 0) {
        ret = refcount_co_grow_table(q, first, need, &used);
        q->file_clusters = used ? max_u64(q->file_clusters, first + used) : q->file_clusters;
    }
    if (ret == 0) {
        ret = refcount_co_write_dirty(q);
    }
    co_mutex_unlock(&q->alloc_lock);
    /* a full disk is no reason not to write where there is room: it grows when it must */
    return ret == -ENOSPC || ret == -EFBIG ? 0 : ret;
}

static int coroutine_fn co_take(Qcow2 *q, uint64_t want, uint64_t *ret_offset,
                                uint64_t *ret_count, bool *ret_zero)
{
    const bool locked = !BROKEN(BREAK_Q5);
    if (locked) {
        co_mutex_lock(&q->alloc_lock);
    }
    int ret = 0;
    while (ret == 0 && q->window_next == q->window_end) {
        ret = co_reserve(q, want);
        ret = ret == -EAGAIN ? 0 : ret;
    }
    if (ret == -ENOSPC) {
        q->full_at = q->nb_frees;
    }
    if (ret == 0) {
        *ret_count = min_u64(want, q->window_end - q->window_next);
        *ret_offset = q->window_next << q->cluster_bits;
        *ret_zero = q->window_zero;
        q->window_next += *ret_count;
    }
    if (locked) {
        co_mutex_unlock(&q->alloc_lock);
    }
    return ret;
}

/* Behind the file: what is missing of the refcount blocks that count the run, then the run.
 * Each block is counted by itself or by the one before. */
static int coroutine_fn co_run_behind(Qcow2 *q, uint64_t want, uint64_t *ret_first)
{
    uint64_t per_block = refcount_counts_per_block(q);
    uint64_t blocks = want / per_block + 3, first, used = 0;

    int ret = find_uncounted(q, blocks + want, &first);
    if (ret < 0) {
        return ret;
    }
    if ((first + blocks + want) << q->cluster_bits > QCOW2_MAX_OFFSET) {
        return -EFBIG;
    }
    ret = grow_file(q, first + blocks + want);
    uint64_t next = first, run = first + blocks;
    for (uint64_t i = first; ret == 0 && i < run + want; i = refcount_block_end(q, i)) {
        ret = refcount_co_make_block_at(q, i, next, &used);
        next += used;
    }
    q->file_clusters = max_u64(q->file_clusters, next);
    *ret_first = next;
    return ret == 0 && next > run ? -EAGAIN : ret; /* a new table took more than was found */
}

/* Where the file cannot grow. */
static int coroutine_fn co_run_inside(Qcow2 *q, uint64_t want, uint64_t *ret_first)
{
    uint64_t count = 0, from = 0;
    while (from < q->file_clusters) {
        int ret = refcount_co_find_free(q, from, q->file_clusters, want, ret_first, &count);
        if (ret < 0) {
            return ret;
        }
        if (count == 0) {
            break;
        }
        if (count == want) {
            uint64_t used;
            ret = refcount_co_make_block(q, *ret_first, &used);
            if (ret < 0 || used == 0) {
                return ret;
            }
            count = used; /* look on behind it */
        }
        from = *ret_first + count;
    }
    return -ENOSPC;
}

int coroutine_fn alloc_co_run(Qcow2 *q, uint64_t want, uint64_t *ret_offset)
{
    uint64_t first;

    co_mutex_lock(&q->alloc_lock);
    int ret = root_co_settle(q);
    if (ret == 0) {
        do {
            ret = q->fixed_size ? -ENOSPC : co_run_behind(q, want, &first);
            if (ret == -ENOSPC) {
                ret = co_run_inside(q, want, &first);
            }
        } while (ret == -EAGAIN);
    }
    if (ret == 0 && refuse_overlap(q, first, want)) {
        ret = -EIO;
    }
    if (ret == 0) {
        ret = refcount_co_change(q, first, want, 1);
    }
    if (ret == 0) {
        q->file_clusters = max_u64(q->file_clusters, first + want);
        q->reserved_since_sync = true;
        *ret_offset = first << q->cluster_bits;
    }
    co_mutex_unlock(&q->alloc_lock);
    return ret;
}

int coroutine_fn alloc_co_clusters(Qcow2 *q, uint64_t want, uint64_t *ret_offset,
                                   uint64_t *ret_count, bool *ret_zero)
{
    node_co_event(q->file, BLKDEBUG_EVENT_CLUSTER_ALLOC);
    return co_take(q, want, ret_offset, ret_count, ret_zero);
}

void coroutine_fn alloc_co_unused(Qcow2 *q, uint64_t offset, uint64_t count)
{
    uint64_t first = offset >> q->cluster_bits;
    co_mutex_lock(&q->alloc_lock);
    /* A failure leaks them: no harm. */
    if (refcount_co_change(q, first, count, -1) == 0) {
        q->scan_cluster = min_u64(q->scan_cluster, first);
        q->nb_frees++;
    }
    co_mutex_unlock(&q->alloc_lock);
}

int coroutine_fn alloc_co_return_window(Qcow2 *q)
{
    int ret = 0;

    co_mutex_lock(&q->alloc_lock);
    uint64_t file_clusters = q->file_clusters;
    if (q->window_end == q->file_clusters) {
        file_clusters = q->window_next;
    }
    if (q->window_end > q->window_next) {
        ret = refcount_co_change(q, q->window_next, q->window_end - q->window_next, -1);
        if (ret == 0) {
            q->scan_cluster = min_u64(q->scan_cluster, q->window_next);
            q->window_end = q->window_next;
        }
    }
    if (ret == 0) {
        ret = refcount_co_write_dirty(q);
    }
    uint64_t end = file_clusters << q->cluster_bits;
    if (ret == 0 && !q->fixed_size && node_length(q->file) > end) {
        /* order: the counts first; a count beyond the end of the file is never freed */
        ret = node_co_flush(q->file);
        if (ret == 0 && !node_co_truncate(q->file, end, NULL)) {
            ret = -EIO;
        }
    }
    if (ret == 0) { /* order: what lies behind it counts as zero the next time */
        q->file_clusters = file_clusters;
    }
    co_mutex_unlock(&q->alloc_lock);
    return ret;
}

/* ---- letting go ---- */

void alloc_drop(Qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> q->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> q->cluster_bits;
    Dropped drop = {.cluster = first, .count = last - first + 1};

    q->dropped_bytes += drop.count << q->cluster_bits;
    if (BROKEN(BREAK_Q3)) { /* free as soon as its grace period is over */
        drop.grace_epoch = epoch_now(q->node->graph);
        g_array_append_val(q->quarantine, drop);
        return;
    }
    if (q->dropped->len) { /* neighbours become one */
        Dropped *prev = &g_array_index(q->dropped, Dropped, q->dropped->len - 1);
        if (prev->cluster + prev->count == drop.cluster) {
            prev->count += drop.count;
            return;
        }
    }
    g_array_append_val(q->dropped, drop);
}

bool alloc_quarantine_full(const Qcow2 *q)
{
    return q->dropped_bytes > KNOB(dropped_bytes, DROPPED_MAX_BYTES) || l2_dirty_full(q);
}

static int by_cluster(const void *a, const void *b)
{
    const Dropped *x = a, *y = b;
    return x->cluster < y->cluster ? -1 : x->cluster > y->cluster;
}

/* Guest order is not host order: neighbours become one range, and one punch. */
static void join_neighbours(GArray *ranges)
{
    guint n = 0;
    g_array_sort(ranges, by_cluster);
    for (guint i = 0; i < ranges->len; i++) {
        Dropped range = g_array_index(ranges, Dropped, i);
        Dropped *last = n ? &g_array_index(ranges, Dropped, n - 1) : NULL;
        if (last && last->cluster + last->count == range.cluster) {
            last->count += range.count;
        } else {
            g_array_index(ranges, Dropped, n++) = range;
        }
    }
    g_array_set_size(ranges, n);
}

void alloc_captured_dropped(Qcow2 *q, GArray *captured)
{
    uint64_t now = epoch_now(q->node->graph);
    join_neighbours(captured);
    for (guint i = 0; i < captured->len; i++) {
        Dropped drop = g_array_index(captured, Dropped, i);
        drop.grace_epoch = now;
        g_array_append_val(q->quarantine, drop);
    }
    alloc_start_reclaim(q);
}

guint alloc_nb_quarantined(const Qcow2 *q)
{
    return q->quarantine->len - q->quarantine_head;
}

/* A hint to the storage, for which nobody waits long when the disk is closed. */
static bool may_punch(const Qcow2 *q)
{
    return q->pass_discard &&
           (!q->punch_until || loop_now_ns(graph_loop(q->node->graph)) < q->punch_until);
}

/* Free one range cluster by cluster: some may be shared with snapshots still. */
static int coroutine_fn free_range(Qcow2 *q, const Dropped *drop)
{
    uint64_t run = 0;
    for (uint64_t i = 0; i <= drop->count; i++) {
        uint64_t count = 0;
        int ret = i < drop->count ? refcount_co_get(q, drop->cluster + i, &count) : 0;
        if (ret < 0) {
            return ret;
        }
        if (count == 1) {
            run++;
            continue;
        }
        if (run) {
            uint64_t first = drop->cluster + i - run;
            node_co_event(q->file, BLKDEBUG_EVENT_CLUSTER_FREE);
            if (may_punch(q) && !BROKEN(BREAK_LATE_PUNCH)) {
                /* order: while the cluster is ours still; a late punch would erase what
                 * its next owner wrote */
                node_co_discard(q->file, first << q->cluster_bits, run << q->cluster_bits);
            }
            ret = refcount_co_change(q, first, run, -1);
            q->scan_cluster = min_u64(q->scan_cluster, first);
            q->nb_frees++;
            if (BROKEN(BREAK_LATE_PUNCH)) {
                co_mutex_unlock(&q->alloc_lock);
                node_co_discard(q->file, first << q->cluster_bits, run << q->cluster_bits);
                co_mutex_lock(&q->alloc_lock);
            }
            run = 0;
        }
        if (ret == 0 && count > 1) {
            ret = refcount_co_change(q, drop->cluster + i, 1, -1);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Is the first range in quarantine past its grace period? They are in that order. */
static bool is_ripe(Qcow2 *q)
{
    return alloc_nb_quarantined(q) &&
           (g_array_index(q->quarantine, Dropped, q->quarantine_head).grace_epoch <
                epoch_oldest(q->node->graph) ||
            BROKEN(BREAK_Q6));
}

static Dropped take_piece(Qcow2 *q)
{
    Dropped *first = &g_array_index(q->quarantine, Dropped, q->quarantine_head);
    Dropped piece = *first;

    piece.count = min_u64(piece.count, max_u64(PIECE_BYTES >> q->cluster_bits, 1));
    first->cluster += piece.count;
    first->count -= piece.count;
    q->quarantine_head += first->count == 0;
    if (q->quarantine_head > q->quarantine->len / 2) {
        g_array_remove_range(q->quarantine, 0, q->quarantine_head);
        q->quarantine_head = 0;
    }
    return piece;
}

/* Free up to @max pieces of what has passed its grace period, or of all when @drained. */
static int coroutine_fn reclaim_pieces(Qcow2 *q, bool drained, unsigned max,
                                       unsigned *ret_done)
{
    int ret = 0;
    *ret_done = 0;
    while (*ret_done < max && (drained ? alloc_nb_quarantined(q) : is_ripe(q))) {
        Dropped piece = take_piece(q);
        /* What cannot be freed is leaked, which check repairs (Q7). */
        int r = free_range(q, &piece);
        ret = r == -ENOMEM ? r : ret;
        ++*ret_done;
    }
    return ret;
}

int coroutine_fn alloc_co_reclaim_all(Qcow2 *q)
{
    bool drained = !BROKEN(BREAK_REST_WAITS);
    unsigned done;

    q->punch_until = loop_now_ns(graph_loop(q->node->graph)) + PUNCH_AT_REST_NS;
    int ret = reclaim_pieces(q, drained, UINT_MAX, &done);
    q->punch_until = 0;
    return ret;
}

/* ---- in the background ---- */

static bool may_reclaim(const Qcow2 *q)
{
    return q->node->writing && !q->closing && !q->corrupt && !node_is_draining(q->node);
}

static void coroutine_fn co_reclaim(void *opaque)
{
    Qcow2 *q = opaque;
    unsigned done;

    do { /* others take the lock in between */
        co_mutex_lock(&q->alloc_lock);
        reclaim_pieces(q, false, PIECES, &done);
        co_mutex_unlock(&q->alloc_lock);
        co_queue_wake_all(&q->reclaimed);
    } while (done && may_reclaim(q));
    q->reclaiming = false;
    co_queue_wake_all(&q->reclaimed);
    alloc_start_reclaim(q);
}

void alloc_start_reclaim(Qcow2 *q)
{
    Loop *loop = graph_loop(q->node->graph);

    if (q->reclaiming || !alloc_nb_quarantined(q) || !may_reclaim(q)) {
        return;
    }
    Coroutine *co = is_ripe(q) ? coroutine_try_new(co_reclaim, q, CO_STACK_DATA) : NULL;
    if (co) {
        q->reclaiming = true;
        coroutine_wake_later(loop, co);
    } else { /* requests run that could know of it */
        loop_timer_arm(&q->reclaim_timer, loop_now_ns(loop) + RECLAIM_AGAIN_NS);
    }
}

void alloc_reclaim_timer(LoopTimer *timer)
{
    alloc_start_reclaim(container_of(timer, Qcow2, reclaim_timer));
}

void coroutine_fn alloc_co_settle(Qcow2 *q)
{
    while (q->reclaiming) {
        co_queue_wait(&q->reclaimed);
    }
    loop_timer_cancel(&q->reclaim_timer);
}

void coroutine_fn alloc_co_throttle(Qcow2 *q)
{
    while (alloc_nb_quarantined(q) > QUARANTINE_MAX && q->reclaiming) {
        co_queue_wait(&q->reclaimed);
    }
}

/* ---- a full disk ---- */

/* Requests that began before us may last, where a disk is slow, but not for ever. */
#define GRACE_MAX_NS  (INT64_C(10) * 1000000000)
#define GRACE_STEP_NS (INT64_C(1) * 1000000)
#define SPACE_PIECES  1024u /* no request needs more */

bool coroutine_fn alloc_co_make_space(BlockNode *node)
{
    Qcow2 *q = node->state;
    Loop *loop = graph_loop(node->graph);

    if (!q->dropped->len && !alloc_nb_quarantined(q) && !q->reclaiming &&
        co_group_idle(&q->flushes)) {
        return q->nb_frees != q->full_at; /* somebody else was here */
    }
    qcow2_co_epoch(q); /* what was dropped is in quarantine */
    uint64_t dropped_in = epoch_now(node->graph);
    int64_t until = loop_now_ns(loop) + GRACE_MAX_NS;
    while (epoch_oldest(node->graph) <= dropped_in && loop_now_ns(loop) < until &&
           !BROKEN(BREAK_SPACE)) {
        co_sleep_ns(loop, GRACE_STEP_NS);
    }
    unsigned done, all = 0;
    do {
        co_mutex_lock(&q->alloc_lock);
        reclaim_pieces(q, BROKEN(BREAK_SPACE), PIECES, &done);
        co_mutex_unlock(&q->alloc_lock);
        all += done;
    } while (done && all < SPACE_PIECES);
    return true;
}
