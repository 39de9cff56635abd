/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The floor: the least that a server of NBD on one thread can do, to see how far the product
 * is from it.
 *
 *     floor SOCKET null BYTES | floor SOCKET FILE
 *
 * One connection; blocking; no block layer, no errors handled but by leaving. A turn is one
 * recv of all that waits, one pread or pwrite for each request (none for null), one sendmsg
 * with all replies. Files are opened with O_DIRECT where the file system can.
 *
 * spec: NBD protocol, "Fixed newstyle negotiation" and "Transmission" (simple replies).
 */
#include <endian.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_IN_FLIGHT 256
#define MAX_DATA (1u << 20)
#define IN_BYTES (2u << 20)

typedef struct __attribute__((packed)) Request {
    uint32_t magic;
    uint16_t flags, type;
    uint64_t cookie, offset;
    uint32_t len;
} Request;

typedef struct __attribute__((packed)) Reply {
    uint32_t magic, error;
    uint64_t cookie;
} Reply;

static int conn, file = -1;
static uint64_t size;
static uint8_t *in, *data;
static size_t in_len;
static Reply replies[MAX_IN_FLIGHT];
static struct iovec out[2 * MAX_IN_FLIGHT];
static int nb_out, nb_replies;
static size_t data_used;

static void must_read(void *p, size_t n)
{
    for (ssize_t r; n; p = (char *)p + r, n -= (size_t)r) {
        r = read(conn, p, n);
        if (r <= 0) {
            exit(0);
        }
    }
}

static void must_write(const void *p, size_t n)
{
    if (write(conn, p, n) != (ssize_t)n) {
        err(1, "write");
    }
}

static void handshake(void)
{
    struct __attribute__((packed)) {
        uint64_t magic, option_magic;
        uint16_t flags;
    } hello = {htobe64(0x4e42444d41474943), htobe64(0x49484156454f5054), htobe16(3)};
    uint32_t client_flags;
    must_write(&hello, sizeof(hello));
    must_read(&client_flags, 4);
    for (;;) {
        struct __attribute__((packed)) {
            uint64_t magic;
            uint32_t option, len;
        } o;
        must_read(&o, sizeof(o));
        uint32_t len = be32toh(o.len);
        if (len > MAX_DATA) {
            errx(1, "option of %u bytes", len);
        }
        must_read(data, len);
        struct __attribute__((packed)) {
            uint64_t magic;
            uint32_t option, type, len;
        } r = {htobe64(0x3e889045565a9), o.option, htobe32(0x80000001), 0}; /* ERR_UNSUP */
        if (be32toh(o.option) == 7) { /* GO */
            struct __attribute__((packed)) {
                uint16_t type;
                uint64_t size;
                uint16_t flags;
            } info = {0, htobe64(size), htobe16(1 | 4)};
            r.type = htobe32(3); /* INFO */
            r.len = htobe32(sizeof(info));
            must_write(&r, sizeof(r));
            must_write(&info, sizeof(info));
            r.type = htobe32(1); /* ACK */
            r.len = 0;
            must_write(&r, sizeof(r));
            return;
        }
        must_write(&r, sizeof(r));
    }
}

static void send_all(void)
{
    struct msghdr m = {.msg_iov = out, .msg_iovlen = (size_t)nb_out};
    while (m.msg_iovlen) {
        ssize_t n = sendmsg(conn, &m, MSG_NOSIGNAL);
        if (n < 0) {
            exit(0);
        }
        while (m.msg_iovlen && (size_t)n >= m.msg_iov->iov_len) {
            n -= (ssize_t)m.msg_iov->iov_len;
            m.msg_iov++;
            m.msg_iovlen--;
        }
        if (m.msg_iovlen) {
            m.msg_iov->iov_base = (char *)m.msg_iov->iov_base + n;
            m.msg_iov->iov_len -= (size_t)n;
        }
    }
    nb_out = nb_replies = 0;
    data_used = 0;
}

/* True when the request was whole; *used says how many bytes it took. */
static int serve(const uint8_t *p, size_t have, size_t *used)
{
    Request rq;
    if (have < sizeof(rq)) {
        return 0;
    }
    memcpy(&rq, p, sizeof(rq));
    uint16_t type = be16toh(rq.type);
    uint32_t len = be32toh(rq.len);
    uint64_t offset = be64toh(rq.offset);
    if (be32toh(rq.magic) != 0x25609513 || len > MAX_DATA || type == 2) {
        exit(0);
    }
    *used = sizeof(rq) + (type == 1 ? len : 0);
    if (have < *used) {
        return 0;
    }
    if (nb_replies == MAX_IN_FLIGHT || data_used + len > 2 * MAX_DATA) {
        send_all();
    }
    Reply *r = &replies[nb_replies++];
    *r = (Reply){htobe32(0x67446698), 0, rq.cookie};
    out[nb_out++] = (struct iovec){r, sizeof(*r)};
    uint8_t *buf = data + data_used;
    ssize_t n = len;
    if (type == 0) {
        if (file >= 0) {
            n = pread(file, buf, len, (off_t)offset);
        }
        out[nb_out++] = (struct iovec){buf, len};
        data_used += len;
    } else if (type == 1 && file >= 0) {
        memcpy(buf, p + sizeof(rq), len); /* O_DIRECT wants it aligned */
        n = pwrite(file, buf, len, (off_t)offset);
    } else if (type == 3 && file >= 0) {
        n = fdatasync(file) ? -1 : n;
    }
    if (n != (ssize_t)len) {
        errx(1, "I/O of %u bytes at %llu failed", len, (unsigned long long)offset);
    }
    return 1;
}

int main(int argc, char **argv)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (argc < 3 || strlen(argv[1]) >= sizeof(a.sun_path)) {
        errx(1, "usage: floor SOCKET (null BYTES | FILE)");
    }
    if (argc == 4) {
        size = strtoull(argv[3], NULL, 0);
    } else {
        struct stat st;
        file = open(argv[2], O_RDWR | O_DIRECT | O_CLOEXEC);
        if (file < 0) {
            file = open(argv[2], O_RDWR | O_CLOEXEC);
        }
        if (file < 0 || fstat(file, &st)) {
            err(1, "%s", argv[2]);
        }
        size = (uint64_t)st.st_size;
    }
    if (posix_memalign((void **)&data, 4096, 2 * MAX_DATA) || !(in = malloc(IN_BYTES))) {
        errx(1, "no memory");
    }
    memset(data, 0, 2 * MAX_DATA);
    int l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(a.sun_path, argv[1]);
    unlink(argv[1]);
    if (l < 0 || bind(l, (struct sockaddr *)&a, sizeof(a)) || listen(l, 1)) {
        err(1, "%s", argv[1]);
    }
    conn = accept(l, NULL, NULL);
    handshake();
    for (;;) {
        ssize_t n = recv(conn, in + in_len, IN_BYTES - in_len, 0);
        if (n <= 0) {
            return 0;
        }
        in_len += (size_t)n;
        size_t at = 0, used;
        while (serve(in + at, in_len - at, &used)) {
            at += used;
        }
        memmove(in, in + at, in_len - at);
        in_len -= at;
        send_all();
    }
}
