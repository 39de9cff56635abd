/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The handshake: fixed newstyle negotiation, one coroutine per connection. It reads and
 * writes; what the options mean is in nbd-options.c.
 *
 * H1 every length is the client's and is limited before it is used; what is too long is
 *    skipped and answered, or ends the connection;
 * H2 a client that is silent, or reads nothing, is cut off by the connection's timer;
 * H3 nothing is logged: a port scanner is no event;
 * H4 all replies to one option leave in one send.
 *
 * spec: NetworkBlockDevice/nbd, doc/proto.md, "Handshake".
 */
#include <string.h>

#include "qdp/export/nbd.h"

void nbd_option_reply(NbdConn *conn, uint32_t option, uint32_t type, const void *data,
                      size_t len)
{
    NbdWireOptionReply head = {be64_make(NBD_REP_MAGIC), be32_make(option),
                               be32_make(type), be32_make((uint32_t)len)};
    g_string_append_len(conn->option_out, (const char *)&head, sizeof(head));
    if (len) {
        g_string_append_len(conn->option_out, data, (gssize)len);
    }
}

void nbd_option_error(NbdConn *conn, uint32_t option, uint32_t type, const char *fmt,
                      ...)
{
    va_list args;
    va_start(args, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, args);
    va_end(args);
    nbd_option_reply(conn, option, type, text, MIN(strlen(text), NBD_MAX_NAME));
}

static bool coroutine_fn flush_replies(NbdConn *conn)
{
    GString *out = conn->option_out;
    bool ok = !out->len || sock_co_send_all(conn->server->loop, conn->fd, out->str,
                                            out->len) == (ssize_t)out->len;
    g_string_truncate(out, 0);
    return ok && conn->state == NBD_CONN_HANDSHAKE;
}

/* Wait until @len bytes (at most the window) are there; they start at conn->start. */
static bool coroutine_fn need(NbdConn *conn, uint32_t len)
{
    while (conn->end - conn->start < len) {
        if (conn->start == conn->end) {
            conn->start = conn->end = 0;
        } else if (conn->start + len > NBD_WINDOW) {
            memmove(conn->window, conn->window + conn->start, conn->end - conn->start);
            conn->end -= conn->start;
            conn->start = 0;
        }
        ssize_t n = sock_co_recv(conn->server->loop, conn->fd, conn->window + conn->end,
                                 NBD_WINDOW - conn->end);
        if (n <= 0 || conn->state != NBD_CONN_HANDSHAKE) {
            return false;
        }
        conn->end += (uint32_t)n;
    }
    return true;
}

static const void *take(NbdConn *conn, uint32_t len)
{
    const uint8_t *data = conn->window + conn->start;
    conn->start += len;
    return data;
}

static bool coroutine_fn skip(NbdConn *conn, uint32_t len)
{
    while (len) {
        uint32_t n = MIN(len, 4096);
        if (!need(conn, n)) {
            return false;
        }
        take(conn, n);
        len -= n;
    }
    return true;
}

static bool coroutine_fn greet(NbdConn *conn)
{
    NbdWireGreeting greeting = {
        be64_make(NBD_MAGIC), be64_make(NBD_OPTS_MAGIC),
        be16_make(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)};
    be32 raw;

    g_string_append_len(conn->option_out, (const char *)&greeting, sizeof(greeting));
    if (!flush_replies(conn) || !need(conn, sizeof(raw))) {
        return false;
    }
    memcpy(&raw, take(conn, sizeof(raw)), sizeof(raw));
    uint32_t flags = be32_get(raw);
    conn->fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
    conn->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    /* spec: a client flag that we did not offer ends the connection */
    return !(flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
}

static NbdNext coroutine_fn one_option(NbdConn *conn)
{
    NbdWireOption head;

    if (!need(conn, sizeof(head))) {
        return NBD_NEXT_END;
    }
    memcpy(&head, take(conn, sizeof(head)), sizeof(head));
    uint32_t option = be32_get(head.option), len = be32_get(head.len);
    if (be64_get(head.magic) != NBD_OPTS_MAGIC || len > NBD_MAX_OPTION) {
        return NBD_NEXT_END;
    }
    /* spec: a client that is not "fixed" knows EXPORT_NAME alone, and no replies */
    if (!conn->fixed && option != NBD_OPT_EXPORT_NAME) {
        return NBD_NEXT_END;
    }
    if (len > NBD_OPTION_DATA) {
        if (option == NBD_OPT_EXPORT_NAME || !skip(conn, len)) {
            return NBD_NEXT_END;
        }
        if (option > NBD_OPT_SET_META_CONTEXT) {
            nbd_option_unsupported(conn, option);
        } else {
            nbd_option_error(conn, option, NBD_REP_ERR_TOO_BIG, "option is too long");
        }
        return NBD_NEXT_OPTION;
    }
    if (!need(conn, len)) {
        return NBD_NEXT_END;
    }
    return nbd_option_handle(conn, option, take(conn, len), len);
}

bool coroutine_fn nbd_co_handshake(NbdConn *conn)
{
    NbdNext next = NBD_NEXT_OPTION;

    conn->option_out = g_string_sized_new(256);
    if (greet(conn)) {
        while (next == NBD_NEXT_OPTION) {
            next = one_option(conn);
            if (!flush_replies(conn)) {
                next = NBD_NEXT_END;
            }
        }
    } else {
        next = NBD_NEXT_END;
    }
    g_string_free(conn->option_out, TRUE);
    conn->option_out = NULL;
    return next == NBD_NEXT_TRANSMISSION;
}
