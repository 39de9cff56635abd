/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of internal snapshots, for people who ask what an image holds. We make and
 * change none, so what was read at open stays true; their clusters are safe by refcounts.
 *
 * A table that cannot be read hides its list and nothing else: check says what is wrong.
 */
#include <string.h>

#include "block/qcow2/qcow2.h"
#include "qapi/qapi-visit.h"

#define TABLE_LIMIT (64 * MiB) /* as other programs */

/* spec: the first 24 bytes of the extra data; what is not stored stays 0xff. */
typedef struct SnapshotExtra {
    be64 vm_state_size;
    be64 disk_size;
    be64 icount;
} SnapshotExtra;
_Static_assert(sizeof(SnapshotExtra) == 24, "extra data of a snapshot");

static SnapshotInfo *describe(const Qcow2DiskSnapshot *d, const SnapshotExtra *extra,
                              const char *text)
{
    SnapshotInfo *info = g_new0(SnapshotInfo, 1);
    uint64_t clock = be64_get(d->vm_clock_nsec), icount = be64_get(extra->icount);
    size_t id_size = be16_get(d->id_size);

    info->id = g_strndup(text, id_size);
    info->name = g_strndup(text + id_size, be16_get(d->name_size));
    info->vm_state_size = be32_get(d->extra_data_size) >= 8
                              ? (int64_t)be64_get(extra->vm_state_size)
                              : be32_get(d->vm_state_size);
    info->date_sec = be32_get(d->date_sec);
    info->date_nsec = be32_get(d->date_nsec);
    info->vm_clock_sec = (int64_t)(clock / 1000000000);
    info->vm_clock_nsec = (int64_t)(clock % 1000000000);
    info->has_icount = icount != UINT64_MAX;
    info->icount = (int64_t)icount;
    return info;
}

/* The entry at *@pos, which moves on behind it; NULL when it cannot be read. */
static SnapshotInfo *coroutine_fn co_read_one(Qcow2 *q, uint64_t *pos)
{
    Qcow2DiskSnapshot d;
    SnapshotExtra extra;

    if (node_co_read_buf(q->file, *pos, sizeof(d), &d) < 0) {
        return NULL;
    }
    uint32_t extra_size = be32_get(d.extra_data_size);
    uint32_t text_size = be16_get(d.id_size) + be16_get(d.name_size);
    uint64_t text_pos = *pos + sizeof(d) + extra_size;
    memset(&extra, 0xff, sizeof(extra));
    g_autofree char *text = g_try_malloc(text_size + 1);
    if (!text || extra_size > TABLE_LIMIT ||
        node_co_read_buf(q->file, *pos + sizeof(d), MIN(extra_size, sizeof(extra)),
                         &extra) < 0 ||
        node_co_read_buf(q->file, text_pos, text_size, text) < 0) {
        return NULL;
    }
    *pos = round_up(text_pos + text_size, 8);
    return describe(&d, &extra, text);
}

void coroutine_fn snapshots_co_read(Qcow2 *q)
{
    SnapshotInfoList *list = NULL, **tail = &list;
    uint64_t pos = q->snapshots_offset;
    SnapshotInfo *info = NULL;
    uint32_t i;

    for (i = 0; i < q->nb_snapshots && pos - q->snapshots_offset <= TABLE_LIMIT; i++) {
        info = co_read_one(q, &pos);
        if (!info) {
            break;
        }
        *tail = g_new0(SnapshotInfoList, 1);
        (*tail)->value = info;
        tail = &(*tail)->next;
    }
    qapi_free_SnapshotInfoList(q->snapshots);
    q->snapshots = list;
    if (i < q->nb_snapshots) {
        g_clear_pointer(&q->snapshots, qapi_free_SnapshotInfoList);
    }
}
