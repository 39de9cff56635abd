/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qemu-img commit: what the layers above a backing file hold goes down into it.
 *
 * The chain is read through the image named; the base is opened a second time, for writing.
 * The two never meet: C1 only extents that a layer above the base decides are read, so the
 * chain's view of the base, which grows old while it is written, does not matter; C2 the
 * base is durable before the image is emptied.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/aio/disk.h"
#include "block/base/math.h"
#include "qdp/tool/qemu-img.h"

#define COMMIT_BYTES (2 * MiB)

typedef struct Commit {
    Tool *tool;
    const char *filename;
    Image top, base;
    int base_depth; /* layers between the image and the base, plus one */
} Commit;

static bool same_file(const char *a, const char *b)
{
    g_autofree char *real_a = realpath(a, NULL);
    g_autofree char *real_b = realpath(b, NULL);
    return strcmp(a, b) == 0 || (real_a && real_b && strcmp(real_a, real_b) == 0);
}

/* The layer called @name below @top, or the next one; NULL with the error printed. */
static BlockNode *find_base(Commit *c, const char *name)
{
    BlockNode *above = c->top.node, *node = node_backing(above);
    if (!node) {
        tool_error(c->tool, "Image does not have a backing file");
        return NULL;
    }
    for (c->base_depth = 1; node; c->base_depth++) {
        if (!name || same_file(node_filename(node), name) ||
            g_strcmp0(node_header_backing_file(above), name) == 0) {
            return node;
        }
        above = node;
        node = node_backing(node);
    }
    tool_error(c->tool, "Did not find '%s' in the backing chain of '%s'", name, c->filename);
    return NULL;
}

/* @n bytes that one extent above the base decides. */
static int coroutine_fn commit_extent(Commit *c, uint64_t pos, uint64_t n, unsigned flags,
                                      uint8_t *buf)
{
    if (flags & EXTENT_ZERO) {
        return port_co_write_zeroes(c->base.port, pos, n, BLOCK_MAY_UNMAP);
    }
    for (uint64_t done = 0; done < n;) {
        uint64_t piece = min_u64(n - done, COMMIT_BYTES);
        int ret = port_co_read(c->top.port, pos + done, piece, buf, BLOCK_NO_PROMOTE);
        if (ret == 0) {
            ret = port_co_write(c->base.port, pos + done, piece, buf, 0);
        }
        if (ret < 0) {
            return ret;
        }
        done += piece;
    }
    return 0;
}

static int coroutine_fn commit_data(Commit *c)
{
    uint64_t end = port_length(c->top.port);
    uint8_t *buf = disk_buffer_try_alloc(4096, COMMIT_BYTES);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t pos = 0; pos < end && ret == 0;) {
        BlockExtent extent;
        ret = port_co_status(c->top.port, pos, end - pos, &extent);
        if (ret == 0 && extent.depth < c->base_depth) {
            ret = commit_extent(c, pos, extent.len, extent.flags, buf);
        }
        pos += ret == 0 ? extent.len : 0;
        if (ret == 0) {
            tool_progress(c->tool, 100.0 * (double)pos / (double)end);
        }
    }
    disk_buffer_free(buf);
    return ret < 0 ? ret : port_co_flush(c->base.port);
}

static bool coroutine_fn grow_base(Commit *c)
{
    uint64_t length = port_length(c->top.port);
    GError *error = NULL;
    if (port_length(c->base.port) >= length ||
        graph_co_resize(c->base.node, length, &error)) {
        return true;
    }
    tool_error_free(c->tool, error);
    return false;
}

/* 0 or 1, with the error printed. */
static int coroutine_fn commit_image(Commit *c, bool empty)
{
    if (!grow_base(c)) {
        return 1;
    }
    int ret = commit_data(c);
    if (ret == 0 && empty) {
        ret = node_co_make_empty(c->top.node);
        if (ret == 0) {
            ret = port_co_flush(c->top.port);
        }
        if (ret < 0) {
            tool_error(c->tool, "Could not empty %s: %s", c->filename, strerror(-ret));
            return 1;
        }
    }
    if (ret < 0) {
        tool_error(c->tool, "Block job failed: %s", strerror(-ret)); /* compat: its words */
    }
    return ret < 0;
}

typedef struct CommitOptions {
    ImageOpenOptions open;
    const char *base;
    bool keep, quiet, image_opts;
} CommitOptions;

/* 0, or 1 with the error printed. */
static int parse_options(Tool *tool, int argc, char **argv, CommitOptions *o)
{
    static const struct option longs[] = {{"object", required_argument, NULL, OPT_OBJECT},
                                          {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
                                          {NULL, 0, NULL, 0}};
    bool writethrough;
    int c;
    optind = 0;
    while ((c = getopt_long(argc, argv, ":f:t:b:r:dpq", longs, NULL)) != -1) {
        switch (c) {
        case 'f':
            o->open.format = optarg;
            break;
        case 't':
            if (!tool_parse_cache(optarg, &o->open, &writethrough)) {
                tool_error(tool, "Invalid cache option: %s", optarg);
                return 1;
            }
            break;
        case 'b':
            o->base = optarg;
            o->keep = true; /* spec (manual): -b implies -d */
            break;
        case 'd':
            o->keep = true;
            break;
        case 'q':
            o->quiet = true;
            break;
        case 'r':
            tool_error(tool, "Rate limits are not supported yet");
            return 1;
        case OPT_IMAGE_OPTS:
            o->image_opts = true;
            break;
        case 'p':
            tool->progress = true;
            break;
        case OPT_OBJECT:
            tool_refuse_object(tool, optarg);
            return 1;
        default:
            return img_bad_option(tool, c, argv);
        }
    }
    if (optind != argc - 1) {
        return img_usage_error(tool, "Expecting one image file name");
    }
    return 0;
}

int coroutine_fn img_commit(Tool *tool, int argc, char **argv)
{
    CommitOptions o = {.keep = false};
    if (parse_options(tool, argc, argv, &o)) {
        return 1;
    }
    Commit c = {.tool = tool, .filename = argv[optind]};
    o.open.writable = !o.keep;
    if (!image_co_open(tool, &c.top, c.filename, &o.open, o.image_opts)) {
        return 1;
    }
    int status = 1;
    const BlockNode *below = find_base(&c, o.base);
    if (below) {
        ImageOpenOptions base = o.open;
        base.writable = true;
        base.format = node_driver_name(below);
        if (image_co_open(tool, &c.base, node_filename(below), &base, false)) {
            tool->progress &= !o.quiet;
            tool_progress(tool, 0);
            status = commit_image(&c, !o.keep);
            tool_progress(tool, 100);
            tool_progress_end(tool);
            image_co_close(&c.base);
        }
    }
    image_co_close(&c.top);
    if (status == 0 && !o.quiet) {
        printf("Image committed.\n");
    }
    return status;
}
