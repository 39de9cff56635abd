/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2: the driver table, opening and closing, and the coming and going of writers.
 * What happens to requests is in map.c (look-up), write.c, zero.c and flush.c.
 */
#include "block/break.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <string.h>

#include "block/base/error.h"
#include "block/driver/table.h"

#define DEFAULT_L2_BUDGET (32 * MiB)
#define DEFAULT_CLEAN_INTERVAL 600 /* s */

/* ---- options ---- */

/* compat: what stock says first when several are wrong */
static bool check_cache_sizes(const BlockdevOptionsQcow2 *o, GError **errp)
{
    const struct {
        bool has;
        int64_t value;
        const char *name;
    } sizes[] = {{o->has_cache_size, o->cache_size, "cache-size"},
                 {o->has_l2_cache_size, o->l2_cache_size, "l2-cache-size"},
                 {o->has_l2_cache_entry_size, o->l2_cache_entry_size, "l2-cache-entry-size"},
                 {o->has_refcount_cache_size, o->refcount_cache_size, "refcount-cache-size"}};

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        if (sizes[i].has && sizes[i].value < 0) {
            error_set(errp, "Parameter '%s' expects a non-negative number below 2^64",
                      sizes[i].name);
            return false;
        }
    }
    if (o->has_cache_size && o->has_l2_cache_size && o->has_refcount_cache_size) {
        error_set(errp, "cache-size, l2-cache-size and refcount-cache-size may not be set at "
                        "the same time");
        return false;
    }
    if (o->has_cache_size && o->has_l2_cache_size && o->l2_cache_size > o->cache_size) {
        error_set(errp, "l2-cache-size may not exceed cache-size");
        return false;
    }
    if (o->has_cache_size && o->has_refcount_cache_size &&
        o->refcount_cache_size > o->cache_size) {
        error_set(errp, "refcount-cache-size may not exceed cache-size");
        return false;
    }
    return true;
}

/* What the user gives to refcounts, by its own option or as the rest of cache-size; else 0. */
static uint64_t refs_asked_for(const Qcow2 *q, const BlockdevOptionsQcow2 *o)
{
    uint64_t map = (((uint64_t)q->l1_size << q->l2_bits) * 8); /* all of it */
    if (o->has_refcount_cache_size) {
        return (uint64_t)o->refcount_cache_size;
    }
    if (!o->has_cache_size) {
        return 0;
    }
    map = o->has_l2_cache_size ? (uint64_t)o->l2_cache_size : map;
    return (uint64_t)o->cache_size - min_u64((uint64_t)o->cache_size, map);
}

static bool check_cache_options(const Qcow2 *q, const BlockdevOptionsQcow2 *o,
                                L2Options *ret_l2, uint64_t *ret_refs, GError **errp)
{
    uint64_t total = o->has_cache_size ? (uint64_t)o->cache_size : 0;

    if (!check_cache_sizes(o, errp)) {
        return false;
    }
    if (o->has_l2_cache_entry_size &&
        (o->l2_cache_entry_size < 512 || !is_power_of_two(o->l2_cache_entry_size) ||
         (uint64_t)o->l2_cache_entry_size > q->cluster_size)) {
        error_set(errp, "L2 cache entry size must be a power of two between 512 and the "
                        "cluster size (%" G_GUINT64_FORMAT ")", q->cluster_size);
        return false;
    }
    if (refs_asked_for(q, o) >> q->cluster_bits > INT32_MAX) {
        error_set(errp, "Refcount cache size too big");
        return false;
    }
    if (o->has_cache_clean_interval &&
        (o->cache_clean_interval < 0 || o->cache_clean_interval > UINT32_MAX)) {
        error_set(errp, "Cache clean interval too big");
        return false;
    }
    *ret_refs = o->has_refcount_cache_size ? (uint64_t)o->refcount_cache_size : 256 * KiB;
    ret_l2->budget = o->has_l2_cache_size ? (uint64_t)o->l2_cache_size
                     : o->has_cache_size  ? total - min_u64(total, *ret_refs)
                                          : DEFAULT_L2_BUDGET;
    ret_l2->entry_size = o->has_l2_cache_entry_size ? (uint32_t)o->l2_cache_entry_size : 0;
    ret_l2->clean_interval_ns = (o->has_cache_clean_interval ? o->cache_clean_interval
                                                             : DEFAULT_CLEAN_INTERVAL) *
                                INT64_C(1000000000);
    ret_l2->warm_up = o->has_x_l2_warm_up && o->x_l2_warm_up;
    return true;
}

static bool refuse_unsupported(const BlockdevOptionsQcow2 *o, GError **errp)
{
    if (o->encrypt) { /* encrypted images themselves are refused by the header */
        error_set(errp, "No encryption in image header, but options specified format '%s'",
                  BlockdevQcow2EncryptionFormat_str(o->encrypt->format));
        return false;
    }
    if (o->data_file) {
        error_set(errp, "'data-file' can only be set for images with an external data file");
        return false;
    }
    return true;
}

/* ---- opening ---- */

static bool coroutine_fn open_backing(BlockNode *node, const BlockdevRefOrNull *backing,
                                      const OpenInherit *inherit, GError **errp)
{
    if (inherit->no_backing && (!backing || backing->type == JSON_NULL)) {
        node->backing_skipped = true;
        return true;
    }
    if (!backing) {
        return !node->backing_file || !node->backing_file[0] ||
               node_co_open_backing(node, inherit, errp);
    }
    if (backing->type == JSON_NULL ||
        (backing->type == JSON_STRING && !backing->u.reference[0])) {
        return true;
    }
    BlockdevRef ref = {.type = backing->type};
    if (backing->type == JSON_STRING) {
        ref.u.reference = backing->u.reference;
    } else {
        ref.u.definition = backing->u.definition;
    }
    return node_co_open_child(node, &ref, "backing", inherit, errp) != NULL;
}

static void free_state(Qcow2 *q)
{
    if (q->cache.pages) {
        l2_cache_fini(q);
    }
    refcount_fini(q);
    g_array_free(q->dropped, TRUE);
    g_array_free(q->quarantine, TRUE);
    g_free(q->l1);
    g_free(q->l1_dirty);
    g_free(q->rt);
    overlap_forget(q);
    bitmap_forget(q);
    qapi_free_SnapshotInfoList(q->snapshots);
    g_free(q);
}

static Qcow2 *new_state(BlockNode *node, BlockNode *file)
{
    Loop *loop = graph_loop(node->graph);
    Qcow2 *q = g_new0(Qcow2, 1);
    q->node = node;
    q->file = file;
    q->dropped = g_array_new(FALSE, FALSE, sizeof(Dropped));
    q->quarantine = g_array_new(FALSE, FALSE, sizeof(Dropped));
    co_mutex_init(&q->alloc_lock, loop);
    co_mutex_init(&q->l1_lock, loop);
    co_queue_init(&q->cow_changed, loop);
    co_queue_init(&q->reclaimed, loop);
    loop_timer_init(&q->reclaim_timer, loop, alloc_reclaim_timer);
    co_group_init(&q->flushes, loop);
    list_init(&q->cows);
    return q;
}

/* What follows from the tables just read. */
static void prepare_tables(Qcow2 *q)
{
    g_free(q->l1_dirty);
    q->l1_dirty = g_new0(uint8_t, div_round_up((uint64_t)q->l1_size * 8, 512) / 8 + 1);
    q->l1_any_dirty = false;
    q->fixed_size = !node_grows_with_zeros(q->file);
    q->file_clusters = clusters_for(q, node_length(q->file));
    if (q->fixed_size) {
        q->file_clusters = node_length(q->file) >> q->cluster_bits;
    }
    q->scan_cluster = 0;
    q->uncounted_first = q->uncounted_end = 0;
    q->window_next = q->window_end = 0;
}

static bool coroutine_fn qcow2_co_open(BlockNode *node, const BlockdevOptions *options,
                                       const OpenInherit *inherit, GError **errp)
{
    const BlockdevOptionsQcow2 *o = &options->u.qcow2;
    L2Options l2_options;
    uint64_t refs_budget;

    BlockEdge *edge = node_co_open_child(node, o->file, "file", inherit, errp);
    if (!edge) {
        return false;
    }
    Qcow2 *q = new_state(node, edge->child);
    node->read_only |= edge->child->read_only;
    if (!header_co_read(q, errp) || !refuse_unsupported(o, errp) ||
        !check_cache_options(q, o, &l2_options, &refs_budget, errp)) {
        free_state(q);
        return false;
    }
    q->pass_discard = o->has_pass_discard_request ? o->pass_discard_request
                                                  : node->discard_unmap;
    prepare_tables(q);
    snapshots_co_read(q);
    l2_cache_init(q, &l2_options);
    refcount_init(q, (unsigned)min_u64(refs_budget / 512, 65536));
    node->state = q;
    node->request_align = edge->child->request_align > 1 ? 512 : 1;
    node->mem_align = edge->child->mem_align;
    node->filename = g_strdup(edge->child->filename);
    bool ok = open_backing(node, o->backing, inherit, errp);
    if (ok && (q->incompatible & QCOW2_INCOMPAT_DIRTY) && !node->read_only) {
        ok = qcow2_co_repair_dirty(q, errp);
    }
    if (!ok) {
        node->state = NULL;
        l2_co_settle(q);
        free_state(q);
        return false;
    }
    l2_warm_up(q);
    return true;
}

/* ---- writers come and go ---- */

/* Q9: other programs may have changed the file since we last wrote it. */
static bool coroutine_fn read_again(Qcow2 *q, GError **errp)
{
    HeaderBefore before;

    l2_co_settle(q);
    l2_cache_clear(q);
    refcount_clear(q);
    overlap_forget(q);
    node_refresh_length(q->file);
    header_set_aside(q, &before);
    bool ok = header_co_read(q, errp);
    if (ok && !l2_cache_reshape(q)) {
        error_set_errno(errp, ENOMEM, "Could not read the image again");
        ok = false;
    }
    if (!ok) { /* those who read go on with what they had */
        overlap_forget(q);
        header_put_back(q, &before);
        return false;
    }
    header_let_go(&before);
    prepare_tables(q);
    snapshots_co_read(q);
    /* what was let go of before is somebody else's matter; the header has told its roots */
    g_array_set_size(q->dropped, 0);
    g_array_set_size(q->quarantine, 0);
    q->quarantine_head = 0;
    q->dropped_bytes = 0;
    q->unsettled.len = 0;
    q->stale = q->synced = false;
    return true;
}

/* Q8: features that we do not keep consistent are declared gone before the first write;
 * bitmaps are kept, but marked as out of date (Q12). */
static int coroutine_fn declare_writer(Qcow2 *q)
{
    uint64_t keep = q->nb_bitmaps ? q->autoclear & QCOW2_AUTOCLEAR_BITMAPS : 0;
    if (q->version < 3 || !q->autoclear) {
        return 0;
    }
    int ret = BROKEN(BREAK_Q12_BITMAP) ? 0 : bitmap_co_mark_in_use(q);
    if (ret == 0 && keep != q->autoclear && !BROKEN(BREAK_Q8)) {
        be64 field = be64_make(keep);
        ret = header_co_write_field(q, offsetof(Qcow2DiskHeader, autoclear_features), &field,
                                    sizeof(field));
    }
    if (ret == 0) {
        ret = node_co_flush(q->file);
    }
    if (ret == 0) {
        q->autoclear = keep;
    }
    return ret;
}

static bool coroutine_fn start_writing(Qcow2 *q, GError **errp)
{
    if (q->stale && !BROKEN(BREAK_Q11_STALE) && !read_again(q, errp)) {
        return false;
    }
    if (q->corrupt || q->l1_bad) {
        error_set(errp, "qcow2: Image is corrupt; cannot be opened read/write");
        return false;
    }
    int ret = declare_writer(q);
    if (BROKEN(BREAK_Q12) && q->version >= 3) {
        be64 dirty = be64_make(q->incompatible | QCOW2_INCOMPAT_DIRTY);
        header_co_write_field(q, offsetof(Qcow2DiskHeader, incompatible_features), &dirty,
                              sizeof(dirty));
    }
    if (ret == 0) {
        ret = alloc_co_make_table_room(q);
    }
    if (ret < 0) {
        /* order: others may write the file before the next attempt; what the last writer
         * could not write is kept, for no other copy of it exists */
        q->stale = !q->unwritten;
        error_set_errno(errp, ret, "Could not update the qcow2 header");
        return false;
    }
    return true;
}

int coroutine_fn qcow2_co_come_to_rest(Qcow2 *q)
{
    int ret = qcow2_co_flush(q->node);
    /* order: drained. The grace periods of the graph are not over while another disk is
     * busy, but no request is left that could touch this one. */
    if (ret == 0) {
        co_mutex_lock(&q->alloc_lock);
        ret = alloc_co_reclaim_all(q);
        co_mutex_unlock(&q->alloc_lock);
    }
    if (ret == 0 && !BROKEN(BREAK_Q11)) {
        ret = alloc_co_return_window(q);
    }
    return ret == 0 ? node_co_flush(q->file) : ret;
}

/* Q11: after this the node writes nothing. */
static int coroutine_fn stop_writing(Qcow2 *q)
{
    int ret = qcow2_co_come_to_rest(q);
    /* order: with what could not be written the node goes on, should it write again */
    q->stale = ret == 0;
    q->unwritten = ret != 0;
    return ret;
}

static bool coroutine_fn qcow2_co_set_writing(BlockNode *node, bool writing, GError **errp)
{
    Qcow2 *q = node->state;
    if (writing) {
        return start_writing(q, errp);
    }
    int ret = q->corrupt ? qcow2_co_flush(node) : stop_writing(q);
    if (ret < 0) {
        error_set_errno(errp, ret, "Could not write the metadata of '%s'",
                        node_filename(node));
        return false;
    }
    return true;
}

static void coroutine_fn qcow2_co_close(BlockNode *node)
{
    Qcow2 *q = node->state;
    q->closing = true;
    alloc_co_settle(q);
    if (node->writing) {
        q->corrupt ? qcow2_co_flush(node) : stop_writing(q);
    }
    l2_co_settle(q);
    free_state(q);
}

/* ---- facts ---- */

static int qcow2_probe(const uint8_t *head, size_t len)
{
    const Qcow2DiskHeader *h = (const void *)head;
    return len >= 8 && be32_get(h->magic) == QCOW2_MAGIC && be32_get(h->version) >= 2 ? 100
                                                                                      : 0;
}

static uint32_t qcow2_cluster_size(BlockNode *node)
{
    Qcow2 *q = node->state;
    return (uint32_t)q->cluster_size;
}

static const SnapshotInfoList *qcow2_snapshots(const BlockNode *node)
{
    const Qcow2 *q = node->state;
    return q->snapshots;
}

static ImageInfoSpecific *qcow2_info_specific(BlockNode *node)
{
    Qcow2 *q = node->state;
    ImageInfoSpecific *info = g_new0(ImageInfoSpecific, 1);
    ImageInfoSpecificQCow2 *data = g_new0(ImageInfoSpecificQCow2, 1);
    info->type = IMAGE_INFO_SPECIFIC_KIND_QCOW2;
    info->u.qcow2.data = data;
    data->compat = g_strdup(q->version == 2 ? "0.10" : "1.1");
    data->refcount_bits = INT64_C(1) << q->refcount_order;
    data->compression_type = QCOW2_COMPRESSION_TYPE_ZLIB;
    if (q->version >= 3) {
        data->has_lazy_refcounts = true;
        data->lazy_refcounts = q->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS;
        data->has_corrupt = true;
        data->corrupt = q->incompatible & QCOW2_INCOMPAT_CORRUPT;
        data->bitmaps = bitmap_infos(q);
        data->has_extended_l2 = true;
        data->extended_l2 = false;
    }
    return info;
}

static void qcow2_counters(BlockNode *node,
                           void (*visit)(void *opaque, const char *name, uint64_t value),
                           void *opaque)
{
    Qcow2 *q = node->state;
    const L2Cache *c = &q->cache;
    const char *name;
    uint64_t n;
    visit(opaque, "l2-hits", c->hits);
    visit(opaque, "l2-misses", c->misses);
    visit(opaque, "l2-loads", c->loads);
    visit(opaque, "l2-prefetches", c->prefetches);
    visit(opaque, "l2-evictions", c->evictions);
    visit(opaque, "l2-bytes", c->bytes);
    visit(opaque, "l2-budget", c->budget);
    visit(opaque, "l2-page-bytes", c->page_bytes);
    visit(opaque, "l2-dirty-bytes", c->dirty_bytes);
    visit(opaque, "flat-bytes", q->flat ? q->flat->bytes : 0);
    visit(opaque, "flat-hits", q->flat ? q->flat->hits : 0);
    for (unsigned form = 0; l2_count(q, form, &name, &n); form++) {
        visit(opaque, name, n);
    }
    visit(opaque, "epochs", q->epochs);
    visit(opaque, "syncs", q->syncs);
    visit(opaque, "early-syncs", q->early_syncs);
    visit(opaque, "frees", q->nb_frees);
}

/* An internal epoch outlives no request; background loads end soon once a drain began. */
static void coroutine_fn qcow2_co_quiesce(BlockNode *node)
{
    Qcow2 *q = node->state;
    co_group_wait_idle(&q->flushes);
    alloc_co_settle(q);
    l2_co_settle(q);
}

static void qcow2_drain_ended(BlockNode *node)
{
    l2_warm_up(node->state);
    alloc_start_reclaim(node->state);
}

const BlockDriver driver_qcow2 = {
    .name = "qcow2",
    .qapi_id = BLOCKDEV_DRIVER_QCOW2,
    .is_format = true,
    .supports_backing = true,
    .co_open = qcow2_co_open,
    .co_close = qcow2_co_close,
    .map = qcow2_map,
    .map_is_durable = qcow2_map_is_durable,
    .co_load = qcow2_co_load,
    .learn_below = qcow2_learn_below,
    .co_read = qcow2_co_read_compressed,
    .co_write = qcow2_co_write,
    .co_write_zeroes = qcow2_co_write_zeroes,
    .co_discard = qcow2_co_discard,
    .co_flush = qcow2_co_flush,
    .co_make_empty = qcow2_co_make_empty,
    .co_make_space = alloc_co_make_space,
    .co_truncate = qcow2_co_truncate,
    .co_set_writing = qcow2_co_set_writing,
    .co_quiesce = qcow2_co_quiesce,
    .drain_ended = qcow2_drain_ended,
    .cluster_size = qcow2_cluster_size,
    .info_specific = qcow2_info_specific,
    .snapshots = qcow2_snapshots,
    .counters = qcow2_counters,
    .co_check = qcow2_co_check,
    .child_perm = format_child_perm,
    .probe = qcow2_probe,
};
