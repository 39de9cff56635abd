/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-img map and compare. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "block/aio/disk.h"
#include "block/base/iov.h"
#include "block/base/math.h"
#include "qdp/tool/qemu-img.h"

/* ---- map ---- */

typedef struct MapOutput {
    bool json;
    bool first;
    uint64_t start;
    BlockExtent extent; /* what is not printed yet; len 0: nothing */
} MapOutput;

static bool map_flush(Tool *tool, MapOutput *out)
{
    const BlockExtent *e = &out->extent;
    bool data = e->flags & EXTENT_DATA;
    if (e->len == 0) {
        return true;
    }
    if (out->json) {
        bool present = e->flags & (EXTENT_ALLOCATED | EXTENT_DATA);
        printf("%s{ \"start\": %" G_GUINT64_FORMAT ", \"length\": %" G_GUINT64_FORMAT
               ", \"depth\": %d, \"present\": %s, \"zero\": %s, \"data\": %s",
               out->first ? "[" : ",\n", out->start, e->len, e->depth,
               present ? "true" : "false", e->flags & EXTENT_ZERO ? "true" : "false",
               data ? "true" : "false");
        if (e->flags & EXTENT_OFFSET) {
            printf(", \"offset\": %" G_GUINT64_FORMAT, e->host_offset);
        }
        printf("}");
    } else if (data && !(e->flags & EXTENT_ZERO)) {
        if (!(e->flags & EXTENT_OFFSET)) {
            tool_error(tool, "File contains external, encrypted or compressed clusters.");
            return false;
        }
        g_autofree char *length = g_strdup_printf("0x%" G_GINT64_MODIFIER "x", e->len);
        g_autofree char *start = g_strdup_printf("0x%" G_GINT64_MODIFIER "x", out->start);
        g_autofree char *host = g_strdup_printf("0x%" G_GINT64_MODIFIER "x", e->host_offset);
        printf("%-16s%-16s%-16s%s\n", out->start ? start : "0", length,
               e->host_offset ? host : "0", e->file ? node_filename(e->file) : "");
    }
    out->first = false;
    return true;
}

static bool map_continues(const MapOutput *out, const BlockExtent *next)
{
    const BlockExtent *e = &out->extent;
    const unsigned mask = EXTENT_DATA | EXTENT_ZERO | EXTENT_ALLOCATED | EXTENT_OFFSET;
    return e->len && (e->flags & mask) == (next->flags & mask) && e->depth == next->depth &&
           e->file == next->file &&
           (!(e->flags & EXTENT_OFFSET) || e->host_offset + e->len == next->host_offset);
}

static bool map_size(Tool *tool, const char *what, const char *text, int64_t *ret)
{
    *ret = tool_parse_size(text);
    if (*ret == -ERANGE) {
        tool_error(tool, "Invalid %s specified. Must be between 0 and %" G_GINT64_FORMAT ".",
                   what, INT64_MAX);
    } else if (*ret < 0) {
        tool_error(tool, "Invalid %s specified. You may use k, M, G, T, P or E suffixes for",
                   what);
        tool_error(tool, "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
    }
    return *ret >= 0;
}

int coroutine_fn img_map(Tool *tool, int argc, char **argv)
{
    static const struct option longs[] = {
        {"output", required_argument, NULL, OPT_OUTPUT},
        {"force-share", no_argument, NULL, 'U'},
        {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
        {"object", required_argument, NULL, OPT_OBJECT},
        {"start-offset", required_argument, NULL, OPT_START},
        {"max-length", required_argument, NULL, OPT_MAX_LENGTH},
        {NULL, 0, NULL, 0}};
    ImgArgs args = {0};
    MapOutput out = {.first = true};
    int64_t start = 0, max = -1;
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":f:s:l:U", longs, NULL)) != -1) {
        int taken = img_shared_option(tool, &args, c);
        if (taken < 0) {
            return 1;
        }
        if (taken) {
            continue;
        }
        switch (c) {
        case 's':
        case OPT_START:
            if (!map_size(tool, "start offset", optarg, &start)) {
                return 1;
            }
            break;
        case 'l':
        case OPT_MAX_LENGTH:
            if (!map_size(tool, "max length", optarg, &max)) {
                return 1;
            }
            break;
        default:
            return img_bad_option(tool, c, argv);
        }
    }
    Image image;
    if (optind != argc - 1) {
        return img_usage_error(tool, "Expecting one image file name");
    }
    out.json = args.json;
    if (!image_co_open(tool, &image, argv[optind], &args.open, args.image_opts)) {
        return 1;
    }
    if (!out.json) {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    }
    uint64_t end = port_length(image.port), pos = (uint64_t)start;
    end = max >= 0 ? min_u64(end, pos + (uint64_t)max) : end;
    int status = 0;
    while (pos < end && status == 0) {
        BlockExtent extent;
        int ret = port_co_status(image.port, pos, min_u64(end - pos, 1 * GiB), &extent);
        if (ret < 0) {
            tool_error(tool, "Failed to read image metadata: %s", strerror(-ret));
            status = 1;
        } else if (map_continues(&out, &extent)) {
            out.extent.len += extent.len;
        } else {
            status = map_flush(tool, &out) ? 0 : 1;
            out.extent = extent;
            out.start = pos;
        }
        pos += extent.len;
    }
    if (status == 0) {
        status = map_flush(tool, &out) ? 0 : 1;
    }
    if (out.json && out.first) { /* compat: nothing is one extent of no bytes */
        printf("[{ \"start\": %" G_GINT64_FORMAT ", \"length\": 0, \"depth\": 0, "
               "\"present\": false, \"zero\": false, \"data\": false}", start);
    }
    if (out.json) {
        printf("]\n");
    }
    image_co_close(&image);
    return status;
}

/* ---- compare ---- */

#define COMPARE_BYTES (2 * MiB)

typedef struct Compare {
    Tool *tool;
    Image image[2];
    uint8_t *buf[2];
    struct {
        uint64_t end; /* how far the status holds */
        unsigned status;
    } run[2];
    bool strict, quiet;
} Compare;

static int coroutine_fn compare_report(const Compare *c, const char *text, uint64_t offset)
{
    if (!c->quiet) {
        printf("%s at offset %" G_GUINT64_FORMAT "!\n", text, offset);
    }
    return 1;
}

/* What image @i has at @pos, and for how many bytes. compat: strict mode compares the kind of
 * the whole extent and whether it ends with the image. */
static unsigned coroutine_fn compare_status(Compare *c, int i, uint64_t pos, uint64_t *len,
                                            int *ret)
{
    const unsigned mask = EXTENT_DATA | EXTENT_ZERO | EXTENT_ALLOCATED;
    uint64_t end = port_length(c->image[i].port);
    BlockExtent extent;

    *ret = 0;
    if (pos >= c->run[i].end) {
        c->run[i].end = pos;
        while (c->run[i].end < end) {
            *ret = port_co_status(c->image[i].port, c->run[i].end, end - c->run[i].end, &extent);
            if (*ret < 0 || (c->run[i].end > pos &&
                             (extent.flags & mask) != (c->run[i].status & mask))) {
                break;
            }
            c->run[i].status = extent.flags & (mask | EXTENT_EOF);
            c->run[i].end += extent.len;
        }
    }
    *len = min_u64(*len, c->run[i].end - pos);
    return c->run[i].status;
}

static int coroutine_fn compare_range(Compare *c, uint64_t pos, uint64_t end)
{
    while (pos < end) {
        uint64_t len = min_u64(end - pos, COMPARE_BYTES);
        int ret;
        unsigned first = compare_status(c, 0, pos, &len, &ret);
        unsigned second = ret == 0 ? compare_status(c, 1, pos, &len, &ret) : 0;
        if (ret == 0 && c->strict && first != second) {
            if (!c->quiet) {
                printf("Strict mode: Offset %" G_GUINT64_FORMAT " block status mismatch!\n", pos);
            }
            return 1;
        }
        if (ret == 0 && !(first & second & EXTENT_ZERO)) {
            for (int i = 0; i < 2 && ret == 0; i++) {
                ret = port_co_read(c->image[i].port, pos, len, c->buf[i], BLOCK_NO_PROMOTE);
            }
            for (uint64_t k = 0; ret == 0 && k < len; k++) {
                if (c->buf[0][k] != c->buf[1][k]) {
                    /* compat: reported with the granularity of a sector */
                    return compare_report(c, "Content mismatch", pos + round_down(k, 512));
                }
            }
        }
        if (ret < 0) {
            tool_error(c->tool, "Error while reading offset %" G_GUINT64_FORMAT ": %s", pos,
                       strerror(-ret));
            return 4;
        }
        pos += len;
        tool_progress(c->tool, 100.0 * (double)pos / (double)end);
    }
    return 0;
}

/* What one image has beyond the end of the other must be zeros. */
static int coroutine_fn compare_tail(Compare *c, int longer, uint64_t pos, uint64_t end)
{
    while (pos < end) {
        uint64_t len = min_u64(end - pos, COMPARE_BYTES);
        int ret;
        unsigned status = compare_status(c, longer, pos, &len, &ret);
        if (ret == 0 && !(status & EXTENT_ZERO)) {
            ret = port_co_read(c->image[longer].port, pos, len, c->buf[0], BLOCK_NO_PROMOTE);
            for (uint64_t k = 0; ret == 0 && k < len; k += 512) {
                if (!buffer_is_zero(c->buf[0] + k, min_u64(512, len - k))) {
                    return compare_report(c, "Content mismatch", pos + k);
                }
            }
        }
        if (ret < 0) {
            return 4;
        }
        pos += len;
    }
    return 0;
}

static int coroutine_fn compare_images(Compare *c)
{
    uint64_t len0 = port_length(c->image[0].port), len1 = port_length(c->image[1].port);
    if (len0 != len1) {
        if (c->strict) {
            if (!c->quiet) {
                printf("Strict mode: Image size mismatch!\n");
            }
            return 1;
        }
    }
    int status = compare_range(c, 0, min_u64(len0, len1));
    if (status == 0 && len0 != len1) {
        if (!c->quiet) {
            printf("Warning: Image size mismatch!\n");
        }
        status = compare_tail(c, len1 > len0, min_u64(len0, len1), max_u64(len0, len1));
    }
    if (status == 0) {
        tool_progress(c->tool, 100);
    }
    if (status == 0 && !c->quiet) {
        printf("Images are identical.\n");
    }
    return status;
}

int coroutine_fn img_compare(Tool *tool, int argc, char **argv)
{
    static const struct option longs[] = {
        {"force-share", no_argument, NULL, 'U'},
        {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
        {"object", required_argument, NULL, OPT_OBJECT},
        {NULL, 0, NULL, 0}};
    ImageOpenOptions o[2] = {{0}, {0}};
    Compare cmp = {.tool = tool};
    bool image_opts = false, writethrough;
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":f:F:T:pqsU", longs, NULL)) != -1) {
        switch (c) {
        case 'f':
        case 'F':
            o[c == 'F'].format = optarg;
            break;
        case 'T':
            for (int i = 0; i < 2; i++) {
                if (!tool_parse_cache(optarg, &o[i], &writethrough)) {
                    tool_error(tool, "Invalid source cache option: %s", optarg);
                    return 2;
                }
            }
            break;
        case 'q':
            cmp.quiet = true;
            break;
        case 's':
            cmp.strict = true;
            break;
        case 'U':
            o[0].force_share = o[1].force_share = true;
            break;
        case OPT_IMAGE_OPTS:
            image_opts = true;
            break;
        case 'p':
            tool->progress = true;
            break;
        case OPT_OBJECT:
            tool_refuse_object(tool, optarg);
            return 2;
        default:
            return img_bad_option(tool, c, argv);
        }
    }
    tool->progress &= !cmp.quiet;
    if (optind != argc - 2) {
        return img_usage_error(tool, "Expecting two image file names");
    }
    if (!image_co_open(tool, &cmp.image[0], argv[optind], &o[0], image_opts)) {
        return 2;
    }
    if (!image_co_open(tool, &cmp.image[1], argv[optind + 1], &o[1], image_opts)) {
        image_co_close(&cmp.image[0]);
        return 2;
    }
    int status = 2;
    cmp.buf[0] = disk_buffer_try_alloc(4096, COMPARE_BYTES);
    cmp.buf[1] = disk_buffer_try_alloc(4096, COMPARE_BYTES);
    if (cmp.buf[0] && cmp.buf[1]) {
        tool_progress(tool, 0);
        status = compare_images(&cmp);
    }
    tool_progress_end(tool);
    disk_buffer_free(cmp.buf[0]);
    disk_buffer_free(cmp.buf[1]);
    image_co_close(&cmp.image[0]);
    image_co_close(&cmp.image[1]);
    return status;
}
