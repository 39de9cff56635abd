/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sessions without a block layer: the frame, order, the graph lock, slow and vanishing
 * clients. The dispatcher is this file's own: blockdev-del sleeps under the lock.
 */
#include <glib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/base/error.h"
#include "qapi/qapi-commands.h"
#include "qapi/qapi-events.h"
#include "qdp/qmp/session.h"

static MonitorHost host;
static GString *ran;       /* names of the nodes "deleted", in order */
static unsigned nb_inside; /* commands inside the lock */
static unsigned nb_executed;
static bool gate_closed; /* commands stay inside the lock */

bool coroutine_fn qapi_co_dispatch(unsigned index, const void *args, void **ret_value,
                                   GError **errp)
{
    nb_executed++;
    switch (index) {
    case QMP_COMMAND_BLOCKDEV_DEL:
        g_assert_cmpuint(nb_inside++, ==, 0);
        do {
            co_sleep_ns(host.loop, 5000000);
        } while (gate_closed);
        nb_inside--;
        g_string_append(ran, ((const BlockdevDelArgs *)args)->node_name);
        return true;
    case QMP_COMMAND_QUERY_VERSION:
        *ret_value = monitor_version();
        return true;
    default:
        error_set_class(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "not here");
        return false;
    }
}

/* ---- a client ---- */

typedef struct Client {
    int fd;
    GString *in;
} Client;

static Client *client_new(bool negotiate);

static void coroutine_fn client_send(Client *c, const char *text)
{
    g_assert_cmpint(sock_co_send_all(host.loop, c->fd, text, strlen(text)), ==,
                    (ssize_t)strlen(text));
}

/* The next line without its end; NULL at the end of the stream. */
static char *coroutine_fn client_line(Client *c)
{
    char buf[4096];
    char *end;

    while (!(end = strstr(c->in->str, "\r\n"))) {
        ssize_t got = sock_co_recv(host.loop, c->fd, buf, sizeof(buf));
        if (got <= 0) {
            return NULL;
        }
        g_string_append_len(c->in, buf, got);
    }
    char *line = g_strndup(c->in->str, (gsize)(end - c->in->str));
    g_string_erase(c->in, 0, end + 2 - c->in->str);
    return line;
}

static void coroutine_fn expect(Client *c, const char *line)
{
    g_autofree char *got = client_line(c);

    g_assert_cmpstr(got, ==, line);
}

static void coroutine_fn expect_has(Client *c, const char *part)
{
    g_autofree char *got = client_line(c);

    g_assert_nonnull(got);
    if (!strstr(got, part)) {
        g_error("'%s' is not in '%s'", part, got);
    }
}

static Client *client_new(bool negotiate)
{
    MonitorDoor door = {.server = false};
    Client *c = g_new0(Client, 1);
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), ==, 0);
    c->fd = fds[0];
    c->in = g_string_new(NULL);
    monitor_serve(host.monitor, fds[1], &door, NULL);
    if (negotiate) {
        expect_has(c, "\"QMP\"");
        client_send(c, "{'execute':'qmp_capabilities','arguments':{'enable':['oob']}}");
        expect(c, "{\"return\": {}}");
    }
    return c;
}

static void client_free(Client *c)
{
    close(c->fd);
    g_string_free(c->in, TRUE);
    g_free(c);
}

/* ---- tests ---- */

static void coroutine_fn co_test_frame(void *opaque)
{
    Client *c = client_new(false);

    expect(c, "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7, \"minor\": 2, "
              "\"micro\": 0}, \"package\": \"qemu-dp " QDP_VERSION "\"}, "
              "\"capabilities\": [\"oob\"]}}");
    client_send(c, "{'execute':'query-version'}");
    expect(c, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"Expecting "
              "capabilities negotiation with 'qmp_capabilities'\"}}");
    client_send(c, "{'execute':'qmp_capabilities'}");
    expect(c, "{\"return\": {}}");
    client_send(c, "{'execute':'qmp_capabilities','id':1}");
    expect(c, "{\"id\": 1, \"error\": {\"class\": \"CommandNotFound\", \"desc\": "
              "\"Capabilities negotiation is already complete, command ignored\"}}");
    client_send(c, "{'execute':'nope','id':[1,{'a':null}]}");
    expect(c,
           "{\"id\": [1, {\"a\": null}], \"error\": {\"class\": \"CommandNotFound\", "
           "\"desc\": \"The command nope has not been found\"}}");
    client_send(c, "{'exec-oob':'query-version'}");
    expect_has(c, "QMP input member 'exec-oob' is unexpected");
    client_send(c, "{'execute':'quit'}");
    expect(c, "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"not here\"}}");
    client_free(c);
}

static void coroutine_fn co_test_split_and_joined(void *opaque)
{
    Client *c = client_new(true);
    const char *text = "{'execute':'query-version','id':'\\u00e9'}";

    for (const char *p = text; *p; p++) {
        char one[2] = {*p, 0};
        client_send(c, one);
        co_sleep_ns(host.loop, 10000);
    }
    expect_has(c, "\"id\": \"\\u00E9\"");
    client_send(c,
                "{'execute':'query-version','id':1}{'execute':'query-version','id':2}"
                "nonsense\n{'execute':'query-version','id':3}");
    expect_has(c, "\"id\": 1");
    expect_has(c, "\"id\": 2");
    expect_has(c, "JSON parse error");
    expect_has(c, "\"id\": 3");
    client_free(c);
}

static void coroutine_fn co_test_oob_overtakes(void *opaque)
{
    Client *c = client_new(true);

    client_send(c, "{'execute':'blockdev-del','arguments':{'node-name':'a'},'id':1}"
                   "{'exec-oob':'query-version','id':2}{'execute':'query-version',"
                   "'exec-oob':'query-version','id':3}");
    expect_has(c, "The command query-version does not support OOB");
    expect(c, "{\"return\": {}, \"id\": 1}");
    expect_has(c, "QMP input member 'execute' clashes with 'exec-oob'");
    client_free(c);
}

static void coroutine_fn co_test_graph_lock(void *opaque)
{
    Client *a = client_new(true), *b = client_new(true), *q = client_new(true);

    gate_closed = true;
    client_send(a, "{'execute':'blockdev-del','arguments':{'node-name':'1'}}");
    co_sleep_ns(host.loop, 1000000);
    client_send(b, "{'execute':'blockdev-del','arguments':{'node-name':'2'}}");
    co_sleep_ns(host.loop, 1000000);
    client_send(a, "{'execute':'blockdev-del','arguments':{'node-name':'3'}}");
    client_send(q, "{'execute':'query-version'}");
    expect_has(q, "package");
    g_assert_cmpstr(ran->str, ==, ""); /* the query did not wait */
    gate_closed = false;
    expect(a, "{\"return\": {}}");
    expect(a, "{\"return\": {}}");
    expect(b, "{\"return\": {}}");
    g_assert_cmpstr(ran->str, ==, "123");
    client_free(a);
    client_free(b);
    client_free(q);
}

static void coroutine_fn co_test_start(void *opaque)
{
    Client *c;

    monitor_co_start_begin(host.monitor);
    c = client_new(true); /* greeted, negotiated */
    client_send(c, "{'execute':'query-version'}");
    co_sleep_ns(host.loop, 5000000);
    g_assert_cmpuint(nb_executed, ==, 0);
    monitor_start_end(host.monitor);
    expect_has(c, "package");
    client_free(c);
}

static void coroutine_fn co_test_events(void *opaque)
{
    Client *yes = client_new(true), *no = client_new(false);

    expect_has(no, "\"QMP\"");
    qapi_event_send_block_export_deleted("x");
    expect_has(yes, "\"event\": \"BLOCK_EXPORT_DELETED\", \"data\": {\"id\": \"x\"}}");
    client_send(no, "{'execute':'qmp_capabilities'}");
    expect(no, "{\"return\": {}}"); /* no event came before */
    client_free(yes);
    client_free(no);
}

static void coroutine_fn co_test_half_close(void *opaque)
{
    Client *c = client_new(false);

    client_send(c, "{'execute':'qmp_capabilities'}{'execute':'query-version'}");
    shutdown(c->fd, SHUT_WR);
    expect_has(c, "\"QMP\"");
    expect(c, "{\"return\": {}}");
    expect_has(c, "package");
    g_assert_null(client_line(c));
    client_free(c);
}

static void coroutine_fn co_test_vanishing(void *opaque)
{
    Client *c = client_new(true);

    client_send(c, "{'execute':'blockdev-del','arguments':{'node-name':'v'}}");
    co_sleep_ns(host.loop, 1000000);
    client_free(c);
    co_sleep_ns(host.loop, 20000000);
    g_assert_cmpstr(ran->str, ==, "v"); /* what had begun was done */
    g_assert_true(list_empty(&host.monitor->sessions));
}

static void coroutine_fn co_test_slow_reader(void *opaque)
{
    Client *slow = client_new(true), *other = client_new(true);
    unsigned before = nb_executed;
    GString *many = g_string_new(NULL);

    for (int i = 0; i < 400; i++) {
        g_string_append(many, "{'execute':'query-qmp-schema'}");
    }
    /* replies would be some 30 MB; commands stop being read long before */
    ssize_t sent = send(slow->fd, many->str, many->len, MSG_DONTWAIT);
    g_assert_cmpint(sent, >, 0);
    co_sleep_ns(host.loop, 50000000);
    QmpSession *s = list_first(&host.monitor->sessions, QmpSession, link);
    g_assert_cmpuint(s->out->len, <, QMP_OUT_PAUSE_BYTES + (1 << 20));
    client_send(other, "{'execute':'query-version'}");
    expect_has(other, "package");
    g_assert_cmpuint(nb_executed - before, ==, 1);
    /* events cannot be held back: the client is dropped */
    g_autofree char *id = g_strnfill(1 << 16, 'x');
    for (unsigned i = 0; i < 2 * QMP_OUT_MAX_BYTES >> 16; i++) {
        qapi_event_send_block_export_deleted(id);
        co_sleep_ns(host.loop, 100000);
        g_string_truncate(other->in, 0);
        char buf[65536 * 2];
        while (recv(other->fd, buf, sizeof(buf), MSG_DONTWAIT) > 0) {
        }
    }
    co_sleep_ns(host.loop, 20000000);
    g_assert_cmpuint(host.monitor->nb_sessions, ==, 1);
    g_string_free(many, TRUE);
    client_free(slow);
    client_free(other);
}

static void coroutine_fn co_test_slow_reader_vanishes(void *opaque)
{
    Client *slow = client_new(true);
    GString *many = g_string_new(NULL);

    for (int i = 0; i < 400; i++) {
        g_string_append(many, "{'execute':'query-qmp-schema'}");
    }
    g_assert_cmpint(send(slow->fd, many->str, many->len, MSG_DONTWAIT), >, 0);
    co_sleep_ns(host.loop, 50000000); /* its worker waits for room now */
    client_free(slow);
    co_sleep_ns(host.loop, 20000000);
    g_assert_cmpuint(host.monitor->nb_sessions, ==, 0);
    g_string_free(many, TRUE);
}

/* ---- set-up ---- */

static CoroutineEntry *body;
static LoopKind kind;

static void coroutine_fn co_run(void *opaque)
{
    body(NULL);
    monitor_co_close(host.monitor);
    loop_stop(host.loop);
}

typedef struct SessionTest {
    const char *path;
    CoroutineEntry *entry;
} SessionTest;

static void run(gconstpointer opaque)
{
    const SessionTest *test = opaque;

    body = test->entry;
    ran = g_string_new(NULL);
    nb_executed = 0;
    host.loop = loop_new(kind, NULL);
    host.monitor = monitor_new(&host);
    coroutine_enter(coroutine_new(co_run, NULL, CO_STACK_CONTROL));
    loop_run(host.loop);
    monitor_free(host.monitor);
    loop_free(host.loop);
    g_string_free(ran, TRUE);
}

int main(int argc, char **argv)
{
    static const SessionTest tests[] = {
        {"/qmp-session/frame", co_test_frame},
        {"/qmp-session/split-and-joined", co_test_split_and_joined},
        {"/qmp-session/oob-overtakes", co_test_oob_overtakes},
        {"/qmp-session/graph-lock", co_test_graph_lock},
        {"/qmp-session/start", co_test_start},
        {"/qmp-session/events", co_test_events},
        {"/qmp-session/half-close", co_test_half_close},
        {"/qmp-session/vanishing", co_test_vanishing},
        {"/qmp-session/slow-reader", co_test_slow_reader},
        {"/qmp-session/slow-reader-vanishes", co_test_slow_reader_vanishes},
    };

    g_test_init(&argc, &argv, NULL);
    /* LOOP=epoll: the fall-back of old kernels */
    kind = g_strcmp0(g_getenv("LOOP"), "epoll") ? LOOP_AUTO : LOOP_EPOLL;
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_test_add_data_func(tests[i].path, &tests[i], run);
    }
    return g_test_run();
}
