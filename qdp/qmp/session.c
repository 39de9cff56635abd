/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One client: receive, parse, queue, execute in order, send.
 *
 * Invariants:
 *  S1 commands run in one coroutine per session that exists while there are any;
 *  S2 receiving stops while QMP_MAX_QUEUED requests wait, so memory is bounded;
 *  S3 replies and events of a turn leave in one send, at the turn's end;
 *  S4 the session is freed in one place, when receiver, sender and worker have stopped,
 *     and only from the outermost callbacks (received, sent, flush_out).
 */
#include "qdp/qmp/session.h"

#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/base/error.h"
#include "qapi/qapi-visit.h"
#include "qdp/trace.h"

static void receive_more(QmpSession *s);

static void request_free(gpointer data)
{
    QmpRequest *request = data;

    json_free(request->value);
    g_clear_error(&request->error);
    g_free(request);
}

bool session_has_unsent(const QmpSession *s)
{
    return !s->dropped && (s->send.active || s->out->len);
}

/* Hundreds of daemons sit idle on a host: what commands needed goes back to the system. Not
 * for each reply: it takes the time of guests. */
#define TRIM_NS INT64_C(1000000000)
static void give_memory_back(Monitor *monitor)
{
    if (!loop_timer_armed(&monitor->trim)) {
        loop_timer_arm(&monitor->trim, loop_now_ns(monitor->host->loop) + TRIM_NS);
    }
}

void session_trim(LoopTimer *timer)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

/* S4 */
static void try_free(QmpSession *s)
{
    if (!(s->eof || s->dropped) || s->recv.active || s->send.active || s->working ||
        session_has_unsent(s)) {
        return;
    }
    TRACE(TRACE_QMP_CLIENT, "fd=%d gone", s->fd);
    loop_work_cancel(&s->flush);
    list_remove(&s->link);
    s->monitor->nb_sessions--;
    json_parser_free(s->parser);
    g_queue_foreach(&s->requests, (GFunc)(void (*)(void))request_free, NULL);
    g_queue_clear(&s->requests);
    g_string_free(s->out, TRUE);
    g_string_free(s->sending, TRUE);
    close(s->fd);
    give_memory_back(s->monitor);
    g_free(s);
}

void session_drop(QmpSession *s)
{
    QmpRequest *request;

    if (s->dropped) {
        return;
    }
    s->dropped = true;
    while ((request = g_queue_pop_head(&s->requests))) {
        request_free(request);
    }
    /* ends a receive or send that waits */
    shutdown(s->fd, SHUT_RDWR);
    loop_flush_schedule(s->monitor->host->loop, &s->flush);
    co_queue_wake_all(&s->drained);
}

/* ---- sending ---- */

/* A long reply is rare (the schema, a hundred nodes). */
static void release_sent(QmpSession *s)
{
    if (s->sending->len < QMP_TRIM_BYTES) {
        g_string_truncate(s->sending, 0);
        return;
    }
    g_string_free(s->sending, TRUE);
    s->sending = g_string_new(NULL);
    give_memory_back(s->monitor);
}

static void sent(SockOp *op, ssize_t result)
{
    QmpSession *s = container_of(op, QmpSession, send);

    release_sent(s);
    if (result < 0) {
        session_drop(s);
    } else if (s->out->len) {
        loop_flush_schedule(s->monitor->host->loop, &s->flush);
    }
    if (s->out->len < QMP_OUT_PAUSE_BYTES) {
        co_queue_wake_all(&s->drained);
    }
    try_free(s);
}

/* End of the turn: S3, and the session's end if nobody else sees to it. */
static void flush_out(LoopWork *work)
{
    QmpSession *s = container_of(work, QmpSession, flush);

    if (!s->dropped && !s->send.active && s->out->len) {
        GString *out = s->out;
        s->out = s->sending;
        s->sending = out;
        s->iov.iov_base = out->str;
        s->iov.iov_len = out->len;
        sock_sendv(&s->send, &s->iov, 1);
    }
    try_free(s);
}

void session_send(QmpSession *s, const JsonValue *value)
{
    if (s->dropped) {
        return;
    }
    if (s->pretty) {
        g_autofree char *text = json_to_string_pretty(value);
        g_string_append(s->out, text);
    } else {
        json_append_to(value, s->out);
    }
    g_string_append(s->out, "\r\n");
    if (s->out->len > QMP_OUT_MAX_BYTES) {
        session_drop(s);
        return;
    }
    loop_flush_schedule(s->monitor->host->loop, &s->flush);
}

/* ---- executing ---- */

static void coroutine_fn co_answer(QmpSession *s, QmpRequest *request)
{
    g_autoptr(JsonValue) reply = NULL;

    if (request->value) {
        reply = dispatch_co_execute(s, request->value);
    } else {
        reply = dispatch_error_reply(NULL, request->error);
    }
    session_send(s, reply);
}

static void coroutine_fn co_work(void *opaque)
{
    QmpSession *s = opaque;
    QmpRequest *request;

    while ((request = g_queue_pop_head(&s->requests))) {
        co_answer(s, request);
        request_free(request);
        while (s->out->len >= QMP_OUT_PAUSE_BYTES && !s->dropped) {
            co_queue_wait(&s->drained);
        }
    }
    s->working = false;
    receive_more(s);
    /* S4: whoever entered us may still look at the session */
    loop_flush_schedule(s->monitor->host->loop, &s->flush);
}

static void work_if_any(QmpSession *s)
{
    if (!s->working && !g_queue_is_empty(&s->requests)) {
        Coroutine *co = coroutine_try_new(co_work, s, CO_STACK_CONTROL);
        if (!co) { /* no memory: the client comes again, the disk goes on */
            session_drop(s);
            return;
        }
        s->working = true;
        coroutine_enter(co);
    }
}

/* ---- receiving ---- */

typedef struct OobWork {
    QmpSession *session;
    JsonValue *request;
} OobWork;

static void coroutine_fn co_oob(void *opaque)
{
    OobWork *work = opaque;
    g_autoptr(JsonValue) reply = dispatch_co_execute(work->session, work->request);

    session_send(work->session, reply);
}

static void parsed(void *opaque, JsonValue *value, const GError *error)
{
    QmpSession *s = opaque;
    QmpRequest *request;

    if (s->dropped) {
        json_free(value);
        return;
    }
    if (value && dispatch_is_oob(s, value)) {
        /* exec-oob never waits and its handlers never yield: it ends inside the enter
         */
        OobWork work = {.session = s, .request = value};
        Coroutine *co = coroutine_try_new(co_oob, &work, CO_STACK_CONTROL);
        if (co) {
            coroutine_enter(co);
        } else {
            session_drop(s);
        }
        json_free(value);
        return;
    }
    request = g_new0(QmpRequest, 1);
    request->value = value;
    request->error = error ? g_error_copy(error) : NULL;
    g_queue_push_tail(&s->requests, request);
}

static void received(SockOp *op, ssize_t result)
{
    QmpSession *s = container_of(op, QmpSession, recv);

    if (result < 0) {
        s->eof = true;
        session_drop(s);
    } else if (result == 0) {
        /* what was asked before the client shut its side down is still answered */
        s->eof = true;
    } else {
        json_parser_feed(s->parser, s->in, (size_t)result);
    }
    work_if_any(s);
    receive_more(s);
    try_free(s);
}

static void receive_more(QmpSession *s)
{
    if (!s->recv.active && !s->eof && !s->dropped &&
        g_queue_get_length(&s->requests) < QMP_MAX_QUEUED) {
        sock_recv(&s->recv, s->in, sizeof(s->in));
    }
}

/* ---- beginning ---- */

static void greet(QmpSession *s)
{
    g_autoptr(VersionInfo) version = monitor_version();
    g_autoptr(JsonValue) greeting = json_object();
    JsonValue *body = json_object(), *capabilities = json_array();

    json_array_append(capabilities, json_string(QMPCapability_str(QMP_CAPABILITY_OOB)));
    json_object_set(body, "version", qapi_VersionInfo_to_json(version));
    json_object_set(body, "capabilities", capabilities);
    json_object_set(greeting, "QMP", body);
    session_send(s, greeting);
}

void session_start(Monitor *monitor, int fd, bool pretty)
{
    Loop *loop = monitor->host->loop;
    QmpSession *s = g_new0(QmpSession, 1);

    s->monitor = monitor;
    s->fd = fd;
    s->pretty = pretty;
    sock_op_init(&s->recv, loop, fd, received);
    sock_op_init(&s->send, loop, fd, sent);
    loop_work_init(&s->flush, flush_out);
    co_queue_init(&s->drained, loop);
    s->parser = json_parser_new(parsed, s);
    g_queue_init(&s->requests);
    s->out = g_string_new(NULL);
    s->sending = g_string_new(NULL);
    list_append(&monitor->sessions, &s->link);
    monitor->nb_sessions++;
    TRACE(TRACE_QMP_CLIENT, "fd=%d connected", fd);
    greet(s);
    receive_more(s);
}
