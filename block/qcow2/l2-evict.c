/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What leaves the L2 cache when its budget is used up: two queues, so that a reader who
 * passes once does not wash out what is used again and again.
 *
 * A slice comes into *small*, a tenth of the budget. At its end it goes, and its slot
 * remembers it (a ghost); who asks for it again soon enough gets it into *main*, which is a
 * CLOCK. Looks while it is in small do not count: one reader of 32 MiB looks thousands of
 * times. All steps are O(1): the hand gives up a second chance after MAX_STEPS.
 *
 * Pages without slices (all they know is "empty") go when they take a quarter of the
 * budget, or when nothing else can.
 */
#include "block/qcow2/qcow2.h"

#define MAX_STEPS 64

void l2_queue_add(Qcow2 *q, L2Slice *s)
{
    L2Cache *c = &q->cache;
    if (s->in_main) {
        list_append(&c->main, &s->link);
        c->nb_main++;
        return;
    }
    if (s->cold) {
        list_prepend(&c->small, &s->link);
    } else {
        list_append(&c->small, &s->link);
    }
    c->small_bytes += l2_form_bytes(s, q->slice_bits);
}

void l2_queue_remove(Qcow2 *q, L2Slice *s)
{
    list_remove(&s->link);
    if (s->in_main) {
        q->cache.nb_main--;
    } else {
        q->cache.small_bytes -= l2_form_bytes(s, q->slice_bits);
    }
}

bool l2_ghost_is_recent(const Qcow2 *q, uint64_t slot)
{
    const L2Cache *c = &q->cache;
    return (slot & 3) == L2_SLOT_GHOST && c->ghost_seq - (slot >> 2) <= c->nb_main + 16;
}

static void evict(Qcow2 *q, L2Slice *s, uint64_t slot)
{
    l2_queue_remove(q, s);
    l2_slice_drop(q, s, slot);
    q->cache.evictions++;
}

static void evict_small(Qcow2 *q)
{
    L2Slice *s = list_first(&q->cache.small, L2Slice, link);
    evict(q, s, s->cold ? 0 : (q->cache.ghost_seq++ << 2) | L2_SLOT_GHOST);
}

static void evict_main(Qcow2 *q)
{
    ListLink *main = &q->cache.main;
    for (unsigned steps = 0; steps < MAX_STEPS; steps++) {
        L2Slice *s = list_first(main, L2Slice, link);
        if (!s->freq) {
            break;
        }
        s->freq = 0;
        list_remove(&s->link);
        list_append(main, &s->link);
    }
    evict(q, list_first(main, L2Slice, link), 0);
}

static void evict_page(Qcow2 *q)
{
    ListLink *idle = &q->cache.idle_pages;
    for (unsigned steps = 0; steps < MAX_STEPS; steps++) {
        L2Page *page = list_first(idle, L2Page, in_idle);
        if (!page->used) {
            break;
        }
        page->used = false;
        list_remove(&page->in_idle);
        list_append(idle, &page->in_idle);
    }
    l2_page_free(q, list_first(idle, L2Page, in_idle));
}

void l2_make_room(Qcow2 *q, uint64_t more)
{
    L2Cache *c = &q->cache;
    while (c->bytes + more > c->budget) {
        if (c->idle_bytes > c->budget / 4) {
            evict_page(q);
        } else if (!list_empty(&c->small) &&
                   (c->small_bytes > c->budget / 10 || list_empty(&c->main))) {
            evict_small(q);
        } else if (!list_empty(&c->main)) {
            evict_main(q);
        } else if (!list_empty(&c->small)) {
            evict_small(q);
        } else if (!list_empty(&c->idle_pages)) {
            evict_page(q);
        } else {
            return; /* all of it is dirty or being written: the next epoch lets it go */
        }
    }
}

static void clean_queue(Qcow2 *q, ListLink *queue)
{
    list_foreach_safe(it, next, queue) {
        L2Slice *s = container_of(it, L2Slice, link);
        if (s->idle && !s->freq) {
            evict(q, s, 0);
        } else {
            s->idle = true;
            s->freq = 0;
        }
    }
}

void l2_clean_idle(Qcow2 *q)
{
    clean_queue(q, &q->cache.small);
    clean_queue(q, &q->cache.main);
    list_foreach_safe(it, next, &q->cache.idle_pages) {
        L2Page *page = container_of(it, L2Page, in_idle);
        if (page->used) {
            page->used = false;
        } else {
            l2_page_free(q, page);
        }
    }
}
