/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The visitors: what they accept, what they refuse and in which words. */
#include <glib.h>

#include "qapi/qapi-visit.h"

static BlockdevOptions *read_options(const char *text, bool keyval, GError **errp)
{
    g_autoptr(JsonValue) json = json_parse(text, NULL);

    g_assert_nonnull(json);
    return keyval ? qapi_BlockdevOptions_from_keyval(json, NULL, errp)
                  : qapi_BlockdevOptions_from_json(json, NULL, errp);
}

static void assert_refused(const char *text, bool keyval, const char *message)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlockdevOptions) options = read_options(text, keyval, &error);

    g_assert_null(options);
    g_assert_cmpstr(error->message, ==, message);
}

static void test_fills_all_kinds(void)
{
    g_autoptr(BlockdevOptions) o = read_options(
        "{'driver':'qcow2','node-name':'n','cache':{'direct':true},'discard':'unmap',"
        "'file':{'driver':'file','filename':'/f','aio':'native'},'backing':null,"
        "'l2-cache-size':1048576,'overlap-check':{'template':'all','main-header':false}"
        ","
        "'data-file':'d'}",
        false, NULL);

    g_assert_cmpint(o->driver, ==, BLOCKDEV_DRIVER_QCOW2);
    g_assert_cmpstr(o->node_name, ==, "n");
    g_assert_true(o->cache->has_direct && o->cache->direct && !o->cache->has_no_flush);
    g_assert_true(o->has_discard && o->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP);
    g_assert_false(o->has_read_only);
    const BlockdevOptionsQcow2 *q = &o->u.qcow2;
    g_assert_cmpint(q->file->type, ==, JSON_OBJECT);
    g_assert_cmpstr(q->file->u.definition->u.file.filename, ==, "/f");
    g_assert_cmpint(q->file->u.definition->u.file.aio, ==, BLOCKDEV_AIO_OPTIONS_NATIVE);
    g_assert_cmpint(q->backing->type, ==, JSON_NULL);
    g_assert_cmpint(q->l2_cache_size, ==, 1048576);
    const Qcow2OverlapCheckFlags *flags = q->overlap_check->u.flags;
    g_assert_true(flags->has_main_header && !flags->main_header);
    g_assert_true(flags->has_template &&
                  flags->template == QCOW2_OVERLAP_CHECK_MODE_ALL);
    g_assert_cmpstr(q->data_file->u.reference, ==, "d");
    g_assert_null(q->encrypt);
}

static void test_refuses_in_stocks_words(void)
{
    static const char *const cases[][2] = {
        {"{}", "Parameter 'driver' is missing"},
        {"{'driver':'xxx'}", "Parameter 'driver' does not accept value 'xxx'"},
        {"{'driver':3}", "Invalid parameter type for 'driver', expected: string"},
        {"{'driver':'file','filename':'f','foo':1}", "Parameter 'foo' is unexpected"},
        {"{'driver':'raw','file':{'driver':'file'}}",
         "Parameter 'file.filename' is missing"},
        {"{'driver':'raw','file':{'driver':'null-co','z':1}}",
         "Parameter 'file.z' is unexpected"},
        {"{'driver':'raw','file':3}",
         "Invalid parameter type for 'file', expected: BlockdevRef"},
        {"{'driver':'raw','file':null}",
         "Invalid parameter type for 'file', expected: BlockdevRef"},
        {"{'driver':'null-co','size':'x'}",
         "Invalid parameter type for 'size', expected: integer"},
        {"{'driver':'null-co','size':1.5}",
         "Invalid parameter type for 'size', expected: integer"},
        {"{'driver':'null-co','size':9223372036854775808}",
         "Invalid parameter type for 'size', expected: integer"},
        {"{'driver':'null-co','latency-ns':-1}",
         "Parameter 'latency-ns' expects uint64_t"},
        {"{'driver':'null-co','read-only':'on'}",
         "Invalid parameter type for 'read-only', expected: boolean"},
        {"{'driver':'null-co','cache':{'direct':3}}",
         "Invalid parameter type for 'cache.direct', expected: boolean"},
        {"{'driver':'qcow2','file':'x','overlap-check':{'template':'foo'}}",
         "Parameter 'template' does not accept value 'foo'"},
        {"{'driver':'qcow2','file':'x','lazy-refcounts':true,'offset':1}",
         "Parameter 'offset' is unexpected"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        assert_refused(cases[i][0], false, cases[i][1]);
    }
}

static void test_keyval_mode(void)
{
    g_autoptr(BlockdevOptions) o = read_options(
        "{'driver':'qcow2','read-only':'on','cache':{'direct':'off'},'file':'x',"
        "'l2-cache-size':'1M','cache-clean-interval':'0x10','overlap-check':'all'}",
        true, NULL);

    g_assert_true(o->read_only && !o->cache->direct && o->cache->has_direct);
    g_assert_cmpint(o->u.qcow2.l2_cache_size, ==, 1 << 20);
    g_assert_cmpint(o->u.qcow2.cache_clean_interval, ==, 16);
    g_assert_cmpint(o->u.qcow2.overlap_check->u.mode, ==, QCOW2_OVERLAP_CHECK_MODE_ALL);

    assert_refused("{'driver':'null-co','read-only':'maybe'}", true,
                   "Parameter 'read-only' expects 'on' or 'off'");
    assert_refused("{'driver':'null-co','size':'x'}", true,
                   "Parameter 'size' expects integer");
    assert_refused("{'driver':'null-co','latency-ns':'-1'}", true,
                   "Parameter 'latency-ns' expects integer");
}

static void test_round_trip(void)
{
    const char *text = "{\"driver\": \"raw\", \"node-name\": \"r\", \"file\": "
                       "{\"driver\": \"null-co\", \"size\": 512}, \"offset\": 512}";
    g_autoptr(BlockdevOptions) o = read_options(text, false, NULL);
    g_autoptr(BlockdevOptions) copy = qapi_BlockdevOptions_copy(o);
    g_autoptr(JsonValue) json = qapi_BlockdevOptions_to_json(copy);
    g_autofree char *out = json_to_string(json);

    g_assert_cmpstr(out, ==, text);
}

static void test_lists(void)
{
    g_autoptr(JsonValue) json = json_parse("{'enable':['oob','oob']}", NULL);
    g_autoptr(JsonValue) bad = json_parse("{'enable':['oob','x']}", NULL);
    g_autoptr(JsonValue) not_list = json_parse("{'enable':'oob'}", NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpCapabilitiesArgs) args =
        qapi_QmpCapabilitiesArgs_from_json(json, NULL, NULL);

    g_assert_cmpint(args->enable->value, ==, QMP_CAPABILITY_OOB);
    g_assert_nonnull(args->enable->next);
    g_assert_null(args->enable->next->next);
    g_assert_null(qapi_QmpCapabilitiesArgs_from_json(bad, NULL, &error));
    g_assert_cmpstr(error->message, ==, "Parameter 'enable' does not accept value 'x'");
    g_clear_error(&error);
    g_assert_null(qapi_QmpCapabilitiesArgs_from_json(not_list, NULL, &error));
    g_assert_cmpstr(error->message, ==,
                    "Invalid parameter type for 'enable', expected: array");
}

static void test_depth_is_limited(void)
{
    g_autoptr(JsonValue) json = json_parse("{'driver':'null-co'}", NULL);
    g_autoptr(GError) error = NULL;

    for (int i = 0; i < 300; i++) {
        JsonValue *outer = json_object();
        json_object_set_string(outer, "driver", "raw");
        json_object_set(outer, "file", g_steal_pointer(&json));
        json = outer;
    }
    g_assert_null(qapi_BlockdevOptions_from_json(json, NULL, &error));
    g_assert_true(g_str_has_suffix(error->message, "is nested too deeply"));
}

static void test_enums(void)
{
    BlockdevDriver driver = BLOCKDEV_DRIVER__MAX;

    g_assert_cmpstr(BlockdevDriver_str(BLOCKDEV_DRIVER_NULL_CO), ==, "null-co");
    g_assert_null(BlockdevDriver_str(BLOCKDEV_DRIVER__MAX));
    g_assert_true(BlockdevDriver_parse("host_device", &driver));
    g_assert_cmpint(driver, ==, BLOCKDEV_DRIVER_HOST_DEVICE);
    g_assert_false(BlockdevDriver_parse("HOST_DEVICE", &driver));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qapi-visit/fills-all-kinds", test_fills_all_kinds);
    g_test_add_func("/qapi-visit/refuses-in-stocks-words",
                    test_refuses_in_stocks_words);
    g_test_add_func("/qapi-visit/keyval-mode", test_keyval_mode);
    g_test_add_func("/qapi-visit/round-trip", test_round_trip);
    g_test_add_func("/qapi-visit/lists", test_lists);
    g_test_add_func("/qapi-visit/depth-is-limited", test_depth_is_limited);
    g_test_add_func("/qapi-visit/enums", test_enums);
    return g_test_run();
}
