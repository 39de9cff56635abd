/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server's inside: server, exports, connections, request slots.
 *
 * Owners: the registry owns the server and the exports; the server owns the connections
 * and the buffers; a connection owns its slots.
 *
 * A connection's life:
 *
 *   HANDSHAKE --GO, EXPORT_NAME--> OPEN --DISC, EOF, nonsense--> ENDING --quiet-->
 * freed |                           |                              |
 *       +----- failure, kill -------+---- lost, kill --> DEAD <----+   DEAD --quiet-->
 * freed
 *
 * ENDING reads no more, but finishes and answers what it has; DEAD answers nothing.
 * Quiet: no handshake, no socket operation active, no slot in use (N3).
 */
#ifndef QDP_EXPORT_NBD_H
#define QDP_EXPORT_NBD_H

#include "block/aio/buffer-pool.h"
#include "block/aio/loop.h"
#include "block/port.h"
#include "qapi/qapi-types.h"
#include "qdp/export/nbd-protocol.h"

#define NBD_KEEP_BYTES (16u << 20) /* of buffers kept for reuse, a server */
#define NBD_WINDOW     (256u << 10) /* receive buffer; its pages come when touched */
#define NBD_CONN_SLOTS 256u         /* requests in flight per connection */
#define NBD_SLOT_CHUNK 16u          /* slots are made so many at a time */
#define NBD_CONN_BYTES (64u << 20)  /* of buffers in use per connection */
/* However many connections there are, their buffers take no more than all of (NbdPurse): */
#define NBD_CONN_SMALL   (256u << 10) /* of each connection, as much as its window */
#define NBD_SERVER_BYTES (256u << 20) /* of all together */
#define NBD_FIRST_BYTES  (128u << 20) /* and one request more, of those that have none */
#define NBD_HANDSHAKE_NS   (INT64_C(10) * 1000000000)
#define NBD_MAX_EXTENTS    65536u /* in one answer to BLOCK_STATUS */
#define NBD_STATUS_AT_ONCE 4u     /* BLOCK_STATUS coroutines per connection */
#define NBD_OPTION_DATA    16384u /* longer options are "too big" and skipped */

typedef struct NbdConn NbdConn;
typedef struct NbdSlot NbdSlot;

typedef struct NbdExport {
    ListLink in_server; /* NbdServer.exports; linked: new clients may choose it */
    char *name;
    char *description; /* NULL if none */
    BlockPort *port;
    bool writable;
    bool writethrough; /* every write is durable when answered */
    unsigned users;    /* connections */
} NbdExport;

/* What a buffer is counted in, from the first that has room. */
typedef enum NbdPurse {
    NBD_PURSE_SMALL,  /* the connection's own: small requests never wait for others */
    NBD_PURSE_SHARED, /* all connections', whoever comes first */
    NBD_PURSE_FIRST,  /* of connections that have nothing else: not to be had by depth */
    NBD_PURSE_NONE,   /* wait */
} NbdPurse;

typedef struct NbdServer {
    Graph *graph;
    Loop *loop;
    LoopFd listener;
    LoopTimer accept_again;   /* armed while descriptors are used up */
    char *unix_path;          /* removed at stop; NULL for TCP */
    uint32_t max_connections; /* 0: no limit */
    uint32_t nb_connections;
    bool listening;
    ListLink connections; /* NbdConn.in_server */
    ListLink exports;     /* NbdExport.in_server */
    uint64_t shared_bytes, first_bytes; /* in these purses */
    ListLink starved; /* NbdConn.in_starved: wait for them, first come first served */
    LoopWork feed_work;
    bool feeding;
    CoQueue changed; /* a connection went away */
    BufferPool *buffers;
} NbdServer;

/* One request of one client. */
struct NbdSlot {
    BlockRequest req;
    struct iovec iov;
    NbdConn *conn;
    NbdSlot *next; /* in the one list it is in (N2) */
    uint64_t cookie;
    void *buf;          /* from the server's buffers, or NULL */
    uint32_t buf_len;   /* as asked for */
    uint32_t len;       /* the request's */
    uint32_t reply_len; /* bytes of buf that go into the reply */
    int error;          /* 0 or -errno */
    uint16_t type, flags;
    bool flush_after; /* TRIM with FUA */
    uint8_t purse;    /* NbdPurse: of buf */
};

_Static_assert(sizeof(NbdSlot) <= 256, "a slot fits four cache lines");

typedef enum NbdConnState {
    NBD_CONN_HANDSHAKE,
    NBD_CONN_OPEN,
    NBD_CONN_ENDING,
    NBD_CONN_DEAD,
} NbdConnState;

/* A singly linked FIFO of slots. */
typedef struct NbdSlotList {
    NbdSlot *head, **tail;
} NbdSlotList;

struct NbdConn {
    /* constant in the transmission phase */
    NbdServer *server;
    NbdExport *export; /* counted in its users */
    BlockPort *port;
    int fd;
    bool structured, allocation; /* negotiated: structured replies, base:allocation */
    /* hot */
    uint8_t state;
    bool paused;       /* too much in flight: a release continues the parsing */
    unsigned nb_slots; /* in use */
    uint64_t nb_bytes; /* of their buffers */
    uint32_t small_bytes; /* in NBD_PURSE_SMALL */
    NbdSlot *free_slots;
    uint8_t *window;
    uint32_t start, end; /* what is in the window */
    uint32_t skip;       /* payload bytes still to come that nobody wants */
    uint32_t filled;
    NbdSlot *filling; /* a write whose payload is on its way */
    NbdSlotList out;  /* finished, to be sent */
    uint32_t out_bytes; /* of data, since the last send */
    NbdSlotList sending;
    LoopWork flush_hook;
    SockOp recv, send;
    struct iovec recv_iov[2];
    struct NbdSendArea *area; /* headers and vector of the running send */
    /* cold */
    NbdSlotList status_waiting;
    unsigned nb_status; /* coroutines */
    NbdSlot *chunks[NBD_CONN_SLOTS / NBD_SLOT_CHUNK];
    unsigned nb_chunks;
    bool no_zeroes, fixed;
    char *context_export; /* the export that SET_META_CONTEXT named */
    GString *option_out;  /* replies of the handshake not yet sent */
    LoopTimer handshake_timer;
    LoopWork free_work;
    ListLink in_server, in_starved;
};

static inline void nbd_slots_init(NbdSlotList *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

static inline void nbd_slots_append(NbdSlotList *list, NbdSlot *slot)
{
    slot->next = NULL;
    *list->tail = slot;
    list->tail = &slot->next;
}

static inline NbdSlot *nbd_slots_take(NbdSlotList *list)
{
    NbdSlot *slot = list->head;
    if (slot && !(list->head = slot->next)) {
        list->tail = &list->head;
    }
    return slot;
}

/* ---- nbd-handshake.c ---- */

/* Greet and negotiate. True: the transmission phase begins, what the client already
 * sent of it is in the window. False: the connection ends. */
bool coroutine_fn nbd_co_handshake(NbdConn *conn);
/* Queue an option reply; it leaves before the handshake reads on. */
void nbd_option_reply(NbdConn *conn, uint32_t option, uint32_t type, const void *data,
                      size_t len);
void nbd_option_error(NbdConn *conn, uint32_t option, uint32_t type, const char *fmt,
                      ...) G_GNUC_PRINTF(4, 5);

/* ---- nbd-options.c: never yields, so what it looked up stays true ---- */

typedef enum NbdNext {
    NBD_NEXT_OPTION,
    NBD_NEXT_TRANSMISSION,
    NBD_NEXT_END,
} NbdNext;
NbdNext nbd_option_handle(NbdConn *conn, uint32_t option, const uint8_t *data,
                          uint32_t len);
void nbd_option_unsupported(NbdConn *conn, uint32_t option);
NbdExport *nbd_export_find(NbdServer *server, const char *name);

/* ---- nbd-transmission.c ---- */

void nbd_transmission_start(NbdConn *conn);
/* Parse on after a pause. Nothing when the connection is not paused. */
void nbd_transmission_resume(NbdConn *conn);
/* Give the slot and its buffer back. */
void nbd_slot_put(NbdSlot *slot);
/* Is there a purse for a buffer of @len? */
bool nbd_conn_has_purse(const NbdConn *conn, uint32_t len);
/* Replace the slot's buffer by a larger one, keeping @keep bytes; false: no memory. */
bool nbd_slot_grow(NbdSlot *slot, uint32_t len, uint32_t keep);

/* ---- nbd-reply.c ---- */

/* The request is finished with @error (0 or -errno): its reply leaves with the others
 * at the end of the turn. The slot is the connection's again. */
void nbd_slot_reply(NbdSlot *slot, int error);
/* The flush hook: all that is finished leaves in one send. */
void nbd_send_replies(LoopWork *work);
void nbd_replies_sent(SockOp *op, ssize_t result);
struct NbdSendArea *nbd_send_area_new(void);
void nbd_send_area_free(struct NbdSendArea *area);

/* ---- nbd-status.c ---- */

/* Answer BLOCK_STATUS, in a coroutine; ends in nbd_slot_reply(). */
void nbd_status_start(NbdSlot *slot);
/* Some of what was to be sent has left. */
void nbd_status_resume(NbdConn *conn);

/* ---- nbd-server.c ---- */

/* Read no more; finish what is in flight, answer it, then go. */
void nbd_conn_end(NbdConn *conn);
/* Go as soon as what is in flight has finished; answer nothing. */
void nbd_conn_kill(NbdConn *conn);
/* Something of the connection has ended: free it (later in this turn) if it is quiet.
 */
void nbd_conn_check(NbdConn *conn);

NbdServer *coroutine_fn nbd_server_co_start(Graph *graph, const SocketAddress *addr,
                                            uint32_t max_connections, GError **errp);
/* Close everything and wait. The exports must be gone. */
void coroutine_fn nbd_server_co_stop(NbdServer *server);
/* Accept no more and cut all clients off; does not wait. */
void nbd_server_cut(NbdServer *server);
NbdExport *coroutine_fn nbd_export_co_new(NbdServer *server, BlockNode *node,
                                          const char *name, const char *description,
                                          bool writable, bool writethrough,
                                          GError **errp);
/* Disconnect its clients, wait for them, free it. */
void coroutine_fn nbd_export_co_free(NbdServer *server, NbdExport *export);

#endif
