/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The forms of a slice: choosing, changing, widening and making narrow. See l2-form.h. */
#include <glib.h>
#include <string.h>

#include "block/qcow2/l2-form.h"

static uint32_t nb_entries(unsigned slice_bits)
{
    return UINT32_C(1) << slice_bits;
}

/* More extents than this take as much as half an array does. */
static unsigned max_extents(unsigned slice_bits)
{
    uint32_t n = nb_entries(slice_bits) / 8;
    return n > L2_MAX_EXTENTS ? L2_MAX_EXTENTS : n > 1 ? n : 1;
}

static bool pack32(uint64_t entry, unsigned cluster_bits, uint32_t *ret)
{
    if (entry == QCOW2_ENTRY_INVALID) {
        *ret = UINT32_MAX;
        return true;
    }
    uint64_t cluster = (entry & QCOW2_L2_OFFSET_MASK) >> cluster_bits;
    if ((entry & QCOW2_COMPRESSED) || cluster >= L2_32_REACH) {
        return false;
    }
    *ret = (uint32_t)cluster | (entry & QCOW2_COPIED ? L2_32_COPIED : 0) |
           (entry & QCOW2_ZERO ? L2_32_ZERO : 0);
    return true;
}

static size_t payload_bytes(L2FormKind form, unsigned cap, unsigned slice_bits)
{
    return form == L2_EXTENTS   ? cap * sizeof(L2Extent)
           : form == L2_ARRAY32 ? nb_entries(slice_bits) * sizeof(uint32_t)
                                : nb_entries(slice_bits) * sizeof(uint64_t);
}

size_t l2_form_bytes(const L2Slice *s, unsigned slice_bits)
{
    return l2_malloc_bytes(sizeof(*s) + payload_bytes(s->form, s->cap, slice_bits));
}

size_t l2_form_max_bytes(unsigned slice_bits)
{
    return l2_malloc_bytes(sizeof(L2Slice) + payload_bytes(L2_FULL64, 0, slice_bits));
}

/* Payload not set. */
static L2Slice *form_alloc(L2FormKind form, unsigned cap, unsigned slice_bits)
{
    L2Slice *s = g_try_malloc(sizeof(*s) + payload_bytes(form, cap, slice_bits));
    if (s) {
        memset(s, 0, sizeof(*s));
        list_init(&s->link);
        s->form = (uint8_t)form;
        s->cap = (uint8_t)cap;
    }
    return s;
}

/* @s takes the place of @old, which is freed (F2). */
static L2Slice *take_place(L2Slice *s, L2Slice *old)
{
    uint8_t form = s->form, nb = s->nb, cap = s->cap;
    bool linked = list_linked(&old->link);
    memcpy(s, old, sizeof(*s));
    s->form = form;
    s->nb = nb;
    s->cap = cap;
    if (linked) {
        s->link.prev->next = &s->link;
        s->link.next->prev = &s->link;
    } else {
        list_init(&s->link);
    }
    g_free(old);
    return s;
}

void l2_form_free(L2Slice *s)
{
    list_remove(&s->link);
    g_free(s);
}

/* ---- extents ---- */

static bool goes_on(const L2Extent *e, unsigned cluster_bits, uint64_t entry)
{
    if ((e->entry & QCOW2_COMPRESSED) && e->entry != QCOW2_ENTRY_INVALID) {
        return false;
    }
    return entry == l2_extent_at(e, cluster_bits, e->first + e->count);
}

/* Append to @list of *@n, joining where it goes on; at most @max stay. False: too many. */
static bool push(L2Extent *list, unsigned *n, unsigned max, unsigned cluster_bits,
                 L2Extent add)
{
    if (add.count == 0 || add.entry == 0) {
        return true;
    }
    L2Extent *last = *n ? &list[*n - 1] : NULL;
    if (last && last->first + last->count == add.first &&
        goes_on(last, cluster_bits, add.entry)) {
        last->count += add.count;
        return true;
    }
    if (*n == max) {
        return false;
    }
    list[(*n)++] = add;
    return true;
}

static unsigned cap_for(unsigned n)
{
    unsigned cap = 1;
    while (cap < n) {
        cap *= 2;
    }
    return cap;
}

/* The extents of @s with entry @i replaced; false: more than @max. */
static bool replaced(const L2Slice *s, unsigned cluster_bits, uint32_t i, uint64_t entry,
                     L2Extent *list, unsigned *n, unsigned max)
{
    const L2Extent *e = l2_extents(s);
    bool placed = false, ok = true;

    *n = 0;
    for (unsigned k = 0; ok && k < s->nb; k++) {
        L2Extent before = e[k], after = e[k];
        uint32_t end = e[k].first + e[k].count;
        if (e[k].first >= i && !placed) {
            ok = push(list, n, max, cluster_bits, (L2Extent){entry, i, 1});
            placed = true;
        }
        if (i < e[k].first || i >= end) {
            ok = ok && push(list, n, max, cluster_bits, before);
            continue;
        }
        before.count = i - e[k].first;
        after.first = i + 1;
        after.count = end - after.first;
        after.entry = after.count ? l2_extent_at(&e[k], cluster_bits, i + 1) : 0;
        ok = ok && push(list, n, max, cluster_bits, before);
        if (ok && !placed) {
            ok = push(list, n, max, cluster_bits, (L2Extent){entry, i, 1});
            placed = true;
        }
        ok = ok && push(list, n, max, cluster_bits, after);
    }
    return ok && (placed || push(list, n, max, cluster_bits, (L2Extent){entry, i, 1}));
}

static L2Slice *from_extents(const L2Extent *list, unsigned n, unsigned slice_bits)
{
    L2Slice *s = form_alloc(L2_EXTENTS, cap_for(n), slice_bits);
    if (s) {
        s->nb = (uint8_t)n;
        memcpy(l2_extents(s), list, n * sizeof(*list));
    }
    return s;
}

/* ---- choosing ---- */

/* False: more than @max extents. */
static bool find_extents(const uint64_t *entries, unsigned cluster_bits, uint32_t nb,
                         L2Extent *list, unsigned *n, unsigned max)
{
    *n = 0;
    for (uint32_t i = 0; i < nb; i++) {
        if (!push(list, n, max, cluster_bits, (L2Extent){entries[i], i, 1})) {
            return false;
        }
    }
    return true;
}

static L2Slice *new_array32(const uint64_t *entries, unsigned cluster_bits,
                            unsigned slice_bits, bool *ret_fits)
{
    L2Slice *s = form_alloc(L2_ARRAY32, 0, slice_bits);
    *ret_fits = true;
    for (uint32_t i = 0; s && i < nb_entries(slice_bits); i++) {
        if (!pack32(entries[i], cluster_bits, &l2_array32(s)[i])) {
            *ret_fits = false;
            g_free(s);
            s = NULL;
        }
    }
    return s;
}

static L2Slice *new_full64(const uint64_t *entries, unsigned slice_bits)
{
    L2Slice *s = form_alloc(L2_FULL64, 0, slice_bits);
    if (s) {
        memcpy(l2_full64(s), entries, nb_entries(slice_bits) * sizeof(*entries));
    }
    return s;
}

static L2Slice *new_array(const uint64_t *entries, unsigned cluster_bits, unsigned slice_bits)
{
    bool fits;
    L2Slice *s = new_array32(entries, cluster_bits, slice_bits, &fits);
    return s || fits ? s : new_full64(entries, slice_bits);
}

L2Slice *l2_form_new(const uint64_t *entries, unsigned cluster_bits, unsigned slice_bits,
                     bool compact)
{
    L2Extent list[L2_MAX_EXTENTS];
    unsigned n;

    if (!compact) {
        return new_full64(entries, slice_bits);
    }
    if (find_extents(entries, cluster_bits, nb_entries(slice_bits), list, &n,
                     max_extents(slice_bits))) {
        return from_extents(list, n, slice_bits);
    }
    return new_array(entries, cluster_bits, slice_bits);
}

L2Slice *l2_form_new_empty(unsigned slice_bits, bool compact)
{
    L2Slice *s = form_alloc(compact ? L2_EXTENTS : L2_FULL64, 1, slice_bits);
    if (s && !compact) {
        memset(l2_full64(s), 0, payload_bytes(L2_FULL64, 0, slice_bits));
    }
    return s;
}

/* ---- reading ---- */

uint32_t l2_form_run(const L2Slice *s, unsigned cluster_bits, unsigned slice_bits, uint32_t i,
                     uint32_t max, uint64_t *ret_entry)
{
    uint32_t left = nb_entries(slice_bits) - i;
    max = max < left ? max : left;
    if (s->form == L2_EXTENTS) {
        int at = l2_extent_find(s, i);
        const L2Extent *e = l2_extents(s) + at;
        uint32_t n;
        if (at >= 0 && i - e->first < e->count) {
            *ret_entry = l2_extent_at(e, cluster_bits, i);
            n = e->count - (i - e->first);
        } else {
            *ret_entry = 0;
            n = at + 1 < s->nb ? e[1].first - i : left;
        }
        return n < max ? n : max;
    }
    uint64_t entry = l2_form_get(s, cluster_bits, i);
    uint64_t step = l2_entry_step(entry, cluster_bits);
    uint32_t n = 1;
    *ret_entry = entry;
    if ((entry & QCOW2_COMPRESSED) && entry != QCOW2_ENTRY_INVALID) {
        return 1;
    }
    while (n < max && l2_form_get(s, cluster_bits, i + n) == entry + n * step) {
        n++;
    }
    return n;
}

void l2_form_decode(const L2Slice *s, unsigned cluster_bits, unsigned slice_bits,
                    uint64_t *entries)
{
    uint32_t n = nb_entries(slice_bits);
    if (s->form == L2_FULL64) {
        memcpy(entries, l2_full64(s), n * sizeof(*entries));
        return;
    }
    if (s->form == L2_ARRAY32) {
        for (uint32_t i = 0; i < n; i++) {
            entries[i] = l2_unpack32(l2_array32(s)[i], cluster_bits);
        }
        return;
    }
    memset(entries, 0, n * sizeof(*entries));
    for (unsigned k = 0; k < s->nb; k++) {
        const L2Extent *e = l2_extents(s) + k;
        for (uint32_t i = 0; i < e->count; i++) {
            entries[e->first + i] = l2_extent_at(e, cluster_bits, e->first + i);
        }
    }
}

/* ---- changing ---- */

/* The entries in an array of their own, with @i replaced. */
static L2Slice *widened(const L2Slice *s, unsigned cluster_bits, unsigned slice_bits,
                        uint32_t i, uint64_t entry)
{
    uint64_t *entries = g_try_new(uint64_t, nb_entries(slice_bits));
    if (!entries) {
        return NULL;
    }
    l2_form_decode(s, cluster_bits, slice_bits, entries);
    entries[i] = entry;
    L2Slice *wide = new_array(entries, cluster_bits, slice_bits);
    g_free(entries);
    return wide;
}

/* Sequential allocation: the extent before @i grows by one, into a gap. */
static bool grow_extent(L2Slice *s, unsigned cluster_bits, uint32_t i, uint64_t entry)
{
    int at = l2_extent_find(s, i);
    L2Extent *e = l2_extents(s) + at;
    bool gap = at >= 0 && i == e->first + e->count && entry != 0 &&
               (at + 1 == s->nb || e[1].first > i + 1);
    if (!gap || !goes_on(e, cluster_bits, entry)) {
        return false;
    }
    e->count++;
    return true;
}

static L2Slice *set_extent(L2Slice *s, unsigned cluster_bits, unsigned slice_bits, uint32_t i,
                           uint64_t entry)
{
    L2Extent list[L2_MAX_EXTENTS];
    L2Slice *other;
    unsigned n;

    if (grow_extent(s, cluster_bits, i, entry)) {
        return s;
    }
    if (replaced(s, cluster_bits, i, entry, list, &n, max_extents(slice_bits))) {
        if (n <= s->cap) {
            memcpy(l2_extents(s), list, n * sizeof(*list));
            s->nb = (uint8_t)n;
            return s;
        }
        other = from_extents(list, n, slice_bits);
    } else {
        other = widened(s, cluster_bits, slice_bits, i, entry);
    }
    return other ? take_place(other, s) : NULL;
}

L2Slice *l2_form_set(L2Slice *s, unsigned cluster_bits, unsigned slice_bits, uint32_t i,
                     uint64_t entry)
{
    uint32_t packed;

    switch (s->form) {
    case L2_EXTENTS:
        return set_extent(s, cluster_bits, slice_bits, i, entry);
    case L2_ARRAY32:
        if (!pack32(entry, cluster_bits, &packed)) {
            L2Slice *wide = widened(s, cluster_bits, slice_bits, i, entry);
            return wide ? take_place(wide, s) : NULL;
        }
        l2_array32(s)[i] = packed;
        return s;
    default:
        l2_full64(s)[i] = entry;
        return s;
    }
}

L2Slice *l2_form_compact(L2Slice *s, unsigned cluster_bits, unsigned slice_bits)
{
    uint64_t *entries;

    if (s->form == L2_EXTENTS && s->nb && cap_for(s->nb) == s->cap) {
        return s;
    }
    if (s->form == L2_EXTENTS && s->nb == 0) {
        l2_form_free(s);
        return NULL;
    }
    entries = g_try_new(uint64_t, nb_entries(slice_bits));
    if (!entries) {
        return s;
    }
    l2_form_decode(s, cluster_bits, slice_bits, entries);
    uint64_t any = 0;
    for (uint32_t i = 0; i < nb_entries(slice_bits); i++) {
        any |= entries[i];
    }
    L2Slice *narrow = any ? l2_form_new(entries, cluster_bits, slice_bits, true) : NULL;
    g_free(entries);
    if (!any) {
        l2_form_free(s);
        return NULL;
    }
    if (!narrow) {
        return s;
    }
    if (l2_form_bytes(narrow, slice_bits) >= l2_form_bytes(s, slice_bits)) {
        g_free(narrow);
        return s;
    }
    return take_place(narrow, s);
}
