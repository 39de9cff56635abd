/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The image that a world begins with, as another program left it after a long life: data in
 * any order, zero and compressed clusters, free clusters with old bytes in them, bitmaps,
 * feature bits that nobody here knows.  On bare bytes, by the specification, without the
 * driver under test.
 *
 * spec: qcow2, "Header", "Bitmaps extension", "L2 table entry", "Refcounts"; a compressed
 * cluster is raw deflate with a window of 4 KiB.
 */
#include <string.h>
#include <zlib.h>

#include "block/base/endian.h"
#include "block/qcow2/format.h"
#include "tests/sim/sim.h"
#include "tests/sim/tag.h"

#define UNKNOWN_AUTOCLEAR (UINT64_C(1) << 9)

typedef struct Encoder {
    const Config *cfg;
    GRand *rand;
    uint8_t *data;
    uint32_t *counts; /* per cluster */
    uint64_t max, next; /* clusters */
    unsigned bits;
    uint64_t l1, l1_size;
    uint64_t packed, packed_end; /* room in a host cluster for compressed data */
    uint64_t directory, directory_size;
    uint64_t rt, rt_clusters;
} Encoder;

static uint64_t size_of(const Encoder *e)
{
    return UINT64_C(1) << e->bits;
}

static be64 *word_at(Encoder *e, uint64_t offset)
{
    return (be64 *)(e->data + offset);
}

static bool chance(Encoder *e, unsigned percent)
{
    return (unsigned)g_rand_int_range(e->rand, 0, 100) < percent;
}

/* Old bytes of a guest in a cluster that is free. */
static void leave_garbage(Encoder *e)
{
    for (uint64_t at = 0; at < size_of(e); at += 512) {
        uint32_t sector = (uint32_t)g_rand_int_range(e->rand, 0, 5000);
        tag_fill(e->data + (e->next << e->bits) + at, sector, 1, TAG_BACKING | 0x3fffffff);
    }
    e->next++;
}

/* The host offset of @n clusters in a row; what is behind the limit fails the seed. */
static uint64_t take(Encoder *e, uint64_t n)
{
    while (e->next + n + 1 < e->max / 2 && chance(e, e->cfg->start_gaps)) {
        leave_garbage(e);
    }
    g_assert(e->next + n <= e->max);
    for (uint64_t i = 0; i < n; i++) {
        e->counts[e->next + i] = 1;
    }
    e->next += n;
    return (e->next - n) << e->bits;
}

/* ---- guest clusters ---- */

/* Where @len bytes of compressed data go; counts what they touch. Several share a cluster
 * where counts are wide enough. */
static uint64_t take_packed(Encoder *e, uint64_t len)
{
    bool share = e->cfg->refcount_order >= 4;
    if (!share || e->packed + len > e->packed_end) {
        uint64_t more = share ? 2 : 1; /* the last one may lie across two */
        e->packed = take(e, more);
        e->packed_end = e->packed + (more << e->bits);
        for (uint64_t i = 0; i < more; i++) {
            e->counts[(e->packed >> e->bits) + i] = 0;
        }
    }
    uint64_t at = e->packed, end = (at + len + 511) & ~UINT64_C(511); /* in whole sectors */
    for (uint64_t i = at >> e->bits; i <= (end - 1) >> e->bits; i++) {
        e->counts[i]++;
    }
    e->packed += len;
    return at;
}

/* The L2 entry of a compressed cluster; 0: it does not get smaller. */
static uint64_t compress_cluster(Encoder *e, const uint8_t *plain)
{
    z_stream strm = {0};
    g_autofree uint8_t *out = g_malloc(size_of(e));
    if (deflateInit2(&strm, Z_BEST_SPEED, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
        return 0;
    }
    strm.next_in = (Bytef *)plain;
    strm.avail_in = (uInt)size_of(e);
    strm.next_out = out;
    strm.avail_out = (uInt)size_of(e) - 1;
    bool ok = deflate(&strm, Z_FINISH) == Z_STREAM_END;
    uint64_t len = strm.total_out;
    deflateEnd(&strm);
    if (!ok) {
        return 0;
    }
    uint64_t at = take_packed(e, len);
    memcpy(e->data + at, out, len);
    unsigned x = 62 - (e->bits - 8);
    uint64_t more_sectors = ((at & 511) + len + 511) / 512 - 1;
    return QCOW2_COMPRESSED | more_sectors << x | at;
}

/* An entry for data that is in @plain. */
static uint64_t store(Encoder *e, const uint8_t *plain)
{
    uint64_t entry = 0;
    if (chance(e, e->cfg->start_compressed)) {
        entry = compress_cluster(e, plain);
    }
    if (!entry) {
        uint64_t at = take(e, 1);
        memcpy(e->data + at, plain, size_of(e));
        entry = at | QCOW2_COPIED;
    }
    return entry;
}

/* The entry of guest cluster @cluster; what it shows goes to @stamps. */
static uint64_t encode_cluster(Encoder *e, uint64_t cluster, uint32_t *stamps)
{
    uint32_t per = (uint32_t)(size_of(e) / 512), first = (uint32_t)cluster * per;
    uint32_t n = MIN(per, e->cfg->nb_sectors - first);

    if (!chance(e, e->cfg->start_filled)) {
        return 0;
    }
    if (!e->cfg->v2 && chance(e, 15)) {
        memset(stamps + first, 0, n * sizeof(*stamps));
        if (!g_rand_boolean(e->rand)) {
            return QCOW2_ZERO;
        }
        uint64_t at = take(e, 1); /* with a cluster that keeps what it had */
        memset(e->data + at, 0x77, size_of(e));
        return at | QCOW2_COPIED | QCOW2_ZERO;
    }
    g_autofree uint8_t *plain = g_malloc0(size_of(e));
    for (uint32_t i = 0; i < n; i++) {
        stamps[first + i] = chance(e, 80) ? TAG_START | (first + i) : 0;
        tag_fill(plain + i * 512, first + i, 1, stamps[first + i]);
    }
    return store(e, plain);
}

static void encode_guest(Encoder *e, uint32_t *stamps)
{
    uint64_t clusters = ((uint64_t)e->cfg->nb_sectors * 512 + size_of(e) - 1) >> e->bits;
    uint64_t per_table = size_of(e) / 8, table = 0;

    g_assert(per_table > 0);
    e->l1_size = (clusters + per_table - 1) / per_table + (chance(e, 50) ? 1 : 0);
    e->l1 = take(e, (e->l1_size * 8 + size_of(e) - 1) >> e->bits);
    for (uint64_t i = 0; i < clusters; i++) {
        if (i % per_table == 0) {
            table = 0;
        }
        uint64_t entry = encode_cluster(e, i, stamps);
        if (entry && !table) {
            table = take(e, 1);
            memset(e->data + table, 0, size_of(e));
            *word_at(e, e->l1 + i / per_table * 8) = be64_make(table | QCOW2_COPIED);
        }
        if (entry) {
            *word_at(e, table + i % per_table * 8) = be64_make(entry);
        }
    }
}

/* ---- bitmaps ---- */

static uint64_t encode_bitmap(Encoder *e, uint64_t at, unsigned number)
{
    uint64_t granularity = 9;
    uint64_t bytes = (((uint64_t)e->cfg->nb_sectors * 512 >> granularity) + 7) / 8;
    uint64_t entries = (bytes + size_of(e) - 1) >> e->bits;
    uint64_t table = take(e, (entries * 8 + size_of(e) - 1) >> e->bits);
    memset(e->data + table, 0, entries * 8);
    for (uint64_t i = 0; i < entries; i++) {
        if (g_rand_boolean(e->rand)) {
            uint64_t data = take(e, 1);
            memset(e->data + data, 0, size_of(e));
            e->data[data] = (uint8_t)number;
            *word_at(e, table + i * 8) = be64_make(data);
        }
    }
    Qcow2DiskBitmap disk = {
        .table_offset = be64_make(table),
        .table_size = be32_make((uint32_t)entries),
        .flags = be32_make(g_rand_boolean(e->rand) ? QCOW2_BITMAP_AUTO : 0),
        .type = 1,
        .granularity_bits = (uint8_t)granularity,
        .name_size = be16_make(2),
    };
    memcpy(e->data + at, &disk, sizeof(disk));
    e->data[at + sizeof(disk)] = 'b';
    e->data[at + sizeof(disk) + 1] = (uint8_t)('0' + number);
    return at + sizeof(disk) + 8;
}

static void encode_bitmaps(Encoder *e)
{
    if (!e->cfg->start_bitmaps) {
        return;
    }
    e->directory = take(e, 1);
    memset(e->data + e->directory, 0, size_of(e));
    uint64_t at = e->directory;
    for (unsigned i = 0; i < e->cfg->start_bitmaps; i++) {
        at = encode_bitmap(e, at, i);
    }
    e->directory_size = at - e->directory;
}

/* ---- counts, header ---- */

static void write_count(Encoder *e, uint8_t *block, uint64_t i, uint64_t count)
{
    unsigned width = 1u << e->cfg->refcount_order;
    if (width < 8) {
        block[i * width / 8] |= (uint8_t)(count << (i * width % 8));
    }
    for (unsigned b = width / 8; b > 0; b--) {
        block[i * (width / 8) + b - 1] = (uint8_t)count;
        count >>= 8;
    }
}

static void encode_counts(Encoder *e)
{
    uint64_t per_block = (UINT64_C(8) << e->bits) >> e->cfg->refcount_order;
    uint64_t blocks = 0, need, first;

    for (;;) {
        e->rt_clusters = MAX((blocks * 8 + size_of(e) - 1) >> e->bits, 1);
        need = (e->next + blocks + e->rt_clusters + per_block - 1) / per_block;
        if (need <= blocks) {
            break;
        }
        blocks = need;
    }
    g_assert(e->next + blocks + e->rt_clusters <= e->max);
    e->rt = e->next << e->bits;
    first = e->next + e->rt_clusters;
    for (uint64_t i = e->next; i < first + blocks; i++) {
        e->counts[i] = 1;
    }
    e->next = first + blocks;
    for (uint64_t i = 0; i < blocks; i++) {
        *word_at(e, e->rt + i * 8) = be64_make((first + i) << e->bits);
    }
    for (uint64_t i = 0; i < e->next; i++) {
        write_count(e, e->data + ((first + i / per_block) << e->bits), i % per_block,
                    e->counts[i]);
    }
}

static uint8_t *add_extension(uint8_t *at, uint32_t type, const void *data, uint32_t len)
{
    *(be32 *)at = be32_make(type);
    *(be32 *)(at + 4) = be32_make(len);
    memcpy(at + 8, data, len);
    return at + 8 + ((len + 7) & ~7u);
}

static void encode_header(Encoder *e)
{
    Qcow2DiskHeader *h = (void *)e->data;
    uint32_t length = e->cfg->v2 ? QCOW2_V2_HEADER_LENGTH
                      : chance(e, 50) ? QCOW2_V3_HEADER_LENGTH
                                      : (uint32_t)sizeof(*h);
    h->magic = be32_make(QCOW2_MAGIC);
    h->version = be32_make(e->cfg->v2 ? 2 : 3);
    h->cluster_bits = be32_make(e->bits);
    h->size = be64_make(e->cfg->nb_sectors * UINT64_C(512));
    h->l1_size = be32_make((uint32_t)e->l1_size);
    h->l1_table_offset = be64_make(e->l1);
    h->refcount_table_offset = be64_make(e->rt);
    h->refcount_table_clusters = be32_make((uint32_t)e->rt_clusters);
    uint8_t *at = e->data + length;
    if (!e->cfg->v2) {
        h->compatible_features = be64_make(chance(e, 30) ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0);
        h->autoclear_features =
            be64_make((chance(e, 50) ? UNKNOWN_AUTOCLEAR : 0) |
                      (e->cfg->start_bitmaps ? QCOW2_AUTOCLEAR_BITMAPS : 0));
        h->refcount_order = be32_make(e->cfg->refcount_order);
        h->header_length = be32_make(length);
    }
    if (e->cfg->start_bitmaps) {
        Qcow2DiskBitmapsExt ext = {.nb_bitmaps = be32_make(e->cfg->start_bitmaps),
                                   .directory_size = be64_make(e->directory_size),
                                   .directory_offset = be64_make(e->directory)};
        at = add_extension(at, QCOW2_EXT_BITMAPS, &ext, sizeof(ext));
    }
    if (e->cfg->base) {
        at = add_extension(at, QCOW2_EXT_BACKING_FORMAT, "raw", 3);
        h->backing_file_offset = be64_make((uint64_t)(at + 8 - e->data));
        h->backing_file_size = be32_make(4);
        memcpy(at + 8, "base", 4);
    }
}

uint8_t *start_image(const Config *cfg, GRand *rand, uint32_t *stamps, uint64_t *ret_len)
{
    Encoder e = {.cfg = cfg, .rand = rand, .bits = cfg->cluster_bits};
    e.max = cfg->max_file_bytes >> e.bits;
    e.data = g_malloc0(cfg->max_file_bytes);
    e.counts = g_new0(uint32_t, e.max);
    e.counts[0] = 1; /* the header */
    e.next = 1;
    for (uint32_t i = 0; i < cfg->start_garbage; i++) {
        leave_garbage(&e);
    }
    encode_guest(&e, stamps);
    encode_bitmaps(&e);
    encode_counts(&e);
    encode_header(&e);
    g_free(e.counts);
    *ret_len = e.next << e.bits;
    return e.data;
}

/* ---- what must have become of it ---- */

const char *start_image_wrong(const Config *cfg, const uint8_t *image)
{
    const Qcow2DiskHeader *h = (const void *)image;
    uint64_t autoclear = be64_get(h->autoclear_features);

    if (cfg->v2) {
        return NULL;
    }
    if (autoclear & ~(uint64_t)QCOW2_AUTOCLEAR_BITMAPS) {
        return "an unknown autoclear bit is still set (Q8)";
    }
    if (!cfg->start_bitmaps) {
        return NULL;
    }
    if (!autoclear) {
        return "the bitmaps are gone";
    }
    const uint8_t *at = image + be32_get(h->header_length);
    while (be32_get(*(const be32 *)at) != QCOW2_EXT_BITMAPS) {
        if (be32_get(*(const be32 *)at) == QCOW2_EXT_END) {
            return "the bitmaps extension is gone (Q9)";
        }
        at += 8 + ((be32_get(*(const be32 *)(at + 4)) + 7) & ~7u);
    }
    const Qcow2DiskBitmapsExt *ext = (const void *)(at + 8);
    const uint8_t *entry = image + be64_get(ext->directory_offset);
    for (unsigned i = 0; i < cfg->start_bitmaps; i++) {
        const Qcow2DiskBitmap *bitmap = (const void *)(entry + i * (sizeof(*bitmap) + 8));
        if (!(be32_get(bitmap->flags) & QCOW2_BITMAP_IN_USE)) {
            return "a bitmap is not marked in use (Q12)";
        }
    }
    return NULL;
}
