/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control door as main sees it: listeners, sessions, the graph lock, events.
 *
 * Rules:
 *  M1 commands that change the graph, exports or jobs run one at a time, in order of
 *     arrival over all sessions: they hold the graph lock; queries and job-cancel do not
 *     take it and do not yield;
 *  M2 a session executes its commands in order; only exec-oob overtakes;
 *  M3 a slow reader never holds anybody up: its unsent replies are bounded, then it
 *     reads no more commands; its unsent events are bounded, then it is dropped.
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

/* How clients at a descriptor are served. */
typedef struct MonitorDoor {
    bool server; /* it listens; otherwise it is one client */
    bool pretty; /* replies over several lines */
} MonitorDoor;

Monitor *monitor_new(const MonitorHost *host);
/* Sessions must be gone: monitor_co_close(). */
void monitor_free(Monitor *monitor);
const MonitorHost *monitor_host(void);

/* Serve the clients that come to (or are at) @fd, which is the monitor's from now on.
 * @unlink_path (may be NULL) goes away with the listener. */
void monitor_serve(Monitor *monitor, int fd, const MonitorDoor *door,
                   const char *unlink_path);

/* The graph lock (M1). */
void coroutine_fn monitor_co_lock(Monitor *monitor);
void monitor_unlock(Monitor *monitor);

/* Between these two (the options of the command line) sessions are greeted and
 * negotiate, but every command waits, queries too. Holds the graph lock. */
void coroutine_fn monitor_co_start_begin(Monitor *monitor);
void monitor_start_end(Monitor *monitor);

/* With the lock held and everything closed: whoever waits for the lock, or asks for it
 * later, is refused, and nothing is made any more. */
void monitor_end(Monitor *monitor);

/* Stop listening, let replies go out for a moment, close all sessions. */
void coroutine_fn monitor_co_close(Monitor *monitor);

#endif
