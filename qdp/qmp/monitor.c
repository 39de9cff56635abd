/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The monitor: what all sessions share. Accepts clients, holds the graph lock, carries
 * events to the sessions that negotiated, closes everything at the end.
 */
#include "block/base/path.h"
#include "qdp/qmp/monitor.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qapi/qapi-events.h"
#include "qdp/qmp/session.h"
#include "qdp/trace.h"

#define CLOSE_WAIT_NS 1000000 /* 1 ms, at most CLOSE_WAITS times */
#define CLOSE_WAITS   200

/* Handlers and events reach it without an argument: one daemon, one monitor. */
static Monitor *the_monitor;

Monitor *monitor_new(const MonitorHost *host)
{
    Monitor *monitor = g_new0(Monitor, 1);

    g_assert(!the_monitor);
    monitor->host = host;
    list_init(&monitor->listeners);
    list_init(&monitor->sessions);
    co_mutex_init(&monitor->graph_lock, host->loop);
    loop_timer_init(&monitor->trim, host->loop, session_trim);
    the_monitor = monitor;
    qapi_event_emit = monitor_emit_event;
    return monitor;
}

void monitor_free(Monitor *monitor)
{
    if (!monitor) {
        return;
    }
    g_assert(list_empty(&monitor->sessions) && list_empty(&monitor->listeners));
    qapi_event_emit = NULL;
    the_monitor = NULL;
    g_free(monitor);
}

const MonitorHost *monitor_host(void)
{
    return the_monitor->host;
}

void coroutine_fn monitor_co_lock(Monitor *monitor)
{
    co_mutex_lock(&monitor->graph_lock);
}

void monitor_unlock(Monitor *monitor)
{
    co_mutex_unlock(&monitor->graph_lock);
}

void coroutine_fn monitor_co_start_begin(Monitor *monitor)
{
    monitor->starting = true;
    monitor_co_lock(monitor);
}

void monitor_start_end(Monitor *monitor)
{
    monitor->starting = false;
    monitor_unlock(monitor);
}

void monitor_end(Monitor *monitor)
{
    monitor->ended = true;
}

/* ---- events ---- */

static JsonValue *event_timestamp(void)
{
    JsonValue *timestamp = json_object();
    int64_t now_us = g_get_real_time();

    json_object_set_int(timestamp, "seconds", now_us / G_USEC_PER_SEC);
    json_object_set_int(timestamp, "microseconds", now_us % G_USEC_PER_SEC);
    return timestamp;
}

void monitor_emit_event(const char *name, JsonValue *data)
{
    g_autoptr(JsonValue) event = json_object();

    json_object_set(event, "timestamp", event_timestamp());
    json_object_set_string(event, "event", name);
    if (data) {
        json_object_set(event, "data", data);
    }
    TRACE(TRACE_QMP_EVENT, "%s", name);
    list_foreach_safe(it, next, &the_monitor->sessions) {
        QmpSession *s = container_of(it, QmpSession, link);
        if (s->negotiated) {
            session_send(s, event);
        }
    }
}

/* ---- clients ---- */

static void accept_clients(LoopFd *watch, unsigned revents)
{
    QmpListener *listener = container_of(watch, QmpListener, watch);
    Monitor *monitor = listener->monitor;
    int fd;

    while ((fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        if (monitor->nb_sessions >= QMP_MAX_SESSIONS) {
            close(fd);
            continue;
        }
        session_start(monitor, fd, listener->pretty);
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        /* the client stays in the backlog; asking again at once would spin */
        loop_fd_watch(watch, 0);
        loop_timer_arm(&listener->pause,
                       loop_now_ns(monitor->host->loop) + QMP_ACCEPT_PAUSE_NS);
    }
}

static void pause_over(LoopTimer *timer)
{
    loop_fd_watch(&container_of(timer, QmpListener, pause)->watch, POLLIN);
}

void monitor_serve(Monitor *monitor, int fd, const MonitorDoor *door,
                   const char *unlink_path)
{
    QmpListener *listener;

    if (!door->server) {
        session_start(monitor, fd, door->pretty);
        return;
    }
    listener = g_new0(QmpListener, 1);
    listener->monitor = monitor;
    listener->pretty = door->pretty;
    listener->unlink_path = path_absolute(unlink_path);
    loop_timer_init(&listener->pause, monitor->host->loop, pause_over);
    loop_fd_init(&listener->watch, monitor->host->loop, fd, accept_clients);
    list_append(&monitor->listeners, &listener->link);
    loop_fd_watch(&listener->watch, POLLIN);
    /* whoever connected while we were starting has his greeting without another turn */
    accept_clients(&listener->watch, POLLIN);
}

static void listener_free(QmpListener *listener)
{
    loop_timer_cancel(&listener->pause);
    loop_fd_watch(&listener->watch, 0);
    close(listener->watch.fd);
    if (listener->unlink_path) {
        unlink(listener->unlink_path);
    }
    list_remove(&listener->link);
    g_free(listener->unlink_path);
    g_free(listener);
}

static bool any_unsent(const Monitor *monitor)
{
    list_foreach(it, &monitor->sessions) {
        if (session_has_unsent(container_of(it, QmpSession, link))) {
            return true;
        }
    }
    return false;
}

void coroutine_fn monitor_co_close(Monitor *monitor)
{
    Loop *loop = monitor->host->loop;

    while (!list_empty(&monitor->listeners)) {
        listener_free(list_first(&monitor->listeners, QmpListener, link));
    }
    for (int i = 0; i < CLOSE_WAITS && any_unsent(monitor); i++) {
        co_sleep_ns(loop, CLOSE_WAIT_NS);
    }
    list_foreach_safe(it, next, &monitor->sessions) {
        session_drop(container_of(it, QmpSession, link));
    }
    while (!list_empty(&monitor->sessions)) {
        co_sleep_ns(loop, CLOSE_WAIT_NS);
    }
    loop_timer_cancel(&monitor->trim);
}
