/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What leaves the L2 cache when its budget is used up. Three queues, so that a reader who
 * passes once does not wash out what is used again and again (S3-FIFO, but for what counts
 * as used again):
 *
 *     a slice comes --> young --> old --used there?--> main, a CLOCK --> gone
 *                                  +--not: gone, its slot remembers (a ghost)
 *     asked for again soon --------------------------> main
 *
 * young and old are a twentieth of the budget each. Looks while it is young do not count:
 * one reader of 32 MiB looks thousands of times in a row. tests/bench/l2trace compares this
 * with other rules. All steps are O(1): the hand gives up second chances after MAX_STEPS.
 *
 * Pages without slices (all they know is "empty") go when they take a quarter of the
 * budget, or when nothing else can.
 */
#include "block/qcow2/qcow2.h"

#define MAX_STEPS 64

void l2_queue_add(Qcow2 *q, L2Slice *s)
{
    L2Cache *c = &q->cache;
    size_t bytes = l2_form_bytes(s, q->slice_bits);

    switch (s->queue) {
    case L2_MAIN:
        list_append(&c->main, &s->link);
        c->nb_main++;
        return;
    case L2_OLD:
        list_append(&c->old, &s->link);
        c->old_bytes += bytes;
        return;
    default:
        if (s->cold) {
            list_prepend(&c->young, &s->link);
        } else {
            list_append(&c->young, &s->link);
        }
        c->young_bytes += bytes;
        return;
    }
}

void l2_queue_remove(Qcow2 *q, L2Slice *s)
{
    L2Cache *c = &q->cache;
    size_t bytes = l2_form_bytes(s, q->slice_bits);

    list_remove(&s->link);
    c->nb_main -= s->queue == L2_MAIN;
    c->old_bytes -= s->queue == L2_OLD ? bytes : 0;
    c->young_bytes -= s->queue == L2_YOUNG ? bytes : 0;
}

static void move(Qcow2 *q, L2Slice *s, L2Queue queue)
{
    l2_queue_remove(q, s);
    s->queue = queue;
    s->used = false;
    l2_queue_add(q, s);
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

/* The next of young becomes old, or goes if it was to be read once. */
static void age(Qcow2 *q)
{
    L2Slice *s = list_first(&q->cache.young, L2Slice, link);
    if (s->cold && !s->used) {
        evict(q, s, 0);
    } else {
        s->cold = false;
        move(q, s, L2_OLD);
    }
}

static void leave_old(Qcow2 *q)
{
    L2Slice *s = list_first(&q->cache.old, L2Slice, link);
    if (s->used) {
        move(q, s, L2_MAIN);
    } else {
        evict(q, s, (q->cache.ghost_seq++ << 2) | L2_SLOT_GHOST);
    }
}

static void evict_main(Qcow2 *q)
{
    ListLink *main = &q->cache.main;
    for (unsigned steps = 0; steps < MAX_STEPS; steps++) {
        L2Slice *s = list_first(main, L2Slice, link);
        if (!s->used) {
            break;
        }
        s->used = false;
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

/* One step towards less; false: all of it is dirty or being written. */
static bool step(Qcow2 *q)
{
    L2Cache *c = &q->cache;
    const uint64_t share = c->budget / 20;

    const bool no_main = list_empty(&c->main);

    if (c->idle_bytes > c->budget / 4) {
        evict_page(q);
        return true;
    }
    if (c->old_bytes > share ||
        (c->young_bytes <= share && no_main && !list_empty(&c->old))) {
        leave_old(q);
    } else if (c->young_bytes > share || (no_main && !list_empty(&c->young))) {
        age(q);
    } else if (!no_main) {
        evict_main(q);
    } else if (!list_empty(&c->idle_pages)) {
        evict_page(q);
    } else {
        return flat_evict(q);
    }
    return true;
}

void l2_age(Qcow2 *q)
{
    L2Cache *c = &q->cache;
    const uint64_t share = c->budget / 20;
    /* order: when the next load will have to make room, what is old is on its way out; else
     * a reader who passes once would push it all into main */
    const uint64_t next = l2_form_max_bytes(q->slice_bits) + sizeof(L2Page) + 16;
    const bool free = c->bytes + c->loading_bytes + next <= c->budget;

    for (unsigned i = 0; i < 2 && free; i++) {
        if (c->old_bytes > share) {
            move(q, list_first(&c->old, L2Slice, link), L2_MAIN);
        } else if (c->young_bytes > share) {
            L2Slice *s = list_first(&c->young, L2Slice, link);
            if (s->cold) { /* perhaps the one that just came: it must stay for now */
                return;
            }
            move(q, s, L2_OLD);
        }
    }
}

void l2_make_room(Qcow2 *q, uint64_t more)
{
    more += q->cache.loading_bytes;
    while (q->cache.bytes + more > q->cache.budget && step(q)) {
    }
}

static void clean_queue(Qcow2 *q, ListLink *queue)
{
    list_foreach_safe(it, next, queue) {
        L2Slice *s = container_of(it, L2Slice, link);
        if (s->idle && !s->used) {
            evict(q, s, 0);
        } else {
            s->idle = true;
            s->used = false;
        }
    }
}

void l2_clean_idle(Qcow2 *q)
{
    clean_queue(q, &q->cache.young);
    clean_queue(q, &q->cache.old);
    clean_queue(q, &q->cache.main);
    flat_clean_idle(q);
    list_foreach_safe(it, next, &q->cache.idle_pages) {
        L2Page *page = container_of(it, L2Page, in_idle);
        if (page->used) {
            page->used = false;
        } else {
            l2_page_free(q, page);
        }
    }
}
