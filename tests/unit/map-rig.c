/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Maps without images; see map-rig.h. */
#include <errno.h>
#include <malloc.h>
#include <string.h>

#include "block/base/iov.h"
#include "block/driver/table.h"
#include "tests/unit/map-rig.h"

#define TABLES_AT 4u /* header; L1 table */

/* ---- the file ---- */

static void file_map(BlockNode *node, MapOp op, uint64_t offset, uint64_t len,
                     MapResult *ret)
{
    (void)node;
    (void)op;
    (void)offset;
    ret->kind = MAP_SLOW;
    ret->len = len;
}

static int coroutine_fn file_co_read(BlockNode *node, uint64_t offset, uint64_t len,
                                     const struct iovec *iov, int niov, unsigned flags)
{
    MapImage *im = node->state;
    uint64_t at = im->tables_at << im->q->cluster_bits;
    uint64_t end = at + ((uint64_t)im->max_tables << im->q->cluster_bits);

    (void)flags;
    im->reads++;
    g_assert(offset >= at && offset + len <= end);
    /* what is there now; it may take long to arrive */
    iov_from_buf(iov, niov, 0, (const uint8_t *)im->disk + (offset - at), len);
    int turns = im->slow ? g_rand_int_range(im->rand, 0, 3) : 0;
    turns = turns == 2 ? g_rand_int_range(im->rand, 0, 60) : turns;
    while (turns-- > 0) {
        coroutine_wake_later(graph_loop(node->graph), coroutine_self());
        coroutine_yield();
    }
    if (im->fail_one_in &&
        g_rand_int_range(im->rand, 0, (gint32)im->fail_one_in) == 0) {
        return -EIO;
    }
    return 0;
}

static const BlockDriver file_driver = {
    .name = "test-file",
    .map = file_map,
    .co_read = file_co_read,
};

/* ---- the image ---- */

MapImage *map_image_new(Graph *graph, GRand *rand, unsigned cluster_bits,
                        uint32_t tables, uint32_t max_tables, const L2Options *options)
{
    MapImage *im = g_new0(MapImage, 1);
    Qcow2 *q = g_new0(Qcow2, 1);

    im->q = q;
    im->rand = rand;
    im->max_tables = max_tables;
    im->tables_at = TABLES_AT + 1;
    im->data_at = im->next_host = im->tables_at + max_tables;
    im->node = node_new(graph, NULL, NULL);
    im->file = node_new(graph, NULL, NULL);
    im->file->drv = &file_driver;
    im->file->state = im;
    im->file->length = UINT64_C(1) << 56;
    im->node->drv = &driver_qcow2;
    im->node->state = q;
    edge_attach(im->node, im->file, "file");
    q->node = im->node;
    q->file = im->file;
    q->version = 3;
    q->cluster_bits = (uint8_t)cluster_bits;
    q->cluster_size = UINT64_C(1) << cluster_bits;
    q->l2_bits = (uint8_t)(cluster_bits - 3);
    q->l1_size = tables;
    q->l1 = g_new0(uint64_t, max_tables);
    q->l1_offset = TABLES_AT << cluster_bits;
    q->rt_offset = q->cluster_size; /* as every image has; no blocks */
    q->rt_clusters = 1;
    q->dropped = g_array_new(FALSE, FALSE, sizeof(Dropped));
    im->node->length = map_image_clusters(im) << cluster_bits;
    im->disk = g_malloc0((size_t)max_tables << cluster_bits);
    im->entry = g_new0(uint64_t, (size_t)max_tables << q->l2_bits);
    l2_cache_init(q, options);
    return im;
}

void coroutine_fn map_image_free(MapImage *im)
{
    Qcow2 *q = im->q;
    l2_co_settle(q);
    l2_cache_fini(q);
    g_assert_cmpuint(q->cache.bytes, ==,
                     (uint64_t)q->cache.nb_pages * sizeof(L2Page *));
    overlap_forget(q);
    g_array_free(q->dropped, TRUE);
    g_free(q->l1);
    edge_unlink(node_edge(im->node, "file"));
    node_discard(im->node);
    node_discard(im->file);
    g_free(q);
    g_free(im->disk);
    g_free(im->entry);
    g_free(im);
}

void map_image_make_table(MapImage *im, uint32_t i)
{
    Qcow2 *q = im->q;
    if (q->l1[i]) {
        return;
    }
    uint64_t at = (im->tables_at + i) << q->cluster_bits;
    q->l1[i] = at | QCOW2_COPIED;
    overlap_note(q, at);
    l2_table_is_empty(q, i);
}

int coroutine_fn map_image_load(MapImage *im, uint64_t cluster, unsigned flags)
{
    while (!l2_is_loaded(im->q, cluster)) {
        int ret = l2_co_load(im->q, cluster, flags);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int coroutine_fn map_image_set(MapImage *im, uint64_t cluster, uint64_t entry)
{
    map_image_make_table(im, (uint32_t)(cluster >> im->q->l2_bits));
    int ret = map_image_load(im, cluster, 0);
    if (ret == 0 && l2_set(im->q, cluster, entry)) {
        im->entry[cluster] = entry;
    } else if (ret == 0) {
        ret = -EIO;
        g_assert(l2_has_invalid(im->q, cluster));
    }
    return ret;
}

static be64 *place_on_disk(const MapImage *im, uint32_t index)
{
    return im->disk + (((uint64_t)index << im->q->slice_bits));
}

void coroutine_fn map_image_flush(MapImage *im, unsigned max, bool yield, bool fail)
{
    Qcow2 *q = im->q;
    GArray *captured = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    GPtrArray *copies = g_ptr_array_new_with_free_func(g_free);
    uint32_t index;

    while (captured->len < max && l2_first_dirty(q, &index)) {
        be64 *copy = g_new(be64, l2_slice_entries(q));
        l2_encode(q, index, copy);
        l2_begin_write(q, index);
        g_array_append_val(captured, index);
        g_ptr_array_add(copies, copy);
    }
    if (yield) {
        coroutine_wake_later(graph_loop(im->node->graph), coroutine_self());
        coroutine_yield();
    }
    for (unsigned i = 0; i < captured->len; i++) {
        index = g_array_index(captured, uint32_t, i);
        if (fail) {
            l2_write_failed(q, index);
        } else {
            memcpy(place_on_disk(im, index), copies->pdata[i],
                   l2_slice_entries(q) * sizeof(be64));
        }
        l2_end_write(q, index);
    }
    g_array_free(captured, TRUE);
    g_ptr_array_free(copies, TRUE);
}

/* ---- what the cache counts, and what it has ---- */

static size_t held(const void *p, size_t counted)
{
#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)
    (void)p;
#else
    size_t real = malloc_usable_size((void *)p) + sizeof(size_t);
    g_assert_cmpuint(real, >=, counted);
    g_assert_cmpuint(real, <=, counted + 16); /* a rest too small to be given away */
#endif
    return counted;
}

typedef struct Found {
    uint64_t bytes, page_bytes, dirty, young, old, idle;
    uint32_t count[L2_COUNT_NB], nb_main, linked;
} Found;

static void look_at_slice(const Qcow2 *q, uint32_t index, const L2Slice *s, Found *f)
{
    size_t bytes = held(s, l2_form_bytes(s, q->slice_bits));
    g_assert_cmpuint(s->index, ==, index);
    f->bytes += bytes;
    f->count[s->form == L2_FULL64    ? L2_COUNT_FULL64
             : s->form == L2_ARRAY32 ? L2_COUNT_ARRAY32
             : s->nb > 1             ? L2_COUNT_SPARSE
                                     : L2_COUNT_RUN]++;
    bool held_back = s->dirty || s->writing;
    f->dirty += held_back ? bytes : 0;
    f->young += !held_back && s->queue == L2_YOUNG ? bytes : 0;
    f->old += !held_back && s->queue == L2_OLD ? bytes : 0;
    f->nb_main += !held_back && s->queue == L2_MAIN;
    g_assert(list_linked(&s->link) == (s->dirty || !s->writing)); /* L1 */
    f->linked += list_linked(&s->link);
}

static void look_at_page(const Qcow2 *q, const L2Page *page, Found *f)
{
    unsigned slices = 0, loading = 0;
    uint64_t bytes = held(page, l2_malloc_bytes(sizeof(*page)));
    f->page_bytes += bytes;
    f->bytes += bytes;
    for (uint32_t i = 0; i < L2_PAGE_SLICES; i++) {
        uint64_t slot = page->slot[i];
        loading += l2_slot_is_loading(slot);
        f->count[L2_COUNT_EMPTY] += slot == L2_SLOT_EMPTY;
        if (l2_slot_is_slice(slot)) {
            slices++;
            look_at_slice(q, page->number * L2_PAGE_SLICES + i, l2_slot_slice(slot), f);
        }
    }
    g_assert_cmpuint(slices, ==, page->nb_slices);
    g_assert_cmpuint(loading, ==, page->nb_loading);
    g_assert(list_linked(&page->in_idle) == (slices == 0 && loading == 0)); /* L3 */
    f->idle += list_linked(&page->in_idle) ? bytes : 0;
}

static uint64_t flat_bytes(const FlatMap *f)
{
    uint64_t bytes = held(f, l2_malloc_bytes(sizeof(*f)));
    uint32_t nb = 0;
    if (f->layers) {
        bytes += held(f->layers, l2_malloc_bytes(f->nb_layers * sizeof(*f->layers)));
    }
    if (f->pages) {
        bytes += held(f->pages, l2_malloc_bytes(f->nb_pages * sizeof(*f->pages)));
    }
    list_foreach(it, &f->clock)
    {
        const FlatPage *page = container_of(it, FlatPage, link);
        g_assert(f->pages[page->number] == page);
        bytes += held(page, l2_malloc_bytes(sizeof(*page)));
        nb++;
    }
    for (uint32_t i = 0; i < f->nb_pages; i++) {
        nb -= f->pages[i] != NULL;
    }
    g_assert_cmpuint(nb, ==, 0);
    g_assert_cmpuint(bytes, ==, f->bytes);
    return bytes;
}

static uint32_t list_length(const ListLink *head)
{
    uint32_t n = 0;
    list_foreach(it, head)
    {
        n++;
    }
    return n;
}

void map_image_check(const MapImage *im)
{
    const Qcow2 *q = im->q;
    const L2Cache *c = &q->cache;
    Found f = {.bytes = (uint64_t)c->nb_pages * sizeof(*c->pages)};

    for (uint32_t i = 0; i < c->nb_pages; i++) {
        if (c->pages[i]) {
            g_assert_cmpuint(c->pages[i]->number, ==, i);
            look_at_page(q, c->pages[i], &f);
        }
    }
    f.bytes += q->flat ? flat_bytes(q->flat) : 0;
    g_assert_cmpuint(f.bytes, ==, c->bytes); /* L4 */
    g_assert_cmpuint(f.page_bytes, ==, c->page_bytes);
    g_assert_cmpuint(f.dirty, ==, c->dirty_bytes);
    g_assert_cmpuint(f.young, ==, c->young_bytes);
    g_assert_cmpuint(f.old, ==, c->old_bytes);
    g_assert_cmpuint(f.idle, ==, c->idle_bytes);
    g_assert_cmpuint(f.nb_main, ==, c->nb_main);
    g_assert_cmpuint(f.linked, ==,
                     list_length(&c->young) + list_length(&c->old) +
                         list_length(&c->main) + list_length(&c->dirty));
    for (unsigned i = 0; i < L2_COUNT_NB; i++) {
        g_assert_cmpuint(f.count[i], ==, c->count[i]);
    }
}
