/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the two halves of the simulated machine share (sim-disk.h says what it promises). */
#ifndef TESTS_SIM_SIM_PRIVATE_H
#define TESTS_SIM_SIM_PRIVATE_H

#include "tests/sim/sim-disk.h"

struct SimHost {
    Loop *loop;
    GRand *rand;
    SimTraits traits;
    SimFaults faults;
    ListLink pending; /* Pending.link, the next one due first */
    LoopWork work;
    uint64_t now, steps, nb_failed;
    uint64_t clock; /* counts completions of changes */
    void (*step)(void *opaque);
    void *step_opaque;
};

/* A change that no sync has covered yet. Completed ones stand in order of completion,
 * then those in flight. */
typedef struct Change {
    ListLink link;
    bool truncate;
    bool sure;          /* durable, though kept here; FUA makes it so once complete */
    bool lost;          /* a buffered sync failed: no later one covers it (Q13) */
    uint64_t completed; /* the host's clock then; 0: in flight */
    uint64_t offset;    /* or the new size */
    uint64_t len;
    uint8_t *data; /* NULL: zeros */
} Change;

typedef struct Pending {
    ListLink link;
    uint64_t due;
    SimDisk *disk;
    DiskOp *op;
    Change *change;
    uint64_t sync_point; /* of a sync: the clock when it was submitted */
    Coroutine *sleeper;
} Pending;

struct SimDisk {
    SimHost *host;
    char *name;
    uint8_t *now, *durable;
    uint64_t max_size, now_size, durable_size;
    uint8_t *used; /* a byte per block: takes space */
    uint64_t nb_used;
    ListLink changes;
    void (*frozen)(void *opaque, const char *what);
    void *frozen_opaque;
    unsigned nb_open;
};

/* ---- sim-disk.c ---- */
/* A change begins: it is in flight. */
Change *sim_record(SimDisk *d, const DiskOp *op);
void sim_complete_change(SimDisk *d, Change *c);
/* It failed; some of it happened. */
void sim_fail_change(SimDisk *d, Change *c);
/* @odds: of each granule to be there; 1: all of it. */
void sim_apply(const SimDisk *d, const Change *c, uint8_t *image, uint64_t *size, GRand *rand,
               double odds);
/* A sync that began at @sync_point succeeded; one failed. */
void sim_make_durable(SimDisk *d, uint64_t sync_point);
void sim_lose_dirty_pages(SimDisk *d);
/* Opened anew: what a failed sync lost is read from the disk again, old or new. */
void sim_forget_lost_pages(SimDisk *d);
/* False: the file system is full. */
bool sim_take_room(SimDisk *d, const DiskOp *op);

#endif
