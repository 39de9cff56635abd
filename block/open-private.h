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

#endif
