/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a disk may say: per sector the history of what was written, and by it the values
 * that a read may see now, and those that may be there after a crash.
 *
 * M1 every write has a stamp of its own, and a sector holds stamp and sector number
 *    (tag.h), so that a sector in the wrong place is seen as such;
 * M2 requests may overlap in range and time. Of two that overlapped in time either may have
 *    won. What ended before another began is hidden by it, if the other was sure to happen;
 * M3 a flush makes durable what had ended before it began. After a crash whatever a durable
 *    one hides is gone; of the rest anything goes.
 */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define STAMP_ANY UINT32_MAX /* allowed contents: whatever one likes */

typedef struct Model Model;

/* @initial: the stamp of each sector, or NULL for zeros. */
Model *model_new(uint32_t nb_sectors, const uint32_t *initial);
/* The first sectors as they were at first; freed with g_free(). */
uint8_t *model_contents(const Model *m, uint32_t nb_sectors);
/* Never 0, which stands for a sector of zeros. */
uint32_t model_new_stamp(Model *m);

/* A write of @stamp (0: zeros) begins: its serial. @sure false: even when it succeeds it
 * may not have happened (discard). */
uint32_t model_begin(Model *m, uint32_t first, uint32_t count, uint32_t stamp, bool sure);
/* It ended: successfully, durably. A failed one may have happened in part. */
void model_end(Model *m, uint32_t first, uint32_t count, uint32_t serial, bool ok,
               bool durable);
/* A flush begins: a token; it succeeded. */
uint64_t model_flush_begin(Model *m);
void model_flush_end(Model *m, uint64_t token);
/* What is not durable may be gone already: the storage lost it, and has said so. */
void model_doubt(Model *m);
/* A read begins; its token is for model_read_ok(), asked when it has ended. */
uint64_t model_read_begin(Model *m);

/* May this be seen by a read that began then? After a crash now? */
bool model_read_ok(const Model *m, uint32_t sector, uint32_t stamp, uint64_t began);
bool model_crash_ok(const Model *m, uint32_t sector, uint32_t stamp);
char *model_describe(const Model *m, uint32_t sector);

#endif
