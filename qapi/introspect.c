/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query-qmp-schema: the tables told in the shape that QEMU's clients know.
 *
 * Type names are masked: builtins keep theirs, all others are numbers in the order in
 * which they are first needed, so that nobody comes to depend on them. All integers are
 * "int". Only types that a command or an event reaches are told.
 */
#include <string.h>

#include "qapi/tables.h"
#include "qapi/visit.h"

#define EMPTY_OBJECT "0"

typedef struct Teller {
    JsonValue *out;
    GArray *queue;     /* unsigned: types in the order of their numbers */
    uint16_t *numbers; /* by type; 0 = none yet */
    unsigned next;
} Teller;

static const char *builtin_name(unsigned type)
{
    switch (qapi_types[type].kind) {
    case QAPI_KIND_NULL:
        return "null";
    case QAPI_KIND_BOOL:
        return "bool";
    case QAPI_KIND_NUMBER:
        return "number";
    case QAPI_KIND_STR:
        return "str";
    case QAPI_KIND_ANY:
        return "any";
    case QAPI_KIND_ENUM:
    case QAPI_KIND_STRUCT:
    case QAPI_KIND_ALTERNATE:
    case QAPI_KIND_LIST:
        return NULL;
    default:
        return "int";
    }
}

/* The masked name; the type is told later. */
static char *name_of(Teller *t, unsigned type)
{
    const char *builtin = builtin_name(type);

    if (qapi_types[type].kind == QAPI_KIND_LIST) {
        g_autofree char *element = name_of(t, qapi_types[type].first);
        if (!t->numbers[type]) {
            t->numbers[type] = 1;
            g_array_append_val(t->queue, type);
        }
        return g_strdup_printf("[%s]", element);
    }
    if (!t->numbers[type]) {
        t->numbers[type] = builtin ? 1 : (uint16_t)++t->next;
        g_array_append_val(t->queue, type);
    }
    return builtin ? g_strdup(builtin) : g_strdup_printf("%u", t->numbers[type]);
}

static void set_name_of(Teller *t, JsonValue *object, const char *key, unsigned type)
{
    g_autofree char *name = name_of(t, type);

    json_object_set_string(object, key, name);
}

static void set_features(JsonValue *object, uint16_t features)
{
    const char *text = qapi_string(features);
    JsonValue *array;
    g_auto(GStrv) names = NULL;

    if (!*text) {
        return;
    }
    names = g_strsplit(text, ",", -1);
    array = json_array();
    for (char **name = names; *name; name++) {
        json_array_append(array, json_string(*name));
    }
    json_object_set(object, "features", array);
}

static JsonValue *element(Teller *t, const char *name, const char *meta_type,
                          uint16_t features)
{
    JsonValue *object = json_object();

    json_object_set_string(object, "name", name);
    json_object_set_string(object, "meta-type", meta_type);
    set_features(object, features);
    json_array_append(t->out, object);
    return object;
}

static JsonValue *members(Teller *t, const QapiType *type)
{
    JsonValue *array = json_array();

    for (unsigned i = 0; i < type->count; i++) {
        const QapiMember *m = &qapi_members[type->first + i];
        JsonValue *object = json_object();
        json_object_set_string(object, "name", qapi_string(m->name));
        if (m->optional) {
            json_object_set(object, "default", json_null());
        }
        set_name_of(t, object, "type", m->type);
        set_features(object, m->features);
        json_array_append(array, object);
    }
    return array;
}

static void tell_variants(Teller *t, const QapiType *type, JsonValue *object)
{
    const QapiMember *tag = &qapi_members[type->tag];
    const QapiType *values = &qapi_types[tag->type];
    JsonValue *array = json_array();

    for (unsigned i = 0; i < values->count; i++) {
        JsonValue *variant = json_object();
        json_object_set_string(variant, "case",
                               qapi_string(qapi_values[values->first + i].name));
        json_object_set_string(variant, "type", EMPTY_OBJECT);
        for (unsigned j = 0; j < type->nb_variants; j++) {
            const QapiVariant *v = &qapi_variants[type->first_variant + j];
            if (v->value == i) {
                set_name_of(t, variant, "type", v->type);
            }
        }
        json_array_append(array, variant);
    }
    json_object_set_string(object, "tag", qapi_string(tag->name));
    json_object_set(object, "variants", array);
}

static void tell_enum(const QapiType *type, JsonValue *object)
{
    JsonValue *list = json_array(), *values = json_array();

    for (unsigned i = 0; i < type->count; i++) {
        const QapiValue *value = &qapi_values[type->first + i];
        JsonValue *member = json_object();
        json_object_set_string(member, "name", qapi_string(value->name));
        set_features(member, value->features);
        json_array_append(list, member);
        json_array_append(values, json_string(qapi_string(value->name)));
    }
    json_object_set(object, "members", list);
    json_object_set(object, "values", values);
}

static void tell_alternate(Teller *t, const QapiType *type, JsonValue *object)
{
    JsonValue *array = json_array();

    for (unsigned i = 0; i < type->count; i++) {
        JsonValue *member = json_object();
        set_name_of(t, member, "type", qapi_members[type->first + i].type);
        json_array_append(array, member);
    }
    json_object_set(object, "members", array);
}

static void tell_builtin(Teller *t, const char *name)
{
    static const char *const json_types[][2] = {
        {"str", "string"},   {"int", "int"},   {"number", "number"},
        {"bool", "boolean"}, {"null", "null"}, {"any", "value"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(json_types); i++) {
        if (!strcmp(json_types[i][0], name)) {
            JsonValue *object = element(t, name, "builtin", 0);
            json_object_set_string(object, "json-type", json_types[i][1]);
        }
    }
}

static void tell_type(Teller *t, unsigned index)
{
    const QapiType *type = &qapi_types[index];
    g_autofree char *name = name_of(t, index);
    JsonValue *object;

    switch (type->kind) {
    case QAPI_KIND_ENUM:
        tell_enum(type, element(t, name, "enum", type->features));
        break;
    case QAPI_KIND_ALTERNATE:
        tell_alternate(t, type, element(t, name, "alternate", type->features));
        break;
    case QAPI_KIND_LIST:
        object = element(t, name, "array", type->features);
        set_name_of(t, object, "element-type", type->first);
        break;
    case QAPI_KIND_STRUCT:
        object = element(t, name, "object", type->features);
        json_object_set(object, "members", members(t, type));
        if (type->nb_variants) {
            tell_variants(t, type, object);
        }
        break;
    default:
        break; /* builtins, told once each at the end */
    }
}

static void tell_command(Teller *t, const QapiCommand *c, const char *meta_type)
{
    JsonValue *object = element(t, qapi_string(c->name), meta_type, c->features);

    json_object_set_string(object, "arg-type", EMPTY_OBJECT);
    if (c->arg != QAPI_NO_TYPE) {
        set_name_of(t, object, "arg-type", c->arg);
    }
    if (!strcmp(meta_type, "event")) {
        return;
    }
    json_object_set_string(object, "ret-type", EMPTY_OBJECT);
    if (c->ret != QAPI_NO_TYPE) {
        set_name_of(t, object, "ret-type", c->ret);
    }
    if (c->flags & QAPI_CMD_OOB) {
        json_object_set_bool(object, "allow-oob", true);
    }
}

/* Several integer types are one "int" here: arrays of them are one, too. */
static void tell_types(Teller *t)
{
    g_autoptr(GHashTable) seen =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    static const char *const builtins[] = {"str",  "int",  "number",
                                           "bool", "null", "any"};

    for (unsigned i = 0; i < t->queue->len; i++) {
        unsigned type = g_array_index(t->queue, unsigned, i);
        if (!builtin_name(type) && g_hash_table_add(seen, name_of(t, type))) {
            tell_type(t, type);
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(builtins); i++) {
        tell_builtin(t, builtins[i]);
    }
}

JsonValue *qapi_introspect(void)
{
    Teller t = {.out = json_array()};
    JsonValue *empty;

    t.queue = g_array_new(FALSE, FALSE, sizeof(unsigned));
    t.numbers = g_new0(uint16_t, qapi_nb_types);
    for (unsigned i = 0; i < qapi_nb_commands; i++) {
        tell_command(&t, &qapi_commands[i], "command");
    }
    for (unsigned i = 0; i < qapi_nb_events; i++) {
        tell_command(&t, &qapi_events[i], "event");
    }
    empty = element(&t, EMPTY_OBJECT, "object", 0);
    json_object_set(empty, "members", json_array());
    tell_types(&t);
    g_array_free(t.queue, TRUE);
    g_free(t.numbers);
    return t.out;
}
