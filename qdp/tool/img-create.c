/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-img create and resize. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static bool coroutine_fn create_typed(Tool *tool, const JsonValue *options, GError **errp)
{
    g_autoptr(BlockdevCreateOptions) typed =
        qapi_BlockdevCreateOptions_from_keyval(options, "", errp);
    return typed && image_co_create(tool->graph, typed, NULL, NULL, errp);
}

/* compat: of an image that could not be made nothing stays, nor the space that it took; what
 * was there before it has been emptied already. */
static void delete_half_made(const char *filename)
{
    struct stat st;
    if (lstat(filename, &st) == 0 && S_ISREG(st.st_mode)) {
        unlink(filename);
    }
}

bool coroutine_fn img_co_make(Tool *tool, const char *filename, const char *format,
                              const JsonValue *options, uint64_t size, GError **errp)
{
    g_autoptr(JsonValue) file = json_object();
    g_autoptr(JsonValue) image = json_object();
    static const char *const modes[] = {"off", "metadata", "falloc", "full", NULL};
    bool raw = strcmp(format, "raw") == 0;

    if (!img_options_check(format, options, errp)) {
        return false;
    }
    const char *mode = text_option(options, "preallocation");
    if (raw && mode && !g_strv_contains(modes, mode)) {
        error_set(errp, "invalid parameter value: %s", mode); /* compat */
        return false;
    }
    img_options_translate(format, options, file, image);
    g_autofree char *path = open_create_path(filename, errp);
    if (!path) {
        return false;
    }
    json_object_set_string(file, "driver", "file");
    json_object_set_string(file, "filename", path);
    json_object_set_uint(file, "size", raw ? round_up(size, 512) : 0);
    if (!create_typed(tool, file, errp)) {
        return false;
    }
    if (raw) {
        return true;
    }
    JsonValue *child = json_object();
    json_object_set_string(child, "driver", "file");
    json_object_set_string(child, "filename", path);
    json_object_set_string(image, "driver", format);
    json_object_set(image, "file", child);
    json_object_set_uint(image, "size", round_up(size, 512));
    if (!create_typed(tool, image, errp)) {
        delete_half_made(path);
        return false;
    }
    return true;
}

bool coroutine_fn img_co_create_file(Tool *tool, const char *filename, const char *format,
                                     JsonValue *options, uint64_t size, bool quiet,
                                     const char *doing)
{
    GError *error = NULL;
    g_autofree char *path = open_create_path(filename, &error);
    bool ok = path && img_options_check(format, options, &error);
    if (ok && !quiet) {
        img_options_announce(filename, format, options, size);
    }
    if (!ok || !img_co_make(tool, filename, format, options, size, &error)) {
        if (g_str_has_prefix(error->message, "Image size too large for file format")) {
            tool_error(tool, "%s: The image size is too large for file format '%s' (try using a "
                             "larger cluster size)", filename, format);
            g_error_free(error);
            return false;
        }
        if (g_str_has_suffix(error->message, "\" lock")) { /* compat: its hint */
            g_autofree char *text = error->message;
            error->message = g_strdup_printf("%s\nIs another process using the image [%s]?", text,
                                             filename);
        }
        tool_error(tool, "%s: %s%s%s%s", filename, doing ? doing : "", doing ? format : "",
                   doing ? ": " : "", error->message);
        g_error_free(error);
        return false;
    }
    return true;
}

/* compat: a format that was probed is refused, as 7.2 does; as 2.12 did, it is taken with a
 * warning when the environment says so. */
static bool check_backing_format(Tool *tool, const char *filename, const JsonValue *options,
                                 const char *detected)
{
    if (text_option(options, "backing_fmt")) {
        return true;
    }
    if (g_strcmp0(getenv("QEMU_IMG_COMPAT"), "2.12") == 0) {
        fprintf(stderr, "qemu-img: warning: Backing file specified without backing format\n");
        return true;
    }
    fprintf(stderr, "qemu-img: %s: Backing file specified without backing format\n"
                    "Detected format of %s.", filename, detected);
    return false;
}

/* The size of the backing file, which must open; -1 with the error printed. */
static int64_t coroutine_fn backing_size(Tool *tool, const char *filename,
                                         const JsonValue *options)
{
    const char *backing = text_option(options, "backing_file");
    g_autofree char *path = open_backing_name(filename, backing);
    ImageOpenOptions o = {.format = text_option(options, "backing_fmt"), .force_share = true};
    GError *error = NULL;
    BlockNode *node = node_co_open_image(tool->graph, path, &o, &error);
    if (!node) {
        tool_error(tool, "%s: %s\nCould not open backing image.", filename, error->message);
        g_error_free(error);
        return -1;
    }
    int64_t size = (int64_t)node_length(node);
    g_autofree char *detected = g_strdup(node_driver_name(node));
    node_co_unref(node);
    return check_backing_format(tool, filename, options, detected) ? size : -1;
}

static bool size_argument(Tool *tool, const char *text, int64_t *ret)
{
    *ret = tool_parse_size(text);
    if (*ret == -ERANGE) {
        tool_error(tool, "Invalid image size specified. Must be between 0 and %" G_GINT64_FORMAT
                         ".", INT64_MAX);
    } else if (*ret < 0) {
        tool_error(tool, "Invalid image size specified. You may use k, M, G, T, P or E "
                         "suffixes for");
        tool_error(tool, "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
    }
    return *ret >= 0;
}

/* What is asked for, checked in stock's order: options, size, backing file. */
static int coroutine_fn create_image(Tool *tool, const char *filename, const char *format,
                                     JsonValue *options, int64_t size, bool quiet,
                                     bool unsafe)
{
    const char *backing = text_option(options, "backing_file");
    GError *error = NULL;
    uint64_t bytes = 0;

    if (!img_options_check(format, options, &error) ||
        (text_option(options, "size") &&
         !img_option_size("size", text_option(options, "size"), &bytes, &error))) {
        tool_error(tool, "%s: %s", filename, error->message);
        g_error_free(error);
        return 1;
    }
    if (text_option(options, "size")) {
        if (size >= 0) {
            tool_error(tool, "%s: The image size must be specified only once", filename);
            return 1;
        }
        size = (int64_t)bytes;
    }
    if (backing && !backing[0]) {
        tool_error(tool, "%s: Expected backing file name, got empty string", filename);
        return 1;
    }
    if (backing && strcmp(backing, filename) == 0) {
        tool_error(tool, "%s: Error: Trying to create an image with the same filename as the "
                         "backing file", filename);
        return 1;
    }
    if (backing && !(unsafe && size >= 0)) {
        int64_t below = unsafe ? -1 : backing_size(tool, filename, options);
        if (below < 0 && !unsafe) {
            return 1;
        }
        size = size < 0 ? below : size;
    }
    if (backing && unsafe && !text_option(options, "backing_fmt") &&
        g_strcmp0(getenv("QEMU_IMG_COMPAT"), "2.12") != 0) {
        tool_error(tool, "%s: Backing file specified without backing format", filename);
        return 1;
    }
    if (size < 0) {
        tool_error(tool, "%s: Image creation needs a size parameter", filename);
        return 1;
    }
    return img_co_create_file(tool, filename, format, options, (uint64_t)size, quiet, NULL)
               ? 0
               : 1;
}

int coroutine_fn img_create(Tool *tool, int argc, char **argv)
{
    static const struct option longs[] = {{"object", required_argument, NULL, OPT_OBJECT},
                                          {NULL, 0, NULL, 0}};
    g_autoptr(JsonValue) options = json_object();
    const char *format = "raw", *backing = NULL, *backing_format = NULL;
    bool quiet = false, unsafe = false, help = false;
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":F:b:f:o:qu", longs, NULL)) != -1) {
        switch (c) {
        case 'F':
            backing_format = optarg;
            break;
        case 'b':
            backing = optarg;
            break;
        case 'f':
            format = optarg;
            break;
        case 'o':
            help |= strcmp(optarg, "help") == 0 || strcmp(optarg, "?") == 0;
            if (!help && !img_merge_options(tool, options, optarg)) {
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
            tool_refuse_object(tool, optarg);
            return 1;
        default:
            return img_bad_option(tool, c, argv);
        }
    }
    /* compat: -b and -F count, wherever they stand */
    if (backing) {
        json_object_set_string(options, "backing_file", backing);
    }
    if (backing_format) {
        json_object_set_string(options, "backing_fmt", backing_format);
    }
    if (help) {
        img_options_help(format);
        return 0;
    }
    if (optind >= argc) {
        return img_usage_error(tool, "Expecting image file name");
    }
    const char *filename = argv[optind++];
    int64_t size = -1;
    if (optind < argc && !size_argument(tool, argv[optind++], &size)) {
        return 1;
    }
    if (optind < argc) {
        return img_usage_error(tool, "Unexpected argument: %s", argv[optind]);
    }
    return create_image(tool, filename, format, options, size, quiet, unsafe);
}

static bool resize_mode(Tool *tool, const char *text, PreallocMode *ret)
{
    for (int mode = 0; mode < PREALLOC_MODE__MAX; mode++) {
        if (strcmp(PreallocMode_str((PreallocMode)mode), text) == 0) {
            *ret = (PreallocMode)mode;
            return true;
        }
    }
    tool_error(tool, "Invalid preallocation mode '%s'", text);
    return false;
}

static bool resize_may_preallocate(const BlockNode *node, PreallocMode mode, GError **errp)
{
    if (mode == PREALLOC_MODE_METADATA && strcmp(node_driver_name(node), "raw") == 0) {
        error_set(errp, "Unsupported preallocation mode: %s", PreallocMode_str(mode));
    } else {
        error_set(errp, "Preallocation of what a resize adds (%s) is not supported yet",
                  PreallocMode_str(mode));
    }
    return false;
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
    PreallocMode mode = PREALLOC_MODE_OFF;
    int c;

    if (argc < 3) {
        return img_usage_error(tool, "Not enough arguments");
    }
    /* the size may begin with '-': it is always the last argument */
    const char *text = argv[--argc];
    optind = 0;
    while ((c = getopt_long(argc, argv, ":f:q", longs, NULL)) != -1) {
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
            tool_refuse_object(tool, optarg);
            return 1;
        case OPT_PREALLOCATION:
            if (!resize_mode(tool, optarg, &mode)) {
                return 1;
            }
            break;
        default:
            return img_bad_option(tool, c, argv);
        }
    }
    if (optind != argc - 1) {
        return img_usage_error(tool, "Expecting image file name and size");
    }
    int relative = text[0] == '+' ? 1 : text[0] == '-' ? -1 : 0;
    GError *error = NULL;
    uint64_t size;
    if (!img_option_size("size", text + (relative != 0), &size, &error)) {
        tool_error_free(tool, error);
        return 1;
    }
    Image image;
    if (!image_co_open(tool, &image, argv[optind], &o, image_opts)) {
        return 1;
    }
    int64_t now = (int64_t)port_length(image.port);
    /* compat: sizes beyond 2^63 wrap to "not positive" */
    int64_t total = (int64_t)(relative == 0  ? size
                              : relative > 0 ? (uint64_t)now + size
                                             : (uint64_t)now - size);
    int status = 1;
    if (total <= 0) {
        tool_error(tool, "New image size must be positive");
    } else if (total <= now && mode != PREALLOC_MODE_OFF) {
        tool_error(tool, "Preallocation can only be used for growing images");
    } else if (total < now && !shrink) {
        tool_error(tool, "Use the --shrink option to perform a shrink operation.");
        fprintf(stderr, "qemu-img: warning: Shrinking an image will delete all data beyond "
                        "the shrunken image's end. Before performing such an operation, make "
                        "sure there is no important data there.\n");
    } else if ((mode == PREALLOC_MODE_OFF ||
                resize_may_preallocate(image.node, mode, &error)) &&
               graph_co_resize(image.node, (uint64_t)total, &error)) {
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
