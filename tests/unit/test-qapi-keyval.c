/* SPDX-License-Identifier: GPL-2.0-or-later */
/* key=value,... to JSON, and sizes. */
#include <glib.h>

#include "qapi/keyval.h"

static void assert_parsed(const char *text, const char *implied, const char *json)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonValue) value = keyval_parse(text, implied, NULL, &error);
    g_autofree char *out = NULL;

    g_assert_no_error(error);
    out = json_to_string(value);
    g_assert_cmpstr(out, ==, json);
}

static void assert_refused(const char *text, const char *implied, const char *message)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(keyval_parse(text, implied, NULL, &error));
    g_assert_cmpstr(error->message, ==, message);
}

static void test_nesting(void)
{
    assert_parsed("", NULL, "{}");
    assert_parsed("a=1,b.c=2,b.d.e=3", NULL,
                  "{\"a\": \"1\", \"b\": {\"c\": \"2\", \"d\": {\"e\": \"3\"}}}");
    assert_parsed("a=1,a=2", NULL, "{\"a\": \"2\"}");
    assert_parsed("f=/x,,y=z,g=", NULL, "{\"f\": \"/x,y=z\", \"g\": \"\"}");
    assert_parsed("raw,x=1", "driver", "{\"driver\": \"raw\", \"x\": \"1\"}");
    assert_parsed("l.1=b,l.0=a", NULL, "{\"l\": [\"a\", \"b\"]}");
    assert_parsed("{\"a\": 1}", "driver", "{\"a\": 1}");
    assert_parsed("json:{\"a\": 1}", NULL, "{\"a\": 1}");
}

static void test_refusals(void)
{
    assert_refused("a=b,a.c=d", NULL, "Parameters 'a.*' used inconsistently");
    assert_refused("a.c=d,a=b", NULL, "Parameters 'a.*' used inconsistently");
    assert_refused("foo", NULL, "Expected '=' after parameter 'foo'");
    assert_refused("=x", NULL, "Invalid parameter ''");
    assert_refused("0=10", NULL, "Invalid parameter '0'");
    assert_refused("a=b,0.a=10", NULL, "Invalid parameter '0.a'");
    assert_refused(".b=a", NULL, "Invalid parameter '.b'");
    assert_refused("l.1=b", NULL, "Parameter 'l.0' missing");
}

static void test_help(void)
{
    bool help = false;
    g_autoptr(JsonValue) value = keyval_parse("help", "driver", &help, NULL);

    g_assert_nonnull(value);
    g_assert_true(help);
    g_assert_cmpuint(json_object_size(value), ==, 0);
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        uint64_t size;
    } good[] = {
        {"0", 0},
        {"512", 512},
        {"1k", 1024},
        {"1.5K", 1536},
        {"64M", 64 << 20},
        {"2G", UINT64_C(2) << 30},
        {"1T", UINT64_C(1) << 40},
        {"7E", UINT64_C(7) << 60},
        {"5b", 5},
        {"18446744073709551615", UINT64_MAX},
    };
    static const char *const bad[] = {
        "",   "-1",  "k",   "1kk",  "1.5",
        "1x", "16E", " 1 ", "0x10", "18446744073709551616"};
    uint64_t size;

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_assert_true(keyval_parse_size(good[i].text, &size, NULL));
        g_assert_cmpuint(size, ==, good[i].size);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(keyval_parse_size(bad[i], &size, &error));
        g_assert_nonnull(error);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qapi-keyval/nesting", test_nesting);
    g_test_add_func("/qapi-keyval/refusals", test_refusals);
    g_test_add_func("/qapi-keyval/help", test_help);
    g_test_add_func("/qapi-keyval/sizes", test_sizes);
    return g_test_run();
}
