/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parts of the crash simulation and what they share.
 *
 *    scenario.c   what may happen: geometry, mix of operations, faults
 *    world.c      one machine: its disks, graph and port; opening and closing
 *    start-image.c  the image it begins with, when another program has made that
 *    workload.c   the guest's requests and the client's commands, executed
 *    foreign.c    what other programs do to the files meanwhile
 *    internal.c   internal snapshots, taken by another program
 *    verify.c     after a power cut, or a clean close: is everything as promised?
 *    seed.c       one seed: one world, power cuts along its way
 *    shrink.c     the shortest list of operations that still fails
 *    prove.c      every rule switched off must be noticed
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "block/break.h"
#include "block/job/job.h"
#include "block/node.h"
#include "block/port.h"
#include "tests/sim/model.h"
#include "tests/sim/sim-disk.h"

#define MAX_FILES 8u

typedef enum OpKind {
    OP_WRITE,
    OP_READ,
    OP_ZERO,
    OP_DISCARD,
    OP_FLUSH,
    OP_SNAPSHOT,
    OP_RELINK, /* an external commit, then relink-chain */
    OP_REOPEN,
    OP_RESIZE,
    OP_REBASE, /* another program rewrites the first cluster */
    OP_LEND,   /* writing stops; others write, or take an internal snapshot; it goes on */
    OP_CREATE, /* a job makes an image that has nothing to do with the disk */
    OP_ROOM,   /* somebody frees space on the file system */
    OP_NB,
} OpKind;

typedef struct SimOp {
    OpKind kind;
    uint32_t first, count; /* sectors */
    uint32_t arg;
    bool fua, unmap, quiet;
    bool second; /* for the second disk, where there is one */
} SimOp;

/* A range a number is drawn from, both ends included. */
typedef struct Range {
    uint32_t min, max;
} Range;

typedef struct Scenario {
    const char *name;
    const char *about;
    unsigned weights[OP_NB];
    Range cluster_bits, clusters, refcount_order, workers, ops;
    Range hot;          /* clusters that most requests go to */
    unsigned whole;     /* percent of requests that cover whole clusters */
    unsigned spans;     /* percent of the others that cover several; 0: 20 */
    unsigned wide;      /* clusters that a request may cover */
    unsigned fua;       /* percent of writes; 0: 10 */
    Range slow_one_in, slow_factor;
    Range window, l2_slices, capture_slices, dropped_clusters, copy_sectors;
    /* percent of the seeds that have it */
    unsigned base, no_flush, v2, device, no_punch, buffered, align;
    unsigned slow_data;
    unsigned write_faults, sync_faults, read_faults, full;
    unsigned start;     /* begin with an image of another program: */
    Range filled, compressed, gaps; /* percent of its clusters */
    Range garbage;      /* free clusters with old bytes */
    unsigned bitmaps, snapshot; /* percent of those images */
    unsigned second;    /* another disk in the same process */
    Range tight;        /* of the disk's clusters so many percent fit on its device; 0: all */
    Range write_odds; /* of those that have faults: permille of the operations */
    Range cut_one_in; /* steps */
    bool snapshots_only; /* what others do when they are lent the file */
    bool stock_rebase; /* by qemu-img, where there is one */
} Scenario;

/* Where an internal snapshot's tables are. */
typedef struct InternalSnapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
} InternalSnapshot;

/* What one seed drew from its scenario. */
typedef struct Config {
    uint32_t cluster_bits, nb_sectors, refcount_order, workers, hot[16], nb_hot;
    uint32_t l2_slices, cut_one_in;
    bool base, no_flush, v2, second;
    bool start, start_snapshot;
    uint32_t start_filled, start_compressed, start_gaps; /* percent */
    uint32_t start_garbage, start_bitmaps;
    uint64_t max_file_bytes;
    uint64_t image_bytes; /* what an image's file or device may have */
    bool tight; /* that is less than the guest may write */
    SimTraits traits;
    SimFaults faults;
    BlockKnobs knobs;
} Config;

typedef struct World World;
struct World {
    const Scenario *scenario;
    uint32_t seed;
    Config cfg;
    GArray *ops; /* SimOp */
    guint next_op;
    Loop *loop;
    Graph *graph;
    SimHost *host;
    SimDisk *base;
    SimDisk *files[MAX_FILES];
    bool frozen[MAX_FILES];
    unsigned nb_files;
    uint8_t *start_bytes; /* the first image, when others made it; until it is opened */
    uint64_t start_len;
    unsigned chain[MAX_FILES], depth; /* files, the deepest first */
    BlockPort *port;
    Model *model;
    uint32_t size;     /* sectors that the disk has as far as we were told */
    GArray *sizes;     /* uint32_t: those it may have, after resizes that failed or go on */
    uint32_t generation, old_generation; /* that another program left in the header */
    uint32_t generation_file;
    char *backing_name; /* that stock's rebase put into the header of that file */
    /* the last internal snapshot: of this file, with these contents; NULL: none */
    InternalSnapshot internal;
    unsigned internal_file;
    uint8_t *internal_bytes;
    uint32_t internal_sectors;
    unsigned running; /* workers inside a request */
    bool hold;
    CoQueue changed; /* running or hold */
    CoMutex *control; /* one command at a time, whatever its disk */
    World *second; /* another disk of the same process: shares all but the files */
    const char *prefix;   /* of the names of its files, and of its port */
    BlockNode *shared_base; /* the base as both disks have it; NULL: each opens its own */
    JobRegistry *jobs;
    unsigned created;     /* file that a job has made; 0: none */
    unsigned nb_workers;
    bool resurrected; /* after the cut */
    uint64_t cut;     /* the step at which it came */
};

/* How to run; the same for all seeds. */
typedef struct SimOptions {
    bool verbose;
    bool stock;          /* ask qemu-img as well */
    bool silent;         /* do not say why a seed fails */
    int64_t only_cut;    /* cut at this step alone; -1: as the seed says */
    bool every_cut;      /* cut at each step */
    bool cut_more;       /* cut four times as often */
    const GArray *keep;  /* guint: only these operations; NULL: all */
} SimOptions;
extern SimOptions sim_options;

/* ---- scenario.c ---- */
const Scenario *scenario_find(const char *name);
const Scenario *scenario_at(unsigned i); /* NULL behind the last */
void scenario_draw(const Scenario *scenario, GRand *rand, Config *ret);
/* The operations of a seed: SimOp. */
GArray *scenario_ops(const Scenario *scenario, GRand *rand, const Config *cfg);
char *op_describe(const SimOp *op);

/* ---- world.c ---- */
void G_GNUC_NORETURN G_GNUC_PRINTF(2, 3) world_fail(const World *w, const char *fmt, ...);
World *world_new(const Scenario *scenario, uint32_t seed);
/* The first image, and opening it. */
void coroutine_fn world_co_begin(World *w);
/* A further file, with an image over the present chain. False and *errp on an I/O error. */
bool coroutine_fn world_co_create(World *w, unsigned *ret_file, GError **errp);
/* An image of no chain; one that was made stays there. */
bool coroutine_fn world_co_create_alone(World *w, unsigned *ret_file, GError **errp);
bool coroutine_fn world_co_open(World *w, bool read_only, GError **errp);
void coroutine_fn world_co_close(World *w);
BlockNode *coroutine_fn world_co_open_node(Graph *graph, JsonValue *options, GError **errp);
JsonValue *world_image_options(const World *w, unsigned file, bool read_only);
/* Another machine that finds what this one left behind. */
World *world_resurrect(World *w, GRand *rand, bool power_loss);
/* The lowest @depth files, each over the next. */
JsonValue *world_chain_options(const World *w, unsigned depth, bool read_only);
SimDisk *world_find_disk(World *w, const char *name);

/* ---- start-image.c ---- */
/* An image that another program wrote: *ret_len bytes in a buffer that holds the largest,
 * freed with g_free(). @stamps: what lies below; in return what the image shows. */
uint8_t *start_image(const Config *cfg, GRand *rand, uint32_t *stamps, uint64_t *ret_len);
/* What has not become of it since a writer came, as it must; NULL: all has. */
const char *start_image_wrong(const Config *cfg, const uint8_t *image);

/* ---- workload.c ---- */
/* Works through the operations with its companions; the last one closes and calls it a day. */
void coroutine_fn workload_worker(void *opaque);

/* ---- foreign.c ---- */
/* Merge the file at @level of the chain into the one below. False: an injected fault. */
bool coroutine_fn foreign_co_commit(World *w, unsigned level);
/* Rewrite the first cluster of the top file as another program does: all of it. */
void coroutine_fn foreign_co_rewrite_header(World *w);
/* The same by stock `qemu-img rebase -u`. */
void coroutine_fn foreign_co_stock_rebase(World *w);
/* The backing file that the header names: freed with g_free(), NULL if none. */
char *foreign_backing_name(const uint8_t *image, uint64_t len);
/* The generation that such a rewrite left, 0 if none. */
uint32_t foreign_generation(const uint8_t *image, uint64_t len);

/* Write a few sectors to the top file, which the daemon does not write to. */
bool coroutine_fn foreign_co_write(World *w, GRand *rand);
/* All that the chain up to the top reads as: freed with g_free(). */
uint8_t *coroutine_fn foreign_co_read_all(World *w);

/* ---- internal.c ---- */
/* False: this image has no room for one. */
bool internal_snapshot(SimDisk *disk, InternalSnapshot *ret);
/* Make the image one that shows this snapshot. */
void internal_snapshot_go(SimDisk *disk, const InternalSnapshot *snap, uint64_t size);

/* ---- verify.c ---- */
typedef enum VerifyHow {
    VERIFY_CUT,    /* corruption never, leaks perhaps; flushed bytes are there */
    VERIFY_CLOSED, /* nothing leaks, every byte is there */
    VERIFY_BELOW,  /* the same for what another program finds in a frozen file */
} VerifyHow;
/* In a process of its own; does not return when something is wrong. */
void verify_in_child(World *w, VerifyHow how, bool power_loss);

/* ---- seed.c ---- */
/* True: the seed passes. In a process of its own. */
bool seed_passes(const Scenario *scenario, uint32_t seed);

/* ---- shrink.c ---- */
void shrink_seed(const Scenario *scenario, uint32_t seed);

/* ---- prove.c ---- */
int prove_all(const char *only);

#endif
