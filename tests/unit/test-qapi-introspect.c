/* SPDX-License-Identifier: GPL-2.0-or-later */
/* query-qmp-schema is closed: every type that is named is told, exactly once, and by
 * its own rules; a client that walks it finds blockdev-add's drivers. */
#include <glib.h>

#include "qapi/tables.h"
#include "qapi/visit.h"

static const char *member_string(const JsonValue *object, const char *key)
{
    const JsonValue *value = json_object_lookup(object, key);

    return value ? json_get_string(value) : NULL;
}

static GHashTable *index_by_name(const JsonValue *schema)
{
    GHashTable *names = g_hash_table_new(g_str_hash, g_str_equal);

    for (size_t i = 0; i < json_array_size(schema); i++) {
        const JsonValue *element = json_array_at(schema, i);
        g_assert_true(g_hash_table_insert(names, (char *)member_string(element, "name"),
                                          (JsonValue *)element));
    }
    return names;
}

static void assert_told(GHashTable *names, const char *name)
{
    g_assert_nonnull(name);
    g_assert_true(g_hash_table_contains(names, name));
}

static void check_references(GHashTable *names, const JsonValue *element)
{
    static const char *const keys[] = {"arg-type", "ret-type", "element-type"};
    static const char *const lists[] = {"members", "variants"};
    bool is_enum = !g_strcmp0(member_string(element, "meta-type"), "enum");

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (json_object_lookup(element, keys[i])) {
            assert_told(names, member_string(element, keys[i]));
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        const JsonValue *list = json_object_lookup(element, lists[i]);
        for (size_t j = 0; list && !is_enum && j < json_array_size(list); j++) {
            assert_told(names, member_string(json_array_at(list, j), "type"));
        }
    }
}

static void test_closed(void)
{
    g_autoptr(JsonValue) schema = qapi_introspect();
    g_autoptr(GHashTable) names = index_by_name(schema);

    for (size_t i = 0; i < json_array_size(schema); i++) {
        check_references(names, json_array_at(schema, i));
    }
    for (unsigned i = 0; i < qapi_nb_commands; i++) {
        assert_told(names, qapi_string(qapi_commands[i].name));
    }
    for (unsigned i = 0; i < qapi_nb_events; i++) {
        assert_told(names, qapi_string(qapi_events[i].name));
    }
}

static void test_walk_to_a_driver(void)
{
    g_autoptr(JsonValue) schema = qapi_introspect();
    g_autoptr(GHashTable) names = index_by_name(schema);
    const JsonValue *command = g_hash_table_lookup(names, "blockdev-add");
    const JsonValue *options =
        g_hash_table_lookup(names, member_string(command, "arg-type"));
    const JsonValue *variants = json_object_lookup(options, "variants");
    const JsonValue *qcow2 = NULL;

    g_assert_cmpstr(member_string(options, "tag"), ==, "driver");
    for (size_t i = 0; i < json_array_size(variants); i++) {
        const JsonValue *variant = json_array_at(variants, i);
        if (!g_strcmp0(member_string(variant, "case"), "qcow2")) {
            qcow2 = g_hash_table_lookup(names, member_string(variant, "type"));
        }
    }
    g_assert_nonnull(qcow2);
    const JsonValue *members = json_object_lookup(qcow2, "members");
    const JsonValue *file = json_array_at(members, 0);
    g_assert_cmpstr(member_string(file, "name"), ==, "file");
    g_assert_null(json_object_lookup(file, "default"));
    g_assert_nonnull(json_object_lookup(json_array_at(members, 1), "default"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qapi-introspect/closed", test_closed);
    g_test_add_func("/qapi-introspect/walk-to-a-driver", test_walk_to_a_driver);
    return g_test_run();
}
