/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scenarios: the mix of operations, the geometry and the faults that a seed draws from.
 *
 * "random" has everything; each of the others makes one kind of turn common: the race or
 * the crash behind a mistake that somebody made once (safety.md).  Everything is small, so
 * that requests meet: clusters of 512 bytes to 4 KiB, few of them hot, a cache of a few
 * slices, windows of a few clusters.
 */
#include <string.h>

#include "tests/sim/sim.h"

#define WEIGHTS(w, r, z, d, f)                                                         \
    .weights = {[OP_WRITE] = (w), [OP_READ] = (r), [OP_ZERO] = (z), [OP_DISCARD] = (d), \
                [OP_FLUSH] = (f)}
#define SMALL                                                                          \
    .cluster_bits = {9, 12}, .clusters = {16, 200}, .refcount_order = {0, 6},            \
    .workers = {2, 10}, .ops = {30, 120}, .hot = {2, 6}, .whole = 30, .wide = 3,          \
    .slow_one_in = {4, 12}, .slow_factor = {10, 60}, .window = {1, 12},                  \
    .l2_slices = {1, 6}
/* Few clusters, all of them hot, small windows: what is freed comes back at once. */
#define CROWDED                                                                        \
    .cluster_bits = {9, 10}, .clusters = {8, 24}, .refcount_order = {3, 5},              \
    .workers = {6, 12}, .ops = {80, 160}, .hot = {4, 8}, .whole = 50, .wide = 2,          \
    .slow_one_in = {6, 10}, .slow_factor = {40, 120}, .window = {1, 3},                  \
    .l2_slices = {2, 6}

static const Scenario scenarios[] = {
    {"random", "everything", WEIGHTS(44, 14, 8, 9, 8), SMALL, .capture_slices = {0, 3},
     .dropped_clusters = {0, 20}, .copy_sectors = {0, 8}, .base = 50, .no_flush = 15,
     .v2 = 20, .no_punch = 15, .buffered = 40, .align = 40, .write_faults = 15,
     .sync_faults = 15, .read_faults = 8, .full = 10, .device = 10},
    {"commands", "snapshot, commit, relink, resize, reopen, rebase between requests",
     .weights = {[OP_WRITE] = 40, [OP_READ] = 10, [OP_ZERO] = 6, [OP_DISCARD] = 8,
                 [OP_FLUSH] = 5, [OP_SNAPSHOT] = 6, [OP_RELINK] = 5, [OP_REOPEN] = 3,
                 [OP_RESIZE] = 4, [OP_REBASE] = 4, [OP_LEND] = 4},
     SMALL, .base = 40, .no_flush = 15, .v2 = 15, .buffered = 50, .align = 40},
    {"two-disks", "two disks of one process, on one base: requests, commands, jobs",
     .weights = {[OP_WRITE] = 44, [OP_READ] = 12, [OP_ZERO] = 6, [OP_DISCARD] = 8,
                 [OP_FLUSH] = 8, [OP_SNAPSHOT] = 4, [OP_RELINK] = 3, [OP_REOPEN] = 3,
                 [OP_RESIZE] = 3, [OP_REBASE] = 3, [OP_LEND] = 3, [OP_CREATE] = 3},
     SMALL, .base = 70, .no_flush = 10, .v2 = 10, .buffered = 40, .align = 40,
     .second = 100, .start = 20, .filled = {20, 90}, .compressed = {0, 80}},
    {"two-disks-faults", "the same on storage that fails",
     .weights = {[OP_WRITE] = 50, [OP_READ] = 10, [OP_ZERO] = 6, [OP_DISCARD] = 8,
                 [OP_FLUSH] = 8, [OP_SNAPSHOT] = 4, [OP_REOPEN] = 3, [OP_RESIZE] = 4,
                 [OP_LEND] = 3, [OP_CREATE] = 4},
     SMALL, .base = 70, .buffered = 50, .second = 100, .write_faults = 60,
     .sync_faults = 60, .read_faults = 30},
    {"commands-faults", "the same on storage that fails",
     .weights = {[OP_WRITE] = 40, [OP_READ] = 10, [OP_ZERO] = 6, [OP_DISCARD] = 8,
                 [OP_FLUSH] = 5, [OP_SNAPSHOT] = 5, [OP_RELINK] = 3, [OP_REOPEN] = 4,
                 [OP_RESIZE] = 5, [OP_LEND] = 3},
     SMALL, .base = 40, .buffered = 50, .align = 30, .write_faults = 60,
     .sync_faults = 60, .read_faults = 30},
    {"order", "many new clusters, flushes between: what must be durable before what",
     WEIGHTS(70, 4, 0, 4, 10), SMALL, .base = 50, .align = 30, .cut_one_in = {16, 64}},
    {"order-tables", "a large empty disk: new tables and refcount blocks all the time",
     WEIGHTS(80, 4, 0, 2, 12), .cluster_bits = {9, 9}, .clusters = {1500, 3500},
     .refcount_order = {5, 6}, .workers = {3, 10}, .ops = {60, 140}, .hot = {0, 0},
     .whole = 20, .wide = 3, .slow_one_in = {4, 10}, .slow_factor = {10, 60},
     .window = {2, 24}, .l2_slices = {1, 6}, .base = 30, .align = 30, .no_punch = 30,
     .cut_one_in = {12, 40}},
    {"order-reused", "new tables in clusters that were used and cannot be punched",
     WEIGHTS(5, 2, 50, 20, 23), .cluster_bits = {9, 9}, .clusters = {2500, 4500},
     .refcount_order = {3, 6}, .workers = {2, 6}, .ops = {60, 120}, .hot = {0, 0},
     .whole = 90, .wide = 4, .slow_one_in = {3, 8}, .slow_factor = {30, 120},
     .window = {60, 200}, .l2_slices = {2, 6}, .no_punch = 100, .start = 100,
     .filled = {0, 0}, .garbage = {150, 300}, .cut_one_in = {10, 24}},
    {"copy", "copy-on-write: neighbours in one cluster, requests over several",
     .weights = {[OP_WRITE] = 80, [OP_READ] = 10, [OP_ZERO] = 2, [OP_FLUSH] = 3,
                 [OP_SNAPSHOT] = 5},
     .cluster_bits = {10, 12}, .clusters = {16, 60},
     .refcount_order = {4, 4}, .workers = {6, 14}, .ops = {60, 120}, .hot = {2, 8},
     .whole = 10, .spans = 60, .wide = 4, .slow_one_in = {2, 6}, .slow_factor = {20, 80},
     .window = {4, 24}, .l2_slices = {1, 4}, .copy_sectors = {0, 1}, .base = 100},
    {"copy-wide", "long copies of several clusters, in files that are new all the time",
     .weights = {[OP_WRITE] = 88, [OP_READ] = 3, [OP_FLUSH] = 2, [OP_SNAPSHOT] = 7},
     .cluster_bits = {12, 12}, .clusters = {10, 20}, .refcount_order = {4, 4},
     .workers = {10, 16}, .ops = {80, 140}, .hot = {0, 0}, .whole = 0, .spans = 95,
     .wide = 2, .slow_one_in = {3, 6}, .slow_factor = {20, 60}, .window = {16, 40},
     .l2_slices = {1, 4}, .copy_sectors = {1, 1}, .base = 100},
    {"copy-order", "copies in large windows: the data before its entry",
     WEIGHTS(78, 2, 0, 4, 16), .cluster_bits = {10, 12}, .clusters = {30, 100},
     .refcount_order = {4, 4}, .workers = {2, 8}, .ops = {60, 120}, .hot = {0, 4},
     .whole = 5, .wide = 2, .slow_one_in = {4, 12}, .slow_factor = {10, 60},
     .window = {100, 200}, .l2_slices = {2, 6}, .base = 100, .cut_one_in = {16, 40}},
    {"discard", "discard and zero against copies and writes of the same cluster",
     WEIGHTS(45, 10, 18, 18, 9), CROWDED, .base = 30, .dropped_clusters = {0, 6}},
    {"discard-zero", "zeroed clusters that keep their place, written and discarded at once",
     WEIGHTS(40, 4, 32, 22, 6), .cluster_bits = {10, 10}, .clusters = {8, 16},
     .refcount_order = {3, 5}, .workers = {8, 14}, .ops = {120, 200}, .hot = {0, 0},
     .whole = 20, .wide = 1, .slow_one_in = {2, 5}, .slow_factor = {40, 120},
     .window = {1, 3}, .l2_slices = {2, 6}, .slow_data = 100, .base = 100},
    {"reuse", "what is let go of comes back at once: grace periods, quarantine, punches",
     WEIGHTS(48, 14, 10, 20, 14), CROWDED, .dropped_clusters = {1, 3}, .no_punch = 50},
    {"reuse-early", "the same, with seldom a flush: what the disk still refers to",
     WEIGHTS(52, 4, 16, 22, 3), .cluster_bits = {9, 10}, .clusters = {8, 24},
     .refcount_order = {3, 5}, .workers = {2, 5}, .ops = {100, 200}, .hot = {4, 8},
     .whole = 60, .wide = 1, .slow_one_in = {30, 60}, .slow_factor = {2, 10},
     .window = {1, 2}, .l2_slices = {2, 6}, .cut_one_in = {16, 48}},
    {"reuse-slow", "the same, with requests that take very long: grace periods",
     WEIGHTS(60, 10, 8, 24, 14), .cluster_bits = {9, 9}, .clusters = {8, 16},
     .refcount_order = {3, 5}, .workers = {8, 14}, .ops = {200, 300}, .hot = {0, 0},
     .whole = 80, .wide = 1, .slow_one_in = {2, 4}, .slow_factor = {100, 300},
     .window = {1, 2}, .l2_slices = {4, 8}, .dropped_clusters = {1, 2}, .slow_data = 100,
     .cut_one_in = {80, 160}},
    {"allocate", "many allocations at once, from small windows",
     WEIGHTS(80, 4, 2, 10, 4), CROWDED, .capture_slices = {0, 1}},
    {"full", "a file system that is full, and has room again",
     .weights = {[OP_WRITE] = 70, [OP_READ] = 6, [OP_ZERO] = 6, [OP_DISCARD] = 6,
                 [OP_FLUSH] = 8, [OP_ROOM] = 1},
     .cluster_bits = {9, 11}, .clusters = {200, 1500}, .refcount_order = {4, 6},
     .workers = {2, 8}, .ops = {60, 140}, .hot = {0, 0}, .whole = 40, .wide = 4,
     .slow_one_in = {4, 12}, .slow_factor = {10, 40}, .window = {1, 12},
     .l2_slices = {1, 6}, .full = 100, .base = 30},
    {"fua", "writes that are durable when they are done, seldom a flush",
     WEIGHTS(84, 4, 2, 6, 3), .cluster_bits = {9, 10}, .clusters = {12, 100},
     .refcount_order = {3, 5}, .workers = {1, 5}, .ops = {60, 140}, .hot = {2, 6},
     .whole = 30, .wide = 2, .fua = 50, .slow_one_in = {4, 12}, .slow_factor = {10, 60},
     .window = {4, 24}, .l2_slices = {2, 6}, .base = 30, .no_flush = 10, .buffered = 30,
     .start = 40, .filled = {20, 95}, .snapshot = 20, .sync_faults = 20,
     .write_faults = 10, .cut_one_in = {12, 48}},
    {"failed-writes", "requests that fail, on clusters that are in use",
     WEIGHTS(55, 8, 26, 3, 6), CROWDED, .write_faults = 100, .write_odds = {20, 150},
     .base = 30},
    {"failed-syncs", "syncs that fail, on buffered and direct files",
     WEIGHTS(60, 4, 4, 6, 26), SMALL, .sync_faults = 100, .buffered = 50, .base = 30},
    {"failed-epochs", "flushes that fail and are tried again, on direct files",
     WEIGHTS(60, 2, 2, 2, 34), .cluster_bits = {9, 9}, .clusters = {400, 1500},
     .refcount_order = {4, 6}, .workers = {2, 5}, .ops = {60, 140}, .hot = {0, 0},
     .whole = 40, .wide = 3, .slow_one_in = {4, 12}, .slow_factor = {10, 60},
     .window = {2, 24}, .l2_slices = {2, 6}, .sync_faults = 100, .write_faults = 40,
     .write_odds = {5, 40}, .base = 30, .cut_one_in = {16, 60}},
    {"last-writer", "snapshots: a file that has lost its last writer is finished",
     .weights = {[OP_WRITE] = 60, [OP_READ] = 6, [OP_ZERO] = 5, [OP_DISCARD] = 8,
                 [OP_FLUSH] = 4, [OP_SNAPSHOT] = 14},
     SMALL, .base = 30},
    {"write-again", "reopened and resized: what others changed is read again",
     .weights = {[OP_WRITE] = 60, [OP_READ] = 6, [OP_ZERO] = 4, [OP_DISCARD] = 8,
                 [OP_FLUSH] = 4, [OP_SNAPSHOT] = 8, [OP_RELINK] = 8, [OP_REOPEN] = 5},
     SMALL, .base = 30},
    {"layers", "reads through layers that come, go and change their length",
     .weights = {[OP_WRITE] = 40, [OP_READ] = 60, [OP_ZERO] = 4, [OP_DISCARD] = 6,
                 [OP_FLUSH] = 2, [OP_SNAPSHOT] = 8, [OP_RELINK] = 8, [OP_RESIZE] = 3},
     .cluster_bits = {9, 10}, .clusters = {12, 60}, .refcount_order = {4, 4},
     .workers = {2, 6}, .ops = {120, 240}, .hot = {0, 3}, .whole = 40, .wide = 4,
     .slow_one_in = {6, 12}, .slow_factor = {10, 40}, .window = {1, 12},
     .l2_slices = {2, 2}, .base = 60, .cut_one_in = {200, 400}},
    {"lend", "others write to the file while we do not, and take internal snapshots",
     .weights = {[OP_WRITE] = 70, [OP_READ] = 6, [OP_ZERO] = 4, [OP_DISCARD] = 6,
                 [OP_FLUSH] = 8, [OP_LEND] = 8, [OP_RESIZE] = 1},
     SMALL, .base = 40, .cut_one_in = {16, 60}},
    {"shared-tables", "internal snapshots: L2 tables are copied",
     .weights = {[OP_WRITE] = 4, [OP_READ] = 2, [OP_ZERO] = 35, [OP_DISCARD] = 30,
                 [OP_FLUSH] = 28, [OP_LEND] = 1},
     .cluster_bits = {9, 9}, .clusters = {1000, 2000}, .refcount_order = {3, 5},
     .workers = {1, 4}, .ops = {60, 120}, .hot = {0, 0}, .whole = 80, .wide = 2,
     .slow_one_in = {4, 12}, .slow_factor = {10, 40}, .window = {100, 300},
     .l2_slices = {2, 8}, .snapshots_only = true, .start = 100, .filled = {20, 50},
     .snapshot = 100, .cut_one_in = {10, 24}},
    {"rebase", "another program rewrites the first cluster of a live leaf",
     .weights = {[OP_WRITE] = 70, [OP_READ] = 2, [OP_FLUSH] = 6, [OP_REBASE] = 10,
                 [OP_RESIZE] = 5, [OP_REOPEN] = 2},
     .cluster_bits = {9, 10}, .clusters = {100, 1200}, .refcount_order = {6, 6},
     .workers = {2, 8}, .ops = {60, 120}, .hot = {0, 2}, .whole = 40, .wide = 6,
     .slow_one_in = {4, 12}, .slow_factor = {10, 40}, .window = {4, 24},
     .l2_slices = {1, 6}, .base = 40, .align = 40},
    {"rebase-stock", "the same by stock qemu-img rebase -u",
     .weights = {[OP_WRITE] = 80, [OP_READ] = 2, [OP_FLUSH] = 8, [OP_REBASE] = 4,
                 [OP_RESIZE] = 3, [OP_REOPEN] = 2},
     .cluster_bits = {9, 12}, .clusters = {100, 600}, .refcount_order = {4, 6},
     .workers = {2, 8}, .ops = {40, 80}, .hot = {0, 2}, .whole = 40, .wide = 6,
     .slow_one_in = {4, 12}, .slow_factor = {10, 40}, .window = {4, 24},
     .l2_slices = {1, 6}, .base = 40, .v2 = 20, .align = 40, .stock_rebase = true},
    {"resize", "growing and shrinking",
     .weights = {[OP_WRITE] = 60, [OP_READ] = 16, [OP_ZERO] = 5, [OP_DISCARD] = 5,
                 [OP_FLUSH] = 6, [OP_RESIZE] = 20},
     .cluster_bits = {10, 12}, .clusters = {16, 80}, .refcount_order = {0, 6},
     .workers = {2, 10}, .ops = {60, 140}, .hot = {2, 6}, .whole = 30, .wide = 3,
     .slow_one_in = {4, 12}, .slow_factor = {10, 60}, .window = {1, 12},
     .l2_slices = {1, 6}, .base = 60},
    {"resize-failed", "the same on storage that fails: which L1 table does the disk name?",
     .weights = {[OP_WRITE] = 64, [OP_READ] = 2, [OP_ZERO] = 4, [OP_DISCARD] = 4,
                 [OP_FLUSH] = 16, [OP_RESIZE] = 9},
     .cluster_bits = {9, 9}, .clusters = {400, 1500}, .refcount_order = {4, 4},
     .workers = {1, 4}, .ops = {60, 140}, .hot = {0, 0}, .whole = 40, .wide = 3,
     .slow_one_in = {4, 12}, .slow_factor = {10, 60}, .window = {20, 80},
     .l2_slices = {1, 6}, .write_faults = 40, .write_odds = {5, 60}, .sync_faults = 100,
     .base = 30, .cut_one_in = {16, 60}},
    {"table-moves", "a device whose refcount table is full, on storage that fails",
     WEIGHTS(74, 2, 2, 2, 12), .cluster_bits = {9, 9}, .clusters = {5990, 6020},
     .refcount_order = {6, 6}, .workers = {2, 8}, .ops = {80, 140}, .hot = {0, 0},
     .whole = 40, .wide = 10, .slow_one_in = {4, 12}, .slow_factor = {10, 60},
     .window = {2, 24}, .l2_slices = {1, 6}, .write_faults = 80, .write_odds = {20, 200},
     .sync_faults = 80, .device = 100, .start = 100, .filled = {70, 70},
     .cut_one_in = {40, 120}},
    {"start", "images of other programs: compressed, bitmaps, unknown features, snapshots",
     WEIGHTS(50, 16, 8, 16, 8), SMALL, .dropped_clusters = {0, 10}, .start = 100,
     .filled = {20, 95}, .compressed = {20, 90}, .gaps = {0, 30}, .garbage = {0, 8},
     .bitmaps = 40, .snapshot = 40, .base = 50, .no_flush = 10, .v2 = 15, .no_punch = 15,
     .buffered = 40, .align = 40, .device = 10},
    {"start-commands", "the same with commands, and others at work",
     .weights = {[OP_WRITE] = 45, [OP_READ] = 10, [OP_ZERO] = 6, [OP_DISCARD] = 10,
                 [OP_FLUSH] = 5, [OP_SNAPSHOT] = 4, [OP_RELINK] = 3, [OP_REOPEN] = 3,
                 [OP_REBASE] = 4, [OP_LEND] = 5},
     SMALL, .start = 100, .filled = {20, 95}, .compressed = {20, 90}, .gaps = {0, 30},
     .garbage = {0, 8}, .bitmaps = 50, .snapshot = 30, .base = 50, .v2 = 10, .align = 40},
    {"geometry", "large clusters, up to 2 MiB, of all refcount widths",
     WEIGHTS(50, 12, 8, 10, 10), .cluster_bits = {13, 21}, .clusters = {2, 8},
     .refcount_order = {0, 6}, .workers = {2, 8}, .ops = {20, 50}, .hot = {1, 4},
     .whole = 10, .wide = 2, .slow_one_in = {4, 12}, .slow_factor = {10, 60},
     .window = {1, 4}, .l2_slices = {1, 6}, .base = 50, .v2 = 10, .buffered = 40,
     .align = 40, .start = 50, .filled = {20, 90}, .compressed = {0, 80}, .gaps = {0, 20},
     .snapshot = 30, .cut_one_in = {30, 120}},
    {"tight", "a device that holds less than the guest writes; what it discards makes room",
     WEIGHTS(40, 60, 0, 30, 0), .cluster_bits = {9, 9}, .clusters = {10, 24},
     .refcount_order = {3, 5}, .workers = {10, 20}, .ops = {300, 500}, .hot = {0, 0},
     .whole = 80, .wide = 1, .slow_one_in = {2, 4}, .slow_factor = {300, 900},
     .window = {1, 3}, .l2_slices = {4, 8}, .device = 100, .base = 20, .no_punch = 30,
     .slow_data = 100, .tight = {40, 80}, .cut_one_in = {80, 160}},
    {"device", "a block device: fixed size, somebody else's bytes in it",
     WEIGHTS(55, 14, 8, 8, 8), SMALL, .device = 100, .base = 40, .no_punch = 40},
};

const Scenario *scenario_at(unsigned i)
{
    return i < G_N_ELEMENTS(scenarios) ? &scenarios[i] : NULL;
}

const Scenario *scenario_find(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(scenarios); i++) {
        if (strcmp(scenarios[i].name, name) == 0) {
            return &scenarios[i];
        }
    }
    return NULL;
}

/* ---- drawing ---- */

static uint32_t draw(GRand *rand, Range r)
{
    return r.max > r.min ? (uint32_t)g_rand_int_range(rand, (gint32)r.min, (gint32)r.max + 1)
                         : r.min;
}

static bool chance(GRand *rand, unsigned percent)
{
    return (unsigned)g_rand_int_range(rand, 0, 100) < percent;
}

static void draw_traits(const Scenario *s, GRand *rand, SimTraits *ret)
{
    ret->direct = !chance(rand, s->buffered);
    ret->block_device = chance(rand, s->device);
    ret->no_punch = chance(rand, s->no_punch);
    ret->align = chance(rand, s->align) ? 512 : 1;
    ret->granule = chance(rand, 30) ? 4096 : 512;
    ret->slow_one_in = draw(rand, s->slow_one_in);
    ret->slow_factor = draw(rand, s->slow_factor);
    ret->slow_data = chance(rand, s->slow_data);
}

static void draw_faults(const Scenario *s, GRand *rand, const Config *cfg, SimFaults *ret)
{
    Range odds = s->write_odds.max ? s->write_odds : (Range){1, 40};
    ret->write_odds = chance(rand, s->write_faults) ? draw(rand, odds) / 1000.0 : 0;
    ret->sync_odds = chance(rand, s->sync_faults) ? 0.2 * g_rand_double(rand) : 0;
    ret->read_odds = chance(rand, s->read_faults) ? 0.02 * g_rand_double(rand) : 0;
    if (chance(rand, s->full)) {
        uint32_t clusters = (cfg->nb_sectors * 512 >> cfg->cluster_bits) / 2 + 24;
        clusters = MIN(clusters, 200);
        ret->capacity = (uint64_t)draw(rand, (Range){20, clusters}) << cfg->cluster_bits;
    }
}

static void draw_knobs(const Scenario *s, GRand *rand, const Config *cfg, BlockKnobs *ret)
{
    uint32_t slice = MIN(1u << cfg->cluster_bits, 4096u);
    ret->window_clusters = draw(rand, s->window);
    ret->dropped_bytes = (uint64_t)draw(rand, s->dropped_clusters) << cfg->cluster_bits;
    ret->capture_bytes = (uint64_t)draw(rand, s->capture_slices) * slice;
    ret->copy_piece = (uint64_t)draw(rand, s->copy_sectors) * 512;
    ret->grow_step = (uint64_t)draw(rand, (Range){1, 64}) << cfg->cluster_bits;
    ret->flat_hops = ret->flat_settle = 1;
    /* a page, and some slices in their narrow forms; or room for whole tables */
    ret->l2_budget = cfg->l2_slices % 4 == 2 ? 0
                                             : 700 + cfg->l2_slices * (cfg->l2_slices % 2 ? 64 : 400);
}

#define TIGHT_METADATA 8 /* clusters, at least what an empty image takes */

static void draw_start(const Scenario *s, GRand *rand, Config *ret)
{
    ret->start = chance(rand, s->start);
    ret->start_filled = draw(rand, s->filled);
    ret->start_compressed = draw(rand, s->compressed);
    ret->start_gaps = draw(rand, s->gaps);
    ret->start_garbage = draw(rand, s->garbage);
    ret->start_bitmaps = !ret->v2 && chance(rand, s->bitmaps) ? draw(rand, (Range){1, 3}) : 0;
    ret->start_snapshot = !ret->traits.block_device && chance(rand, s->snapshot);
}

void scenario_draw(const Scenario *s, GRand *rand, Config *ret)
{
    ret->cluster_bits = draw(rand, s->cluster_bits);
    uint32_t per_cluster = (1u << ret->cluster_bits) / 512;
    ret->nb_sectors = draw(rand, s->clusters) * per_cluster;
    if (chance(rand, 50)) { /* the last cluster is a part */
        ret->nb_sectors -= (uint32_t)g_rand_int_range(rand, 0, (gint32)per_cluster);
    }
    ret->v2 = chance(rand, s->v2);
    ret->refcount_order = ret->v2 ? 4 : draw(rand, s->refcount_order);
    ret->workers = draw(rand, s->workers);
    ret->base = chance(rand, s->base);
    ret->no_flush = chance(rand, s->no_flush);
    ret->l2_slices = draw(rand, s->l2_slices);
    ret->cut_one_in = draw(rand, s->cut_one_in.max ? s->cut_one_in : (Range){8, 80});
    if (sim_options.cut_more) {
        ret->cut_one_in = MAX(ret->cut_one_in / 4, 2);
    }
    ret->nb_hot = MIN(draw(rand, s->hot), G_N_ELEMENTS(ret->hot));
    for (uint32_t i = 0; i < ret->nb_hot; i++) {
        uint32_t clusters = MAX(ret->nb_sectors / per_cluster, 1);
        /* close to each other as often as not */
        ret->hot[i] = i && g_rand_boolean(rand)
                          ? (ret->hot[i - 1] + 1) % clusters
                          : (uint32_t)g_rand_int_range(rand, 0, (gint32)clusters);
    }
    draw_traits(s, rand, &ret->traits);
    draw_faults(s, rand, ret, &ret->faults);
    draw_knobs(s, rand, ret, &ret->knobs);
    ret->max_file_bytes = MAX(UINT64_C(8) << 20, UINT64_C(48) << ret->cluster_bits);
    ret->image_bytes = ret->max_file_bytes;
    if (s->tight.max) {
        uint64_t clusters = ret->nb_sectors / per_cluster * (uint64_t)draw(rand, s->tight) / 100;
        ret->tight = true;
        ret->image_bytes = (clusters + TIGHT_METADATA) << ret->cluster_bits;
    }
    if (s->start) {
        draw_start(s, rand, ret);
    }
    ret->second = chance(rand, s->second);
}

/* ---- operations ---- */

static OpKind draw_kind(const Scenario *s, GRand *rand)
{
    int sum = 0, kind = 0;
    for (int i = 0; i < OP_NB; i++) {
        sum += (int)s->weights[i];
    }
    int at = g_rand_int_range(rand, 0, sum);
    while (at >= (int)s->weights[kind]) {
        at -= (int)s->weights[kind++];
    }
    return (OpKind)kind;
}

static void draw_range(const Scenario *s, GRand *rand, const Config *cfg, SimOp *op)
{
    uint32_t per = (1u << cfg->cluster_bits) / 512;
    uint32_t clusters = MAX(cfg->nb_sectors / per, 1);
    bool hot = cfg->nb_hot && !chance(rand, 25);
    uint32_t cluster = hot ? cfg->hot[g_rand_int_range(rand, 0, (gint32)cfg->nb_hot)]
                           : (uint32_t)g_rand_int_range(rand, 0, (gint32)clusters);
    if (chance(rand, s->whole) || ((op->kind == OP_DISCARD || op->kind == OP_ZERO) &&
                                   chance(rand, 70))) {
        op->first = cluster * per;
        op->count = per * draw(rand, (Range){1, s->wide});
    } else {
        op->first = cluster * per + (uint32_t)g_rand_int_range(rand, 0, (gint32)per);
        op->count = (uint32_t)g_rand_int_range(rand, 1, (gint32)MAX(per, 2));
        if (chance(rand, s->spans ? s->spans : 20)) {
            op->count += per * draw(rand, (Range){1, s->wide});
        }
    }
    op->first = MIN(op->first, cfg->nb_sectors - 1);
    op->count = MIN(op->count, cfg->nb_sectors - op->first);
}

GArray *scenario_ops(const Scenario *s, GRand *rand, const Config *cfg)
{
    GArray *ops = g_array_new(FALSE, TRUE, sizeof(SimOp));
    uint32_t n = draw(rand, s->ops);
    for (uint32_t i = 0; i < n; i++) {
        SimOp op = {.kind = draw_kind(s, rand)};
        draw_range(s, rand, cfg, &op);
        op.fua = chance(rand, s->fua ? s->fua : 10);
        op.unmap = chance(rand, 50);
        op.quiet = chance(rand, 50);
        op.arg = (uint32_t)g_rand_int_range(rand, (gint32)cfg->nb_sectors / 2 + 1,
                                            2 * (gint32)cfg->nb_sectors);
        op.second = cfg->second && g_rand_boolean(rand);
        g_array_append_val(ops, op);
    }
    return ops;
}

char *op_describe(const SimOp *op)
{
    static const char *const names[OP_NB] = {"write", "read", "zero", "discard", "flush",
                                             "snapshot", "relink", "reopen", "resize",
                                             "rebase", "lend", "create", "room"};
    if (op->kind == OP_RESIZE) {
        return g_strdup_printf("resize to %u", op->arg);
    }
    if (op->kind >= OP_FLUSH) {
        return g_strdup_printf("%s%s", names[op->kind],
                               op->kind == OP_SNAPSHOT && op->quiet ? " quiet" : "");
    }
    return g_strdup_printf("%s %u+%u%s%s", names[op->kind], op->first, op->count,
                           op->fua && op->kind != OP_READ ? " fua" : "",
                           op->kind == OP_ZERO && op->unmap ? " unmap" : "");
}
