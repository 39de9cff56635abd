/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connection of nbdload: negotiation, and the loop that keeps its slots busy.
 *
 * A slot is one request in flight; its number is the request's cookie.  Requests are
 * collected while slots are free and leave in one sendmsg; replies are taken from one
 * large receive buffer, a read's data in place.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "qdp/export/nbd-protocol.h"
#include "tests/bench/nbdload.h"

#define SEND_IOV 512
#define RECV_MIN (1u << 20)

typedef struct Slot {
    NbdWireRequest wire;
    uint64_t start_ns;
    uint64_t offset;
    uint32_t len; /* of the data of a read's reply */
    uint16_t type;
    unsigned writes; /* since the last flush */
    bool measured;
    uint8_t *data; /* what it writes */
    struct Slot *next_free;
} Slot;

typedef struct Run {
    Conn *conn;
    Slot *free;
    unsigned in_flight;
    struct iovec iov[SEND_IOV];
    int niov;
    uint8_t *buf;
    size_t cap, start, end;
    bool exhausted;
} Run;

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static bool failed(Conn *conn, const char *why)
{
    if (!conn->failure) {
        conn->failure = why;
    }
    return false;
}

/* ---- connecting ---- */

static int connect_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof(addr.sun_path)) {
        return -1;
    }
    strcpy(addr.sun_path, path);
    return connect(fd, (struct sockaddr *)&addr, sizeof(addr)) ? -1 : fd;
}

static int connect_tcp(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    int fd = -1, on = 1;
    if (getaddrinfo(host, port, &hints, &list)) {
        return -1;
    }
    for (struct addrinfo *it = list; it && fd < 0; it = it->ai_next) {
        fd = socket(it->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, it->ai_addr, it->ai_addrlen)) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    return fd;
}

static bool read_all(Conn *conn, void *buf, size_t len)
{
    uint8_t *p = buf;
    while (len) {
        ssize_t n = recv(conn->fd, p, len, 0);
        if (n <= 0) {
            return failed(conn, "connection lost");
        }
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static bool write_all(Conn *conn, const void *buf, size_t len)
{
    return send(conn->fd, buf, len, MSG_NOSIGNAL) == (ssize_t)len ||
           failed(conn, "send failed");
}

/* Send one option; take its replies up to the last. @info gets NBD_INFO_EXPORT. */
static bool option(Conn *conn, uint32_t code, const void *data, uint32_t len)
{
    NbdWireOption head = {be64_make(NBD_OPTS_MAGIC), be32_make(code), be32_make(len)};
    if (!write_all(conn, &head, sizeof(head)) || !write_all(conn, data, len)) {
        return false;
    }
    for (;;) {
        NbdWireOptionReply rep;
        uint8_t body[4096];
        if (!read_all(conn, &rep, sizeof(rep))) {
            return false;
        }
        uint32_t type = be32_get(rep.type), n = be32_get(rep.len);
        if (n > sizeof(body) || !read_all(conn, body, n)) {
            return failed(conn, "bad option reply");
        }
        if (type & 0x80000000u) {
            return failed(conn, "the server refused an option (no such export?)");
        }
        if (type == NBD_REP_ACK) {
            return true;
        }
        if (type == NBD_REP_INFO && n >= 12 && body[0] == 0 &&
            body[1] == NBD_INFO_EXPORT) {
            be64 size;
            be16 flags;
            memcpy(&size, body + 2, 8);
            memcpy(&flags, body + 10, 2);
            conn->size = be64_get(size);
            conn->flags = be16_get(flags);
        }
    }
}

static bool negotiate(Conn *conn)
{
    NbdWireGreeting hello;
    be32 flags = be32_make(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    uint8_t go[4096 + 8];
    uint32_t name_len = (uint32_t)strlen(conn->load->export_name);
    be32 raw_len = be32_make(name_len);

    if (!read_all(conn, &hello, sizeof(hello)) ||
        be64_get(hello.opts_magic) != NBD_OPTS_MAGIC || name_len > 4096) {
        return failed(conn, "not an NBD server");
    }
    if (!write_all(conn, &flags, sizeof(flags)) ||
        (conn->load->structured && !option(conn, NBD_OPT_STRUCTURED_REPLY, "", 0))) {
        return false;
    }
    memcpy(go, &raw_len, 4);
    memcpy(go + 4, conn->load->export_name, name_len);
    memset(go + 4 + name_len, 0, 2);
    return option(conn, NBD_OPT_GO, go, name_len + 6);
}

bool conn_open(Conn *conn)
{
    const Load *load = conn->load;
    conn->fd = load->unix_path ? connect_unix(load->unix_path)
                               : connect_tcp(load->host, load->port);
    if (conn->fd < 0) {
        return failed(conn, "cannot connect");
    }
    if (!negotiate(conn)) {
        return false;
    }
    uint64_t range = load->range && load->range < conn->size ? load->range : conn->size;
    uint64_t blocks = range / load->step;
    if (range % load->step >= load->block_size) {
        blocks++;
    }
    conn->nb_blocks = blocks;
    if (load->order != ORDER_RANDOM) { /* each connection has its own part */
        conn->nb_blocks = blocks / load->connections;
        conn->first_block = conn->nb_blocks * conn->index;
    }
    return conn->nb_blocks > 0 || failed(conn, "the export is too small");
}

/* ---- making requests ---- */

static uint64_t next_random(Conn *conn)
{
    uint64_t x = conn->rng;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    conn->rng = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* i -> a*i mod n is a permutation when a and n have no common divisor. */
static uint64_t scatter(uint64_t i, uint64_t n)
{
    uint64_t a = n * 5 / 8 | 1;
    for (;; a += 2) {
        uint64_t x = a, y = n;
        while (y) {
            uint64_t t = x % y;
            x = y;
            y = t;
        }
        if (x == 1) {
            return (uint64_t)((unsigned __int128)a * i % n);
        }
    }
}

/* The next block's number, or -1: there is none. */
static int64_t next_block(Conn *conn)
{
    switch (conn->load->order) {
    case ORDER_RANDOM:
        return (int64_t)(next_random(conn) % conn->nb_blocks);
    case ORDER_SEQ:
        return (int64_t)(conn->next++ % conn->nb_blocks);
    default:
        return conn->next < conn->nb_blocks
                   ? (int64_t)scatter(conn->next++, conn->nb_blocks)
                   : -1;
    }
}

static uint16_t choose_type(Conn *conn)
{
    const Load *load = conn->load;
    if (load->read_percent &&
        (load->read_percent == 100 || next_random(conn) % 100 < load->read_percent)) {
        return NBD_CMD_READ;
    }
    return load->trim     ? NBD_CMD_TRIM
           : load->zeroes ? NBD_CMD_WRITE_ZEROES
                          : NBD_CMD_WRITE;
}

static void queue(Run *run, Slot *slot, uint16_t type, uint64_t offset, uint32_t len,
                  uint64_t now)
{
    const Load *load = run->conn->load;
    bool writes = type == NBD_CMD_WRITE || type == NBD_CMD_WRITE_ZEROES;
    slot->type = type;
    slot->offset = offset;
    slot->len = len;
    slot->start_ns = now;
    slot->measured = load->measuring;
    slot->wire.flags = be16_make(writes && load->fua ? NBD_CMD_FLAG_FUA : 0);
    slot->wire.type = be16_make(type);
    slot->wire.offset = be64_make(offset);
    slot->wire.len = be32_make(len);
    run->iov[run->niov++] = (struct iovec){&slot->wire, sizeof(slot->wire)};
    if (type == NBD_CMD_WRITE) {
        if (load->verify) {
            pattern_fill(slot->data, len, offset, load->seed);
        }
        run->iov[run->niov++] = (struct iovec){slot->data, len};
    }
    run->in_flight++;
}

/* Give work to one free slot. False: there is no more. */
static bool refill(Run *run, uint64_t now)
{
    Conn *conn = run->conn;
    const Load *load = conn->load;
    Slot *slot = run->free;

    if (load->flush_every && slot->writes >= load->flush_every) {
        slot->writes = 0;
        run->free = slot->next_free;
        queue(run, slot, NBD_CMD_FLUSH, 0, 0, now);
        return true;
    }
    if (load->stop || (load->max_ops && conn->started >= load->max_ops)) {
        return false;
    }
    int64_t block = next_block(conn);
    if (block < 0) {
        return false;
    }
    uint16_t type = choose_type(conn);
    slot->writes += type != NBD_CMD_READ;
    conn->started++;
    run->free = slot->next_free;
    queue(run, slot, type, (conn->first_block + (uint64_t)block) * load->step,
          load->block_size, now);
    return true;
}

static bool send_all(Run *run)
{
    struct msghdr msg = {.msg_iov = run->iov, .msg_iovlen = (size_t)run->niov};
    while (msg.msg_iovlen) {
        ssize_t n = sendmsg(run->conn->fd, &msg, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return failed(run->conn, "send failed");
        }
        run->conn->sends++;
        while (msg.msg_iovlen && (size_t)n >= msg.msg_iov->iov_len) {
            n -= (ssize_t)msg.msg_iov->iov_len;
            msg.msg_iov++;
            msg.msg_iovlen--;
        }
        if (msg.msg_iovlen) {
            msg.msg_iov->iov_base = (uint8_t *)msg.msg_iov->iov_base + n;
            msg.msg_iov->iov_len -= (size_t)n;
        }
    }
    run->niov = 0;
    return true;
}

/* ---- taking replies ---- */

static void finish(Run *run, Slot *slot, uint32_t error, const uint8_t *data,
                   uint64_t now)
{
    Conn *conn = run->conn;
    if (error) {
        conn->errors++;
        conn->first_error = conn->first_error ? conn->first_error : (int)error;
    } else if (data && conn->load->verify &&
               !pattern_matches(data, slot->len, slot->offset, conn->load->seed)) {
        conn->mismatches++;
    }
    if (slot->measured && conn->load->measuring) {
        if (slot->type == NBD_CMD_FLUSH) {
            conn->flushes++;
        } else {
            conn->ops++;
            conn->bytes += conn->load->block_size;
            hist_add(&conn->latency, now - slot->start_ns);
        }
    }
    slot->next_free = run->free;
    run->free = slot;
    run->in_flight--;
}

/* One reply at the start of the buffer: bytes used, 0 = incomplete, -1 = nonsense. */
static int64_t parse_simple(Run *run, const uint8_t *p, size_t avail, uint64_t now)
{
    NbdWireSimple head;
    if (avail < sizeof(head)) {
        return 0;
    }
    memcpy(&head, p, sizeof(head));
    uint64_t cookie = be64_get(head.cookie);
    if (be32_get(head.magic) != NBD_SIMPLE_MAGIC || cookie >= run->conn->load->depth) {
        return -1;
    }
    Slot *slot = &run->conn->slots[cookie];
    bool has_data = slot->type == NBD_CMD_READ && !be32_get(head.error);
    size_t need = sizeof(head) + (has_data ? slot->len : 0);
    if (avail < need) {
        return 0;
    }
    finish(run, slot, be32_get(head.error), has_data ? p + sizeof(head) : NULL, now);
    return (int64_t)need;
}

static int64_t parse_chunk(Run *run, const uint8_t *p, size_t avail, uint64_t now)
{
    NbdWireChunk head;
    be32 error;
    if (avail < sizeof(head)) {
        return 0;
    }
    memcpy(&head, p, sizeof(head));
    if (be32_get(head.magic) != NBD_STRUCTURED_MAGIC) {
        return parse_simple(run, p, avail, now);
    }
    size_t need = sizeof(head) + be32_get(head.len);
    uint64_t cookie = be64_get(head.cookie);
    if (cookie >= run->conn->load->depth || need > run->cap) {
        return -1;
    }
    if (avail < need) {
        return 0;
    }
    Slot *slot = &run->conn->slots[cookie];
    bool whole = be16_get(head.type) == NBD_REPLY_OFFSET_DATA &&
                 be32_get(head.len) == slot->len + 8;
    memcpy(&error, p + sizeof(head), 4);
    if (be16_get(head.flags) & NBD_REPLY_FLAG_DONE) {
        finish(run, slot, be16_get(head.type) & 0x8000 ? be32_get(error) : 0,
               whole ? p + sizeof(head) + 8 : NULL, now);
    }
    return (int64_t)need;
}

/* Look for replies for a while before sleeping: who sleeps must be woken, and on a virtual
 * machine that costs the server's send more than the request did. */
static ssize_t receive(Conn *conn, void *buf, size_t len)
{
    uint64_t end = conn->load->spin_ns ? now_ns() + conn->load->spin_ns : 0;

    while (end) {
        ssize_t n = recv(conn->fd, buf, len, MSG_DONTWAIT);
        if (n >= 0 || (errno != EAGAIN && errno != EINTR)) {
            return n;
        }
        if (now_ns() >= end) {
            break;
        }
    }
    return recv(conn->fd, buf, len, 0);
}

static bool take_replies(Run *run)
{
    Conn *conn = run->conn;
    if (run->start == run->end) {
        run->start = run->end = 0;
    } else if (run->cap - run->end < run->cap / 2) {
        memmove(run->buf, run->buf + run->start, run->end - run->start);
        run->end -= run->start;
        run->start = 0;
    }
    ssize_t n = receive(conn, run->buf + run->end, run->cap - run->end);
    if (n <= 0) {
        return (n < 0 && errno == EINTR) || failed(conn, "connection lost");
    }
    conn->recvs++;
    run->end += (size_t)n;
    uint64_t now = now_ns();
    while (run->start < run->end) {
        const uint8_t *p = run->buf + run->start;
        size_t avail = run->end - run->start;
        int64_t used = conn->load->structured ? parse_chunk(run, p, avail, now)
                                              : parse_simple(run, p, avail, now);
        if (used < 0) {
            return failed(conn, "nonsense from the server");
        }
        if (used == 0) {
            break;
        }
        run->start += (size_t)used;
    }
    return true;
}

void conn_run(Conn *conn)
{
    const Load *load = conn->load;
    Run *run = calloc(1, sizeof(*run));
    run->conn = conn;
    run->cap = RECV_MIN + 4 * (size_t)load->block_size;
    run->buf = malloc(run->cap);
    conn->slots = calloc(load->depth, sizeof(Slot));
    for (unsigned i = load->depth; i-- > 0;) {
        Slot *slot = &conn->slots[i];
        slot->wire.magic = be32_make(NBD_REQUEST_MAGIC);
        slot->wire.cookie = be64_make(i);
        slot->data = malloc(load->block_size);
        pattern_fill(slot->data, load->block_size, i, load->seed);
        slot->next_free = run->free;
        run->free = slot;
    }
    do {
        uint64_t now = now_ns();
        while (run->free && run->niov + 2 <= SEND_IOV && refill(run, now)) {
        }
        if (run->niov && !send_all(run)) {
            break;
        }
    } while (run->in_flight && take_replies(run));
    NbdWireRequest bye = {be32_make(NBD_REQUEST_MAGIC),
                          .type = be16_make(NBD_CMD_DISC)};
    if (!conn->failure) {
        write_all(conn, &bye, sizeof(bye));
    }
    for (unsigned i = 0; i < load->depth; i++) {
        free(conn->slots[i].data);
    }
    free(conn->slots);
    free(run->buf);
    free(run);
    close(conn->fd);
}
