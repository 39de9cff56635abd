/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HOT. Helpers on struct iovec arrays. */
#include "block/base/iov.h"

#include <string.h>

size_t iov_size(const struct iovec *iov, int niov)
{
    size_t total = 0;
    for (int i = 0; i < niov; i++) {
        total += iov[i].iov_len;
    }
    return total;
}

typedef enum IovAction { IOV_TO_BUF, IOV_FROM_BUF, IOV_SET } IovAction;

static inline size_t iov_apply(const struct iovec *iov, int niov, size_t skip, size_t len,
                               IovAction action, void *buf, int c)
{
    size_t done = 0;
    for (int i = 0; i < niov && done < len; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t n = iov[i].iov_len - skip;
        n = n < len - done ? n : len - done;
        char *base = (char *)iov[i].iov_base + skip;
        if (action == IOV_TO_BUF) {
            memcpy((char *)buf + done, base, n);
        } else if (action == IOV_FROM_BUF) {
            memcpy(base, (const char *)buf + done, n);
        } else {
            memset(base, c, n);
        }
        done += n;
        skip = 0;
    }
    return done;
}

size_t iov_to_buf(const struct iovec *iov, int niov, size_t skip, void *buf, size_t len)
{
    return iov_apply(iov, niov, skip, len, IOV_TO_BUF, buf, 0);
}

size_t iov_from_buf(const struct iovec *iov, int niov, size_t skip, const void *buf,
                    size_t len)
{
    return iov_apply(iov, niov, skip, len, IOV_FROM_BUF, (void *)buf, 0);
}

size_t iov_memset(const struct iovec *iov, int niov, size_t skip, int c, size_t len)
{
    return iov_apply(iov, niov, skip, len, IOV_SET, NULL, c);
}

int iov_slice(const struct iovec *iov, int niov, size_t skip, size_t len,
              struct iovec *out, int max_out)
{
    int n = 0;
    for (int i = 0; i < niov && len > 0; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        if (n == max_out) {
            return -1;
        }
        size_t part = iov[i].iov_len - skip;
        part = part < len ? part : len;
        out[n].iov_base = (char *)iov[i].iov_base + skip;
        out[n].iov_len = part;
        n++;
        len -= part;
        skip = 0;
    }
    return n;
}

bool iov_is_aligned(const struct iovec *iov, int niov, size_t align)
{
    uintptr_t bits = 0;
    for (int i = 0; i < niov; i++) {
        bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
    }
    return !(bits & (align - 1));
}

/* Sixteen bytes at any address, in one register of either architecture. */
typedef uint64_t Lanes __attribute__((vector_size(16), aligned(1), may_alias));

bool buffer_is_zero(const void *buf, size_t len)
{
    const unsigned char *p = buf;
    while (len >= 128) {
        const Lanes *v = (const Lanes *)p;
        Lanes bits = ((v[0] | v[1]) | (v[2] | v[3])) | ((v[4] | v[5]) | (v[6] | v[7]));
        if (bits[0] | bits[1]) {
            return false;
        }
        p += 128;
        len -= 128;
    }
    unsigned char bits = 0;
    while (len--) {
        bits |= *p++;
    }
    return !bits;
}
