/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What must hold after a power cut, after a clean close, and for a file that has lost its
 * last writer.  All of it happens in a process of its own, on copies.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/base/endian.h"
#include "block/base/error.h"
#include "block/driver.h"
#include "block/qcow2/format.h"
#include "tests/sim/sim.h"
#include "tests/sim/tag.h"

#define BATCH 64u /* sectors */

typedef struct Verify {
    World *w;
    VerifyHow how;
    GRand *rand;
    uint64_t now; /* the model's */
} Verify;

/* ---- the files as bytes ---- */

static void check_header(const Verify *v, unsigned file)
{
    uint64_t len;
    const uint8_t *image = sim_disk_contents(v->w->files[file], &len);
    const Qcow2DiskHeader *h = (const void *)image;
    if (len >= 104 && be32_get(h->version) >= 3 &&
        (be64_get(h->incompatible_features) & QCOW2_INCOMPAT_DIRTY)) {
        world_fail(v->w, "the dirty bit is set (Q12)");
    }
    const char *wrong = file == 0 && v->w->cfg.start ? start_image_wrong(&v->w->cfg, image)
                                                    : NULL;
    if (wrong) {
        world_fail(v->w, "%s", wrong);
    }
    if (v->w->generation && file == v->w->generation_file &&
        foreign_generation(image, len) != v->w->generation) {
        world_fail(v->w, "what another program wrote into the header is gone (Q9)");
    }
    g_autofree char *name = foreign_backing_name(image, len);
    if (v->w->backing_name && file == v->w->generation_file &&
        g_strcmp0(name, v->w->backing_name) != 0) {
        world_fail(v->w, "the header names %s, not %s as rebase left it (Q9)",
                   name ? name : "no backing file", v->w->backing_name);
    }
}

static void stock_check(const Verify *v, unsigned file)
{
    const char *dir = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : g_get_tmp_dir();
    g_autofree char *path = g_strdup_printf("%s/qdp-sim-XXXXXX", dir);
    uint64_t len;
    const uint8_t *image = sim_disk_contents(v->w->files[file], &len);
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, image, len) != (ssize_t)len) {
        world_fail(v->w, "cannot write %s", path);
    }
    close(fd);
    g_autofree char *command =
        g_strdup_printf("qemu-img check -q 'json:{\"driver\": \"qcow2\", \"backing\": null, "
                        "\"file\": {\"driver\": \"file\", \"filename\": \"%s\"}}' "
                        ">/dev/null 2>%s.log", path, path);
    g_autofree char *log = g_strconcat(path, ".log", NULL);
    g_autofree char *text = NULL;
    int status = system(command);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    unlink(path);
    g_file_get_contents(log, &text, NULL, NULL);
    unlink(log);
    bool leaks_fine = v->how == VERIFY_CUT && !v->w->frozen[file];
    if (code != 0 && !(code == 3 && leaks_fine)) {
        world_fail(v->w, "stock qemu-img check of %s: exit status %d, %s",
                   sim_disk_name(v->w->files[file]), code, text);
    }
}

/* ---- the images ---- */

static void report(void *opaque, bool is_error, const char *text)
{
    if (!sim_options.silent && (is_error || sim_options.verbose)) {
        printf("check: %s\n", text);
    }
}

static void coroutine_fn check_image(const Verify *v, BlockNode *node, unsigned file)
{
    CheckResult res = {0};
    int ret = node_co_check(node, 0, report, NULL, &res);
    if (ret < 0 || res.corruptions || res.check_errors) {
        world_fail(v->w, "our check of %s: %d, %d corruptions, %d errors",
                   sim_disk_name(v->w->files[file]), ret, (int)res.corruptions,
                   (int)res.check_errors);
    }
    if (res.leaks && (v->how != VERIFY_CUT || v->w->frozen[file])) {
        world_fail(v->w, "%s leaks %d clusters", sim_disk_name(v->w->files[file]),
                   (int)res.leaks);
    }
}

static void coroutine_fn check_chain(const Verify *v)
{
    BlockNode *node = port_root(v->w->port);
    for (unsigned i = v->w->depth; i > 0; i--) {
        check_image(v, node, v->w->chain[i - 1]);
        node = node_backing(node);
    }
}

static void check_sector(const Verify *v, uint32_t sector, const uint8_t *buf)
{
    uint32_t stamp;
    const World *w = v->w;
    bool known = tag_read(buf, sector, &stamp);
    bool ok = v->how == VERIFY_CUT ? model_crash_ok(w->model, sector, known ? stamp : STAMP_ANY)
                                   : model_read_ok(w->model, sector, known ? stamp : STAMP_ANY,
                                                   v->now);
    if (!ok) {
        g_autofree char *history = model_describe(w->model, sector);
        if (known) {
            world_fail(w, "sector %u reads %u afterwards, %s", sector, stamp, history);
        }
        const uint32_t *words = (const uint32_t *)buf;
        world_fail(w, "sector %u reads what was never written there (%#x, %#x, ..), %s",
                   sector, words[0], words[1], history);
    }
}

static void coroutine_fn check_bytes(const Verify *v)
{
    World *w = v->w;
    uint64_t length = port_length(w->port) / 512;
    g_autofree uint8_t *buf = g_malloc(BATCH * 512);

    bool known = false;
    for (guint i = 0; i < w->sizes->len; i++) {
        known |= length == g_array_index(w->sizes, uint32_t, i);
    }
    if (!known) {
        world_fail(w, "the disk has %u sectors, not %u", (unsigned)length, w->size);
    }
    for (uint32_t first = 0; first < length; first += BATCH) {
        uint32_t n = MIN(BATCH, (uint32_t)length - first);
        if (port_co_read(w->port, first * UINT64_C(512), n * 512, buf, 0) < 0) {
            world_fail(w, "sectors %u+%u cannot be read afterwards", first, n);
        }
        for (uint32_t i = 0; i < n; i++) {
            check_sector(v, first + i, buf + i * 512);
        }
    }
}

/* What an internal snapshot holds is what it held when it was taken. Leaves the world on
 * that snapshot. */
static void coroutine_fn check_internal(const Verify *v)
{
    World *w = v->w;
    g_autoptr(GError) error = NULL;
    g_autofree uint8_t *buf = g_malloc(w->internal_sectors * 512);
    unsigned level = 0;

    while (level < w->depth && w->chain[level] != w->internal_file) {
        level++;
    }
    if (level == w->depth) {
        return; /* merged away by now */
    }
    world_co_close(w);
    w->depth = level + 1;
    internal_snapshot_go(w->files[w->internal_file], &w->internal,
                         w->internal_sectors * UINT64_C(512));
    if (!world_co_open(w, true, &error)) {
        world_fail(w, "the internal snapshot cannot be opened: %s", error->message);
    }
    if (port_co_read(w->port, 0, w->internal_sectors * UINT64_C(512), buf, 0) < 0) {
        world_fail(w, "the internal snapshot cannot be read");
    }
    for (uint32_t i = 0; i < w->internal_sectors; i++) {
        if (memcmp(buf + i * 512, w->internal_bytes + i * 512, 512) != 0) {
            world_fail(w, "sector %u of the internal snapshot has changed", i);
        }
    }
}

/* ---- life goes on ---- */

/* Leaks are repaired, writes go on, nothing of what was there changes. */
static void coroutine_fn second_life(const Verify *v)
{
    World *w = v->w;
    g_autoptr(GError) error = NULL;
    CheckResult res = {0};
    uint32_t length = (uint32_t)(port_length(w->port) / 512);
    g_autofree uint8_t *all = g_malloc(length * 512);
    g_autofree uint8_t *again = g_malloc(length * 512);

    world_co_close(w);
    if (!world_co_open(w, false, &error)) {
        world_fail(w, "cannot be opened for writing afterwards: %s", error->message);
    }
    int repair_at = g_rand_int_range(v->rand, 0, 16); /* before a write; or not at all */
    port_co_read(w->port, 0, length * 512, all, 0);
    for (int i = 0; i < 12; i++) {
        if (i == repair_at &&
            node_co_check(port_root(w->port), CHECK_FIX_LEAKS, report, NULL, &res) < 0) {
            world_fail(w, "the repair of leaks failed");
        }
        uint32_t first = (uint32_t)g_rand_int_range(v->rand, 0, (gint32)length);
        uint32_t count = (uint32_t)g_rand_int_range(v->rand, 1, 17);
        count = MIN(count, length - first);
        tag_fill(all + first * 512, first, count, model_new_stamp(w->model));
        int ret = port_co_write(w->port, first * UINT64_C(512), count * 512,
                                all + first * 512, 0);
        if (ret == -ENOSPC && w->cfg.tight) { /* old or new, as far as it came */
            ret = port_co_read(w->port, first * UINT64_C(512), count * 512, all + first * 512,
                               0);
        }
        if (ret < 0) {
            world_fail(w, "sectors %u+%u cannot be written afterwards: %s", first, count,
                       strerror(-ret));
        }
    }
    if (port_co_flush(w->port) < 0 ||
        port_co_read(w->port, 0, length * 512, again, 0) < 0 ||
        memcmp(all, again, length * 512) != 0) {
        world_fail(w, "writing afterwards changes what was there");
    }
    world_co_close(w);
    if (!world_co_open(w, true, &error)) {
        world_fail(w, "cannot be opened a second time: %s", error->message);
    }
    check_image(&(Verify){w, VERIFY_CUT, v->rand, 0}, port_root(w->port),
                w->chain[w->depth - 1]);
}

/* What a job has made is there, empty. */
static void coroutine_fn check_created(const Verify *v)
{
    World *w = v->w;
    g_autoptr(GError) error = NULL;
    JsonValue *options = world_image_options(w, w->created, true);
    json_object_set(options, "backing", json_null());
    BlockNode *node = world_co_open_node(w->graph, options, &error);
    if (!node) {
        world_fail(w, "the image that a job made cannot be opened: %s", error->message);
    }
    check_image(v, node, w->created);
    for (uint64_t offset = 0; offset < node_length(node);
         offset += BATCH * 16) {
        uint8_t buf[BATCH * 16];
        uint64_t n = MIN(sizeof(buf), node_length(node) - offset);
        if (node_co_read_buf(node, offset, n, buf) < 0 || buf[0] ||
            memcmp(buf, buf + 1, n - 1) != 0) {
            world_fail(w, "the image that a job made is not empty");
        }
    }
    node_co_unref(node);
}

static void coroutine_fn verify(void *opaque)
{
    Verify *v = opaque;
    World *w = v->w;
    g_autoptr(GError) error = NULL;

    for (unsigned i = 0; i < w->depth; i++) {
        check_header(v, w->chain[i]);
    }
    if (!world_co_open(w, true, &error)) {
        world_fail(w, "cannot be opened afterwards: %s", error->message);
    }
    check_chain(v);
    check_bytes(v);
    if (v->how == VERIFY_CUT && g_rand_int_range(v->rand, 0, 4) == 0) {
        second_life(v);
    }
    if (w->created) {
        check_created(v);
    }
    if (w->internal_bytes) {
        check_internal(v);
    }
}

static void run_verification(World *w, VerifyHow how, bool power_loss)
{
    uint32_t seeds[2] = {w->seed, (uint32_t)sim_host_steps(w->host)};
    Verify v = {.how = how, .rand = g_rand_new_with_seed_array(seeds, 2)};

    v.now = model_read_begin(w->model);
    if (how == VERIFY_BELOW) {
        w->depth--;
    }
    v.w = world_resurrect(w, v.rand, power_loss);
    if (g_rand_int_range(v.rand, 0, 40) == 0 && sim_options.stock) {
        stock_check(&v, w->chain[w->depth - 1]);
    }
    loop_run_coroutine(v.w->loop, verify, &v);
}

void verify_in_child(World *w, VerifyHow how, bool power_loss)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(200);
        run_verification(w, how, power_loss);
        if (w->second && how == VERIFY_CUT && w->second->depth) {
            run_verification(w->second, how, power_loss);
        }
        _exit(0);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) < 0) {
        world_fail(w, "no process to verify in");
    }
    if (WIFSIGNALED(status)) {
        world_fail(w, "the verification ended by signal %d", WTERMSIG(status));
    }
    if (WEXITSTATUS(status)) {
        _exit(1); /* it has said why */
    }
}
