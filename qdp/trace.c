/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See trace.h. Lines go to the log, or to a file of their own with the time before them.
 * compat: how events are chosen (globs, "-" in front to turn off, files with a pattern a
 * line and # comments), and the messages, are the storage daemon's; the names are ours.
 */
#include "qdp/trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "block/base/error.h"
#include "qapi/keyval.h"
#include "qdp/log.h"

uint32_t trace_mask;

static FILE *trace_file; /* NULL: the log */

static const char *const names[TRACE_EVENTS] = {
    [TRACE_QMP_CLIENT] = "qmp_client",
    [TRACE_QMP_COMMAND] = "qmp_command",
    [TRACE_QMP_REPLY] = "qmp_reply",
    [TRACE_QMP_EVENT] = "qmp_event",
    [TRACE_EXPORT_ADD] = "export_add",
    [TRACE_EXPORT_DEL] = "export_del",
    [TRACE_NBD_CONNECT] = "nbd_connect",
    [TRACE_NBD_NEGOTIATED] = "nbd_negotiated",
    [TRACE_NBD_DISCONNECT] = "nbd_disconnect",
    [TRACE_IO_ERROR] = "io_error",
};

void trace_print_names(void)
{
    for (size_t i = 0; i < TRACE_EVENTS; i++) {
        puts(names[i]);
    }
}

void trace_write(TraceEvent event, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    int64_t now_us = g_get_real_time();
    va_list args;

    va_start(args, fmt);
    text = g_strdup_vprintf(fmt, args);
    va_end(args);
    if (!trace_file) {
        log_info("%s %s", names[event], text);
        return;
    }
    fprintf(trace_file, "%d@%" G_GINT64_FORMAT ".%06d:%s %s\n", (int)getpid(),
            now_us / G_USEC_PER_SEC, (int)(now_us % G_USEC_PER_SEC), names[event], text);
    fflush(trace_file);
}

/* Turn on (or, after "-", off) what @pattern matches. A plain name that is none of ours
 * is said, at @where. */
static void enable(const char *pattern, const char *where)
{
    bool on = pattern[0] != '-', any = false;
    GPatternSpec *spec = g_pattern_spec_new(on ? pattern : pattern + 1);

    for (size_t i = 0; i < TRACE_EVENTS; i++) {
        if (g_pattern_match_string(spec, names[i])) {
            trace_mask = on ? trace_mask | 1u << i : trace_mask & ~(1u << i);
            any = true;
        }
    }
    g_pattern_spec_free(spec);
    if (!any && !strpbrk(pattern, "*?")) {
        log_warning("%s: warning: trace event '%s' does not exist", where, pattern);
    }
}

static bool read_events(const char *path, GError **errp)
{
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;

    if (!file) {
        error_set_errno(errp, errno, "%s", path);
        return false;
    }
    for (int number = 1; getline(&line, &room, file) >= 0; number++) {
        g_autofree char *where = g_strdup_printf("%s:%d", path, number);
        g_strchomp(line);
        if (line[0] && line[0] != '#') {
            enable(line, where);
        }
    }
    free(line);
    fclose(file);
    return true;
}

static bool open_file(const char *path, GError **errp)
{
    FILE *file = fopen(path, "we");

    if (!file) {
        error_set_errno(errp, errno, "Error opening logfile %s", path);
        return false;
    }
    if (trace_file) {
        fclose(trace_file);
    }
    trace_file = file;
    return true;
}

static const char *get(const JsonValue *opts, const char *key)
{
    const JsonValue *value = json_object_lookup(opts, key);

    return value ? json_get_string(value) : NULL;
}

bool trace_option(const char *arg, GError **errp)
{
    static const char *const known[] = {"enable", "events", "file", NULL};
    g_autoptr(JsonValue) opts = NULL;
    g_autofree char *where = NULL;

    opts = arg[0] ? keyval_parse(arg, "enable", NULL, errp) : json_object();
    if (!opts) {
        return false;
    }
    for (size_t i = 0; i < json_object_size(opts); i++) {
        const char *key = json_object_key_at(opts, i);
        if (!g_strv_contains(known, key)) {
            error_set(errp, "Invalid parameter '%s'", key);
            return false;
        }
    }
    where = g_strdup_printf("--trace %s", arg);
    if (get(opts, "enable")) {
        enable(get(opts, "enable"), where);
    }
    if (get(opts, "events") && !read_events(get(opts, "events"), errp)) {
        return false;
    }
    return !get(opts, "file") || open_file(get(opts, "file"), errp);
}
