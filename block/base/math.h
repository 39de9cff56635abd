/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checked and rounding arithmetic on 64-bit offsets; no state, no errors. */
#ifndef BLOCK_BASE_MATH_H
#define BLOCK_BASE_MATH_H

#include <stdbool.h>
#include <stdint.h>

#define KiB (UINT64_C(1) << 10)
#define MiB (UINT64_C(1) << 20)
#define GiB (UINT64_C(1) << 30)
#define TiB (UINT64_C(1) << 40)

#define container_of(ptr, type, member)                                                \
    ((type *)((char *)(ptr) - __builtin_offsetof(type, member)))

static inline bool is_power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

/* @align is a power of two. The caller guarantees that rounding up does not wrap. */
static inline uint64_t round_down(uint64_t n, uint64_t align)
{
    return n & ~(align - 1);
}

static inline uint64_t round_up(uint64_t n, uint64_t align)
{
    return (n + align - 1) & ~(align - 1);
}

static inline uint64_t div_round_up(uint64_t n, uint64_t d)
{
    return n / d + (n % d != 0);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* False when the sum or product does not fit; *ret untouched then. */
static inline bool add_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *ret = sum;
    return true;
}

static inline bool mul_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *ret = product;
    return true;
}

/* Does [a, a+alen) meet [b, b+blen)?  Neither range wraps. */
static inline bool ranges_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    return a < b + blen && b < a + alen;
}

#endif
