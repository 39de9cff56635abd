/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON values: construction, access, copy, free.  Neither text nor parsing.
 *
 * Invariants (J1-J4 are in json.h):
 *  V1 nothing here recurses: a value may be as deep as JSON_MAX_DEPTH or deeper, and
 *     the caller may stand on a coroutine's small stack;
 *  V2 an object of INDEX_FROM members or more is found by hash, so that an object of a
 *     million members read from a socket costs no quadratic time; taking a member out
 *     drops the index until the next member is added.
 */
#include <string.h>

#include "block/base/json-private.h"

#define INDEX_FROM 32

static JsonValue *value_new(JsonType type)
{
    JsonValue *value = g_new0(JsonValue, 1);
    value->type = type;
    return value;
}

JsonValue *json_null(void)
{
    return value_new(JSON_NULL);
}

JsonValue *json_bool(bool flag)
{
    JsonValue *value = value_new(JSON_BOOL);
    value->flag = flag;
    return value;
}

JsonValue *json_int(int64_t number)
{
    JsonValue *value = value_new(JSON_INT);
    value->integer = number;
    return value;
}

JsonValue *json_uint(uint64_t number)
{
    if (number <= INT64_MAX) {
        return json_int((int64_t)number);
    }
    JsonValue *value = value_new(JSON_UINT);
    value->natural = number;
    return value;
}

JsonValue *json_double(double number)
{
    JsonValue *value = value_new(JSON_DOUBLE);
    value->real = number;
    return value;
}

JsonValue *json_string(const char *text)
{
    JsonValue *value = value_new(JSON_STRING);
    value->text = g_strdup(text);
    return value;
}

JsonValue *json_string_printf(const char *fmt, ...)
{
    JsonValue *value = value_new(JSON_STRING);
    va_list ap;
    va_start(ap, fmt);
    value->text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return value;
}

JsonValue *json_array(void)
{
    return value_new(JSON_ARRAY);
}

JsonValue *json_object(void)
{
    return value_new(JSON_OBJECT);
}

/* Free what an item of its own holds; a container must be empty by now. */
static void free_one(JsonValue *value)
{
    if (value->type == JSON_STRING) {
        g_free(value->text);
    } else if (json_is_container(value)) {
        g_clear_pointer(&value->index, g_hash_table_unref);
        g_free(value->items);
    }
    g_free(value);
}

void json_free(JsonValue *value)
{
    if (!value) {
        return;
    }
    if (!json_is_container(value)) {
        free_one(value);
        return;
    }
    value->parent = NULL;
    while (value) {
        if (value->size == 0) {
            JsonValue *parent = value->parent;
            free_one(value);
            value = parent;
            continue;
        }
        JsonItem *last = &value->items[--value->size];
        /* the index borrows the keys and is not asked again */
        g_free(last->key);
        if (json_is_container(last->value)) {
            last->value->parent = value;
            value = last->value;
        } else {
            free_one(last->value);
        }
    }
}

JsonType json_type(const JsonValue *value)
{
    return value->type;
}

const char *json_type_name(JsonType type)
{
    static const char *const names[] = {"null",   "boolean", "integer", "integer",
                                        "number", "string",  "array",   "object"};
    return names[type];
}

bool json_get_bool(const JsonValue *value, bool *ret_value)
{
    if (value->type != JSON_BOOL) {
        return false;
    }
    *ret_value = value->flag;
    return true;
}

bool json_get_int(const JsonValue *value, int64_t *ret_value)
{
    if (value->type != JSON_INT) {
        return false;
    }
    *ret_value = value->integer;
    return true;
}

bool json_get_uint(const JsonValue *value, uint64_t *ret_value)
{
    if (value->type == JSON_INT && value->integer >= 0) {
        *ret_value = (uint64_t)value->integer;
        return true;
    }
    if (value->type == JSON_UINT) {
        *ret_value = value->natural;
        return true;
    }
    return false;
}

bool json_get_double(const JsonValue *value, double *ret_value)
{
    switch (value->type) {
    case JSON_INT:
        *ret_value = (double)value->integer;
        return true;
    case JSON_UINT:
        *ret_value = (double)value->natural;
        return true;
    case JSON_DOUBLE:
        *ret_value = value->real;
        return true;
    default:
        return false;
    }
}

const char *json_get_string(const JsonValue *value)
{
    return value->type == JSON_STRING ? value->text : NULL;
}

static void index_add(JsonValue *object, size_t i)
{
    g_hash_table_insert(object->index, object->items[i].key, GSIZE_TO_POINTER(i + 1));
}

static void add_item(JsonValue *container, char *key, JsonValue *item)
{
    if (container->size == container->room) {
        container->room = container->room ? 2 * container->room : 4;
        container->items = g_renew(JsonItem, container->items, container->room);
    }
    container->items[container->size++] = (JsonItem){key, item};
    if (!key || container->size < INDEX_FROM) {
        return;
    }
    if (container->index) {
        index_add(container, container->size - 1);
        return;
    }
    container->index = g_hash_table_new(g_str_hash, g_str_equal);
    for (size_t i = 0; i < container->size; i++) {
        index_add(container, i);
    }
}

/* A copy of one value; a container's copy is empty. */
static JsonValue *copy_one(const JsonValue *value)
{
    JsonValue *copy = value_new(value->type);
    if (value->type == JSON_STRING) {
        copy->text = g_strdup(value->text);
    } else if (!json_is_container(value)) {
        *copy = *value;
    }
    return copy;
}

typedef struct CopyLevel {
    const JsonValue *from;
    JsonValue *to;
    size_t next;
} CopyLevel;

JsonValue *json_copy(const JsonValue *value)
{
    JsonValue *copy = copy_one(value);
    if (!json_is_container(value)) {
        return copy;
    }
    g_autoptr(GArray) levels = g_array_new(FALSE, FALSE, sizeof(CopyLevel));
    CopyLevel level = {value, copy, 0};
    for (;;) {
        if (level.next == level.from->size) {
            if (!levels->len) {
                return copy;
            }
            level = g_array_index(levels, CopyLevel, levels->len - 1);
            g_array_set_size(levels, levels->len - 1);
            continue;
        }
        const JsonItem *item = &level.from->items[level.next++];
        JsonValue *to = copy_one(item->value);
        add_item(level.to, g_strdup(item->key), to);
        if (json_is_container(item->value)) {
            g_array_append_val(levels, level);
            level = (CopyLevel){item->value, to, 0};
        }
    }
}

size_t json_array_size(const JsonValue *array)
{
    return array->size;
}

JsonValue *json_array_at(const JsonValue *array, size_t i)
{
    return i < array->size ? array->items[i].value : NULL;
}

void json_array_append(JsonValue *array, JsonValue *item)
{
    add_item(array, NULL, item);
}

size_t json_object_size(const JsonValue *object)
{
    return object->size;
}

const char *json_object_key_at(const JsonValue *object, size_t i)
{
    return object->items[i].key;
}

JsonValue *json_object_value_at(const JsonValue *object, size_t i)
{
    return object->items[i].value;
}

static JsonItem *find(const JsonValue *object, const char *key)
{
    if (object->index) {
        size_t position = GPOINTER_TO_SIZE(g_hash_table_lookup(object->index, key));
        return position ? &object->items[position - 1] : NULL;
    }
    for (size_t i = 0; i < object->size; i++) {
        if (strcmp(object->items[i].key, key) == 0) {
            return &object->items[i];
        }
    }
    return NULL;
}

JsonValue *json_object_lookup(const JsonValue *object, const char *key)
{
    JsonItem *item = find(object, key);
    return item ? item->value : NULL;
}

JsonValue *json_object_take(JsonValue *object, const char *key)
{
    JsonItem *item = find(object, key);
    if (!item) {
        return NULL;
    }
    JsonValue *value = item->value;
    g_clear_pointer(&object->index, g_hash_table_unref); /* positions move */
    g_free(item->key);
    size_t behind = &object->items[object->size] - (item + 1);
    memmove(item, item + 1, behind * sizeof(*item));
    object->size--;
    return value;
}

void json_object_set(JsonValue *object, const char *key, JsonValue *value)
{
    JsonItem *item = find(object, key);
    if (item) {
        json_free(item->value);
        item->value = value;
    } else {
        add_item(object, g_strdup(key), value);
    }
}

void json_object_set_string(JsonValue *object, const char *key, const char *value)
{
    json_object_set(object, key, json_string(value));
}

void json_object_set_int(JsonValue *object, const char *key, int64_t value)
{
    json_object_set(object, key, json_int(value));
}

void json_object_set_uint(JsonValue *object, const char *key, uint64_t value)
{
    json_object_set(object, key, json_uint(value));
}

void json_object_set_bool(JsonValue *object, const char *key, bool value)
{
    json_object_set(object, key, json_bool(value));
}
