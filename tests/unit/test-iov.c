/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Vectors of buffers: copying in and out, slices, alignment; zero detection. */
#include <glib.h>
#include <string.h>

#include "block/base/iov.h"
#include "block/base/math.h"

/* "abc", "", "defgh", "ij" */
static char text[16];
static struct iovec iov[4];

static void setup(void)
{
    memcpy(text, "abcdefghij", 11);
    iov[0] = (struct iovec){text, 3};
    iov[1] = (struct iovec){text + 3, 0};
    iov[2] = (struct iovec){text + 3, 5};
    iov[3] = (struct iovec){text + 8, 2};
}

static void test_size(void)
{
    setup();
    g_assert_cmpuint(iov_size(iov, 4), ==, 10);
    g_assert_cmpuint(iov_size(iov, 0), ==, 0);
}

/* Every (skip, len), inside and beyond the end, against a flat copy. */
static void test_copy(void)
{
    for (size_t skip = 0; skip <= 12; skip++) {
        for (size_t len = 0; len <= 12; len++) {
            char buf[16] = "................";
            size_t want = skip >= 10 ? 0 : MIN(len, 10 - skip);
            setup();
            g_assert_cmpuint(iov_to_buf(iov, 4, skip, buf, len), ==, want);
            g_assert_cmpmem(buf, want, &"abcdefghij"[MIN(skip, 10)], want);
            g_assert_cmpint(buf[want], ==, '.');

            g_assert_cmpuint(iov_from_buf(iov, 4, skip, "0123456789AB", len), ==, want);
            char flat[11] = "abcdefghij";
            memcpy(flat + MIN(skip, 10), "0123456789AB", want);
            g_assert_cmpstr(text, ==, flat);

            g_assert_cmpuint(iov_memset(iov, 4, skip, '#', len), ==, want);
            memset(flat + MIN(skip, 10), '#', want);
            g_assert_cmpstr(text, ==, flat);
        }
    }
}

static void test_slice(void)
{
    setup();
    for (size_t skip = 0; skip <= 10; skip++) {
        for (size_t len = 0; len <= 10 - skip; len++) {
            struct iovec out[4];
            char buf[16];
            int n = iov_slice(iov, 4, skip, len, out, 4);
            g_assert_cmpint(n, >=, 0);
            g_assert_cmpuint(iov_size(out, n), ==, len);
            g_assert_cmpuint(iov_to_buf(out, n, 0, buf, sizeof(buf)), ==, len);
            g_assert_cmpmem(buf, len, text + skip, len);
        }
    }
}

static void test_slice_no_room(void)
{
    struct iovec out[2] = {{0}, {text, 77}};
    setup();
    g_assert_cmpint(iov_slice(iov, 4, 0, 10, out, 2), ==, -1);
    out[1] = (struct iovec){text, 77};
    g_assert_cmpint(iov_slice(iov, 4, 0, 4, out, 1), ==, -1);
    g_assert_cmpuint(out[1].iov_len, ==, 77); /* not written beyond its room */
    g_assert_cmpint(iov_slice(iov, 4, 1, 4, out, 2), ==, 2);
}

static void test_aligned(void)
{
    struct iovec v[2] = {{(void *)4096, 512}, {(void *)8192, 1024}};
    g_assert_true(iov_is_aligned(v, 2, 512));
    g_assert_true(iov_is_aligned(v, 2, 1));
    g_assert_false(iov_is_aligned(v, 2, 1024));
    v[1].iov_base = (void *)(8192 + 256);
    g_assert_false(iov_is_aligned(v, 2, 512));
    g_assert_true(iov_is_aligned(v, 1, 512));
    g_assert_true(iov_is_aligned(v, 0, 4096));
}

/* One bit anywhere in buffers of every small length and start is seen. */
static void test_zero(void)
{
    static unsigned char buf[256];
    for (size_t start = 0; start < 9; start++) {
        for (size_t len = 0; len <= 200; len++) {
            buf[start + len] = 1;
            if (start) {
                buf[start - 1] = 1;
            }
            g_assert_true(buffer_is_zero(buf + start, len));
            buf[start + len] = 0;
            for (size_t i = 0; i < len; i++) {
                buf[start + i] = (unsigned char)(1 << (i % 8));
                g_assert_false(buffer_is_zero(buf + start, len));
                buf[start + i] = 0;
            }
            memset(buf, 0, sizeof(buf));
        }
    }
}

static void test_math(void)
{
    uint64_t r = 7;
    g_assert_false(add_u64(UINT64_MAX, 1, &r));
    g_assert_false(mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &r));
    g_assert_cmpuint(r, ==, 7);
    g_assert_true(add_u64(UINT64_MAX, 0, &r));
    g_assert_cmpuint(r, ==, UINT64_MAX);
    g_assert_cmpuint(round_up(513, 512), ==, 1024);
    g_assert_cmpuint(round_down(1023, 512), ==, 512);
    g_assert_cmpuint(div_round_up(UINT64_MAX, 2), ==, UINT64_C(1) << 63);
    g_assert_true(ranges_overlap(0, 10, 9, 1));
    g_assert_false(ranges_overlap(0, 10, 10, 1));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/iov/size", test_size);
    g_test_add_func("/iov/copy", test_copy);
    g_test_add_func("/iov/slice", test_slice);
    g_test_add_func("/iov/slice-no-room", test_slice_no_room);
    g_test_add_func("/iov/is-aligned", test_aligned);
    g_test_add_func("/iov/buffer-is-zero", test_zero);
    g_test_add_func("/iov/math", test_math);
    return g_test_run();
}
