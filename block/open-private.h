/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening, between open.c, open-image.c and the chain operations. */
#ifndef BLOCK_OPEN_PRIVATE_H
#define BLOCK_OPEN_PRIVATE_H

#include "block/driver.h"

/* Chains deeper than this are refused: every layer costs stack at open and look-ups later.
 * Clients make chains of up to 30. */
#define MAX_BACKING_DEPTH 100

BlockNode *coroutine_fn open_co_node(Graph *graph, const BlockdevOptions *options,
                                     const OpenInherit *inherit, GError **errp);
OpenInherit open_inherit(const BlockNode *parent, const char *role,
                         const OpenInherit *above);

/* Open the image in @filename with @format (NULL: probe, which marks raw as probed). */
BlockNode *coroutine_fn open_co_file_name(Graph *graph, const char *filename,
                                          const char *format, const JsonValue *extra,
                                          const OpenInherit *inherit, GError **errp);

/* Put a format node on @file (@format NULL: probe); consumes the reference on @file. */
BlockNode *coroutine_fn open_co_format_over(Graph *graph, BlockNode *file,
                                            const char *format, const JsonValue *extra,
                                            const OpenInherit *inherit, GError **errp);

/* "file", or "host_device" for a block device. */
const char *open_path_driver(const char *path);

/* open-json.c: @options may have numbers as text; errors are worded as for file names. */
BlockNode *coroutine_fn open_co_options(Graph *graph, const JsonValue *options,
                                        const OpenInherit *inherit, GError **errp);
/* Open "json:{...}"; @format wins over its "driver". @from_header: an image says it. */
BlockNode *coroutine_fn open_co_json_name(Graph *graph, const char *filename,
                                          const char *format, bool from_header,
                                          const OpenInherit *inherit, GError **errp);

#endif
