/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making images: between create.c and the formats. */
#ifndef BLOCK_CREATE_H
#define BLOCK_CREATE_H

#include "block/driver.h"

/* Write an empty image on @file, whose contents go away. *errp names the reason. */
bool coroutine_fn qcow2_co_create_on(BlockNode *file, const BlockdevCreateOptionsQcow2 *o,
                                     GError **errp);

/* Map all of @node, a qcow2 node just made and open for writing, to clusters that read as
 * zeros. Asks @stop (may be NULL) before each run of clusters: -ECANCELED's text. Yields. */
bool coroutine_fn qcow2_co_preallocate(BlockNode *node, PreallocMode mode, ImageStopFn *stop,
                                       void *opaque, GError **errp);

#endif
