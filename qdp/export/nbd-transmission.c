/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HOT. The transmission phase: one receive takes many requests, one send returns many
 * replies; nothing is allocated, logged or formatted per request.
 *
 *   recv -> window -> slots -> port_submit ... done -> out list -> (end of turn) -> send
 *
 * N1 one receive and one send at most are in flight per connection;
 * N2 a slot is in exactly one of: the free list, filling, in flight, the out list, sending;
 * N3 the connection is freed when it is closing, no slot is in use and no socket operation
 *    is active.
 */
#include <errno.h>
#include <string.h>

#include "qdp/export/nbd.h"

#define SEND_IOV   512
#define SEND_BYTES (8u << 20)

static void receive(NbdConn *conn);

/* ---- slots ---- */

static NbdSlot *slot_get(NbdConn *conn)
{
    NbdSlot *slot = conn->free_slots;
    if (slot) {
        conn->free_slots = slot->next;
    } else {
        slot = g_try_new0(NbdSlot, 1);
        if (!slot) {
            return NULL;
        }
        slot->conn = conn;
    }
    conn->nb_slots++;
    slot->buf = slot->payload = NULL;
    slot->payload_len = 0;
    slot->buf_len = 0;
    slot->error = 0;
    return slot;
}

static bool slot_get_buffer(NbdSlot *slot, uint32_t len)
{
    NbdConn *conn = slot->conn;
    slot->buf = nbd_buffer_get(conn->server->buffers, len);
    if (!slot->buf) {
        return false;
    }
    slot->buf_len = len;
    conn->nb_bytes += len;
    return true;
}

static void slot_put(NbdSlot *slot)
{
    NbdConn *conn = slot->conn;
    if (slot->payload && slot->payload != slot->buf) {
        g_free(slot->payload);
    }
    if (slot->buf) {
        nbd_buffer_put(conn->server->buffers, slot->buf, slot->buf_len);
        conn->nb_bytes -= slot->buf_len;
    }
    slot->next = conn->free_slots;
    conn->free_slots = slot;
    conn->nb_slots--;
}

/* N3 */
static void check_gone(NbdConn *conn)
{
    if (conn->closing && !conn->in_handshake && conn->nb_slots == 0 && !conn->recv.active &&
        !conn->send.active) {
        while (conn->free_slots) {
            NbdSlot *slot = conn->free_slots;
            conn->free_slots = slot->next;
            g_free(slot);
        }
        nbd_conn_gone(conn);
    }
}

/* ---- replies ---- */

/* spec: the error values of the protocol; what has no name there is EIO. */
static uint32_t wire_error(int ret)
{
    switch (-ret) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
        return 1;
    case ENOMEM:
        return 12;
    case EINVAL:
        return 22;
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
        return 28;
    case EOVERFLOW:
        return 75;
    case ENOTSUP:
        return 95;
    case ESHUTDOWN:
        return 108;
    default:
        return 5;
    }
}

static void make_simple(NbdSlot *slot)
{
    slot->head.simple = (NbdWireSimple){be32_make(NBD_SIMPLE_MAGIC),
                                        be32_make(wire_error(slot->error)),
                                        be64_make(slot->cookie)};
    slot->head_len = sizeof(NbdWireSimple);
}

static void make_chunk(NbdSlot *slot, uint16_t type, uint32_t head_extra, uint32_t body)
{
    slot->head.chunk.head = (NbdWireChunk){
        be32_make(NBD_STRUCTURED_MAGIC), be16_make(NBD_REPLY_FLAG_DONE), be16_make(type),
        be64_make(slot->cookie), be32_make(head_extra + body)};
    slot->head_len = sizeof(NbdWireChunk) + head_extra;
}

static void make_error_chunk(NbdSlot *slot)
{
    /* error code, and a message of length 0 */
    be32 error = be32_make(wire_error(slot->error));
    memcpy(slot->head.bytes + sizeof(NbdWireChunk), &error, sizeof(error));
    memset(slot->head.bytes + sizeof(NbdWireChunk) + 4, 0, 2);
    make_chunk(slot, NBD_REPLY_ERROR, 6, 0);
}

/* Replies to reads and status requests are structured once that is negotiated; the others
 * may stay simple. */
static void make_reply(NbdSlot *slot)
{
    NbdConn *conn = slot->conn;
    bool wants_chunk = slot->type == NBD_CMD_READ || slot->type == NBD_CMD_BLOCK_STATUS;

    if (slot->error) {
        slot->payload_len = 0;
    }
    if (!conn->structured || !wants_chunk) {
        make_simple(slot);
    } else if (slot->error) {
        make_error_chunk(slot);
    } else if (slot->type == NBD_CMD_BLOCK_STATUS) {
        make_chunk(slot, NBD_REPLY_BLOCK_STATUS, 0, slot->payload_len);
    } else if (slot->len == 0) {
        make_chunk(slot, NBD_REPLY_NONE, 0, 0);
    } else if (slot->req.was_zero && !(slot->flags & NBD_CMD_FLAG_DF)) {
        slot->payload_len = 0;
        slot->head.chunk.offset = be64_make(slot->req.offset);
        slot->head.chunk.hole_len = be32_make(slot->len);
        make_chunk(slot, NBD_REPLY_OFFSET_HOLE, 12, 0);
    } else {
        slot->head.chunk.offset = be64_make(slot->req.offset);
        make_chunk(slot, NBD_REPLY_OFFSET_DATA, 8, slot->payload_len);
    }
}

void nbd_slot_reply(NbdSlot *slot)
{
    NbdConn *conn = slot->conn;
    if (conn->dead) {
        slot_put(slot);
        check_gone(conn);
        return;
    }
    make_reply(slot);
    slot->next = NULL;
    *conn->out_tail = slot;
    conn->out_tail = &slot->next;
    loop_flush_schedule(conn->server->loop, &conn->flush_hook);
}

static void drop_list(NbdSlot *slot)
{
    while (slot) {
        NbdSlot *next = slot->next;
        slot_put(slot);
        slot = next;
    }
}

/* The flush hook of the turn: everything that is ready leaves in one send. */
static void send_replies(LoopWork *work)
{
    NbdConn *conn = container_of(work, NbdConn, flush_hook);
    uint64_t bytes = 0;
    int n = 0;

    if (conn->send.active || !conn->out_head) {
        return; /* the end of the running send comes here again */
    }
    NbdSlot **tail = &conn->sending;
    while (conn->out_head && n + 2 <= SEND_IOV && bytes < SEND_BYTES) {
        NbdSlot *slot = conn->out_head;
        conn->out_head = slot->next;
        conn->send_iov[n++] = (struct iovec){&slot->head, slot->head_len};
        if (slot->payload_len) {
            conn->send_iov[n++] = (struct iovec){slot->payload, slot->payload_len};
        }
        bytes += slot->head_len + slot->payload_len;
        *tail = slot;
        tail = &slot->next;
    }
    *tail = NULL;
    if (!conn->out_head) {
        conn->out_tail = &conn->out_head;
    }
    sock_sendv(&conn->send, conn->send_iov, n);
}

static bool may_receive(const NbdConn *conn)
{
    return conn->nb_slots < NBD_CONN_SLOTS && conn->nb_bytes < NBD_CONN_BYTES;
}

static void sent(SockOp *op, ssize_t result)
{
    NbdConn *conn = container_of(op, NbdConn, send);
    NbdSlot *done = conn->sending;

    conn->sending = NULL;
    drop_list(done);
    if (result < 0) {
        conn->dead = true;
        drop_list(conn->out_head);
        conn->out_head = NULL;
        conn->out_tail = &conn->out_head;
        nbd_conn_close(conn);
        return;
    }
    if (conn->out_head) {
        loop_flush_schedule(conn->server->loop, &conn->flush_hook);
    }
    if (conn->paused && !conn->closing && may_receive(conn)) {
        conn->paused = false;
        receive(conn); /* may free conn */
        return;
    }
    check_gone(conn);
}

/* ---- requests ---- */

static void request_done(BlockRequest *req, int ret)
{
    NbdSlot *slot = container_of(req, NbdSlot, req);
    slot->error = ret;
    nbd_slot_reply(slot);
}

static void submit(NbdSlot *slot, BlockOp op, unsigned flags)
{
    BlockRequest *req = &slot->req;
    req->done = request_done;
    req->op = op;
    req->flags = (uint8_t)flags;
    req->len = slot->len;
    if (op == BLOCK_READ || op == BLOCK_WRITE) {
        slot->iov = (struct iovec){slot->buf, slot->len};
        req->iov = &slot->iov;
        req->niov = 1;
    } else {
        req->iov = NULL;
        req->niov = 0;
    }
    port_submit(slot->conn->export->port, req);
}

static void fail(NbdSlot *slot, int error)
{
    slot->error = error;
    slot->req.was_zero = false;
    nbd_slot_reply(slot);
}

/* Which flags a command may carry. */
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

static void start_read(NbdSlot *slot)
{
    if (slot->len > NBD_MAX_PAYLOAD) {
        fail(slot, -EINVAL);
        return;
    }
    if (slot->len && !slot_get_buffer(slot, slot->len)) {
        fail(slot, -ENOMEM);
        return;
    }
    slot->payload = slot->buf;
    slot->payload_len = slot->len;
    submit(slot, BLOCK_READ, 0);
}

static void start_write_zeroes(NbdSlot *slot)
{
    unsigned flags = slot->flags & NBD_CMD_FLAG_FUA ? BLOCK_FUA : 0;
    flags |= slot->flags & NBD_CMD_FLAG_NO_HOLE ? 0 : BLOCK_MAY_UNMAP;
    flags |= slot->flags & NBD_CMD_FLAG_FAST_ZERO ? BLOCK_NO_FALLBACK : 0;
    submit(slot, BLOCK_WRITE_ZEROES, flags);
}

/* The request is complete, its payload included. */
static void start(NbdSlot *slot)
{
    NbdConn *conn = slot->conn;
    unsigned fua = slot->flags & NBD_CMD_FLAG_FUA ? BLOCK_FUA : 0;

    if (slot->flags & ~allowed_flags(conn, slot->type)) {
        fail(slot, -EINVAL);
        return;
    }
    switch (slot->type) {
    case NBD_CMD_READ:
        start_read(slot);
        break;
    case NBD_CMD_WRITE:
        if (conn->export->writable) {
            submit(slot, BLOCK_WRITE, fua);
        } else {
            fail(slot, -EPERM);
        }
        break;
    case NBD_CMD_FLUSH:
        slot->len = 0;
        slot->req.offset = 0;
        submit(slot, BLOCK_FLUSH, 0);
        break;
    case NBD_CMD_TRIM:
        submit(slot, BLOCK_DISCARD, 0);
        break;
    case NBD_CMD_CACHE: /* a hint; the range is checked all the same */
        fail(slot, slot->req.offset > port_length(conn->export->port) ||
                           slot->len > port_length(conn->export->port) - slot->req.offset
                       ? -EINVAL
                       : 0);
        break;
    case NBD_CMD_WRITE_ZEROES:
        start_write_zeroes(slot);
        break;
    case NBD_CMD_BLOCK_STATUS:
        if (conn->structured && (conn->meta_allocation || conn->meta_depth)) {
            nbd_status_start(slot);
        } else {
            fail(slot, -EINVAL);
        }
        break;
    default:
        fail(slot, -EINVAL);
        break;
    }
}

/* A write begins: take what is here of its payload. Bytes taken, or -1: drop the client. */
static int64_t begin_write(NbdSlot *slot, const uint8_t *data, uint32_t avail)
{
    NbdConn *conn = slot->conn;
    if (slot->len > NBD_MAX_PAYLOAD) {
        slot_put(slot);
        return -1; /* it cannot be skipped in reasonable time */
    }
    if (slot->len && !slot_get_buffer(slot, slot->len)) {
        slot_put(slot);
        return -1;
    }
    uint32_t take = MIN(slot->len, avail);
    if (take) {
        memcpy(slot->buf, data, take);
    }
    if (take == slot->len) {
        start(slot);
    } else {
        conn->filling = slot;
        conn->filled = take;
    }
    return take;
}

/* Parse one request at @data: bytes used, 0 when it is not complete, -1 to disconnect. */
static int64_t parse_one(NbdConn *conn, const uint8_t *data, uint32_t avail)
{
    const NbdWireRequest *wire = (const NbdWireRequest *)data;
    if (avail < sizeof(*wire)) {
        return 0;
    }
    if (be32_get(wire->magic) != NBD_REQUEST_MAGIC ||
        be16_get(wire->type) == NBD_CMD_DISC) {
        return -1;
    }
    NbdSlot *slot = slot_get(conn);
    if (!slot) {
        return -1;
    }
    slot->cookie = be64_get(wire->cookie);
    slot->type = be16_get(wire->type);
    slot->flags = be16_get(wire->flags);
    slot->len = be32_get(wire->len);
    slot->req.offset = be64_get(wire->offset);
    if (slot->type == NBD_CMD_WRITE) {
        int64_t used = begin_write(slot, data + sizeof(*wire), avail - sizeof(*wire));
        return used < 0 ? -1 : used + (int64_t)sizeof(*wire);
    }
    start(slot);
    return sizeof(*wire);
}

/* Work off the window. False: disconnect. */
static bool parse_window(NbdConn *conn)
{
    uint32_t pos = 0;
    while (!conn->filling && may_receive(conn)) {
        int64_t used = parse_one(conn, conn->window + pos, conn->window_len - pos);
        if (used < 0) {
            return false;
        }
        if (used == 0) {
            break;
        }
        pos += (uint32_t)used;
    }
    conn->window_len -= pos;
    memmove(conn->window, conn->window + pos, conn->window_len);
    return true;
}

static void received(SockOp *op, ssize_t result)
{
    NbdConn *conn = container_of(op, NbdConn, recv);
    if (result <= 0 || conn->closing) {
        nbd_conn_close(conn);
        return;
    }
    size_t n = (size_t)result;
    if (conn->filling) {
        size_t want = conn->filling->len - conn->filled;
        size_t got = MIN(n, want);
        conn->filled += (uint32_t)got;
        n -= got;
        if (conn->filled == conn->filling->len) {
            NbdSlot *slot = conn->filling;
            conn->filling = NULL;
            start(slot);
        }
    }
    conn->window_len += (uint32_t)n;
    receive(conn);
}

/* Use what is there, then ask for more: the rest of a payload straight into its buffer,
 * what follows it into the window. */
static void receive(NbdConn *conn)
{
    if (!parse_window(conn)) {
        nbd_conn_close(conn);
        return;
    }
    if (!conn->filling && !may_receive(conn)) {
        conn->paused = true; /* sent() resumes */
        return;
    }
    int n = 0;
    if (conn->filling) {
        conn->recv_iov[n++] =
            (struct iovec){(uint8_t *)conn->filling->buf + conn->filled,
                           conn->filling->len - conn->filled};
    }
    conn->recv_iov[n++] = (struct iovec){conn->window + conn->window_len,
                                         NBD_RECV_WINDOW - conn->window_len};
    sock_recvv(&conn->recv, conn->recv_iov, n);
}

void nbd_conn_close(NbdConn *conn)
{
    if (!conn->closing) {
        conn->closing = true;
        shutdown(conn->fd, SHUT_RD);
        if (conn->filling) {
            NbdSlot *slot = conn->filling;
            conn->filling = NULL;
            slot_put(slot);
        }
        sock_cancel(&conn->recv);
    }
    check_gone(conn);
}

void nbd_conn_kill(NbdConn *conn)
{
    conn->dead = true;
    shutdown(conn->fd, SHUT_RDWR); /* a send that the client does not read ends too */
    nbd_conn_close(conn);
}

void nbd_transmission_start(NbdConn *conn)
{
    conn->window = g_malloc(NBD_RECV_WINDOW);
    conn->send_iov = g_new(struct iovec, SEND_IOV);
    conn->out_tail = &conn->out_head;
    loop_work_init(&conn->flush_hook, send_replies);
    sock_op_init(&conn->recv, conn->server->loop, conn->fd, received);
    sock_op_init(&conn->send, conn->server->loop, conn->fd, sent);
    conn->in_handshake = false;
    receive(conn);
}
