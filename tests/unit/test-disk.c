/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk files: every engine on every loop, on tmpfs and on a real file system, buffered and
 * direct, against a shadow copy in memory; and the corners of disk.h's rules D1-D5.
 *
 * A combination that the host refuses is named with its reason; that at least one of each
 * engine ran is asserted.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/aio/disk-private.h"
#include "block/base/math.h"

#define FILE_SIZE (1u << 20)
#define BLOCK     4096u
#define SLOTS     24
#define OPS       1500

typedef struct Setup {
    LoopKind kind;
    DiskAio aio;
    const char *dir;
    int oflags;
    bool force_engine;
} Setup;

static Loop *loop;
static int ran[DISK_AIO_URING + 1];

static int scratch_file(const Setup *setup)
{
    g_autofree char *path = g_strdup_printf("%s/qdp-test-disk-XXXXXX", setup->dir);
    int fd = mkostemp(path, setup->oflags | O_CLOEXEC);
    if (fd >= 0) {
        unlink(path);
    }
    return fd;
}

/* The file of @setup, or NULL with the reason told. */
static DiskFile *open_setup(const Setup *setup)
{
    g_autoptr(GError) error = NULL;
    int fd = scratch_file(setup);

    if (fd < 0) {
        g_test_message("no file in %s: %s", setup->dir, g_strerror(errno));
        return NULL;
    }
    if (setup->force_engine) {
        g_setenv("QDP_DISK", "engine", TRUE);
    } else {
        g_unsetenv("QDP_DISK");
    }
    DiskFile *file = disk_file_new(loop, fd, "scratch", setup->aio, &error);
    if (!file) {
        g_test_message("%s", error->message);
        close(fd);
    } else {
        ran[setup->aio]++;
    }
    return file;
}

static bool loop_begin(LoopKind kind)
{
    g_autoptr(GError) error = NULL;

    loop = loop_new(kind, &error);
    if (!loop) {
        g_test_skip(error->message);
    }
    return loop;
}

/* ---- random operations against a shadow ---- */

typedef struct Slot {
    DiskOp op;
    uint8_t *buf;
    struct iovec iov[3];
    bool busy;
} Slot;

typedef struct Run {
    DiskFile *file;
    GRand *rand;
    uint8_t *shadow;
    Slot slots[SLOTS];
    int started, busy;
    bool inside_submit;
    LoopWork kick;
} Run;

static Run run;

static bool overlaps(uint64_t offset, uint64_t len)
{
    for (int i = 0; i < SLOTS; i++) {
        const DiskOp *op = &run.slots[i].op;
        if (run.slots[i].busy && op->type != DISK_SYNC &&
            ranges_overlap(op->offset, op->len, offset, len)) {
            return true;
        }
    }
    return false;
}

static void slot_done(DiskOp *op, int ret)
{
    Slot *slot = container_of(op, Slot, op);

    g_assert_false(run.inside_submit); /* D1 */
    g_assert_true(slot->busy);
    if (ret != -ENOTSUP || (op->type != DISK_PUNCH && op->type != DISK_ZERO)) {
        g_assert_cmpint(ret, ==, 0);
    }
    if (op->type == DISK_READ) {
        g_assert_cmpmem(slot->buf, op->len, run.shadow + op->offset, op->len);
    } else if ((op->type == DISK_PUNCH || op->type == DISK_ZERO) && ret == 0) {
        memset(run.shadow + op->offset, 0, op->len);
    } else if (op->type == DISK_WRITE) {
        memcpy(run.shadow + op->offset, slot->buf, op->len);
    }
    slot->busy = false;
    run.busy--;
    loop_work_schedule(loop, &run.kick);
}

static const uint8_t kinds[] = {DISK_READ, DISK_READ, DISK_READ,  DISK_WRITE,
                                DISK_WRITE, DISK_SYNC, DISK_PUNCH, DISK_ZERO};

static bool start_one(Slot *slot)
{
    DiskOp *op = &slot->op;
    uint32_t block = g_rand_int_range(run.rand, 0, FILE_SIZE / BLOCK - 16);

    memset(op, 0x99, sizeof(*op)); /* nothing but the caller's fields need be set */
    op->file = run.file;
    op->done = slot_done;
    op->type = kinds[g_rand_int_range(run.rand, 0, G_N_ELEMENTS(kinds))];
    op->flags = op->type == DISK_WRITE && g_rand_int_range(run.rand, 0, 4) == 0;
    op->offset = (uint64_t)block * BLOCK;
    op->len = (uint64_t)g_rand_int_range(run.rand, 1, 16) * BLOCK;
    if (op->type == DISK_SYNC) {
        op->offset = op->len = 0;
    } else if (overlaps(op->offset, op->len)) {
        return false;
    }
    /* one element, or three of which the first and the second are one block long */
    op->iov = slot->iov;
    op->niov = op->len > 2 * BLOCK && g_rand_boolean(run.rand) ? 3 : 1;
    slot->iov[0] = (struct iovec){slot->buf, op->niov == 1 ? op->len : BLOCK};
    slot->iov[1] = (struct iovec){slot->buf + BLOCK, BLOCK};
    slot->iov[2] = (struct iovec){slot->buf + 2 * BLOCK, op->len - 2 * BLOCK};
    if (op->type == DISK_WRITE) {
        memset(slot->buf, g_rand_int_range(run.rand, 0, 256), op->len);
    }
    slot->busy = true;
    run.busy++;
    run.inside_submit = true;
    disk_submit(op);
    run.inside_submit = false;
    return true;
}

static void kick(LoopWork *work)
{
    for (int i = 0; i < SLOTS && run.started < OPS; i++) {
        if (!run.slots[i].busy && start_one(&run.slots[i])) {
            run.started++;
        }
    }
    if (run.started < OPS && !run.busy) {
        loop_work_schedule(loop, work);
    }
    if (run.started == OPS && !run.busy) {
        loop_stop(loop);
    }
}

static void random_ops(const Setup *setup)
{
    run = (Run){.file = open_setup(setup)};
    if (!run.file) {
        return;
    }
    run.rand = g_rand_new_with_seed(17);
    run.shadow = g_malloc0(FILE_SIZE);
    g_assert_cmpint(ftruncate(disk_file_fd(run.file), FILE_SIZE), ==, 0);
    for (int i = 0; i < SLOTS; i++) {
        run.slots[i].buf = disk_buffer_try_alloc(BLOCK, 16 * BLOCK);
        g_assert_nonnull(run.slots[i].buf);
    }
    loop_work_init(&run.kick, kick);
    loop_work_schedule(loop, &run.kick);
    loop_run(loop);
    for (int i = 0; i < SLOTS; i++) {
        disk_buffer_free(run.slots[i].buf);
    }
    disk_file_free(run.file);
    g_free(run.shadow);
    g_rand_free(run.rand);
}

static void test_random(gconstpointer opaque)
{
    static const char *const dirs[] = {"/dev/shm", "/var/tmp"};
    Setup setup = {.kind = GPOINTER_TO_INT(opaque)};

    memset(ran, 0, sizeof(ran));
    if (!loop_begin(setup.kind)) {
        return;
    }
    for (unsigned i = 0; i < 2 * 2 * 2 * 4; i++) {
        setup.dir = dirs[i & 1];
        setup.oflags = i & 2 ? O_DIRECT : 0;
        setup.force_engine = i & 4;
        setup.aio = (DiskAio)(i >> 3);
        random_ops(&setup);
    }
    g_unsetenv("QDP_DISK");
    g_assert_cmpint(ran[DISK_AIO_AUTO], >, 0);
    g_assert_cmpint(ran[DISK_AIO_THREADS], >, 0);
    if (setup.kind == LOOP_URING) {
        g_assert_cmpint(ran[DISK_AIO_URING], >, 0);
    } else {
        g_assert_cmpint(ran[DISK_AIO_URING], ==, 0);
    }
    loop_free(loop);
}

/* ---- corners ---- */

/* A vector of more elements than the kernel takes at once, from a buffered file whose
 * pages are partly in the cache, ending beyond an unaligned end of file. */
static void coroutine_fn long_vector(void *opaque)
{
    enum { N = 2500, PIECE = 40, LEN = N * PIECE };
    const Setup *setup = opaque;
    DiskFile *file = open_setup(setup);
    if (!file) {
        return;
    }
    uint8_t *data = g_malloc(LEN), *back = g_malloc(LEN);
    struct iovec *iov = g_new(struct iovec, N);
    for (int i = 0; i < LEN; i++) {
        data[i] = (uint8_t)(i * 7 + i / 256 + 1);
    }
    for (int i = 0; i < N; i++) {
        iov[i] = (struct iovec){data + i * PIECE, PIECE};
    }
    g_assert_cmpint(disk_co_run(file, DISK_WRITE, 0, LEN, iov, N, 0), ==, 0);
    g_assert_cmpint(disk_file_size(file), ==, LEN);
    g_assert_cmpint(disk_co_run(file, DISK_SYNC, 0, 0, NULL, 0, 0), ==, 0);
    /* leave only some of the pages, so that a NOWAIT read stops in the middle */
    posix_fadvise(disk_file_fd(file), 0, 0, POSIX_FADV_DONTNEED);
    g_assert_cmpint(pread(disk_file_fd(file), back, 100, 0), ==, 100);
    memset(back, 0xee, LEN);
    for (int i = 0; i < N; i++) {
        iov[i].iov_base = back + i * PIECE;
    }
    g_assert_cmpint(disk_co_run(file, DISK_READ, 333, LEN, iov, N, 0), ==, 0);
    g_assert_cmpmem(back, LEN - 333, data + 333, LEN - 333);
    for (int i = LEN - 333; i < LEN; i++) {
        g_assert_cmpint(back[i], ==, 0); /* D2 */
    }
    g_free(iov);
    g_free(back);
    g_free(data);
    disk_file_free(file);
}

static void test_long_vector(gconstpointer opaque)
{
    Setup setup = {.kind = GPOINTER_TO_INT(opaque), .dir = "/var/tmp"};

    if (!loop_begin(setup.kind)) {
        return;
    }
    for (unsigned i = 0; i < 2 * 4; i++) {
        setup.force_engine = i & 1;
        setup.aio = (DiskAio)(i >> 1);
        loop_run_coroutine(loop, long_vector, &setup);
    }
    g_unsetenv("QDP_DISK");
    loop_free(loop);
}

static void coroutine_fn errors(void *opaque)
{
    const Setup *setup = opaque;
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_strdup_printf("%s/qdp-test-disk-XXXXXX", setup->dir);
    int fd = mkostemp(path, O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    unlink(path);
    DiskFile *file = disk_file_new(loop, fd, "scratch", DISK_AIO_AUTO, &error);
    g_assert_no_error(error);
    g_assert_false(disk_file_info(file)->writable);
    char byte = 1;
    struct iovec iov = {&byte, 1};
    g_assert_cmpint(disk_co_run(file, DISK_WRITE, 0, 1, &iov, 1, 0), ==, -EBADF);
    g_assert_cmpint(disk_co_run(file, DISK_READ, 100, 1, &iov, 1, 0), ==, 0);
    g_assert_cmpint(byte, ==, 0);
    g_assert_cmpint(disk_co_run(file, DISK_TRUNCATE, 10, 0, NULL, 0, 0), <, 0);
    disk_file_free(file);
}

static void test_errors(gconstpointer opaque)
{
    static const char *const dirs[] = {"/dev/shm", "/var/tmp"};

    if (!loop_begin(GPOINTER_TO_INT(opaque))) {
        return;
    }
    for (int i = 0; i < 4; i++) {
        Setup setup = {.dir = dirs[i & 1]};
        if (i & 2) {
            g_setenv("QDP_DISK", "engine", TRUE);
        }
        loop_run_coroutine(loop, errors, &setup);
    }
    g_unsetenv("QDP_DISK");
    loop_free(loop);
}

static void test_refusals(gconstpointer opaque)
{
    g_autoptr(GError) error = NULL;
    int fd[2];

    if (!loop_begin(GPOINTER_TO_INT(opaque))) {
        return;
    }
    fd[0] = scratch_file(&(Setup){.dir = "/var/tmp"});
    g_assert_null(disk_file_new(loop, fd[0], "scratch", DISK_AIO_NATIVE, &error));
    g_assert_cmpstr(error->message, ==,
                    "aio=native was specified, but it requires cache.direct=on, which was "
                    "not specified.");
    g_clear_error(&error);
    close(fd[0]); /* still ours */
    g_assert_cmpint(pipe(fd), ==, 0);
    g_assert_null(disk_file_new(loop, fd[0], "the pipe", DISK_AIO_AUTO, &error));
    g_assert_nonnull(strstr(error->message, "the pipe"));
    close(fd[0]);
    close(fd[1]);
    loop_free(loop);
}

/* ---- the file grows while it is read ---- */

/* What a read found to be the end of the file is none any more when it looks (D2). */
static void coroutine_fn grown_since(void *opaque)
{
    enum { HALF = BLOCK / 2, LEN = 128 * BLOCK };
    const Setup *setup = opaque;
    DiskFile *file = open_setup(setup);
    if (!file) {
        return;
    }
    const uint32_t align = disk_file_info(file)->offset_align;
    uint8_t *buf = disk_buffer_try_alloc(BLOCK, LEN);
    struct iovec iov = {buf, LEN};
    DiskOp op = {.file = file, .type = DISK_READ, .len = LEN, .iov = &iov, .niov = 1};
    memset(buf, 0xee, LEN);
    g_assert_cmpint(ftruncate(disk_file_fd(file), BLOCK + HALF + 100), ==, 0);

    /* the kernel read up to the old end, or found nothing behind it: on from there, or from
     * the last place whence one may read */
    g_assert_false(disk_op_progress(&op, BLOCK));
    g_assert_cmpuint(op.done_bytes, ==, BLOCK);
    g_assert_false(disk_op_progress(&op, 0));
    g_assert_cmpuint(op.done_bytes, ==, BLOCK);
    g_assert_false(disk_op_progress(&op, 50));
    g_assert_cmpuint(op.done_bytes, ==, BLOCK + round_down(50, align));
    g_assert_cmpint(disk_op_attempt(&op, 0), ==, BLOCK + HALF + 100 - op.done_bytes);

    /* and this is the end as it is now */
    uint64_t left = BLOCK + HALF + 100 - op.done_bytes;
    bool ended = disk_op_progress(&op, left) || disk_op_progress(&op, 0);
    g_assert_true(ended);
    g_assert_cmpint(op.result, ==, 0);
    for (int i = BLOCK + HALF + 100; i < LEN; i++) {
        g_assert_cmpint(buf[i], ==, 0);
    }

    /* a file system that says one thing and does another is not asked for ever, but one
     * block after the other is no standing still */
    int asked = 0;
    g_assert_cmpint(ftruncate(disk_file_fd(file), FILE_SIZE), ==, 0);
    op.done_bytes = 0;
    while (op.done_bytes < 100 * BLOCK) {
        g_assert_false(disk_op_progress(&op, BLOCK));
        g_assert_false(disk_op_progress(&op, 0));
    }
    while (!disk_op_progress(&op, 0)) {
        g_assert_cmpint(++asked, <, 100);
    }
    g_assert_cmpint(op.result, ==, -EIO);
    disk_buffer_free(buf);
    disk_file_free(file);
}

typedef struct Grower {
    int fd;
    _Atomic bool stop;
} Grower;

static void *grow(void *opaque)
{
    Grower *g = opaque;

    while (!atomic_load(&g->stop)) {
        for (off_t size = BLOCK + 512; size < FILE_SIZE && !atomic_load(&g->stop);
             size += 512) {
            g_assert_cmpint(ftruncate(g->fd, size), ==, 0);
        }
    }
    return NULL;
}

static void coroutine_fn growing(void *opaque)
{
    enum { LEN = FILE_SIZE - BLOCK };
    const Setup *setup = opaque;
    DiskFile *file = open_setup(setup);
    if (!file) {
        return;
    }
    uint8_t *buf = disk_buffer_try_alloc(BLOCK, LEN);
    struct iovec iov = {buf, LEN};
    Grower g = {.fd = disk_file_fd(file)};
    pthread_t thread;

    memset(buf, 1, BLOCK);
    g_assert_cmpint(pwrite(g.fd, buf, BLOCK, 0), ==, BLOCK);
    g_assert_cmpint(pthread_create(&thread, NULL, grow, &g), ==, 0);
    for (int i = 0; i < 40; i++) {
        memset(buf, 0xee, LEN);
        g_assert_cmpint(disk_co_run(file, DISK_READ, 0, LEN, &iov, 1, 0), ==, 0);
        g_assert_cmpint(buf[0], ==, 1);
        g_assert_cmpint(buf[BLOCK - 1], ==, 1);
        for (int j = BLOCK; j < LEN; j += 512) {
            g_assert_cmpint(buf[j], ==, 0);
        }
    }
    atomic_store(&g.stop, true);
    pthread_join(thread, NULL);
    disk_buffer_free(buf);
    disk_file_free(file);
}

static void on_each_file(LoopKind kind, CoroutineEntry *entry)
{
    static const char *const dirs[] = {"/dev/shm", "/var/tmp"};
    Setup setup = {.kind = kind};

    for (unsigned i = 0; i < 2 * 2 * 2 * 4; i++) {
        setup.dir = dirs[i & 1];
        setup.oflags = i & 2 ? O_DIRECT : 0;
        setup.force_engine = i & 4;
        setup.aio = (DiskAio)(i >> 3);
        loop_run_coroutine(loop, entry, &setup);
    }
    g_unsetenv("QDP_DISK");
}

static void test_growing(gconstpointer opaque)
{
    if (!loop_begin(GPOINTER_TO_INT(opaque))) {
        return;
    }
    on_each_file(GPOINTER_TO_INT(opaque), grown_since);
    on_each_file(GPOINTER_TO_INT(opaque), growing);
    loop_free(loop);
}

/* ---- more files than the ring's table has room for, which come and go ---- */

enum { MANY = 100 };

static DiskFile *open_locked(int i)
{
    g_autoptr(GError) error = NULL;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = scratch_file(&(Setup){.dir = "/var/tmp", .oflags = O_RDWR});

    g_assert_cmpint(ftruncate(fd, 4096), ==, 0);
    lock.l_start = i;
    lock.l_len = 1;
    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    DiskFile *file = disk_file_new(loop, fd, "scratch", DISK_AIO_AUTO, &error);
    g_assert_no_error(error);
    return file;
}

static void coroutine_fn put(DiskFile *file, int value)
{
    struct iovec iov = {&value, sizeof(value)};
    g_assert_cmpint(disk_co_run(file, DISK_WRITE, 8, sizeof(value), &iov, 1, 0), ==, 0);
}

static void coroutine_fn must_have(DiskFile *file, int value)
{
    int there = -1;
    struct iovec iov = {&there, sizeof(there)};
    g_assert_cmpint(disk_co_run(file, DISK_READ, 8, sizeof(there), &iov, 1, 0), ==, 0);
    g_assert_cmpint(there, ==, value);
}

/* Close; nobody holds the lock any more. */
static void close_locked(DiskFile *file)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", disk_file_fd(file));
    int other = open(path, O_RDWR | O_CLOEXEC);

    g_assert_cmpint(other, >=, 0);
    g_assert_cmpint(fcntl(other, F_OFD_SETLK, &lock), ==, -1);
    disk_file_free(file);
    g_assert_cmpint(fcntl(other, F_OFD_SETLK, &lock), ==, 0);
    close(other);
}

static void coroutine_fn many_files(void *opaque)
{
    DiskFile *files[MANY];

    (void)opaque;
    for (int i = 0; i < MANY; i++) {
        files[i] = open_locked(i);
        put(files[i], i);
    }
    for (int round = 1; round < 4; round++) {
        for (int i = round; i < MANY; i += 3) {
            close_locked(files[i]);
            files[i] = open_locked(i);
            put(files[i], round * MANY + i);
            must_have(files[i], round * MANY + i);
        }
        must_have(files[0], 0);
    }
    for (int i = 0; i < MANY; i++) {
        must_have(files[i], i ? ((i - 1) % 3 + 1) * MANY + i : 0);
        close_locked(files[i]);
    }
}

static void test_many_files(gconstpointer opaque)
{
    if (!loop_begin(GPOINTER_TO_INT(opaque))) {
        return;
    }
    g_setenv("QDP_DISK", "engine", TRUE);
    loop_run_coroutine(loop, many_files, NULL);
    g_unsetenv("QDP_DISK");
    loop_free(loop);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *what;
        GTestDataFunc fn;
    } all[] = {{"random", test_random},
               {"long-vector", test_long_vector},
               {"errors", test_errors},
               {"refusals", test_refusals},
               {"growing", test_growing},
               {"many-files", test_many_files}};

    g_test_init(&argc, &argv, NULL);
    for (int kind = LOOP_URING; kind <= LOOP_EPOLL; kind++) {
        for (gsize i = 0; i < G_N_ELEMENTS(all); i++) {
            g_autofree char *path =
                g_strdup_printf("/disk/%s/%s", kind == LOOP_URING ? "io_uring" : "epoll",
                                all[i].what);
            g_test_add_data_func(path, GINT_TO_POINTER(kind), all[i].fn);
        }
    }
    return g_test_run();
}
