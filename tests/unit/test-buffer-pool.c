/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pools of buffers: classes, alignment, reuse, and giving back when idle. */
#include <string.h>

#include <glib.h>

#include "block/aio/buffer-pool.h"

static Loop *loop;

static void test_classes(void)
{
    BufferPool *buffers = buffer_pool_new(loop, 16u << 20);
    const uint32_t lens[] = {1,     512,      4096,           4097,
                             65536, 1u << 20, (1u << 25) - 1, 1u << 25};
    const uint64_t sizes[] = {4096,  4096,     4096,     8192,
                              65536, 1u << 20, 1u << 25, 1u << 25};

    for (unsigned i = 0; i < G_N_ELEMENTS(lens); i++) {
        uint8_t *buf = buffer_pool_get(buffers, lens[i]);
        g_assert_nonnull(buf);
        g_assert_cmpuint((uintptr_t)buf % 4096, ==, 0);
        g_assert_cmpuint(buffer_pool_in_use(buffers), ==, sizes[i]);
        buf[0] = buf[lens[i] - 1] = 1; /* a sanitizer sees a buffer too small */
        buffer_pool_put(buffers, buf, lens[i]);
        g_assert_cmpuint(buffer_pool_in_use(buffers), ==, 0);
    }
    buffer_pool_free(buffers);
}

static void test_reuse(void)
{
    BufferPool *buffers = buffer_pool_new(loop, 16u << 20);
    void *a = buffer_pool_get(buffers, 4096), *b = buffer_pool_get(buffers, 100);

    g_assert_true(a != b);
    buffer_pool_put(buffers, a, 4096);
    g_assert_true(buffer_pool_get(buffers, 1) == a); /* the same class */
    buffer_pool_put(buffers, a, 1);
    void *c = buffer_pool_get(buffers, 5000);
    g_assert_true(c != a); /* another class */
    buffer_pool_put(buffers, b, 100);
    buffer_pool_put(buffers, c, 5000);
    buffer_pool_free(buffers);
}

/* What is put back beyond the limit is not kept: the sanitizer sees a leak, and a
 * double use, of what the list loses. */
static void test_bounded(void)
{
    enum { COUNT = 40 };
    BufferPool *buffers = buffer_pool_new(loop, 16u << 20);
    void *many[COUNT];

    for (int i = 0; i < COUNT; i++) {
        many[i] = buffer_pool_get(buffers, 1u << 20);
        memset(many[i], i, 1u << 20);
    }
    g_assert_cmpuint(buffer_pool_in_use(buffers), ==, (uint64_t)COUNT << 20);
    for (int i = 0; i < COUNT; i++) {
        buffer_pool_put(buffers, many[i], 1u << 20);
    }
    g_assert_cmpuint(buffer_pool_in_use(buffers), ==, 0);
    buffer_pool_free(buffers);
}

static void coroutine_fn wait_for_trim(void *opaque)
{
    BufferPool *buffers = opaque;
    void *kept = buffer_pool_get(buffers, 4096), *used = buffer_pool_get(buffers, 4096);

    buffer_pool_put(buffers, kept, 4096);
    buffer_pool_put(buffers, used, 4096);
    for (int i = 0; i < 22; i++) { /* one is in use all the time, the other never */
        g_assert_true(buffer_pool_get(buffers, 4096) == used);
        buffer_pool_put(buffers, used, 4096);
        co_sleep_ns(loop, 100 * 1000000);
    }
    g_assert_true(buffer_pool_get(buffers, 4096) == used);
    void *fresh = buffer_pool_get(buffers, 4096);
    memset(fresh, 0, 4096);
    buffer_pool_put(buffers, used, 4096);
    buffer_pool_put(buffers, fresh, 4096);
}

static void test_trim(void)
{
    BufferPool *buffers = buffer_pool_new(loop, 16u << 20);
    loop_run_coroutine(loop, wait_for_trim, buffers);
    buffer_pool_free(buffers);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    loop = loop_new(LOOP_AUTO, NULL);
    g_test_add_func("/buffer-pool/classes", test_classes);
    g_test_add_func("/buffer-pool/reuse", test_reuse);
    g_test_add_func("/buffer-pool/bounded", test_bounded);
    g_test_add_func("/buffer-pool/trim", test_trim);
    int ret = g_test_run();
    loop_free(loop);
    return ret;
}
