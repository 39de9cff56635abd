/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Internal snapshots, as another program takes them of an image that nobody writes to: on
 * bare bytes, by the specification, without the driver under test.
 *
 * spec: qcow2, "Snapshots": taking one copies the L1 table, adds a reference to everything
 * that it leads to, and takes the COPIED flags away.
 */
#include <string.h>

#include "block/base/endian.h"
#include "block/qcow2/format.h"
#include "tests/sim/sim.h"

#define MAX_SNAPSHOTS 6u /* of one file; counts of two bits hold two */

typedef struct Image {
    uint8_t *data;
    uint64_t len, max;
    unsigned bits, order;
    Qcow2DiskHeader *h;
} Image;

static uint64_t read64(const Image *im, uint64_t offset)
{
    return be64_get(*(const be64 *)(im->data + offset));
}

static void write64(Image *im, uint64_t offset, uint64_t value)
{
    *(be64 *)(im->data + offset) = be64_make(value);
}

/* ---- counts ---- */

/* The block and the index in it; false: there is no block. */
static bool find_count(const Image *im, uint64_t cluster, uint8_t **ret_block,
                       uint64_t *ret_index)
{
    uint64_t per_block = (UINT64_C(8) << im->bits) >> im->order;
    uint64_t entries = (uint64_t)be32_get(im->h->refcount_table_clusters) << im->bits >> 3;
    if (cluster / per_block >= entries) {
        return false;
    }
    uint64_t block = read64(im, be64_get(im->h->refcount_table_offset) +
                                    cluster / per_block * 8);
    *ret_block = im->data + block;
    *ret_index = cluster % per_block;
    return block != 0;
}

static bool get_count(const Image *im, uint64_t cluster, uint64_t *ret)
{
    unsigned width = 1u << im->order;
    uint8_t *block;
    uint64_t i;
    if (!find_count(im, cluster, &block, &i)) {
        return false;
    }
    *ret = 0;
    if (width < 8) {
        *ret = (block[i * width / 8] >> (i * width % 8)) & ((1u << width) - 1);
    }
    for (unsigned b = 0; b < width / 8; b++) {
        *ret = *ret << 8 | block[i * (width / 8) + b];
    }
    return true;
}

static bool set_count(Image *im, uint64_t cluster, uint64_t value)
{
    unsigned width = 1u << im->order;
    uint8_t *block;
    uint64_t i;
    if (!find_count(im, cluster, &block, &i) || (width < 64 && value >> width)) {
        return false;
    }
    if (width < 8) {
        uint8_t mask = (uint8_t)(((1u << width) - 1) << (i * width % 8));
        uint8_t *byte = &block[i * width / 8];
        *byte = (uint8_t)((*byte & ~mask) | value << (i * width % 8));
    }
    for (unsigned b = width / 8; b > 0; b--) {
        block[i * (width / 8) + b - 1] = (uint8_t)value;
        value >>= 8;
    }
    return true;
}

static bool add_reference(Image *im, uint64_t offset)
{
    uint64_t count;
    return get_count(im, offset >> im->bits, &count) &&
           set_count(im, offset >> im->bits, count + 1);
}

/* @bytes of new clusters at the end of the file; 0: not possible. */
static uint64_t append(Image *im, uint64_t bytes)
{
    uint64_t size = UINT64_C(1) << im->bits;
    uint64_t first = (im->len + size - 1) >> im->bits, n = (bytes + size - 1) >> im->bits;
    for (uint64_t i = first; i < first + n; i++) {
        uint64_t count;
        if ((i + 1) << im->bits > im->max || !get_count(im, i, &count) || count ||
            !set_count(im, i, 1)) {
            return 0;
        }
    }
    im->len = (first + n) << im->bits;
    return first << im->bits;
}

/* ---- the snapshot ---- */

/* A reference to each cluster that the compressed data touches, sector by sector. */
static bool share_compressed(Image *im, uint64_t entry)
{
    unsigned x = 62 - (im->bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << x) - 1);
    uint64_t sectors = ((entry & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> x) + 1;
    uint64_t last = ((offset & ~UINT64_C(511)) + sectors * 512 - 1) >> im->bits;
    for (uint64_t i = offset >> im->bits; i <= last; i++) {
        if (!add_reference(im, i << im->bits)) {
            return false;
        }
    }
    return true;
}

static bool share_table(Image *im, uint64_t table)
{
    for (uint64_t i = 0; i < UINT64_C(1) << (im->bits - 3); i++) {
        uint64_t entry = read64(im, table + i * 8);
        uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;
        if (entry & QCOW2_COMPRESSED) {
            if (!share_compressed(im, entry)) {
                return false;
            }
            continue;
        }
        if (offset && !add_reference(im, offset)) {
            return false;
        }
        write64(im, table + i * 8, entry & ~QCOW2_COPIED);
    }
    return true;
}

static bool share_tables(Image *im)
{
    uint64_t l1 = be64_get(im->h->l1_table_offset);
    for (uint32_t i = 0; i < be32_get(im->h->l1_size); i++) {
        uint64_t entry = read64(im, l1 + i * 8);
        uint64_t table = entry & QCOW2_L1_OFFSET_MASK;
        if (table && (!add_reference(im, table) || !share_table(im, table))) {
            return false;
        }
        write64(im, l1 + i * 8, entry & ~QCOW2_COPIED);
    }
    return true;
}

#define ENTRY_BYTES (sizeof(Qcow2DiskSnapshot) + 16 + 8) /* extra data; id and name */

static bool write_table(Image *im, uint64_t l1_copy)
{
    uint32_t old = be32_get(im->h->nb_snapshots);
    uint64_t table = append(im, (old + 1) * ENTRY_BYTES);
    if (!table) {
        return false;
    }
    memcpy(im->data + table, im->data + be64_get(im->h->snapshots_offset),
           old * ENTRY_BYTES);
    uint8_t *at = im->data + table + old * ENTRY_BYTES;
    Qcow2DiskSnapshot snap = {
        .l1_table_offset = be64_make(l1_copy),
        .l1_size = im->h->l1_size,
        .id_size = be16_make(1),
        .name_size = be16_make(1),
        .extra_data_size = be32_make(16),
    };
    memset(at, 0, ENTRY_BYTES);
    memcpy(at, &snap, sizeof(snap));
    memcpy(at + sizeof(snap) + 8, &im->h->size, 8); /* the disk's size then */
    at[sizeof(snap) + 16] = at[sizeof(snap) + 17] = (uint8_t)('1' + old);
    if (old && !set_count(im, be64_get(im->h->snapshots_offset) >> im->bits, 0)) {
        return false;
    }
    im->h->nb_snapshots = be32_make(old + 1);
    im->h->snapshots_offset = be64_make(table);
    return true;
}

static bool take(Image *im, uint64_t *ret_l1)
{
    uint64_t bytes = (uint64_t)be32_get(im->h->l1_size) * 8;
    /* One cluster holds the table of snapshots, also in the smallest images. */
    if (be32_get(im->h->nb_snapshots) >= (im->order == 1 ? 2 : MAX_SNAPSHOTS) ||
        im->order == 0 || be32_get(im->h->version) < 3 || /* v2 could not be resized */
        MAX_SNAPSHOTS * ENTRY_BYTES > UINT64_C(1) << im->bits || !share_tables(im)) {
        return false;
    }
    uint64_t copy = append(im, bytes);
    if (!copy || !write_table(im, copy)) {
        return false;
    }
    memcpy(im->data + copy, im->data + be64_get(im->h->l1_table_offset), bytes);
    *ret_l1 = copy;
    return true;
}

bool internal_snapshot(SimDisk *disk, InternalSnapshot *ret)
{
    uint64_t len;
    const uint8_t *contents = sim_disk_contents(disk, &len);
    uint64_t max = len + 1024 * 1024;
    g_autofree uint8_t *data = g_malloc0(max);
    memcpy(data, contents, len);
    Image im = {.data = data, .len = len, .max = max, .h = (Qcow2DiskHeader *)data};
    im.bits = be32_get(im.h->cluster_bits);
    im.order = be32_get(im.h->version) < 3 ? 4 : be32_get(im.h->refcount_order);
    if (!take(&im, &ret->l1_offset)) {
        return false;
    }
    ret->l1_size = be32_get(im.h->l1_size);
    sim_disk_foreign_write(disk, 0, data, im.len);
    return true;
}

void internal_snapshot_go(SimDisk *disk, const InternalSnapshot *snap, uint64_t size)
{
    be64 field64 = be64_make(snap->l1_offset), size64 = be64_make(size);
    be32 field32 = be32_make(snap->l1_size);
    sim_disk_foreign_write(disk, offsetof(Qcow2DiskHeader, size), &size64, 8);
    sim_disk_foreign_write(disk, offsetof(Qcow2DiskHeader, l1_size), &field32, 4);
    sim_disk_foreign_write(disk, offsetof(Qcow2DiskHeader, l1_table_offset), &field64, 8);
}
