/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events for blkdebug: from a node that knows what it is doing, down the "file" children,
 * to the first driver that wants to hear of it.  BlockNode.watched says that there is one.
 */
#include <errno.h>

#include "block/graph-private.h"

static BlockNode *listener(BlockNode *node)
{
    while (node && !node->drv->debug) {
        node = node->file_child;
    }
    return node;
}

void coroutine_fn node_co_event_watched(BlockNode *node, BlkdebugEvent event)
{
    node = listener(node);
    if (node) {
        node->drv->debug->co_event(node, event);
    }
}

int node_debug_break(BlockNode *node, const char *event, const char *tag)
{
    node = listener(node);
    return node ? node->drv->debug->set_break(node, event, tag) : -ENOTSUP;
}

int node_debug_resume(BlockNode *node, const char *tag)
{
    node = listener(node);
    return node ? node->drv->debug->resume(node, tag) : -ENOTSUP;
}

int node_debug_remove_break(BlockNode *node, const char *tag)
{
    node = listener(node);
    return node ? node->drv->debug->remove_break(node, tag) : -ENOTSUP;
}

bool node_debug_is_suspended(BlockNode *node, const char *tag)
{
    node = listener(node);
    return node && node->drv->debug->is_suspended(node, tag);
}
