/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The L2 cache: slices found by radix, their slots, pages and bytes; changing entries; what
 * an epoch captures. How slices come is in l2-load.c, how they go in l2-evict.c, how they
 * look in l2-form.c; the invariants are in l2-cache.h.
 */
#include <string.h>

#include "block/base/ablate.h"
#include "block/break.h"
#include "block/qcow2/qcow2.h"

#define DEFAULT_SLICE_BITS 9 /* 4 KiB */

static const size_t page_malloc = (sizeof(L2Page) + sizeof(size_t) + 15) & ~(size_t)15;

static uint32_t nb_pages_for(const Qcow2 *q)
{
    uint64_t clusters = (uint64_t)q->l1_size << q->l2_bits;
    uint64_t slices = div_round_up(clusters, l2_slice_entries(q));
    return (uint32_t)div_round_up(slices, L2_PAGE_SLICES);
}

static void clean_timer_fired(LoopTimer *timer)
{
    L2Cache *c = container_of(timer, L2Cache, clean_timer);
    Qcow2 *q = container_of(c, Qcow2, cache);
    l2_clean_idle(q);
    l2_free_buffers(q);
    if (c->bytes > (uint64_t)c->nb_pages * sizeof(*c->pages)) {
        loop_timer_arm(timer, loop_now_ns(graph_loop(q->node->graph)) + c->clean_interval_ns);
    }
}

void l2_start_cleaning(Qcow2 *q)
{
    L2Cache *c = &q->cache;
    if (c->clean_interval_ns && !loop_timer_armed(&c->clean_timer)) {
        Loop *loop = graph_loop(q->node->graph);
        loop_timer_arm(&c->clean_timer, loop_now_ns(loop) + c->clean_interval_ns);
    }
}

static void choose_slice(Qcow2 *q)
{
    uint32_t bytes = q->cache.entry_size;
    unsigned bits = bytes ? (unsigned)__builtin_ctz(bytes) - 3 : DEFAULT_SLICE_BITS;
    q->slice_bits = (uint8_t)MIN(bits, q->l2_bits);
    while (q->slice_bits < q->l2_bits && q->l1_size > l2_max_l1_size(q)) {
        q->slice_bits++;
    }
}

uint64_t l2_max_l1_size(const Qcow2 *q)
{
    return UINT32_MAX / 2 >> (q->l2_bits - q->slice_bits); /* slice numbers have 32 bits */
}

void l2_cache_init(Qcow2 *q, const L2Options *options)
{
    L2Cache *c = &q->cache;
    Loop *loop = graph_loop(q->node->graph);

    c->entry_size = options->entry_size;
    choose_slice(q);
    c->nb_pages = nb_pages_for(q);
    c->pages = g_new0(L2Page *, MAX(c->nb_pages, 1));
    c->bytes = (uint64_t)c->nb_pages * sizeof(*c->pages);
    uint64_t least = 2 * l2_form_max_bytes(q->slice_bits) + c->bytes;
    c->budget = KNOB(l2_budget, max_u64(max_u64(options->budget, L2_MIN_BUDGET), least));
    c->compact = !ablated(ABLATE_MAP_FORMS);
    c->one_queue = ablated(ABLATE_MAP_SCAN_RESISTANT);
    c->wide = !ablated(ABLATE_MAP_TABLE_READ);
    q->learns = !ablated(ABLATE_MAP_FLAT);
    q->ways = graph_ways(q->node->graph);
    list_init(&c->young);
    list_init(&c->old);
    list_init(&c->main);
    list_init(&c->dirty);
    list_init(&c->idle_pages);
    for (unsigned i = 0; i < L2_LOAD_QUEUES; i++) {
        co_queue_init(&c->loaded[i], loop);
    }
    co_queue_init(&c->settled, loop);
    c->next_in_order = UINT32_MAX;
    c->warm_next = options->warm_up ? 0 : UINT32_MAX;
    c->clean_interval_ns = options->clean_interval_ns;
    loop_timer_init(&c->clean_timer, loop, clean_timer_fired);
}

bool l2_cache_resize(Qcow2 *q)
{
    L2Cache *c = &q->cache;
    graph_ways_changed(q->node->graph);
    uint32_t n = nb_pages_for(q);
    if (n > c->nb_pages) {
        L2Page **pages = g_try_renew(L2Page *, c->pages, n);
        if (!pages) {
            return false;
        }
        memset(pages + c->nb_pages, 0, (n - c->nb_pages) * sizeof(*pages));
        c->bytes += (uint64_t)(n - c->nb_pages) * sizeof(*pages);
        c->pages = pages;
        c->nb_pages = n;
    }
    return true;
}

bool l2_cache_reshape(Qcow2 *q)
{
    choose_slice(q);
    return l2_cache_resize(q);
}

/* ---- slots and pages ---- */

uint64_t *l2_slot_of(Qcow2 *q, uint32_t index)
{
    L2Page *page = q->cache.pages[index / L2_PAGE_SLICES];
    return page ? &page->slot[index % L2_PAGE_SLICES] : NULL;
}

static void idle_page(L2Cache *c, L2Page *page)
{
    bool idle = page->nb_slices == 0 && page->nb_loading == 0;
    if (idle && !list_linked(&page->in_idle)) {
        list_append(&c->idle_pages, &page->in_idle);
        c->idle_bytes += page_malloc;
    } else if (!idle && list_linked(&page->in_idle)) {
        list_remove(&page->in_idle);
        c->idle_bytes -= page_malloc;
    }
}

uint64_t *l2_slot_make(Qcow2 *q, uint32_t index)
{
    L2Cache *c = &q->cache;
    L2Page **place = &c->pages[index / L2_PAGE_SLICES];

    if (!*place) {
        L2Page *page = g_try_new0(L2Page, 1);
        if (!page) {
            return NULL;
        }
        page->number = index / L2_PAGE_SLICES;
        list_init(&page->in_idle);
        c->bytes += page_malloc;
        c->page_bytes += page_malloc;
        *place = page;
        idle_page(c, page);
        l2_start_cleaning(q);
    }
    return &(*place)->slot[index % L2_PAGE_SLICES];
}

void l2_slot_set(Qcow2 *q, uint32_t index, uint64_t value)
{
    L2Cache *c = &q->cache;
    L2Page *page = c->pages[index / L2_PAGE_SLICES];
    uint64_t *slot = &page->slot[index % L2_PAGE_SLICES];

    page->nb_slices -= l2_slot_is_slice(*slot);
    page->nb_loading -= l2_slot_is_loading(*slot);
    c->count[L2_COUNT_EMPTY] -= *slot == L2_SLOT_EMPTY;
    *slot = value;
    page->nb_slices += l2_slot_is_slice(value);
    page->nb_loading += l2_slot_is_loading(value);
    c->count[L2_COUNT_EMPTY] += value == L2_SLOT_EMPTY;
    idle_page(c, page);
}

void l2_page_free(Qcow2 *q, L2Page *page)
{
    L2Cache *c = &q->cache;
    for (unsigned i = 0; i < L2_PAGE_SLICES; i++) {
        c->count[L2_COUNT_EMPTY] -= page->slot[i] == L2_SLOT_EMPTY;
    }
    if (list_linked(&page->in_idle)) {
        list_remove(&page->in_idle);
        c->idle_bytes -= page_malloc;
    }
    c->pages[page->number] = NULL;
    c->bytes -= page_malloc;
    c->page_bytes -= page_malloc;
    g_free(page);
}

/* ---- slices ---- */

static L2Count count_of(const L2Slice *s)
{
    return s->form == L2_ARRAY32 ? L2_COUNT_ARRAY32
           : s->form == L2_FULL64 ? L2_COUNT_FULL64
           : s->nb > 1            ? L2_COUNT_SPARSE
                                  : L2_COUNT_RUN;
}

/* Before it changes, and after. */
static void uncount(Qcow2 *q, const L2Slice *s)
{
    size_t bytes = l2_form_bytes(s, q->slice_bits);
    q->cache.count[count_of(s)]--;
    q->cache.bytes -= bytes;
    q->cache.dirty_bytes -= s->dirty || s->writing ? bytes : 0;
}

static void count(Qcow2 *q, const L2Slice *s)
{
    size_t bytes = l2_form_bytes(s, q->slice_bits);
    q->cache.count[count_of(s)]++;
    q->cache.bytes += bytes;
    q->cache.dirty_bytes += s->dirty || s->writing ? bytes : 0;
}

void l2_slice_add(Qcow2 *q, L2Slice *s)
{
    count(q, s);
    l2_slot_set(q, s->index, (uint64_t)(uintptr_t)s);
}

void l2_slice_drop(Qcow2 *q, L2Slice *s, uint64_t slot)
{
    uncount(q, s);
    l2_slot_set(q, s->index, slot);
    l2_form_free(s);
}

static L2Slice *slice_at(const Qcow2 *q, uint32_t index)
{
    const L2Page *page = q->cache.pages[index / L2_PAGE_SLICES];
    return l2_slot_slice(page->slot[index % L2_PAGE_SLICES]);
}

static void drop_all(Qcow2 *q, ListLink *queue)
{
    while (!list_empty(queue)) {
        L2Slice *s = list_first(queue, L2Slice, link);
        if (!s->dirty) {
            l2_queue_remove(q, s);
        }
        l2_slice_drop(q, s, 0);
    }
}

void l2_cache_clear(Qcow2 *q)
{
    L2Cache *c = &q->cache;
    g_assert(!c->background);
    graph_ways_changed(q->node->graph);
    flat_free(q);
    drop_all(q, &c->young);
    drop_all(q, &c->old);
    drop_all(q, &c->main);
    drop_all(q, &c->dirty);
    for (uint32_t i = 0; i < c->nb_pages; i++) {
        if (c->pages[i]) {
            g_assert(c->pages[i]->nb_slices == 0 && c->pages[i]->nb_loading == 0);
            l2_page_free(q, c->pages[i]);
        }
    }
}

void l2_cache_fini(Qcow2 *q)
{
    loop_timer_cancel(&q->cache.clean_timer);
    l2_cache_clear(q);
    l2_free_buffers(q);
    g_free(q->cache.pages);
}

/* ---- entries ---- */

uint64_t l2_slice_disk_offset(const Qcow2 *q, uint32_t index)
{
    uint64_t cluster = (uint64_t)index << q->slice_bits;
    uint64_t in_table = cluster & ((UINT64_C(1) << q->l2_bits) - 1);
    return (q->l1[cluster >> q->l2_bits] & QCOW2_L1_OFFSET_MASK) + in_table * 8;
}

bool l2_has_invalid(const Qcow2 *q, uint64_t guest_cluster)
{
    uint64_t slot = l2_slot(q, guest_cluster);
    return l2_slot_is_slice(slot) && l2_slot_slice(slot)->invalid;
}

static void make_dirty(Qcow2 *q, L2Slice *s)
{
    if (s->dirty) {
        return;
    }
    if (!s->writing) {
        l2_queue_remove(q, s);
        q->cache.dirty_bytes += l2_form_bytes(s, q->slice_bits);
    }
    s->dirty = true;
    list_append(&q->cache.dirty, &s->link);
}

bool l2_set(Qcow2 *q, uint64_t guest_cluster, uint64_t entry)
{
    uint32_t index = (uint32_t)(guest_cluster >> q->slice_bits);
    uint64_t slot = l2_slot(q, guest_cluster);
    L2Slice *s;

    if (slot == L2_SLOT_EMPTY) {
        s = l2_form_new_empty(q->slice_bits, q->cache.compact);
        if (!s) {
            return false;
        }
        s->index = index;
        s->queue = q->cache.one_queue ? L2_MAIN : L2_YOUNG;
        l2_slice_add(q, s);
        l2_queue_add(q, s);
    } else {
        s = l2_slot_slice(slot);
    }
    if (s->invalid) {
        return false;
    }
    if (q->node->backing_child && node_has_parent_node(q->node)) {
        graph_ways_changed(q->node->graph);
    }
    make_dirty(q, s);
    uncount(q, s);
    L2Slice *set = l2_form_set(s, q->cluster_bits, q->slice_bits,
                               guest_cluster & (l2_slice_entries(q) - 1), entry);
    s = set ? set : s;
    count(q, s);
    s->used = true;
    *l2_slot_of(q, index) = (uint64_t)(uintptr_t)s;
    l2_make_room(q, 0); /* this one is dirty: it stays */
    return set != NULL;
}

void l2_table_is_empty(Qcow2 *q, uint64_t l1_index)
{
    uint32_t n = UINT32_C(1) << (q->l2_bits - q->slice_bits);
    uint32_t first = (uint32_t)(l1_index << (q->l2_bits - q->slice_bits));

    for (uint32_t i = first; i < first + n; i++) {
        uint64_t *slot = l2_slot_make(q, i);
        if (slot && (*slot == 0 || (*slot & 3) == L2_SLOT_GHOST)) {
            l2_slot_set(q, i, L2_SLOT_EMPTY);
        }
    }
}

/* ---- for the epoch ---- */

bool l2_first_dirty(const Qcow2 *q, uint32_t *ret_index)
{
    if (list_empty(&q->cache.dirty)) {
        return false;
    }
    *ret_index = list_first(&q->cache.dirty, L2Slice, link)->index;
    return true;
}

void l2_begin_write(Qcow2 *q, uint32_t index)
{
    L2Slice *s = slice_at(q, index);
    list_remove(&s->link);
    s->dirty = false;
    s->writing = true;
}

void l2_write_failed(Qcow2 *q, uint32_t index)
{
    make_dirty(q, slice_at(q, index));
}

void l2_end_write(Qcow2 *q, uint32_t index)
{
    L2Slice *s = slice_at(q, index);
    uncount(q, s);
    s->writing = false;
    if (!s->dirty && q->cache.compact) {
        s = l2_form_compact(s, q->cluster_bits, q->slice_bits);
        l2_slot_set(q, index, s ? (uint64_t)(uintptr_t)s : L2_SLOT_EMPTY);
    }
    if (s) {
        count(q, s);
        if (!s->dirty) {
            l2_queue_add(q, s);
        }
    }
    l2_make_room(q, 0); /* what was too much could not go before */
}

void l2_encode(const Qcow2 *q, uint32_t index, be64 *ret)
{
    const L2Slice *s = slice_at(q, index);
    uint64_t entry = 0;
    for (uint32_t i = 0, n; i < l2_slice_entries(q); i += n) {
        n = l2_form_run(s, q->cluster_bits, q->slice_bits, i, UINT32_MAX, &entry);
        uint64_t step = l2_entry_step(entry, q->cluster_bits);
        for (uint32_t k = 0; k < n; k++) {
            ret[i + k] = be64_make(entry + k * step);
        }
    }
}

bool l2_dirty_full(const Qcow2 *q)
{
    return q->cache.dirty_bytes > q->cache.budget / 2;
}

bool l2_count(const Qcow2 *q, unsigned form, const char **ret_name, uint64_t *ret_count)
{
    static const char *const names[L2_COUNT_NB] = {
        "l2-empty", "l2-run", "l2-sparse", "l2-array32", "l2-full64"};
    if (form >= L2_COUNT_NB) {
        return false;
    }
    *ret_name = names[form];
    *ret_count = q->cache.count[form];
    return true;
}
