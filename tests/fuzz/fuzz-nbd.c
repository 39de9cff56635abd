/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input is what a client sends to the NBD server, over a real socket, to the end of
 * the stream. Its first byte says what is sent before it:
 *   0  nothing: the input is the handshake, too
 *   1  a handshake to structured replies with base:allocation
 *   2  one to simple replies    3  the old one, EXPORT_NAME    4  as 1, read-only
 * The server must answer, close the connection and forget it; structured replies must
 * be a whole number of well formed chunks.
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/node.h"
#include "qapi/qapi-visit.h"
#include "qdp/export/nbd.h"
#include "tests/fuzz/fuzz.h"

#define MAX_REPLIES (256u << 20)

static NbdServer *server;
static char *folder, *path;

typedef struct Run {
    const uint8_t *data;
    size_t size;
    unsigned mode;
    Graph *graph;
    int fd;
    GString *replies;
    bool over; /* the server closed the connection */
    CoQueue changed;
} Run;

/* ---- the client ---- */

static void option(GString *out, uint32_t number, const char *data, size_t len)
{
    NbdWireOption head = {be64_make(NBD_OPTS_MAGIC), be32_make(number),
                          be32_make((uint32_t)len)};
    g_string_append_len(out, (const char *)&head, sizeof(head));
    g_string_append_len(out, data, (gssize)len);
}

static GString *prologue(unsigned mode)
{
    static const char context[] = "\0\0\0\1d\0\0\0\1\0\0\0\17base:allocation";
    GString *out = g_string_new(NULL);

    if (mode == 0) {
        return out;
    }
    g_string_append_len(out, "\0\0\0\3", 4);
    if (mode == 1 || mode == 4) {
        option(out, NBD_OPT_STRUCTURED_REPLY, "", 0);
        option(out, NBD_OPT_SET_META_CONTEXT, context, sizeof(context) - 1);
    }
    if (mode == 3) {
        option(out, NBD_OPT_EXPORT_NAME, "d", 1);
    } else {
        option(out, NBD_OPT_GO, "\0\0\0\1d\0\0", 7);
    }
    return out;
}

static void coroutine_fn co_read(void *opaque)
{
    static char buffer[65536];
    Run *r = opaque;
    ssize_t n;

    while ((n = sock_co_recv(fuzz_loop(), r->fd, buffer, sizeof(buffer))) > 0) {
        if (r->replies->len < MAX_REPLIES) {
            g_string_append_len(r->replies, buffer, n);
        }
    }
    r->over = true;
    co_queue_wake_all(&r->changed);
}

static void coroutine_fn talk(Run *r)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    GString *before = prologue(r->mode);

    g_string_append_len(before, (const char *)r->data, (gssize)r->size);
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    r->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int ret = connect(r->fd, (struct sockaddr *)&address, sizeof(address));
    fuzz_check(ret == 0, "cannot connect: %s", g_strerror(errno));
    coroutine_enter(coroutine_new(co_read, r, CO_STACK_DATA));
    /* fails when the server has closed: fine */
    sock_co_send_all(fuzz_loop(), r->fd, before->str, before->len);
    shutdown(r->fd, SHUT_WR);
    while (!r->over) {
        co_queue_wait(&r->changed);
    }
    close(r->fd);
    g_string_free(before, TRUE);
}

/* ---- what came back ---- */

/* Behind the greeting and the option replies of mode 1; NULL if they end before. */
static const char *skip_handshake(const char *p, const char *end)
{
    NbdWireOptionReply head;

    for (p += sizeof(NbdWireGreeting); end - p >= (ptrdiff_t)sizeof(head);) {
        memcpy(&head, p, sizeof(head));
        fuzz_check(be64_get(head.magic) == NBD_REP_MAGIC, "no option reply");
        p += sizeof(head) + be32_get(head.len);
        if (be32_get(head.option) == NBD_OPT_GO && be32_get(head.type) == NBD_REP_ACK) {
            return p;
        }
    }
    return NULL;
}

static void check_chunks(const Run *r)
{
    const char *end = r->replies->str + r->replies->len;
    const char *p = skip_handshake(r->replies->str, end);
    NbdWireChunk head;

    fuzz_check(p, "the handshake fails");
    while (p < end && r->replies->len < MAX_REPLIES) {
        memset(&head, 0, sizeof(head));
        memcpy(&head, p, MIN((size_t)(end - p), sizeof(head)));
        uint32_t magic = be32_get(head.magic), len = be32_get(head.len);
        if (magic == NBD_SIMPLE_MAGIC) { /* legal where there is no data */
            p += sizeof(NbdWireSimple);
            fuzz_check(p <= end, "a part of a reply");
        } else {
            uint16_t type = be16_get(head.type);
            fuzz_check(magic == NBD_STRUCTURED_MAGIC, "magic %#x", magic);
            fuzz_check(end - p >= (ptrdiff_t)sizeof(head), "a part of a chunk");
            fuzz_check(type <= NBD_REPLY_OFFSET_HOLE || type == NBD_REPLY_BLOCK_STATUS ||
                           type == NBD_REPLY_ERROR,
                       "type %#x", type);
            fuzz_check(len <= NBD_MAX_PAYLOAD + 8 && (ptrdiff_t)len <= end - p - 20,
                       "length %u", len);
            p += sizeof(head) + len;
        }
    }
}

/* ---- the server ---- */

static BlockNode *coroutine_fn open_disk(Run *r)
{
    g_autoptr(GError) error = NULL;
    ImageOpenOptions o = {.format = "qcow2", .writable = true, .unmap = true};
    BlockNode *node = node_co_open_image(r->graph, "image", &o, &error);

    fuzz_check(node, "cannot open the disk: %s", error->message);
    return node;
}

static void coroutine_fn run(void *opaque)
{
    Run *r = opaque;
    BlockNode *node = open_disk(r);
    NbdExport *export =
        nbd_export_co_new(server, node, "d", "a disk", r->mode != 4, false, NULL);

    fuzz_check(export, "no export");
    talk(r);
    if (r->mode == 1) {
        check_chunks(r);
    }
    nbd_export_co_free(server, export);
    fuzz_check(server->nb_connections == 0, "a connection is left");
    fuzz_check(buffer_pool_in_use(server->buffers) == 0, "a buffer is left");
    node_co_unref(node);
}

static void remove_folder(void)
{
    g_unlink(path);
    g_rmdir(folder);
}

static void coroutine_fn start_server(void *opaque)
{
    g_autoptr(GError) error = NULL;
    SocketAddress address = {.type = SOCKET_ADDRESS_TYPE_UNIX, .u.q_unix.path = path};

    server = nbd_server_co_start(opaque, &address, 0, &error);
    fuzz_check(server, "no server: %s", error->message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static Graph *graph;
    static uint8_t image[2048];
    MemFiles files;

    if (size < 1) {
        return 0;
    }
    if (!server) {
        folder = g_dir_make_tmp("fuzz-nbd-XXXXXX", NULL);
        path = g_build_filename(folder, "s", NULL);
        graph = graph_new(fuzz_loop());
        loop_run_coroutine(fuzz_loop(), start_server, graph);
        atexit(remove_folder);
        mem_image_make(image);
    }
    Run r = {.data = data + 1,
             .size = size - 1,
             .mode = data[0] % 5,
             .graph = graph,
             .replies = g_string_new(NULL)};
    co_queue_init(&r.changed, fuzz_loop());
    mem_files_init(&files, image, sizeof(image), 4 << 20);
    graph_set_open_file(graph, mem_files_open, &files);
    loop_run_coroutine(fuzz_loop(), run, &r);
    mem_files_fini(&files);
    g_string_free(r.replies, TRUE);
    return 0;
}
