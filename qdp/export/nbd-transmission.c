/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HOT. The transmission phase: one receive takes many requests. Slots are made in
 * chunks when a client first needs them; after that nothing is allocated, logged or
 * formatted.
 *
 *   recv -> window -> slot -> port_submit() .. request_done() -> nbd-reply.c
 *
 * N1 one receive and one send at most are active per connection;
 * N2 a slot is in exactly one of: the free list, filling, in flight (with the port or a
 *    status coroutine), status_waiting, out, sending;
 * N3 a connection is freed when no slot is in use and no socket operation is active;
 * N4 the window is parsed up to the first request for which there is no room (slots,
 *    bytes); then nothing is received until a reply has left;
 * N5 ranges and flags are checked here: what a client gets wrong is no I/O error of the
 *    disk and never reaches the port.
 *
 * A large write's payload is received straight into its buffer: only what came along
 * with its header is copied.
 */
#include <errno.h>
#include <string.h>

#include "qdp/export/nbd.h"

/* ---- slots ---- */

static bool add_slots(NbdConn *conn)
{
    NbdSlot *chunk = NULL;
    if (conn->nb_chunks < G_N_ELEMENTS(conn->chunks)) {
        chunk = g_try_new0(NbdSlot, NBD_SLOT_CHUNK);
    }
    if (!chunk) {
        return false;
    }
    conn->chunks[conn->nb_chunks++] = chunk;
    for (unsigned i = 0; i < NBD_SLOT_CHUNK; i++) {
        chunk[i].conn = conn;
        chunk[i].next = conn->free_slots;
        conn->free_slots = &chunk[i];
    }
    return true;
}

static NbdPurse purse_for(const NbdConn *conn, uint32_t bytes)
{
    const NbdServer *server = conn->server;

    if (G_LIKELY(conn->small_bytes + bytes <= NBD_CONN_SMALL)) {
        return NBD_PURSE_SMALL;
    }
    if (G_LIKELY(server->shared_bytes + bytes <= NBD_SERVER_BYTES)) {
        return NBD_PURSE_SHARED;
    }
    /* overdrawn by one request at most; so the largest has its turn as well */
    return conn->nb_bytes == 0 && server->first_bytes < NBD_FIRST_BYTES ? NBD_PURSE_FIRST
                                                                        : NBD_PURSE_NONE;
}

bool nbd_conn_has_purse(const NbdConn *conn, uint32_t len)
{
    return purse_for(conn, buffer_pool_bytes(len)) != NBD_PURSE_NONE;
}

/* Is there room for a request with a buffer of @len? Who must wait for others gets his
 * turn by feed_starved(), in order: else those who come again at once with every reply
 * would leave nothing for him. */
static bool has_room(NbdConn *conn, uint32_t len)
{
    NbdServer *server = conn->server;

    if (!conn->free_slots && !add_slots(conn)) {
        return false;
    }
    if (len == 0) {
        return true;
    }
    NbdPurse purse = purse_for(conn, buffer_pool_bytes(len));
    if (purse == NBD_PURSE_SMALL) {
        return true;
    }
    if (conn->nb_bytes && conn->nb_bytes + len > NBD_CONN_BYTES) {
        return false;
    }
    if (G_LIKELY(list_empty(&server->starved)) || server->feeding) {
        if (G_LIKELY(purse != NBD_PURSE_NONE)) {
            return true;
        }
    } else {
        loop_work_schedule(server->loop, &server->feed_work);
    }
    if (!list_linked(&conn->in_starved)) {
        list_append(&server->starved, &conn->in_starved);
    }
    return false;
}

static NbdSlot *slot_get(NbdConn *conn)
{
    NbdSlot *slot = conn->free_slots;

    conn->free_slots = slot->next;
    conn->nb_slots++;
    slot->buf = NULL;
    slot->buf_len = 0;
    slot->reply_len = 0;
    slot->flush_after = false;
    slot->req.was_zero = false;
    return slot;
}

static bool get_buffer(NbdSlot *slot, uint32_t len)
{
    NbdConn *conn = slot->conn;
    NbdServer *server = conn->server;
    uint32_t bytes = buffer_pool_bytes(len);

    slot->buf = buffer_pool_get(server->buffers, len);
    if (!slot->buf) {
        return false;
    }
    slot->purse = (uint8_t)purse_for(conn, bytes);
    switch (slot->purse) {
    case NBD_PURSE_SHARED:
        server->shared_bytes += bytes;
        break;
    case NBD_PURSE_FIRST:
        server->first_bytes += bytes;
        break;
    default: /* nothing is left for the first of a BLOCK_STATUS: little, and few */
        slot->purse = NBD_PURSE_SMALL;
        conn->small_bytes += bytes;
        break;
    }
    slot->buf_len = len;
    conn->nb_bytes += len;
    return true;
}

static void put_buffer(NbdConn *conn, void *buf, uint32_t len, NbdPurse purse)
{
    NbdServer *server = conn->server;
    uint32_t bytes = buffer_pool_bytes(len);

    buffer_pool_put(server->buffers, buf, len);
    conn->nb_bytes -= len;
    if (purse == NBD_PURSE_SMALL) {
        conn->small_bytes -= bytes;
    } else if (purse == NBD_PURSE_SHARED) {
        server->shared_bytes -= bytes;
    } else {
        server->first_bytes -= bytes;
    }
    if (G_UNLIKELY(!list_empty(&server->starved))) {
        loop_work_schedule(server->loop, &server->feed_work);
    }
}

void nbd_slot_put(NbdSlot *slot)
{
    NbdConn *conn = slot->conn;

    if (slot->buf) {
        put_buffer(conn, slot->buf, slot->buf_len, slot->purse);
    }
    slot->next = conn->free_slots;
    conn->free_slots = slot;
    conn->nb_slots--;
}

bool nbd_slot_grow(NbdSlot *slot, uint32_t len, uint32_t keep)
{
    void *old = slot->buf;
    uint32_t old_len = slot->buf_len;
    NbdPurse old_purse = slot->purse;

    if (!get_buffer(slot, len)) {
        slot->buf = old;
        return false;
    }
    if (old) {
        memcpy(slot->buf, old, keep);
        put_buffer(slot->conn, old, old_len, old_purse);
    }
    return true;
}

/* ---- requests ---- */

static void request_done(BlockRequest *req, int ret)
{
    NbdSlot *slot = container_of(req, NbdSlot, req);

    if (G_UNLIKELY(slot->flush_after) && ret == 0) {
        slot->flush_after = false; /* TRIM with FUA: durable before the answer */
        req->op = BLOCK_FLUSH;
        req->offset = req->len = 0;
        port_submit(slot->conn->port, req);
        return;
    }
    nbd_slot_reply(slot, ret);
}

static void submit(NbdSlot *slot, BlockOp op, unsigned flags)
{
    BlockRequest *req = &slot->req;

    req->done = request_done;
    req->op = op;
    req->flags = (uint8_t)flags;
    req->len = slot->len;
    slot->iov = (struct iovec){slot->buf, slot->len};
    req->iov = slot->buf ? &slot->iov : NULL;
    req->niov = slot->buf ? 1 : 0;
    port_submit(slot->conn->port, req);
}

static bool in_range(const NbdSlot *slot)
{
    uint64_t length = port_length(slot->conn->port);
    return slot->req.offset <= length && slot->len <= length - slot->req.offset;
}

/* Which flags a command may carry. spec: FUA is legal, if pointless, with all of them.
 */
static uint16_t allowed_flags(const NbdConn *conn, uint16_t type)
{
    switch (type) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | (conn->structured ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default:
        return NBD_CMD_FLAG_FUA;
    }
}

/* N5. 0 or what is wrong with the request. */
static int check_request(const NbdSlot *slot)
{
    const NbdConn *conn = slot->conn;
    bool writes = slot->type == NBD_CMD_WRITE || slot->type == NBD_CMD_TRIM ||
                  slot->type == NBD_CMD_WRITE_ZEROES;

    if (slot->type > NBD_CMD_BLOCK_STATUS ||
        (slot->flags & ~allowed_flags(conn, slot->type))) {
        return -EINVAL;
    }
    if (writes && !conn->export->writable) {
        return -EPERM;
    }
    switch (slot->type) {
    case NBD_CMD_FLUSH:
        return 0; /* offset and length are reserved: older clients send anything */
    case NBD_CMD_READ:
        return slot->len <= NBD_MAX_PAYLOAD && in_range(slot) ? 0 : -EINVAL;
    case NBD_CMD_WRITE:
    case NBD_CMD_WRITE_ZEROES:
        return in_range(slot) ? 0 : -ENOSPC;
    case NBD_CMD_BLOCK_STATUS:
        return conn->allocation && slot->len && in_range(slot) ? 0 : -EINVAL;
    default:
        return in_range(slot) ? 0 : -EINVAL;
    }
}

/* A request that is right and whole, payload included. */
static void start(NbdSlot *slot)
{
    bool fua = (slot->flags & NBD_CMD_FLAG_FUA) || slot->conn->export->writethrough;
    unsigned flags = fua ? BLOCK_FUA : 0;

    switch (slot->type) {
    case NBD_CMD_READ:
        slot->reply_len = slot->len;
        submit(slot, BLOCK_READ, 0);
        break;
    case NBD_CMD_WRITE:
        submit(slot, BLOCK_WRITE, flags);
        break;
    case NBD_CMD_FLUSH:
        slot->len = 0;
        slot->req.offset = 0;
        submit(slot, BLOCK_FLUSH, 0);
        break;
    case NBD_CMD_TRIM:
        slot->flush_after = fua;
        submit(slot, BLOCK_DISCARD, 0);
        break;
    case NBD_CMD_WRITE_ZEROES:
        flags |= slot->flags & NBD_CMD_FLAG_NO_HOLE ? 0 : BLOCK_MAY_UNMAP;
        flags |= slot->flags & NBD_CMD_FLAG_FAST_ZERO ? BLOCK_NO_FALLBACK : 0;
        submit(slot, BLOCK_WRITE_ZEROES, flags);
        break;
    case NBD_CMD_BLOCK_STATUS:
        nbd_status_start(slot);
        break;
    default: /* CACHE is a hint, and there is no cache of data to warm */
        nbd_slot_reply(slot, 0);
        break;
    }
}

/* A write's header was taken: its payload follows in the window, or is yet to come. */
static void begin_write(NbdConn *conn, NbdSlot *slot, int error)
{
    uint32_t here = MIN(slot->len, conn->end - conn->start);

    if (!error && slot->len && !get_buffer(slot, slot->len)) {
        error = -ENOMEM;
    }
    if (error || slot->len == 0) {
        conn->start += here;
        conn->skip = slot->len - here;
        nbd_slot_reply(slot, error);
        return;
    }
    memcpy(slot->buf, conn->window + conn->start, here);
    conn->start += here;
    if (here == slot->len) {
        start(slot);
    } else {
        conn->filling = slot;
        conn->filled = here;
    }
}

static void begin_other(NbdSlot *slot, int error)
{
    bool empty = slot->len == 0 && slot->type != NBD_CMD_FLUSH;

    if (!error && slot->type == NBD_CMD_READ && slot->len &&
        !get_buffer(slot, slot->len)) {
        error = -ENOMEM;
    }
    if (error || empty) {
        nbd_slot_reply(slot, error);
    } else {
        start(slot);
    }
}

/* ---- the window ---- */

typedef enum ParseEnd {
    PARSE_MORE,  /* all is used but for the beginning of something */
    PARSE_PAUSE, /* N4 */
    PARSE_STOP,  /* DISC, or nonsense */
} ParseEnd;

static ParseEnd parse_window(NbdConn *conn)
{
    while (conn->end - conn->start >= sizeof(NbdWireRequest) && !conn->filling) {
        const NbdWireRequest *wire =
            (const NbdWireRequest *)(conn->window + conn->start);
        uint16_t type = be16_get(wire->type);
        uint32_t len = be32_get(wire->len);
        bool has_buffer = type == NBD_CMD_READ || type == NBD_CMD_WRITE;

        if (be32_get(wire->magic) != NBD_REQUEST_MAGIC || type == NBD_CMD_DISC ||
            (type == NBD_CMD_WRITE && len > NBD_MAX_PAYLOAD)) {
            return PARSE_STOP; /* such a payload cannot be skipped in reasonable time */
        }
        if (!has_room(conn, has_buffer ? MIN(len, NBD_MAX_PAYLOAD) : 0)) {
            return PARSE_PAUSE;
        }
        NbdSlot *slot = slot_get(conn);
        slot->cookie = be64_get(wire->cookie);
        slot->type = type;
        slot->flags = be16_get(wire->flags);
        slot->len = len;
        slot->req.offset = be64_get(wire->offset);
        conn->start += sizeof(*wire);
        int error = check_request(slot);
        if (type == NBD_CMD_WRITE) {
            begin_write(conn, slot, error);
        } else {
            begin_other(slot, error);
        }
    }
    return PARSE_MORE;
}

/* Ask for more: the rest of a payload straight into its buffer, what follows it into
 * the window. */
static void receive(NbdConn *conn)
{
    int n = 0;

    if (conn->start == conn->end) {
        conn->start = conn->end = 0; /* the pages touched last are used first */
    } else if (conn->start) {
        memmove(conn->window, conn->window + conn->start, conn->end - conn->start);
        conn->end -= conn->start;
        conn->start = 0;
    }
    if (conn->filling) {
        NbdSlot *slot = conn->filling;
        conn->recv_iov[n++] = (struct iovec){(uint8_t *)slot->buf + conn->filled,
                                             slot->len - conn->filled};
    }
    conn->recv_iov[n++] =
        (struct iovec){conn->window + conn->end, NBD_WINDOW - conn->end};
    sock_recvv(&conn->recv, conn->recv_iov, n);
}

static void parse_and_receive(NbdConn *conn)
{
    switch (parse_window(conn)) {
    case PARSE_MORE:
        receive(conn);
        break;
    case PARSE_PAUSE:
        conn->paused = true;
        break;
    default:
        nbd_conn_end(conn);
        break;
    }
}

void nbd_transmission_resume(NbdConn *conn)
{
    if (G_UNLIKELY(conn->paused) && conn->state == NBD_CONN_OPEN) {
        conn->paused = false;
        parse_and_receive(conn);
    }
}

/* Account for @n received bytes: a payload's first, then unwanted ones, then headers.
 */
static void take_received(NbdConn *conn, size_t n)
{
    NbdSlot *slot = conn->filling;

    if (slot) {
        size_t got = MIN(n, slot->len - conn->filled);
        conn->filled += (uint32_t)got;
        n -= got;
        if (conn->filled == slot->len) {
            conn->filling = NULL;
            start(slot);
        }
    }
    conn->end += (uint32_t)n;
    if (conn->skip) {
        uint32_t dropped = MIN(conn->skip, conn->end - conn->start);
        conn->start += dropped;
        conn->skip -= dropped;
    }
}

static void received(SockOp *op, ssize_t result)
{
    NbdConn *conn = container_of(op, NbdConn, recv);

    if (conn->state != NBD_CONN_OPEN) {
        if (conn->filling) {
            nbd_slot_put(conn->filling);
            conn->filling = NULL;
        }
        nbd_conn_check(conn);
    } else if (result > 0) {
        take_received(conn, (size_t)result);
        parse_and_receive(conn);
    } else {
        nbd_conn_end(conn);
    }
}

void nbd_transmission_start(NbdConn *conn)
{
    conn->state = NBD_CONN_OPEN;
    conn->area = nbd_send_area_new();
    loop_work_init(&conn->flush_hook, nbd_send_replies);
    sock_op_init(&conn->recv, conn->server->loop, conn->fd, received);
    sock_op_init(&conn->send, conn->server->loop, conn->fd, nbd_replies_sent);
    if (!add_slots(conn)) { /* the first ones: has_room() counts on them */
        nbd_conn_kill(conn);
        return;
    }
    parse_and_receive(conn);
}
