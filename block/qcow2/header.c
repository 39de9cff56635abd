/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The header: reading it with every number taken for hostile, and writing single fields.
 *
 * Nothing ever rewrites the header as a whole: an external `rebase -u` may change it
 * behind our back (safety.md, Q9, Q12).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "block/base/error.h"
#include "block/break.h"
#include "block/qcow2/qcow2.h"

#ifdef QDP_BREAKS
static uint8_t sector_as_read[512]; /* of the last image whose header was read */

static int coroutine_fn write_stale_sector(Qcow2 *q, size_t offset, const void *field,
                                           size_t len)
{
    memcpy(sector_as_read + offset, field, len);
    return node_co_write_buf(q->file, 0, 512, sector_as_read, 0);
}
#else
#define write_stale_sector(q, offset, field, len) (-EIO)
#endif

int coroutine_fn header_co_write_field(Qcow2 *q, size_t offset, const void *field,
                                       size_t len)
{
    if (BROKEN(BREAK_Q9)) {
        return write_stale_sector(q, offset, field, len);
    }
    return node_co_write_buf(q->file, offset, len, field, 0);
}

void coroutine_fn qcow2_co_mark_corrupt(Qcow2 *q, int64_t offset, int64_t size,
                                        const char *fmt, ...)
{
    if (q->corrupt) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *msg = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    q->corrupt = true;
    if (q->version >= 3 && !q->node->read_only) {
        be64 field = be64_make(q->incompatible | QCOW2_INCOMPAT_CORRUPT);
        header_co_write_field(q, offsetof(Qcow2DiskHeader, incompatible_features), &field,
                              sizeof(field));
    }
    node_image_corrupted(q->node, true, offset, size, "%s", msg);
}

static bool check_numbers(Qcow2 *q, const Qcow2DiskHeader *h, GError **errp)
{
    if (be32_get(h->magic) != QCOW2_MAGIC) {
        error_set(errp, "Image is not in qcow2 format");
        return false;
    }
    uint32_t version = be32_get(h->version);
    if (version < 2 || version > 3) {
        error_set(errp, "Unsupported qcow2 version %" PRIu32, version);
        return false;
    }
    uint32_t bits = be32_get(h->cluster_bits);
    if (bits < QCOW2_MIN_CLUSTER_BITS || bits > QCOW2_MAX_CLUSTER_BITS) {
        error_set(errp, "Unsupported cluster size: 2^%" PRIu32, bits);
        return false;
    }
    q->version = (uint8_t)version;
    q->cluster_bits = (uint8_t)bits;
    q->cluster_size = UINT64_C(1) << bits;
    q->l2_bits = (uint8_t)(bits - 3);
    if (be32_get(h->crypt_method) > 2) {
        error_set(errp, "Unsupported encryption method %" PRIu32,
                  be32_get(h->crypt_method));
        return false;
    }
    if (be32_get(h->crypt_method) != 0) {
        error_set(errp, "Encrypted images (crypt_method %" PRIu32 ") are not supported yet",
                  be32_get(h->crypt_method));
        return false;
    }
    return true;
}

/* Version 3: features, refcount width, header length. */
static bool check_features(Qcow2 *q, const Qcow2DiskHeader *h, GError **errp)
{
    if (q->version == 2) {
        q->refcount_order = 4;
        q->header_length = QCOW2_V2_HEADER_LENGTH;
        return true;
    }
    q->incompatible = be64_get(h->incompatible_features);
    q->compatible = be64_get(h->compatible_features);
    q->autoclear = be64_get(h->autoclear_features);
    q->header_length = be32_get(h->header_length);
    uint32_t order = be32_get(h->refcount_order);
    if (q->header_length < QCOW2_V3_HEADER_LENGTH) {
        error_set(errp, "qcow2 header too short");
        return false;
    }
    if (q->header_length > q->cluster_size) {
        error_set(errp, "qcow2 header exceeds cluster size");
        return false;
    }
    if (order > 6) {
        error_set(errp, "Reference count entry width too large; may not exceed 64 bits");
        return false;
    }
    q->refcount_order = (uint8_t)order;
    return true;
}

/* The name that the image itself gives to an incompatible feature bit; caller frees. */
static char *feature_name(const uint8_t *head, size_t len, const Qcow2 *q, int bit)
{
    size_t pos = q->header_length;
    while (pos + sizeof(Qcow2DiskExtension) <= len) {
        const Qcow2DiskExtension *ext = (const void *)(head + pos);
        uint32_t type = be32_get(ext->type), ext_len = be32_get(ext->length);
        pos += sizeof(*ext);
        if (type == QCOW2_EXT_END || ext_len > len - pos) {
            break;
        }
        for (size_t i = 0; type == QCOW2_EXT_FEATURE_NAMES &&
                           i + sizeof(Qcow2DiskFeatureName) <= ext_len;
             i += sizeof(Qcow2DiskFeatureName)) {
            const Qcow2DiskFeatureName *name = (const void *)(head + pos + i);
            if (name->type == 0 && name->bit == bit) {
                return g_strndup(name->name, sizeof(name->name));
            }
        }
        pos += round_up(ext_len, 8);
    }
    return g_strdup_printf("Unknown incompatible feature: %" PRIx64, UINT64_C(1) << bit);
}

static bool check_incompatible(Qcow2 *q, const uint8_t *head, size_t len, GError **errp)
{
    uint64_t known = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT |
                     QCOW2_INCOMPAT_COMPRESSION;
    uint64_t unknown = q->incompatible & ~known;

    if (unknown & QCOW2_INCOMPAT_DATA_FILE) {
        error_set(errp, "Images with an external data file are not supported yet");
        return false;
    }
    if (unknown & QCOW2_INCOMPAT_EXTENDED_L2) {
        error_set(errp, "Images with extended L2 entries are not supported yet");
        return false;
    }
    if (unknown) {
        GString *names = g_string_new(NULL);
        for (int bit = 0; bit < 64; bit++) {
            if ((unknown >> bit) & 1) {
                g_autofree char *name = feature_name(head, len, q, bit);
                g_string_append_printf(names, "%s%s", names->len ? ", " : "", name);
            }
        }
        error_set(errp, "Unsupported qcow2 feature(s): %s", names->str);
        g_string_free(names, TRUE);
        return false;
    }
    if (q->incompatible & QCOW2_INCOMPAT_COMPRESSION) {
        const Qcow2DiskHeader *h = (const void *)head;
        uint8_t type = q->header_length >= sizeof(*h) ? h->compression_type : 0;
        if (type == 0) {
            error_set(errp, "qcow2: Compression type incompatible feature bit must not be "
                            "set");
        } else if (type == 1) {
            error_set(errp, "qcow2: compression type zstd is not supported yet");
        } else {
            error_set(errp, "qcow2: unknown compression type: %u", type);
        }
        return false;
    }
    if (q->incompatible & QCOW2_INCOMPAT_CORRUPT) {
        if (!q->node->read_only) {
            error_set(errp, "qcow2: Image is corrupt; cannot be opened read/write");
            return false;
        }
        q->corrupt = true;
    }
    return true;
}

/* Is a table of @entries entries of 8 bytes at @offset possible in this image? */
static bool table_fits(const Qcow2 *q, uint64_t offset, uint64_t entries, uint64_t max_bytes,
                       const char *what, GError **errp)
{
    if (entries > max_bytes / 8) {
        error_set(errp, "%s too large", what);
        return false;
    }
    uint64_t end;
    if (!add_u64(offset, entries * 8, &end) || end > INT64_MAX ||
        (offset & (q->cluster_size - 1))) {
        error_set(errp, "%s offset invalid", what);
        return false;
    }
    return true;
}

static bool check_tables(Qcow2 *q, const Qcow2DiskHeader *h, GError **errp)
{
    uint64_t size = be64_get(h->size);
    uint64_t table_bytes = q->cluster_size << q->l2_bits;

    if (size > INT64_MAX - 511) {
        error_set(errp, "Could not refresh total sector count: %s",
                  g_strerror(EFBIG));
        return false;
    }
    q->l1_size = be32_get(h->l1_size);
    q->l1_offset = be64_get(h->l1_table_offset);
    if (!table_fits(q, q->l1_offset, q->l1_size, QCOW2_MAX_L1_BYTES, "Active L1 table",
                    errp)) {
        return false;
    }
    if (div_round_up(size, table_bytes) > q->l1_size) {
        error_set(errp, "L1 table is too small");
        return false;
    }
    q->rt_offset = be64_get(h->refcount_table_offset);
    q->rt_clusters = be32_get(h->refcount_table_clusters);
    if (q->rt_clusters > QCOW2_MAX_RT_BYTES >> q->cluster_bits && q->rt_clusters > 1) {
        error_set(errp, "Reference count table too large");
        return false;
    }
    q->rt_entries = (uint32_t)(((uint64_t)q->rt_clusters << q->cluster_bits) / 8);
    if (!table_fits(q, q->rt_offset, q->rt_entries, UINT64_MAX, "Reference count table",
                    errp)) {
        return false;
    }
    if (q->rt_clusters == 0 || q->rt_offset == 0) {
        error_set(errp, "Image does not contain a reference count table");
        return false;
    }
    q->nb_snapshots = be32_get(h->nb_snapshots);
    q->snapshots_offset = be64_get(h->snapshots_offset);
    if (q->nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
        error_set(errp, "Snapshot table too large");
        return false;
    }
    if (q->nb_snapshots && (q->snapshots_offset & (q->cluster_size - 1))) {
        error_set(errp, "Snapshot table invalid");
        return false;
    }
    node_set_length(q->node, round_down(size, 512)); /* compat: whole sectors, as stock */
    return true;
}

static bool read_backing_name(Qcow2 *q, const Qcow2DiskHeader *h, const uint8_t *head,
                              size_t len, GError **errp)
{
    uint64_t offset = be64_get(h->backing_file_offset);
    uint32_t size = be32_get(h->backing_file_size);

    g_clear_pointer(&q->node->backing_file, g_free);
    if (!offset) {
        return true;
    }
    if (size > QCOW2_MAX_BACKING_NAME || offset > len || size > len - offset) {
        error_set(errp, offset > q->cluster_size ? "Invalid backing file offset"
                                                 : "Backing file name too long");
        return false;
    }
    q->node->backing_file = g_strndup((const char *)head + offset, size);
    return true;
}

static bool read_extensions(Qcow2 *q, const uint8_t *head, size_t len, GError **errp)
{
    size_t pos = q->header_length;
    uint64_t end = len;
    const Qcow2DiskHeader *h = (const void *)head;

    if (be64_get(h->backing_file_offset)) {
        end = min_u64(end, be64_get(h->backing_file_offset));
    }
    g_clear_pointer(&q->node->backing_format, g_free);
    bitmap_forget(q);
    while (pos + sizeof(Qcow2DiskExtension) <= end) {
        const Qcow2DiskExtension *ext = (const void *)(head + pos);
        uint32_t type = be32_get(ext->type), ext_len = be32_get(ext->length);
        pos += sizeof(*ext);
        if (type == QCOW2_EXT_END) {
            break;
        }
        if (ext_len > end - pos) {
            error_set(errp, "Header extension too large");
            return false;
        }
        if (type == QCOW2_EXT_BACKING_FORMAT) {
            if (ext_len > 15) {
                error_set(errp, "ERROR: ext_backing_format: len=%" PRIu32
                                " too large (>=16)", ext_len);
                return false;
            }
            q->node->backing_format = g_strndup((const char *)head + pos, ext_len);
        } else if (type == QCOW2_EXT_BITMAPS && ext_len == sizeof(Qcow2DiskBitmapsExt) &&
                   (q->autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
            /* spec: without the autoclear bit the extension says nothing */
            const Qcow2DiskBitmapsExt *bitmaps = (const void *)(head + pos);
            q->nb_bitmaps = be32_get(bitmaps->nb_bitmaps);
            q->bitmaps_size = be64_get(bitmaps->directory_size);
            q->bitmaps_offset = be64_get(bitmaps->directory_offset);
        }
        pos += round_up(ext_len, 8);
    }
    return true;
}

#define OWN_MAPPING (160 * KiB) /* malloc gives it pages that nobody has touched */

/* Read a table of @entries big-endian 64-bit numbers into host order. Most refcount tables
 * are zeros but for their first entries: those of a few pages lie in a mapping of their own,
 * of which only the pages that hold something take memory. */
static uint64_t *coroutine_fn read_table(Qcow2 *q, uint64_t offset, uint64_t entries,
                                         const char *what, GError **errp)
{
    uint64_t bytes = entries * 8;
    be64 *disk = disk_buffer_try_alloc(4096, round_up(max_u64(bytes, 1), 4096));
    uint64_t *table =
        g_try_malloc0(bytes >= 16 * KiB ? max_u64(bytes, OWN_MAPPING) : max_u64(bytes, 8));
    int ret = disk && table ? 0 : -ENOMEM;
    if (ret == 0 && bytes) {
        ret = node_co_read_buf(q->file, offset, bytes, disk);
    }
    for (uint64_t i = 0; ret == 0 && i < entries; i++) {
        uint64_t entry = be64_get(disk[i]);
        if (entry) {
            table[i] = entry;
        }
    }
    disk_buffer_free(disk);
    if (ret < 0) {
        g_free(table);
        error_set_errno(errp, ret, "Could not read %s", what);
        return NULL;
    }
    return table;
}

/* An L1 entry that points nowhere sensible makes the image corrupt, but readable. */
static void check_l1(Qcow2 *q)
{
    uint64_t file_end = node_length(q->file);
    for (uint32_t i = 0; i < q->l1_size; i++) {
        uint64_t offset = q->l1[i] & QCOW2_L1_OFFSET_MASK;
        if (offset && ((offset & (q->cluster_size - 1)) || offset >= file_end ||
                       overlap_fixed(q, offset, q->cluster_size))) {
            node_image_corrupted(q->node, false, (int64_t)offset, (int64_t)q->cluster_size,
                                 "L2 table offset %#" PRIx64 " unaligned, outside of the "
                                 "file or on other metadata (L1 index: %#" PRIx32 ")", offset, i);
            q->l1_bad = true;
        }
    }
}

static bool coroutine_fn read_tables(Qcow2 *q, GError **errp)
{
    uint64_t file_end = round_up(node_length(q->file), q->cluster_size);
    uint64_t *l1 = read_table(q, q->l1_offset, q->l1_size, "L1 table", errp);
    if (!l1) {
        return false;
    }
    node_co_event(q->file, BLKDEBUG_EVENT_REFTABLE_LOAD);
    uint64_t *rt = read_table(q, q->rt_offset, q->rt_entries, "reference count table", errp);
    if (!rt) {
        g_free(l1);
        return false;
    }
    for (uint32_t i = 0; i < q->rt_entries; i++) {
        if (rt[i] & (q->cluster_size - 1) || rt[i] >= file_end ||
            (rt[i] && overlap_fixed(q, rt[i], q->cluster_size))) {
            q->rt_bad = true;
        }
    }
    g_free(q->l1);
    g_free(q->rt);
    q->l1 = l1;
    q->rt = rt;
    check_l1(q);
    /* tables that the file does not hold read as zeros; where they should be is no room */
    q->l1_bad |= q->l1_offset + (uint64_t)q->l1_size * 8 > file_end;
    q->rt_bad |= q->rt_offset + (uint64_t)q->rt_entries * 8 > file_end;
    if (q->rt_bad && !q->node->read_only) {
        error_set(errp, "qcow2: Reference count table has invalid entries; image can only "
                        "be opened read-only");
        return false;
    }
    return true;
}

bool coroutine_fn header_co_read(Qcow2 *q, GError **errp)
{
    uint64_t file_len = node_length(q->file);
    uint64_t len = min_u64(max_u64(file_len, 512), UINT64_C(1) << QCOW2_MAX_CLUSTER_BITS);
    uint8_t *head = disk_buffer_try_alloc(4096, 4096);
    bool ok = false;

    if (!head) {
        error_set_errno(errp, ENOMEM, "Could not read qcow2 header");
        return false;
    }
    memset(head, 0, 4096);
    int ret = node_co_read_buf(q->file, 0, 512, head);
#ifdef QDP_BREAKS
    memcpy(sector_as_read, head, 512);
#endif
    if (ret < 0) {
        error_set_errno(errp, ret, "Could not read qcow2 header");
    } else if (check_numbers(q, (void *)head, errp) &&
               check_features(q, (void *)head, errp)) {
        /* The rest of the first cluster: extensions and the backing name. */
        len = min_u64(len, q->cluster_size);
        disk_buffer_free(head);
        head = disk_buffer_try_alloc(4096, max_u64(q->cluster_size, 4096));
        if (!head) {
            error_set_errno(errp, ENOMEM, "Could not read qcow2 header");
            return false;
        }
        memset(head, 0, q->cluster_size);
        ret = node_co_read_buf(q->file, 0, len, head);
        if (ret < 0) {
            error_set_errno(errp, ret, "Could not read qcow2 header");
        } else {
            ok = check_incompatible(q, head, q->cluster_size, errp) &&
                 check_tables(q, (void *)head, errp) &&
                 read_backing_name(q, (void *)head, head, q->cluster_size, errp) &&
                 read_extensions(q, head, q->cluster_size, errp) &&
                 bitmap_co_read_directory(q, errp) && read_tables(q, errp);
        }
    }
    disk_buffer_free(head);
    return ok;
}

/* ---- reading it again ---- */

void header_set_aside(Qcow2 *q, HeaderBefore *ret)
{
    BlockNode *node = q->node;

    ret->state = q->header;
    ret->length = node->length;
    ret->backing_file = g_steal_pointer(&node->backing_file);
    ret->backing_format = g_steal_pointer(&node->backing_format);
    q->l1 = q->rt = NULL;
    q->bitmaps = NULL;
    q->nb_bitmaps = 0;
    q->l1_bad = q->rt_bad = false;
}

void header_put_back(Qcow2 *q, HeaderBefore *before)
{
    BlockNode *node = q->node;
    HeaderBefore now;

    header_set_aside(q, &now);
    q->header = before->state;
    node_set_length(node, before->length);
    node->backing_file = before->backing_file;
    node->backing_format = before->backing_format;
    header_let_go(&now);
}

void header_let_go(HeaderBefore *before)
{
    g_free(before->state.l1);
    g_free(before->state.rt);
    bitmaps_free(before->state.bitmaps, before->state.nb_bitmaps);
    g_free(before->backing_file);
    g_free(before->backing_format);
}
