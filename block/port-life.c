/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ports: opening, closing, what users ask of them, and requests in coroutines. */
#include <errno.h>

#include "block/aio/loop.h"
#include "block/base/error.h"
#include "block/graph-private.h"

BlockPort *coroutine_fn port_co_new(BlockNode *root, unsigned perm, unsigned shared,
                                    const char *name, const PortUser *user,
                                    void *opaque, GError **errp)
{
    BlockPort *port = g_new0(BlockPort, 1);
    port->graph = root->graph;
    port->root = root;
    port->user = user;
    port->opaque = opaque;
    port->name = g_strdup(name ? name : "");
    list_init(&port->parked);
    co_queue_init(&port->idle, root->graph->loop);
    co_queue_init(&port->resumed, root->graph->loop);
    list_init(&port->in_graph);
    node_ref(root);
    port->edge = edge_new(NULL, port, root, "root");
    if (!perm_co_change(port->edge, perm, shared, errp)) {
        edge_unlink(port->edge);
        node_co_unref(root);
        g_free(port->name);
        g_free(port);
        return NULL;
    }
    list_append(&root->graph->ports, &port->in_graph);
    return port;
}

void coroutine_fn port_co_wait_idle(BlockPort *port)
{
    while (port->in_flight) {
        co_queue_wait(&port->idle);
    }
}

void coroutine_fn port_co_free(BlockPort *port)
{
    if (!port) {
        return;
    }
    port_co_wait_idle(port);
    g_assert(list_empty(&port->parked));
    drain_forget_port(port);
    list_remove(&port->in_graph);
    BlockNode *root = port->root;
    edge_unlink(port->edge);
    GError *error = NULL;
    if (!perm_co_update(root, &error)) {
        const GraphEvents *events = root->graph->events;
        if (events && events->release_failed) {
            events->release_failed(root->graph->events_opaque, root, error->message);
        }
        g_error_free(error);
    }
    node_co_unref(root);
    g_free(port->name);
    g_free(port);
}

BlockNode *port_root(const BlockPort *port)
{
    return port->root;
}

const char *port_name(const BlockPort *port)
{
    return port->name;
}

const PortStats *port_stats(const BlockPort *port)
{
    return &port->stats;
}

Loop *port_loop(const BlockPort *port)
{
    return port->graph->loop;
}

uint64_t port_length(const BlockPort *port)
{
    return port->root->length;
}

bool port_read_only(const BlockPort *port)
{
    return !(port->edge->perm & PERM_WRITE);
}

uint32_t port_request_align(const BlockPort *port)
{
    return port->root->request_align;
}

uint32_t port_mem_align(const BlockPort *port)
{
    return port->root->mem_align;
}

bool coroutine_fn port_co_set_perm(BlockPort *port, unsigned perm, unsigned shared,
                                   GError **errp)
{
    return perm_co_change(port->edge, perm, shared, errp);
}

/* ---- requests in coroutines ---- */

typedef struct CoRequest {
    BlockRequest req;
    Coroutine *co;
    int ret;
} CoRequest;

static void co_request_done(BlockRequest *req, int ret)
{
    CoRequest *wait = container_of(req, CoRequest, req);
    wait->ret = ret;
    /* From the ready list: port_co_free() may be the next thing the coroutine does, and
     * the port still counts this request until done returns. */
    coroutine_wake_later(req->port->graph->loop, wait->co);
}

int coroutine_fn port_co_rwv(BlockPort *port, BlockOp op, uint64_t offset, uint64_t len,
                             const struct iovec *iov, int niov, unsigned flags)
{
    CoRequest wait = {
        .req = {.done = co_request_done, .iov = iov, .niov = (uint16_t)niov,
                .offset = offset, .len = len, .op = op, .flags = (uint8_t)flags},
        .co = coroutine_self(),
    };
    port_submit(port, &wait.req);
    coroutine_yield();
    return wait.ret;
}

int coroutine_fn port_co_read(BlockPort *port, uint64_t offset, uint64_t len, void *buf,
                              unsigned flags)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    return port_co_rwv(port, BLOCK_READ, offset, len, &iov, 1, flags);
}

int coroutine_fn port_co_write(BlockPort *port, uint64_t offset, uint64_t len,
                               const void *buf, unsigned flags)
{
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};
    return port_co_rwv(port, BLOCK_WRITE, offset, len, &iov, 1, flags);
}

int coroutine_fn port_co_write_zeroes(BlockPort *port, uint64_t offset, uint64_t len,
                                      unsigned flags)
{
    return port_co_rwv(port, BLOCK_WRITE_ZEROES, offset, len, NULL, 0, flags);
}

int coroutine_fn port_co_discard(BlockPort *port, uint64_t offset, uint64_t len)
{
    return port_co_rwv(port, BLOCK_DISCARD, offset, len, NULL, 0, 0);
}

int coroutine_fn port_co_flush(BlockPort *port)
{
    return port_co_rwv(port, BLOCK_FLUSH, 0, 0, NULL, 0, 0);
}

int coroutine_fn port_co_status(BlockPort *port, uint64_t offset, uint64_t len,
                                BlockExtent *ret)
{
    while (port->quiesce) { /* the graph is being changed: wait like a request (P3) */
        co_queue_wait(&port->resumed);
    }
    port->in_flight++;
    uint8_t epoch = epoch_enter(port->graph);
    int status = node_co_status_above(port->root, offset, len, ret);
    epoch_leave(port->graph, epoch);
    if (--port->in_flight == 0) {
        co_queue_wake_all(&port->idle);
    }
    return status;
}
