/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one table of drivers. */
#include "block/driver/table.h"

#include <string.h>

static const BlockDriver *const drivers[] = {
    &driver_blkdebug, &driver_file, &driver_host_device, &driver_null_aio, &driver_null_co,
    &driver_qcow2, &driver_raw,
};

const BlockDriver *driver_lookup(BlockdevDriver id)
{
    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        if (drivers[i]->qapi_id == id) {
            return drivers[i];
        }
    }
    return NULL;
}

const BlockDriver *driver_lookup_name(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        if (strcmp(drivers[i]->name, name) == 0) {
            return drivers[i];
        }
    }
    return NULL;
}

const BlockDriver *driver_probe(const uint8_t *head, size_t len)
{
    const BlockDriver *best = &driver_raw;
    int best_score = 1; /* anything can be raw */
    for (size_t i = 0; i < G_N_ELEMENTS(drivers); i++) {
        int score = drivers[i]->probe ? drivers[i]->probe(head, len) : 0;
        if (score > best_score) {
            best_score = score;
            best = drivers[i];
        }
    }
    return best;
}
