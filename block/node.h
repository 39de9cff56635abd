/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A BlockNode as its users see it: name, size, driver, children.  What drivers see is in
 * driver.h; requests go through port.h.
 */
#ifndef BLOCK_NODE_H
#define BLOCK_NODE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "block/aio/coroutine.h"
#include "block/base/json.h"
#include "block/graph.h"
#include "qapi/qapi-types.h"

#define NODE_NAME_MAX 63 /* bytes without the NUL (7.0 clients use all of them) */

void node_ref(BlockNode *node);
/* Drop a reference; the last one flushes and closes. Yields. NULL is legal. */
void coroutine_fn node_co_unref(BlockNode *node);

const char *node_name(const BlockNode *node);
const char *node_driver_name(const BlockNode *node);
uint64_t node_length(const BlockNode *node);      /* bytes */
bool node_read_only(const BlockNode *node);       /* as `ro` of query-block shows it */
bool node_is_filter(const BlockNode *node);
/* Nobody said that it is raw: it was guessed, and writes to its start are restricted. */
bool node_is_guessed_raw(const BlockNode *node);
Graph *node_graph(const BlockNode *node);
/* A plain file name, or "json:{...}" when a plain one cannot say it. Borrowed. */
const char *node_filename(const BlockNode *node);
/* Child by its role name: "file", "backing"; NULL if there is none. Borrowed. */
BlockNode *node_child(const BlockNode *node, const char *role);
static inline BlockNode *node_backing(const BlockNode *node)
{
    return node_child(node, "backing");
}
/* The backing file as the header names it; NULL if none. Borrowed. */
const char *node_header_backing_file(const BlockNode *node);
const char *node_header_backing_format(const BlockNode *node);
/* Bytes the file takes on the disk (st_blocks), or -errno. */
int64_t node_allocated_size(BlockNode *node);
/* The cache and detect-zeroes settings, for queries. */
bool node_cache_direct(const BlockNode *node);
bool node_cache_no_flush(const BlockNode *node);
BlockdevDetectZeroesOptions node_detect_zeroes(const BlockNode *node);
/* Driver specific facts for query-named-block-nodes; NULL if none. Caller frees. */
ImageInfoSpecific *node_image_info_specific(BlockNode *node);
/* cluster_size, dirty flag, ...: 0 when the driver has none. */
uint32_t node_cluster_size(const BlockNode *node);
/* Counters of the driver (cache hits, loads, inline writes, ...), by name. */
void node_counters_foreach(BlockNode *node,
                           void (*visit)(void *opaque, const char *name, uint64_t value),
                           void *opaque);
/* Does @node, an image just created, read as zeros?  A format without a backing file does;
 * raw on a block device shows what the device held before. */
bool node_new_image_is_zero(const BlockNode *node);
/* What this one layer says about a range; see port_co_status(). */
int coroutine_fn node_co_status(BlockNode *node, uint64_t offset, uint64_t len,
                                BlockExtent *ret);

/* ---- opening ---- */

/* blockdev-add and inline definitions. The caller owns one reference. The node name is
 * generated (#blockNNN) when the options have none. */
BlockNode *coroutine_fn node_co_open(Graph *graph, const BlockdevOptions *options,
                                     GError **errp);

/* How the tools open images. */
typedef struct ImageOpenOptions {
    const char *format;  /* NULL: probe */
    bool writable;
    bool no_backing;     /* -B like behaviour: do not open backing files */
    bool force_share;    /* -U */
    bool direct;         /* cache=none, directsync */
    bool no_flush;       /* cache=unsafe */
    bool unmap;          /* discard=unmap */
    const char *aio;     /* NULL = default */
    bool from_header;    /* the name is an image's, not the user's */
    const JsonValue *extra; /* further options of the top node as dotted keys; borrowed */
} ImageOpenOptions;
/* @filename: a path, "file:PATH", or "json:{...}". QEMU's wording in errors. */
BlockNode *coroutine_fn node_co_open_image(Graph *graph, const char *filename,
                                           const ImageOpenOptions *options,
                                           GError **errp);

/* The path that a new image called @filename is made at: "file:PATH" and plain names; NULL
 * and *errp for protocols that make none. Caller frees. */
char *open_create_path(const char *filename, GError **errp);
/* @backing as an image called @image means it: beside the image, if it is a relative path.
 * Caller frees. */
char *open_backing_name(const char *image, const char *backing);

/* Is long work to end early? Asked between its pieces. */
typedef bool ImageStopFn(void *opaque);
/* blockdev-create and qemu-img create; @options as QAPI has them. @stop may be NULL; who is
 * stopped gives an error as well. */
bool coroutine_fn image_co_create(Graph *graph, const BlockdevCreateOptions *options,
                                  ImageStopFn *stop, void *opaque, GError **errp);

/* Let go of all that this one layer has, so that its backing file shows everywhere: after
 * a commit. -ENOTSUP when the format cannot. */
int coroutine_fn node_co_make_empty(BlockNode *node);

/* Breakpoints of a blkdebug at or below @node. -ENOTSUP: there is none; -ENOENT: no such
 * event or tag. */
int node_debug_break(BlockNode *node, const char *event, const char *tag);
int node_debug_resume(BlockNode *node, const char *tag);
int node_debug_remove_break(BlockNode *node, const char *tag);
bool node_debug_is_suspended(BlockNode *node, const char *tag);

/* ---- checking ---- */
typedef struct CheckResult {
    int64_t check_errors, corruptions, leaks;
    int64_t corruptions_fixed, leaks_fixed;
    int64_t image_end_offset;
    int64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
} CheckResult;
enum { CHECK_FIX_LEAKS = 1, CHECK_FIX_ERRORS = 2 };
/* @message is called with each finding in QEMU's wording (no newline). -ENOTSUP when
 * the format has no check. */
int coroutine_fn node_co_check(BlockNode *node, unsigned fix,
                               void (*message)(void *opaque, bool is_error,
                                               const char *text),
                               void *opaque, CheckResult *ret);

#endif
