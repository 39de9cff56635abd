/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HOT. Replies: what is finished in one turn of the loop leaves in one send.
 *
 * Headers are built at the moment of sending, side by side in the send area: replies
 * without data (acknowledgements of writes) then are one piece of the vector together.
 *
 * spec: doc/proto.md, "Transmission phase". Errors of a connection with structured
 * replies are chunks with a text; a simple reply where the protocol leaves the choice.
 */
#include <errno.h>
#include <string.h>

#include "block/base/ablate.h"
#include "qdp/export/nbd.h"

#define MAX_REPLIES 256
#define MAX_HEAD    sizeof(NbdWireOffsetHole)
#define MAX_IOV     (2 * MAX_REPLIES)
/* Of data: worth a send before the turn ends, at the least and at the most. */
#define EARLY_MIN   (64u << 10)
#define EARLY_MAX   (256u << 10)
#define SEND_BYTES  (4u << 20) /* a larger batch would keep the first reply waiting */

struct NbdSendArea {
    struct iovec iov[MAX_IOV];
    uint8_t heads[MAX_REPLIES * MAX_HEAD];
};

_Static_assert(MAX_HEAD >= sizeof(NbdWireError), "the largest header");

struct NbdSendArea *nbd_send_area_new(void)
{
    return g_new(struct NbdSendArea, 1);
}

void nbd_send_area_free(struct NbdSendArea *area)
{
    g_free(area);
}

typedef struct ErrorName {
    uint32_t wire;
    const char *text;
} ErrorName;

/* spec: "Error values"; what has no name there is EIO. */
static ErrorName error_name(int ret)
{
    switch (-ret) {
    case 0:
        return (ErrorName){NBD_OK, ""};
    case EPERM:
    case EROFS:
        return (ErrorName){NBD_EPERM, "Operation not permitted"};
    case ENOMEM:
        return (ErrorName){NBD_ENOMEM, "Cannot allocate memory"};
    case EINVAL:
        return (ErrorName){NBD_EINVAL, "Invalid argument"};
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
        return (ErrorName){NBD_ENOSPC, "No space left on device"};
    case EOVERFLOW:
        return (ErrorName){NBD_EOVERFLOW, "Value too large"};
    case ENOTSUP:
        return (ErrorName){NBD_ENOTSUP, "Operation not supported"};
    case ESHUTDOWN:
        return (ErrorName){NBD_ESHUTDOWN, "Server is shutting down"};
    default:
        return (ErrorName){NBD_EIO, "Input/output error"};
    }
}

typedef struct Pieces {
    struct iovec *iov;
    int niov;
    uint8_t *head; /* where the next header goes */
    uint32_t bytes;
} Pieces;

/* Headers that follow one another are one piece. */
static void add_head(Pieces *p, const void *head, uint32_t len)
{
    struct iovec *last = p->niov ? &p->iov[p->niov - 1] : NULL;

    memcpy(p->head, head, len);
    if (last && (uint8_t *)last->iov_base + last->iov_len == p->head) {
        last->iov_len += len;
    } else {
        p->iov[p->niov++] = (struct iovec){p->head, len};
    }
    p->head += len;
    p->bytes += len;
}

static void add_data(Pieces *p, const void *data, uint32_t len)
{
    p->iov[p->niov++] = (struct iovec){(void *)data, len};
    p->bytes += len;
}

static NbdWireChunk chunk_head(const NbdSlot *slot, uint16_t type, uint32_t len)
{
    return (NbdWireChunk){be32_make(NBD_STRUCTURED_MAGIC),
                          be16_make(NBD_REPLY_FLAG_DONE), be16_make(type),
                          be64_make(slot->cookie), be32_make(len)};
}

static void add_error(Pieces *p, const NbdSlot *slot)
{
    ErrorName name = error_name(slot->error);
    uint32_t text_len = (uint32_t)strlen(name.text);
    NbdWireError error = {chunk_head(slot, NBD_REPLY_ERROR, 6 + text_len),
                          be32_make(name.wire), be16_make((uint16_t)text_len)};
    add_head(p, &error, sizeof(error));
    add_data(p, name.text, text_len);
}

static void add_simple(Pieces *p, const NbdSlot *slot)
{
    NbdWireSimple simple = {be32_make(NBD_SIMPLE_MAGIC),
                            be32_make(error_name(slot->error).wire),
                            be64_make(slot->cookie)};
    add_head(p, &simple, sizeof(simple));
    if (!slot->error && slot->reply_len) {
        add_data(p, slot->buf, slot->reply_len);
    }
}

static void add_read(Pieces *p, const NbdSlot *slot)
{
    if (slot->reply_len == 0) {
        NbdWireChunk none = chunk_head(slot, NBD_REPLY_NONE, 0);
        add_head(p, &none, sizeof(none));
    } else if (slot->req.was_zero) {
        NbdWireOffsetHole hole = {chunk_head(slot, NBD_REPLY_OFFSET_HOLE, 12),
                                  be64_make(slot->req.offset), be32_make(slot->len)};
        add_head(p, &hole, sizeof(hole));
    } else {
        NbdWireOffsetData data = {
            chunk_head(slot, NBD_REPLY_OFFSET_DATA, 8 + slot->reply_len),
            be64_make(slot->req.offset)};
        add_head(p, &data, sizeof(data));
        add_data(p, slot->buf, slot->reply_len);
    }
}

static void add_reply(Pieces *p, const NbdSlot *slot)
{
    bool structured = slot->conn->structured;

    if (structured && slot->error) {
        add_error(p, slot);
    } else if (structured && slot->type == NBD_CMD_READ) {
        add_read(p, slot);
    } else if (structured && slot->type == NBD_CMD_BLOCK_STATUS) {
        NbdWireChunk head = chunk_head(slot, NBD_REPLY_BLOCK_STATUS, slot->reply_len);
        add_head(p, &head, sizeof(head));
        add_data(p, slot->buf, slot->reply_len);
    } else {
        add_simple(p, slot);
    }
}

void nbd_send_replies(LoopWork *work)
{
    NbdConn *conn = container_of(work, NbdConn, flush_hook);
    Pieces p = {.iov = conn->area->iov, .head = conn->area->heads};

    conn->out_bytes = 0;
    if (conn->send.active || !conn->out.head) {
        return; /* nbd_replies_sent() comes here again */
    }
    const unsigned max = ablated(ABLATE_REPLY_BATCH) ? 1 : MAX_REPLIES;
    unsigned n = 0;
    for (; conn->out.head && n < max && p.bytes < SEND_BYTES; n++) {
        NbdSlot *slot = nbd_slots_take(&conn->out);
        add_reply(&p, slot);
        nbd_slots_append(&conn->sending, slot);
    }
    if (n == conn->nb_slots) { /* it waits for nothing else: it may come back soon */
        sock_last_look(&conn->recv);
    }
    sock_sendv(&conn->send, p.iov, p.niov);
}

static void release(NbdSlotList *list)
{
    NbdSlot *slot;
    while ((slot = nbd_slots_take(list))) {
        nbd_slot_put(slot);
    }
}

void nbd_replies_sent(SockOp *op, ssize_t result)
{
    NbdConn *conn = container_of(op, NbdConn, send);

    release(&conn->sending);
    if (result < 0) {
        nbd_conn_kill(conn);
    }
    if (conn->state == NBD_CONN_DEAD) {
        release(&conn->out);
    } else if (conn->out.head) {
        loop_flush_schedule(conn->server->loop, &conn->flush_hook);
    }
    nbd_status_resume(conn);
    nbd_transmission_resume(conn);
    nbd_conn_check(conn);
}

/* A client that gets all its answers at once has nothing to send while we work, and then we
 * have nothing to do while it writes, and both sleep. With half of them it goes on. */
static bool is_early(const NbdConn *conn)
{
    uint32_t half = CLAMP(conn->nb_bytes / 2, EARLY_MIN, EARLY_MAX);
    return conn->out_bytes >= half && !ablated(ABLATE_EARLY_SEND);
}

void nbd_slot_reply(NbdSlot *slot, int error)
{
    NbdConn *conn = slot->conn;

    slot->error = error;
    if (G_UNLIKELY(conn->state == NBD_CONN_DEAD)) {
        nbd_slot_put(slot);
        nbd_conn_check(conn);
        return;
    }
    if (!conn->out.head && !conn->send.active) {
        loop_flush_schedule(conn->server->loop, &conn->flush_hook);
    }
    nbd_slots_append(&conn->out, slot);
    conn->out_bytes += slot->buf_len;
    if (is_early(conn) && !conn->send.active) {
        loop_flush_soon(conn->server->loop);
    }
}
