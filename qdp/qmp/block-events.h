/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What happens below, told as QMP events: tables to hand to the lower floors. */
#ifndef QDP_QMP_BLOCK_EVENTS_H
#define QDP_QMP_BLOCK_EVENTS_H

#include "block/graph.h"
#include "block/job/job.h"
#include "qdp/export/export.h"

extern const GraphEvents qmp_graph_events;   /* BLOCK_IO_ERROR, BLOCK_IMAGE_CORRUPTED */
extern const JobEvents qmp_job_events;       /* JOB_STATUS_CHANGE */
extern const ExportEvents qmp_export_events; /* BLOCK_EXPORT_DELETED */

#endif
