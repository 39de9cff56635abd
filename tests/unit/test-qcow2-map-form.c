/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The forms of a slice against a plain array of entries, under random changes. */
#include <glib.h>
#include <string.h>

#include "block/qcow2/l2-form.h"

#define MAX_ENTRIES 8192u

typedef enum Pattern { /* what is drawn */
    SEQUENTIAL, /* mostly contiguous: extents */
    FEW,        /* some scattered entries */
    SCATTERED,  /* all over the file: array32 */
    FAR,        /* beyond the reach of array32 */
    COMPRESSED,
    ZEROS,
    MIXED,
    NB_PATTERNS,
} Pattern;

typedef struct Draw {
    GRand *rand;
    Pattern pattern;
    unsigned cluster_bits, slice_bits;
    uint64_t next_host;
} Draw;

static uint64_t below(Draw *d, uint64_t n)
{
    return ((uint64_t)g_rand_int(d->rand) << 32 | g_rand_int(d->rand)) % n;
}

static uint64_t draw_host(Draw *d, uint64_t clusters)
{
    return (1 + below(d, clusters)) << d->cluster_bits;
}

static uint64_t draw_entry(Draw *d)
{
    Pattern p = d->pattern == MIXED ? below(d, MIXED) : d->pattern;
    uint64_t far = (QCOW2_L2_OFFSET_MASK >> d->cluster_bits) - 1;
    switch (p) {
    case SEQUENTIAL:
        if (below(d, 20) == 0) {
            d->next_host = draw_host(d, 100000);
        }
        d->next_host += UINT64_C(1) << d->cluster_bits;
        return d->next_host | QCOW2_COPIED;
    case FEW:
    case SCATTERED:
        return draw_host(d, 100000) | (below(d, 3) ? QCOW2_COPIED : 0) |
               (below(d, 10) ? 0 : QCOW2_ZERO);
    case FAR:
        return (draw_host(d, far) & QCOW2_L2_OFFSET_MASK) | QCOW2_COPIED;
    case COMPRESSED:
        return QCOW2_COMPRESSED | below(d, UINT64_C(1) << 60);
    default:
        return below(d, 2) ? QCOW2_ZERO : 0;
    }
}

static void check_runs(Draw *d, const L2Slice *s, const uint64_t *oracle)
{
    uint32_t n = UINT32_C(1) << d->slice_bits, run;
    for (uint32_t i = 0; i < n; i += run) {
        uint32_t max = 1 + (uint32_t)below(d, n);
        uint64_t entry;
        run = l2_form_run(s, d->cluster_bits, d->slice_bits, i, max, &entry);
        g_assert_cmpuint(run, >=, 1);
        g_assert_cmpuint(run, <=, MIN(max, n - i));
        uint64_t step = l2_entry_step(entry, d->cluster_bits);
        for (uint32_t k = 0; k < run; k++) {
            g_assert_cmphex(oracle[i + k], ==, entry + k * step);
        }
    }
}

static void check(Draw *d, const L2Slice *s, const uint64_t *oracle)
{
    static uint64_t all[MAX_ENTRIES];
    uint32_t n = UINT32_C(1) << d->slice_bits;
    l2_form_decode(s, d->cluster_bits, d->slice_bits, all);
    for (uint32_t i = 0; i < n; i++) {
        g_assert_cmphex(all[i], ==, oracle[i]);
        g_assert_cmphex(l2_form_get(s, d->cluster_bits, i), ==, oracle[i]);
    }
    check_runs(d, s, oracle);
    g_assert_cmpuint(l2_form_bytes(s, d->slice_bits), <=, l2_form_max_bytes(d->slice_bits));
}

static uint32_t draw_index(Draw *d, uint32_t *at)
{
    uint32_t n = UINT32_C(1) << d->slice_bits;
    if (d->pattern == SEQUENTIAL && below(d, 30)) {
        *at = (*at + 1) % n;
    } else if (d->pattern == FEW) {
        *at = (uint32_t)below(d, 8) * (n / 8);
    } else {
        *at = (uint32_t)below(d, n);
    }
    return *at;
}

/* One slice through many changes; what forms it had, as bits. */
static unsigned one_life(Draw *d, bool compact)
{
    static uint64_t oracle[MAX_ENTRIES];
    uint32_t n = UINT32_C(1) << d->slice_bits, at = 0;
    unsigned forms = 0;
    ListLink list; /* which the slice is in: its links follow it (F2) */

    list_init(&list);
    memset(oracle, 0, sizeof(oracle));
    L2Slice *s = l2_form_new_empty(d->slice_bits, compact);
    list_append(&list, &s->link);
    for (unsigned step = 0; step < 4 * n + 200; step++) {
        uint32_t i = draw_index(d, &at);
        oracle[i] = below(d, 8) ? draw_entry(d) : 0;
        s = l2_form_set(s, d->cluster_bits, d->slice_bits, i, oracle[i]);
        g_assert_nonnull(s);
        g_assert_true(list.next == &s->link && list.prev == &s->link);
        forms |= 1u << s->form;
        if (below(d, n) == 0) {
            check(d, s, oracle);
        }
        if (compact && below(d, n) == 0) {
            size_t before = l2_form_bytes(s, d->slice_bits);
            L2Slice *narrow = l2_form_compact(s, d->cluster_bits, d->slice_bits);
            if (!narrow) {
                for (uint32_t k = 0; k < n; k++) {
                    g_assert_cmphex(oracle[k], ==, 0);
                }
                g_assert_true(list_empty(&list));
                narrow = l2_form_new_empty(d->slice_bits, true);
                list_append(&list, &narrow->link);
            }
            s = narrow;
            g_assert_cmpuint(l2_form_bytes(s, d->slice_bits), <=, before);
            g_assert_true(list.next == &s->link && list.prev == &s->link);
            check(d, s, oracle);
        }
    }
    check(d, s, oracle);
    uint64_t any = 0;
    for (uint32_t k = 0; k < n; k++) {
        any |= oracle[k];
    }
    if (any) { /* what a load makes of the same entries is the same */
        L2Slice *other = l2_form_new(oracle, d->cluster_bits, d->slice_bits, compact);
        check(d, other, oracle);
        s = compact ? l2_form_compact(s, d->cluster_bits, d->slice_bits) : s;
        g_assert_cmpint(s->form, ==, other->form);
        g_assert_cmpuint(s->nb, ==, other->nb);
        l2_form_free(other);
    }
    l2_form_free(s);
    return forms;
}

static void test_random(void)
{
    static const unsigned wanted[NB_PATTERNS] = {
        [SEQUENTIAL] = 1u << L2_EXTENTS, [FEW] = 1u << L2_EXTENTS,
        [SCATTERED] = 1u << L2_ARRAY32,  [FAR] = 1u << L2_FULL64,
        [COMPRESSED] = 1u << L2_FULL64,  [ZEROS] = 1u << L2_EXTENTS,
        [MIXED] = 1u << L2_FULL64};
    static const unsigned shapes[][2] = {{16, 9}, {9, 6}, {21, 9}, {16, 13}, {12, 7}};

    for (unsigned k = 0; k < G_N_ELEMENTS(shapes) * NB_PATTERNS * 3; k++) {
        Draw d = {.rand = g_rand_new_with_seed(k), .pattern = k % NB_PATTERNS,
                  .cluster_bits = shapes[k / NB_PATTERNS % G_N_ELEMENTS(shapes)][0],
                  .slice_bits = shapes[k / NB_PATTERNS % G_N_ELEMENTS(shapes)][1]};
        if (d.slice_bits > 10 && k >= G_N_ELEMENTS(shapes) * NB_PATTERNS) {
            g_rand_free(d.rand);
            continue; /* large ones once */
        }
        unsigned forms = one_life(&d, true);
        /* at 2 MiB clusters nothing is beyond the reach */
        if (d.pattern != FAR || d.cluster_bits < 21) {
            g_assert_cmpuint(forms & wanted[d.pattern], !=, 0);
        }
        g_assert_cmpuint(one_life(&d, false), ==, 1u << L2_FULL64);
        g_rand_free(d.rand);
    }
}

/* What the README promises of memory. */
static void test_sizes(void)
{
    static uint64_t entries[512];
    for (unsigned i = 0; i < 512; i++) {
        entries[i] = ((uint64_t)(i + 5) << 16) | QCOW2_COPIED;
    }
    L2Slice *s = l2_form_new(entries, 16, 9, true);
    g_assert_cmpint(s->form, ==, L2_EXTENTS);
    g_assert_cmpint(s->nb, ==, 1);
    g_assert_cmpuint(l2_form_bytes(s, 9), ==, 48);
    uint64_t entry;
    g_assert_cmpuint(l2_form_run(s, 16, 9, 100, 1000, &entry), ==, 412);
    g_assert_cmphex(entry, ==, entries[100]);
    l2_form_free(s);

    for (unsigned i = 0; i < 512; i++) {
        entries[i] = ((uint64_t)(i * 37 % 512 + 5) << 16) | QCOW2_COPIED;
    }
    s = l2_form_new(entries, 16, 9, true);
    g_assert_cmpint(s->form, ==, L2_ARRAY32);
    g_assert_cmpuint(l2_form_bytes(s, 9), ==, 2048 + 32);
    l2_form_free(s);
}

/* The reach of array32, at its edge. */
static void test_reach(void)
{
    static uint64_t entries[512];
    for (unsigned i = 0; i < 512; i++) {
        entries[i] = ((uint64_t)(i * 37 % 512 + 5) << 16) | QCOW2_COPIED;
    }
    L2Slice *s = l2_form_new(entries, 16, 9, true);
    uint64_t last = ((UINT64_C(1) << 30) - 2) << 16;
    s = l2_form_set(s, 16, 9, 7, last | QCOW2_COPIED | QCOW2_ZERO);
    g_assert_cmpint(s->form, ==, L2_ARRAY32);
    g_assert_cmphex(l2_form_get(s, 16, 7), ==, last | QCOW2_COPIED | QCOW2_ZERO);
    s = l2_form_set(s, 16, 9, 7, (last + 65536) | QCOW2_COPIED | QCOW2_ZERO);
    g_assert_cmpint(s->form, ==, L2_FULL64);
    g_assert_cmphex(l2_form_get(s, 16, 7), ==, (last + 65536) | QCOW2_COPIED | QCOW2_ZERO);
    g_assert_cmphex(l2_form_get(s, 16, 8), ==, entries[8]);
    l2_form_free(s);
}

/* An invalid entry keeps its mark in every form. */
static void test_invalid(void)
{
    static uint64_t entries[512];
    for (unsigned scatter = 0; scatter < 3; scatter++) {
        memset(entries, 0, sizeof(entries));
        for (unsigned i = 0; i < 512 && scatter; i++) {
            entries[i] = ((uint64_t)(i * 37 % 512 + 5) << 16) | QCOW2_COPIED;
        }
        entries[3] = entries[4] = QCOW2_ENTRY_INVALID;
        entries[5] = scatter == 2 ? QCOW2_COMPRESSED | 12345 : entries[5];
        L2Slice *s = l2_form_new(entries, 16, 9, true);
        g_assert_cmpint(s->form, ==, (int)scatter);
        for (unsigned i = 0; i < 512; i++) {
            g_assert_cmphex(l2_form_get(s, 16, i), ==, entries[i]);
        }
        l2_form_free(s);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/map/form/random", test_random);
    g_test_add_func("/qcow2/map/form/sizes", test_sizes);
    g_test_add_func("/qcow2/map/form/reach", test_reach);
    g_test_add_func("/qcow2/map/form/invalid", test_invalid);
    return g_test_run();
}
