/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a node is called towards people and clients: a plain file name where opening that
 * name, probing, and following headers would give the same data; else "json:{...}" with
 * the options that say what the data is (not how it is reached: caches, locking and
 * engines stay out).
 *
 * N1 names are computed when somebody asks and remembered until an edge or a header's
 *    backing name changes anywhere (Graph.shape); a chain is computed in linear time.
 */
#include <string.h>

#include "block/graph-private.h"

/* Does the node show another backing file than the one its header names? compat: names
 * are compared, as opened; a format that differs is not noticed. */
static bool backing_overridden(const BlockNode *node)
{
    const BlockNode *backing = node->backing_child;
    const char *expected =
        node->opened_backing ? node->opened_backing : node->backing_file;

    if (node->backing_skipped) {
        return false;
    }
    if (!backing || !expected) {
        return backing || (expected && expected[0]);
    }
    return strcmp(node_filename(backing), expected) != 0;
}

/* compat: the order in which stock writes members. */
static void add_in_order(JsonValue *options, JsonValue *found)
{
    static const char *const order[] = {"backing", "image", "offset", "read-zeroes",
                                        "driver",  "size",   "file"};

    for (size_t i = 0; i < G_N_ELEMENTS(order); i++) {
        JsonValue *value = json_object_take(found, order[i]);
        if (value) {
            json_object_set(options, order[i], value);
        }
    }
    while (json_object_size(found)) {
        g_autofree char *key = g_strdup(json_object_key_at(found, 0));
        json_object_set(options, key, json_object_take(found, key));
    }
}

JsonValue *node_name_options(const BlockNode *node)
{
    g_autoptr(JsonValue) found = json_object();
    JsonValue *options = json_object();

    json_object_set_string(found, "driver", node->drv->name);
    if (node->drv->name_options) {
        node->drv->name_options(node, found);
    }
    list_foreach(it, &node->children) {
        const BlockEdge *edge = container_of(it, BlockEdge, in_parent);
        if (edge->child != node->backing_child || strcmp(edge->role, "backing") != 0) {
            json_object_set(found, edge->role, node_name_options(edge->child));
        }
    }
    if (node->drv->supports_backing && backing_overridden(node)) {
        json_object_set(found, "backing",
                        node->backing_child ? node_name_options(node->backing_child)
                                            : json_null());
    }
    add_in_order(options, found);
    return options;
}

/* It has a name of its own, without a format over it. */
static bool is_protocol(const BlockNode *node)
{
    return list_empty(&node->children) || node->drv->names_itself;
}

/* The plain name, or NULL when none leads to this data. */
static const char *plain_name(const BlockNode *node)
{
    g_autoptr(JsonValue) own = json_object();
    const BlockNode *file = node->file_child;

    if (node->drv->name_options && node->drv->name_options(node, own)) {
        return NULL;
    }
    if (is_protocol(node)) {
        return node->filename;
    }
    /* a name opens a protocol and one format over it, no more */
    if (!file || !is_protocol(file) ||
        (node->drv->supports_backing && backing_overridden(node))) {
        return NULL;
    }
    return plain_name(file);
}

const char *node_filename(const BlockNode *const_node)
{
    BlockNode *node = (BlockNode *)const_node; /* what is remembered changes nothing */
    const char *plain;

    if (!node->drv) {
        return "";
    }
    if (node->shown_name && node->shown_shape == node->graph->shape) {
        return node->shown_name;
    }
    plain = plain_name(node);
    g_free(node->shown_name);
    if (plain) {
        node->shown_name = g_strdup(plain);
    } else {
        g_autoptr(JsonValue) options = node_name_options(node);
        g_autofree char *text = json_to_string(options);
        node->shown_name = g_strconcat("json:", text, NULL);
    }
    node->shown_shape = node->graph->shape;
    return node->shown_name;
}

const char *node_plain_path(const BlockNode *node)
{
    while (node->file_child) {
        node = node->file_child;
    }
    return node->filename;
}

void node_set_header_backing(BlockNode *node, const char *name)
{
    char *copy = g_strdup(name);

    g_free(node->backing_file);
    node->backing_file = copy;
    g_clear_pointer(&node->opened_backing, g_free);
    node->graph->shape++;
}
