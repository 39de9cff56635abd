/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files in memory for the fuzzing targets: every operation is done when it is submitted
 * and told later in the turn, as the interface asks (block/aio/disk.h, D1).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/base/error.h"
#include "block/base/iov.h"
#include "block/base/math.h"
#include "block/qcow2/format.h"
#include "tests/fuzz/fuzz.h"

Loop *fuzz_loop(void)
{
    static Loop *loop;

    if (!loop) {
        loop = loop_new(LOOP_EPOLL, NULL);
        fuzz_check(loop, "no loop");
    }
    return loop;
}

void fuzz_failed(const char *condition, const char *fmt, ...)
{
    va_list args;

    fprintf(stderr, "does not hold: %s: ", condition);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

bool fuzz_image_is_slow(const uint8_t *data, size_t size)
{
#ifdef FUZZING
    Qcow2DiskHeader h;
    if (size >= QCOW2_V2_HEADER_LENGTH) {
        memcpy(&h, data, QCOW2_V2_HEADER_LENGTH);
        return be32_get(h.l1_size) > 4096 || be32_get(h.refcount_table_clusters) > 64 ||
               be32_get(h.nb_snapshots) > 64;
    }
#endif
    return false;
}

/* ---- one file ---- */

static bool grow(MemFile *file, uint64_t size)
{
    if (size > file->max) {
        return false;
    }
    if (size > file->room) {
        uint64_t room = MIN(MAX(size, file->room * 2), file->max);
        file->data = g_realloc(file->data, room);
        memset(file->data + file->room, 0, room - file->room);
        file->room = room;
    }
    file->size = MAX(file->size, size);
    return true;
}

static int perform(MemFile *file, const DiskOp *op)
{
    uint64_t end;

    if (!add_u64(op->offset, op->len, &end)) {
        return -EINVAL;
    }
    uint64_t inside = op->offset < file->size ? MIN(op->len, file->size - op->offset) : 0;
    switch (op->type) {
    case DISK_READ:
        iov_from_buf(op->iov, op->niov, 0, file->data + (inside ? op->offset : 0), inside);
        iov_memset(op->iov, op->niov, inside, 0, op->len - inside);
        return 0;
    case DISK_WRITE:
        if (!grow(file, end)) {
            return -ENOSPC;
        }
        iov_to_buf(op->iov, op->niov, 0, file->data + op->offset, op->len);
        return 0;
    case DISK_ZERO:
        if (!grow(file, end)) {
            return -ENOSPC;
        }
        memset(file->data + op->offset, 0, op->len);
        return 0;
    case DISK_PUNCH:
        if (inside) {
            memset(file->data + op->offset, 0, inside);
        }
        return 0;
    case DISK_DISCARD: /* undefined contents: not what was there */
        if (inside) {
            memset(file->data + op->offset, 0xdd, inside);
        }
        return 0;
    case DISK_TRUNCATE:
        if (op->offset < file->size) {
            memset(file->data + op->offset, 0, file->size - op->offset);
            file->size = op->offset;
            return 0;
        }
        return grow(file, op->offset) ? 0 : -ENOSPC;
    default:
        return 0;
    }
}

static void mem_submit(DiskFile *disk, DiskOp *op)
{
    MemFile *file = disk_file_opaque(disk);

    bool fails = ++file->nb_ops == file->fail_op;
    disk_op_complete(op, fails ? -EIO : perform(file, op));
}

static int64_t mem_size(DiskFile *disk)
{
    const MemFile *file = disk_file_opaque(disk);
    return (int64_t)file->size;
}

static void mem_close(DiskFile *disk)
{
}

static const DiskFileOps mem_ops = {"memory", mem_submit, mem_size, mem_close};

void mem_file_load(MemFile *file, const void *data, size_t size)
{
    if (file->room < size) {
        file->data = g_realloc(file->data, size);
        file->room = size;
    }
    memcpy(file->data, data, size);
    memset(file->data + size, 0, file->room - size);
    file->size = size;
}

void mem_file_init(MemFile *file, const void *data, size_t size, uint64_t max)
{
    *file = (MemFile){.data = g_malloc0(size + 1), .room = size + 1, .max = MAX(max, size + 1)};
    mem_file_load(file, data, size);
}

void mem_file_fini(MemFile *file)
{
    g_clear_pointer(&file->data, g_free);
}

DiskFile *mem_file_open(MemFile *file, Loop *loop, bool writable)
{
    DiskFileInfo info = {.writable = writable,
                         .mem_align = 1,
                         .offset_align = 1,
                         .max_transfer = 1 << 30};
    return disk_file_new_custom(loop, &mem_ops, file, &info);
}

/* ---- all files ---- */

void mem_files_init(MemFiles *files, const void *image, size_t size, uint64_t max)
{
    g_autofree uint8_t *base = g_malloc(65536);

    for (unsigned i = 0; i < 65536; i++) {
        base[i] = (uint8_t)('A' + i / 512 % 26);
    }
    mem_file_init(&files->image, image, size, max);
    mem_file_init(&files->base, base, 65536, 65536);
}

void mem_files_fini(MemFiles *files)
{
    mem_file_fini(&files->image);
    mem_file_fini(&files->base);
}

void mem_image_make(uint8_t image[2048])
{
    static const uint8_t header[] = {
        'Q', 'F', 'I', 0xfb, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 4, /* at 256 */
        0, 0, 0, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0,                     /* 64 KiB */
        0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1};
    memset(image, 0, 2048);
    memcpy(image, header, sizeof(header));
    image[99] = 4;
    image[103] = 104;
    memcpy(image + 256, "base", 4);
    image[512 + 6] = 4; /* the refcount block: four clusters in use */
    image[1024 + 1] = image[1024 + 3] = image[1024 + 5] = image[1024 + 7] = 1;
}

DiskFile *mem_files_open(void *opaque, Loop *loop, const char *filename, int oflags,
                         DiskAio aio, GError **errp)
{
    MemFiles *files = opaque;
    MemFile *file = strcmp(filename, "image") == 0  ? &files->image
                    : strcmp(filename, "base") == 0 ? &files->base
                                                    : NULL;
    if (!file) {
        error_set_errno(errp, ENOENT, "Could not open '%s'", filename);
        errno = ENOENT;
        return NULL;
    }
    return mem_file_open(file, loop, (oflags & O_ACCMODE) != O_RDONLY);
}
