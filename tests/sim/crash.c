/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crash simulation: random concurrent requests on a qcow2 node over a simulated disk, a
 * power cut (or the death of the process) at a random operation, and then: the image
 * opens, our check and stock qemu-img check find no corruption, and every sector reads as
 * the model allows.
 *
 *   crash [--seed N] [--seeds N] [--verbose]
 *
 * Each seed runs in a process of its own; a failing one is named and replays exactly.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/base/error.h"
#include "block/node.h"
#include "block/port.h"
#include "qapi/qapi-visit.h"
#include "tests/sim/model.h"
#include "tests/sim/sim-disk.h"

#define MAX_FILE (40u << 20)
#define BACKING_MARK 0x80000000u

static bool verbose;

typedef struct Sim {
    uint32_t seed;
    GRand *rand;
    Loop *loop;
    Graph *graph;
    SimDisk *disk, *backing;
    BlockNode *node;
    BlockPort *port;
    Model *model;
    uint32_t nb_sectors;
    uint32_t cluster_size;
    unsigned refcount_bits;
    bool v2, no_flush, with_backing, with_faults;
    bool over;
    uint64_t crash_at;
    int workers;
    unsigned op_count;
} Sim;

static void G_GNUC_NORETURN G_GNUC_PRINTF(2, 3) fail(const Sim *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    printf("seed %u: %s\n", s->seed, text);
    fflush(stdout);
    _exit(1);
}

/* ---- the files of the graph are simulated disks ---- */

static DiskFile *open_file(void *opaque, Loop *loop, const char *filename, int oflags,
                           DiskAio aio, GError **errp)
{
    Sim *s = opaque;
    SimDisk *disk = strcmp(filename, "image") == 0 ? s->disk : s->backing;
    return sim_disk_open(disk, (oflags & O_ACCMODE) != O_RDONLY);
}

static BlockNode *coroutine_fn open_json(const Sim *s, JsonValue *options)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlockdevOptions) typed = qapi_BlockdevOptions_from_keyval(options, "", &error);
    BlockNode *node = typed ? node_co_open(s->graph, typed, &error) : NULL;
    if (!node) {
        fail(s, "cannot open: %s", error->message);
    }
    json_free(options);
    return node;
}

static JsonValue *file_options(const char *name)
{
    JsonValue *file = json_object();
    json_object_set_string(file, "driver", "file");
    json_object_set_string(file, "filename", name);
    return file;
}

static BlockNode *coroutine_fn open_image(const Sim *s)
{
    JsonValue *top = json_object();
    json_object_set_string(top, "driver", "qcow2");
    json_object_set_string(top, "discard", "unmap");
    JsonValue *cache = json_object();
    json_object_set_bool(cache, "no-flush", s->no_flush);
    json_object_set_bool(cache, "direct", true);
    json_object_set(top, "cache", cache);
    json_object_set(top, "file", file_options("image"));
    if (s->with_backing) {
        JsonValue *backing = json_object();
        json_object_set_string(backing, "driver", "raw");
        json_object_set(backing, "file", file_options("backing"));
        json_object_set(top, "backing", backing);
    } else {
        json_object_set(top, "backing", json_null());
    }
    return open_json(s, top);
}

static void coroutine_fn create_image(const Sim *s)
{
    g_autoptr(GError) error = NULL;
    JsonValue *o = json_object();
    json_object_set_string(o, "driver", "qcow2");
    json_object_set(o, "file", file_options("image"));
    json_object_set_uint(o, "size", (uint64_t)s->nb_sectors * 512);
    json_object_set_uint(o, "cluster-size", s->cluster_size);
    json_object_set_string(o, "version", s->v2 ? "v2" : "v3");
    json_object_set_uint(o, "refcount-bits", s->refcount_bits);
    g_autoptr(BlockdevCreateOptions) typed =
        qapi_BlockdevCreateOptions_from_keyval(o, "", &error);
    if (!typed || !image_co_create(s->graph, typed, &error)) {
        fail(s, "cannot create: %s", error->message);
    }
    json_free(o);
}

/* ---- one request ---- */

static void fill(uint8_t *buf, uint32_t count, uint32_t stamp)
{
    uint32_t *words = (uint32_t *)buf;
    for (uint32_t i = 0; i < count * 128; i++) {
        words[i] = stamp;
    }
}

/* The stamp of a sector; a torn one is a failure of its own kind. */
static uint32_t stamp_of(const Sim *s, const uint8_t *buf, uint32_t sector)
{
    const uint32_t *words = (const uint32_t *)buf;
    for (int i = 1; i < 128; i++) {
        if (words[i] != words[0]) {
            fail(s, "sector %u is torn: %u, then %u", sector, words[0], words[i]);
        }
    }
    return words[0];
}

static void pick_range(Sim *s, uint32_t *first, uint32_t *count)
{
    uint32_t cluster = s->cluster_size / 512;
    uint32_t max = g_rand_int_range(s->rand, 0, 4) ? MAX(cluster / 2, 4) : 4 * cluster;
    do {
        *count = (uint32_t)g_rand_int_range(s->rand, 1, (gint32)MIN(max, s->nb_sectors / 4));
        *first = (uint32_t)g_rand_int_range(s->rand, 0, (gint32)(s->nb_sectors - *count));
        if (g_rand_int_range(s->rand, 0, 3) == 0) { /* often whole clusters */
            *first -= *first % cluster;
            *count = MIN(MAX(*count - *count % cluster, cluster), s->nb_sectors - *first);
        }
    } while (!model_lock(s->model, *first, *count));
}

static void coroutine_fn do_write(Sim *s, uint32_t first, uint32_t count, bool zero)
{
    uint32_t stamp = zero ? 0 : model_new_stamp(s->model);
    bool fua = g_rand_int_range(s->rand, 0, 8) == 0;
    unsigned flags = fua ? BLOCK_FUA : 0;
    int ret;

    model_write_begin(s->model, first, count, stamp);
    if (zero) {
        flags |= g_rand_boolean(s->rand) ? BLOCK_MAY_UNMAP : 0;
        ret = port_co_write_zeroes(s->port, first * UINT64_C(512), count * UINT64_C(512),
                                   flags);
    } else {
        uint8_t *buf = g_malloc((gsize)count * 512);
        fill(buf, count, stamp);
        ret = port_co_write(s->port, first * UINT64_C(512), count * UINT64_C(512), buf,
                            flags);
        g_free(buf);
    }
    if (ret < 0 && !s->with_faults) {
        fail(s, "write of %u+%u failed: %s", first, count, strerror(-ret));
    }
    model_write_end(s->model, first, count, stamp, ret == 0);
}

static void coroutine_fn do_read(Sim *s, uint32_t first, uint32_t count)
{
    g_autofree uint8_t *buf = g_malloc((gsize)count * 512);
    int ret = port_co_read(s->port, first * UINT64_C(512), count * UINT64_C(512), buf, 0);
    if (ret < 0) {
        fail(s, "read failed: %s", strerror(-ret));
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t stamp = stamp_of(s, buf + i * 512, first + i);
        if (!model_read_ok(s->model, first + i, stamp)) {
            g_autofree char *allowed = model_describe(s->model, first + i);
            fail(s, "sector %u reads %u, %s", first + i, stamp, allowed);
        }
    }
}

static void coroutine_fn do_flush(Sim *s)
{
    uint64_t token = model_flush_begin(s->model);
    int ret = port_co_flush(s->port);
    if (ret == 0) {
        model_flush_end(s->model, token);
    } else if (!s->with_faults) {
        fail(s, "flush failed: %s", strerror(-ret));
    }
}

static void coroutine_fn one_request(Sim *s)
{
    uint32_t first, count;
    int kind = g_rand_int_range(s->rand, 0, 100);

    s->op_count++;
    if (kind < 8) {
        do_flush(s);
        return;
    }
    pick_range(s, &first, &count);
    if (verbose) {
        printf("#%u kind %d sectors %u+%u\n", s->op_count, kind, first, count);
    }
    if (kind < 60) {
        do_write(s, first, count, false);
    } else if (kind < 70) {
        do_write(s, first, count, true);
    } else if (kind < 80) {
        model_discard_begin(s->model, first, count);
        port_co_discard(s->port, first * UINT64_C(512), count * UINT64_C(512));
        model_discard_end(s->model, first, count);
    } else {
        do_read(s, first, count);
    }
    model_unlock(s->model, first, count);
}

static void maybe_crash(Sim *s)
{
    if (!s->over && sim_disk_nb_ops(s->disk) >= s->crash_at) {
        s->over = true;
        sim_disk_cut_power(s->disk);
        loop_stop(s->loop);
    }
}

static void coroutine_fn worker(void *opaque)
{
    Sim *s = opaque;
    while (!s->over) {
        one_request(s);
        maybe_crash(s);
    }
}

/* ---- after the crash ---- */

static void report_check(void *opaque, bool is_error, const char *text)
{
    if (is_error || verbose) {
        printf("check: %s\n", text);
    }
}

static void stock_check(const Sim *s, const uint8_t *image, uint64_t len)
{
    char path[] = "/tmp/qdp-crash-XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, image, len) != (ssize_t)len) {
        fail(s, "cannot write %s", path);
    }
    close(fd);
    g_autofree char *command =
        g_strdup_printf("qemu-img check -q -f qcow2 %s >/dev/null 2>%s.log", path, path);
    int status = system(command);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    unlink(path);
    g_autofree char *log = g_strconcat(path, ".log", NULL);
    unlink(log);
    if (code != 0 && code != 3) {
        fail(s, "stock qemu-img check: exit status %d", code);
    }
}

static void coroutine_fn verify(void *opaque)
{
    Sim *s = opaque;
    CheckResult res;
    g_autoptr(GError) error = NULL;

    s->node = open_image(s);
    int ret = node_co_check(s->node, 0, report_check, NULL, &res);
    if (ret < 0 || res.corruptions || res.check_errors) {
        fail(s, "our check: %d, %ld corruptions", ret, (long)res.corruptions);
    }
    s->port = port_co_new(s->node, PERM_CONSISTENT_READ | PERM_WRITE, PERM_ALL, "v", NULL,
                          NULL, &error);
    g_autofree uint8_t *buf = g_malloc(512 * 64);
    for (uint32_t first = 0; first < s->nb_sectors; first += 64) {
        uint32_t n = MIN(64, s->nb_sectors - first);
        if (port_co_read(s->port, first * UINT64_C(512), n * 512, buf, 0) < 0) {
            fail(s, "sectors %u+%u cannot be read after the crash", first, n);
        }
        for (uint32_t i = 0; i < n; i++) {
            uint32_t stamp = stamp_of(s, buf + i * 512, first + i);
            if (!model_crash_ok(s->model, first + i, stamp)) {
                g_autofree char *allowed = model_describe(s->model, first + i);
                fail(s, "after the crash sector %u reads %u, %s", first + i, stamp,
                     allowed);
            }
        }
    }
    port_co_free(s->port);
    node_co_unref(s->node);
}

/* ---- one seed ---- */

static void coroutine_fn start(void *opaque)
{
    Sim *s = opaque;
    g_autoptr(GError) error = NULL;
    create_image(s);
    s->node = open_image(s);
    s->port = port_co_new(s->node, PERM_CONSISTENT_READ | PERM_WRITE, PERM_ALL, "sim", NULL,
                          NULL, &error);
    if (!s->port) {
        fail(s, "no port: %s", error->message);
    }
}

static void choose(Sim *s)
{
    GRand *r = s->rand;
    s->cluster_size = 512u << g_rand_int_range(r, 0, 9);
    s->v2 = g_rand_int_range(r, 0, 4) == 0;
    s->refcount_bits = s->v2 || g_rand_boolean(r) ? 16 : 1u << g_rand_int_range(r, 0, 7);
    s->with_backing = g_rand_boolean(r);
    s->no_flush = g_rand_int_range(r, 0, 5) == 0;
    s->with_faults = g_rand_int_range(r, 0, 5) == 0;
    s->nb_sectors = (uint32_t)g_rand_int_range(r, 64, 8192) + 8 * s->cluster_size / 512;
    s->workers = g_rand_int_range(r, 1, 7);
    s->crash_at = (uint64_t)g_rand_int_range(r, 20, 1500);
}

static void prepare_backing(Sim *s, uint32_t *stamps)
{
    uint32_t n = (uint32_t)g_rand_int_range(s->rand, 1, (gint32)s->nb_sectors + 64);
    g_autofree uint8_t *image = g_malloc0((gsize)n * 512);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t stamp = (i / 16) % 3 ? BACKING_MARK | i : 0;
        fill(image + (gsize)i * 512, 1, stamp);
        if (i < s->nb_sectors) {
            stamps[i] = stamp;
        }
    }
    sim_disk_load(s->backing, image, (uint64_t)n * 512);
}

static void run_seed(uint32_t seed, bool with_stock)
{
    Sim s = {.seed = seed, .rand = g_rand_new_with_seed(seed)};
    g_autoptr(GError) error = NULL;

    choose(&s);
    if (verbose) {
        printf("cluster %u, v%d, refcount bits %u, backing %d, no-flush %d, faults %d, "
               "%u sectors, %d workers, crash at %" G_GUINT64_FORMAT "\n",
               s.cluster_size, s.v2 ? 2 : 3, s.refcount_bits, s.with_backing, s.no_flush,
               s.with_faults, s.nb_sectors, s.workers, s.crash_at);
    }
    s.loop = loop_new(LOOP_EPOLL, &error);
    s.graph = graph_new(s.loop);
    graph_set_open_file(s.graph, open_file, &s);
    s.disk = sim_disk_new(s.loop, MAX_FILE, s.rand);
    s.backing = sim_disk_new(s.loop, 16u << 20, s.rand);
    g_autofree uint32_t *stamps = g_new0(uint32_t, s.nb_sectors);
    if (s.with_backing) {
        prepare_backing(&s, stamps);
    }
    s.model = model_new(s.nb_sectors, stamps);
    loop_run_coroutine(s.loop, start, &s);
    if (s.with_faults) {
        sim_disk_set_faults(s.disk, 0.01);
    }
    s.crash_at += sim_disk_nb_ops(s.disk);
    for (int i = 0; i < s.workers; i++) {
        coroutine_enter(coroutine_new(worker, &s, CO_STACK_CONTROL));
    }
    loop_run(s.loop);

    uint64_t len;
    uint8_t *image = sim_disk_survivors(s.disk, !s.no_flush, &len);
    if (with_stock) {
        stock_check(&s, image, len);
    }
    s.loop = loop_new(LOOP_EPOLL, &error); /* the old graph is lost with its machine */
    s.disk = sim_disk_new(s.loop, MAX_FILE, s.rand);
    sim_disk_load(s.disk, image, len);
    SimDisk *old_backing = s.backing;
    s.backing = sim_disk_new(s.loop, 16u << 20, s.rand);
    uint64_t backing_len;
    uint8_t *backing = sim_disk_survivors(old_backing, false, &backing_len);
    sim_disk_load(s.backing, backing, backing_len);
    s.graph = graph_new(s.loop);
    graph_set_open_file(s.graph, open_file, &s);
    loop_run_coroutine(s.loop, verify, &s);
}

static bool seed_passes(uint32_t seed, bool with_stock)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        run_seed(seed, with_stock);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) {
        printf("seed %u: killed by signal %d\n", seed, WTERMSIG(status));
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
    uint32_t base = 1, count = 200, failed = 0;
    bool single = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0) {
            verbose = true;
        } else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0) {
            base = (uint32_t)strtoul(argv[++i], NULL, 0);
            single = true;
        } else if (i + 1 < argc && strcmp(argv[i], "--seeds") == 0) {
            count = (uint32_t)strtoul(argv[++i], NULL, 0);
        } else if (i + 1 < argc && strcmp(argv[i], "--base") == 0) {
            base = (uint32_t)strtoul(argv[++i], NULL, 0);
        } else {
            fprintf(stderr, "usage: %s [--seed N | --seeds N [--base N]] [--verbose]\n",
                    argv[0]);
            return 2;
        }
    }
    bool stock = system("command -v qemu-img >/dev/null 2>&1") == 0;
    if (single) {
        return seed_passes(base, stock) ? 0 : 1;
    }
    for (uint32_t seed = base; seed < base + count; seed++) {
        failed += !seed_passes(seed, stock && seed % 4 == 0);
    }
    printf("%u seeds, %u failed%s\n", count, failed, stock ? "" : " (no stock qemu-img)");
    return failed ? 1 : 0;
}
