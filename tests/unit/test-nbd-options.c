/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The options of the NBD handshake, without a socket: each option's data lies in a
 * block of exactly its size, so that a sanitizer sees every byte read beyond it.
 */
#include <string.h>

#include "block/base/json.h"
#include "block/node.h"
#include "qapi/qapi-visit.h"
#include "qdp/export/nbd.h"

static NbdServer server;
static NbdExport export_a = {
    .name = (char *)"a", .description = (char *)"text", .writable = true};
static NbdConn conn;

static void fresh(void)
{
    if (conn.option_out) {
        g_string_free(conn.option_out, TRUE);
    }
    g_free(conn.context_export);
    memset(&conn, 0, sizeof(conn));
    conn.server = &server;
    conn.fixed = true;
    conn.option_out = g_string_new(NULL);
    export_a.users = 0;
}

static NbdNext give(uint32_t option, const void *data, uint32_t len)
{
    g_autofree uint8_t *exact = g_malloc(len ? len : 1);
    if (len) {
        memcpy(exact, data, len);
    }
    g_string_truncate(conn.option_out, 0);
    return nbd_option_handle(&conn, option, len ? exact : exact + 1, len);
}

/* The type of the last reply of the option. */
static uint32_t last_reply(void)
{
    const char *p = conn.option_out->str, *end = p + conn.option_out->len;
    uint32_t type = 0;

    while (p < end) {
        NbdWireOptionReply head;
        g_assert_cmpint(end - p, >=, sizeof(head));
        memcpy(&head, p, sizeof(head));
        g_assert_cmpuint(be64_get(head.magic), ==, NBD_REP_MAGIC);
        g_assert_false(type == NBD_REP_ACK || type & 0x80000000u); /* it was the last */
        type = be32_get(head.type);
        p += sizeof(head) + be32_get(head.len);
    }
    g_assert_true(p == end);
    return type;
}

static void test_go(void)
{
    fresh();
    g_assert_cmpint(give(NBD_OPT_INFO, "\0\0\0\1a\0\0", 7), ==, NBD_NEXT_OPTION);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ACK);
    g_assert_cmpuint(export_a.users, ==, 0);
    g_assert_cmpint(give(NBD_OPT_GO, "\0\0\0\1b\0\0", 7), ==, NBD_NEXT_OPTION);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ERR_UNKNOWN);
    g_assert_cmpint(give(NBD_OPT_GO, "\0\0\0\1a\0\0", 7), ==, NBD_NEXT_TRANSMISSION);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ACK);
    g_assert_true(conn.export == &export_a && conn.port == export_a.port);
    g_assert_cmpuint(export_a.users, ==, 1);
}

/* Every shorter form of a right option is invalid, and no byte beyond it is read. */
static void test_cut_short(void)
{
    static const char go[] = "\0\0\0\1a\0\2\0\1\0\3";
    static const char meta[] = "\0\0\0\1a\0\0\0\1\0\0\0\17base:allocation";

    fresh();
    conn.structured = true;
    for (uint32_t len = 0; len < sizeof(go) - 1; len++) {
        g_assert_cmpint(give(NBD_OPT_GO, go, len), ==, NBD_NEXT_OPTION);
        g_assert_cmpuint(last_reply(), ==, NBD_REP_ERR_INVALID);
    }
    for (uint32_t len = 0; len < sizeof(meta) - 1; len++) {
        g_assert_cmpint(give(NBD_OPT_SET_META_CONTEXT, meta, len), ==, NBD_NEXT_OPTION);
        g_assert_cmpuint(last_reply(), ==, NBD_REP_ERR_INVALID);
        g_assert_false(conn.allocation);
    }
    give(NBD_OPT_SET_META_CONTEXT, meta, sizeof(meta) - 1);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ACK);
    g_assert_true(conn.allocation);
    give(NBD_OPT_SET_META_CONTEXT, meta, 3); /* a failed one voids the earlier */
    g_assert_false(conn.allocation);
}

static void test_context_of_another_export(void)
{
    NbdExport other = {.name = (char *)"b", .port = export_a.port};

    fresh();
    conn.structured = true;
    list_append(&server.exports, &other.in_server);
    give(NBD_OPT_SET_META_CONTEXT, "\0\0\0\1a\0\0\0\1\0\0\0\17base:allocation", 28);
    g_assert_true(conn.allocation);
    g_assert_cmpint(give(NBD_OPT_GO, "\0\0\0\1b\0\0", 7), ==, NBD_NEXT_TRANSMISSION);
    g_assert_false(conn.allocation);
    list_remove(&other.in_server);
}

static void test_export_name(void)
{
    fresh();
    g_assert_cmpint(give(NBD_OPT_EXPORT_NAME, "a", 1), ==, NBD_NEXT_TRANSMISSION);
    g_assert_cmpuint(conn.option_out->len, ==, 134);
    fresh();
    conn.no_zeroes = true;
    g_assert_cmpint(give(NBD_OPT_EXPORT_NAME, "a", 1), ==, NBD_NEXT_TRANSMISSION);
    g_assert_cmpuint(conn.option_out->len, ==, 10);
    fresh();
    g_assert_cmpint(give(NBD_OPT_EXPORT_NAME, "a\0", 2), ==, NBD_NEXT_END);
    g_assert_cmpint(give(NBD_OPT_EXPORT_NAME, "", 0), ==, NBD_NEXT_END);
    g_assert_cmpuint(conn.option_out->len, ==, 0);
}

static void test_others(void)
{
    fresh();
    give(NBD_OPT_STARTTLS, "", 0);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ERR_POLICY);
    give(4711, "data", 4);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ERR_UNSUP);
    give(NBD_OPT_SET_META_CONTEXT, "\0\0\0\1a\0\0\0\0", 9);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ERR_INVALID); /* not structured yet */
    give(NBD_OPT_STRUCTURED_REPLY, "", 0);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ACK);
    give(NBD_OPT_STRUCTURED_REPLY, "", 0);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ERR_INVALID);
    give(NBD_OPT_LIST, "", 0);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ACK);
    g_assert_cmpint(give(NBD_OPT_ABORT, "", 0), ==, NBD_NEXT_END);
    g_assert_cmpuint(last_reply(), ==, NBD_REP_ACK);
}

/* Seeded noise: whatever comes, replies are well formed and users are counted right. */
static void test_noise(void)
{
    static const char sample[] = "\0\0\0\1a\0\0\0\1\0\0\0\17base:allocation";
    g_autoptr(GRand) rand = g_rand_new_with_seed(20);

    for (int turn = 0; turn < 200000; turn++) {
        uint8_t data[64];
        uint32_t len = g_rand_int_range(rand, 0, sizeof(data));
        uint32_t option = g_rand_int_range(rand, 0, 12);
        for (uint32_t i = 0; i < len; i++) {
            data[i] = i < sizeof(sample) - 1 && g_rand_int_range(rand, 0, 8)
                          ? sample[i]
                          : g_rand_int_range(rand, 0, 256);
        }
        fresh();
        conn.structured = g_rand_boolean(rand);
        NbdNext next = give(option, data, len);
        g_assert_cmpuint(export_a.users, ==, next == NBD_NEXT_TRANSMISSION);
        if (option != NBD_OPT_EXPORT_NAME) {
            g_assert_cmpuint(last_reply(), !=, 0);
        }
    }
}

typedef struct Run {
    Graph *graph;
    int ret;
} Run;

static void coroutine_fn run_tests(void *opaque)
{
    Run *run = opaque;
    g_autoptr(JsonValue) json = json_parse(
        "{\"driver\": \"null-co\", \"node-name\": \"a\", \"size\": 1048576}", NULL);
    g_autoptr(BlockdevOptions) options =
        qapi_BlockdevOptions_from_json(json, NULL, NULL);
    BlockNode *node = node_co_open(run->graph, options, NULL);
    g_assert_nonnull(node);
    export_a.port = port_co_new(node, PERM_WRITE, PERM_ALL, "a", NULL, NULL, NULL);
    run->ret = g_test_run();
    fresh();
    g_string_free(conn.option_out, TRUE);
    port_co_free(export_a.port);
    node_co_unref(node);
}

int main(int argc, char **argv)
{
    Run run;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd-options/go", test_go);
    g_test_add_func("/nbd-options/cut-short", test_cut_short);
    g_test_add_func("/nbd-options/context-of-another-export",
                    test_context_of_another_export);
    g_test_add_func("/nbd-options/export-name", test_export_name);
    g_test_add_func("/nbd-options/others", test_others);
    g_test_add_func("/nbd-options/noise", test_noise);

    Loop *loop = loop_new(LOOP_AUTO, NULL);
    run.graph = graph_new(loop);
    list_init(&server.exports);
    list_append(&server.exports, &export_a.in_server);
    loop_run_coroutine(loop, run_tests, &run);
    graph_free(run.graph);
    loop_free(loop);
    return run.ret;
}
