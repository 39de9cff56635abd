/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's log: stderr, or syslog when it was started the client's way (nobody
 * reads its pipes then). One line a call. Only qdp/ logs; block/ returns errors.
 */
#ifndef QDP_LOG_H
#define QDP_LOG_H

#include <glib.h>
#include <stdbool.h>

typedef enum LogTarget {
    LOG_TO_STDERR,
    LOG_TO_SYSLOG,
    LOG_TO_BOTH, /* syslog; errors go to stderr as well (while starting) */
} LogTarget;

void log_open(LogTarget target);
void log_error(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void log_warning(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void log_info(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

#endif
