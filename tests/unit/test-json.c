/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON values, texts and the streaming parser: J1-J4 of json.h and recovery from
 * errors. */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "block/base/error.h"
#include "block/base/json.h"

/* Collects what a parser emits, one line each. */
static void collect(void *opaque, JsonValue *value, const GError *error)
{
    GString *out = opaque;
    if (error) {
        g_assert_null(value);
        g_string_append_printf(out, "! %s\n", error->message);
    } else {
        json_append_to(value, out);
        g_string_append_c(out, '\n');
        json_free(value);
    }
}

static char *feed(const char *data, size_t len, size_t step)
{
    GString *out = g_string_new(NULL);
    JsonParser *p = json_parser_new(collect, out);
    for (size_t i = 0; i < len; i += step) {
        json_parser_feed(p, data + i, MIN(step, len - i));
    }
    json_parser_free(p);
    return g_string_free(out, FALSE);
}

/* The same whole, byte by byte and in between. */
static void assert_stream_len(const char *data, size_t len, const char *expected)
{
    const size_t steps[] = {len, 1, 2, 3, 7};
    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++) {
        g_autofree char *got = feed(data, len, MAX(steps[i], 1));
        g_assert_cmpstr(got, ==, expected);
    }
}

static void assert_stream(const char *data, const char *expected)
{
    assert_stream_len(data, strlen(data), expected);
}

static void assert_text(const char *text, const char *expected)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonValue) value = json_parse(text, &error);
    g_assert_no_error(error);
    g_autofree char *out = json_to_string(value);
    g_assert_cmpstr(out, ==, expected);
    g_autoptr(JsonValue) again = json_parse(out, &error);
    g_assert_no_error(error);
    g_autofree char *out2 = json_to_string(again);
    g_assert_cmpstr(out2, ==, out);
}

static void assert_refused(const char *text, const char *message)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(json_parse(text, &error));
    g_assert_error(error, QDP_ERROR, ERROR_CLASS_GENERIC_ERROR);
    g_assert_cmpstr(error->message, ==, message);
}

static void test_scalars(void)
{
    assert_text("null", "null");
    assert_text(" true ", "true");
    assert_text("[false,0,-0,-1]", "[false, 0, 0, -1]");
    assert_text("[]", "[]");
    assert_text("{ }", "{}");
    assert_text("{'a' : [ {} , [ ] ]\n}", "{\"a\": [{}, []]}");
}

static void check_number(const char *text, JsonType type, const char *out)
{
    g_autoptr(JsonValue) value = json_parse(text, NULL);
    g_assert_nonnull(value);
    g_assert_cmpint(json_type(value), ==, type);
    assert_text(text, out);
}

static void test_numbers(void)
{
    check_number("9223372036854775807", JSON_INT, "9223372036854775807");
    check_number("-9223372036854775808", JSON_INT, "-9223372036854775808");
    check_number("9223372036854775808", JSON_UINT, "9223372036854775808");
    check_number("18446744073709551615", JSON_UINT, "18446744073709551615");
    check_number("18446744073709551616", JSON_DOUBLE, "1.8446744073709552e+19");
    check_number("-9223372036854775809", JSON_DOUBLE, "-9.223372036854776e+18");
    check_number("0.1", JSON_DOUBLE, "0.1");
    check_number("1E-7", JSON_DOUBLE, "1e-07");
    check_number("-0.0", JSON_DOUBLE, "-0.0");
    check_number("0.30000000000000004", JSON_DOUBLE, "0.30000000000000004");
    assert_refused("1e400", "JSON parse error, number out of range");
    assert_refused("01", "JSON parse error, stray '01'");
    assert_refused("1.", "JSON parse error, stray '1.'");
    assert_refused(".5", "JSON parse error, stray '.5'");
    assert_refused("1e", "JSON parse error, stray '1e'");
    assert_refused("-", "JSON parse error, stray '-'");
    assert_refused("+1", "JSON parse error, stray '+1'");
    assert_refused("0x10", "JSON parse error, stray '0x10'");
}

static void test_number_access(void)
{
    g_autoptr(JsonValue) minus = json_int(-1);
    g_autoptr(JsonValue) one = json_uint(1);
    g_autoptr(JsonValue) big = json_uint(UINT64_MAX);
    int64_t i = 5;
    uint64_t u = 5;
    double d;

    g_assert_cmpint(json_type(one), ==, JSON_INT);
    g_assert_true(json_get_uint(one, &u));
    g_assert_cmpuint(u, ==, 1);
    g_assert_false(json_get_uint(minus, &u));
    g_assert_false(json_get_int(big, &i));
    g_assert_cmpint(i, ==, 5);
    g_assert_true(json_get_uint(big, &u));
    g_assert_cmpuint(u, ==, UINT64_MAX);
    g_assert_true(json_get_double(minus, &d) && d == -1.0);
    g_assert_null(json_get_string(one));
}

static void test_strings(void)
{
    assert_text("\"\\u00e9\xc3\xa9\\ud83d\\ude00\x7f/\\/\"",
                "\"\\u00E9\\u00E9\\uD83D\\uDE00\\u007F//\"");
    assert_text("'it\\'s \"q\"'", "\"it's \\\"q\\\"\"");
    assert_text("\"\\b\\f\\n\\r\\t\\\\\\u001f\"", "\"\\b\\f\\n\\r\\t\\\\\\u001F\"");
    assert_text("{'k\\u00e9y':1}", "{\"k\\u00E9y\": 1}");
}

static void test_bad_strings(void)
{
    assert_refused("'\\q'", "JSON parse error, invalid escape sequence in string");
    assert_refused("'\\ud800'",
                   "JSON parse error, \\ud800 is not a valid Unicode character");
    assert_refused("'\\ud800\\u0041'",
                   "JSON parse error, \\ud800 is not a valid Unicode character");
    assert_refused("'\\ud800\\n'",
                   "JSON parse error, \\ud800 is not a valid Unicode character");
    assert_refused("'\\udC00'",
                   "JSON parse error, \\udC00 is not a valid Unicode character");
    assert_refused("'\\u12g4'",
                   "JSON parse error, \\u12 is not a valid Unicode character");
    assert_refused("'\\u0000'",
                   "JSON parse error, \\u0000 is not supported in strings");
    const char *const bad_utf8[] = {"'\x80'", "'\xc0\x80'", "'\xed\xa0\x80'",
                                    "'\xf5\x80\x80\x80'", "'\xe2\x82'"};
    for (size_t i = 0; i < G_N_ELEMENTS(bad_utf8); i++) {
        assert_refused(bad_utf8[i],
                       "JSON parse error, invalid UTF-8 sequence in string");
    }
    assert_refused("'x\x01y'", "JSON parse error, stray ''x\x01'");
    assert_refused("'x\ty'", "JSON parse error, stray ''x\t'");
    assert_refused("'abc", "JSON parse error, premature EOI");
}

static void test_grammar_errors(void)
{
    assert_refused("", "Expecting a JSON value");
    assert_refused(" \n ", "Expecting a JSON value");
    assert_refused("{", "JSON parse error, premature EOI");
    assert_refused("[1,[2]", "JSON parse error, premature EOI");
    assert_refused("{} {}", "Expecting at most one JSON value");
    assert_refused("{} x", "Expecting at most one JSON value");
    assert_refused("{} {", "Expecting at most one JSON value");
    assert_refused("{} 'x", "Expecting at most one JSON value");
    assert_refused("{'a'}", "JSON parse error, missing : in object pair");
    assert_refused("{'a' 1}", "JSON parse error, missing : in object pair");
    assert_refused("{'a':}", "JSON parse error, expecting value");
    assert_refused("{'a':1,}", "JSON parse error, expecting value");
    assert_refused("[1,]", "JSON parse error, expecting value");
    assert_refused("[,]", "JSON parse error, expecting value");
    assert_refused("{1:2}", "JSON parse error, key is not a string in object");
    assert_refused("{'a':1 'b':2}", "JSON parse error, expected separator in dict");
    assert_refused("[1 2]", "JSON parse error, expected separator in list");
    assert_refused("[1:2]", "JSON parse error, expected separator in list");
    assert_refused("[}", "JSON parse error, expecting value");
    assert_refused("]", "JSON parse error, expecting value");
    assert_refused("tru", "JSON parse error, invalid keyword 'tru'");
    assert_refused("True", "JSON parse error, stray 'True'");
    assert_refused("#", "JSON parse error, stray '#'");
    assert_refused("{'a':1,'b':2,'a':3}", "JSON parse error, duplicate key");
}

static void test_error_repeats_little(void)
{
    g_autofree char *text = g_strnfill(100000, 'X');
    g_autoptr(GError) error = NULL;
    g_assert_null(json_parse(text, &error));
    g_assert_cmpuint(strlen(error->message), <, 128);
}

static void test_stream(void)
{
    assert_stream("{'execute':'a'}{'execute':'b'}\n[1]'x' 2 3\n",
                  "{\"execute\": \"a\"}\n{\"execute\": \"b\"}\n[1]\n\"x\"\n2\n3\n");
    assert_stream("{\n 'a':\r\n\t[1,\n\n2]}", "{\"a\": [1, 2]}\n");
    assert_stream("'\xc3\xa9\\u00e9'", "\"\\u00E9\\u00E9\"\n");
    assert_stream("{'unfinished':", "");
    assert_stream("[[1,2", "");
}

/* One error for each bad text, and the text behind it is read. */
static void test_resync_balanced(void)
{
    const char *const bad[] = {
        "{'a':tru,'b':['}',\"]\"]}",
        "{'a':'\\q}'}",
        "{'a':'\\ud800\\'}'}",
        "{'a':'\\u12'}",
        "{'a':'\\u1\\'}'}",
        "{1:{'b':[]}}",
        "{[]:1}",
        "{'a'{'b':1}}",
        "['a'[1]]",
        "[}",
        "{]",
        "{'a':-}",
        "{'a':'\x80'}",
        "{'a':1,'a':{'x':'\\\\'}}",
        "'\\q {'",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *text = g_strconcat(bad[i], "{'next':1}", NULL);
        g_autofree char *out = feed(text, strlen(text), strlen(text));
        g_autofree char *out1 = feed(text, strlen(text), 1);
        g_auto(GStrv) lines = g_strsplit(out, "\n", -1);
        g_assert_cmpstr(out1, ==, out);
        g_assert_cmpuint(g_strv_length(lines), ==, 3);
        g_assert_true(g_str_has_prefix(lines[0], "! "));
        g_assert_cmpstr(lines[1], ==, "{\"next\": 1}");
    }
}

static void test_resync_newline(void)
{
    assert_stream("{'a':#\n{'next':1}",
                  "! JSON parse error, stray '#'\n{\"next\": 1}\n");
    assert_stream("{'a':'x\n{'next':1}",
                  "! JSON parse error, stray ''x\n'\n{\"next\": 1}\n");
    assert_stream("[[[tru\n{'next':1}",
                  "! JSON parse error, invalid keyword 'tru'\n{\"next\": 1}\n");
}

/* spec: QMP, "Forcing the JSON parser into known-good state" */
static void test_resync_forced(void)
{
    const char *const open[] = {"{'a':", "{'a':'x", "[[[", "{'a':'\\", "'\\u12", "[12"};
    const char force[] = {'\x01', '\0', '\x1b', '\xfe', '\xff'};
    for (size_t i = 0; i < G_N_ELEMENTS(open); i++) {
        for (size_t k = 0; k < G_N_ELEMENTS(force); k++) {
            GString *text = g_string_new(open[i]);
            g_string_append_c(text, force[k]);
            g_string_append(text, "{'next':1}");
            g_autofree char *out = feed(text->str, text->len, 1);
            g_auto(GStrv) lines = g_strsplit(out, "\n", -1);
            g_assert_cmpuint(g_strv_length(lines), ==, 3);
            g_assert_true(g_str_has_prefix(lines[0], "! JSON parse error, stray "));
            g_assert_true(g_utf8_validate(lines[0], -1, NULL));
            g_assert_cmpstr(lines[1], ==, "{\"next\": 1}");
            g_string_free(text, TRUE);
        }
    }
    /* while a bad text is being skipped, it is no second error */
    assert_stream("{'a':tru,[\xff{'next':1}",
                  "! JSON parse error, invalid keyword 'tru'\n{\"next\": 1}\n");
}

static char *nested(size_t depth)
{
    char *text = g_malloc(2 * depth + 1);
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    text[2 * depth] = 0;
    return text;
}

static void test_depth_limit(void)
{
    g_autofree char *deepest = nested(JSON_MAX_DEPTH);
    g_autofree char *deeper = nested(JSON_MAX_DEPTH + 1);
    g_autofree char *then = g_strconcat(deeper, "{'next':1}", NULL);

    assert_text(deepest, deepest);
    assert_refused(deeper, "JSON nesting depth limit exceeded");
    assert_stream(then, "! JSON nesting depth limit exceeded\n{\"next\": 1}\n");
}

static void test_count_limit(void)
{
    GString *text = g_string_new("[0");
    while (text->len < 2 * JSON_MAX_VALUES - 2) {
        g_string_append(text, ",0");
    }
    g_string_append_c(text, ']'); /* one array of JSON_MAX_VALUES - 1 numbers */
    g_autoptr(JsonValue) value = json_parse(text->str, NULL);
    g_assert_nonnull(value);
    g_assert_cmpuint(json_array_size(value), ==, JSON_MAX_VALUES - 1);
    g_string_truncate(text, text->len - 1);
    g_string_append(text, ",0]");
    assert_refused(text->str, "JSON token count limit exceeded");
    g_string_free(text, TRUE);
}

static void test_size_limit(void)
{
    GString *out = g_string_new(NULL);
    JsonParser *p = json_parser_new(collect, out);
    g_autofree char *chunk = g_strnfill(1 << 20, 'x');
    json_parser_feed(p, "['", 2);
    for (size_t i = 0; i < JSON_MAX_BYTES >> 20; i++) {
        json_parser_feed(p, chunk, 1 << 20);
    }
    json_parser_feed(p, "']{'next':1}", 12);
    g_assert_cmpstr(out->str, ==, "! JSON token size limit exceeded\n{\"next\": 1}\n");
    json_parser_free(p);
    g_string_free(out, TRUE);
}

/* Much deeper than the parser allows: copy, print and free stay off the stack. */
static void test_no_recursion(void)
{
    enum { DEPTH = 1000000 };
    JsonValue *value = json_array();
    for (int i = 1; i < DEPTH; i++) {
        JsonValue *outer = i % 2 ? json_object() : json_array();
        if (i % 2) {
            json_object_set(outer, "k", value);
        } else {
            json_array_append(outer, value);
        }
        value = outer;
    }
    JsonValue *copy = json_copy(value);
    g_autofree char *a = json_to_string(value);
    json_free(value);
    g_autofree char *b = json_to_string(copy);
    json_free(copy);
    g_assert_cmpstr(a, ==, b);
    g_assert_cmpuint(strlen(a), ==, 2 * DEPTH + DEPTH / 2 * strlen("\"k\": "));
}

static void test_objects(void)
{
    g_autoptr(JsonValue) o = json_object();
    json_object_set_int(o, "b", 1);
    json_object_set_string(o, "a", "x");
    json_object_set_bool(o, "c", true);
    json_object_set_uint(o, "b", UINT64_MAX); /* keeps its place */
    g_autofree char *text = json_to_string(o);
    g_assert_cmpstr(text, ==,
                    "{\"b\": 18446744073709551615, \"a\": \"x\", \"c\": true}");

    g_autoptr(JsonValue) taken = json_object_take(o, "a");
    g_assert_cmpstr(json_get_string(taken), ==, "x");
    g_assert_null(json_object_take(o, "a"));
    g_assert_null(json_object_lookup(o, "a"));
    g_assert_cmpuint(json_object_size(o), ==, 2);
    g_assert_cmpstr(json_object_key_at(o, 1), ==, "c");
}

/* An object with an index answers as one without. */
static void test_big_object(void)
{
    g_autoptr(JsonValue) o = json_object();
    for (int i = 0; i < 1000; i++) {
        g_autofree char *key = g_strdup_printf("k%d", i);
        json_object_set_int(o, key, i);
    }
    for (int i = 0; i < 1000; i += 3) {
        g_autofree char *key = g_strdup_printf("k%d", i);
        json_free(json_object_take(o, key));
    }
    json_object_set_int(o, "k1", -1);
    json_object_set_int(o, "k0", 0); /* now at the end */
    g_autoptr(JsonValue) copy = json_copy(o);
    JsonValue *const both[] = {o, copy};
    for (size_t n = 0; n < 2; n++) {
        g_assert_cmpuint(json_object_size(both[n]), ==, 667);
        g_assert_cmpstr(json_object_key_at(both[n], 666), ==, "k0");
        for (int i = 0; i < 1000; i++) {
            g_autofree char *key = g_strdup_printf("k%d", i);
            JsonValue *item = json_object_lookup(both[n], key);
            int64_t number;
            g_assert_true((item != NULL) == (i % 3 != 0 || i == 0));
            g_assert_true(!item || json_get_int(item, &number));
            g_assert_true(!item || number == (i == 1 ? -1 : i));
        }
    }
}

static void test_pretty(void)
{
    g_autoptr(JsonValue) value = json_parse("{'a':[1,{}],'b':'x','c':[]}", NULL);
    g_autofree char *text = json_to_string_pretty(value);
    g_assert_cmpstr(text, ==,
                    "{\n    \"a\": [\n        1,\n        {\n        }\n    ],\n"
                    "    \"b\": \"x\",\n    \"c\": [\n    ]\n}");
}

/* Many random texts of JSON's own letters: no crash, and split makes no difference. */
static void test_random(void)
{
    static const char letters[] = "{}[]:,'\"\\u0d8ctrue1.-e \n\xff\x80";
    for (int round = 0; round < 20000; round++) {
        char text[40];
        size_t len = (size_t)g_test_rand_int_range(1, sizeof(text));
        for (size_t i = 0; i < len; i++) {
            text[i] = letters[g_test_rand_int_range(0, sizeof(letters) - 1)];
        }
        g_autofree char *whole = feed(text, len, len);
        g_autofree char *bytes = feed(text, len, 1);
        g_assert_cmpstr(whole, ==, bytes);
    }
}

static void test_errors(void)
{
    g_autoptr(GError) a = NULL, b = NULL;
    error_set_errno(&a, -ENOENT, "Could not open '%s'", "x");
    g_assert_cmpstr(a->message, ==, "Could not open 'x': No such file or directory");
    error_set_class(&b, ERROR_CLASS_DEVICE_NOT_FOUND, "Device '%s' not found", "d");
    g_assert_cmpstr(error_class_name(b->code), ==, "DeviceNotFound");
    g_assert_cmpstr(error_class_name(a->code), ==, "GenericError");
    error_set(NULL, "nobody listens");
}

/* A file name that is no UTF-8: nothing behind its end is looked at. */
static void test_no_utf8(void)
{
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"a\xff" "b", "\"a\\uFFFDb\""},
        {"\xfb", "\"\\uFFFD\""},
        {"\xe2\x82", "\"\\uFFFD\\uFFFD\""},
        {"\xe2\x82\xac", "\"\\u20AC\""},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *exact = g_strdup(cases[i].bytes);
        g_autoptr(JsonValue) value = json_string(exact);
        g_autofree char *text = json_to_string(value);
        g_assert_cmpstr(text, ==, cases[i].text);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json/scalars", test_scalars);
    g_test_add_func("/json/numbers", test_numbers);
    g_test_add_func("/json/number-access", test_number_access);
    g_test_add_func("/json/strings", test_strings);
    g_test_add_func("/json/errors/strings", test_bad_strings);
    g_test_add_func("/json/errors/grammar", test_grammar_errors);
    g_test_add_func("/json/errors/repeat-little", test_error_repeats_little);
    g_test_add_func("/json/stream", test_stream);
    g_test_add_func("/json/resync/balanced", test_resync_balanced);
    g_test_add_func("/json/resync/newline", test_resync_newline);
    g_test_add_func("/json/resync/forced", test_resync_forced);
    g_test_add_func("/json/limits/depth", test_depth_limit);
    g_test_add_func("/json/limits/count", test_count_limit);
    g_test_add_func("/json/limits/size", test_size_limit);
    g_test_add_func("/json/no-recursion", test_no_recursion);
    g_test_add_func("/json/objects", test_objects);
    g_test_add_func("/json/big-object", test_big_object);
    g_test_add_func("/json/no-utf8", test_no_utf8);
    g_test_add_func("/json/pretty", test_pretty);
    g_test_add_func("/json/random", test_random);
    g_test_add_func("/json/error-classes", test_errors);
    return g_test_run();
}
