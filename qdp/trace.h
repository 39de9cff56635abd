/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trace points: what passes the doors, told when --trace asks for it. Each costs one
 * test of a mask while it is off. Not on the way of a guest's request.
 */
#ifndef QDP_TRACE_H
#define QDP_TRACE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum TraceEvent {
    TRACE_QMP_CLIENT,     /* a client came or went */
    TRACE_QMP_COMMAND,    /* a command begins */
    TRACE_QMP_REPLY,      /* its reply */
    TRACE_QMP_EVENT,      /* an event is sent */
    TRACE_EXPORT_ADD,     /* an export is there */
    TRACE_EXPORT_DEL,     /* an export has gone */
    TRACE_NBD_CONNECT,    /* a client came */
    TRACE_NBD_NEGOTIATED, /* its handshake is over */
    TRACE_NBD_DISCONNECT, /* it has gone */
    TRACE_IO_ERROR,       /* a guest's request failed; each of them, unlike the log */
    TRACE_EVENTS,
} TraceEvent;

extern uint32_t trace_mask; /* 1 << TraceEvent */

#define TRACE(event, ...)                                                              \
    do {                                                                               \
        if (G_UNLIKELY(trace_mask & (1u << (event)))) {                                \
            trace_write((event), __VA_ARGS__);                                         \
        }                                                                              \
    } while (0)

/* Use TRACE(). */
void trace_write(TraceEvent event, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* --trace [[enable=]PATTERN][,events=FILE][,file=FILE]. False and *errp. */
bool trace_option(const char *arg, GError **errp);
/* The names, one a line. */
void trace_print_names(void);

#endif
