/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server's inside: server, exports, connections, request slots.
 *
 * Owners: the registry owns the server and the exports; the server owns the connections;
 * a connection owns its slots. A connection goes away when its socket is closed, none of
 * its requests is in flight and no send is running; an export when no connection uses it.
 */
#ifndef QDP_EXPORT_NBD_H
#define QDP_EXPORT_NBD_H

#include "block/aio/loop.h"
#include "block/port.h"
#include "qapi/qapi-types.h"
#include "qdp/export/nbd-protocol.h"

#define NBD_RECV_WINDOW   (128u << 10)
#define NBD_SMALL_PAYLOAD (64u << 10)
#define NBD_CONN_BYTES    (64u << 20) /* of buffers in flight per connection */
#define NBD_CONN_SLOTS    1024u       /* requests in flight per connection */
#define NBD_HANDSHAKE_NS  (INT64_C(10) * 1000000000)
#define NBD_MAX_EXTENTS   8192u

typedef struct NbdExport {
    ListLink in_server; /* NbdServer.exports; the registry's order */
    char *name;
    char *description;
    BlockPort *port;
    bool writable;
    bool allocation_depth;
    unsigned users; /* connections */
} NbdExport;

typedef struct NbdServer {
    Graph *graph;
    Loop *loop;
    LoopFd listener;
    char *unix_path; /* removed at stop; NULL for TCP */
    uint32_t max_connections;
    uint32_t nb_connections;
    bool listening;
    ListLink connections; /* NbdConn.in_server */
    ListLink exports;     /* NbdExport.in_server */
    CoQueue changed;      /* a connection went away */
    struct NbdBuffers *buffers;
} NbdServer;

typedef struct NbdConn NbdConn;

/* One request of one client. */
typedef struct NbdSlot {
    BlockRequest req;
    struct iovec iov;
    NbdConn *conn;
    struct NbdSlot *next; /* free list, or the list of replies to send */
    void *buf;
    uint32_t buf_len;
    uint64_t cookie;
    uint32_t len;
    uint16_t type, flags;
    uint32_t payload_len; /* of the reply, in payload */
    void *payload;        /* buf, or extents (freed with g_free when != buf) */
    int error;            /* 0 or -errno */
    union {
        NbdWireSimple simple;
        struct {
            NbdWireChunk head;
            be64 offset;
            be32 hole_len;
        } chunk;
        uint8_t bytes[40];
    } head;
    uint32_t head_len;
} NbdSlot;

struct NbdConn {
    NbdServer *server;
    ListLink in_server;
    int fd;
    NbdExport *export;
    bool structured;
    bool no_zeroes;
    bool meta_allocation, meta_depth;
    bool closing; /* nothing more is read */
    bool dead;    /* nothing more is sent */
    bool in_handshake;
    LoopTimer handshake_timer;
    /* receiving */
    SockOp recv;
    struct iovec recv_iov[2];
    uint8_t *window;
    uint32_t window_len; /* bytes in it */
    NbdSlot *filling;    /* a write whose payload is on its way */
    uint32_t filled;
    bool paused; /* too much in flight */
    /* in flight */
    unsigned nb_slots;
    uint64_t nb_bytes;
    NbdSlot *free_slots;
    /* sending */
    SockOp send;
    LoopWork flush_hook;
    struct iovec *send_iov;
    NbdSlot *out_head, **out_tail; /* complete, to be sent */
    NbdSlot *sending;              /* the ones in the running send */
};

/* nbd-handshake.c: greet, negotiate; true when the transmission phase begins. */
bool coroutine_fn nbd_co_handshake(NbdConn *conn);
uint16_t nbd_transmission_flags(const NbdConn *conn, const NbdExport *export);
NbdExport *nbd_export_find(NbdServer *server, const char *name);

/* nbd-transmission.c */
void nbd_transmission_start(NbdConn *conn);
/* End the connection: no more requests; it frees itself when all is quiet. */
void nbd_conn_close(NbdConn *conn);
/* The same, and replies are not sent any more (server stop, export removal). */
void nbd_conn_kill(NbdConn *conn);
/* A reply is ready: it leaves with the others at the end of the turn. */
void nbd_slot_reply(NbdSlot *slot);

/* nbd-status.c: answer BLOCK_STATUS in a coroutine; ends in nbd_slot_reply(). */
void nbd_status_start(NbdSlot *slot);

/* nbd-server.c: the connection is quiet; free it. */
void nbd_conn_gone(NbdConn *conn);

/* nbd-buffers.c: aligned buffers in power-of-two classes; NULL when there is no memory. */
struct NbdBuffers *nbd_buffers_new(void);
void nbd_buffers_free(struct NbdBuffers *buffers);
void *nbd_buffer_get(struct NbdBuffers *buffers, uint32_t len);
void nbd_buffer_put(struct NbdBuffers *buffers, void *buf, uint32_t len);
void nbd_buffers_trim(struct NbdBuffers *buffers);

/* nbd-server.c, for the registry */
NbdServer *coroutine_fn nbd_server_co_start(Graph *graph, const SocketAddress *addr,
                                            uint32_t max_connections, GError **errp);
/* Close everything and wait; exports must be removed before. */
void coroutine_fn nbd_server_co_stop(NbdServer *server);
NbdExport *coroutine_fn nbd_export_co_new(NbdServer *server, BlockNode *node,
                                          const char *name, const char *description,
                                          bool writable, bool allocation_depth,
                                          GError **errp);
/* Disconnect its clients, wait for them, free it. */
void coroutine_fn nbd_export_co_free(NbdServer *server, NbdExport *export);

#endif
