/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making an empty qcow2 image: header, refcount table, one refcount block or more, and an
 * L1 table of zeros, laid out one after the other.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/base/error.h"
#include "block/create.h"
#include "block/qcow2/qcow2.h"

typedef struct Layout {
    uint64_t cluster_size;
    unsigned cluster_bits, order;
    uint64_t rt_offset, rt_clusters;
    uint64_t rb_offset, rb_clusters;
    uint64_t l1_offset, l1_clusters;
    uint32_t l1_size;
    uint64_t end;
} Layout;

static bool make_layout(Layout *l, const BlockdevCreateOptionsQcow2 *o, GError **errp)
{
    uint64_t cluster = o->has_cluster_size ? o->cluster_size : 65536;
    if (!is_power_of_two(cluster) || cluster < 512 || cluster > 2 * MiB) {
        error_set(errp, "Cluster size must be a power of two between 512 and 2048k");
        return false;
    }
    uint64_t bits = o->has_refcount_bits ? o->refcount_bits : 16;
    if (!is_power_of_two(bits) || bits > 64) {
        error_set(errp, "Refcount width must be a power of two and may not exceed 64 bits");
        return false;
    }
    l->cluster_size = cluster;
    l->cluster_bits = (unsigned)__builtin_ctzll(cluster);
    l->order = (unsigned)__builtin_ctzll(bits);
    uint64_t l1 = div_round_up(o->size, cluster * (cluster / 8));
    if (l1 > QCOW2_MAX_L1_BYTES / 8) {
        error_set(errp, "Image size too large for file format with this cluster size");
        return false;
    }
    l->l1_size = (uint32_t)l1;
    l->l1_clusters = div_round_up(l1 * 8, cluster); /* none for a disk of no bytes */
    uint64_t per_block = cluster * 8 / bits;
    l->rb_clusters = 1;
    l->rt_clusters = 1;
    for (;;) { /* the blocks count themselves too */
        uint64_t all = 1 + l->rt_clusters + l->rb_clusters + l->l1_clusters;
        uint64_t blocks = div_round_up(all, per_block);
        uint64_t table = div_round_up(blocks * 8, cluster);
        if (blocks <= l->rb_clusters && table <= l->rt_clusters) {
            break;
        }
        l->rb_clusters = max_u64(blocks, l->rb_clusters);
        l->rt_clusters = max_u64(table, l->rt_clusters);
    }
    l->rt_offset = cluster;
    l->rb_offset = l->rt_offset + l->rt_clusters * cluster;
    l->l1_offset = l->rb_offset + l->rb_clusters * cluster;
    l->end = l->l1_offset + l->l1_clusters * cluster;
    return true;
}

static size_t put_extension(uint8_t *at, uint32_t type, const void *data, size_t len)
{
    Qcow2DiskExtension ext = {be32_make(type), be32_make((uint32_t)len)};
    memcpy(at, &ext, sizeof(ext));
    memcpy(at + sizeof(ext), data, len);
    return sizeof(ext) + round_up(len, 8);
}

static const Qcow2DiskFeatureName feature_names[] = {
    {0, 0, "dirty bit"},          {0, 1, "corrupt bit"}, {0, 2, "external data file"},
    {0, 3, "compression type"},   {0, 4, "extended L2 entries"},
    {1, 0, "lazy refcounts"},     {2, 0, "bitmaps"},     {2, 1, "raw external data"},
};

static bool fill_header(uint8_t *buf, const Layout *l, const BlockdevCreateOptionsQcow2 *o,
                        GError **errp)
{
    bool v3 = !o->has_version || o->version == BLOCKDEV_QCOW2_VERSION_V3;
    Qcow2DiskHeader *h = (Qcow2DiskHeader *)buf;
    size_t pos = v3 ? QCOW2_V3_HEADER_LENGTH + 8 : QCOW2_V2_HEADER_LENGTH;

    h->magic = be32_make(QCOW2_MAGIC);
    h->version = be32_make(v3 ? 3 : 2);
    h->cluster_bits = be32_make(l->cluster_bits);
    h->size = be64_make(o->size);
    h->l1_size = be32_make(l->l1_size);
    h->l1_table_offset = be64_make(l->l1_size ? l->l1_offset : 0);
    h->refcount_table_offset = be64_make(l->rt_offset);
    h->refcount_table_clusters = be32_make((uint32_t)l->rt_clusters);
    if (v3) {
        bool lazy = o->has_lazy_refcounts && o->lazy_refcounts;
        h->compatible_features = be64_make(lazy ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0);
        h->refcount_order = be32_make(l->order);
        h->header_length = be32_make((uint32_t)pos);
    }
    if (o->has_backing_fmt) {
        const char *fmt = BlockdevDriver_str(o->backing_fmt);
        pos += put_extension(buf + pos, QCOW2_EXT_BACKING_FORMAT, fmt, strlen(fmt));
    }
    if (v3 && pos + sizeof(feature_names) + 16 + 1024 <= l->cluster_size) {
        pos += put_extension(buf + pos, QCOW2_EXT_FEATURE_NAMES, feature_names,
                             sizeof(feature_names));
    }
    pos += sizeof(Qcow2DiskExtension); /* the end marker is zeros */
    if (o->backing_file) {
        size_t len = strlen(o->backing_file);
        if (len > QCOW2_MAX_BACKING_NAME || pos + len > l->cluster_size) {
            error_set(errp, "Backing file name too long");
            return false;
        }
        memcpy(buf + pos, o->backing_file, len);
        h->backing_file_offset = be64_make(pos);
        h->backing_file_size = be32_make((uint32_t)len);
    }
    return true;
}

/* One reference to each of the first @n clusters. */
static void fill_counts(uint8_t *block, unsigned order, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        unsigned width = 1u << order;
        if (width < 8) {
            block[i * width / 8] |= (uint8_t)(1 << (i * width % 8));
        } else {
            block[(i + 1) * (width / 8) - 1] = 1; /* big-endian one */
        }
    }
}

static bool check_options(const BlockdevCreateOptionsQcow2 *o, GError **errp)
{
    bool v2 = o->has_version && o->version == BLOCKDEV_QCOW2_VERSION_V2;
    if (o->size % 512) {
        error_set(errp, "Image size must be a multiple of 512 bytes");
        return false;
    }
    if (o->size > INT64_MAX - 511) {
        error_set(errp, "Image size must be less than 8 EiB!");
        return false;
    }
    if (v2 && o->has_refcount_bits && o->refcount_bits != 16) {
        error_set(errp, "Different refcount widths than 16 bits require compatibility level "
                        "1.1 or above (use version=v3 or greater)");
        return false;
    }
    if (v2 && o->has_lazy_refcounts && o->lazy_refcounts) {
        error_set(errp, "Lazy refcounts only supported with compatibility level 1.1 and "
                        "above (use version=v3 or greater)");
        return false;
    }
    if (o->has_backing_fmt && !o->backing_file) {
        error_set(errp, "Backing format cannot be used without backing file");
        return false;
    }
    if (o->has_preallocation && o->preallocation != PREALLOC_MODE_OFF && o->backing_file) {
        error_set(errp, "Backing file and preallocation can only be used at the same time if "
                        "extended_l2 is on");
        return false;
    }
    if (o->data_file || (o->has_data_file_raw && o->data_file_raw)) {
        error_set(errp, "Images with an external data file are not supported yet");
        return false;
    }
    if (o->has_extended_l2 && o->extended_l2) {
        error_set(errp, "Images with extended L2 entries are not supported yet");
        return false;
    }
    if (o->has_compression_type && o->compression_type != QCOW2_COMPRESSION_TYPE_ZLIB) {
        error_set(errp, "qcow2: compression type zstd is not supported yet");
        return false;
    }
    return true;
}

static int coroutine_fn write_image(BlockNode *file, const uint8_t *buf, const Layout *l)
{
    int ret = 0;
    if (!node_co_truncate(file, 0, NULL) && node_grows_with_zeros(file)) {
        return -EIO;
    }
    if (!node_co_truncate(file, l->end, NULL)) {
        return -ENOSPC;
    }
    if (!node_grows_with_zeros(file)) {
        ret = node_co_write_zeroes(file, l->l1_offset, l->end - l->l1_offset, 0);
    }
    if (ret == 0) { /* order: the header last; until then this is no image */
        ret = node_co_write_buf(file, l->rt_offset, l->l1_offset - l->rt_offset,
                                buf + l->rt_offset, 0);
    }
    if (ret == 0) {
        ret = node_co_flush(file);
    }
    if (ret == 0) {
        ret = node_co_write_buf(file, 0, l->cluster_size, buf, 0);
    }
    return ret == 0 ? node_co_flush(file) : ret;
}

bool coroutine_fn qcow2_co_create_on(BlockNode *file, const BlockdevCreateOptionsQcow2 *o,
                                     GError **errp)
{
    Layout l = {0};
    if (!check_options(o, errp) || !make_layout(&l, o, errp)) {
        return false;
    }
    uint8_t *buf = disk_buffer_try_alloc(4096, max_u64(l.l1_offset, 4096));
    if (!buf) {
        error_set_errno(errp, ENOMEM, "Could not create qcow2 image");
        return false;
    }
    memset(buf, 0, l.l1_offset);
    bool ok = fill_header(buf, &l, o, errp);
    if (ok) {
        be64 *rt = (be64 *)(buf + l.rt_offset);
        for (uint64_t i = 0; i < l.rb_clusters; i++) {
            rt[i] = be64_make(l.rb_offset + i * l.cluster_size);
        }
        fill_counts(buf + l.rb_offset, l.order, l.end >> l.cluster_bits);
        int ret = write_image(file, buf, &l);
        if (ret < 0) {
            error_set_errno(errp, ret, "Could not create qcow2 image");
            ok = false;
        }
    }
    disk_buffer_free(buf);
    return ok;
}
