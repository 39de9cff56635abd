/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The handshake: fixed newstyle negotiation, one coroutine per connection.
 *
 * Every length is the client's and is limited before it is used; a client that is silent
 * is cut off by the connection's timer.  Failures end in the connection's end; nothing is
 * logged, for a port scanner is no event.
 */
#include <errno.h>
#include <string.h>

#include "qdp/export/nbd.h"

/* Options carry names and queries; more than this is answered "too big" and skipped. */
#define OPTION_MAX 16384u

static bool coroutine_fn read_exact(NbdConn *conn, void *buf, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = sock_co_recv(conn->server->loop, conn->fd, (char *)buf + done,
                                 len - done);
        if (n <= 0) {
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

static bool coroutine_fn send_all(NbdConn *conn, const void *buf, size_t len)
{
    return sock_co_send_all(conn->server->loop, conn->fd, buf, len) == (ssize_t)len;
}

static bool coroutine_fn skip(NbdConn *conn, uint32_t len)
{
    uint8_t buf[512];
    while (len) {
        uint32_t n = MIN(len, sizeof(buf));
        if (!read_exact(conn, buf, n)) {
            return false;
        }
        len -= n;
    }
    return true;
}

static bool coroutine_fn reply(NbdConn *conn, uint32_t option, uint32_t type,
                               const void *data, size_t len)
{
    NbdWireOptionReply head = {be64_make(NBD_REP_MAGIC), be32_make(option), be32_make(type),
                               be32_make((uint32_t)len)};
    GString *out = g_string_sized_new(sizeof(head) + len);
    g_string_append_len(out, (const char *)&head, sizeof(head));
    if (len) {
        g_string_append_len(out, data, (gssize)len);
    }
    bool ok = send_all(conn, out->str, out->len);
    g_string_free(out, TRUE);
    return ok;
}

static bool coroutine_fn reply_text(NbdConn *conn, uint32_t option, uint32_t type,
                                    const char *text)
{
    return reply(conn, option, type, text, strlen(text));
}

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

uint16_t nbd_transmission_flags(const NbdConn *conn, const NbdExport *export)
{
    uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_SEND_CACHE | NBD_FLAG_CAN_MULTI_CONN;
    if (export->writable) {
        flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    } else {
        flags |= NBD_FLAG_READ_ONLY;
    }
    if (conn->structured) {
        flags |= NBD_FLAG_SEND_DF;
    }
    return flags;
}

static void choose_export(NbdConn *conn, NbdExport *export)
{
    conn->export = export;
    export->users++;
}

/* ---- the data of an option, taken apart with bounds ---- */

typedef struct Cursor {
    const uint8_t *data;
    uint32_t left;
} Cursor;

static bool take(Cursor *c, void *out, uint32_t len)
{
    if (c->left < len) {
        return false;
    }
    memcpy(out, c->data, len);
    c->data += len;
    c->left -= len;
    return true;
}

static bool take_u32(Cursor *c, uint32_t *ret)
{
    be32 raw;
    if (!take(c, &raw, sizeof(raw))) {
        return false;
    }
    *ret = be32_get(raw);
    return true;
}

/* A string of @len bytes; NULL when it is not there, too long or has a NUL. */
static char *take_string(Cursor *c, uint32_t len)
{
    if (len > c->left || len > NBD_MAX_NAME || memchr(c->data, 0, len)) {
        return NULL;
    }
    char *text = g_strndup((const char *)c->data, len);
    c->data += len;
    c->left -= len;
    return text;
}

/* ---- options ---- */

static void free_text(gpointer data)
{
    g_string_free(data, TRUE);
}

static bool coroutine_fn opt_list(NbdConn *conn, uint32_t len)
{
    if (len) {
        return reply_text(conn, NBD_OPT_LIST, NBD_REP_ERR_INVALID,
                          "OPT_LIST has no data");
    }
    /* The texts first: exports may come and go while we send. */
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(free_text);
    list_foreach(it, &conn->server->exports) {
        const NbdExport *export = container_of(it, NbdExport, in_server);
        GString *data = g_string_new(NULL);
        be32 name_len = be32_make((uint32_t)strlen(export->name));
        g_string_append_len(data, (const char *)&name_len, sizeof(name_len));
        g_string_append(data, export->name);
        g_string_append(data, export->description ? export->description : "");
        g_ptr_array_add(texts, data);
    }
    for (guint i = 0; i < texts->len; i++) {
        const GString *data = texts->pdata[i];
        if (!reply(conn, NBD_OPT_LIST, NBD_REP_SERVER, data->str, data->len)) {
            return false;
        }
    }
    return reply(conn, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static bool coroutine_fn send_info(NbdConn *conn, uint32_t option, NbdExport *export,
                                   bool wants_name, bool wants_description,
                                   bool wants_sizes)
{
    struct {
        be16 type;
        be64 size;
        be16 flags;
    } info = {be16_make(NBD_INFO_EXPORT), be64_make(port_length(export->port)),
              be16_make(nbd_transmission_flags(conn, export))};
    const char *texts[2] = {wants_name ? export->name : NULL,
                            wants_description ? export->description : NULL};

    for (int i = 0; i < 2; i++) {
        if (texts[i]) {
            g_autofree char *data = g_malloc(2 + strlen(texts[i]));
            be16 type = be16_make((uint16_t)(NBD_INFO_NAME + i));
            memcpy(data, &type, 2);
            memcpy(data + 2, texts[i], strlen(texts[i]));
            if (!reply(conn, option, NBD_REP_INFO, data, 2 + strlen(texts[i]))) {
                return false;
            }
        }
    }
    uint32_t min = wants_sizes ? MAX(port_request_align(export->port), 1) : 1;
    struct {
        be16 type;
        be32 min, preferred, max;
    } sizes = {be16_make(NBD_INFO_BLOCK_SIZE), be32_make(min), be32_make(MAX(min, 4096)),
               be32_make(NBD_MAX_PAYLOAD)};
    return reply(conn, option, NBD_REP_INFO, &sizes, sizeof(sizes)) &&
           reply(conn, option, NBD_REP_INFO, &info, sizeof(info));
}

/* OPT_INFO and OPT_GO. *ret_go: the transmission phase begins. */
static bool coroutine_fn opt_go(NbdConn *conn, uint32_t option, Cursor c, bool *ret_go)
{
    uint32_t name_len;
    bool wants[4] = {false};
    be16 nb_infos;
    g_autofree char *name = NULL;

    if (!take_u32(&c, &name_len) || !(name = take_string(&c, name_len)) ||
        !take(&c, &nb_infos, sizeof(nb_infos)) ||
        c.left != 2u * be16_get(nb_infos)) {
        return reply_text(conn, option, NBD_REP_ERR_INVALID, "option has bad lengths");
    }
    be16 info;
    while (take(&c, &info, sizeof(info))) {
        if (be16_get(info) < G_N_ELEMENTS(wants)) {
            wants[be16_get(info)] = true;
        }
    }
    NbdExport *export = nbd_export_find(conn->server, name);
    if (!export) {
        g_autofree char *text = g_strdup_printf("export '%s' not present", name);
        return reply_text(conn, option, NBD_REP_ERR_UNKNOWN, text);
    }
    export->users++; /* it must not go away while we send */
    bool ok = send_info(conn, option, export, wants[NBD_INFO_NAME],
                        wants[NBD_INFO_DESCRIPTION], wants[NBD_INFO_BLOCK_SIZE]) &&
              reply(conn, option, NBD_REP_ACK, NULL, 0);
    export->users--;
    if (ok && option == NBD_OPT_GO) {
        choose_export(conn, export);
        *ret_go = true;
    }
    return ok;
}

static bool coroutine_fn send_context(NbdConn *conn, uint32_t option, uint32_t id,
                                      const char *name)
{
    char data[64];
    be32 raw = be32_make(option == NBD_OPT_LIST_META_CONTEXT ? 0 : id);
    memcpy(data, &raw, 4);
    memcpy(data + 4, name, strlen(name));
    return reply(conn, option, NBD_REP_META_CONTEXT, data, 4 + strlen(name));
}

static bool query_matches(const char *query, const char *context, bool listing)
{
    size_t colon = (size_t)(strchr(context, ':') - context) + 1;
    return strcmp(query, context) == 0 ||
           (listing && strlen(query) == colon && strncmp(query, context, colon) == 0);
}

static bool coroutine_fn opt_meta(NbdConn *conn, uint32_t option, Cursor c)
{
    bool listing = option == NBD_OPT_LIST_META_CONTEXT;
    bool allocation = false, depth = false;
    uint32_t name_len, nb_queries, len;
    g_autofree char *name = NULL;

    conn->meta_allocation = conn->meta_depth = false;
    if (!conn->structured) {
        return reply_text(conn, option, NBD_REP_ERR_INVALID,
                          "request option when structured reply is not negotiated");
    }
    if (!take_u32(&c, &name_len) || !(name = take_string(&c, name_len)) ||
        !take_u32(&c, &nb_queries)) {
        return reply_text(conn, option, NBD_REP_ERR_INVALID, "option has bad lengths");
    }
    NbdExport *export = nbd_export_find(conn->server, name);
    if (!export) {
        g_autofree char *text = g_strdup_printf("export '%s' not present", name);
        return reply_text(conn, option, NBD_REP_ERR_UNKNOWN, text);
    }
    bool has_depth = export->allocation_depth;
    if (listing && nb_queries == 0) {
        allocation = true;
        depth = has_depth;
    }
    for (uint32_t i = 0; i < nb_queries; i++) {
        g_autofree char *query = NULL;
        if (!take_u32(&c, &len) || !(query = take_string(&c, len))) {
            return reply_text(conn, option, NBD_REP_ERR_INVALID, "query has bad length");
        }
        allocation |= query_matches(query, "base:allocation", listing);
        depth |= has_depth && query_matches(query, "qemu:allocation-depth", listing);
    }
    if (c.left) {
        return reply_text(conn, option, NBD_REP_ERR_INVALID, "option has extra data");
    }
    if (!listing && allocation) {
        depth = false; /* spec: the server may select fewer; a reply has one chunk */
    }
    if ((allocation && !send_context(conn, option, 1, "base:allocation")) ||
        (depth && !send_context(conn, option, 2, "qemu:allocation-depth"))) {
        return false;
    }
    if (!listing) {
        conn->meta_allocation = allocation;
        conn->meta_depth = depth;
    }
    return reply(conn, option, NBD_REP_ACK, NULL, 0);
}

/* OPT_EXPORT_NAME has no error reply: an unknown name ends the connection. */
static bool coroutine_fn opt_export_name(NbdConn *conn, Cursor c)
{
    struct {
        be64 size;
        be16 flags;
        uint8_t zeroes[124];
    } answer = {0};
    g_autofree char *name = take_string(&c, c.left);
    NbdExport *export = name ? nbd_export_find(conn->server, name) : NULL;
    if (!export) {
        return false;
    }
    answer.size = be64_make(port_length(export->port));
    answer.flags = be16_make(nbd_transmission_flags(conn, export));
    choose_export(conn, export);
    return send_all(conn, &answer, conn->no_zeroes ? 10 : sizeof(answer));
}

/* One option whose data is in @c. */
static bool coroutine_fn handle(NbdConn *conn, uint32_t option, Cursor c, bool *ret_go)
{
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        *ret_go = opt_export_name(conn, c);
        return *ret_go;
    case NBD_OPT_ABORT:
        reply(conn, option, NBD_REP_ACK, NULL, 0);
        return false;
    case NBD_OPT_LIST:
        return opt_list(conn, c.left);
    case NBD_OPT_STARTTLS:
        return reply_text(conn, option, c.left ? NBD_REP_ERR_INVALID : NBD_REP_ERR_POLICY,
                          "TLS not configured");
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return opt_go(conn, option, c, ret_go);
    case NBD_OPT_STRUCTURED_REPLY:
        if (c.left || conn->structured) {
            return reply_text(conn, option, NBD_REP_ERR_INVALID,
                              c.left ? "option has no data"
                                     : "structured reply already negotiated");
        }
        conn->structured = true;
        return reply(conn, option, NBD_REP_ACK, NULL, 0);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return opt_meta(conn, option, c);
    default: {
        char text[64];
        g_snprintf(text, sizeof(text), "Unsupported option %u", option);
        return reply_text(conn, option, NBD_REP_ERR_UNSUP, text);
    }
    }
}

static bool coroutine_fn greet(NbdConn *conn)
{
    NbdWireGreeting greeting = {
        be64_make(NBD_MAGIC), be64_make(NBD_OPTS_MAGIC),
        be16_make(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)};
    be32 raw;
    if (!send_all(conn, &greeting, sizeof(greeting)) ||
        !read_exact(conn, &raw, sizeof(raw))) {
        return false;
    }
    uint32_t flags = be32_get(raw);
    if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
        return false; /* spec: unknown client flags end the connection */
    }
    conn->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    return true;
}

bool coroutine_fn nbd_co_handshake(NbdConn *conn)
{
    bool go = false;

    if (!greet(conn)) {
        return false;
    }
    while (!go) {
        NbdWireOption head;
        if (!read_exact(conn, &head, sizeof(head)) ||
            be64_get(head.magic) != NBD_OPTS_MAGIC) {
            return false;
        }
        uint32_t option = be32_get(head.option), len = be32_get(head.len);
        if (len > NBD_MAX_OPTION) {
            return false;
        }
        if (len > OPTION_MAX) {
            if (option == NBD_OPT_EXPORT_NAME || !skip(conn, len) ||
                !reply_text(conn, option, NBD_REP_ERR_TOO_BIG, "option is too long")) {
                return false;
            }
            continue;
        }
        g_autofree uint8_t *data = g_malloc(MAX(len, 1));
        if (!read_exact(conn, data, len) ||
            !handle(conn, option, (Cursor){data, len}, &go)) {
            return false;
        }
    }
    return true;
}
