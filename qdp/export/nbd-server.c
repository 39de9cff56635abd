/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server: accepting clients, the life of connections and of exports.
 *
 * S1 a connection is freed by its free_work alone, with nothing of it on the stack;
 * S2 an export is freed when no connection uses it; one that is being removed is out of
 *    the server's list first, so that nobody can choose it.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/base/error.h"
#include "block/base/path.h"
#include "block/node.h"
#include "qdp/export/nbd-listen.h"
#include "qdp/export/nbd.h"
#include "qdp/trace.h"

#define SEND_BUFFER (2 << 20) /* bytes that wait in the kernel for a unix client */
#define NB_TUNED    64 /* connections; it is memory as well, and nobody else counts it */
#define ACCEPT_AGAIN_NS (INT64_C(100) * 1000000)

/* ---- connections ---- */

static bool is_quiet(const NbdConn *conn)
{
    return conn->state >= NBD_CONN_ENDING && !conn->option_out && conn->nb_slots == 0 &&
           conn->nb_status == 0 && !conn->recv.active && !conn->send.active;
}

void nbd_conn_check(NbdConn *conn)
{
    if (G_UNLIKELY(is_quiet(conn))) {
        loop_work_schedule(conn->server->loop, &conn->free_work);
    }
}

static void drop_filling(NbdConn *conn)
{
    if (conn->filling) {
        nbd_slot_put(conn->filling);
        conn->filling = NULL;
    }
}

void nbd_conn_end(NbdConn *conn)
{
    g_assert(!conn->recv.active); /* it is the receiving side that finds the end */
    if (conn->state == NBD_CONN_OPEN) {
        conn->state = NBD_CONN_ENDING;
        drop_filling(conn);
    }
    nbd_conn_check(conn);
}

void nbd_conn_kill(NbdConn *conn)
{
    NbdSlot *slot;

    if (conn->state == NBD_CONN_DEAD) {
        return;
    }
    bool negotiating = conn->state == NBD_CONN_HANDSHAKE;
    conn->state = NBD_CONN_DEAD;
    shutdown(conn->fd, SHUT_RDWR); /* ends what is active: both operations, or the wait
                                      of the handshake's coroutine */
    if (negotiating) {
        return;
    }
    if (!conn->recv.active) { /* else the kernel may be writing into its buffer */
        drop_filling(conn);
    }
    while ((slot = nbd_slots_take(&conn->out)) ||
           (slot = nbd_slots_take(&conn->status_waiting))) {
        nbd_slot_put(slot);
    }
    nbd_conn_check(conn);
}

static void conn_free(LoopWork *work)
{
    NbdConn *conn = container_of(work, NbdConn, free_work);
    NbdServer *server = conn->server;

    TRACE(TRACE_NBD_DISCONNECT, "fd=%d", conn->fd);
    loop_timer_cancel(&conn->handshake_timer);
    loop_work_cancel(&conn->flush_hook);
    list_remove(&conn->in_starved);
    list_remove(&conn->in_server);
    close(conn->fd);
    server->nb_connections--;
    if (conn->export) {
        conn->export->users--;
    }
    for (unsigned i = 0; i < conn->nb_chunks; i++) {
        g_free(conn->chunks[i]);
    }
    nbd_send_area_free(conn->area);
    g_free(conn->context_export);
    munmap(conn->window, NBD_WINDOW);
    g_free(conn);
    buffer_pool_trim_later(server->buffers);
    if (server->listening && !loop_timer_armed(&server->accept_again)) {
        loop_fd_watch(&server->listener, POLLIN); /* there is room again */
    }
    co_queue_wake_all(&server->changed);
}

static void handshake_late(LoopTimer *timer)
{
    nbd_conn_kill(container_of(timer, NbdConn, handshake_timer));
}

static void coroutine_fn conn_entry(void *opaque)
{
    NbdConn *conn = opaque;
    bool ok = nbd_co_handshake(conn);

    loop_timer_cancel(&conn->handshake_timer);
    if (ok && conn->state == NBD_CONN_HANDSHAKE) {
        TRACE(TRACE_NBD_NEGOTIATED, "fd=%d", conn->fd);
        nbd_transmission_start(conn);
        return;
    }
    conn->state = NBD_CONN_DEAD;
    nbd_conn_check(conn);
}

/* A unix socket takes 208 KiB by default: less than one batch of large replies, whose rest
 * would wait for the client to read, and be woken up for, piece by piece. */
static void tune_socket(int fd, bool large)
{
    int one = 1, bytes = SEND_BUFFER;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* fails on unix: fine */
    if (!large) {
        return;
    }
    int domain = 0;
    socklen_t len = sizeof(domain);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX &&
        setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)); /* no privilege */
    }
}

static void conn_new(NbdServer *server, int fd)
{
    /* a mapping of its own: of a small client's window only the first page ever exists
     */
    void *window = mmap(NULL, NBD_WINDOW, PROT_READ | PROT_WRITE,
                        /* cppcheck-suppress invalidFunctionArg ; no file: -1 */
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (window == MAP_FAILED) {
        close(fd);
        return;
    }
    NbdConn *conn = g_new0(NbdConn, 1);
    Coroutine *co = coroutine_try_new(conn_entry, conn, CO_STACK_DATA);

    if (!co) { /* no memory: as if the client had not been accepted */
        munmap(window, NBD_WINDOW);
        g_free(conn);
        close(fd);
        return;
    }

    madvise(window, NBD_WINDOW, MADV_DONTDUMP); /* what guests write passes here */
    tune_socket(fd, server->nb_connections < NB_TUNED);
    conn->server = server;
    conn->fd = fd;
    conn->window = window;
    nbd_slots_init(&conn->out);
    nbd_slots_init(&conn->sending);
    nbd_slots_init(&conn->status_waiting);
    list_init(&conn->in_starved);
    loop_work_init(&conn->flush_hook, nbd_send_replies);
    loop_work_init(&conn->free_work, conn_free);
    list_append(&server->connections, &conn->in_server);
    server->nb_connections++;
    loop_timer_init(&conn->handshake_timer, server->loop, handshake_late);
    loop_timer_arm(&conn->handshake_timer,
                   loop_now_ns(server->loop) + NBD_HANDSHAKE_NS);
    TRACE(TRACE_NBD_CONNECT, "fd=%d", fd);
    coroutine_enter(co);
}

static void accept_clients(LoopFd *watch, unsigned revents)
{
    NbdServer *server = container_of(watch, NbdServer, listener);

    for (;;) {
        if (server->max_connections &&
            server->nb_connections >= server->max_connections) {
            loop_fd_watch(watch, 0); /* the others wait in the backlog */
            return;
        }
        int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            conn_new(server, fd);
            continue;
        }
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
            /* Descriptors or memory are used up: the client stays in the backlog and
             * the listener readable, so look away for a while. */
            loop_fd_watch(watch, 0);
            loop_timer_arm(&server->accept_again,
                           loop_now_ns(server->loop) + ACCEPT_AGAIN_NS);
        }
        return;
    }
}

static void accept_later(LoopTimer *timer)
{
    NbdServer *server = container_of(timer, NbdServer, accept_again);
    loop_fd_watch(&server->listener, POLLIN);
}

/* Is anything left of what others have to wait for? */
static bool has_purse(const NbdServer *server)
{
    return server->shared_bytes + NBD_CONN_SMALL <= NBD_SERVER_BYTES ||
           server->first_bytes < NBD_FIRST_BYTES;
}

/* Those that wait for the memory of all get another chance, in order. */
static void feed_starved(LoopWork *work)
{
    NbdServer *server = container_of(work, NbdServer, feed_work);
    ListLink waiting;

    list_init(&waiting);
    list_splice(&waiting, &server->starved);
    server->feeding = true;
    while (!list_empty(&waiting) && has_purse(server)) {
        NbdConn *conn = list_first(&waiting, NbdConn, in_starved);
        list_remove(&conn->in_starved);
        nbd_transmission_resume(conn);
    }
    server->feeding = false;
    list_splice(&server->starved, &waiting); /* behind those that were asked, and wait on */
}

/* Cut off those connections that use @export; NULL: all. */
static void kill_connections(NbdServer *server, const NbdExport *export)
{
    list_foreach_safe(it, next, &server->connections) {
        NbdConn *conn = container_of(it, NbdConn, in_server);
        if (!export || conn->export == export) {
            nbd_conn_kill(conn);
        }
    }
}

/* ---- server ---- */

NbdServer *coroutine_fn nbd_server_co_start(Graph *graph, const SocketAddress *addr,
                                            uint32_t max_connections, GError **errp)
{
    int fd = nbd_co_listen(graph_loop(graph), addr, errp);
    if (fd < 0) {
        return NULL;
    }
    NbdServer *server = g_new0(NbdServer, 1);
    server->graph = graph;
    server->loop = graph_loop(graph);
    server->max_connections = max_connections;
    server->buffers = buffer_pool_new(server->loop, NBD_KEEP_BYTES);
    server->listening = true;
    list_init(&server->connections);
    list_init(&server->exports);
    list_init(&server->starved);
    loop_work_init(&server->feed_work, feed_starved);
    loop_timer_init(&server->accept_again, server->loop, accept_later);
    co_queue_init(&server->changed, server->loop);
    if (addr->type == SOCKET_ADDRESS_TYPE_UNIX) {
        server->unix_path = path_absolute(addr->u.q_unix.path);
    }
    loop_fd_init(&server->listener, server->loop, fd, accept_clients);
    loop_fd_watch(&server->listener, POLLIN);
    return server;
}

void nbd_server_cut(NbdServer *server)
{
    if (server->listening) {
        server->listening = false;
        loop_timer_cancel(&server->accept_again);
        loop_fd_watch(&server->listener, 0);
        close(server->listener.fd);
        if (server->unix_path) {
            unlink(server->unix_path);
        }
    }
    kill_connections(server, NULL);
}

void coroutine_fn nbd_server_co_stop(NbdServer *server)
{
    nbd_server_cut(server);
    while (server->nb_connections) {
        co_queue_wait(&server->changed);
    }
    g_assert(list_empty(&server->exports));
    loop_work_cancel(&server->feed_work);
    buffer_pool_free(server->buffers);
    g_free(server->unix_path);
    g_free(server);
}

/* ---- exports ---- */

/* A new length needs no word to the clients (the protocol has none): ranges are checked
 * against the port's length at every request. */
static const PortUser nbd_port_user = {.kind = "block export"};

NbdExport *coroutine_fn nbd_export_co_new(NbdServer *server, BlockNode *node,
                                          const char *name, const char *description,
                                          bool writable, bool writethrough,
                                          GError **errp)
{
    unsigned perm = PERM_CONSISTENT_READ | (writable ? PERM_WRITE : 0);
    BlockPort *port =
        port_co_new(node, perm, PERM_ALL, name, &nbd_port_user, NULL, errp);
    if (!port) {
        return NULL;
    }
    NbdExport *export = g_new0(NbdExport, 1);
    export->name = g_strdup(name);
    export->description = g_strdup(description);
    export->port = port;
    export->writable = writable;
    export->writethrough = writethrough;
    list_append(&server->exports, &export->in_server);
    return export;
}

void coroutine_fn nbd_export_co_free(NbdServer *server, NbdExport *export)
{
    list_remove(&export->in_server); /* S2 */
    kill_connections(server, export);
    while (export->users) {
        co_queue_wait(&server->changed);
    }
    port_co_free(export->port);
    g_free(export->name);
    g_free(export->description);
    g_free(export);
}
