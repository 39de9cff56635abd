/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A simulated machine under the real loop and block layer: disks in memory, whose
 * operations end late, in any order, or badly, and which can lose their power; and a clock
 * of its own.
 *
 * H1 time is virtual: it moves to the next operation that is due, whatever its disk;
 * H2 what survives a power cut: all that a completed sync covers; of everything else, done
 *    or in flight, a random part, granule by granule (512 bytes or 4 KiB). Changes of the
 *    size keep their order;
 * H3 what survives the death of the process: every completed operation, and of those in
 *    flight a random part;
 * H4 all randomness comes from the host's generator: one seed, one history.
 */
#ifndef TESTS_SIM_SIM_DISK_H
#define TESTS_SIM_SIM_DISK_H

#include "block/aio/disk.h"

typedef struct SimHost SimHost;
typedef struct SimDisk SimDisk;

/* How the storage behaves; constant for a host. */
typedef struct SimTraits {
    bool direct;        /* O_DIRECT: a failed sync loses nothing */
    bool block_device;  /* fixed size, contents unknown */
    bool no_punch;      /* the file system can neither punch nor zero */
    uint32_t align;     /* of offsets and lengths */
    uint32_t granule;   /* tears: 512 or 4096 */
    unsigned slow_one_in; /* so many operations take long; 0: none */
    unsigned slow_factor; /* so much longer, at most */
    bool slow_data;       /* only writes of the guest's data do */
} SimTraits;

/* What goes wrong; may change at any time. Odds are 0..1 per operation. */
typedef struct SimFaults {
    double write_odds; /* writes, zeroes, punches, truncates: -EIO or -ENOSPC, in part done */
    double read_odds;  /* -EIO */
    double sync_odds;  /* -EIO */
    uint64_t capacity; /* bytes the disk has room for; 0: no limit */
} SimFaults;

SimHost *sim_host_new(Loop *loop, uint32_t seed, const SimTraits *traits);
/* @fn is called before each operation ends, on the thread's own stack: the moments at
 * which the power may be cut. */
void sim_host_set_step(SimHost *host, void (*fn)(void *opaque), void *opaque);
/* Operations ended so far. */
uint64_t sim_host_steps(const SimHost *host);
void sim_host_set_faults(SimHost *host, const SimFaults *faults);
/* Operations that were made to fail so far. */
uint64_t sim_host_nb_failed(const SimHost *host);
/* Sleep in virtual time; an operation takes 1..16. */
void coroutine_fn sim_co_sleep(SimHost *host, uint64_t ticks);

/* At most @max_size bytes, at first none; a block device has them all, as noise. */
SimDisk *sim_disk_new(SimHost *host, const char *name, uint64_t max_size);
/* A DiskFile on it; several may be open, and closing one leaves the disk as it is.
 * @foreign: by another program than the one under test. */
DiskFile *sim_disk_open(SimDisk *disk, bool writable, bool foreign);
const char *sim_disk_name(const SimDisk *disk);
/* Put bytes there, durably, as if they had always been there. */
void sim_disk_load(SimDisk *disk, const void *data, uint64_t len);
/* Take over what sim_disk_survivors() returned; this disk's power is never cut. */
void sim_disk_adopt(SimDisk *disk, uint8_t *image, uint64_t len);
/* The contents now: borrowed, *ret_len bytes of it. */
const uint8_t *sim_disk_contents(const SimDisk *disk, uint64_t *ret_len);
/* Another program writes and syncs, at once. */
void sim_disk_foreign_write(SimDisk *disk, uint64_t offset, const void *data, uint64_t len);
/* From now on the program under test may not write here; it is told on by @fn. */
void sim_disk_freeze(SimDisk *disk, void (*fn)(void *opaque, const char *what),
                     void *opaque);
/* What a new machine finds: a copy of *ret_len bytes in a buffer of the disk's maximum,
 * freed with g_free(). */
uint8_t *sim_disk_survivors(SimDisk *disk, GRand *rand, bool power_loss, uint64_t *ret_len);

#endif
