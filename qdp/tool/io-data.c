/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-io: the commands that move data. compat: options and output are QEMU's. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "block/aio/disk.h"
#include "block/base/math.h"
#include "qdp/tool/qemu-io.h"

#define MAX_IOV 256

typedef struct Request {
    Io *io;
    BlockOp op;
    bool quiet, check_pattern, dump, raw_report, is_aio;
    int pattern; /* -1: none given */
    uint64_t pattern_offset, pattern_len; /* what to check of a read */
    bool has_pattern_range;
    unsigned flags;
    uint64_t offset, len;
    uint8_t *buf;
    struct iovec iov[MAX_IOV];
    int niov;
    int64_t start_ns;
    BlockRequest req; /* aio */
} Request;

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static const char *verb(const Request *r)
{
    return r->op == BLOCK_READ ? "read" : r->op == BLOCK_DISCARD ? "discard" : "wrote";
}

/* compat: stock calls a failed aio_read "readv". */
static const char *failed_verb(const Request *r)
{
    switch (r->op) {
    case BLOCK_READ:
        return r->is_aio ? "readv" : "read";
    case BLOCK_DISCARD:
        return "discard";
    default:
        return r->is_aio ? "aio_write" : "write";
    }
}

/* compat: beyond the end is an I/O error in the tool's words, whatever the port says. */
static bool outside(const Request *r)
{
    uint64_t length = port_length(r->io->port);
    return r->offset > length || r->len > length - r->offset;
}

static void dump(const uint8_t *buf, uint64_t offset, uint64_t len)
{
    for (uint64_t i = 0; i < len; i += 16) {
        printf("%08" G_GINT64_MODIFIER "x:  ", offset + i);
        for (uint64_t j = i; j < i + 16 && j < len; j++) {
            printf("%02x ", buf[j]);
        }
        printf(" ");
        for (uint64_t j = i; j < i + 16 && j < len; j++) {
            printf("%c", g_ascii_isalnum(buf[j]) ? buf[j] : '.');
        }
        printf("\n");
    }
}

static bool pattern_matches(const Request *r)
{
    for (uint64_t i = 0; i < r->pattern_len; i++) {
        if (r->buf[r->pattern_offset + i] != (uint8_t)r->pattern) {
            return false;
        }
    }
    return true;
}

/* What is printed when a request has ended. 0 or -1. */
static int finish(Request *r, int ret)
{
    int64_t elapsed = now_ns() - r->start_ns;
    if (ret < 0) {
        printf("%s failed: %s\n", failed_verb(r), strerror(-ret));
        return -1;
    }
    int status = 0;
    if (r->op == BLOCK_READ && r->check_pattern && !pattern_matches(r)) {
        printf("Pattern verification failed at offset %" G_GUINT64_FORMAT ", %" G_GUINT64_FORMAT
               " bytes\n", r->offset + r->pattern_offset, r->pattern_len);
        status = -1;
    }
    if (!r->quiet) {
        if (r->dump) {
            dump(r->buf, r->offset, r->len);
        }
        io_report(verb(r), elapsed, r->offset, r->len, r->len, 1);
    }
    return status;
}

static int coroutine_fn run(Request *r)
{
    r->start_ns = now_ns();
    int ret = -EIO;
    if (!outside(r)) {
        ret = port_co_rwv(r->io->port, r->op, r->offset, r->len,
                          r->op <= BLOCK_WRITE ? r->iov : NULL, r->niov, r->flags);
    }
    int status = finish(r, ret);
    disk_buffer_free(r->buf);
    return status;
}

/* ---- aio ---- */

static void aio_done(BlockRequest *req, int ret)
{
    Request *r = container_of(req, Request, req);
    finish(r, ret);
    r->io->nb_aio--;
    co_queue_wake_all(&r->io->aio_done);
    disk_buffer_free(r->buf);
    g_free(r);
}

static void submit_aio(const Request *from)
{
    Request *r = g_memdup(from, sizeof(*from));
    r->start_ns = now_ns();
    if (outside(r)) {
        finish(r, -EIO);
        disk_buffer_free(r->buf);
        g_free(r);
        return;
    }
    r->req = (BlockRequest){.done = aio_done, .iov = r->op <= BLOCK_WRITE ? r->iov : NULL,
                            .niov = (uint16_t)r->niov, .offset = r->offset, .len = r->len,
                            .op = r->op, .flags = (uint8_t)r->flags};
    r->io->nb_aio++;
    port_submit(r->io->port, &r->req);
}

/* ---- options ---- */

static bool parse_pattern(const char *text, int *ret)
{
    char *end;
    unsigned long value = strtoul(text, &end, 0);
    if (end == text || *end || value > 255) {
        fprintf(stderr, "%s is not a valid pattern byte\n", text);
        return false;
    }
    *ret = (int)value;
    return true;
}

static bool fill_buffer(Request *r)
{
    if (r->op > BLOCK_WRITE) {
        return true;
    }
    r->buf = disk_buffer_try_alloc(4096, round_up(max_u64(r->len, 1), 4096));
    if (!r->buf) {
        fprintf(stderr, "no memory for %" G_GUINT64_FORMAT " bytes\n", r->len);
        return false;
    }
    memset(r->buf, r->op == BLOCK_WRITE ? (r->pattern >= 0 ? r->pattern : 0xcd) : 0xab,
           r->len);
    return true;
}

/* Offset and one or more lengths: the vector. */
static bool parse_range(Request *r, int argc, char **argv)
{
    int64_t offset, len;
    if (!io_size_arg(argv[0], &offset)) {
        return false;
    }
    r->offset = (uint64_t)offset;
    r->len = 0;
    if (argc - 1 > MAX_IOV) {
        fprintf(stderr, "too many lengths\n");
        return false;
    }
    for (int i = 1; i < argc; i++) {
        if (!io_size_arg(argv[i], &len)) {
            return false;
        }
        if (len > INT32_MAX) {
            printf("length cannot exceed %d, given %s\n", INT32_MAX & ~511, argv[i]);
            return false;
        }
        r->iov[i - 1].iov_len = (size_t)len;
        r->len += (uint64_t)len;
    }
    r->niov = argc - 1;
    if (!fill_buffer(r)) {
        return false;
    }
    uint64_t pos = 0;
    for (int i = 0; i < r->niov; i++) {
        r->iov[i].iov_base = r->buf + pos;
        pos += r->iov[i].iov_len;
    }
    return true;
}

/* An offset and one length, or more of them where the command takes a vector; else the
 * command's usage is printed. */
static bool io_arg_count(const char *command, int count)
{
    static const char *const vectors[] = {"readv", "writev", "aio_read", "aio_write", NULL};
    if (count == 2 || (count > 2 && g_strv_contains(vectors, command))) {
        return true;
    }
    for (const IoCommand *c = io_data_commands; c->name; c++) {
        if (strcmp(c->name, command) == 0 || g_strcmp0(c->alias, command) == 0) {
            printf("%s %s -- %s\n", c->name, c->args, c->help);
        }
    }
    return false;
}

static bool parse_read_options(Request *r, int argc, char **argv)
{
    int c;
    int64_t len = -1, at = -1;
    optind = 0;
    while ((c = getopt(argc, argv, "+bCl:pP:qs:vr")) != -1) {
        switch (c) {
        case 'P':
            r->check_pattern = true;
            if (!parse_pattern(optarg, &r->pattern)) {
                return false;
            }
            break;
        case 'l':
            if (!io_size_arg(optarg, &len)) {
                return false;
            }
            break;
        case 's':
            if (!io_size_arg(optarg, &at)) {
                return false;
            }
            break;
        case 'q':
            r->quiet = true;
            break;
        case 'v':
            r->dump = true;
            break;
        case 'C':
        case 'p':
        case 'r':
            break;
        default:
            return false;
        }
    }
    r->has_pattern_range = len >= 0 || at >= 0;
    r->pattern_len = len >= 0 ? (uint64_t)len : UINT64_MAX;
    r->pattern_offset = at >= 0 ? (uint64_t)at : 0;
    return true;
}

static int coroutine_fn do_read(Io *io, int argc, char **argv, bool aio)
{
    Request r = {.io = io, .op = BLOCK_READ, .pattern = -1, .is_aio = aio};
    if (!parse_read_options(&r, argc, argv) || !io_arg_count(argv[0], argc - optind)) {
        return -1;
    }
    if (!parse_range(&r, argc - optind, argv + optind)) {
        return -1;
    }
    if (r.pattern_offset > r.len ||
        (r.pattern_len != UINT64_MAX && r.pattern_len > r.len - r.pattern_offset)) {
        printf("pattern verification range exceeds end of read data\n");
        disk_buffer_free(r.buf);
        return -1;
    }
    r.pattern_len = min_u64(r.pattern_len, r.len - r.pattern_offset);
    if (aio) {
        submit_aio(&r);
        return 0;
    }
    return run(&r);
}

static int coroutine_fn cmd_read(Io *io, int argc, char **argv)
{
    return do_read(io, argc, argv, false);
}

static int coroutine_fn cmd_aio_read(Io *io, int argc, char **argv)
{
    return do_read(io, argc, argv, true);
}

static int coroutine_fn do_write(Io *io, int argc, char **argv, bool aio)
{
    Request r = {.io = io, .op = BLOCK_WRITE, .pattern = -1, .is_aio = aio};
    bool zero = false, unmap = false, no_fallback = false;
    int c;
    if (!io->writable) {
        tool_error(io->tool, "Block node is read-only");
        return -1;
    }
    optind = 0;
    while ((c = getopt(argc, argv, "+bcCfnpP:qs:uz")) != -1) {
        switch (c) {
        case 'f':
            r.flags |= BLOCK_FUA;
            break;
        case 'n':
            no_fallback = true;
            break;
        case 'P':
            if (!parse_pattern(optarg, &r.pattern)) {
                return -1;
            }
            break;
        case 'q':
            r.quiet = true;
            break;
        case 'u':
            unmap = true;
            break;
        case 'z':
            zero = true;
            break;
        case 'C':
        case 'p':
            break;
        default:
            fprintf(stderr, "option -%c is not supported\n", c == '?' ? optopt : c);
            return -1;
        }
    }
    if (unmap && !zero) {
        printf("-u requires -z to be specified\n");
        return -1;
    }
    if (no_fallback && !zero) {
        printf("-n requires -z to be specified\n");
        return -1;
    }
    if (zero && r.pattern >= 0) {
        printf("Only one of -z, -P, and -s can be specified at the same time\n");
        return -1;
    }
    if (!io_arg_count(argv[0], argc - optind)) {
        return -1;
    }
    if (zero) {
        r.op = BLOCK_WRITE_ZEROES;
        r.flags |= (unmap ? BLOCK_MAY_UNMAP : 0) | (no_fallback ? BLOCK_NO_FALLBACK : 0);
    }
    if (io->writethrough) {
        r.flags |= BLOCK_FUA;
    }
    if (!parse_range(&r, argc - optind, argv + optind)) {
        return -1;
    }
    if (aio) {
        submit_aio(&r);
        return 0;
    }
    return run(&r);
}

static int coroutine_fn cmd_write(Io *io, int argc, char **argv)
{
    return do_write(io, argc, argv, false);
}

static int coroutine_fn cmd_aio_write(Io *io, int argc, char **argv)
{
    return do_write(io, argc, argv, true);
}

static int coroutine_fn cmd_discard(Io *io, int argc, char **argv)
{
    Request r = {.io = io, .op = BLOCK_DISCARD, .pattern = -1};
    int c;
    if (!io->writable) {
        tool_error(io->tool, "Block node is read-only");
        return -1;
    }
    optind = 0;
    while ((c = getopt(argc, argv, "+Cq")) != -1) {
        if (c == '?') {
            return -1;
        }
        r.quiet |= c == 'q';
    }
    if (!io_arg_count(argv[0], argc - optind) || !parse_range(&r, 2, argv + optind)) {
        return -1;
    }
    return run(&r);
}

static int coroutine_fn cmd_flush(Io *io, int argc, char **argv)
{
    int ret = port_co_flush(io->port);
    if (ret < 0) {
        printf("flush failed: %s\n", strerror(-ret));
    }
    return ret < 0 ? -1 : 0;
}

static int coroutine_fn cmd_aio_flush(Io *io, int argc, char **argv)
{
    while (io->nb_aio) {
        co_queue_wait(&io->aio_done);
    }
    return 0;
}

const IoCommand io_data_commands[] = {
    {"read", "r", 2, -1, "[-Cqv] [-P pattern [-s off] [-l len]] off len", "read bytes",
     cmd_read},
    {"readv", NULL, 2, -1, "[-Cqv] [-P pattern] off len [len..]", "read into a vector",
     cmd_read},
    {"write", "w", 2, -1, "[-fnquz] [-P pattern] off len", "write bytes", cmd_write},
    {"writev", NULL, 2, -1, "[-fq] [-P pattern] off len [len..]", "write from a vector",
     cmd_write},
    {"aio_read", NULL, 2, -1, "[-Cqv] [-P pattern] off len [len..]", "start a read",
     cmd_aio_read},
    {"aio_write", NULL, 2, -1, "[-fquz] [-P pattern] off len [len..]", "start a write",
     cmd_aio_write},
    {"aio_flush", NULL, 0, 0, NULL, "wait for what was started", cmd_aio_flush},
    {"discard", "d", 2, -1, "[-Cq] off len", "discard bytes", cmd_discard},
    {"flush", "f", 0, 0, NULL, "flush all", cmd_flush},
    {.name = NULL},
};
