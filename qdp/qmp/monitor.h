/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control door as main sees it: listeners, sessions, the graph lock, events.
 *
 * Rules:
 *  M1 commands that change the graph, exports or jobs run one at a time, in order of
 *     arrival over all sessions: they hold the graph lock; queries do not take it and
 * do not yield; M2 a session executes its commands in order; only exec-oob overtakes;
 *  M3 a slow reader never holds anybody up: its unsent replies are bounded, then it
 * reads no more commands; its unsent events are bounded, then it is dropped.
 */
#ifndef QDP_QMP_MONITOR_H
#define QDP_QMP_MONITOR_H

#include <glib.h>
#include <stdbool.h>
#include "block/aio/coroutine.h"
#include "block/job/job.h"
#include "block/graph.h"
#include "qapi/qapi-types.h"
#include "qdp/export/export.h"

typedef struct Monitor Monitor;

/* What the handlers work on. There is one per process: handlers have no other way to it
 * than monitor_host(). */
typedef struct MonitorHost {
    Monitor *monitor;
    Loop *loop;
    Graph *graph;
    ExportRegistry *exports;
    JobRegistry *jobs;
    bool snapshot_moves_name; /* client-contract: blockdev-snapshot moves node-name */
    /* Started without options of the storage daemon: clients of production builds
     * expect nodes in query-blockstats unasked, and "Cannot find node" from
     * blockdev-del. */
    bool client_rules;
    /* Begin to end the program; returns at once. */
    void (*quit)(ShutdownCause cause);
} MonitorHost;

/* Where clients come from. */
typedef struct MonitorAddress {
    const char *unix_path; /* one of these three */
    const char *tcp_host;
    const char *tcp_port; /* with tcp_host */
    int fd;               /* -1 = none; a listening or connected socket */
    bool server;          /* listen; otherwise connect once */
    bool pretty;          /* replies over several lines */
} MonitorAddress;

Monitor *monitor_new(const MonitorHost *host);
/* Sessions must be gone: monitor_co_close(). */
void monitor_free(Monitor *monitor);
const MonitorHost *monitor_host(void);

/*
 * A socket that listens; the fd is the caller's. An old socket at a unix path is
 * replaced; the new one is 0600. -1 and *errp on failure. Blocks for a host name that
 * must be looked up.
 */
int monitor_bind(const MonitorAddress *address, GError **errp);
/* A connected socket, for clients that listen. -1 and *errp on failure. */
int monitor_connect(const MonitorAddress *address, GError **errp);

/* Serve the clients that come to (or are at) @fd, which is the monitor's from now on.
 * @unlink_path (may be NULL) goes away with the listener. */
void monitor_serve(Monitor *monitor, int fd, const MonitorAddress *address,
                   const char *unlink_path);

/* The graph lock (M1). */
void coroutine_fn monitor_co_lock(Monitor *monitor);
void monitor_unlock(Monitor *monitor);

/* Between these two (the options of the command line) sessions are greeted and
 * negotiate, but every command waits, queries too. Holds the graph lock. */
void coroutine_fn monitor_co_start_begin(Monitor *monitor);
void monitor_start_end(Monitor *monitor);

/* Stop listening, let replies go out for a moment, close all sessions. */
void coroutine_fn monitor_co_close(Monitor *monitor);

#endif
