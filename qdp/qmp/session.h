/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The inside of the monitor, for the files of this folder. */
#ifndef QDP_QMP_SESSION_H
#define QDP_QMP_SESSION_H

#include "block/aio/loop.h"
#include "block/base/json.h"
#include "qdp/qmp/monitor.h"

#define QMP_MAX_SESSIONS    64
#define QMP_MAX_QUEUED      8           /* commands read ahead in a session */
#define QMP_OUT_PAUSE_BYTES (1u << 20)  /* unsent: execute no further command */
#define QMP_OUT_MAX_BYTES   (16u << 20) /* unsent: drop the client */
#define QMP_ACCEPT_PAUSE_NS INT64_C(100000000)
#define QMP_RECV_BYTES      4096
#define QMP_TRIM_BYTES      (16u << 10) /* a reply this long leaves no memory behind */

typedef struct QmpSession QmpSession;

typedef struct QmpListener {
    ListLink link; /* Monitor.listeners */
    Monitor *monitor;
    LoopFd watch;
    LoopTimer pause; /* no descriptors left: listening goes on after a while */
    bool pretty;
    char *unlink_path;
} QmpListener;

struct Monitor {
    const MonitorHost *host;
    ListLink listeners;
    ListLink sessions; /* QmpSession.link */
    unsigned nb_sessions;
    LoopTimer trim; /* armed: memory goes back to the system then */
    CoMutex graph_lock;
    bool starting; /* queries wait for the lock, too */
    bool ended;    /* all is closed: commands that take the lock are refused */
};

/* What came in: a value or the error of one that could not be parsed. */
typedef struct QmpRequest {
    JsonValue *value;
    GError *error;
} QmpRequest;

struct QmpSession {
    ListLink link;
    Monitor *monitor;
    int fd;
    SockOp recv, send;
    JsonParser *parser;
    GQueue requests; /* QmpRequest */
    CoQueue drained; /* unsent output went below the pause mark */
    GString *out;    /* to be sent at the end of the turn */
    GString *sending;
    struct iovec iov;
    LoopWork flush;
    bool negotiated;
    bool oob;
    bool pretty;
    bool working; /* its coroutine runs */
    bool eof;     /* nothing more comes in */
    bool dropped; /* nothing more goes out */
    char in[QMP_RECV_BYTES];
};

/* Begin to speak on a connected socket: the greeting goes out. Takes over @fd. */
void session_start(Monitor *monitor, int fd, bool pretty);
/* Queue one value for sending. */
void session_send(QmpSession *session, const JsonValue *value);
/* Close as soon as everything has stopped; nothing is sent any more. */
void session_drop(QmpSession *session);
void session_trim(LoopTimer *timer); /* Monitor.trim */
bool session_has_unsent(const QmpSession *session);

/* Execute a request; the reply is the caller's. */
JsonValue *coroutine_fn dispatch_co_execute(QmpSession *session,
                                            const JsonValue *request);
/* Is this an out-of-band request that this session may make? */
bool dispatch_is_oob(const QmpSession *session, const JsonValue *request);
/* {"id": .., "error": {..}} */
JsonValue *dispatch_error_reply(const JsonValue *request, const GError *error);
/* {"qemu": {..}, "package": ".."} */
VersionInfo *monitor_version(void);

/* For qapi_event_emit. */
void monitor_emit_event(const char *name, JsonValue *data);

#endif
