/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See log.h. A failing write of a log line is nobody's to report: it is ignored. */
#include "qdp/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024

static LogTarget log_target = LOG_TO_STDERR;

void log_open(LogTarget target)
{
    log_target = target;
    if (target != LOG_TO_STDERR) {
        openlog("qemu-dp", LOG_PID, LOG_DAEMON);
    }
}

static void to_stderr(const char *text)
{
    char line[LOG_LINE_MAX + 16];
    int len = snprintf(line, sizeof(line), "qemu-dp: %s\n", text);
    ssize_t ignored = write(STDERR_FILENO, line, MIN((size_t)len, sizeof(line) - 1));

    (void)ignored;
}

G_GNUC_PRINTF(2, 0)
static void log_line(int priority, const char *fmt, va_list args)
{
    char text[LOG_LINE_MAX];

    vsnprintf(text, sizeof(text), fmt, args);
    if (log_target != LOG_TO_STDERR) {
        syslog(priority, "%s", text);
    }
    if (log_target == LOG_TO_STDERR ||
        (log_target == LOG_TO_BOTH && priority == LOG_ERR)) {
        to_stderr(text);
    }
}

#define LOG_FUNCTION(name, priority)                                                   \
    void name(const char *fmt, ...)                                                    \
    {                                                                                  \
        va_list args;                                                                  \
        va_start(args, fmt);                                                           \
        log_line(priority, fmt, args);                                                 \
        va_end(args);                                                                  \
    }

LOG_FUNCTION(log_error, LOG_ERR)
LOG_FUNCTION(log_warning, LOG_WARNING)
LOG_FUNCTION(log_info, LOG_INFO)
