/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input is what a QMP client sends, to the end of the stream; with an odd first byte
 * it has negotiated already (2: with oob). The whole daemon but main stands behind it.
 * Every line that comes back must be a greeting, a reply or an event, and what the
 * client made can all be taken down.
 *
 * Z2: the linker sends open, bind, unlink and getaddrinfo here (meson.build). A unix
 * socket gets a name that no file system knows, everything else is refused.
 * Inputs that ask for a latency are not run: to wait is what they ask for.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/base/json.h"
#include "qapi/qapi-commands.h"
#include "qdp/log.h"
#include "qdp/qmp/block-events.h"
#include "qdp/qmp/monitor.h"
#include "tests/fuzz/fuzz.h"

/* ---- the world outside ---- */

int __wrap_open(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_unlink(const char *path);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t len);
int __real_bind(int fd, const struct sockaddr *address, socklen_t len);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **list);

int __wrap_open(const char *path, int flags, ...)
{
    errno = EACCES;
    return -1;
}

int __wrap_open64(const char *path, int flags, ...)
{
    errno = EACCES;
    return -1;
}

int __wrap_unlink(const char *path)
{
    errno = EACCES;
    return -1;
}

/* spec: unix(7), "autobind": an address of the family alone gets a free abstract name. */
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t len)
{
    if (address->sa_family == AF_UNIX) {
        return __real_bind(fd, address, sizeof(sa_family_t));
    }
    errno = EACCES;
    return -1;
}

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **list)
{
    return EAI_NONAME;
}

/* What qdp/log.c would send to syslog. */
void log_error(const char *fmt, ...)
{
}

void log_warning(const char *fmt, ...)
{
}

void log_info(const char *fmt, ...)
{
}

/* ---- the daemon ---- */

typedef struct Run {
    GString *text;
    int fd;
    MemFiles files;
    MonitorHost host;
    GString *replies;
} Run;

static void quit(ShutdownCause cause)
{
}

static void make_host(Run *r)
{
    MonitorHost *host = &r->host;

    host->loop = fuzz_loop();
    host->quit = quit;
    host->graph = graph_new(host->loop);
    graph_set_events(host->graph, &qmp_graph_events, NULL);
    graph_set_open_file(host->graph, mem_files_open, &r->files);
    host->exports = export_registry_new(host->graph, &qmp_export_events, NULL);
    host->jobs = job_registry_new(host->loop, &qmp_job_events, NULL);
    host->monitor = monitor_new(host);
}

static void free_host(Run *r)
{
    monitor_free(r->host.monitor);
    job_registry_free(r->host.jobs);
    export_registry_free(r->host.exports);
    graph_free(r->host.graph);
}

/* ---- the client ---- */

static void coroutine_fn co_write(void *opaque)
{
    Run *r = opaque;
    /* fails when the session was dropped */
    sock_co_send_all(fuzz_loop(), r->fd, r->text->str, r->text->len);
    shutdown(r->fd, SHUT_WR);
}

static void coroutine_fn run(void *opaque)
{
    static char buffer[65536];
    Run *r = opaque;
    MonitorDoor door = {.server = false};
    int fds[2];
    ssize_t n;

    int ret = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds);
    fuzz_check(ret == 0, "no sockets: %s", g_strerror(errno));
    r->fd = fds[0];
    monitor_serve(r->host.monitor, fds[1], &door, NULL);
    coroutine_enter(coroutine_new(co_write, r, CO_STACK_DATA));
    while ((n = sock_co_recv(fuzz_loop(), r->fd, buffer, sizeof(buffer))) > 0) {
        if (r->replies->len < 16 << 20) {
            g_string_append_len(r->replies, buffer, n);
        }
    }
    close(r->fd);
    do { /* as main does it */
        job_registry_co_shutdown(r->host.jobs);
        monitor_co_lock(r->host.monitor);
        if (!job_registry_empty(r->host.jobs)) {
            monitor_unlock(r->host.monitor);
        }
    } while (!job_registry_empty(r->host.jobs));
    export_co_shutdown(r->host.exports);
    graph_co_close_all(r->host.graph);
    monitor_unlock(r->host.monitor);
    monitor_co_close(r->host.monitor);
}

static void check_replies(const GString *replies)
{
    g_auto(GStrv) lines = g_strsplit(replies->str, "\r\n", -1);

    for (char **line = lines; line[0] && line[1]; line++) { /* the last may be cut off */
        g_autoptr(GError) error = NULL;
        g_autoptr(JsonValue) value = json_parse(*line, &error);
        fuzz_check(value, "%s: %s", *line, error->message);
        fuzz_check(json_type(value) == JSON_OBJECT, "%s", *line);
        fuzz_check(json_object_lookup(value, "QMP") || json_object_lookup(value, "return") ||
                       json_object_lookup(value, "error") ||
                       json_object_lookup(value, "event"),
                   "%s", *line);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Run r = {.replies = g_string_new(NULL), .text = g_string_new(NULL)};
    uint8_t image[2048];

    if (size > 0 && (data[0] & 3)) {
        g_string_append_printf(r.text,
                               "{'execute':'qmp_capabilities','arguments':{'enable':[%s]}}",
                               data[0] & 2 ? "'oob'" : "");
    }
    g_string_append_len(r.text, (const char *)data + 1, size ? (gssize)size - 1 : 0);
    if (!memmem(r.text->str, r.text->len, "latency", 7)) {
        mem_image_make(image);
        mem_files_init(&r.files, image, sizeof(image), 1 << 20);
        make_host(&r);
        loop_run_coroutine(fuzz_loop(), run, &r);
        free_host(&r);
        mem_files_fini(&r.files);
        check_replies(r.replies);
    }
    g_string_free(r.replies, TRUE);
    g_string_free(r.text, TRUE);
    return 0;
}
