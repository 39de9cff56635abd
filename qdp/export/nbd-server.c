/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The NBD server: accepting clients, the life of connections and exports. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "block/base/error.h"
#include "block/node.h"
#include "qdp/export/nbd-listen.h"
#include "qdp/export/nbd.h"

/* ---- connections ---- */

void nbd_conn_gone(NbdConn *conn)
{
    NbdServer *server = conn->server;

    loop_timer_cancel(&conn->handshake_timer);
    if (conn->window) {
        loop_work_cancel(&conn->flush_hook);
    }
    close(conn->fd);
    list_remove(&conn->in_server);
    server->nb_connections--;
    if (conn->export) {
        conn->export->users--;
    }
    if (server->nb_connections == 0) {
        nbd_buffers_trim(server->buffers);
    }
    co_queue_wake_all(&server->changed);
    if (server->listening) { /* there is room again */
        loop_fd_watch(&server->listener, POLLIN);
    }
    g_free(conn->window);
    g_free(conn->send_iov);
    g_free(conn);
}

static void handshake_late(LoopTimer *timer)
{
    NbdConn *conn = container_of(timer, NbdConn, handshake_timer);
    shutdown(conn->fd, SHUT_RDWR); /* the coroutine sees the end and cleans up */
}

static void coroutine_fn conn_entry(void *opaque)
{
    NbdConn *conn = opaque;
    bool ok = nbd_co_handshake(conn);

    loop_timer_cancel(&conn->handshake_timer);
    if (ok && !conn->closing) {
        nbd_transmission_start(conn);
        return;
    }
    conn->closing = true;
    conn->in_handshake = false;
    nbd_conn_gone(conn);
}

static void conn_new(NbdServer *server, int fd)
{
    NbdConn *conn = g_new0(NbdConn, 1);
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* fails on unix: fine */
    conn->server = server;
    conn->fd = fd;
    conn->in_handshake = true;
    list_append(&server->connections, &conn->in_server);
    server->nb_connections++;
    loop_timer_init(&conn->handshake_timer, server->loop, handshake_late);
    loop_timer_arm(&conn->handshake_timer, loop_now_ns(server->loop) + NBD_HANDSHAKE_NS);
    coroutine_enter(coroutine_new(conn_entry, conn, CO_STACK_DATA));
}

static void accept_clients(LoopFd *watch, unsigned revents)
{
    NbdServer *server = container_of(watch, NbdServer, listener);
    for (;;) {
        if (server->max_connections && server->nb_connections >= server->max_connections) {
            loop_fd_watch(watch, 0); /* the others wait in the backlog */
            return;
        }
        int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            return; /* EAGAIN; EMFILE and the like: the client stays in the backlog */
        }
        conn_new(server, fd);
    }
}

/* Cut off those connections that use @export; NULL: all. */
static void kill_connections(NbdServer *server, const NbdExport *export)
{
    list_foreach_safe(it, next, &server->connections) {
        NbdConn *conn = container_of(it, NbdConn, in_server);
        if (export && conn->export != export) {
            continue;
        }
        if (conn->in_handshake) {
            conn->closing = true;
            shutdown(conn->fd, SHUT_RDWR);
        } else {
            nbd_conn_kill(conn);
        }
    }
}

/* ---- server ---- */

NbdServer *coroutine_fn nbd_server_co_start(Graph *graph, const SocketAddress *addr,
                                            uint32_t max_connections, GError **errp)
{
    int fd = nbd_listen(addr, errp);
    if (fd < 0) {
        return NULL;
    }
    NbdServer *server = g_new0(NbdServer, 1);
    server->graph = graph;
    server->loop = graph_loop(graph);
    server->max_connections = max_connections;
    server->buffers = nbd_buffers_new();
    server->listening = true;
    list_init(&server->connections);
    list_init(&server->exports);
    co_queue_init(&server->changed, server->loop);
    if (addr->type == SOCKET_ADDRESS_TYPE_UNIX) {
        server->unix_path = g_strdup(addr->u.q_unix.path);
    }
    loop_fd_init(&server->listener, server->loop, fd, accept_clients);
    loop_fd_watch(&server->listener, POLLIN);
    return server;
}

void coroutine_fn nbd_server_co_stop(NbdServer *server)
{
    server->listening = false;
    loop_fd_watch(&server->listener, 0);
    close(server->listener.fd);
    if (server->unix_path) {
        unlink(server->unix_path);
    }
    kill_connections(server, NULL);
    while (server->nb_connections) {
        co_queue_wait(&server->changed);
    }
    g_assert(list_empty(&server->exports));
    nbd_buffers_free(server->buffers);
    g_free(server->unix_path);
    g_free(server);
}

/* ---- exports ---- */

static const PortUser nbd_port_user = {.kind = "block export"};

NbdExport *coroutine_fn nbd_export_co_new(NbdServer *server, BlockNode *node,
                                          const char *name, const char *description,
                                          bool writable, bool allocation_depth,
                                          GError **errp)
{
    unsigned perm = PERM_CONSISTENT_READ | (writable ? PERM_WRITE : 0);
    BlockPort *port = port_co_new(node, perm, PERM_ALL, name, &nbd_port_user, NULL, errp);
    if (!port) {
        return NULL;
    }
    NbdExport *export = g_new0(NbdExport, 1);
    export->name = g_strdup(name);
    export->description = g_strdup(description);
    export->port = port;
    export->writable = writable;
    export->allocation_depth = allocation_depth;
    list_append(&server->exports, &export->in_server);
    return export;
}

void coroutine_fn nbd_export_co_free(NbdServer *server, NbdExport *export)
{
    list_remove(&export->in_server); /* no new clients */
    kill_connections(server, export);
    while (export->users) {
        co_queue_wait(&server->changed);
    }
    port_co_free(export->port);
    g_free(export->name);
    g_free(export->description);
    g_free(export);
}
