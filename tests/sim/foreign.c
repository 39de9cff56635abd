/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Other programs at work on files of the chain, as a storage manager's are: an external
 * commit of files that have no writer any more (Q11), and the rewriting of the whole first
 * cluster under an open image, as stock `rebase -u` does it (Q9, Q12).
 *
 * The commit is our own code in a graph of its own, which shares nothing with the daemon's.
 * The rewriter knows the header by the specification.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/base/endian.h"
#include "block/base/error.h"
#include "block/qcow2/format.h"
#include "tests/sim/sim.h"
#include "tests/sim/tag.h"

#define EXT_GENERATION 0x51445347u /* of no meaning to anyone else: readers skip it */

/* ---- the first cluster ---- */

static size_t extensions_start(const uint8_t *head)
{
    const Qcow2DiskHeader *h = (const void *)head;
    return be32_get(h->version) < 3 ? 72 : be32_get(h->header_length);
}

/* The position of our extension, or of the end marker. */
static size_t find_extension(const uint8_t *head, size_t len)
{
    size_t pos = extensions_start(head);
    while (pos + 8 <= len) {
        uint32_t type = be32_get(*(const be32 *)(head + pos));
        uint32_t ext_len = be32_get(*(const be32 *)(head + pos + 4));
        if (type == 0 || type == EXT_GENERATION) {
            break;
        }
        pos += 8 + ((ext_len + 7) & ~7u);
    }
    return pos;
}

uint32_t foreign_generation(const uint8_t *image, uint64_t len)
{
    const Qcow2DiskHeader *h = (const void *)image;
    if (len < 512) {
        return 0;
    }
    size_t cluster = MIN(len, UINT64_C(1) << be32_get(h->cluster_bits));
    size_t pos = find_extension(image, cluster);
    bool found = pos + 16 <= cluster && be32_get(*(const be32 *)(image + pos)) == EXT_GENERATION;
    return found ? be32_get(*(const be32 *)(image + pos + 8)) : 0;
}

/* Room for an extension: what follows, end marker and backing name, moves back. */
static void make_room(uint8_t *head, size_t pos, size_t len)
{
    Qcow2DiskHeader *h = (void *)head;
    memmove(head + pos + 16, head + pos, len - pos - 16);
    uint64_t name = be64_get(h->backing_file_offset);
    if (name) {
        h->backing_file_offset = be64_make(name + 16);
    }
}

static void set_generation(uint8_t *head, size_t len, uint32_t generation)
{
    size_t pos = find_extension(head, len);
    if (be32_get(*(be32 *)(head + pos)) != EXT_GENERATION) {
        make_room(head, pos, len);
    }
    *(be32 *)(head + pos) = be32_make(EXT_GENERATION);
    *(be32 *)(head + pos + 4) = be32_make(8);
    *(be32 *)(head + pos + 8) = be32_make(generation);
    *(be32 *)(head + pos + 12) = be32_make(0);
}

void coroutine_fn foreign_co_rewrite_header(World *w)
{
    unsigned file = w->chain[w->depth - 1];
    uint64_t len, cluster = UINT64_C(1) << w->cfg.cluster_bits;
    const uint8_t *image = sim_disk_contents(w->files[file], &len);
    g_autofree uint8_t *head = g_memdup(image, (guint)cluster);

    /* It looks at tables and backing file for a while before it writes. */
    sim_co_sleep(w->host, 100 + w->next_op * 37 % 300);
    set_generation(head, cluster, w->generation + 1);
    sim_disk_foreign_write(w->files[file], 0, head, cluster);
    w->generation++;
    w->generation_file = file;
}

char *foreign_backing_name(const uint8_t *image, uint64_t len)
{
    const Qcow2DiskHeader *h = (const void *)image;
    uint64_t offset = be64_get(h->backing_file_offset);
    uint32_t size = be32_get(h->backing_file_size);
    return offset && offset + size <= len ? g_strndup((const char *)image + offset, size)
                                          : NULL;
}

/* Run the program on a copy of the file; what it changed is changed in the file. False:
 * it failed. */
static bool run_stock_rebase(SimDisk *disk, const char *name)
{
    uint64_t len;
    const uint8_t *image = sim_disk_contents(disk, &len);
    const char *dir = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : g_get_tmp_dir();
    g_autofree char *path = g_strdup_printf("%s/qdp-sim-XXXXXX", dir);
    g_autofree char *before = g_memdup(image, (guint)len), *after = NULL;
    gsize after_len = 0;
    int fd = mkstemp(path);
    bool ok = fd >= 0 && write(fd, image, len) == (ssize_t)len;
    close(fd);
    g_autofree char *command = g_strdup_printf(
        "qemu-img rebase -u -f qcow2 -b %s -F raw %s >/dev/null 2>&1", name, path);
    ok = ok && system(command) == 0 && g_file_get_contents(path, &after, &after_len, NULL);
    unlink(path);
    for (uint64_t at = 0; ok && at < MIN(len, after_len); at += 512) {
        uint64_t n = MIN(512, MIN(len, after_len) - at);
        if (memcmp(before + at, after + at, n) != 0) {
            sim_disk_foreign_write(disk, at, after + at, n);
        }
    }
    return ok;
}

void coroutine_fn foreign_co_stock_rebase(World *w)
{
    unsigned file = w->chain[w->depth - 1];
    g_autofree char *name = g_strdup_printf("/other-%u", w->next_op);
    if (!run_stock_rebase(w->files[file], name)) {
        world_fail(w, "stock qemu-img cannot rebase the live leaf");
    }
    g_free(w->backing_name);
    w->backing_name = g_steal_pointer(&name);
    w->generation_file = file;
}

/* ---- commit ---- */

static DiskFile *open_foreign(void *opaque, Loop *loop, const char *filename, int oflags,
                              DiskAio aio, GError **errp)
{
    World *w = opaque;
    bool writable = (oflags & O_ACCMODE) != O_RDONLY;
    return sim_disk_open(world_find_disk(w, filename), writable, true);
}

typedef struct Commit {
    World *w;
    Graph *graph;
    BlockNode *top, *base;
    BlockPort *from, *to;
} Commit;

static bool coroutine_fn open_commit(Commit *c, unsigned level, GError **errp)
{
    World *w = c->w;
    JsonValue *top = world_image_options(w, w->chain[level], true);
    JsonValue *base = world_chain_options(w, level, false);
    json_object_set(top, "backing", json_null());
    c->top = world_co_open_node(c->graph, top, errp);
    c->base = c->top ? world_co_open_node(c->graph, base, errp) : NULL;
    if (!c->base) {
        json_free(c->top ? NULL : base);
        return false;
    }
    c->from = port_co_new(c->top, PERM_CONSISTENT_READ, PERM_ALL, "from", NULL, NULL, errp);
    c->to = port_co_new(c->base, PERM_WRITE | PERM_RESIZE, PERM_ALL, "to", NULL, NULL, errp);
    return c->from && c->to;
}

static bool coroutine_fn copy_allocated(const Commit *c)
{
    uint64_t len = node_length(c->top);
    g_autoptr(GError) error = NULL;

    if (node_length(c->base) != len && !graph_co_resize(c->base, len, &error)) {
        return false;
    }
    for (uint64_t offset = 0; offset < len;) {
        BlockExtent extent;
        uint64_t want = MIN(len - offset, 65536);
        if (node_co_status(c->top, offset, want, &extent) < 0) {
            return false;
        }
        if (extent.flags & EXTENT_ALLOCATED) {
            g_autofree uint8_t *buf = g_malloc(extent.len);
            if (port_co_read(c->from, offset, extent.len, buf, 0) < 0 ||
                port_co_write(c->to, offset, extent.len, buf, 0) < 0) {
                return false;
            }
        }
        offset += extent.len;
    }
    return port_co_flush(c->to) == 0;
}

/* ---- the top file, while the daemon does not write to it ---- */

static BlockPort *coroutine_fn open_top(World *w, Graph *graph, bool read_only)
{
    g_autoptr(GError) error = NULL;
    graph_set_open_file(graph, open_foreign, w);
    BlockNode *node = world_co_open_node(
        graph, world_chain_options(w, w->depth, read_only), &error);
    BlockPort *port = node ? port_co_new(node, PERM_CONSISTENT_READ |
                                                   (read_only ? 0 : PERM_WRITE),
                                         PERM_ALL, "other", NULL, NULL, &error)
                           : NULL;
    if (!port) {
        world_fail(w, "another program cannot open the file: %s", error->message);
    }
    node_co_unref(node);
    return port;
}

bool coroutine_fn foreign_co_write(World *w, GRand *rand)
{
    Graph *graph = graph_new(w->loop);
    BlockPort *port = open_top(w, graph, false);
    bool ok = true;

    for (int i = 0; i < 6 && ok; i++) {
        uint32_t first = (uint32_t)g_rand_int_range(rand, 0, (gint32)w->size);
        uint32_t count = (uint32_t)g_rand_int_range(rand, 1, 9);
        count = MIN(count, w->size - first);
        uint32_t stamp = g_rand_int_range(rand, 0, 3) ? model_new_stamp(w->model) : 0;
        uint32_t serial = model_begin(w->model, first, count, stamp, true);
        g_autofree uint8_t *buf = g_malloc(count * 512);
        tag_fill(buf, first, count, stamp);
        ok = (stamp ? port_co_write(port, first * UINT64_C(512), count * 512, buf, 0)
                    : port_co_write_zeroes(port, first * UINT64_C(512), count * 512,
                                           BLOCK_MAY_UNMAP)) == 0;
        model_end(w->model, first, count, serial, ok, false);
    }
    uint64_t token = model_flush_begin(w->model);
    if (port_co_flush(port) == 0) {
        model_flush_end(w->model, token);
    }
    port_co_free(port);
    graph_free(graph);
    return ok;
}

uint8_t *coroutine_fn foreign_co_read_all(World *w)
{
    Graph *graph = graph_new(w->loop);
    BlockPort *port = open_top(w, graph, true);
    if (port_length(port) < w->size * UINT64_C(512) && sim_host_nb_failed(w->host)) {
        /* a new size that could not be written to the end: no snapshot this time */
        port_co_free(port);
        graph_free(graph);
        return NULL;
    }
    uint8_t *all = g_malloc(w->size * 512);
    if (port_co_read(port, 0, w->size * UINT64_C(512), all, 0) < 0) {
        world_fail(w, "another program cannot read the disk");
    }
    port_co_free(port);
    graph_free(graph);
    return all;
}

bool coroutine_fn foreign_co_commit(World *w, unsigned level)
{
    g_autoptr(GError) error = NULL;
    unsigned below = w->chain[level - 1];
    bool was_frozen = w->frozen[below];
    Commit c = {.w = w, .graph = graph_new(w->loop)};

    w->frozen[below] = false; /* to us, not to the daemon */
    graph_set_open_file(c.graph, open_foreign, w);
    bool ok = open_commit(&c, level, &error) && copy_allocated(&c);
    port_co_free(c.from);
    port_co_free(c.to);
    node_co_unref(c.top);
    node_co_unref(c.base);
    graph_free(c.graph);
    w->frozen[below] = was_frozen;
    if (!ok && !sim_host_nb_failed(w->host)) {
        world_fail(w, "another program cannot commit: %s",
                   error ? error->message : "I/O error");
    }
    return ok;
}
