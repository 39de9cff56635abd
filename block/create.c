/* SPDX-License-Identifier: GPL-2.0-or-later */
/* blockdev-create and `qemu-img create`: files, raw and qcow2 images. */
#include "block/create.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/base/error.h"
#include "block/graph-private.h"
#include "block/open-private.h"

/* One creation: the graph that it works in, and who may end it early. */
typedef struct Creation {
    Graph *graph;
    ImageStopFn *stop;
    void *opaque;
} Creation;

static bool is_stopped(const Creation *c)
{
    return c->stop && c->stop(c->opaque);
}

#define PREALLOCATE_PIECE (16 * MiB) /* between two questions whether to stop */
#define UNSYNCED_MAX      (64 * MiB) /* of zeros: who stops, or syncs beside us, waits for it */

/* Space for [0, size) of @node, which reads as zeros there. 0 or -errno; -ECANCELED: stopped. */
static int coroutine_fn co_reserve_space(const Creation *c, BlockNode *node, uint64_t size,
                                         PreallocMode mode)
{
    int ret = 0;
    for (uint64_t pos = 0; ret == 0 && pos < size; pos += PREALLOCATE_PIECE) {
        uint64_t len = min_u64(size - pos, PREALLOCATE_PIECE);
        if (is_stopped(c)) {
            return -ECANCELED;
        }
        ret = mode == PREALLOC_MODE_FULL ? node_co_write_zero_data(node, pos, len)
                                         : node_co_write_zeroes(node, pos, len, 0);
        if (ret == 0 && mode == PREALLOC_MODE_FULL && (pos + len) % UNSYNCED_MAX == 0) {
            ret = node_co_flush(node);
        }
    }
    return ret < 0 ? ret : node_co_flush(node);
}

static bool set_stopped(GError **errp)
{
    error_set(errp, "Operation canceled");
    return false;
}

/* Make @file one of @size bytes that read as zeros. @give_back: what was reserved in vain. */
static bool coroutine_fn fill_raw(const Creation *c, BlockNode *file, uint64_t size,
                                  PreallocMode mode, bool give_back, GError **errp)
{
    /* order: emptied first, for the old contents must not be the new disk's */
    if (node_grows_with_zeros(file) && !node_co_truncate(file, 0, errp)) {
        return false;
    }
    if (!node_co_truncate(file, size, errp)) {
        return false;
    }
    int ret = mode == PREALLOC_MODE_OFF ? 0 : co_reserve_space(c, file, size, mode);
    if (ret < 0 && give_back && node_grows_with_zeros(file)) {
        /* the file system is full, perhaps; nothing is to be done about a failure of this */
        node_co_truncate(file, 0, NULL);
    }
    if (ret == -ECANCELED) {
        return set_stopped(errp);
    }
    if (ret < 0) {
        error_set_errno(errp, ret, "Could not preallocate data for the new file");
    }
    return ret == 0;
}

static bool check_raw_mode(PreallocMode mode, GError **errp)
{
    if (mode == PREALLOC_MODE_METADATA) {
        error_set(errp, "Unsupported preallocation mode: %s", PreallocMode_str(mode));
        return false;
    }
    return true;
}

/* ---- file ---- */

/* See to it that there is a file of that name, and that nobody uses it. */
static bool make_file(const Graph *graph, const char *filename, GError **errp)
{
    struct stat st;
    int fd = open(filename, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd < 0) {
        error_set_errno(errp, errno, "Could not create '%s'", filename);
        return false;
    }
    bool ok = file_may_create(graph, fd, errp);
    if (ok && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        error_set_errno(errp, EINVAL, "Could not resize file");
        ok = false;
    }
    close(fd);
    return ok;
}

/*
 * The file is a node while it is made: so its I/O is disk operations, which hold nobody up,
 * and whoever opens the file meanwhile - another node, another daemon - finds it in use.
 */
static bool coroutine_fn create_file(const Creation *c, const BlockdevCreateOptionsFile *o,
                                     GError **errp)
{
    PreallocMode mode = o->has_preallocation ? o->preallocation : PREALLOC_MODE_OFF;
    if (!check_raw_mode(mode, errp)) {
        return false;
    }
    if (o->size > INT64_MAX) {
        error_set(errp, "Image size is too large");
        return false;
    }
    if (!make_file(c->graph, o->filename, errp)) {
        return false;
    }
    /* a file of holes is synced by whoever writes to it */
    BlockdevCacheOptions cache = {.has_no_flush = true, .no_flush = mode == PREALLOC_MODE_OFF};
    BlockdevOptions options = {.driver = BLOCKDEV_DRIVER_FILE, .cache = &cache,
                               .u.file.filename = o->filename};
    BlockNode *file = node_co_open(c->graph, &options, errp);
    BlockPort *port = file ? port_co_new(file, PERM_WRITE | PERM_RESIZE, PERM_ALL, "create",
                                         NULL, NULL, errp)
                           : NULL;
    bool ok = port && fill_raw(c, file, o->size, mode, true, errp);
    port_co_free(port);
    node_co_unref(file);
    return ok;
}

/* ---- formats ---- */

/* Open what @ref says, for writing; the caller owns the reference. */
static BlockNode *coroutine_fn open_target(Graph *graph, const BlockdevRef *ref,
                                           GError **errp)
{
    if (ref->type == JSON_STRING) {
        BlockNode *node = graph_lookup_node(graph, ref->u.reference, errp);
        if (node) {
            node_ref(node);
        }
        return node;
    }
    return node_co_open(graph, ref->u.definition, errp);
}

static bool coroutine_fn create_raw(const Creation *c, BlockNode *file,
                                    const BlockdevCreateOptionsRaw *o, GError **errp)
{
    PreallocMode mode = o->has_preallocation ? o->preallocation : PREALLOC_MODE_OFF;
    return check_raw_mode(mode, errp) && fill_raw(c, file, o->size, mode, false, errp);
}

/* The second part of creating a qcow2 image: through the driver, as any writer. */
static bool coroutine_fn preallocate_qcow2(const Creation *c, BlockNode *file,
                                           const BlockdevCreateOptionsQcow2 *o, GError **errp)
{
    if (!o->has_preallocation || o->preallocation == PREALLOC_MODE_OFF) {
        return true;
    }
    BlockdevRef ref = {.type = JSON_STRING, .u.reference = file->name};
    BlockdevOptions options = {.driver = BLOCKDEV_DRIVER_QCOW2, .u.qcow2.file = &ref};
    BlockNode *image = node_co_open(file->graph, &options, errp);
    BlockPort *port = image ? port_co_new(image, PERM_WRITE | PERM_RESIZE, PERM_ALL, "create",
                                          NULL, NULL, errp)
                            : NULL;
    bool ok = port && qcow2_co_preallocate(image, o->preallocation, c->stop, c->opaque,
                                           errp);
    port_co_free(port);
    node_co_unref(image);
    return ok;
}

bool coroutine_fn image_co_create(Graph *graph, const BlockdevCreateOptions *options,
                                  ImageStopFn *stop, void *opaque, GError **errp)
{
    Creation c = {.graph = graph, .stop = stop, .opaque = opaque};
    const BlockdevRef *ref;
    if (is_stopped(&c)) {
        return set_stopped(errp);
    }
    switch (options->driver) {
    case BLOCKDEV_DRIVER_FILE:
        return create_file(&c, &options->u.file, errp);
    case BLOCKDEV_DRIVER_RAW:
        ref = options->u.raw.file;
        break;
    case BLOCKDEV_DRIVER_QCOW2:
        ref = options->u.qcow2.file;
        break;
    default:
        error_set(errp, "Driver does not support blockdev-create");
        return false;
    }
    BlockNode *file = open_target(graph, ref, errp);
    if (!file) {
        return false;
    }
    BlockPort *port = port_co_new(file, PERM_WRITE | PERM_RESIZE, PERM_ALL, "create", NULL,
                                  NULL, errp);
    bool ok = port != NULL;
    if (ok && options->driver == BLOCKDEV_DRIVER_RAW) {
        ok = create_raw(&c, file, &options->u.raw, errp);
    } else if (ok) {
        ok = qcow2_co_create_on(file, &options->u.qcow2, errp);
    }
    port_co_free(port);
    if (ok && options->driver == BLOCKDEV_DRIVER_QCOW2) {
        ok = preallocate_qcow2(&c, file, &options->u.qcow2, errp);
    }
    node_co_unref(file);
    return ok;
}
