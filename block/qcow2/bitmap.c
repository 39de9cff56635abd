/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bitmaps stored in an image (spec: "Bitmaps" in the qcow2 document): who has them, where
 * they lie, and saying that their contents are out of date.
 *
 * They are not kept current here.  Before the first write each is marked in-use on disk,
 * which tells every reader that its contents cannot be trusted, and it stays so: the
 * bitmap's name and place are kept, and a stock program that opens the image beside us has
 * no reason to load and store it (safety.md, Q12).
 */
#include <errno.h>
#include <string.h>

#include "block/base/error.h"
#include "block/qcow2/qcow2.h"

void bitmaps_free(StoredBitmap *bitmaps, uint32_t nb_bitmaps)
{
    for (uint32_t i = 0; bitmaps && i < nb_bitmaps; i++) {
        g_free(bitmaps[i].name);
    }
    g_free(bitmaps);
}

void bitmap_forget(Qcow2 *q)
{
    bitmaps_free(g_steal_pointer(&q->bitmaps), q->nb_bitmaps);
    q->nb_bitmaps = 0;
    q->bitmaps_offset = q->bitmaps_size = 0;
}

/* One entry at @pos of the directory; *ret_len its length with name and padding. */
static bool read_entry(StoredBitmap *bitmap, const uint8_t *dir, uint64_t size,
                       uint64_t pos, uint64_t *ret_len)
{
    Qcow2DiskBitmap disk;
    if (size - pos < sizeof(disk)) {
        return false;
    }
    memcpy(&disk, dir + pos, sizeof(disk));
    uint64_t extra = be32_get(disk.extra_data_size), name = be16_get(disk.name_size);
    uint64_t len = round_up(sizeof(disk) + extra + name, 8);
    if (len > size - pos || name == 0 || name > QCOW2_MAX_BITMAP_NAME ||
        be32_get(disk.table_size) > QCOW2_MAX_BITMAP_TABLE || disk.granularity_bits > 31) {
        return false;
    }
    bitmap->position = pos;
    bitmap->table_offset = be64_get(disk.table_offset);
    bitmap->table_size = be32_get(disk.table_size);
    bitmap->flags = be32_get(disk.flags);
    bitmap->granularity_bits = disk.granularity_bits;
    bitmap->name = g_strndup((const char *)dir + pos + sizeof(disk) + extra, name);
    *ret_len = len;
    return true;
}

bool coroutine_fn bitmap_co_read_directory(Qcow2 *q, GError **errp)
{
    uint64_t file_len = node_length(q->file), pos = 0, len;

    if (!q->nb_bitmaps) {
        return true;
    }
    uint32_t expected = q->nb_bitmaps;
    q->nb_bitmaps = 0;
    if (expected > QCOW2_MAX_BITMAPS || q->bitmaps_size > QCOW2_MAX_BITMAP_DIRECTORY ||
        q->bitmaps_size < expected * sizeof(Qcow2DiskBitmap) ||
        (q->bitmaps_offset & (q->cluster_size - 1)) || q->bitmaps_offset > file_len ||
        q->bitmaps_size > file_len - q->bitmaps_offset) {
        error_set(errp, "bitmaps_ext: the bitmap directory is invalid");
        return false;
    }
    uint8_t *dir = disk_buffer_try_alloc(4096, round_up(q->bitmaps_size, 4096));
    q->bitmaps = g_try_new0(StoredBitmap, expected);
    int ret = dir && q->bitmaps
                  ? node_co_read_buf(q->file, q->bitmaps_offset, q->bitmaps_size, dir)
                  : -ENOMEM;
    if (ret < 0) {
        error_set_errno(errp, ret, "Could not read the bitmap directory");
    }
    while (ret == 0 && q->nb_bitmaps < expected) {
        if (!read_entry(&q->bitmaps[q->nb_bitmaps], dir, q->bitmaps_size, pos, &len)) {
            error_set(errp, "Broken bitmap directory");
            ret = -EINVAL;
            break;
        }
        q->nb_bitmaps++;
        pos += len;
    }
    disk_buffer_free(dir);
    return ret == 0;
}

int coroutine_fn bitmap_co_mark_in_use(Qcow2 *q)
{
    int ret = 0;
    for (uint32_t i = 0; ret == 0 && i < q->nb_bitmaps; i++) {
        StoredBitmap *bitmap = &q->bitmaps[i];
        if (bitmap->flags & QCOW2_BITMAP_IN_USE) {
            continue;
        }
        be32 flags = be32_make(bitmap->flags | QCOW2_BITMAP_IN_USE);
        ret = node_co_write_buf(q->file,
                                q->bitmaps_offset + bitmap->position +
                                    offsetof(Qcow2DiskBitmap, flags),
                                sizeof(flags), &flags, 0);
        if (ret == 0) {
            bitmap->flags |= QCOW2_BITMAP_IN_USE;
        }
    }
    return ret;
}

#define TABLE_PIECE 8192u /* entries read at once */
static int coroutine_fn each_data_cluster(Qcow2 *q, const StoredBitmap *bitmap, be64 *buf,
                                          void (*range)(void *, uint64_t, uint64_t),
                                          void *opaque)
{
    uint64_t bytes = (uint64_t)bitmap->table_size * sizeof(be64);
    uint64_t file_len = node_length(q->file);

    if (bitmap->table_offset > file_len || bytes > file_len - bitmap->table_offset) {
        return 0; /* the range of the table itself tells that it is out of the file */
    }
    for (uint64_t done = 0; done < bitmap->table_size;) {
        uint64_t n = min_u64(TABLE_PIECE, bitmap->table_size - done);
        int ret = node_co_read_buf(q->file, bitmap->table_offset + done * sizeof(be64),
                                   n * sizeof(be64), buf);
        if (ret < 0) {
            return ret;
        }
        for (uint64_t i = 0; i < n; i++) {
            uint64_t data = be64_get(buf[i]) & QCOW2_L2_OFFSET_MASK;
            if (data) {
                range(opaque, data, q->cluster_size);
            }
        }
        done += n;
    }
    return 0;
}

int coroutine_fn bitmap_co_each_range(Qcow2 *q,
                                      void (*range)(void *opaque, uint64_t offset,
                                                    uint64_t len),
                                      void *opaque)
{
    if (!q->nb_bitmaps) {
        return 0;
    }
    be64 *buf = disk_buffer_try_alloc(4096, TABLE_PIECE * sizeof(be64));
    int ret = buf ? 0 : -ENOMEM;
    range(opaque, q->bitmaps_offset, q->bitmaps_size);
    for (uint32_t i = 0; ret == 0 && i < q->nb_bitmaps; i++) {
        const StoredBitmap *bitmap = &q->bitmaps[i];
        range(opaque, bitmap->table_offset, (uint64_t)bitmap->table_size * sizeof(be64));
        ret = each_data_cluster(q, bitmap, buf, range, opaque);
    }
    disk_buffer_free(buf);
    return ret;
}

static void add_flag(Qcow2BitmapInfoFlagsList ***tail, Qcow2BitmapInfoFlags flag)
{
    **tail = g_new0(Qcow2BitmapInfoFlagsList, 1);
    (**tail)->value = flag;
    *tail = &(**tail)->next;
}

Qcow2BitmapInfoList *bitmap_infos(const Qcow2 *q)
{
    Qcow2BitmapInfoList *list = NULL, **tail = &list;
    for (uint32_t i = 0; i < q->nb_bitmaps; i++) {
        const StoredBitmap *bitmap = &q->bitmaps[i];
        Qcow2BitmapInfo *info = g_new0(Qcow2BitmapInfo, 1);
        Qcow2BitmapInfoFlagsList **flags = &info->flags;
        info->name = g_strdup(bitmap->name);
        info->granularity = INT64_C(1) << bitmap->granularity_bits;
        if (bitmap->flags & QCOW2_BITMAP_IN_USE) {
            add_flag(&flags, QCOW2_BITMAP_INFO_FLAGS_IN_USE);
        }
        if (bitmap->flags & QCOW2_BITMAP_AUTO) {
            add_flag(&flags, QCOW2_BITMAP_INFO_FLAGS_AUTO);
        }
        *tail = g_new0(Qcow2BitmapInfoList, 1);
        (*tail)->value = info;
        tail = &(*tail)->next;
    }
    return list;
}
