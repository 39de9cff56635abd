/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a node's image is: for query-named-block-nodes and qemu-img info. */
#ifndef BLOCK_IMAGE_INFO_H
#define BLOCK_IMAGE_INFO_H

#include "block/node.h"

/* Of this one layer; nothing below it is looked at. compat: which members are there is
 * stock's. The caller frees it. */
ImageInfo *node_image_info(BlockNode *node);

/* What the header's backing file @name (of @node's image) is to this process: a relative
 * path starts at the image. The caller frees it. */
char *node_full_backing_name(const BlockNode *node, const char *name);

#endif
