/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-img info and check. */
#include <inttypes.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "block/image-info.h"
#include "qapi/qapi-visit.h"
#include "qdp/tool/qemu-img.h"

/* ---- info ---- */

static void print_bitmaps(const Qcow2BitmapInfoList *bitmaps)
{
    printf("    bitmaps:\n");
    for (int i = 0; bitmaps; bitmaps = bitmaps->next, i++) {
        printf("        [%d]:\n            flags:\n", i);
        int n = 0;
        for (const Qcow2BitmapInfoFlagsList *f = bitmaps->value->flags; f; f = f->next) {
            printf("                [%d]: %s\n", n++, Qcow2BitmapInfoFlags_str(f->value));
        }
        printf("            name: %s\n            granularity: %" PRIu32 "\n",
               bitmaps->value->name, bitmaps->value->granularity);
    }
}

static void print_specific(const ImageInfoSpecific *specific)
{
    if (!specific || specific->type != IMAGE_INFO_SPECIFIC_KIND_QCOW2) {
        return;
    }
    const ImageInfoSpecificQCow2 *q = specific->u.qcow2.data;
    printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
           q->compat, Qcow2CompressionType_str(q->compression_type));
    if (q->has_lazy_refcounts) {
        printf("    lazy refcounts: %s\n", q->lazy_refcounts ? "true" : "false");
    }
    if (q->bitmaps) {
        print_bitmaps(q->bitmaps);
    }
    printf("    refcount bits: %" G_GINT64_FORMAT "\n", q->refcount_bits);
    if (q->has_corrupt) {
        printf("    corrupt: %s\n", q->corrupt ? "true" : "false");
    }
    if (q->has_extended_l2) {
        printf("    extended l2: %s\n", q->extended_l2 ? "true" : "false");
    }
}

static void print_snapshots(const SnapshotInfoList *list)
{
    printf("Snapshot list:\n%-9s %-16s %8s %19s %12s %10s\n", "ID", "TAG", "VM SIZE", "DATE",
           "VM CLOCK", "ICOUNT");
    for (; list; list = list->next) {
        const SnapshotInfo *s = list->value;
        g_autofree char *size = tool_size_text((uint64_t)s->vm_state_size);
        g_autoptr(GDateTime) date = g_date_time_new_from_unix_local(s->date_sec);
        g_autofree char *when = date ? g_date_time_format(date, "%Y-%m-%d %H:%M:%S") : NULL;
        g_autofree char *icount = s->has_icount
                                      ? g_strdup_printf("%" G_GINT64_FORMAT, s->icount)
                                      : g_strdup("");
        int64_t sec = s->vm_clock_sec;
        g_autofree char *clock =
            g_strdup_printf("%02d:%02d:%02d.%03d", (int)(sec / 3600), (int)(sec / 60 % 60),
                            (int)(sec % 60), (int)(s->vm_clock_nsec / 1000000));
        printf("%-9s %-16s %8s %19s %12s %10s\n", s->id, s->name, size, when ? when : "",
               clock, icount);
    }
}

static void print_human(const ImageInfo *info)
{
    g_autofree char *virtual_size = tool_size_text((uint64_t)info->virtual_size);
    g_autofree char *disk = info->has_actual_size ? tool_size_text((uint64_t)info->actual_size)
                                                  : g_strdup("unavailable");
    printf("image: %s\nfile format: %s\nvirtual size: %s (%" G_GINT64_FORMAT
           " bytes)\ndisk size: %s\n", info->filename, info->format, virtual_size,
           info->virtual_size, disk);
    if (info->has_cluster_size) {
        printf("cluster_size: %" G_GINT64_FORMAT "\n", info->cluster_size);
    }
    if (info->backing_filename) {
        printf("backing file: %s", info->backing_filename);
        if (info->full_backing_filename &&
            strcmp(info->backing_filename, info->full_backing_filename) != 0) {
            printf(" (actual path: %s)", info->full_backing_filename);
        }
        printf("\n");
        if (info->backing_filename_format) {
            printf("backing file format: %s\n", info->backing_filename_format);
        }
    }
    if (info->snapshots) {
        print_snapshots(info->snapshots);
    }
    print_specific(info->format_specific);
}

static void print_json(const ImageInfo *info, JsonValue *list)
{
    JsonValue *json = qapi_ImageInfo_to_json(info);
    if (list) {
        json_array_append(list, json);
        return;
    }
    g_autofree char *text = json_to_string_pretty(json);
    printf("%s\n", text);
    json_free(json);
}

static void free_info(void *info)
{
    qapi_free_ImageInfo(info);
}

/* Describe the image, and with @chain those below it, each opened alone: what a header names
 * is looked at, never trusted. False with the error printed. */
static bool coroutine_fn collect(Tool *tool, const char *filename, ImageOpenOptions *o,
                                 bool image_opts, bool chain, GPtrArray *infos)
{
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    const ImageInfo *info = NULL;

    do {
        if (!g_hash_table_add(seen, g_strdup(filename))) {
            tool_error(tool, "Backing file '%s' creates an infinite loop.", filename);
            return false;
        }
        Image image;
        if (!image_co_open(tool, &image, filename, o, image_opts)) {
            return false;
        }
        g_ptr_array_add(infos, node_image_info(image.node));
        image_co_close(&image);
        info = infos->pdata[infos->len - 1];
        filename = info->full_backing_filename;
        o->format = info->backing_filename_format;
        o->from_header = true;
        image_opts = false;
    } while (chain && filename);
    return true;
}

int coroutine_fn img_info(Tool *tool, int argc, char **argv)
{
    static const struct option longs[] = {
        {"output", required_argument, NULL, OPT_OUTPUT},
        {"backing-chain", no_argument, NULL, OPT_BACKING_CHAIN},
        {"force-share", no_argument, NULL, 'U'},
        {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
        {"object", required_argument, NULL, OPT_OBJECT},
        {NULL, 0, NULL, 0}};
    ImgArgs args = {.open = {.no_backing = true}};
    bool chain = false;
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":f:U", longs, NULL)) != -1) {
        int taken = img_shared_option(tool, &args, c);
        if (taken < 0) {
            return 1;
        }
        if (c == OPT_BACKING_CHAIN) {
            chain = true;
        } else if (!taken) {
            return img_bad_option(tool, c, argv);
        }
    }
    if (optind != argc - 1) {
        return img_usage_error(tool, "Expecting one image file name");
    }
    g_autoptr(GPtrArray) infos = g_ptr_array_new_with_free_func(free_info);
    if (!collect(tool, argv[optind], &args.open, args.image_opts, chain, infos)) {
        return 1;
    }
    g_autoptr(JsonValue) list = args.json && chain ? json_array() : NULL;
    for (guint i = 0; i < infos->len; i++) {
        const ImageInfo *info = infos->pdata[i];
        if (args.json) {
            print_json(info, list);
        } else {
            printf("%s", i ? "\n" : "");
            print_human(info);
        }
    }
    if (list) {
        g_autofree char *text = json_to_string_pretty(list);
        printf("%s\n", text);
    }
    return 0;
}

/* ---- check ---- */

typedef struct CheckOutput {
    bool quiet;
    bool json;
} CheckOutput;

static void check_message(void *opaque, bool is_error, const char *text)
{
    const CheckOutput *out = opaque;
    if (!out->quiet && !out->json) {
        fflush(stdout);
        fprintf(stderr, "%s\n", text);
    }
}

static void check_human(const CheckResult *r)
{
    if (!r->corruptions && !r->leaks && !r->check_errors) {
        printf("No errors were found on the image.\n");
    } else {
        if (r->corruptions) {
            printf("\n%" G_GINT64_FORMAT " errors were found on the image.\nData may be "
                   "corrupted, or further writes to the image may corrupt it.\n",
                   r->corruptions);
        }
        if (r->leaks) {
            printf("\n%" G_GINT64_FORMAT " leaked clusters were found on the image.\nThis means "
                   "waste of disk space, but no harm to data.\n", r->leaks);
        }
        if (r->check_errors) {
            printf("\n%" G_GINT64_FORMAT " internal errors have occurred during the check.\n",
                   r->check_errors);
        }
    }
    if (r->total_clusters && r->allocated_clusters) {
        printf("%" G_GINT64_FORMAT "/%" G_GINT64_FORMAT " = %0.2f%% allocated, %0.2f%% "
               "fragmented, %0.2f%% compressed clusters\n", r->allocated_clusters,
               r->total_clusters, 100.0 * (double)r->allocated_clusters / (double)r->total_clusters,
               100.0 * (double)r->fragmented_clusters / (double)r->allocated_clusters,
               100.0 * (double)r->compressed_clusters / (double)r->allocated_clusters);
    }
    if (r->image_end_offset) {
        printf("Image end offset: %" G_GINT64_FORMAT "\n", r->image_end_offset);
    }
}

static void check_json(const CheckResult *r, const char *filename, const char *format)
{
    g_autoptr(JsonValue) o = json_object();
    json_object_set_int(o, "image-end-offset", r->image_end_offset);
    json_object_set_int(o, "total-clusters", r->total_clusters);
    json_object_set_int(o, "check-errors", r->check_errors);
    const struct {
        const char *name;
        int64_t value;
    } optional[] = {{"corruptions", r->corruptions},
                    {"leaks", r->leaks},
                    {"corruptions-fixed", r->corruptions_fixed},
                    {"leaks-fixed", r->leaks_fixed},
                    {"allocated-clusters", r->allocated_clusters},
                    {"fragmented-clusters", r->fragmented_clusters},
                    {"compressed-clusters", r->compressed_clusters}};
    for (size_t i = 0; i < G_N_ELEMENTS(optional); i++) {
        if (optional[i].value) {
            json_object_set_int(o, optional[i].name, optional[i].value);
        }
    }
    json_object_set_string(o, "filename", filename);
    json_object_set_string(o, "format", format);
    g_autofree char *text = json_to_string_pretty(o);
    printf("%s\n", text);
}

static int check_status(const CheckResult *r, int ret)
{
    return ret < 0 || r->check_errors ? 1 : r->corruptions ? 2 : r->leaks ? 3 : 0;
}

int coroutine_fn img_check(Tool *tool, int argc, char **argv)
{
    static const struct option longs[] = {
        {"output", required_argument, NULL, OPT_OUTPUT},
        {"repair", required_argument, NULL, 'r'},
        {"force-share", no_argument, NULL, 'U'},
        {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
        {"object", required_argument, NULL, OPT_OBJECT},
        {NULL, 0, NULL, 0}};
    ImgArgs args = {.open = {.no_backing = true}};
    CheckOutput out = {false, false};
    bool writethrough;
    unsigned fix = 0;
    int c;

    optind = 0;
    while ((c = getopt_long(argc, argv, ":f:r:T:qU", longs, NULL)) != -1) {
        int taken = img_shared_option(tool, &args, c);
        if (taken < 0) {
            return 1;
        }
        if (taken) {
            continue;
        }
        switch (c) {
        case 'r':
            fix = strcmp(optarg, "leaks") == 0 ? CHECK_FIX_LEAKS
                  : strcmp(optarg, "all") == 0 ? CHECK_FIX_LEAKS | CHECK_FIX_ERRORS
                                               : 0;
            if (!fix) {
                return img_usage_error(
                    tool, "Unknown option value for -r (expecting 'leaks' or 'all'): %s", optarg);
            }
            break;
        case 'T':
            if (!tool_parse_cache(optarg, &args.open, &writethrough)) {
                tool_error(tool, "Invalid source cache option: %s", optarg);
                return 1;
            }
            break;
        case 'q':
            out.quiet = true;
            break;
        default:
            return img_bad_option(tool, c, argv);
        }
    }
    if (optind != argc - 1) {
        return img_usage_error(tool, "Expecting one image file name");
    }
    args.open.writable = fix != 0;
    out.json = args.json;
    Image image;
    if (!image_co_open(tool, &image, argv[optind], &args.open, args.image_opts)) {
        return 1;
    }
    CheckResult r = {0};
    int ret = node_co_check(image.node, fix, check_message, &out, &r);
    if (ret == -ENOTSUP) {
        tool_error(tool, "This image format does not support checks");
        image_co_close(&image);
        return 63;
    }
    if (ret == 0 && (r.corruptions_fixed || r.leaks_fixed)) {
        if (!out.json && !out.quiet) {
            printf("The following inconsistencies were found and repaired:\n\n    %" G_GINT64_FORMAT
                   " leaked clusters\n    %" G_GINT64_FORMAT " corruptions\n\nDouble checking "
                   "the fixed image now...\n", r.leaks_fixed, r.corruptions_fixed);
        }
        int64_t leaks_fixed = r.leaks_fixed, corruptions_fixed = r.corruptions_fixed;
        ret = node_co_check(image.node, 0, check_message, &out, &r);
        r.leaks_fixed = leaks_fixed;
        r.corruptions_fixed = corruptions_fixed;
    }
    if (ret < 0) {
        tool_error(tool, "Check failed: %s", strerror(-ret));
    } else if (out.json) {
        check_json(&r, argv[optind], node_driver_name(image.node));
    } else if (!out.quiet) {
        check_human(&r);
    }
    image_co_close(&image);
    return check_status(&r, ret);
}
