/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tracked files whose blocks are larger than a sector: writes of less than a block near the
 * end of the file, beside others that make it longer. The file is memory; an operation
 * happens when the test says so, and is told of later.
 */
#include <string.h>

#include "block/base/iov.h"
#include "block/base/math.h"
#include "block/driver/file.h"
#include "block/graph-private.h"

#define BLOCK    4096u
#define SECTOR   512u
#define ROOM     (1u << 20)
#define END      (10 * SECTOR) /* in the middle of a block */
#define MAX_HELD 64

/* ---- the disk ---- */

typedef struct World {
    Graph *graph;
    BlockNode *node;
    FileState file;
    uint8_t data[ROOM];
    uint64_t size;
    DiskOp *held[MAX_HELD]; /* in the order in which they came */
    unsigned nb_held, nb_running;
    /* of the random test */
    GRand *rand;
    uint8_t shadow[ROOM];
    uint64_t end, may_grow_to;
    ListLink busy; /* TrackedWrite.link: bytes that somebody writes */
    bool growing;
} World;

static void hold(DiskFile *disk, DiskOp *op)
{
    World *w = disk_file_opaque(disk);

    if (op->type != DISK_TRUNCATE) {
        g_assert_cmpuint((op->offset | op->len) % BLOCK, ==, 0);
    }
    g_assert_cmpuint(w->nb_held, <, MAX_HELD);
    w->held[w->nb_held++] = op;
}

static int64_t size_now(DiskFile *disk)
{
    const World *w = disk_file_opaque(disk);
    return (int64_t)w->size;
}

static void close_nothing(DiskFile *disk)
{
}

static const DiskFileOps ops = {"held", hold, size_now, close_nothing};

/* The @i-th held operation happens. */
static void release(World *w, unsigned i)
{
    DiskOp *op = w->held[i];

    memmove(w->held + i, w->held + i + 1, (--w->nb_held - i) * sizeof(op));
    if (op->type == DISK_READ) {
        iov_from_buf(op->iov, op->niov, 0, w->data + op->offset, op->len);
    } else if (op->type == DISK_WRITE) {
        iov_to_buf(op->iov, op->niov, 0, w->data + op->offset, op->len);
        w->size = MAX(w->size, op->offset + op->len);
    } else {
        g_assert_cmpint(op->type, ==, DISK_TRUNCATE);
        memset(w->data + op->offset, 0, ROOM - op->offset);
        w->size = op->offset;
    }
    disk_op_complete(op, 0);
}

static bool last_is_truncate(const World *w)
{
    return w->nb_held && w->held[w->nb_held - 1]->type == DISK_TRUNCATE;
}

static World *world_new(Loop *loop, uint64_t size)
{
    const DiskFileInfo info = {.direct = true,
                               .writable = true,
                               .mem_align = SECTOR,
                               .offset_align = BLOCK,
                               .max_transfer = ROOM};
    World *w = g_new0(World, 1);

    w->graph = graph_new(loop);
    w->size = w->end = w->may_grow_to = size;
    list_init(&w->busy);
    tracked_file_init(&w->file.tracked, disk_file_new_custom(loop, &ops, w, &info));
    w->node = node_new(w->graph, NULL, NULL);
    w->node->drv = &driver_file;
    w->node->state = &w->file;
    w->node->length = round_up(size, SECTOR);
    return w;
}

static void world_free(World *w)
{
    g_assert_cmpuint(w->nb_held, ==, 0);
    g_assert_cmpuint(w->file.tracked.nb_exclusive, ==, 0);
    g_assert_true(list_empty(&w->file.tracked.writes));
    disk_file_free(w->file.tracked.disk);
    node_discard(w->node);
    graph_free(w->graph);
    g_free(w);
}

/* Everybody goes on until only operations that are held are waited for. */
static void coroutine_fn settle(World *w)
{
    for (int i = 0; i < 16; i++) {
        coroutine_wake_later(graph_loop(w->graph), coroutine_self());
        coroutine_yield();
    }
}

static void coroutine_fn write_all(World *w, uint64_t offset, uint64_t len, uint8_t value)
{
    uint8_t *buf = disk_buffer_try_alloc(BLOCK, len);
    struct iovec iov = {buf, len};

    memset(buf, value, len);
    g_assert_cmpint(tracked_co_write(&w->file.tracked, offset, len, &iov, 1), ==, 0);
    disk_buffer_free(buf);
}

static void start(World *w, CoroutineEntry *entry)
{
    Coroutine *co = coroutine_try_new(entry, w, CO_STACK_CONTROL);

    g_assert_nonnull(co);
    w->nb_running++;
    coroutine_enter(co);
}

/* ---- one beside another ---- */

static void coroutine_fn write_last_sector(void *opaque)
{
    World *w = opaque;
    write_all(w, END - SECTOR, SECTOR, 1);
    w->nb_running--;
}

static void coroutine_fn write_behind(void *opaque)
{
    World *w = opaque;
    write_all(w, 2 * BLOCK, BLOCK, 2);
    w->nb_running--;
}

static void coroutine_fn write_sector_behind(void *opaque)
{
    World *w = opaque;
    write_all(w, 2 * BLOCK, SECTOR, 2);
    w->nb_running--;
}

static void coroutine_fn grow(void *opaque)
{
    World *w = opaque;
    g_assert_true(driver_file.co_truncate(w->node, 16 * BLOCK, NULL));
    g_assert_cmpuint(w->file.tracked.known_size, >=, 16 * BLOCK);
    w->nb_running--;
}

static void coroutine_fn shrink(void *opaque)
{
    World *w = opaque;
    g_assert_true(driver_file.co_truncate(w->node, 9 * SECTOR, NULL));
    w->nb_running--;
}

static void coroutine_fn finish(World *w, uint64_t size)
{
    while (w->nb_held) {
        release(w, 0);
        settle(w);
    }
    g_assert_cmpuint(w->nb_running, ==, 0);
    g_assert_cmpuint(w->size, ==, size);
    g_assert_cmpuint(w->file.tracked.known_size, ==, size);
}

/* It was there first: what it has put behind the end was not told of yet. */
static void coroutine_fn beside_running_write(void *opaque)
{
    World *w = opaque;

    start(w, write_behind);
    settle(w);
    start(w, write_last_sector);
    for (settle(w); w->nb_held > 1 && !last_is_truncate(w); settle(w)) {
        release(w, w->nb_held - 1);
    }
    finish(w, 3 * BLOCK);
    g_assert_cmpint(w->data[2 * BLOCK], ==, 2);
    g_assert_cmpint(w->data[END - 1], ==, 1);
}

/* @second comes when the end is about to be put back, and is done before. */
static void coroutine_fn before_truncate(World *w, CoroutineEntry *second, uint64_t size)
{
    start(w, write_last_sector);
    for (settle(w); !last_is_truncate(w); settle(w)) {
        release(w, w->nb_held - 1);
    }
    DiskOp *back = w->held[0];
    g_assert_cmpuint(w->nb_held, ==, 1);
    start(w, second);
    for (settle(w); w->nb_held > 1 && w->held[0] == back; settle(w)) {
        release(w, w->nb_held - 1);
    }
    finish(w, size);
    g_assert_cmpint(w->data[END - 1], ==, 1);
}

static void coroutine_fn beside_new_write(void *opaque)
{
    World *w = opaque;

    before_truncate(w, write_behind, 3 * BLOCK);
    g_assert_cmpint(w->data[2 * BLOCK], ==, 2);
}

static void coroutine_fn beside_new_sector(void *opaque)
{
    World *w = opaque;

    before_truncate(w, write_sector_behind, 2 * BLOCK + SECTOR);
    g_assert_cmpint(w->data[2 * BLOCK], ==, 2);
}

static void coroutine_fn beside_growth(void *opaque)
{
    before_truncate(opaque, grow, 16 * BLOCK);
}

/* The growth runs already; what is known of the end is what was before it. */
static void coroutine_fn beside_running_growth(void *opaque)
{
    World *w = opaque;

    start(w, grow);
    settle(w);
    start(w, write_last_sector);
    for (settle(w); w->nb_held > 1 && !last_is_truncate(w); settle(w)) {
        release(w, w->nb_held - 1);
    }
    finish(w, 16 * BLOCK);
    g_assert_cmpint(w->data[END - 1], ==, 1);
}

/* The end comes nearer while a write that was inside waits for it. */
static void coroutine_fn beside_running_shrink(void *opaque)
{
    World *w = opaque;

    start(w, shrink);
    settle(w);
    start(w, write_last_sector);
    settle(w);
    finish(w, END);
    g_assert_cmpint(w->data[END - 1], ==, 1);
}

/* Another program made it longer: we do not cut off what we do not know. */
static void coroutine_fn beside_other_program(void *opaque)
{
    World *w = opaque;

    w->size = 3 * BLOCK;
    w->data[2 * BLOCK] = 7;
    start(w, write_last_sector);
    settle(w);
    while (w->nb_held) {
        release(w, 0);
        settle(w);
    }
    g_assert_cmpuint(w->size, ==, 3 * BLOCK);
    g_assert_cmpint(w->data[2 * BLOCK], ==, 7);
    w->nb_running = 0;
}

static void run_with(gconstpointer opaque)
{
    Loop *loop = loop_new(LOOP_EPOLL, NULL);
    World *w = world_new(loop, END);

    loop_run_coroutine(loop, (CoroutineEntry *)opaque, w);
    world_free(w);
    loop_free(loop);
}

/* ---- all at once ---- */

static uint32_t below(World *w, uint64_t n)
{
    return (uint32_t)g_rand_int_range(w->rand, 0, (gint32)n);
}

static bool take(World *w, TrackedWrite *range)
{
    list_foreach(it, &w->busy) {
        const TrackedWrite *other = container_of(it, TrackedWrite, link);
        if (ranges_overlap(range->offset, range->len, other->offset, other->len)) {
            return false;
        }
    }
    list_append(&w->busy, &range->link);
    return true;
}

/* Sectors or blocks, mostly near the end. */
static void coroutine_fn write_somewhere(World *w)
{
    uint32_t unit = below(w, 4) ? SECTOR : BLOCK;
    uint64_t first = w->end > 8 * BLOCK && below(w, 4) ? w->end - 8 * BLOCK : 0;
    TrackedWrite range = {.offset = first / unit * unit +
                                    below(w, (w->may_grow_to - first) / unit) * unit,
                          .len = (1 + below(w, 12)) * unit};
    if (range.offset + range.len > w->may_grow_to || !take(w, &range)) {
        return;
    }
    uint8_t value = (uint8_t)(1 + below(w, 255));
    w->end = MAX(w->end, range.offset + range.len);
    memset(w->shadow + range.offset, value, range.len);
    write_all(w, range.offset, range.len, value);
    list_remove(&range.link);
}

static void coroutine_fn grow_a_little(World *w)
{
    if (w->growing || w->may_grow_to + 17 * BLOCK > ROOM) {
        return;
    }
    w->growing = true;
    w->may_grow_to += (1 + below(w, 16 * BLOCK / SECTOR)) * SECTOR;
    w->end = w->may_grow_to;
    g_assert_true(driver_file.co_truncate(w->node, w->may_grow_to, NULL));
    w->growing = false;
}

static void coroutine_fn work(void *opaque)
{
    World *w = opaque;

    for (int i = 0; i < 60; i++) {
        if (below(w, 8)) {
            write_somewhere(w);
        } else {
            grow_a_little(w);
        }
        settle(w);
    }
    w->nb_running--;
}

static void coroutine_fn run_random(void *opaque)
{
    World *w = opaque;

    w->may_grow_to = w->end + 8 * BLOCK;
    for (int i = 0; i < 8; i++) {
        start(w, work);
    }
    while (w->nb_running) {
        if (w->nb_held) {
            release(w, below(w, w->nb_held));
        }
        coroutine_wake_later(graph_loop(w->graph), coroutine_self());
        coroutine_yield();
    }
    g_assert_cmpuint(w->size, ==, w->end);
    g_assert_cmpmem(w->data, ROOM, w->shadow, ROOM);
}

static void test_random(void)
{
    Loop *loop = loop_new(LOOP_EPOLL, NULL);

    for (guint32 seed = 1; seed <= 200; seed++) {
        World *w = world_new(loop, END);
        w->rand = g_rand_new_with_seed(seed);
        loop_run_coroutine(loop, run_random, w);
        g_rand_free(w->rand);
        world_free(w);
    }
    loop_free(loop);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        CoroutineEntry *entry;
    } all[] = {{"/file-track/end/running-write", beside_running_write},
               {"/file-track/end/new-write", beside_new_write},
               {"/file-track/end/new-sector", beside_new_sector},
               {"/file-track/end/growth", beside_growth},
               {"/file-track/end/running-growth", beside_running_growth},
               {"/file-track/end/running-shrink", beside_running_shrink},
               {"/file-track/end/other-program", beside_other_program}};

    g_test_init(&argc, &argv, NULL);
    for (gsize i = 0; i < G_N_ELEMENTS(all); i++) {
        g_test_add_data_func(all[i].path, all[i].entry, run_with);
    }
    g_test_add_func("/file-track/end/random", test_random);
    return g_test_run();
}
