/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qemu-img convert and rebase -u.
 *
 * Convert walks the source's status, so that holes cost nothing, and keeps several copies
 * in flight: each worker takes the next piece, reads it, and writes it unless it is zero.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/aio/disk.h"
#include "block/base/iov.h"
#include "block/base/math.h"
#include "block/qcow2/format.h"
#include "qdp/tool/qemu-img.h"

#define PIECE       (2 * MiB)
#define MAX_WORKERS 16

typedef struct Convert {
    Tool *tool;
    Image *sources;
    int nb_sources;
    Image target;
    uint64_t total, next, copied;
    uint64_t sparse; /* zero runs of at least this are not written; 0: write all */
    bool target_zero;  /* a fresh image reads as zeros */
    bool target_backed; /* what the backing file has is left to it */
    int error;
    int running;
    CoQueue done;
} Convert;

/* The source that has @offset, and where its bytes begin. */
static Image *source_at(const Convert *c, uint64_t offset, uint64_t *ret_start)
{
    uint64_t start = 0;
    for (int i = 0; i < c->nb_sources; i++) {
        uint64_t len = port_length(c->sources[i].port);
        if (offset < start + len) {
            *ret_start = start;
            return &c->sources[i];
        }
        start += len;
    }
    return NULL;
}

/* Write a piece in runs: zeros of at least `sparse` bytes stay holes. */
static int coroutine_fn write_piece(Convert *c, uint64_t offset, uint8_t *buf, uint64_t len)
{
    uint64_t unit = c->sparse ? round_up(c->sparse, 512) : len;
    int ret = 0;
    for (uint64_t pos = 0; pos < len && ret == 0;) {
        bool zero = c->sparse && buffer_is_zero(buf + pos, min_u64(unit, len - pos));
        uint64_t run = min_u64(unit, len - pos);
        while (c->sparse && pos + run < len &&
               buffer_is_zero(buf + pos + run, min_u64(unit, len - pos - run)) == zero) {
            run += min_u64(unit, len - pos - run);
        }
        if (!zero) {
            ret = port_co_write(c->target.port, offset + pos, run, buf + pos, 0);
        } else if (!c->target_zero) {
            ret = port_co_write_zeroes(c->target.port, offset + pos, run, BLOCK_MAY_UNMAP);
        }
        pos += run;
    }
    return ret;
}

/* Take the next piece: an extent, limited. False: nothing is left. */
static bool coroutine_fn next_piece(Convert *c, uint64_t *offset, uint64_t *len,
                                    BlockExtent *extent, Image **source, uint64_t *start)
{
    if (c->error || c->next >= c->total) {
        return false;
    }
    *offset = c->next;
    *source = source_at(c, *offset, start);
    uint64_t end = *start + port_length((*source)->port);
    /* order: claimed before the status yields; the rest of a longer extent is not lost, the
     * next one asks again */
    *len = min_u64(PIECE, end - *offset);
    c->next += *len;
    return true;
}

static int coroutine_fn copy_piece(Convert *c, uint8_t *buf, Image *source, uint64_t start,
                                   uint64_t offset, uint64_t len)
{
    while (len) {
        BlockExtent extent;
        int ret = port_co_status(source->port, offset - start, len, &extent);
        if (ret < 0) {
            return ret;
        }
        uint64_t n = extent.len;
        bool below = c->target_backed && !(extent.flags & EXTENT_ALLOCATED);
        below |= c->target_backed && extent.depth > 0;
        if (below) {
            ret = 0; /* the target's backing file has it */
        } else if ((extent.flags & EXTENT_ZERO) && c->sparse) {
            if (!c->target_zero) {
                ret = port_co_write_zeroes(c->target.port, offset, n, BLOCK_MAY_UNMAP);
            }
        } else {
            ret = port_co_read(source->port, offset - start, n, buf, BLOCK_NO_PROMOTE);
            if (ret == 0) {
                ret = write_piece(c, offset, buf, n);
            }
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        len -= n;
    }
    return 0;
}

static void coroutine_fn worker(void *opaque)
{
    Convert *c = opaque;
    uint8_t *buf = disk_buffer_try_alloc(4096, PIECE);
    uint64_t offset, len, start;
    BlockExtent extent;
    Image *source;

    if (!buf && !c->error) {
        c->error = -ENOMEM;
        tool_error(c->tool, "no memory for a buffer: %s", strerror(ENOMEM));
    }
    while (buf && next_piece(c, &offset, &len, &extent, &source, &start)) {
        int ret = copy_piece(c, buf, source, start, offset, len);
        c->copied += len;
        tool_progress(c->tool, 100.0 * (double)c->copied / (double)c->total);
        if (ret < 0 && !c->error) {
            c->error = ret;
            tool_progress_end(c->tool);
            tool_error(c->tool, "error while converting at byte %" G_GUINT64_FORMAT ": %s",
                       offset, strerror(-ret));
        }
    }
    disk_buffer_free(buf);
    c->running--;
    co_queue_wake_all(&c->done);
}

static int coroutine_fn run_workers(Convert *c, int nb)
{
    co_queue_init(&c->done, c->tool->loop);
    c->running = nb;
    for (int i = 0; i < nb; i++) {
        Coroutine *co = coroutine_try_new(worker, c, CO_STACK_DATA);
        if (!co) { /* those that did start do all the work */
            c->running -= nb - i;
            if (i == 0) {
                tool_error(c->tool, "no memory for a worker: %s", strerror(ENOMEM));
                return -ENOMEM;
            }
            break;
        }
        coroutine_enter(co);
    }
    while (c->running) {
        co_queue_wait(&c->done);
    }
    return c->error ? c->error : port_co_flush(c->target.port);
}

typedef struct ConvertOptions {
    ImageOpenOptions source, target;
    JsonValue *create;
    const char *format;
    bool no_create, quiet, image_opts, target_image_opts, target_is_zero, compress;
    bool help, has_options, has_sparse, has_format, offload;
    int status; /* when parse_options() says no */
    int64_t sparse;
    int workers;
} ConvertOptions;

static bool check_combination(Tool *tool, const ConvertOptions *o)
{
    const char *text = NULL;
    if (o->target_image_opts && o->has_format) {
        text = "Cannot use --target-image-opts with -O";
    } else if (o->target_image_opts && !o->no_create) {
        text = "--target-image-opts requires use of -n flag";
    } else if (o->target_is_zero && !o->no_create) {
        text = "--target-is-zero requires use of -n flag";
    } else if (o->no_create && o->has_options) {
        text = "-o has no effect when skipping image creation";
    } else if (o->offload && o->has_sparse) {
        text = "Cannot enable copy offloading when -S is used";
    }
    if (text) {
        tool_error(tool, "%s", text);
    }
    return !text;
}

static bool parse_options(Tool *tool, int argc, char **argv, ConvertOptions *o)
{
    static const struct option longs[] = {
        {"force-share", no_argument, NULL, 'U'},
        {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
        {"target-image-opts", no_argument, NULL, OPT_TARGET_IMAGE_OPTS},
        {"target-is-zero", no_argument, NULL, OPT_SHRINK},
        {"bitmaps", no_argument, NULL, OPT_NOT_BUILT},
        {"skip-broken-bitmaps", no_argument, NULL, OPT_NOT_BUILT},
        {"salvage", no_argument, NULL, OPT_NOT_BUILT},
        {"object", required_argument, NULL, OPT_OBJECT},
        {NULL, 0, NULL, 0}};
    bool writethrough;
    long workers;
    char *end;
    int c;
    optind = 0;
    while ((c = getopt_long(argc, argv, ":f:O:B:F:o:S:t:T:m:r:l:WnpqcUC", longs, NULL)) != -1) {
        switch (c) {
        case 'f':
            o->source.format = optarg;
            break;
        case 'O':
            o->format = optarg;
            o->has_format = true;
            break;
        case 'B':
            json_object_set_string(o->create, "backing_file", optarg);
            break;
        case 'F':
            json_object_set_string(o->create, "backing_fmt", optarg);
            break;
        case 'o':
            o->help |= strcmp(optarg, "help") == 0 || strcmp(optarg, "?") == 0;
            if (!o->help && !img_merge_options(tool, o->create, optarg)) {
                return false;
            }
            o->has_options = true;
            break;
        case 'S':
            o->sparse = tool_parse_size(optarg);
            o->has_sparse = true;
            if (o->sparse == -EINVAL) {
                tool_error(tool, "Invalid buffer size for sparse output specified. You may use "
                                 "k, M, G, T, P or E suffixes for");
                tool_error(tool, "kilobytes, megabytes, gigabytes, terabytes, petabytes and "
                                 "exabytes.");
                return false;
            }
            if (o->sparse < 0 || o->sparse % 512 || o->sparse > 16 * MiB) {
                tool_error(tool, "Invalid buffer size for sparse output specified. Valid sizes "
                                 "are multiples of 512 up to 16777216. Select 0 to disable "
                                 "sparse detection (fully allocates output).");
                return false;
            }
            break;
        case 't':
        case 'T':
            if (!tool_parse_cache(optarg, c == 't' ? &o->target : &o->source, &writethrough)) {
                tool_error(tool, "Invalid %scache option: %s",
                           c == 't' ? "" : "source ", optarg);
                return false;
            }
            break;
        case 'm':
            workers = strtol(optarg, &end, 10);
            if (*end || workers < 1 || workers > MAX_WORKERS) {
                tool_error(tool, "Invalid number of coroutines. Allowed number of coroutines is "
                                 "between 1 and %d", MAX_WORKERS);
                return false;
            }
            o->workers = (int)workers;
            break;
        case 'n':
            o->no_create = true;
            break;
        case 'q':
            o->quiet = true;
            break;
        case 'U':
            o->source.force_share = true;
            break;
        case 'c':
            o->compress = true;
            break;
        case OPT_IMAGE_OPTS:
            o->image_opts = true;
            break;
        case OPT_TARGET_IMAGE_OPTS:
            o->target_image_opts = true;
            break;
        case OPT_SHRINK:
            o->target_is_zero = true;
            break;
        case 'r':
            tool_error(tool, "Rate limits are not supported yet");
            return false;
        case 'l':
        case OPT_NOT_BUILT:
            tool_error(tool, "%s is not supported yet",
                       c == 'l' ? "Reading an internal snapshot (-l)" : argv[optind - 1]);
            return false;
        case 'C': /* copies as it can: by reading and writing */
            o->offload = true;
            break;
        case 'W':
            break;
        case 'p':
            tool->progress = true;
            break;
        case OPT_OBJECT:
            tool_refuse_object(tool, optarg);
            return false;
        default:
            img_bad_option(tool, c, argv);
            return false;
        }
    }
    if (o->help) {
        img_options_help(o->format);
        o->status = 0;
        return false;
    }
    tool->progress &= !o->quiet;
    if (argc - optind < 2) {
        tool_error(tool, "Must specify image file name");
        return false;
    }
    return check_combination(tool, o);
}

static bool coroutine_fn open_sources(Convert *c, const ConvertOptions *o, char **names, int n)
{
    c->sources = g_new0(Image, n);
    for (int i = 0; i < n; i++) {
        if (!image_co_open(c->tool, &c->sources[i], names[i], &o->source, o->image_opts)) {
            return false;
        }
        c->nb_sources++;
        c->total += port_length(c->sources[i].port);
    }
    return true;
}

/* Is @name a file of the images that are read? It would be emptied, or changed on the way. */
static bool is_source(const Convert *c, const char *name)
{
    struct stat target, st;
    g_autofree char *path = open_create_path(name, NULL);
    if (!path || stat(path, &target) < 0 || S_ISCHR(target.st_mode)) {
        return false;
    }
    for (int i = 0; i < c->nb_sources; i++) {
        for (BlockNode *node = c->sources[i].node; node; node = node_backing(node)) {
            const char *file = node_filename(node);
            if (file && stat(file, &st) == 0 && st.st_dev == target.st_dev &&
                st.st_ino == target.st_ino) {
                return true;
            }
        }
    }
    return false;
}

static bool coroutine_fn open_target(Convert *c, ConvertOptions *o, const char *name)
{
    const JsonValue *backing = json_object_lookup(o->create, "backing_file");
    GError *error = NULL;
    g_autofree char *path = o->no_create ? NULL : open_create_path(name, &error);
    if (error) {
        tool_error_free(c->tool, error);
        return false;
    }
    if (!o->no_create && !img_options_check(o->format, o->create, &error)) {
        tool_error_free(c->tool, error);
        return false;
    }
    if (o->compress) {
        tool_error(c->tool, strcmp(o->format, "raw") == 0
                                ? "Compression not supported for this file format"
                                : "Writing compressed clusters is not supported yet");
        return false;
    }
    if (backing && !o->no_create && !json_object_lookup(o->create, "backing_fmt")) {
        tool_error(c->tool, "Use of backing file requires explicit backing format");
        return false;
    }
    if (!o->no_create &&
        !img_co_create_file(c->tool, name, o->format, o->create, c->total, true,
                            "error while converting ")) {
        return false;
    }
    o->target.writable = true;
    o->target.unmap = true;
    o->target.format = o->target_image_opts ? NULL : o->format;
    if (is_source(c, name)) {
        tool_error(c->tool, "Could not open '%s': Failed to get \"write\" lock\n"
                            "Is another process using the image [%s]?", name, name);
        return false;
    }
    if (!image_co_open(c->tool, &c->target, name, &o->target, o->target_image_opts)) {
        return false;
    }
    c->target_backed = node_backing(c->target.node) != NULL;
    c->target_zero = !c->target_backed &&
                     (o->target_is_zero ||
                      (!o->no_create && node_new_image_is_zero(c->target.node)));
    if (port_length(c->target.port) < c->total) {
        tool_error(c->tool, "output file is smaller than input file");
        return false;
    }
    return true;
}

int coroutine_fn img_convert(Tool *tool, int argc, char **argv)
{
    g_autoptr(JsonValue) create = json_object();
    ConvertOptions o = {.create = create, .format = "raw", .sparse = 4096, .workers = 8,
                        .status = 1};
    Convert c = {.tool = tool};
    int status = 1;

    if (!parse_options(tool, argc, argv, &o)) {
        return o.status;
    }
    if (open_sources(&c, &o, argv + optind, argc - optind - 1) &&
        open_target(&c, &o, argv[argc - 1])) {
        c.sparse = (uint64_t)o.sparse;
        tool_progress(tool, 0);
        int ret = run_workers(&c, o.workers);
        if (ret == 0) {
            tool_progress(tool, 100);
        }
        tool_progress_end(tool);
        if (ret < 0 && !c.error) {
            tool_error(tool, "error while flushing the output: %s", strerror(-ret));
        }
        status = ret < 0;
    }
    if (c.target.node) {
        image_co_close(&c.target);
    }
    for (int i = 0; i < c.nb_sources; i++) {
        image_co_close(&c.sources[i]);
    }
    g_free(c.sources);
    return status;
}

/* ---- rebase -u ---- */

/* The new name (and format) in the first cluster: extensions are kept, the format one is
 * replaced, the name goes behind them. */
static int rewrite_backing(uint8_t *head, size_t cluster, const char *name, const char *format)
{
    Qcow2DiskHeader *h = (Qcow2DiskHeader *)head;
    bool v3 = be32_get(h->version) >= 3;
    size_t pos = v3 ? be32_get(h->header_length) : QCOW2_V2_HEADER_LENGTH;
    g_autofree uint8_t *out = g_malloc0(cluster);
    size_t at = pos;

    memcpy(out, head, pos);
    for (;;) {
        Qcow2DiskExtension ext;
        if (pos + sizeof(ext) > cluster) {
            return -EINVAL;
        }
        memcpy(&ext, head + pos, sizeof(ext));
        size_t len = round_up(be32_get(ext.length), 8);
        if (be32_get(ext.type) == QCOW2_EXT_END) {
            break;
        }
        if (len > cluster - pos - sizeof(ext)) {
            return -EINVAL;
        }
        if (be32_get(ext.type) != QCOW2_EXT_BACKING_FORMAT) {
            memcpy(out + at, head + pos, sizeof(ext) + len);
            at += sizeof(ext) + len;
        }
        pos += sizeof(ext) + len;
    }
    if (strlen(name) > QCOW2_MAX_BACKING_NAME) {
        return -EINVAL;
    }
    size_t need = at + 8 + round_up(strlen(format), 8) + 8 + strlen(name);
    if (need > cluster) {
        return -ENOSPC;
    }
    if (format[0]) {
        Qcow2DiskExtension ext = {be32_make(QCOW2_EXT_BACKING_FORMAT),
                                  be32_make((uint32_t)strlen(format))};
        memcpy(out + at, &ext, sizeof(ext));
        memcpy(out + at + 8, format, strlen(format));
        at += 8 + round_up(strlen(format), 8);
    }
    at += 8; /* the end marker */
    h = (Qcow2DiskHeader *)out;
    h->backing_file_offset = be64_make(name[0] ? at : 0);
    h->backing_file_size = be32_make((uint32_t)strlen(name));
    memcpy(out + at, name, strlen(name));
    memcpy(head, out, cluster);
    return 0;
}

int coroutine_fn img_rebase(Tool *tool, int argc, char **argv)
{
    static const struct option longs[] = {{"force-share", no_argument, NULL, 'U'},
                                          {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
                                          {"object", required_argument, NULL, OPT_OBJECT},
                                          {NULL, 0, NULL, 0}};
    ImageOpenOptions o = {.no_backing = true};
    const char *backing = "", *backing_format = "";
    bool unsafe = false, has_backing = false, quiet = false, writethrough;
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":f:F:b:upqt:T:U", longs, NULL)) != -1) {
        switch (c) {
        case 'f':
            o.format = optarg;
            break;
        case 'F':
            backing_format = optarg;
            break;
        case 'b':
            backing = optarg;
            has_backing = true;
            break;
        case 'u':
            unsafe = true;
            break;
        case 't':
        case 'T':
            if (!tool_parse_cache(optarg, &o, &writethrough)) {
                tool_error(tool, "Invalid %scache option: %s", c == 't' ? "" : "source ",
                           optarg);
                return 1;
            }
            break;
        case 'U':
            o.force_share = true;
            break;
        case OPT_IMAGE_OPTS:
            tool_error(tool, "--image-opts is not supported yet by rebase");
            return 1;
        case OPT_OBJECT:
            tool_refuse_object(tool, optarg);
            return 1;
        case 'p':
            tool->progress = true;
            break;
        case 'q':
            quiet = true;
            break;
        default:
            return img_bad_option(tool, c, argv);
        }
    }
    if (optind != argc - 1) {
        return img_usage_error(tool, "Expecting one image file name");
    }
    if (!unsafe) {
        if (!has_backing) {
            return img_usage_error(tool, "Must specify backing file (-b) or use unsafe mode (-u)");
        }
        tool_error(tool, "Only rebase -u is supported yet");
        return 1;
    }
    if (backing_format[0] && strcmp(backing_format, "qcow2") != 0 &&
        strcmp(backing_format, "raw") != 0) {
        tool_error(tool, "Invalid format name: '%s'", backing_format);
        return 1;
    }
    if (backing[0] && !backing_format[0] && g_strcmp0(getenv("QEMU_IMG_COMPAT"), "2.12") != 0) {
        tool_error(tool, "Could not change the backing file to '%s': backing format must be "
                         "specified", backing);
        return 1;
    }
    Image image;
    if (!image_co_open(tool, &image, argv[optind], &o, false)) {
        return 1;
    }
    uint32_t cluster = node_cluster_size(image.node);
    image_co_close(&image);
    if (!cluster) {
        tool_error(tool, "Could not change the backing file to '%s': %s", backing,
                   strerror(EOPNOTSUPP));
        return 1;
    }
    g_autofree uint8_t *head = g_malloc0(cluster);
    int fd = open(argv[optind], O_RDWR | O_CLOEXEC);
    int ret = fd < 0 || pread(fd, head, cluster, 0) < 0 ? -errno : 0;
    if (ret == 0) {
        ret = rewrite_backing(head, cluster, backing, backing_format);
    }
    if (ret == 0 && (pwrite(fd, head, cluster, 0) != (ssize_t)cluster || fsync(fd) < 0)) {
        ret = errno ? -errno : -EIO;
    }
    if (fd >= 0) {
        close(fd);
    }
    tool->progress &= !quiet;
    tool_progress(tool, 0);
    if (ret == 0) {
        tool_progress(tool, 100);
    }
    tool_progress_end(tool);
    if (ret < 0) {
        tool_error(tool, "Could not change the backing file to '%s': %s", backing,
                   strerror(-ret));
    }
    return ret < 0;
}
