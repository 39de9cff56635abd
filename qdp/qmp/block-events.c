/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happens below, told as QMP events and logged once, at this door (style.md 5).
 *
 * A disk that fails fails thousands of requests a second: BLOCK_IO_ERROR and its log
 * line are limited to IO_ERRORS_PER_PERIOD each IO_ERROR_PERIOD_NS; the requests
 * themselves are answered with their errors all the same, and the port's statistics
 * count all.
 */
#include "qdp/qmp/block-events.h"

#include <errno.h>
#include <inttypes.h>

#include "block/node.h"
#include "qapi/qapi-events.h"
#include "qdp/log.h"
#include "qdp/trace.h"
#include "qdp/qmp/monitor.h"

#define IO_ERRORS_PER_PERIOD 16
#define IO_ERROR_PERIOD_NS   INT64_C(1000000000)

static const char *op_name(BlockOp op)
{
    static const char *const names[] = {
        [BLOCK_READ] = "read",
        [BLOCK_WRITE] = "write",
        [BLOCK_DISCARD] = "discard",
        [BLOCK_FLUSH] = "flush",
        [BLOCK_WRITE_ZEROES] = "write-zeroes",
    };

    return names[op];
}

static bool within_limit(void)
{
    static int64_t period_start_ns;
    static unsigned count;
    int64_t now_ns = loop_now_ns(monitor_host()->loop);

    if (now_ns - period_start_ns >= IO_ERROR_PERIOD_NS) {
        if (count > IO_ERRORS_PER_PERIOD) {
            log_warning("%u further I/O errors were not logged",
                        count - IO_ERRORS_PER_PERIOD);
        }
        period_start_ns = now_ns;
        count = 0;
    }
    return ++count <= IO_ERRORS_PER_PERIOD;
}

static void io_error(void *opaque, const BlockPort *port, const BlockRequest *req,
                     int ret)
{
    const char *node = node_name(port_root(port));

    TRACE(TRACE_IO_ERROR, "node=%s op=%s offset=%" PRIu64 " len=%" PRIu64 " error=%s", node,
          op_name((BlockOp)req->op), req->offset, req->len, g_strerror(-ret));
    if (!within_limit()) {
        return;
    }
    log_error("%s: node %s: %s of %" PRIu64 " bytes at %" PRIu64 " failed: %s",
              port_name(port), node, op_name((BlockOp)req->op), req->len, req->offset,
              g_strerror(-ret));
    qapi_event_send_block_io_error(
        port_name(port), node,
        req->op == BLOCK_READ ? IO_OPERATION_TYPE_READ : IO_OPERATION_TYPE_WRITE,
        BLOCK_ERROR_ACTION_REPORT, true, ret == -ENOSPC, g_strerror(-ret));
}

static void image_corrupted(void *opaque, const BlockNode *node, const char *msg,
                            int64_t offset, int64_t size, bool fatal)
{
    log_error("node %s: image is corrupt: %s", node_name(node), msg);
    qapi_event_send_block_image_corrupted("", node_name(node), msg, offset >= 0, offset,
                                          size >= 0, size, fatal);
}

static void release_failed(void *opaque, const BlockNode *node, const char *msg)
{
    log_error("node %s: %s", node_name(node), msg);
}

const GraphEvents qmp_graph_events = {
    .io_error = io_error,
    .image_corrupted = image_corrupted,
    .release_failed = release_failed,
};

static void job_status_changed(void *opaque, const char *id, JobStatus status)
{
    qapi_event_send_job_status_change(id, status);
}

const JobEvents qmp_job_events = {.status_changed = job_status_changed};

static void export_deleted(void *opaque, const char *id)
{
    qapi_event_send_block_export_deleted(id);
}

const ExportEvents qmp_export_events = {.deleted = export_deleted};
