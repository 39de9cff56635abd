/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flattened options to nested ones; see json-crumple.h.  Texts of key=value are not
 * read here.
 *
 * Two passes: plant() walks the given tree and puts every scalar at its full path into
 * a new tree, which knows only objects; make_lists() then turns the objects of that
 * tree whose keys are indexes into arrays.
 *
 * Invariants:
 *  C1 while planting, a container of the new tree is an object, or an array that is
 * empty because the given one was; C2 the new tree has at most JSON_MAX_VALUES values
 * and JSON_MAX_DEPTH levels, though the parser has seen only its flat form; C3 no pass
 * recurses (V1).
 *
 * compat: the texts of errors are those of the stock programs, where these have one.
 */
#include <string.h>

#include "block/base/error.h"
#include "block/base/json-crumple.h"
#include "block/base/json-private.h"

typedef struct PlantLevel {
    const JsonValue *from;
    JsonValue *into;
    size_t next;
    size_t depth; /* of @into in the new tree */
} PlantLevel;

typedef struct Plant {
    GArray *levels; /* PlantLevel */
    size_t n_values;
} Plant;

static bool count_value(Plant *plant, size_t depth, GError **errp)
{
    if (depth > JSON_MAX_DEPTH) {
        error_set(errp, "JSON nesting depth limit exceeded");
        return false;
    }
    if (++plant->n_values > JSON_MAX_VALUES) {
        error_set(errp, "JSON token count limit exceeded");
        return false;
    }
    return true;
}

/* The object at @part of @into, made if it is not there; NULL if a scalar is there. */
static JsonValue *member_object(Plant *plant, JsonValue *into, const char *part,
                                size_t depth, GError **errp)
{
    JsonValue *child = json_object_lookup(into, part);
    if (child && child->type == JSON_OBJECT) {
        return child;
    }
    if (child && child->type != JSON_ARRAY) {
        error_set(errp, "Cannot mix scalar and non-scalar keys");
        return NULL;
    }
    if (!count_value(plant, depth, errp)) {
        return NULL;
    }
    child = json_object();
    json_object_set(into, part, child);
    return child;
}

/* A scalar, or an empty array, at @part of @into. */
static bool plant_leaf(Plant *plant, JsonValue *into, const char *part,
                       const JsonValue *leaf, size_t depth, GError **errp)
{
    const JsonValue *old = json_object_lookup(into, part);
    if (old && json_is_container(old) && leaf->type == JSON_ARRAY) {
        return true; /* what else is said of it decides */
    }
    if (old && (json_is_container(old) || leaf->type == JSON_ARRAY)) {
        error_set(errp, "Cannot mix scalar and non-scalar keys");
        return false;
    }
    if (old) {
        error_set(errp, "Parameter '%s' is given twice", part);
        return false;
    }
    if (!count_value(plant, depth, errp)) {
        return false;
    }
    json_object_set(into, part, json_copy(leaf));
    return true;
}

/* @value of the dotted @key: its leaf, or its container for the pass to go down. */
static bool plant_item(Plant *plant, const PlantLevel *level, const char *key,
                       const JsonValue *value, GError **errp)
{
    g_autofree char *parts = g_strdup(key);
    JsonValue *into = level->into;
    size_t depth = level->depth;
    char *part = parts;
    bool leaf =
        !json_is_container(value) || (value->type == JSON_ARRAY && value->size == 0);

    for (;;) {
        char *dot = strchr(part, '.');
        if (dot) {
            *dot = 0;
        }
        if (!*part) {
            error_set(errp, "Invalid parameter '%s'", key);
            return false;
        }
        depth++;
        if (!dot && leaf) {
            return plant_leaf(plant, into, part, value, depth, errp);
        }
        into = member_object(plant, into, part, depth, errp);
        if (!into) {
            return false;
        }
        if (!dot) {
            break;
        }
        part = dot + 1;
    }
    PlantLevel inner = {value, into, 0, depth};
    g_array_append_val(plant->levels, inner);
    return true;
}

static bool plant_all(Plant *plant, const JsonValue *from, JsonValue *root,
                      GError **errp)
{
    PlantLevel first = {from, root, 0, 1};
    g_array_append_val(plant->levels, first);
    while (plant->levels->len) {
        PlantLevel *level =
            &g_array_index(plant->levels, PlantLevel, plant->levels->len - 1);
        if (level->next == level->from->size) {
            g_array_set_size(plant->levels, plant->levels->len - 1);
            continue;
        }
        const JsonItem *item = &level->from->items[level->next];
        char index[24];
        g_snprintf(index, sizeof(index), "%zu", level->next++);
        PlantLevel here = *level; /* the array may move */
        if (!plant_item(plant, &here, item->key ? item->key : index, item->value,
                        errp)) {
            return false;
        }
    }
    return true;
}

static bool is_index(const char *key)
{
    return key[strspn(key, "0123456789")] == 0;
}

/* Are the keys 0..n-1 (*ret_list), or none of them an index? */
static bool check_list(const JsonValue *object, bool *ret_list, GError **errp)
{
    size_t n_indexes = 0;
    guint64 largest = 0;
    for (size_t i = 0; i < object->size; i++) {
        if (is_index(object->items[i].key)) {
            guint64 index = g_ascii_strtoull(object->items[i].key, NULL, 10);
            largest = MAX(largest, index);
            n_indexes++;
        }
    }
    *ret_list = n_indexes > 0;
    if (!n_indexes) {
        return true;
    }
    if (n_indexes < object->size) {
        error_set(errp, "Cannot mix list and non-list keys");
        return false;
    }
    if (largest != object->size - 1) {
        error_set(errp,
                  "List indices are not contiguous, saw %zu elements but "
                  "%" G_GUINT64_FORMAT " largest index",
                  object->size, largest);
        return false;
    }
    return true;
}

/* In place: the items in the order of their indexes, without keys. */
static bool to_list(JsonValue *object, GError **errp)
{
    JsonItem *items = g_new0(JsonItem, object->size);
    for (size_t i = 0; i < object->size; i++) {
        char index[24];
        g_snprintf(index, sizeof(index), "%zu", i);
        items[i].value = json_object_lookup(object, index);
        if (!items[i].value) { /* "00" stands for no index */
            error_set(errp, "Missing list index %zu", i);
            g_free(items);
            return false;
        }
    }
    g_clear_pointer(&object->index, g_hash_table_unref);
    for (size_t i = 0; i < object->size; i++) {
        g_free(object->items[i].key);
    }
    g_free(object->items);
    object->items = items;
    object->room = object->size;
    object->type = JSON_ARRAY;
    return true;
}

/* The root stays an object whatever its keys are: options have names. */
static bool make_lists(JsonValue *root, GError **errp)
{
    g_autoptr(GPtrArray) todo = g_ptr_array_new();
    g_ptr_array_add(todo, root);
    while (todo->len) {
        JsonValue *value = g_ptr_array_index(todo, todo->len - 1);
        bool list = false;
        g_ptr_array_set_size(todo, (int)todo->len - 1);
        if (value != root && value->type == JSON_OBJECT &&
            !check_list(value, &list, errp)) {
            return false;
        }
        if (list && !to_list(value, errp)) {
            return false;
        }
        for (size_t i = 0; i < value->size; i++) {
            if (json_is_container(value->items[i].value)) {
                g_ptr_array_add(todo, value->items[i].value);
            }
        }
    }
    return true;
}

bool json_crumple(JsonValue *object, GError **errp)
{
    g_autoptr(JsonValue) root = json_object();
    g_autoptr(GArray) levels = g_array_new(FALSE, FALSE, sizeof(PlantLevel));
    Plant plant = {levels, 1};
    g_assert(object->type == JSON_OBJECT);
    if (!plant_all(&plant, object, root, errp) || !make_lists(root, errp)) {
        return false;
    }
    JsonValue old = *object;
    *object = *root;
    *root = old; /* freed with its holder */
    return true;
}
