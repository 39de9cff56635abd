/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A simulated disk under the real loop and block layer: a file in memory whose operations
 * complete late and in random order, and which can lose its power.
 *
 * What survives a power cut: everything covered by a completed sync; of every other write,
 * completed or still in flight, a random part, sector by sector. Two writes to the same
 * sector keep their order. What survives the death of the process: every completed write.
 */
#ifndef TESTS_SIM_SIM_DISK_H
#define TESTS_SIM_SIM_DISK_H

#include "block/aio/disk.h"

typedef struct SimDisk SimDisk;

/* @size bytes of zeros at first; at most @max_size. All randomness comes from @rand. */
SimDisk *sim_disk_new(Loop *loop, uint64_t max_size, GRand *rand);
/* A DiskFile on it; several may be open, and closing one leaves the disk as it is. */
DiskFile *sim_disk_open(SimDisk *disk, bool writable);
/* Put bytes there before the simulation begins, durably. */
void sim_disk_load(SimDisk *disk, const void *data, uint64_t len);

/* Fail the next operations with these odds (0..1) and -EIO or -ENOSPC. */
void sim_disk_set_faults(SimDisk *disk, double odds);
/* No operation completes any more. */
void sim_disk_cut_power(SimDisk *disk);
uint64_t sim_disk_nb_ops(const SimDisk *disk);
/* What a new machine finds: a copy of *ret_len bytes, freed with g_free(). */
uint8_t *sim_disk_survivors(SimDisk *disk, bool power_loss, uint64_t *ret_len);

#endif
