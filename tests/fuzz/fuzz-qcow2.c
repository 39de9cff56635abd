/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input is a qcow2 image: look at it, write to it, repair it.
 *
 * Beyond "it does not crash or hang", these must hold:
 *  Q1 a status that says zeros is right, and an extent is neither empty nor too long;
 *  Q2 when check finds nothing wrong, then after writes, zeroes, discards, a resize, and a
 *     close it finds no corruption, and what was written reads back;
 *  Q3 repair leaves no more corruptions than it found, an image that opens, and the bytes
 *     that could be read;
 *  Q4 as Q2, when one operation of the file fails while the image is written to.
 * Q2 holds while there was room for all that was written.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "block/base/math.h"
#include "block/node.h"
#include "qapi/qapi-visit.h"
#include "tests/fuzz/fuzz.h"

#define MAX_FILE    (4u << 20)
#define MAX_EXTENTS 64
#define CHUNK       8192u

typedef struct Run {
    const uint8_t *data;
    size_t size;
    Graph *graph;
    MemFiles files;
    BlockNode *node;
    BlockPort *port;
} Run;

static uint8_t buffer[CHUNK], other[CHUNK];
static bool verbose; /* environment FUZZ_VERBOSE */

/* ---- opening and closing ---- */

static bool coroutine_fn open_image(Run *r, bool writable)
{
    g_autoptr(GError) error = NULL;
    ImageOpenOptions o = {.format = "qcow2", .writable = writable, .unmap = true};
    unsigned perm = PERM_CONSISTENT_READ | (writable ? PERM_WRITE | PERM_RESIZE : 0);

    r->node = node_co_open_image(r->graph, "image", &o, &error);
    fuzz_check(!r->node == !!error, "an error comes with a failure and only then");
    if (!r->node) {
        return false;
    }
    r->port = port_co_new(r->node, perm, PERM_ALL, "fuzz", NULL, NULL, &error);
    if (!r->port) {
        fuzz_check(error, "a failure has an error");
        node_co_unref(r->node);
    }
    return r->port;
}

static void coroutine_fn close_image(Run *r)
{
    port_co_free(r->port);
    node_co_unref(r->node);
}

/* What check says is for whoever looks for a failure's cause. */
static void message(void *opaque, bool is_error, const char *text)
{
    if (verbose) {
        fprintf(stderr, "%s\n", text);
    }
}

static int coroutine_fn check(Run *r, unsigned fix, CheckResult *result)
{
    memset(result, 0, sizeof(*result));
    return node_co_check(r->node, fix, message, NULL, result);
}

static bool coroutine_fn is_clean(Run *r)
{
    CheckResult result;
    return check(r, 0, &result) == 0 && !result.corruptions && !result.check_errors;
}

/* ---- looking ---- */

static bool all_zero(const uint8_t *data, uint64_t len)
{
    return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

/* Q1. From @offset on, at most @count extents; where the last one ended. */
static uint64_t coroutine_fn walk(Run *r, uint64_t offset, unsigned count)
{
    uint64_t length = port_length(r->port);

    while (offset < length && count--) {
        BlockExtent extent;
        uint64_t asked = length - offset;
        if (port_co_status(r->port, offset, asked, &extent) < 0) {
            return offset + CHUNK;
        }
        fuzz_check(extent.len > 0 && extent.len <= asked, "extent of %" PRIu64, extent.len);
        uint64_t n = min_u64(extent.len, CHUNK);
        memset(buffer, 0xee, n);
        int ret = port_co_read(r->port, offset, n, buffer, 0);
        if (ret == 0 && (extent.flags & EXTENT_ZERO)) {
            fuzz_check(all_zero(buffer, n), "zeros at %#" PRIx64, offset);
        }
        offset += extent.len;
    }
    return offset;
}

static void coroutine_fn look(Run *r)
{
    uint64_t length = port_length(r->port);

    qapi_free_ImageInfoSpecific(node_image_info_specific(r->node));
    node_allocated_size(r->node);
    uint64_t reached = walk(r, 0, MAX_EXTENTS);
    if (length > CHUNK) {
        walk(r, max_u64(reached, length / 2), 4);
        walk(r, max_u64(reached, length - CHUNK + 512), 4);
    }
}

/* ---- writing ---- */

/* Where the writes go: the beginning, over the borders of the first clusters, the end. */
static uint64_t place(const Run *r, unsigned i, uint64_t len)
{
    uint64_t length = port_length(r->port), cluster = node_cluster_size(r->node);
    const uint64_t offsets[] = {0, cluster - 512, 3 * cluster + 100, length / 2,
                                length > len ? length - len : 0};
    uint64_t offset = offsets[i];
    return offset <= length && len <= length - offset ? offset : 0;
}
#define NB_PLACES 5

static void fill(uint8_t *data, unsigned i, uint64_t len)
{
    memset(data, (int)(0x51 + i), len);
}

/* 0, or the first error of an operation that changes the image. */
static int coroutine_fn change(Run *r)
{
    uint64_t length = port_length(r->port), len = min_u64(1536, length);
    int first = 0;

    for (unsigned i = 0; i < NB_PLACES && len; i++) {
        uint64_t at = place(r, i, len);
        fill(buffer, i, len);
        int ret = port_co_write(r->port, at, len, buffer, i == 2 ? BLOCK_FUA : 0);
        first = first ? first : ret;
        if (i == 1) {
            ret = port_co_discard(r->port, 0, min_u64(length, UINT64_C(1) << 20));
            first = first ? first : ret;
        } else if (i == 3) {
            ret = port_co_write_zeroes(r->port, at, len, BLOCK_MAY_UNMAP);
            first = first ? first : ret;
        }
    }
    int ret = port_co_flush(r->port);
    return first ? first : ret;
}

/* Does the last write read back? Others may have been written over. */
static void coroutine_fn verify(Run *r)
{
    uint64_t len = min_u64(1536, port_length(r->port));
    uint64_t at = place(r, NB_PLACES - 1, len);

    fill(other, NB_PLACES - 1, len);
    int ret = len ? port_co_read(r->port, at, len, buffer, 0) : 0;
    fuzz_check(ret == 0, "reading back gives %d", ret);
    fuzz_check(!len || memcmp(buffer, other, len) == 0, "written bytes at %#" PRIx64, at);
}

/* Q2 */
static void coroutine_fn write_to(Run *r)
{
    if (!open_image(r, true)) {
        return;
    }
    bool clean = is_clean(r);
    int ret = change(r);
    message(NULL, false, "-- written");
    if (clean && ret == 0) {
        verify(r);
    }
    uint64_t length = port_length(r->port);
    if (ret == 0 && length < INT64_MAX / 2) {
        g_autoptr(GError) error = NULL;
        graph_co_resize(r->node, length + 65536, &error);
        g_clear_error(&error);
        graph_co_resize(r->node, length, &error);
    }
    bool full = ret == -ENOSPC;
    close_image(r);
    if (!open_image(r, false)) {
        fuzz_check(!clean, "a clean image opens after it was written to");
        return;
    }
    if (clean && !full) {
        fuzz_check(is_clean(r), "clean before writing (which gave %d), not after", ret);
        if (ret == 0 && port_length(r->port) == length) {
            verify(r);
        }
    }
    look(r);
    close_image(r);
}

/* ---- repairing ---- */

#define NB_SAMPLES 16
typedef struct Sample {
    uint8_t bytes[512];
    int ret;
} Sample;

/* What a guest finds here and there. */
static void coroutine_fn sample(Run *r, Sample *samples)
{
    uint64_t length = port_length(r->port);

    for (unsigned i = 0; i < NB_SAMPLES; i++) {
        uint64_t at = round_down(length / NB_SAMPLES * i, 512);
        samples[i].ret = length < 512 ? -EIO : port_co_read(r->port, at, 512,
                                                            samples[i].bytes, 0);
    }
}

static void compare(const Sample *before, const Sample *after)
{
    for (unsigned i = 0; i < NB_SAMPLES; i++) {
        if (before[i].ret == 0) {
            fuzz_check(after[i].ret == 0 &&
                           memcmp(before[i].bytes, after[i].bytes, 512) == 0,
                       "repair changes what is read, sample %u, %d", i, after[i].ret);
        }
    }
}

static void coroutine_fn repair(Run *r)
{
    static Sample was[NB_SAMPLES], is[NB_SAMPLES];
    CheckResult before, found, after;

    if (!open_image(r, true)) {
        return;
    }
    sample(r, was);
    int ret = check(r, 0, &before);
    int fixed = check(r, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, &found);
    if (ret == 0 && fixed == 0) {
        ret = check(r, 0, &after);
        fuzz_check(ret == 0 && after.corruptions <= before.corruptions,
                   "repair gives %d, %" PRId64 " corruptions before, %" PRId64 " after", ret,
                   before.corruptions, after.corruptions);
    }
    close_image(r);
    if (fixed == 0) {
        fuzz_check(open_image(r, false), "a repaired image opens");
        sample(r, is);
        compare(was, is);
        look(r);
        close_image(r);
    }
}

/* ---- failing ---- */

/* Q4. Which operation fails is the input's choice. */
static void coroutine_fn fail(Run *r)
{
    MemFile *file = &r->files.image;

    if (!open_image(r, true)) {
        return;
    }
    bool clean = is_clean(r);
    file->fail_op = file->nb_ops + 1 + (r->data[r->size / 2] + r->size) % 48;
    change(r);
    file->fail_op = 0;
    close_image(r);
    if (clean) {
        fuzz_check(open_image(r, false), "it opens after a failure");
        fuzz_check(is_clean(r), "clean before the failure, not after");
        close_image(r);
    }
}

static void coroutine_fn run(void *opaque)
{
    Run *r = opaque;

    if (!open_image(r, false)) {
        return;
    }
    look(r);
    is_clean(r);
    close_image(r);
    write_to(r);
    mem_file_load(&r->files.image, r->data, r->size);
    repair(r);
    mem_file_load(&r->files.image, r->data, r->size);
    fail(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Run r = {.data = data, .size = size};

    if (fuzz_image_is_slow(data, size)) {
        return 0;
    }
    verbose = g_getenv("FUZZ_VERBOSE") != NULL;
    r.graph = graph_new(fuzz_loop());
    mem_files_init(&r.files, data, size, MAX_FILE);
    graph_set_open_file(r.graph, mem_files_open, &r.files);
    loop_run_coroutine(fuzz_loop(), run, &r);
    graph_free(r.graph);
    mem_files_fini(&r.files);
    return 0;
}
