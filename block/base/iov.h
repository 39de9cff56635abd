/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Helpers on struct iovec arrays.  Nothing here allocates. */
#ifndef BLOCK_BASE_IOV_H
#define BLOCK_BASE_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

size_t iov_size(const struct iovec *iov, int niov);

/* Copy up to @len bytes from/to the vector starting @skip bytes in; bytes copied. */
size_t iov_to_buf(const struct iovec *iov, int niov, size_t skip, void *buf, size_t len);
size_t iov_from_buf(const struct iovec *iov, int niov, size_t skip, const void *buf,
                    size_t len);
size_t iov_memset(const struct iovec *iov, int niov, size_t skip, int c, size_t len);

/*
 * Write to @out (room for @max_out elements) the part [skip, skip+len) of the vector.
 * Returns the number of elements, or -1 if @max_out is too small.
 */
int iov_slice(const struct iovec *iov, int niov, size_t skip, size_t len,
              struct iovec *out, int max_out);

/* Are all bases and lengths multiples of @align (a power of two)? */
bool iov_is_aligned(const struct iovec *iov, int niov, size_t align);

bool buffer_is_zero(const void *buf, size_t len);

#endif
