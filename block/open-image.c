/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening images by file name: protocols, "json:" names, probing, and the backing file
 * that a header names.
 *
 * A header's string is the image author's, not the user's: it may name a path, or a file
 * in a "file:" URL, and nothing else (safety.md, CVE-2024-4467).
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "block/base/error.h"
#include "block/base/json-crumple.h"
#include "block/graph-private.h"
#include "block/open-private.h"
#include "qapi/keyval.h"
#include "qapi/qapi-visit.h"

#define PROBE_BYTES 2048

/* "nbd:..." has a protocol; "/a:b" and "./a:b" have not. */
static char *protocol_of(const char *filename)
{
    size_t n = strcspn(filename, ":/");
    return filename[n] == ':' ? g_strndup(filename, n) : NULL;
}

static const char *path_driver(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? "host_device" : "file";
}

/* The options of the protocol node for a plain name; NULL and *errp. Caller frees. */
static JsonValue *protocol_options(const char *filename, GError **errp)
{
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
    json_object_set_string(options, "driver", path_driver(path));
    json_object_set_string(options, "filename", path);
    return options;
}

static BlockNode *coroutine_fn open_json(Graph *graph, const JsonValue *options,
                                         const OpenInherit *inherit, GError **errp)
{
    g_autoptr(BlockdevOptions) typed =
        qapi_BlockdevOptions_from_keyval(options, "", errp);
    return typed ? open_co_node(graph, typed, inherit, errp) : NULL;
}

static BlockNode *coroutine_fn open_protocol(Graph *graph, const char *filename,
                                             const OpenInherit *inherit, GError **errp)
{
    g_autoptr(JsonValue) options = protocol_options(filename, errp);
    if (!options) {
        return NULL;
    }
    const char *driver = json_get_string(json_object_lookup(options, "driver"));
    if (inherit->aio && (strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0)) {
        json_object_set_string(options, "aio", inherit->aio);
    }
    return open_json(graph, options, inherit, errp);
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

/* Put the format node on @file; consumes the reference on @file. */
static BlockNode *coroutine_fn open_format_over(Graph *graph, BlockNode *file,
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
        node = open_json(graph, options, inherit, errp);
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
    if (drv && !drv->is_format && !drv->is_filter) { /* a protocol driver by name */
        return open_protocol(graph, filename, inherit, errp);
    }
    OpenInherit down = *inherit;
    down.has_discard = true;
    down.discard_unmap = true;
    BlockNode *file = open_protocol(graph, filename, &down, errp);
    if (!file) {
        return NULL;
    }
    return open_format_over(graph, file, format, extra, inherit, errp);
}

/* compat: a "file" child that names only its file is a file, or a block device. */
static void complete_file(JsonValue *options)
{
    for (JsonValue *child = json_object_lookup(options, "file");
         child && json_type(child) == JSON_OBJECT; child = json_object_lookup(child, "file")) {
        const JsonValue *path = json_object_lookup(child, "filename");
        if (path && json_get_string(path) && !json_object_lookup(child, "driver")) {
            json_object_set_string(child, "driver", path_driver(json_get_string(path)));
        }
    }
}

/* "json:{...}": with "driver" it is the whole truth; with only "file" it is probed. */
static BlockNode *coroutine_fn open_json_name(Graph *graph, const char *filename,
                                              const char *format,
                                              const OpenInherit *inherit, GError **errp)
{
    GError *error = NULL;
    g_autoptr(JsonValue) options = keyval_parse(filename, NULL, NULL, &error);
    if (!options) {
        g_propagate_prefixed_error(errp, error, "Could not parse the JSON options: ");
        return NULL;
    }
    if (!json_crumple(options, errp)) {
        return NULL;
    }
    const JsonValue *name = json_object_lookup(options, "driver");
    const char *driver = name ? json_get_string(name) : NULL;
    if (driver && !driver_lookup_name(driver)) {
        error_set(errp, "Unknown driver '%s'", driver);
        return NULL;
    }
    complete_file(options);
    if (!name) {
        JsonValue *file = json_object_lookup(options, "file");
        if (!format && file && json_type(file) == JSON_OBJECT) {
            BlockNode *node = open_json(graph, file, inherit, errp);
            if (!node) {
                return NULL;
            }
            g_autoptr(JsonValue) extra = json_copy(options);
            json_free(json_object_take(extra, "file"));
            return open_format_over(graph, node, NULL, extra, inherit, errp);
        }
        json_object_set_string(options, "driver", format ? format : "raw");
    }
    return open_json(graph, options, inherit, errp);
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
        .aio = options->aio,
    };
    g_autoptr(JsonValue) extra = options->extra ? json_copy(options->extra) : json_object();
    GError *error = NULL;
    BlockNode *node;

    const BlockDriver *drv = options->format ? driver_lookup_name(options->format) : NULL;
    if (options->no_backing && (!drv || drv->supports_backing)) {
        json_object_set(extra, "backing", json_null());
    }
    if (g_str_has_prefix(filename, "json:")) {
        node = open_json_name(graph, filename, options->format, &inherit, &error);
    } else {
        node = open_co_file_name(graph, filename, options->format, extra, &inherit, &error);
        if (!node && options->no_backing && error && !options->format) {
            /* a format without backing files knows no such option */
            g_clear_error(&error);
            json_free(json_object_take(extra, "backing"));
            node = open_co_file_name(graph, filename, NULL, extra, &inherit, &error);
        }
    }
    if (!node) {
        g_propagate_error(errp, error);
    } else {
        node->backing_skipped = options->no_backing;
    }
    return node;
}

/* Relative to the directory of the image that names it; URLs and absolute paths as is. */
static char *resolve_name(const BlockNode *parent, const char *name)
{
    g_autofree char *protocol = protocol_of(name);
    if (protocol || g_path_is_absolute(name) || !parent->filename) {
        return g_strdup(name);
    }
    g_autofree char *dir = g_path_get_dirname(parent->filename);
    return strcmp(dir, ".") == 0 && !strchr(parent->filename, '/')
               ? g_strdup(name)
               : g_build_filename(dir, name, NULL);
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
    if (g_str_has_prefix(parent->backing_file, "json:")) {
        error_set(errp, "Could not open backing file: a json: name in the header of '%s' "
                        "is not opened; name the backing file in the options",
                  node_filename(parent));
        return NULL;
    }
    g_autofree char *name = resolve_name(parent, parent->backing_file);
    BlockNode *child = open_co_file_name(parent->graph, name, parent->backing_format, NULL,
                                         &down, &error);
    if (!child && strlen(error->message) > 1000) { /* of a long chain: said often enough */
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
