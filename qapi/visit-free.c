/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Free and copy typed values, and look enumerations up, by table.
 *
 * A value may be half built: pointers are freed unless NULL, variants by their tag.
 */
#include <string.h>

#include "qapi/tables.h"
#include "qapi/visit.h"
#include "qapi/walk.h"

static void free_content(unsigned type, char *value);

/* Free what a slot of this type holds; the slot itself is the caller's. */
static void free_slot(unsigned type, char *slot)
{
    switch (qapi_types[type].kind) {
    case QAPI_KIND_STR:
        g_free(*(char **)slot);
        break;
    case QAPI_KIND_ANY:
        json_free(*(JsonValue **)slot);
        break;
    case QAPI_KIND_STRUCT:
    case QAPI_KIND_ALTERNATE:
    case QAPI_KIND_LIST:
        qapi_free(type, *(void **)slot);
        break;
    default:
        break;
    }
}

static void free_members(const QapiType *t, char *value)
{
    for (unsigned i = 0; i < t->count; i++) {
        const QapiMember *m = &qapi_members[t->first + i];
        free_slot(m->type, value + m->offset);
    }
}

static void free_struct(const QapiType *t, char *value)
{
    const QapiVariant *variant = qapi_struct_variant(t, value);

    if (variant && qapi_types[variant->type].count) {
        free_content(variant->type, value + t->u_offset);
    }
    free_members(t, value);
}

static void free_content(unsigned type, char *value)
{
    const QapiType *t = &qapi_types[type];

    if (t->kind == QAPI_KIND_STRUCT) {
        free_struct(t, value);
    } else if (t->kind == QAPI_KIND_ALTERNATE) {
        const QapiMember *m = qapi_alternate_branch(t, *(JsonType *)value);
        if (m) {
            free_slot(m->type, value + m->offset);
        }
    }
}

static void free_list(unsigned type, char *list)
{
    while (list) {
        char *next = *(char **)list;
        free_slot(qapi_types[type].first, list + QAPI_LIST_VALUE);
        g_free(list);
        list = next;
    }
}

void qapi_free(unsigned type, void *value)
{
    if (!value) {
        return;
    }
    if (qapi_types[type].kind == QAPI_KIND_LIST) {
        free_list(type, value);
        return;
    }
    free_content(type, value);
    g_free(value);
}

void *qapi_copy(unsigned type, const void *value)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonValue) json = NULL;
    void *copy;

    if (!value) {
        return NULL;
    }
    json = qapi_to_json(type, value);
    copy = qapi_from_json(type, json, NULL, QAPI_STRICT, &error);
    g_assert(copy || (!error && qapi_types[type].kind == QAPI_KIND_LIST));
    return copy;
}

const char *qapi_enum_str(unsigned type, unsigned value)
{
    const QapiType *t = &qapi_types[type];

    return value < t->count ? qapi_string(qapi_values[t->first + value].name) : NULL;
}

int qapi_enum_parse(unsigned type, const char *text)
{
    const QapiType *t = &qapi_types[type];

    for (unsigned i = 0; i < t->count; i++) {
        if (!strcmp(qapi_string(qapi_values[t->first + i].name), text)) {
            return (int)i;
        }
    }
    return -1;
}

int qapi_command_lookup(const char *name)
{
    for (unsigned i = 0; i < qapi_nb_commands; i++) {
        if (!strcmp(qapi_string(qapi_commands[i].name), name)) {
            return (int)i;
        }
    }
    return -1;
}
