/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cut the command line to options. Long options may have one or two dashes (-qmp,
 * --qmp) and their argument behind "=" or as the next word. compat: the storage
 * daemon's texts.
 */
#include <stdio.h>
#include <string.h>

#include "block/base/ablate.h"
#include "block/base/error.h"
#include "qdp/cmdline.h"

typedef struct OptionSpec {
    char name[20];
    uint8_t kind;
    bool has_arg;
    bool is_storage_daemon; /* its use selects stock's rule for node names */
} OptionSpec;

static const OptionSpec specs[] = {
    {"ablate", OPTION_ABLATE, true, false},
    {"blockdev", OPTION_BLOCKDEV, true, true},
    {"chardev", OPTION_CHARDEV, true, true},
    {"chroot", OPTION_CHROOT, true, false},
    {"daemonize", OPTION_DAEMONIZE, false, false},
    {"export", OPTION_EXPORT, true, true},
    {"group", OPTION_GROUP, true, false},
    {"help", OPTION_HELP, false, false},
    {"machine", OPTION_MACHINE, true, false},
    {"monitor", OPTION_MONITOR, true, true},
    {"nbd-server", OPTION_NBD_SERVER, true, true},
    {"object", OPTION_OBJECT, true, false},
    {"pidfile", OPTION_PIDFILE, true, false},
    {"qmp", OPTION_QMP, true, false},
    {"sandbox", OPTION_SANDBOX, true, false},
    {"snapshot-node-name", OPTION_SNAPSHOT_NODE_NAME, true, false},
    {"trace", OPTION_TRACE, true, false},
    {"user", OPTION_USER, true, false},
    {"version", OPTION_VERSION, false, false},
    {"xen-attach", OPTION_XEN_ATTACH, false, false},
    {"xen-domid", OPTION_XEN_DOMID, true, false},
};

static const OptionSpec *find_spec(const char *name, size_t len)
{
    static const OptionSpec help = {"h", OPTION_HELP, false, false};
    static const OptionSpec version = {"V", OPTION_VERSION, false, false};
    static const OptionSpec trace = {"T", OPTION_TRACE, true, false};
    static const OptionSpec *const shorts[] = {&help, &version, &trace};

    for (size_t i = 0; i < G_N_ELEMENTS(specs); i++) {
        if (strlen(specs[i].name) == len && !memcmp(specs[i].name, name, len)) {
            return &specs[i];
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(shorts); i++) {
        if (len == 1 && shorts[i]->name[0] == name[0]) {
            return shorts[i];
        }
    }
    return NULL;
}

static void option_free(gpointer data)
{
    Option *option = data;

    g_free(option->word);
    g_free(option->arg);
    g_free(option);
}

void cmdline_free(Cmdline *cmdline)
{
    if (cmdline) {
        g_ptr_array_free(cmdline->options, TRUE);
        g_free(cmdline);
    }
}

/* The option at argv[*i], which moves on over its argument. */
static bool parse_option(Cmdline *cmdline, int argc, char **argv, int *i,
                         bool *ret_stock, GError **errp)
{
    const char *word = argv[*i];
    const char *name = word + (word[1] == '-' ? 2 : 1);
    size_t len = strcspn(name, "=");
    const OptionSpec *spec = find_spec(name, len);
    Option *option;

    if (!spec) {
        error_set(errp, "unrecognized option '%s'", word);
        return false;
    }
    if (spec->has_arg && !name[len] && *i + 1 >= argc) {
        error_set(errp, "option '%s' requires an argument", word);
        return false;
    }
    if (!spec->has_arg && name[len]) {
        error_set(errp, "option '%.*s' doesn't allow an argument",
                  (int)(name - word + len), word);
        return false;
    }
    option = g_new0(Option, 1);
    option->kind = (OptionKind)spec->kind;
    option->word = g_strndup(word, (size_t)(name - word) + len);
    if (spec->has_arg) {
        option->arg = g_strdup(name[len] ? name + len + 1 : argv[++*i]);
    }
    *ret_stock |= spec->is_storage_daemon;
    g_ptr_array_add(cmdline->options, option);
    return true;
}

/* "on", "off"; "on,try=CALL" is for tests. */
static bool parse_sandbox(Walls *walls, const Option *option, GError **errp)
{
    static const char try_word[] = "on,try=";
    bool try = g_str_has_prefix(option->arg, try_word);

    if (!try && strcmp(option->arg, "on") && strcmp(option->arg, "off")) {
        error_set(errp, "%s %s: expected 'on' or 'off'", option->word, option->arg);
        return false;
    }
    walls->sandbox = strcmp(option->arg, "off") != 0;
    walls->try_call = try ? option->arg + strlen(try_word) : NULL;
    return true;
}

/* What holds for the whole program, wherever it stands. */
static bool take_globals(Cmdline *cmdline, GError **errp)
{
    for (guint i = 0; i < cmdline->options->len; i++) {
        const Option *option = g_ptr_array_index(cmdline->options, i);
        if (option->kind == OPTION_DAEMONIZE) {
            cmdline->daemonize = true;
        } else if (option->kind == OPTION_PIDFILE) {
            cmdline->pidfile = option->arg;
        } else if (option->kind == OPTION_CHROOT) {
            cmdline->walls.chroot = option->arg;
        } else if (option->kind == OPTION_USER) {
            cmdline->walls.user = option->arg;
        } else if (option->kind == OPTION_GROUP) {
            cmdline->walls.group = option->arg;
        } else if (option->kind == OPTION_ABLATE) {
            if (strcmp(option->arg, "help") && !ablate_set(option->arg, errp)) {
                g_prefix_error(errp, "%s %s: ", option->word, option->arg);
                return false;
            }
        } else if (option->kind == OPTION_SANDBOX) {
            if (!parse_sandbox(&cmdline->walls, option, errp)) {
                return false;
            }
        } else if (option->kind == OPTION_SNAPSHOT_NODE_NAME) {
            if (strcmp(option->arg, "move") && strcmp(option->arg, "stay")) {
                error_set(errp, "%s %s: expected 'move' or 'stay'", option->word,
                          option->arg);
                return false;
            }
            cmdline->snapshot_moves_name = !strcmp(option->arg, "move");
        }
    }
    return true;
}

static bool slice_ok(const char *text)
{
    return text[0] && strspn(text, "0123456789") == strlen(text);
}

/* The forms of one word. */
static bool parse_word(Cmdline *cmdline, const char *word, OptionKind kind)
{
    Option *option = g_new0(Option, 1);

    option->kind = kind;
    option->word = g_strdup(word);
    option->arg = g_strdup(word);
    g_ptr_array_add(cmdline->options, option);
    cmdline->form = strchr(word, '/') ? FORM_PATH : FORM_SLICE;
    cmdline->client_rules = cmdline->snapshot_moves_name = true;
    return true;
}

Cmdline *cmdline_parse(int argc, char **argv, GError **errp)
{
    g_autoptr(Cmdline) cmdline = g_new0(Cmdline, 1);
    const Option *option;
    bool stock = false;

    cmdline->options = g_ptr_array_new_with_free_func(option_free);
    if (argc == 2 && argv[1][0] != '-' && (strchr(argv[1], '/') || slice_ok(argv[1]))) {
        parse_word(cmdline, argv[1], OPTION_QMP);
        return g_steal_pointer(&cmdline);
    }
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' || !argv[i][1]) {
            error_set(errp, "%s: Unexpected argument", argv[i]);
            return NULL;
        }
        if (!parse_option(cmdline, argc, argv, &i, &stock, errp)) {
            return NULL;
        }
        option = g_ptr_array_index(cmdline->options, cmdline->options->len - 1);
        if (option->kind == OPTION_HELP || option->kind == OPTION_VERSION) {
            break; /* compat: answered at once, whatever comes behind */
        }
    }
    cmdline->client_rules = cmdline->snapshot_moves_name = !stock;
    return take_globals(cmdline, errp) ? g_steal_pointer(&cmdline) : NULL;
}

/* ---- flags: key=value lists with bare words ---- */

static bool put_flag(JsonValue *object, const char *word, const char *implied_key,
                     GError **errp)
{
    if (implied_key) {
        json_object_set_string(object, implied_key, word);
    } else if (!word[0]) {
        error_set(errp, "Invalid parameter ''");
        return false;
    } else if (g_str_has_prefix(word, "no") && word[2]) {
        json_object_set_string(object, word + 2, "off");
    } else {
        json_object_set_string(object, word, "on");
    }
    return true;
}

JsonValue *cmdline_parse_flags(const char *text, const char *implied_key, GError **errp)
{
    g_autoptr(JsonValue) object = json_object();
    GString *part = g_string_new(NULL);
    bool ok = true;

    while (ok && *text) {
        g_string_truncate(part, 0);
        while (*text && !(text[0] == ',' && text[1] != ',')) {
            text += text[0] == ',';
            g_string_append_c(part, *text++);
        }
        text += *text == ',';
        char *eq = strchr(part->str, '=');
        if (eq) {
            *eq = '\0';
            json_object_set_string(object, part->str, eq + 1);
        } else {
            ok = put_flag(object, part->str, implied_key, errp);
        }
        implied_key = NULL;
    }
    g_string_free(part, TRUE);
    return ok ? g_steal_pointer(&object) : NULL;
}
