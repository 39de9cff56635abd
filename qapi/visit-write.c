/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From typed values to JSON, by table. Members keep the order of the schema. */
#include "qapi/tables.h"
#include "qapi/visit.h"
#include "qapi/walk.h"

static bool member_present(const QapiMember *m, const char *value)
{
    if (!m->optional) {
        return true;
    }
    if (m->has_offset != QAPI_NO_OFFSET) {
        return *(const bool *)(value + m->has_offset);
    }
    return *(void *const *)(value + m->offset) != NULL;
}

static JsonValue *write_slot(unsigned type, const char *slot);

static void write_members(JsonValue *object, const QapiType *t, const char *value)
{
    for (unsigned i = 0; i < t->count; i++) {
        const QapiMember *m = &qapi_members[t->first + i];
        if (member_present(m, value)) {
            json_object_set(object, qapi_string(m->name),
                            write_slot(m->type, value + m->offset));
        }
    }
}

static JsonValue *write_struct(const QapiType *t, const char *value)
{
    JsonValue *object = json_object();
    const QapiVariant *variant = qapi_struct_variant(t, value);

    write_members(object, t, value);
    if (variant) {
        write_members(object, &qapi_types[variant->type], value + t->u_offset);
    }
    return object;
}

static JsonValue *write_list(const QapiType *t, const char *list)
{
    JsonValue *array = json_array();

    for (; list; list = *(char *const *)list) {
        json_array_append(array, write_slot(t->first, list + QAPI_LIST_VALUE));
    }
    return array;
}

static JsonValue *write_scalar(QapiKind kind, const void *slot)
{
    switch (kind) {
    case QAPI_KIND_BOOL:
        return json_bool(*(const bool *)slot);
    case QAPI_KIND_INT8:
        return json_int(*(const int8_t *)slot);
    case QAPI_KIND_INT16:
        return json_int(*(const int16_t *)slot);
    case QAPI_KIND_INT32:
        return json_int(*(const int32_t *)slot);
    case QAPI_KIND_INT64:
        return json_int(*(const int64_t *)slot);
    case QAPI_KIND_UINT8:
        return json_uint(*(const uint8_t *)slot);
    case QAPI_KIND_UINT16:
        return json_uint(*(const uint16_t *)slot);
    case QAPI_KIND_UINT32:
        return json_uint(*(const uint32_t *)slot);
    case QAPI_KIND_UINT64:
    case QAPI_KIND_SIZE:
        return json_uint(*(const uint64_t *)slot);
    case QAPI_KIND_NUMBER:
        return json_double(*(const double *)slot);
    default:
        return json_null();
    }
}

static JsonValue *write_slot(unsigned type, const char *slot)
{
    const QapiType *t = &qapi_types[type];
    const char *text;

    switch (t->kind) {
    case QAPI_KIND_STR:
        text = *(char *const *)slot;
        return json_string(text ? text : "");
    case QAPI_KIND_ANY:
        return json_copy(*(JsonValue *const *)slot);
    case QAPI_KIND_ENUM:
        return json_string(qapi_enum_str(type, *(const unsigned *)slot));
    case QAPI_KIND_STRUCT:
    case QAPI_KIND_ALTERNATE:
    case QAPI_KIND_LIST:
        return qapi_to_json(type, *(void *const *)slot);
    default:
        return write_scalar((QapiKind)t->kind, slot);
    }
}

JsonValue *qapi_to_json(unsigned type, const void *value)
{
    const QapiType *t = &qapi_types[type];
    const QapiMember *m;

    switch (t->kind) {
    case QAPI_KIND_LIST:
        return write_list(t, value);
    case QAPI_KIND_ALTERNATE:
        m = qapi_alternate_branch(t, *(const JsonType *)value);
        return write_slot(m->type, (const char *)value + m->offset);
    default:
        return write_struct(t, value);
    }
}
