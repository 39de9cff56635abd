/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BLOCK_STATUS: many extents, from metadata alone, in one chunk.
 *
 * Coroutines answer, for metadata may have to be loaded; a few per connection, the
 * other requests wait their turn.  A coroutine that finds everything in memory gives
 * the loop to others now and then.
 */
#include <errno.h>

#include "qdp/export/nbd.h"

#define CONTEXT_ID    1
#define FIRST_EXTENTS 500 /* of the first, small buffer */
#define PER_SLICE     256 /* extents looked up before others may run */
#define STATUS_BYTES  (4u << 20) /* of a connection's buffers, before the next answer */
#define ANSWER_BYTES(extents) ((uint32_t)(sizeof(be32) + (extents) * sizeof(NbdWireExtent)))

/*
 * spec: base:allocation. HOLE: nothing is stored there; ZERO: it reads as zeros.
 * compat: zeros for which a cluster is reserved are HOLE too, as stock says it: a
 * client takes HOLE or ZERO for "already zero", through a backing chain as well.
 */
static uint32_t allocation_flags(const BlockExtent *extent)
{
    return (extent->flags & EXTENT_DATA ? 0 : NBD_STATE_HOLE) |
           (extent->flags & EXTENT_ZERO ? NBD_STATE_ZERO : 0);
}

typedef struct Answer {
    NbdSlot *slot;
    uint32_t count, max, room; /* extents: there, allowed, fitting into the buffer */
    uint32_t last_len, last_flags;
} Answer;

static NbdWireExtent *extents_of(const Answer *a)
{
    return (NbdWireExtent *)((be32 *)a->slot->buf + 1);
}

/* 1: there is room; 0: the answer stays as long as it is, for there is no memory left that
 * may be taken (the client asks again for the rest); -ENOMEM. */
static int make_room(Answer *a)
{
    uint32_t room = a->room ? MIN(a->room * 8, a->max) : MIN(FIRST_EXTENTS, a->max);

    if (a->room && !nbd_conn_has_purse(a->slot->conn, ANSWER_BYTES(room))) {
        return 0;
    }
    if (!nbd_slot_grow(a->slot, ANSWER_BYTES(room), a->room ? ANSWER_BYTES(a->count) : 0)) {
        return -ENOMEM;
    }
    a->room = room;
    return 1;
}

/* Neighbours alike become one. 1: it was added; 0: the answer is full; -ENOMEM. */
static int add_extent(Answer *a, uint32_t len, uint32_t flags)
{
    int room = 1;

    if (a->count && flags == a->last_flags) {
        a->last_len += len;
    } else if (a->count == a->max) {
        return 0;
    } else if (a->count == a->room && (room = make_room(a)) <= 0) {
        return room;
    } else {
        a->count++;
        a->last_len = len;
        a->last_flags = flags;
    }
    extents_of(a)[a->count - 1] =
        (NbdWireExtent){be32_make(a->last_len), be32_make(a->last_flags)};
    return 1;
}

static int coroutine_fn collect(Answer *a)
{
    NbdConn *conn = a->slot->conn;
    uint64_t offset = a->slot->req.offset, left = a->slot->len;

    for (unsigned n = 1; left; n++) {
        BlockExtent extent;
        int ret = port_co_status(conn->port, offset, left, &extent);
        if (ret >= 0) {
            ret = add_extent(a, (uint32_t)extent.len, allocation_flags(&extent));
        }
        if (ret <= 0) {
            return ret;
        }
        offset += extent.len;
        left -= extent.len;
        if (n % PER_SLICE == 0) {
            coroutine_wake_later(conn->server->loop, coroutine_self());
            coroutine_yield();
            if (conn->state == NBD_CONN_DEAD) {
                return -ESHUTDOWN; /* nobody will read it */
            }
        }
    }
    return 0;
}

static void coroutine_fn answer(NbdSlot *slot)
{
    Answer a = {.slot = slot,
                .max = slot->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : NBD_MAX_EXTENTS};
    int ret = collect(&a);

    if (ret == 0) {
        *(be32 *)slot->buf = be32_make(CONTEXT_ID);
        slot->reply_len = ANSWER_BYTES(a.count);
    }
    nbd_slot_reply(slot, ret);
}

/* Answers are large and a client may not read them: the next is made when some have left.
 * Something is to be sent, so nbd_status_resume() comes. */
static bool is_full(const NbdConn *conn)
{
    return (conn->nb_bytes >= STATUS_BYTES ||
            !nbd_conn_has_purse(conn, ANSWER_BYTES(FIRST_EXTENTS))) &&
           (conn->out.head || conn->send.active);
}

static void coroutine_fn status_entry(void *opaque)
{
    NbdConn *conn = opaque;
    NbdSlot *slot;

    /* The connection is there while it has a slot in use; and it is freed later in the
     * turn (nbd_conn_check), not under our feet. */
    while (!is_full(conn) && (slot = nbd_slots_take(&conn->status_waiting))) {
        answer(slot);
    }
    conn->nb_status--;
    nbd_conn_check(conn);
}

void nbd_status_start(NbdSlot *slot)
{
    NbdConn *conn = slot->conn;

    nbd_slots_append(&conn->status_waiting, slot);
    nbd_status_resume(conn);
}

void nbd_status_resume(NbdConn *conn)
{
    if (!conn->status_waiting.head || is_full(conn) ||
        conn->nb_status == NBD_STATUS_AT_ONCE) {
        return;
    }
    Coroutine *co = coroutine_try_new(status_entry, conn, CO_STACK_DATA);
    if (co) {
        conn->nb_status++;
        coroutine_enter(co);
        return;
    }
    while (!conn->nb_status && conn->status_waiting.head) { /* nobody could take it later */
        nbd_slot_reply(nbd_slots_take(&conn->status_waiting), -ENOMEM);
    }
}
