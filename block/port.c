/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HOT. Ports: the one door of every request, its in-flight count and statistics, and the
 * coroutine that does what the direct path cannot.  Opening and closing ports and their
 * coroutine conveniences are in port-life.c.
 */
#include <errno.h>

#include "block/base/ablate.h"
#include "block/graph-private.h"

static int check_request(const BlockPort *port, const BlockRequest *req)
{
    if (req->op != BLOCK_READ && req->op != BLOCK_FLUSH &&
        !(port->edge->perm & (PERM_WRITE | PERM_WRITE_UNCHANGED))) {
        return -EPERM;
    }
    uint64_t length = port->root->length;
    if (req->offset > length || req->len > length - req->offset) {
        return req->op == BLOCK_READ ? -EINVAL : -ENOSPC;
    }
    return 0;
}

static void account(BlockPort *port, BlockRequest *req, int ret)
{
    PortOpStats *stats = &port->stats.op[req->op];
    int64_t now = loop_now_ns(port->graph->loop);

    if (ret == -ENOTSUP && (req->flags & BLOCK_NO_FALLBACK)) {
        return; /* the answer to a question, not a fault of the disk */
    }
    if (ret < 0) {
        stats->failed++;
        const GraphEvents *events = port->graph->events;
        if (events && events->io_error) {
            events->io_error(port->graph->events_opaque, port, req, ret);
        }
        return;
    }
    stats->ops++;
    stats->bytes += req->len;
    stats->total_ns += now - req->start_ns;
    port->stats.last_access_ns = now;
    if (req->op == BLOCK_WRITE && req->offset + req->len > port->stats.wr_highest_offset) {
        port->stats.wr_highest_offset = req->offset + req->len;
    }
}

void request_finish(BlockRequest *req, int ret)
{
    BlockPort *port = req->port;

    account(port, req, ret);
    epoch_leave(port->graph, req->epoch);
    /* The request is its owner's again inside done; the port is not, until then. */
    req->done(req, ret);
    if (--port->in_flight == 0 && !co_queue_empty(&port->idle)) {
        co_queue_wake_all(&port->idle);
    }
}

void request_finish_later(BlockRequest *req, int ret)
{
    Graph *graph = req->port->graph;
    req->result = ret;
    list_append(&graph->finished, &req->link);
    loop_work_schedule(graph->loop, &graph->finish_work);
}

static int coroutine_fn request_co_once(BlockRequest *req)
{
    BlockNode *root = req->port->root;

    switch (req->op) {
    case BLOCK_READ:
        return node_co_read(root, req->offset, req->len, req->iov, req->niov,
                            req->flags);
    case BLOCK_WRITE:
        return node_co_write(root, req->offset, req->len, req->iov, req->niov,
                             req->flags);
    case BLOCK_WRITE_ZEROES:
        return node_co_write_zeroes(root, req->offset, req->len, req->flags);
    case BLOCK_DISCARD:
        return node_co_discard(root, req->offset, req->len);
    default:
        return node_co_flush(root);
    }
}

/* The guest may have let go, a moment ago, of what the disk lacks now. That is space when
 * all requests that could know of it are over; this one has unwound and knows of nothing. */
static bool coroutine_fn co_make_space(BlockRequest *req)
{
    BlockNode *node = req->port->root;
    Graph *graph = req->port->graph;

    while (node && !node->drv->co_make_space) {
        node = node->file_child;
    }
    if (!node) {
        return false;
    }
    epoch_leave(graph, req->epoch);
    bool made = node->drv->co_make_space(node);
    req->epoch = epoch_enter(graph);
    return made;
}

static int coroutine_fn request_co_run(BlockRequest *req)
{
    int ret = request_co_once(req);
    bool takes_space = req->op == BLOCK_WRITE || req->op == BLOCK_WRITE_ZEROES;
    if (ret == -ENOSPC && takes_space && co_make_space(req)) {
        ret = request_co_once(req);
    }
    return ret;
}

static void coroutine_fn request_entry(void *opaque)
{
    BlockRequest *req = opaque;
    int ret = request_co_run(req);
    /* Some paths end without having yielded, inside port_submit() still (P2). */
    request_finish_later(req, ret);
}

static void request_start(BlockRequest *req)
{
    BlockPort *port = req->port;

    req->epoch = epoch_enter(port->graph);
    int ret = check_request(port, req);
    if (ret < 0) {
        request_finish_later(req, ret);
        return;
    }
    if (req->op <= BLOCK_WRITE && req->len > 0 && !ablated(ABLATE_DIRECT_PATH) &&
        resolve_and_submit(req)) {
        return;
    }
    Coroutine *co = coroutine_try_new(request_entry, req, CO_STACK_DATA);
    if (co) {
        coroutine_enter(co);
    } else {
        request_finish_later(req, -ENOMEM);
    }
}

void port_submit(BlockPort *port, BlockRequest *req)
{
    req->port = port;
    req->result = 0;
    req->nb_pending = 0;
    req->was_zero = false;
    req->start_ns = loop_now_ns(port->graph->loop);
    if (G_UNLIKELY(port->quiesce)) {
        list_append(&port->parked, &req->link);
        return;
    }
    port->in_flight++;
    request_start(req);
}

void port_resume(BlockPort *port)
{
    co_queue_wake_all(&port->resumed);
    while (!port->quiesce && !list_empty(&port->parked)) {
        BlockRequest *req = list_first(&port->parked, BlockRequest, link);
        list_remove(&req->link);
        port->in_flight++;
        request_start(req);
    }
}

unsigned port_in_flight(const BlockPort *port)
{
    return port->in_flight;
}

/* Work of the graph: the done of requests that ended inside port_submit(). */
void graph_finish_requests(LoopWork *work)
{
    Graph *graph = container_of(work, Graph, finish_work);
    ListLink batch;

    list_init(&batch);
    list_splice(&batch, &graph->finished);
    while (!list_empty(&batch)) {
        BlockRequest *req = list_first(&batch, BlockRequest, link);
        list_remove(&req->link);
        request_finish(req, req->result);
    }
}
