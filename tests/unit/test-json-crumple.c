/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Flattened options to nested ones, and what cannot be nested. */
#include <glib.h>
#include <string.h>

#include "block/base/json-crumple.h"

static void assert_nested(const char *flat, const char *nested)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonValue) value = json_parse(flat, &error);
    g_assert_no_error(error);
    bool ok = json_crumple(value, &error);
    g_assert_no_error(error);
    g_assert_true(ok);
    g_autofree char *text = json_to_string(value);
    g_assert_cmpstr(text, ==, nested);

    g_assert_true(json_crumple(value, NULL)); /* and once more changes nothing */
    g_autofree char *again = json_to_string(value);
    g_assert_cmpstr(again, ==, nested);
}

static void assert_refused(const char *flat, const char *message)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonValue) value = json_parse(flat, &error);
    g_assert_no_error(error);
    g_autofree char *before = json_to_string(value);
    g_assert_false(json_crumple(value, &error));
    g_assert_nonnull(error);
    g_assert_cmpstr(error->message, ==, message);
    g_autofree char *after = json_to_string(value);
    g_assert_cmpstr(after, ==, before);
}

static void test_objects(void)
{
    assert_nested("{}", "{}");
    assert_nested("{'a':1,'b':{},'c':[],'d':null}",
                  "{\"a\": 1, \"b\": {}, \"c\": [], \"d\": null}");
    assert_nested("{'driver':'raw','file.driver':'file','file.cache.direct':true}",
                  "{\"driver\": \"raw\", \"file\": {\"driver\": \"file\", "
                  "\"cache\": {\"direct\": true}}}");
}

static void test_mixed_spellings(void)
{
    assert_nested("{'file':{'filename':'x'},'file.driver':'file'}",
                  "{\"file\": {\"filename\": \"x\", \"driver\": \"file\"}}");
    assert_nested("{'file.driver':'file','file':{'a.b':1,'a':{'c':2}}}",
                  "{\"file\": {\"driver\": \"file\", \"a\": {\"b\": 1, \"c\": 2}}}");
    assert_nested("{'a':{},'a.b':1}", "{\"a\": {\"b\": 1}}");
    assert_nested("{'a':[],'a.0':1}", "{\"a\": [1]}");
    assert_nested("{'a.0':1,'a':[]}", "{\"a\": [1]}");
    assert_nested("{'a':[{'x':1}],'a.1.x':2}", "{\"a\": [{\"x\": 1}, {\"x\": 2}]}");
}

static void test_lists(void)
{
    assert_nested("{'l.1':'b','l.0':'a'}", "{\"l\": [\"a\", \"b\"]}");
    assert_nested("{'l.0.a.b':1,'l.1.0':2}", "{\"l\": [{\"a\": {\"b\": 1}}, [2]]}");
    assert_nested("{'l':[{'a.0':1},[[]],{}]}", "{\"l\": [{\"a\": [1]}, [[]], {}]}");
    assert_nested("{'0':1}", "{\"0\": 1}"); /* the root stays an object */
}

static void test_long_list(void)
{
    GString *flat = g_string_new("{");
    for (int i = 99; i >= 0; i--) {
        g_string_append_printf(flat, "'l.%d':%d%s", i, i, i ? "," : "}");
    }
    g_autoptr(JsonValue) value = json_parse(flat->str, NULL);
    g_assert_true(json_crumple(value, NULL));
    const JsonValue *list = json_object_lookup(value, "l");
    g_assert_cmpint(json_type(list), ==, JSON_ARRAY);
    g_assert_cmpuint(json_array_size(list), ==, 100);
    for (int i = 0; i < 100; i++) {
        int64_t number;
        g_assert_true(json_get_int(json_array_at(list, (size_t)i), &number));
        g_assert_cmpint(number, ==, i);
    }
    g_string_free(flat, TRUE);
}

static void test_bad_lists(void)
{
    assert_refused("{'l.1':1}", "List indices are not contiguous, saw 1 elements but "
                                "1 largest index");
    assert_refused("{'l.0':1,'l.x':2}", "Cannot mix list and non-list keys");
    assert_refused("{'l.x':1,'l.0':2}", "Cannot mix list and non-list keys");
    assert_refused("{'l':[1],'l.x':2}", "Cannot mix list and non-list keys");
    assert_refused("{'l.00':1}", "Missing list index 0");
    assert_refused("{'l.99999999999999999999':1}",
                   "List indices are not contiguous, saw 1 elements but "
                   "18446744073709551615 largest index");
}

static void test_conflicts(void)
{
    assert_refused("{'a':'x','a.b':1}", "Cannot mix scalar and non-scalar keys");
    assert_refused("{'a.b':1,'a':'x'}", "Cannot mix scalar and non-scalar keys");
    assert_refused("{'a':'x','a.b.c':1}", "Cannot mix scalar and non-scalar keys");
    assert_refused("{'a.b.c':1,'a':{'b':2}}", "Cannot mix scalar and non-scalar keys");
    assert_refused("{'a.b':1,'a':{'b':[]}}", "Cannot mix scalar and non-scalar keys");
    assert_refused("{'a.b':1,'a':{'b':2}}", "Parameter 'b' is given twice");
    assert_refused("{'l':[1],'l.0':2}", "Parameter '0' is given twice");
}

static void test_bad_keys(void)
{
    assert_refused("{'a..b':1}", "Invalid parameter 'a..b'");
    assert_refused("{'.a':1}", "Invalid parameter '.a'");
    assert_refused("{'a.':1}", "Invalid parameter 'a.'");
    assert_refused("{'':1}", "Invalid parameter ''");
}

/* One object per part of a key: the limits hold for what is made of the text. */
static void test_depth(void)
{
    GString *flat = g_string_new("{'a");
    for (int i = 3; i < JSON_MAX_DEPTH; i++) {
        g_string_append(flat, ".a");
    }
    g_autofree char *deepest = g_strconcat(flat->str, ".a':1}", NULL);
    g_autofree char *deeper = g_strconcat(flat->str, ".a.a':1}", NULL);
    g_autoptr(JsonValue) value = json_parse(deepest, NULL);
    g_assert_true(json_crumple(value, NULL));
    assert_refused(deeper, "JSON nesting depth limit exceeded");
    g_string_free(flat, TRUE);
}

static void test_count(void)
{
    GString *path = g_string_new("");
    for (int i = 0; i < 1000; i++) {
        g_string_append(path, ".a");
    }
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonValue) value = json_object();
    for (unsigned i = 0; i < JSON_MAX_VALUES / 1000; i++) {
        g_autofree char *key = g_strdup_printf("k%u%s", i, path->str);
        json_object_set_int(value, key, 1);
    }
    g_assert_false(json_crumple(value, &error));
    g_assert_cmpstr(error->message, ==, "JSON token count limit exceeded");
    g_string_free(path, TRUE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json-crumple/objects", test_objects);
    g_test_add_func("/json-crumple/mixed-spellings", test_mixed_spellings);
    g_test_add_func("/json-crumple/lists", test_lists);
    g_test_add_func("/json-crumple/long-list", test_long_list);
    g_test_add_func("/json-crumple/errors/lists", test_bad_lists);
    g_test_add_func("/json-crumple/errors/conflicts", test_conflicts);
    g_test_add_func("/json-crumple/errors/keys", test_bad_keys);
    g_test_add_func("/json-crumple/limits/depth", test_depth);
    g_test_add_func("/json-crumple/limits/count", test_count);
    return g_test_run();
}
