/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a disk may say after a crash: per sector, the values that are allowed.
 *
 * Every write stamps its sectors with a number of its own.  A sector has a *floor* (what
 * the last covering flush made durable: one value, or two after a discard) and the stamps
 * written since; after a crash any of them is right, and nothing else.
 */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define MODEL_SECTOR 512u

typedef struct Model Model;

/* @initial: the stamp of each sector, or NULL for zeros. */
Model *model_new(uint32_t nb_sectors, const uint32_t *initial);
uint32_t model_new_stamp(Model *m);

/* May this range be used now? Ranges in use never overlap, so that reads have one answer. */
bool model_lock(Model *m, uint32_t first, uint32_t count);
void model_unlock(Model *m, uint32_t first, uint32_t count);

/* A write begins, and ends. A failed one may have happened in part. */
void model_write_begin(Model *m, uint32_t first, uint32_t count, uint32_t stamp);
void model_write_end(Model *m, uint32_t first, uint32_t count, uint32_t stamp, bool ok);
/* A discard: afterwards the old contents or zeros. */
void model_discard_begin(Model *m, uint32_t first, uint32_t count);
void model_discard_end(Model *m, uint32_t first, uint32_t count);
/* A flush begins: a token; it succeeded: everything that had ended by then is durable. */
uint64_t model_flush_begin(Model *m);
void model_flush_end(Model *m, uint64_t token);

/* Is @stamp what a read may see now / after a crash? */
bool model_read_ok(const Model *m, uint32_t sector, uint32_t stamp);
bool model_crash_ok(const Model *m, uint32_t sector, uint32_t stamp);
char *model_describe(const Model *m, uint32_t sector);

#endif
