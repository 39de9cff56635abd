/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The three forms of the command line and how words are cut. */
#include <glib.h>

#include "qdp/cmdline.h"

static Cmdline *parse(GError **errp, ...)
{
    char *argv[16] = {(char *)"qemu-dp"};
    int argc = 1;
    va_list args;

    va_start(args, errp);
    while ((argv[argc] = va_arg(args, char *))) {
        argc++;
    }
    va_end(args);
    return cmdline_parse(argc, argv, errp);
}

static const Option *option(const Cmdline *cmdline, guint i)
{
    return g_ptr_array_index(cmdline->options, i);
}

static void test_path_form(void)
{
    g_autoptr(Cmdline) c = parse(NULL, "/var/run/qemu-dp/qmp_sock.1", NULL);

    g_assert_cmpint(c->form, ==, FORM_PATH);
    g_assert_true(c->snapshot_moves_name);
    g_assert_cmpstr(option(c, 0)->arg, ==, "/var/run/qemu-dp/qmp_sock.1");
}

static void test_slice_form(void)
{
    g_autoptr(Cmdline) c = parse(NULL, "17", NULL);

    g_assert_cmpint(c->form, ==, FORM_SLICE);
    g_assert_true(c->snapshot_moves_name);
}

static void test_production_wrapper(void)
{
    g_autoptr(Cmdline) c =
        parse(NULL, "-machine", "xenpv", "-xen-attach", "-xen-domid", "5", "-qmp",
              "unix:/a,server,nowait", "-trace", "events=/f", NULL);

    g_assert_cmpint(c->form, ==, FORM_OPTIONS);
    g_assert_true(c->snapshot_moves_name);
    g_assert_cmpint(c->options->len, ==, 5);
    g_assert_cmpint(option(c, 3)->kind, ==, OPTION_QMP);
    g_assert_cmpstr(option(c, 3)->arg, ==, "unix:/a,server,nowait");
}

static void test_stock_options_select_stocks_rule(void)
{
    g_autoptr(Cmdline) a = parse(NULL, "--qmp", "unix:/a", NULL);
    g_autoptr(Cmdline) b = parse(NULL, "--qmp", "unix:/a", "--blockdev=null-co", NULL);
    g_autoptr(Cmdline) c =
        parse(NULL, "--monitor", "x", "--snapshot-node-name=move", NULL);
    g_autoptr(Cmdline) d = parse(NULL, "--snapshot-node-name", "stay", NULL);

    g_assert_true(a->snapshot_moves_name);
    g_assert_false(b->snapshot_moves_name);
    g_assert_true(c->snapshot_moves_name && !c->client_rules);
    g_assert_true(!d->snapshot_moves_name && d->client_rules);
}

static void assert_refused(const char *one, const char *two, const char *message)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(parse(&error, one, two, NULL));
    g_assert_cmpstr(error->message, ==, message);
}

static void test_refusals(void)
{
    assert_refused("--foo", NULL, "unrecognized option '--foo'");
    assert_refused("--foo=1", NULL, "unrecognized option '--foo=1'");
    assert_refused("foo", NULL, "foo: Unexpected argument");
    assert_refused("/a", "/b", "/a: Unexpected argument");
    assert_refused("--blockdev", NULL, "option '--blockdev' requires an argument");
    assert_refused("--daemonize=1", NULL,
                   "option '--daemonize' doesn't allow an argument");
    assert_refused("--snapshot-node-name=x", NULL,
                   "--snapshot-node-name x: expected 'move' or 'stay'");
}

static void test_flags(void)
{
    g_autoptr(JsonValue) flags =
        cmdline_parse_flags("socket,id=c,path=/a,,b,server,nowait", "backend", NULL);
    g_autofree char *text = json_to_string(flags);

    g_assert_cmpstr(text, ==,
                    "{\"backend\": \"socket\", \"id\": \"c\", \"path\": \"/a,b\", "
                    "\"server\": \"on\", \"wait\": \"off\"}");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp-cmdline/path-form", test_path_form);
    g_test_add_func("/qmp-cmdline/slice-form", test_slice_form);
    g_test_add_func("/qmp-cmdline/production-wrapper", test_production_wrapper);
    g_test_add_func("/qmp-cmdline/stock-options",
                    test_stock_options_select_stocks_rule);
    g_test_add_func("/qmp-cmdline/refusals", test_refusals);
    g_test_add_func("/qmp-cmdline/flags", test_flags);
    return g_test_run();
}
