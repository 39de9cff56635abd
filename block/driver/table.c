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

/* spec: the magic numbers of the formats' own documentation (file(1) knows them as well) */
static const struct {
    const char *name;
    uint16_t offset;
    uint8_t len;
    char magic[20];
} foreign[] = {
    {"qcow", 0, 8, "QFI\xfb\0\0\0\1"},
    {"qed", 0, 4, {'Q', 'E', 'D', '\0'}},
    {"vmdk", 0, 4, "KDMV"},
    {"vmdk", 0, 4, "COWD"},
    {"vmdk", 0, 20, "# Disk DescriptorFil"},
    {"vdi", 64, 4, "\x7f\x10\xda\xbe"},
    {"vpc", 0, 8, "conectix"},
    {"vhdx", 0, 8, "vhdxfile"},
    {"luks", 0, 6, "LUKS\xba\xbe"},
    {"parallels", 0, 16, "WithoutFreeSpace"},
    {"parallels", 0, 16, "WithouFreSpacExt"},
};

const char *driver_probe_foreign(const uint8_t *head, size_t len)
{
    for (size_t i = 0; i < G_N_ELEMENTS(foreign); i++) {
        if ((size_t)foreign[i].offset + foreign[i].len <= len &&
            memcmp(head + foreign[i].offset, foreign[i].magic, foreign[i].len) == 0) {
            return foreign[i].name;
        }
    }
    return NULL;
}
