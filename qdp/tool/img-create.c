/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-img create and resize. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/base/error.h"
#include "block/base/math.h"
#include "qapi/keyval.h"
#include "qapi/qapi-visit.h"
#include "qdp/tool/qemu-img.h"

bool img_merge_options(Tool *tool, JsonValue *options, const char *text)
{
    GError *error = NULL;
    g_autoptr(JsonValue) more = keyval_parse(text, NULL, NULL, &error);
    if (!more) {
        tool_error_free(tool, error);
        return false;
    }
    for (size_t i = 0; i < json_object_size(more); i++) {
        json_object_set(options, json_object_key_at(more, i),
                        json_copy(json_object_value_at(more, i)));
    }
    return true;
}

static const char *text_option(const JsonValue *options, const char *key)
{
    const JsonValue *value = json_object_lookup(options, key);
    return value ? json_get_string(value) : NULL;
}

/* qemu-img's names of creation options, and QAPI's. */
static const struct {
    const char *tool, *qapi;
} option_names[] = {
    {"cluster_size", "cluster-size"},       {"preallocation", "preallocation"},
    {"lazy_refcounts", "lazy-refcounts"},   {"refcount_bits", "refcount-bits"},
    {"backing_file", "backing-file"},       {"backing_fmt", "backing-fmt"},
    {"extended_l2", "extended-l2"},         {"compression_type", "compression-type"},
    {"data_file_raw", "data-file-raw"},     {"nocow", "nocow"},
    {"extent_size_hint", "extent-size-hint"},
};

static bool translate(const JsonValue *options, JsonValue *qapi, GError **errp)
{
    for (size_t i = 0; i < json_object_size(options); i++) {
        const char *key = json_object_key_at(options, i);
        const JsonValue *value = json_object_value_at(options, i);
        const char *name = NULL;
        if (strcmp(key, "size") == 0) {
            continue;
        }
        if (strcmp(key, "compat") == 0) {
            const char *compat = json_get_string(value);
            bool v2 = strcmp(compat, "0.10") == 0 || strcmp(compat, "v2") == 0;
            if (!v2 && strcmp(compat, "1.1") != 0 && strcmp(compat, "v3") != 0) {
                error_set(errp, "Invalid parameter '%s'", compat);
                return false;
            }
            json_object_set_string(qapi, "version", v2 ? "v2" : "v3");
            continue;
        }
        for (size_t k = 0; k < G_N_ELEMENTS(option_names); k++) {
            name = strcmp(option_names[k].tool, key) == 0 ? option_names[k].qapi : name;
        }
        if (!name) {
            error_set(errp, "Invalid parameter '%s'", key);
            return false;
        }
        json_object_set(qapi, name, json_copy(value));
    }
    return true;
}

static bool coroutine_fn create_typed(Tool *tool, const JsonValue *options, GError **errp)
{
    g_autoptr(BlockdevCreateOptions) typed =
        qapi_BlockdevCreateOptions_from_keyval(options, "", errp);
    return typed && image_co_create(tool->graph, typed, errp);
}

bool coroutine_fn img_co_make(Tool *tool, const char *filename, const char *format,
                              const JsonValue *options, uint64_t size, GError **errp)
{
    g_autoptr(JsonValue) file = json_object();
    bool raw = strcmp(format, "raw") == 0;

    if (!raw && strcmp(format, "qcow2") != 0) {
        error_set(errp, "Unknown file format '%s'", format);
        return false;
    }
    json_object_set_string(file, "driver", "file");
    json_object_set_string(file, "filename", filename);
    json_object_set_uint(file, "size", raw ? round_up(size, 512) : 0);
    if (raw && !translate(options, file, errp)) {
        return false;
    }
    if (!create_typed(tool, file, errp) || raw) {
        return raw && (!errp || !*errp);
    }
    g_autoptr(JsonValue) image = json_object();
    JsonValue *child = json_object();
    json_object_set_string(child, "driver", "file");
    json_object_set_string(child, "filename", filename);
    json_object_set_string(image, "driver", format);
    json_object_set(image, "file", child);
    json_object_set_uint(image, "size", round_up(size, 512));
    return translate(options, image, errp) && create_typed(tool, image, errp);
}

/* "Formatting 'x', fmt=qcow2 cluster_size=65536 ...": what will be made, defaults too. */
static void announce(const char *filename, const char *format, const JsonValue *o,
                     uint64_t size)
{
    printf("Formatting '%s', fmt=%s", filename, format);
    if (strcmp(format, "qcow2") == 0) {
        const char *cluster = text_option(o, "cluster_size");
        int64_t bytes = cluster ? tool_parse_size(cluster) : 65536;
        const char *type = text_option(o, "compression_type");
        const char *extended = text_option(o, "extended_l2");
        printf(" cluster_size=%" G_GINT64_FORMAT " extended_l2=%s compression_type=%s", bytes,
               extended ? extended : "off", type ? type : "zlib");
    }
    printf(" size=%" G_GUINT64_FORMAT, size);
    static const char *const shown[] = {"compat", "backing_file", "backing_fmt",
                                        "preallocation"};
    for (size_t i = 0; i < G_N_ELEMENTS(shown); i++) {
        const char *value = text_option(o, shown[i]);
        if (value) {
            printf(" %s=%s", shown[i], value);
        }
    }
    if (strcmp(format, "qcow2") == 0) {
        const char *lazy = text_option(o, "lazy_refcounts");
        const char *bits = text_option(o, "refcount_bits");
        printf(" lazy_refcounts=%s refcount_bits=%s", lazy ? lazy : "off", bits ? bits : "16");
    }
    printf("\n");
}

bool coroutine_fn img_co_create_file(Tool *tool, const char *filename, const char *format,
                                     JsonValue *options, uint64_t size, bool quiet)
{
    GError *error = NULL;
    if (!quiet) {
        announce(filename, format, options, size);
    }
    if (!img_co_make(tool, filename, format, options, size, &error)) {
        tool_error(tool, "%s: %s", filename, error->message);
        g_error_free(error);
        return false;
    }
    return true;
}

/* The size of the backing file, which must open; -1 with the error printed. */
static int64_t coroutine_fn backing_size(Tool *tool, const char *filename,
                                         const JsonValue *options)
{
    const char *backing = text_option(options, "backing_file");
    g_autofree char *dir = g_path_get_dirname(filename);
    g_autofree char *path = g_path_is_absolute(backing) ? g_strdup(backing)
                                                        : g_build_filename(dir, backing, NULL);
    ImageOpenOptions o = {.format = text_option(options, "backing_fmt"), .force_share = true};
    GError *error = NULL;
    BlockNode *node = node_co_open_image(tool->graph, path, &o, &error);
    if (!node) {
        tool_error(tool, "%s: %s\nCould not open backing image.", filename, error->message);
        g_error_free(error);
        return -1;
    }
    int64_t size = (int64_t)node_length(node);
    node_co_unref(node);
    return size;
}

static bool check_backing_format(Tool *tool, const char *filename, const JsonValue *options)
{
    if (!text_option(options, "backing_file") || text_option(options, "backing_fmt")) {
        return true;
    }
    const char *compat = getenv("QEMU_IMG_COMPAT");
    if (compat && strcmp(compat, "2.12") == 0) {
        fprintf(stderr, "qemu-img: warning: Backing file specified without backing format\n");
        return true;
    }
    tool_error(tool, "%s: Backing file specified without backing format", filename);
    return false;
}

int coroutine_fn img_create(Tool *tool, int argc, char **argv)
{
    static const struct option longs[] = {{"object", required_argument, NULL, OPT_OBJECT},
                                          {NULL, 0, NULL, 0}};
    g_autoptr(JsonValue) options = json_object();
    const char *format = "raw";
    bool quiet = false, unsafe = false;
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, "F:b:f:o:qu", longs, NULL)) != -1) {
        switch (c) {
        case 'F':
            json_object_set_string(options, "backing_fmt", optarg);
            break;
        case 'b':
            json_object_set_string(options, "backing_file", optarg);
            break;
        case 'f':
            format = optarg;
            break;
        case 'o':
            if (!img_merge_options(tool, options, optarg)) {
                return 1;
            }
            break;
        case 'q':
            quiet = true;
            break;
        case 'u':
            unsafe = true;
            break;
        case OPT_OBJECT:
            break;
        default:
            return 1;
        }
    }
    if (optind >= argc) {
        tool_error(tool, "Expecting image file name");
        return 1;
    }
    const char *filename = argv[optind++];
    int64_t size = -1;
    const char *size_text = optind < argc ? argv[optind++] : text_option(options, "size");
    if (size_text) {
        size = tool_parse_size(size_text);
        if (size < 0) {
            tool_error(tool, size == -ERANGE
                                 ? "%s: Image size must be less than 8 EiB!"
                                 : "Invalid image size specified. You may use k, M, G, T, P or "
                                   "E suffixes for kilobytes, megabytes, gigabytes, "
                                   "terabytes, petabytes and exabytes.", filename);
            return 1;
        }
    }
    if (optind < argc) {
        tool_error(tool, "Unexpected argument: %s", argv[optind]);
        return 1;
    }
    if (!check_backing_format(tool, filename, options)) {
        return 1;
    }
    if (text_option(options, "backing_file") && !(unsafe && size >= 0)) {
        int64_t backing = backing_size(tool, filename, options);
        if (backing < 0) {
            return 1;
        }
        size = size < 0 ? backing : size;
    }
    if (size < 0) {
        tool_error(tool, "%s: Image creation needs a size parameter", filename);
        return 1;
    }
    return img_co_create_file(tool, filename, format, options, (uint64_t)size, quiet) ? 0 : 1;
}

int coroutine_fn img_resize(Tool *tool, int argc, char **argv)
{
    static const struct option longs[] = {{"shrink", no_argument, NULL, OPT_SHRINK},
                                          {"object", required_argument, NULL, OPT_OBJECT},
                                          {"preallocation", required_argument, NULL,
                                           OPT_PREALLOCATION},
                                          {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
                                          {NULL, 0, NULL, 0}};
    ImageOpenOptions o = {.writable = true};
    bool quiet = false, shrink = false, image_opts = false;
    int c;

    if (argc < 3) {
        tool_error(tool, "Not enough arguments");
        return 1;
    }
    /* the size may begin with '-': it is always the last argument */
    const char *text = argv[--argc];
    optind = 0;
    while ((c = getopt_long(argc, argv, "f:q", longs, NULL)) != -1) {
        switch (c) {
        case 'f':
            o.format = optarg;
            break;
        case 'q':
            quiet = true;
            break;
        case OPT_SHRINK:
            shrink = true;
            break;
        case OPT_IMAGE_OPTS:
            image_opts = true;
            break;
        case OPT_OBJECT:
        case OPT_PREALLOCATION:
            break;
        default:
            return 1;
        }
    }
    if (optind != argc - 1) {
        tool_error(tool, "Expecting image file name and size");
        return 1;
    }
    int relative = text[0] == '+' ? 1 : text[0] == '-' ? -1 : 0;
    int64_t size = tool_parse_size(text + (relative != 0));
    if (size < 0) {
        tool_error(tool, "Parameter 'size' expects a non-negative number below 2^64");
        return 1;
    }
    Image image;
    if (!image_co_open(tool, &image, argv[optind], &o, image_opts)) {
        return 1;
    }
    int64_t now = (int64_t)port_length(image.port);
    int64_t total = relative ? now + relative * size : size;
    GError *error = NULL;
    int status = 1;
    if (total <= 0) {
        tool_error(tool, "New image size must be positive");
    } else if (total < now && !shrink) {
        tool_error(tool, "Use the --shrink option to perform a shrink operation.");
        fprintf(stderr, "qemu-img: warning: Shrinking an image will delete all data beyond "
                        "the shrunken image's end. Before performing such an operation, make "
                        "sure there is no important data there.\n");
    } else if (graph_co_resize(image.node, (uint64_t)total, &error)) {
        status = 0;
        if (!quiet) {
            printf("Image resized.\n");
        }
    } else {
        tool_error_free(tool, error);
    }
    image_co_close(&image);
    return status;
}
