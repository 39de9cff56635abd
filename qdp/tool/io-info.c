/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-io: commands that ask about the image, and how results are worded. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "block/base/error.h"
#include "block/base/math.h"
#include "qdp/tool/qemu-io.h"

bool io_size_arg(const char *text, int64_t *ret)
{
    *ret = tool_parse_size(text);
    if (*ret == -ERANGE) {
        printf("Parsing error: argument too large -- %s\n", text);
    } else if (*ret < 0) {
        printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- "
               "%s\n", text);
    }
    return *ret >= 0;
}

char *io_size_text(double bytes)
{
    static const char *const units[] = {" bytes", " KiB", " MiB", " GiB",
                                        " TiB",   " PiB", " EiB"};
    unsigned i = 0;
    while (bytes >= 1024 && i + 1 < G_N_ELEMENTS(units)) {
        bytes /= 1024;
        i++;
    }
    char *number = g_strdup_printf("%.3f", bytes);
    if (g_str_has_suffix(number, ".000")) {
        number[strlen(number) - 4] = '\0';
    }
    char *text = g_strconcat(number, units[i], NULL);
    g_free(number);
    return text;
}

void io_report(const char *verb, int64_t elapsed_ns, uint64_t offset, uint64_t count,
               uint64_t total, int nb_ops)
{
    double seconds = (double)MAX(elapsed_ns, 1) / 1e9;
    g_autofree char *size = io_size_text((double)total);
    g_autofree char *rate = io_size_text((double)total / seconds);
    printf("%s %" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT " bytes at offset %" G_GUINT64_FORMAT
           "\n", verb, total, count, offset);
    printf("%s, %d ops; %05.2f sec (%s/sec and %.4f ops/sec)\n", size, nb_ops, seconds, rate,
           nb_ops / seconds);
}

static int coroutine_fn cmd_length(Io *io, int argc, char **argv)
{
    g_autofree char *text = io_size_text((double)port_length(io->port));
    printf("%s\n", text);
    return 0;
}

static int coroutine_fn cmd_truncate(Io *io, int argc, char **argv)
{
    int64_t size;
    GError *error = NULL;
    int at = argc > 1 && strcmp(argv[1], "-m") == 0 ? 3 : 1;
    if (!io->writable) {
        tool_error(io->tool, "Block node is read-only");
        return -1;
    }
    if (at == 3 && strcmp(argv[2], "off") != 0) {
        printf("preallocation mode %s is not supported yet\n", argv[2]);
        return -1;
    }
    if (at >= argc || !io_size_arg(argv[at], &size)) {
        return -1;
    }
    if (!graph_co_resize(io->node, (uint64_t)size, &error)) {
        tool_error_free(io->tool, error);
        return -1;
    }
    return 0;
}

/* Is the first byte allocated in this one layer, and how far is that so? */
static int coroutine_fn layer_run(Io *io, uint64_t offset, uint64_t len, bool *ret_allocated,
                                  uint64_t *ret_len)
{
    *ret_len = 0;
    while (*ret_len < len) {
        BlockExtent extent;
        int ret = node_co_status(io->node, offset + *ret_len, len - *ret_len, &extent);
        if (ret < 0) {
            return ret;
        }
        bool allocated = extent.flags & EXTENT_ALLOCATED;
        if (*ret_len && allocated != *ret_allocated) {
            break;
        }
        *ret_allocated = allocated;
        *ret_len += extent.len;
    }
    return 0;
}

static int coroutine_fn cmd_alloc(Io *io, int argc, char **argv)
{
    int64_t offset, len = 512;
    uint64_t sum = 0;
    if (!io_size_arg(argv[1], &offset) || (argc == 3 && !io_size_arg(argv[2], &len))) {
        return -1;
    }
    int64_t length = (int64_t)port_length(io->port);
    len = offset >= length ? 0 : MIN(len, length - offset);
    for (uint64_t pos = 0; pos < (uint64_t)len;) {
        bool allocated = false;
        uint64_t run;
        int ret = layer_run(io, offset + pos, len - pos, &allocated, &run);
        if (ret < 0 || run == 0) {
            printf("is_allocated failed: %s\n", strerror(ret < 0 ? -ret : EIO));
            return -1;
        }
        sum += allocated ? run : 0;
        pos += run;
    }
    g_autofree char *text = io_size_text((double)offset);
    printf("%" G_GUINT64_FORMAT "/%" G_GINT64_FORMAT " bytes allocated at offset %s\n", sum,
           len, text);
    return 0;
}

static int coroutine_fn cmd_map(Io *io, int argc, char **argv)
{
    uint64_t length = port_length(io->port);
    if (!length) {
        return 0;
    }
    for (uint64_t pos = 0; pos < length;) {
        bool allocated = false;
        uint64_t run;
        int ret = layer_run(io, pos, length - pos, &allocated, &run);
        if (ret < 0) {
            printf("Failed to get allocation status\n");
            return -1;
        }
        g_autofree char *size = io_size_text((double)run);
        g_autofree char *at = io_size_text((double)pos);
        printf("%s (0x%" G_GINT64_MODIFIER "x) bytes %sallocated at offset %s (0x%"
               G_GINT64_MODIFIER "x)\n", size, run, allocated ? "    " : "not ", at, pos);
        pos += run;
    }
    return 0;
}

static int coroutine_fn cmd_sleep(Io *io, int argc, char **argv)
{
    int64_t ms = tool_parse_size(argv[1]);
    if (ms < 0) {
        printf("%s is not a valid number of milliseconds\n", argv[1]);
        return -1;
    }
    co_sleep_ns(io->tool->loop, ms * 1000000);
    return 0;
}

/* ---- breakpoints of blkdebug ---- */

static int cmd_break(Io *io, int argc, char **argv)
{
    int ret = node_debug_break(io->node, argv[1], argv[2]);
    if (ret < 0) {
        printf("Could not set breakpoint: %s\n", strerror(-ret));
    }
    return ret < 0 ? -1 : 0;
}

static int cmd_remove_break(Io *io, int argc, char **argv)
{
    int ret = node_debug_remove_break(io->node, argv[1]);
    if (ret < 0) {
        printf("Could not remove breakpoint %s: %s\n", argv[1], strerror(-ret));
    }
    return ret < 0 ? -1 : 0;
}

static int cmd_resume(Io *io, int argc, char **argv)
{
    int ret = node_debug_resume(io->node, argv[1]);
    if (ret < 0) {
        printf("Could not resume request: %s\n", strerror(-ret));
    }
    return ret < 0 ? -1 : 0;
}

/* compat: without a blkdebug it waits for ever, as stock does. */
static int coroutine_fn cmd_wait_break(Io *io, int argc, char **argv)
{
    while (!node_debug_is_suspended(io->node, argv[1])) {
        co_sleep_ns(io->tool->loop, 1000000);
    }
    return 0;
}

const IoCommand io_info_commands[] = {
    {"break", "b", 2, 2, "event tag", "stop a request at an event of blkdebug", cmd_break},
    {"remove_break", NULL, 1, 1, "tag", "forget it, let go who stands there",
     cmd_remove_break},
    {"resume", "r", 1, 1, "tag", "let the request go on", cmd_resume},
    {"wait_break", "w", 1, 1, "tag", "wait until a request stands there", cmd_wait_break},
    {"length", "l", 0, 0, NULL, "the image's length", cmd_length},
    {"truncate", "t", 1, 3, "[-m mode] size", "change the length", cmd_truncate},
    {"alloc", "a", 1, 2, "off [len]", "how much is allocated", cmd_alloc},
    {"map", NULL, 0, 0, NULL, "what is allocated where", cmd_map},
    {"sleep", NULL, 1, 1, "ms", "wait", cmd_sleep},
    {.name = NULL},
};
