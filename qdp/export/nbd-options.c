/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the options of the handshake mean. Nothing here yields: an export that was
 * looked up is there until the function returns, and one that was chosen is counted at
 * once.
 *
 * spec: NetworkBlockDevice/nbd, doc/proto.md, "Option types".
 */
#include <string.h>

#include "qdp/export/nbd.h"

#define CONTEXT_NAME "base:allocation"
#define CONTEXT_ID   1
/* Texts over this are cut off from what one option may make us send. */
#define MAX_QUERIES 1024u

NbdExport *nbd_export_find(NbdServer *server, const char *name)
{
    list_foreach(it, &server->exports) {
        NbdExport *export = container_of(it, NbdExport, in_server);
        if (strcmp(export->name, name) == 0) {
            return export;
        }
    }
    return NULL;
}

static uint16_t transmission_flags(const NbdConn *conn, const NbdExport *export)
{
    /* multi-conn: all connections share one port, so a flush on one covers all */
    uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_SEND_CACHE | NBD_FLAG_CAN_MULTI_CONN;
    if (export->writable) {
        flags |=
            NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    } else {
        flags |= NBD_FLAG_READ_ONLY;
    }
    return flags | (conn->structured ? NBD_FLAG_SEND_DF : 0);
}

/* The connection uses this export from now on. */
static void choose(NbdConn *conn, NbdExport *export)
{
    conn->export = export;
    conn->port = export->port;
    export->users++;
    /* spec: contexts hold for the export that was named when they were selected */
    if (conn->allocation && strcmp(conn->context_export, export->name) != 0) {
        conn->allocation = false;
    }
}

/* ---- an option's data, taken apart with bounds ---- */

typedef struct Cursor {
    const uint8_t *data;
    uint32_t left;
} Cursor;

static const uint8_t *take(Cursor *c, uint32_t len)
{
    const uint8_t *data = c->data;
    if (c->left < len) {
        return NULL;
    }
    c->data += len;
    c->left -= len;
    return data;
}

static bool take_u32(Cursor *c, uint32_t *ret)
{
    be32 raw;
    const uint8_t *data = take(c, sizeof(raw));
    if (data) {
        memcpy(&raw, data, sizeof(raw));
        *ret = be32_get(raw);
    }
    return data != NULL;
}

/* A string of @len bytes; NULL when it is not there, too long, or has a NUL inside. */
static char *take_string(Cursor *c, uint32_t len)
{
    const uint8_t *data = len > NBD_MAX_NAME ? NULL : take(c, len);
    if (!data || memchr(data, 0, len)) {
        return NULL;
    }
    return g_strndup((const char *)data, len);
}

/* ---- one function per option ---- */

static void invalid(NbdConn *conn, uint32_t option, const char *why)
{
    nbd_option_error(conn, option, NBD_REP_ERR_INVALID, "%s", why);
}

static void list_exports(NbdConn *conn, const Cursor *c)
{
    if (c->left) {
        invalid(conn, NBD_OPT_LIST, "OPT_LIST has no data");
        return;
    }
    list_foreach(it, &conn->server->exports) {
        const NbdExport *export = container_of(it, NbdExport, in_server);
        be32 name_len = be32_make((uint32_t)strlen(export->name));
        GString *data = g_string_new_len((const char *)&name_len, sizeof(name_len));
        g_string_append(data, export->name);
        g_string_append(data, export->description ? export->description : "");
        nbd_option_reply(conn, NBD_OPT_LIST, NBD_REP_SERVER, data->str, data->len);
        g_string_free(data, TRUE);
    }
    nbd_option_reply(conn, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static void send_text(NbdConn *conn, uint32_t option, uint16_t info, const char *text)
{
    be16 type = be16_make(info);
    GString *data = g_string_new_len((const char *)&type, sizeof(type));
    g_string_append(data, text);
    nbd_option_reply(conn, option, NBD_REP_INFO, data->str, data->len);
    g_string_free(data, TRUE);
}

static void send_infos(NbdConn *conn, uint32_t option, const NbdExport *export,
                       unsigned wanted)
{
    /* compat: a description is told unasked */
    if (wanted & 1u << NBD_INFO_NAME) {
        send_text(conn, option, NBD_INFO_NAME, export->name);
    }
    if (export->description) {
        send_text(conn, option, NBD_INFO_DESCRIPTION, export->description);
    }
    /* compat: a client that does not ask for the sizes is promised to be served at any
     * alignment; one that asks is told what is best kept to. */
    uint32_t min =
        wanted & 1u << NBD_INFO_BLOCK_SIZE ? port_request_align(export->port) : 1;
    NbdWireInfoBlockSize sizes = {be16_make(NBD_INFO_BLOCK_SIZE), be32_make(min),
                                  be32_make(MAX(min, 4096)),
                                  be32_make(NBD_MAX_PAYLOAD)};
    nbd_option_reply(conn, option, NBD_REP_INFO, &sizes, sizeof(sizes));
    NbdWireInfoExport info = {be16_make(NBD_INFO_EXPORT),
                              be64_make(port_length(export->port)),
                              be16_make(transmission_flags(conn, export))};
    nbd_option_reply(conn, option, NBD_REP_INFO, &info, sizeof(info));
    nbd_option_reply(conn, option, NBD_REP_ACK, NULL, 0);
}

/* INFO and GO. */
static NbdNext info_or_go(NbdConn *conn, uint32_t option, Cursor *c)
{
    uint32_t name_len;
    unsigned wanted = 0;
    g_autofree char *name = NULL;
    const uint8_t *raw = NULL;

    if (take_u32(c, &name_len) && (name = take_string(c, name_len))) {
        raw = take(c, 2);
    }
    if (!raw || c->left != 2u * (unsigned)(raw[0] << 8 | raw[1])) {
        invalid(conn, option, "option has bad lengths");
        return NBD_NEXT_OPTION;
    }
    while ((raw = take(c, 2))) {
        unsigned info = (unsigned)(raw[0] << 8 | raw[1]);
        wanted |= info < 32 ? 1u << info : 0;
    }
    NbdExport *export = nbd_export_find(conn->server, name);
    if (!export) {
        nbd_option_error(conn, option, NBD_REP_ERR_UNKNOWN, "export '%s' not present",
                         name);
        return NBD_NEXT_OPTION;
    }
    send_infos(conn, option, export, wanted);
    if (option == NBD_OPT_INFO) {
        return NBD_NEXT_OPTION;
    }
    choose(conn, export);
    return NBD_NEXT_TRANSMISSION;
}

static bool query_matches(const char *query, bool listing)
{
    return strcmp(query, CONTEXT_NAME) == 0 || (listing && strcmp(query, "base:") == 0);
}

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
static void meta_context(NbdConn *conn, uint32_t option, Cursor *c)
{
    bool listing = option == NBD_OPT_LIST_META_CONTEXT, found = false;
    uint32_t len, nb_queries;
    g_autofree char *name = NULL;

    if (!listing) { /* spec: whatever comes of it, the earlier selection is void */
        conn->allocation = false;
    }
    if (!conn->structured && !listing) { /* compat: looking is allowed before */
        invalid(conn, option, "request option when structured reply is not negotiated");
        return;
    }
    if (!take_u32(c, &len) || !(name = take_string(c, len)) ||
        !take_u32(c, &nb_queries) || nb_queries > MAX_QUERIES) {
        invalid(conn, option, "option has bad lengths");
        return;
    }
    if (!nbd_export_find(conn->server, name)) {
        nbd_option_error(conn, option, NBD_REP_ERR_UNKNOWN, "export '%s' not present",
                         name);
        return;
    }
    for (uint32_t i = 0; i < nb_queries; i++) {
        g_autofree char *query = NULL;
        if (!take_u32(c, &len) || !(query = take_string(c, len))) {
            invalid(conn, option, "query has a bad length");
            return;
        }
        found |= query_matches(query, listing);
    }
    if (c->left) {
        invalid(conn, option, "option has extra data");
        return;
    }
    if (found || (listing && nb_queries == 0)) {
        char data[4 + sizeof(CONTEXT_NAME) - 1];
        be32 id = be32_make(listing ? 0 : CONTEXT_ID);
        memcpy(data, &id, 4);
        memcpy(data + 4, CONTEXT_NAME, sizeof(CONTEXT_NAME) - 1);
        nbd_option_reply(conn, option, NBD_REP_META_CONTEXT, data, sizeof(data));
    }
    if (!listing && found) {
        conn->allocation = true;
        g_free(conn->context_export);
        conn->context_export = g_steal_pointer(&name);
    }
    nbd_option_reply(conn, option, NBD_REP_ACK, NULL, 0);
}

/* EXPORT_NAME has no error reply: an unknown name ends the connection. */
static NbdNext export_name(NbdConn *conn, Cursor *c)
{
    g_autofree char *name = take_string(c, c->left);
    NbdExport *export = name ? nbd_export_find(conn->server, name) : NULL;

    if (!export) {
        return NBD_NEXT_END;
    }
    NbdWireExportName answer = {be64_make(port_length(export->port)),
                                be16_make(transmission_flags(conn, export)),
                                {0}};
    g_string_append_len(conn->option_out, (const char *)&answer,
                        conn->no_zeroes ? 10 : sizeof(answer));
    choose(conn, export);
    return NBD_NEXT_TRANSMISSION;
}

static void structured_reply(NbdConn *conn, const Cursor *c)
{
    if (c->left || conn->structured) {
        invalid(conn, NBD_OPT_STRUCTURED_REPLY,
                c->left ? "option has no data" : "structured reply already negotiated");
        return;
    }
    conn->structured = true;
    nbd_option_reply(conn, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
}

NbdNext nbd_option_handle(NbdConn *conn, uint32_t option, const uint8_t *data,
                          uint32_t len)
{
    Cursor c = {data, len};

    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        return export_name(conn, &c);
    case NBD_OPT_ABORT:
        nbd_option_reply(conn, option, NBD_REP_ACK, NULL, 0);
        return NBD_NEXT_END;
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return info_or_go(conn, option, &c);
    case NBD_OPT_LIST:
        list_exports(conn, &c);
        break;
    case NBD_OPT_STARTTLS: /* refused, and what follows is still plain text */
        nbd_option_error(conn, option, len ? NBD_REP_ERR_INVALID : NBD_REP_ERR_POLICY,
                         "TLS not configured");
        break;
    case NBD_OPT_STRUCTURED_REPLY:
        structured_reply(conn, &c);
        break;
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        meta_context(conn, option, &c);
        break;
    default:
        nbd_option_unsupported(conn, option);
        break;
    }
    return NBD_NEXT_OPTION;
}

void nbd_option_unsupported(NbdConn *conn, uint32_t option)
{
    nbd_option_error(conn, option, NBD_REP_ERR_UNSUP, "Unsupported option %u", option);
}
