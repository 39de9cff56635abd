/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening images by file name: protocols, probing, and the backing file that a header
 * names. "json:" names are open-json.c's.
 *
 * A header's string is the image author's, not the user's: it may name a path, a file in
 * a "file:" URL, or files and formats in a "json:" name, and nothing else (safety.md,
 * CVE-2024-4467).
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "block/base/error.h"
#include "block/graph-private.h"
#include "block/image-info.h"
#include "block/open-private.h"

#define PROBE_BYTES 2048

/* "nbd:..." has a protocol; "/a:b" and "./a:b" have not. */
static char *protocol_of(const char *filename)
{
    size_t n = strcspn(filename, ":/");
    return filename[n] == ':' ? g_strndup(filename, n) : NULL;
}

const char *open_path_driver(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? "host_device" : "file";
}

static JsonValue *protocol_options(const char *filename, const char *aio, GError **errp);

/* "blkdebug:[CONFIG]:IMAGE"; IMAGE is a name of another protocol. */
static JsonValue *blkdebug_options(const char *filename, const char *aio, GError **errp)
{
    const char *config = filename + strlen("blkdebug:");
    const char *colon = strchr(config, ':');

    if (!colon) {
        error_set(errp, "blkdebug requires both config file and image path");
        return NULL;
    }
    if (g_str_has_prefix(colon + 1, "blkdebug:")) { /* a name may be long, a stack not */
        error_set(errp, "blkdebug: such names do not nest");
        return NULL;
    }
    JsonValue *image = protocol_options(colon + 1, aio, errp);
    if (!image) {
        return NULL;
    }
    JsonValue *options = json_object();
    g_autofree char *path = g_strndup(config, (gsize)(colon - config));
    json_object_set_string(options, "driver", "blkdebug");
    if (path[0]) {
        json_object_set_string(options, "config", path);
    }
    json_object_set(options, "image", image);
    return options;
}

char *open_create_path(const char *filename, GError **errp)
{
    g_autofree char *protocol = protocol_of(filename);

    if (!protocol) {
        return g_strdup(filename);
    }
    if (strcmp(protocol, "file") == 0 || strcmp(protocol, "host_device") == 0) {
        return g_strdup(filename + strlen(protocol) + 1);
    }
    if (strcmp(protocol, "null-co") == 0 || strcmp(protocol, "null-aio") == 0 ||
        strcmp(protocol, "blkdebug") == 0) {
        error_set(errp, "Protocol driver '%s' does not support image creation", protocol);
    } else {
        error_set(errp, "Unknown protocol '%s'", protocol);
    }
    return NULL;
}

char *open_backing_name(const char *image, const char *backing)
{
    g_autofree char *protocol = protocol_of(backing);
    g_autofree char *path = open_create_path(image, NULL);
    const char *slash = path ? strrchr(path, '/') : NULL;

    if (protocol || backing[0] == '/' || !slash) {
        return g_strdup(backing);
    }
    return g_strdup_printf("%.*s%s", (int)(slash - path + 1), path, backing);
}

/* The options of the protocol node for a plain name; NULL and *errp. Caller frees. */
static JsonValue *protocol_options(const char *filename, const char *aio, GError **errp)
{
    if (g_str_has_prefix(filename, "blkdebug:")) {
        return blkdebug_options(filename, aio, errp);
    }
    g_autofree char *protocol = protocol_of(filename);
    JsonValue *options = json_object();

    if (protocol && (strcmp(protocol, "null-co") == 0 || strcmp(protocol, "null-aio") == 0)) {
        json_object_set_string(options, "driver", protocol);
        return options;
    }
    if (protocol && strcmp(protocol, "file") != 0 && strcmp(protocol, "host_device") != 0) {
        json_free(options);
        error_set(errp, "Unknown protocol '%s'", protocol);
        return NULL;
    }
    const char *path = protocol ? filename + strlen(protocol) + 1 : filename;
    g_autofree char *inner = protocol ? protocol_of(path) : NULL;
    /* what stands behind "file:" is a path whatever it looks like, and stays one */
    g_autofree char *full = g_strconcat(inner ? "./" : "", path, NULL);
    json_object_set_string(options, "driver", open_path_driver(path));
    json_object_set_string(options, "filename", full);
    if (aio) {
        json_object_set_string(options, "aio", aio);
    }
    return options;
}

static BlockNode *coroutine_fn open_protocol(Graph *graph, const char *filename,
                                             const OpenInherit *inherit, GError **errp)
{
    g_autoptr(JsonValue) options = protocol_options(filename, inherit->aio, errp);

    return options ? open_co_options(graph, options, inherit, errp) : NULL;
}

/* Name the format of what @file holds. NULL and *errp when it cannot be read. */
static const char *coroutine_fn probe_format(BlockNode *file, GError **errp)
{
    uint8_t *head = disk_buffer_try_alloc(4096, 4096);
    if (!head) {
        error_set_errno(errp, ENOMEM, "Could not read image for determining its format");
        return NULL;
    }
    memset(head, 0, 4096);
    uint64_t len = min_u64(file->length, PROBE_BYTES);
    int ret = len ? node_co_read_buf(file, 0, len, head) : 0;
    const char *name = NULL;
    if (ret < 0) {
        error_set_errno(errp, ret, "Could not read image for determining its format");
    } else {
        name = driver_probe(head, len)->name;
        const char *foreign = strcmp(name, "raw") == 0 ? driver_probe_foreign(head, len) : NULL;
        if (foreign) { /* its container taken for a disk would be garbage, or be overwritten */
            error_set(errp, "Image is in the format '%s', which is not supported; with the "
                            "format raw it is opened as it stands", foreign);
            name = NULL;
        }
    }
    disk_buffer_free(head);
    return name;
}

static void merge(JsonValue *into, const JsonValue *extra)
{
    for (size_t i = 0; extra && i < json_object_size(extra); i++) {
        json_object_set(into, json_object_key_at(extra, i),
                        json_copy(json_object_value_at(extra, i)));
    }
}

BlockNode *coroutine_fn open_co_format_over(Graph *graph, BlockNode *file,
                                            const char *format, const JsonValue *extra,
                                            const OpenInherit *inherit, GError **errp)
{
    bool probed = !format;
    BlockNode *node = NULL;

    if (!format) {
        format = probe_format(file, errp);
    }
    if (format) {
        g_autoptr(JsonValue) options = json_object();
        json_object_set_string(options, "driver", format);
        json_object_set_string(options, "file", file->name);
        merge(options, extra);
        node = open_co_options(graph, options, inherit, errp);
    }
    if (node && probed && strcmp(format, "raw") == 0) {
        node->probed_raw = true;
    }
    node_co_unref(file);
    return node;
}

BlockNode *coroutine_fn open_co_file_name(Graph *graph, const char *filename,
                                          const char *format, const JsonValue *extra,
                                          const OpenInherit *inherit, GError **errp)
{
    if (format && driver_lookup_name(format) == NULL) {
        error_set(errp, "Unknown driver '%s'", format);
        return NULL;
    }
    const BlockDriver *drv = format ? driver_lookup_name(format) : NULL;
    if (drv && !drv->is_format && (!drv->is_filter || drv->names_itself)) { /* a protocol driver by name */
        return open_protocol(graph, filename, inherit, errp);
    }
    OpenInherit down = *inherit;
    down.has_discard = true;
    down.discard_unmap = true;
    BlockNode *file = open_protocol(graph, filename, &down, errp);
    if (!file) {
        return NULL;
    }
    return open_co_format_over(graph, file, format, extra, inherit, errp);
}

/* blkdebug reads a file of its own, and is nothing that an image needs. */
static bool header_may_name(const char *filename, GError **errp)
{
    if (g_str_has_prefix(filename, "blkdebug:")) {
        error_set(errp, "a name in an image header may not use protocol 'blkdebug'");
        return false;
    }
    return true;
}

BlockNode *coroutine_fn node_co_open_image(Graph *graph, const char *filename,
                                           const ImageOpenOptions *options,
                                           GError **errp)
{
    OpenInherit inherit = {
        .has_direct = true,
        .direct = options->direct,
        .has_no_flush = true,
        .no_flush = options->no_flush,
        .has_read_only = true,
        .read_only = !options->writable,
        .has_discard = true,
        .discard_unmap = options->unmap,
        .force_share = options->force_share,
        .no_backing = options->no_backing,
        .aio = options->aio,
    };
    if (g_str_has_prefix(filename, "json:")) {
        return open_co_json_name(graph, filename, options->format, options->from_header,
                                 &inherit, errp);
    }
    if (options->from_header && !header_may_name(filename, errp)) {
        return NULL;
    }
    return open_co_file_name(graph, filename, options->format, options->extra, &inherit,
                             errp);
}

BlockEdge *coroutine_fn node_co_open_backing(BlockNode *parent,
                                             const OpenInherit *inherit, GError **errp)
{
    OpenInherit down = open_inherit(parent, "backing", inherit);
    GError *error = NULL;

    if (down.depth > MAX_BACKING_DEPTH) {
        error_set(errp, "Backing chain of '%s' is deeper than %d files, or a loop",
                  node_filename(parent), MAX_BACKING_DEPTH);
        return NULL;
    }
    g_autofree char *name = node_full_backing_name(parent, parent->backing_file);
    BlockNode *child = NULL;
    if (g_str_has_prefix(name, "json:")) {
        child = open_co_json_name(parent->graph, name, parent->backing_format, true, &down,
                                  &error);
    } else if (header_may_name(name, &error)) {
        child = open_co_file_name(parent->graph, name, parent->backing_format, NULL, &down,
                                  &error);
    }
    if (!child && error && strlen(error->message) > 1000) { /* of a long chain: said often enough */
        g_propagate_error(errp, error);
        return NULL;
    }
    if (!child) {
        g_propagate_prefixed_error(errp, error, "Could not open backing file: ");
        return NULL;
    }
    child->implicit = true;
    BlockEdge *edge = edge_attach(parent, child, "backing");
    g_free(parent->opened_backing);
    parent->opened_backing = g_strdup(node_filename(child));
    node_co_unref(child);
    return edge;
}
