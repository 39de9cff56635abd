/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "json:{...}" as a file name: of a user, who may say anything blockdev-add could, loosely
 * (numbers as text, dotted keys, formats left to probing); and in an image's header, whose
 * author is not the user.
 *
 * J1 a header's json: may only describe files and formats over them: members and drivers
 *    are those of the two lists here, and a child is described, never a reference to a
 *    node of this process (safety.md, CVE-2024-4467).
 *
 * compat: what is wrong with a name is told in stock's words, which here are other ones
 * than blockdev-add's; it looks at a level only when the level above makes sense.
 */
#include <string.h>

#include "block/base/error.h"
#include "block/base/json-crumple.h"
#include "block/graph-private.h"
#include "block/open-private.h"
#include "qapi/keyval.h"
#include "qapi/qapi-visit.h"

static const char *get_string(const JsonValue *object, const char *key)
{
    const JsonValue *value = json_object_lookup(object, key);

    return value ? json_get_string(value) : NULL;
}

static bool is_protocol(const BlockDriver *drv)
{
    return !drv->is_format && (!drv->is_filter || drv->names_itself);
}

/* ---- what a header may say ---- */

static bool in_list(const char *const *list, const char *text)
{
    return g_strv_contains(list, text);
}

static bool header_may_say(const JsonValue *options, GError **errp)
{
    static const char *const keys[] = {"driver",      "filename", "offset", "size",
                                       "read-zeroes", "file",     "backing", NULL};
    static const char *const drivers[] = {"file",     "host_device", "null-co",
                                          "null-aio", "qcow2",       "raw", NULL};

    for (size_t i = 0; i < json_object_size(options); i++) {
        const char *key = json_object_key_at(options, i);
        const JsonValue *value = json_object_value_at(options, i);
        bool child = !strcmp(key, "file") || !strcmp(key, "backing");
        const char *driver = !strcmp(key, "driver") ? json_get_string(value) : NULL;

        if (!in_list(keys, key)) {
            error_set(errp, "a json: name in an image header may not set '%s'", key);
            return false;
        }
        if (driver && !in_list(drivers, driver)) {
            error_set(errp, "a json: name in an image header may not use driver '%s'",
                      driver);
            return false;
        }
        if (child && json_type(value) == JSON_STRING) {
            error_set(errp, "a json: name in an image header may not refer to a node");
            return false;
        }
        if (child && json_type(value) == JSON_OBJECT && !header_may_say(value, errp)) {
            return false;
        }
    }
    return true;
}

/* ---- making sense of a name ---- */

/* The driver of this level, with @format in its place if given; NULL: not said. */
static const BlockDriver *level_driver(JsonValue *options, const char *format,
                                       GError **errp)
{
    const char *name = format ? format : get_string(options, "driver");
    const BlockDriver *drv;

    if (!name) {
        error_set(errp, "Must specify either driver or file");
        return NULL;
    }
    drv = driver_lookup_name(name);
    if (!drv) {
        error_set(errp, "Unknown driver '%s'", name);
        return NULL;
    }
    json_object_set_string(options, "driver", drv->name);
    return drv;
}

/* The member that a format or filter stands on, NULL and *errp when there is none. */
static JsonValue *level_file(const JsonValue *options, const char *key, GError **errp)
{
    JsonValue *file = json_object_lookup(options, key);
    bool some = file && (json_type(file) == JSON_STRING ||
                         (json_type(file) == JSON_OBJECT && json_object_size(file)));

    if (!some) {
        error_set(errp, "A block device must be specified for \"%s\"", key);
        return NULL;
    }
    return file;
}

/* A "file" child that names only its file is a file, or a block device. */
static void complete_child(JsonValue *child)
{
    const char *path = get_string(child, "filename");

    if (path && !json_object_lookup(child, "driver")) {
        json_object_set_string(child, "driver", open_path_driver(path));
    }
}

/* Check and complete @options from the top down as far as the "file" children go. */
static bool complete(JsonValue *options, GError **errp)
{
    for (;;) {
        const BlockDriver *drv = level_driver(options, NULL, errp);
        JsonValue *file;

        if (!drv) {
            return false;
        }
        if (is_protocol(drv) && !drv->child_role) {
            const char *path = get_string(options, "filename");
            if (drv->needs_filename && (!path || !path[0])) {
                error_set(errp, "The '%s' block driver requires a file name", drv->name);
                return false;
            }
            return true;
        }
        file = level_file(options, drv->child_role ? drv->child_role : "file", errp);
        if (!file || json_type(file) == JSON_STRING) {
            return file != NULL;
        }
        complete_child(file);
        options = file;
    }
}

/* The options of the node that the visitor's path leads to, and the rest of the path. */
static const char *last_member(const JsonValue **options, const char *path)
{
    const char *dot;

    while ((dot = strchr(path, '.'))) {
        g_autofree char *key = g_strndup(path, (size_t)(dot - path));
        const JsonValue *child = json_object_lookup(*options, key);
        if (!child || json_type(child) != JSON_OBJECT || !get_string(child, "driver")) {
            break;
        }
        *options = child;
        path = dot + 1;
    }
    return path;
}

/* "Parameter 'file.a' is unexpected", as stock says it of a name. */
static void reword(const JsonValue *options, GError *error, GError **errp)
{
    static const char before[] = "Parameter '", after[] = "' is unexpected";
    const BlockDriver *drv;
    const char *member;

    if (!g_str_has_prefix(error->message, before) ||
        !g_str_has_suffix(error->message, after)) {
        g_propagate_error(errp, error);
        return;
    }
    g_autofree char *path =
        g_strndup(error->message + strlen(before),
                  strlen(error->message) - strlen(before) - strlen(after));
    member = last_member(&options, path);
    drv = driver_lookup_name(get_string(options, "driver"));
    error_set(errp,
              drv && is_protocol(drv) ? "Block protocol '%s' doesn't support the option '%s'"
                                      : "Block format '%s' does not support the option '%s'",
              drv ? drv->name : "", member);
    g_error_free(error);
}

BlockNode *coroutine_fn open_co_options(Graph *graph, const JsonValue *options,
                                        const OpenInherit *inherit, GError **errp)
{
    GError *error = NULL;
    g_autoptr(BlockdevOptions) typed =
        qapi_BlockdevOptions_from_keyval(options, "", &error);

    if (!typed) {
        reword(options, error, errp);
        return NULL;
    }
    return open_co_node(graph, typed, inherit, errp);
}

/* No format is named: open the file, see what it is, put that over it. */
static BlockNode *coroutine_fn open_probed(Graph *graph, JsonValue *options,
                                           const OpenInherit *inherit, GError **errp)
{
    g_autoptr(JsonValue) file = json_object_take(options, "file");
    const char *reference = json_get_string(file);
    BlockNode *node;

    if (reference) {
        node = graph_lookup_node(graph, reference, errp);
        if (node) {
            node_ref(node);
        }
    } else {
        complete_child(file);
        node = complete(file, errp) ? open_co_options(graph, file, inherit, errp) : NULL;
    }
    return node ? open_co_format_over(graph, node, NULL, options, inherit, errp) : NULL;
}

static JsonValue *parse_name(const char *filename, GError **errp)
{
    GError *error = NULL;
    g_autoptr(JsonValue) options = json_parse(filename + strlen("json:"), &error);

    if (!options) {
        g_propagate_prefixed_error(errp, error, "Could not parse the JSON options: ");
        return NULL;
    }
    if (json_type(options) != JSON_OBJECT) {
        error_set(errp, "Invalid JSON object given");
        return NULL;
    }
    return json_crumple(options, errp) ? g_steal_pointer(&options) : NULL;
}

BlockNode *coroutine_fn open_co_json_name(Graph *graph, const char *filename,
                                          const char *format, bool from_header,
                                          const OpenInherit *inherit, GError **errp)
{
    g_autoptr(JsonValue) options = parse_name(filename, errp);

    if (!options || (from_header && !header_may_say(options, errp))) {
        return NULL;
    }
    if (!format && !get_string(options, "driver") && json_object_lookup(options, "file")) {
        if (!level_file(options, "file", errp)) {
            return NULL;
        }
        return open_probed(graph, options, inherit, errp);
    }
    if (!level_driver(options, format, errp) || !complete(options, errp)) {
        return NULL;
    }
    return open_co_options(graph, options, inherit, errp);
}
