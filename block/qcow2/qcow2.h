/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The qcow2 driver's state and the functions its files share.
 *
 * Who may change what (all on the home loop):
 *  - l1[] and L2 entries: write.c and zero.c, through l2_set(), which marks them dirty;
 *    they reach the disk in flush.c only;
 *  - refcounts: refcount.c, with alloc_lock held;
 *  - header fields on disk: header.c, field by field (safety.md, Q9, Q12).
 *
 * The rules Q1..Q13 are those of the project's safety design (block/qcow2/README.md).
 */
#ifndef BLOCK_QCOW2_QCOW2_H
#define BLOCK_QCOW2_QCOW2_H

#include "block/base/ablate.h"
#include "block/driver.h"
#include "block/qcow2/format.h"
#include "block/qcow2/l2-cache.h"
#include "block/qcow2/map-flat.h"

typedef struct RefSlice {
    ListLink in_cache;
    ListLink in_dirty;
    uint64_t index; /* byte position in the sequence of all refcounts / slice bytes */
    uint64_t disk_offset;
    uint8_t *data; /* as on disk */
    bool writing;
} RefSlice;

typedef struct RefCache {
    GHashTable *slices; /* index -> RefSlice */
    ListLink lru;
    ListLink dirty;
    unsigned count, max;
    unsigned writing; /* slices on their way to the disk */
} RefCache;

/* A cluster range that the guest let go of (Q3, Q6). */
typedef struct Dropped {
    uint64_t cluster; /* host cluster number */
    uint64_t count;
    uint64_t grace_epoch;
} Dropped;

/* Guest clusters being copied: unpublished, others wait. */
typedef struct CowRange {
    ListLink link;
    uint64_t first, count;
} CowRange;

/* Where active L2 tables and refcount blocks are, and some that were once. */
typedef struct TableSet {
    uint64_t *slots;  /* cluster numbers, 0 is empty; NULL: to be made */
    uint64_t *filter; /* bits: of these clusters some may be metadata */
    uint32_t mask;    /* slots - 1 */
    uint32_t filter_mask; /* bits - 1 */
    uint32_t count;
    bool tried; /* to make it */
} TableSet;

/* A number that may or may not be on the disk (root.c); len 0: none. */
typedef struct UnsettledRoot {
    uint64_t offset; /* in the file */
    uint8_t len;
    uint8_t bytes[16];
} UnsettledRoot;

/* What the header says and what follows from it: of Qcow2, and to be put aside as a whole.
 * The first ones are hot. */
#define HEADER_STATE                                                                       \
    uint64_t *l1; /* host order, as the guest sees it now */                               \
    uint32_t l1_size;                                                                      \
    uint8_t cluster_bits;                                                                  \
    uint8_t l2_bits;    /* log2 of entries in a table */                                   \
    uint8_t slice_bits; /* log2 of entries in a slice */                                   \
    uint8_t version;                                                                       \
    uint64_t cluster_size;                                                                 \
    uint64_t incompatible, compatible, autoclear;                                          \
    uint64_t l1_offset;                                                                    \
    uint64_t rt_offset;                                                                    \
    uint64_t *rt; /* host order */                                                         \
    uint32_t rt_clusters;                                                                  \
    uint32_t rt_entries;                                                                   \
    uint32_t header_length;                                                                \
    uint32_t nb_snapshots;                                                                 \
    uint64_t snapshots_offset;                                                             \
    uint64_t bitmaps_offset, bitmaps_size; /* directory; size 0 = none */                  \
    struct StoredBitmap *bitmaps; /* nb_bitmaps of them, as the directory says */          \
    uint32_t nb_bitmaps;                                                                   \
    uint8_t refcount_order;                                                                \
    bool corrupt;                                                                          \
    bool l1_bad, rt_bad; /* tables with entries that make no sense */

typedef struct HeaderState {
    HEADER_STATE
} HeaderState;

struct Qcow2 {
    /* hot: read by map */
    BlockNode *node;
    BlockNode *file;
    union {
        struct {
            HEADER_STATE
        };
        HeaderState header;
    };
    FlatMap *flat;        /* of the layers below; NULL: nothing is known */
    const uint64_t *ways; /* graph_ways() */
    bool learns;          /* may have a FlatMap */
    L2Cache cache;
    SnapshotInfoList *snapshots; /* internal ones; NULL also when unreadable */
    bool pass_discard;
    TableSet table_set; /* overlap.c */
    /* allocation (alloc.c), under alloc_lock */
    CoMutex alloc_lock;
    RefCache refs;
    uint64_t scan_cluster;   /* below this nothing is free */
    uint64_t file_clusters;  /* regular files: clusters from here on were never used */
    uint64_t uncounted_first, uncounted_end; /* seen to have counts of 0 */
    uint64_t window_next, window_end; /* reserved host clusters */
    bool window_zero;        /* they read as zeros */
    bool fixed_size;         /* a block device: the file cannot grow */
    bool reserved_since_sync; /* refcounts or size not yet durable (Q1, Q10) */
    GArray *dropped;         /* Dropped: not yet captured by an epoch */
    GArray *quarantine;      /* Dropped: entry gone from the disk, grace period running */
    guint quarantine_head;   /* the first of them */
    bool reclaiming;         /* in the background */
    bool closing;            /* nothing begins there any more */
    CoQueue reclaimed;       /* a part, or its end */
    LoopTimer reclaim_timer; /* when no grace period was over */
    int64_t punch_until;     /* 0: always */
    uint64_t dropped_bytes;
    uint64_t nb_frees;       /* how often clusters became free */
    uint64_t full_at;        /* nb_frees when there was no room last */
    UnsettledRoot unsettled;
    /* writing */
    ListLink cows; /* CowRange.link */
    CoQueue cow_changed;
    CoMutex l1_lock;   /* making L2 tables */
    bool copied_since_sync; /* published over clusters not durably zero (Q2) */
    uint8_t *l1_dirty; /* a bit per 512-byte block of the L1 table */
    bool l1_any_dirty;
    /* flush.c */
    CoGroup flushes;
    uint64_t epochs, syncs, early_syncs;
    bool synced;    /* a sync that began after the image was read has succeeded */
    bool stale; /* lost its last writer: re-read everything before writing again */
    bool unwritten; /* what the last writer left could not be written: keep it */
};

static inline uint64_t cluster_start(const Qcow2 *q, uint64_t offset)
{
    return offset & ~(q->cluster_size - 1);
}

static inline uint64_t clusters_for(const Qcow2 *q, uint64_t bytes)
{
    return (bytes + q->cluster_size - 1) >> q->cluster_bits;
}

/* So many writes of metadata are in flight at once where their order does not matter: a
 * device has a queue. */
static inline unsigned qcow2_metadata_writers(void)
{
    return ablated(ABLATE_GROUP_COMMIT) ? 1 : 8;
}

/* ---- header.c ---- */
/* Read and validate header, extensions, L1 and refcount tables into @q. */
bool coroutine_fn header_co_read(Qcow2 *q, GError **errp);
/* Before it is read a second time: what is there now, until one of the other two is called.
 * @q has no tables meanwhile: nothing may be in flight. */
typedef struct HeaderBefore {
    HeaderState state;
    uint64_t length;
    char *backing_file, *backing_format;
} HeaderBefore;
void header_set_aside(Qcow2 *q, HeaderBefore *ret);
/* It could not be read, or could not be taken over: it is as it was. */
void header_put_back(Qcow2 *q, HeaderBefore *before);
void header_let_go(HeaderBefore *before);
/* Overwrite @len bytes of the header at @offset and nothing else. 0 or -errno. */
int coroutine_fn header_co_write_field(Qcow2 *q, size_t offset, const void *field,
                                       size_t len);
/* Set the corrupt bit, stop writing, tell (Q8). @offset -1: unknown. */
void coroutine_fn qcow2_co_mark_corrupt(Qcow2 *q, int64_t offset, int64_t size,
                                        const char *fmt, ...) G_GNUC_PRINTF(4, 5);

/* ---- root.c (alloc_lock held) ---- */
/*
 * Write @len bytes (at most 16) at @offset that name a new table, which is durable; and
 * sync if @sync. Whatever comes of it the caller goes on with the new table: a failure
 * leaves it unknown which one the disk names, and root_co_settle() must succeed before
 * anything is allocated, flushed or let go of. 0 or -errno.
 */
int coroutine_fn root_co_write(Qcow2 *q, uint64_t offset, const void *bytes, size_t len,
                               bool sync);
/* Write it again, if need be, and sync. 0: memory and disk agree. */
int coroutine_fn root_co_settle(Qcow2 *q);

/* ---- l2-cache.c ---- */
typedef struct L2Options {
    uint64_t budget;     /* bytes */
    uint32_t entry_size; /* of a slice on disk; 0: the default */
    int64_t clean_interval_ns; /* 0: never */
    bool warm_up;
} L2Options;
#define L2_MIN_BUDGET (64 * KiB)
void l2_cache_init(Qcow2 *q, const L2Options *options);
void l2_cache_fini(Qcow2 *q);
/* Forget everything (nothing may be dirty, loading, or wait in the background). */
void l2_cache_clear(Qcow2 *q);
/* The L1 table has become larger. False: no memory. */
bool l2_cache_resize(Qcow2 *q);
/* So many entries it may have, as slices are. */
uint64_t l2_max_l1_size(const Qcow2 *q);
/* Another header is in force, and the cache was cleared. False: no memory. */
bool l2_cache_reshape(Qcow2 *q);
/* There is something that may lie idle. */
void l2_start_cleaning(Qcow2 *q);

static inline uint64_t l2_slot(const Qcow2 *q, uint64_t guest_cluster)
{
    uint64_t index = guest_cluster >> q->slice_bits;
    const L2Page *page = q->cache.pages[index / L2_PAGE_SLICES];
    return page ? page->slot[index % L2_PAGE_SLICES] : 0;
}
static inline bool l2_is_loaded(const Qcow2 *q, uint64_t guest_cluster)
{
    uint64_t slot = l2_slot(q, guest_cluster);
    return slot == L2_SLOT_EMPTY || l2_slot_is_slice(slot);
}
static inline uint32_t l2_slice_entries(const Qcow2 *q)
{
    return UINT32_C(1) << q->slice_bits;
}
/* The entry of a cluster whose slice is loaded. */
static inline uint64_t l2_get(const Qcow2 *q, uint64_t guest_cluster)
{
    uint64_t slot = l2_slot(q, guest_cluster);
    return slot == L2_SLOT_EMPTY
               ? 0
               : l2_form_get(l2_slot_slice(slot), q->cluster_bits,
                             guest_cluster & (l2_slice_entries(q) - 1));
}
/* It, and how many clusters of the slice go on as it begins (l2_form_run). */
static inline uint32_t l2_get_run(const Qcow2 *q, uint64_t guest_cluster, uint32_t max,
                                  uint64_t *ret_entry)
{
    uint64_t slot = l2_slot(q, guest_cluster);
    uint32_t i = guest_cluster & (l2_slice_entries(q) - 1);
    if (slot == L2_SLOT_EMPTY) {
        *ret_entry = 0;
        return MIN(max, l2_slice_entries(q) - i);
    }
    return l2_form_run(l2_slot_slice(slot), q->cluster_bits, q->slice_bits, i, max, ret_entry);
}
/* Change one entry of a loaded slice; false when there is no memory for it, or when the
 * slice has invalid entries (-EIO for the guest). May evict other slices, not this one. */
bool l2_set(Qcow2 *q, uint64_t guest_cluster, uint64_t entry);
/* A loaded slice has entries that contradict the format. */
bool l2_has_invalid(const Qcow2 *q, uint64_t guest_cluster);
uint64_t l2_slice_disk_offset(const Qcow2 *q, uint32_t index);
/* The table of this L1 entry was just made, of zeros. */
void l2_table_is_empty(Qcow2 *q, uint64_t l1_index);

/* For the epoch (flush.c): a dirty slice, by index; false: there is none. */
bool l2_first_dirty(const Qcow2 *q, uint32_t *ret_index);
/* It is captured, and clean unless it changes again. Until l2_end_write() it stays. */
void l2_begin_write(Qcow2 *q, uint32_t index);
/* Make what was captured dirty again. */
void l2_write_failed(Qcow2 *q, uint32_t index);
void l2_end_write(Qcow2 *q, uint32_t index);
/* All entries as they lie on disk. */
void l2_encode(const Qcow2 *q, uint32_t index, be64 *ret);
/* Is the loaded slice of @guest_cluster as the disk has it, and no epoch at it? */
static inline bool l2_is_clean(const Qcow2 *q, uint64_t guest_cluster)
{
    uint64_t slot = l2_slot(q, guest_cluster);
    return l2_slot_is_slice(slot) && !l2_slot_slice(slot)->dirty &&
           !l2_slot_slice(slot)->writing;
}
/* So much is dirty that an epoch should write it. */
bool l2_dirty_full(const Qcow2 *q);
/* For counters: how many of a form, with its name; false: no more. */
bool l2_count(const Qcow2 *q, unsigned form, const char **ret_name, uint64_t *ret_count);

/* ---- l2-evict.c ---- */
/* Evict until @more bytes fit into the budget, or nothing can be evicted. */
void l2_make_room(Qcow2 *q, uint64_t more);
/* A slice came while the budget is free: move others along, so that there is no long way
 * to go when it is used up. */
void l2_age(Qcow2 *q);
/* A clean slice joins its queue, or leaves it to become dirty. */
void l2_queue_add(Qcow2 *q, L2Slice *slice);
void l2_queue_remove(Qcow2 *q, L2Slice *slice);
/* Is what is remembered of an evicted slice recent: should it go to main at once? */
bool l2_ghost_is_recent(const Qcow2 *q, uint64_t slot);
/* Let go of what nobody looked at since the last time; pages too. */
void l2_clean_idle(Qcow2 *q);
/* What the two above and l2-load.c share: slots and pages of l2-cache.c. */
uint64_t *l2_slot_of(Qcow2 *q, uint32_t index); /* NULL: no page */
uint64_t *l2_slot_make(Qcow2 *q, uint32_t index); /* NULL: no memory */
void l2_slot_set(Qcow2 *q, uint32_t index, uint64_t value);
void l2_page_free(Qcow2 *q, L2Page *page);
/* Count a slice and put it into its slot; the reverse, freeing it. */
void l2_slice_add(Qcow2 *q, L2Slice *slice);
void l2_slice_drop(Qcow2 *q, L2Slice *slice, uint64_t slot);

/* A slice is looked up by somebody who may come again. */
static inline void l2_touch(L2Cache *c, L2Slice *slice)
{
    c->hits++;
    slice->used = true;
}

/* ---- l2-load.c ---- */
/* Bring the slice of @guest_cluster in; its L2 table exists. @flags: BLOCK_NO_PROMOTE.
 * 0 (look again: it may be gone already) or -errno. */
int coroutine_fn l2_co_load(Qcow2 *q, uint64_t guest_cluster, unsigned flags);
/* Start to read all tables, while the budget is free. */
void l2_warm_up(Qcow2 *q);
/* Let go of the buffers kept for loads. */
void l2_free_buffers(Qcow2 *q);
/* Wait for what is loaded in the background. */
void coroutine_fn l2_co_settle(Qcow2 *q);

/* ---- map.c ---- */
void qcow2_map(BlockNode *node, MapOp op, uint64_t offset, uint64_t len, MapResult *ret);
int coroutine_fn qcow2_co_load(BlockNode *node, uint64_t offset, uint64_t len,
                               unsigned flags);
/* Where a compressed cluster's bytes are: at most @ret_len bytes at @ret_offset. */
void compressed_location(const Qcow2 *q, uint64_t entry, uint64_t *ret_offset,
                         uint64_t *ret_len);
int coroutine_fn qcow2_co_read_compressed(BlockNode *node, uint64_t offset, uint64_t len,
                                          const struct iovec *iov, int niov,
                                          unsigned flags);

/* ---- bitmap.c ---- */
typedef struct StoredBitmap {
    char *name;
    uint64_t position; /* of its entry in the directory */
    uint64_t table_offset;
    uint32_t table_size; /* entries */
    uint32_t flags;      /* QCOW2_BITMAP_.. */
    uint8_t granularity_bits;
} StoredBitmap;
/* Read the directory that the header's extension told of into @q->bitmaps. */
bool coroutine_fn bitmap_co_read_directory(Qcow2 *q, GError **errp);
/* Before the first write: nobody keeps them current from here on (Q12). 0 or -errno. */
int coroutine_fn bitmap_co_mark_in_use(Qcow2 *q);
/* Visit what the bitmaps occupy: directory, tables, data. 0 or -errno. */
int coroutine_fn bitmap_co_each_range(Qcow2 *q,
                                      void (*range)(void *opaque, uint64_t offset,
                                                    uint64_t len),
                                      void *opaque);
void bitmap_forget(Qcow2 *q);
void bitmaps_free(StoredBitmap *bitmaps, uint32_t nb_bitmaps);
/* For query and info; the caller owns the list. */
Qcow2BitmapInfoList *bitmap_infos(const Qcow2 *q);

/* ---- overlap.c ---- */
/* What lies in these bytes: header, L1, refcount table, snapshot table; NULL: none. */
const char *overlap_fixed(const Qcow2 *q, uint64_t offset, uint64_t bytes);
/* The same with active L2 tables and refcount blocks: looks through both tables. */
const char *overlap_any(const Qcow2 *q, uint64_t offset, uint64_t bytes);
/*
 * False: nothing of the above touches the cluster at @offset. Tables stand in a file's first
 * part or far from each other, data is everywhere: one bit of a few kilobytes answers for
 * nearly all of it. For table_set.filter != NULL, that is after overlap_prepare().
 */
#define OVERLAP_SHIFT 6 /* clusters of one bit */
static inline bool overlap_maybe(const Qcow2 *q, uint64_t offset)
{
    uint64_t bit = offset >> q->cluster_bits >> OVERLAP_SHIFT & q->table_set.filter_mask;
    return q->table_set.filter[bit / 64] >> (bit % 64) & 1;
}
/* Is this cluster an active L2 table or a refcount block? By a set that overlap_prepare()
 * has made; without one (no memory, over a million tables): false. */
bool overlap_table(const Qcow2 *q, uint64_t offset);
void overlap_prepare(Qcow2 *q);
/* There is a new table or block at @offset. */
void overlap_note(Qcow2 *q, uint64_t offset);
void overlap_forget(Qcow2 *q);

/* ---- refcount.c (alloc_lock held unless said otherwise) ---- */
void refcount_init(Qcow2 *q, unsigned max_slices);
void refcount_fini(Qcow2 *q);
void refcount_clear(Qcow2 *q); /* forget; nothing may be dirty */
/* The refcount of one host cluster; clusters without a block have 0. */
int coroutine_fn refcount_co_get(Qcow2 *q, uint64_t cluster, uint64_t *ret_count);
/* Add @delta (+1 or -1) to each of the clusters. -EINVAL: below 0 or too large. Blocks
 * must exist (refcount_co_make_blocks). */
int coroutine_fn refcount_co_change(Qcow2 *q, uint64_t cluster, uint64_t count,
                                    int delta);
/* Make the count what a check has found. -EINVAL: no block, or too large. */
int coroutine_fn refcount_co_set(Qcow2 *q, uint64_t cluster, uint64_t count);
/*
 * Make sure that there is a refcount block for @cluster, which is free, as are those
 * behind it; a new block (and, rarely, a larger table) takes *ret_used clusters from there
 * on. New blocks are durable before their table entry is written (Q4).
 */
int coroutine_fn refcount_co_make_block(Qcow2 *q, uint64_t cluster, uint64_t *ret_used);
/* The same with the new block at @place, which is free, and is counted by it or by a block
 * that exists. */
int coroutine_fn refcount_co_make_block_at(Qcow2 *q, uint64_t cluster, uint64_t place,
                                           uint64_t *ret_used);
/* A larger refcount table for at least @need_entries, at the free clusters from @cluster on. */
int coroutine_fn refcount_co_grow_table(Qcow2 *q, uint64_t cluster, uint64_t need_entries,
                                        uint64_t *ret_used);
/* The block at @offset did not come to be: its counts must not be written. */
void refcount_forget_block(Qcow2 *q, uint64_t offset);
uint64_t refcount_counts_per_block(const Qcow2 *q);
/* The first cluster behind those that @cluster's block counts. */
uint64_t refcount_block_end(const Qcow2 *q, uint64_t cluster);
/* The first run of free clusters in [@from, @end), at most @max_count of them, all counted
 * by one block; *ret_count 0: there is none. */
int coroutine_fn refcount_co_find_free(Qcow2 *q, uint64_t from, uint64_t end,
                                       uint64_t max_count, uint64_t *ret_first,
                                       uint64_t *ret_count);
/* Write all dirty slices. 0 or -errno; what failed stays dirty. */
int coroutine_fn refcount_co_write_dirty(Qcow2 *q);
/* Some count is not written yet, or just being written. Any time. */
bool refcount_any_dirty(const Qcow2 *q);

/* ---- alloc.c ---- */
/* Take up to @want contiguous clusters: *ret_count of them at host offset *ret_offset,
 * *ret_zero: they are known to read as zeros. -ENOSPC, .. */
int coroutine_fn alloc_co_clusters(Qcow2 *q, uint64_t want, uint64_t *ret_offset,
                                   uint64_t *ret_count, bool *ret_zero);
/* The same, exactly @want of them, whatever they hold. -ENOSPC: there is no such run. */
int coroutine_fn alloc_co_run(Qcow2 *q, uint64_t want, uint64_t *ret_offset);
/* Give back clusters that no entry ever referred to. */
void coroutine_fn alloc_co_unused(Qcow2 *q, uint64_t offset, uint64_t count);
/* Q12: make the refcount table large enough for the whole disk, so that it need not move
 * while an external program may rewrite the header. */
int coroutine_fn alloc_co_make_table_room(Qcow2 *q);
/* Return the window; cut the file back to the last cluster in use (Q10, Q11). */
int coroutine_fn alloc_co_return_window(Qcow2 *q);
/* An entry that referred to these bytes was replaced (Q3). */
void alloc_drop(Qcow2 *q, uint64_t offset, uint64_t bytes);
/* So much was dropped, or is dirty, that an epoch should let go of it. */
bool alloc_quarantine_full(const Qcow2 *q);
/* The epoch that removed the entries from the disk is durable: quarantine. */
void alloc_captured_dropped(Qcow2 *q, GArray *captured);
guint alloc_nb_quarantined(const Qcow2 *q);
/* Free in the background what has passed its grace period, now or as soon as it has. */
void alloc_start_reclaim(Qcow2 *q);
void alloc_reclaim_timer(LoopTimer *timer);
/* Until the background is still; it begins again with alloc_start_reclaim(). */
void coroutine_fn alloc_co_settle(Qcow2 *q);
/* There is so much to free that who lets go of more must wait. */
void coroutine_fn alloc_co_throttle(Qcow2 *q);
/* Drained: all grace periods are over. Free everything; alloc_lock held. 0 or -errno. */
int coroutine_fn alloc_co_reclaim_all(Qcow2 *q);
/* BlockDriver.co_make_space: an epoch, a grace period, and all of it is free. */
bool coroutine_fn alloc_co_make_space(BlockNode *node);

/* ---- flush.c ---- */
int coroutine_fn qcow2_co_flush(BlockNode *node);
bool qcow2_map_is_durable(const BlockNode *node, uint64_t offset);
/* The same for metadata that has grown too much; errors stay for the next flush. */
void coroutine_fn qcow2_co_epoch(Qcow2 *q);

/* ---- write.c ---- */
int coroutine_fn qcow2_co_write(BlockNode *node, uint64_t offset, uint64_t len,
                                const struct iovec *iov, int niov, unsigned flags);
/* The L2 table of @guest_cluster, writable, and its slice loaded until the next yield, for
 * l2_get() and l2_set(). Yields: re-check. */
int coroutine_fn qcow2_co_get_slice(Qcow2 *q, uint64_t guest_cluster);
/* Wait until nobody copies these guest clusters. True when it had to wait. */
bool coroutine_fn qcow2_co_wait_cow(Qcow2 *q, uint64_t first, uint64_t count);
/* Forget the host bytes an old entry stood for. */
void qcow2_drop_entry(Qcow2 *q, uint64_t entry);

/* ---- zero.c ---- */
int coroutine_fn qcow2_co_write_zeroes(BlockNode *node, uint64_t offset, uint64_t len,
                                       unsigned flags);
int coroutine_fn qcow2_co_discard(BlockNode *node, uint64_t offset, uint64_t len);

/* Drop whole clusters without leaving zero flags: what lies behind a new, smaller end. */
int coroutine_fn qcow2_co_make_empty(BlockNode *node);
int coroutine_fn qcow2_co_discard_all(Qcow2 *q, uint64_t offset, uint64_t len);

/* ---- resize.c ---- */
bool coroutine_fn qcow2_co_truncate(BlockNode *node, uint64_t size, GError **errp);

/* ---- qcow2.c ---- */
/* Everything is on the disk, nothing is reserved or waits to be freed; drained. 0 or
 * -errno. */
int coroutine_fn qcow2_co_come_to_rest(Qcow2 *q);

/* ---- check.c ---- */
/* The dirty bit says that refcounts may be wrong: make them right and clear it. */
bool coroutine_fn qcow2_co_repair_dirty(Qcow2 *q, GError **errp);
int coroutine_fn qcow2_co_check(BlockNode *node, unsigned fix,
                                void (*message)(void *, bool, const char *),
                                void *opaque, CheckResult *ret);

/* snapshot-table.c: read what internal snapshots there are to q->snapshots. */
void coroutine_fn snapshots_co_read(Qcow2 *q);

#endif
