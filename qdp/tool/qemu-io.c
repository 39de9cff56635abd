/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-io: options, the command loop, opening and closing. */
#include "qdp/tool/qemu-io.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qapi/keyval.h"

typedef struct IoOptions {
    ImageOpenOptions open;
    GPtrArray *commands;
    JsonValue *extra;
    bool image_opts;
    bool writethrough;
    const char *shown; /* in errors instead of a list of options; NULL: nothing */
} Options;

static int coroutine_fn cmd_open(Io *io, int argc, char **argv);
static int coroutine_fn cmd_close(Io *io, int argc, char **argv);

static const IoCommand file_commands[] = {
    {"open", "o", 1, -1, "[-rsnU] [-t cache] [-o options] [path]", "open a file", cmd_open},
    {"close", "c", 0, 0, NULL, "close the open file", cmd_close},
    {.name = NULL},
};

static void usage(void)
{
    printf("Usage: qemu-io [OPTIONS]... [-c STRING]... [file]\n"
           "QEMU disk image exerciser of qemu-dp\n\n"
           "  -c, --cmd STRING     execute this command (repeatable)\n"
           "  -f, --format FMT     the image's format (default: probe)\n"
           "  -r, --read-only      open read-only\n"
           "  -n, --nocache        cache mode none\n"
           "  -t, --cache MODE     cache mode\n"
           "  -d, --discard MODE   unmap or ignore\n"
           "  -i, --aio MODE       threads, native or io_uring\n"
           "  -U, --force-share    share everything\n"
           "      --image-opts     the file is a list of options\n"
           "  -k                   the same as -i native\n"
           "  -m, -T               accepted and ignored\n");
}

/* ---- commands ---- */

static const IoCommand *find_command(const char *name)
{
    const IoCommand *tables[] = {io_data_commands, io_info_commands, file_commands};
    for (int t = 0; t < 3; t++) {
        for (const IoCommand *c = tables[t]; c->name; c++) {
            if (strcmp(c->name, name) == 0 || (c->alias && strcmp(c->alias, name) == 0)) {
                return c;
            }
        }
    }
    return NULL;
}

static void help_all(void)
{
    const IoCommand *tables[] = {io_data_commands, io_info_commands, file_commands};
    for (int t = 0; t < 3; t++) {
        for (const IoCommand *c = tables[t]; c->name; c++) {
            printf("%s %s -- %s\n", c->name, c->args ? c->args : "", c->help);
        }
    }
    printf("quit -- exit the program\nhelp -- this list\n");
}

static int coroutine_fn run_words(Io *io, int argc, char **argv)
{
    if (argc == 0) {
        return 0;
    }
    if (strcmp(argv[0], "quit") == 0 || strcmp(argv[0], "q") == 0) {
        io->quit = true;
        return 0;
    }
    if (strcmp(argv[0], "help") == 0 || strcmp(argv[0], "?") == 0) {
        help_all();
        return 0;
    }
    const IoCommand *c = find_command(argv[0]);
    if (!c) {
        fprintf(stderr, "command \"%s\" not found\n", argv[0]);
        return -1;
    }
    if (!io->port && strcmp(c->name, "open") != 0 && strcmp(c->name, "sleep") != 0) {
        fprintf(stderr, "no file open, try 'help open'\n");
        return -1;
    }
    if (argc - 1 < c->min_args || (c->max_args >= 0 && argc - 1 > c->max_args)) {
        if (c->max_args == -1) {
            fprintf(stderr, "bad argument count %d to %s, expected at least %d arguments\n",
                    argc - 1, argv[0], c->min_args);
        } else if (c->min_args == c->max_args) {
            fprintf(stderr, "bad argument count %d to %s, expected %d arguments\n", argc - 1,
                    argv[0], c->min_args);
        } else {
            fprintf(stderr,
                    "bad argument count %d to %s, expected between %d and %d arguments\n",
                    argc - 1, argv[0], c->min_args, c->max_args);
        }
        return -1;
    }
    return c->fn(io, argc, argv);
}

static int coroutine_fn run_command(Io *io, char *line)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    char *save = NULL;

    for (char *word = strtok_r(line, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        g_ptr_array_add(words, word);
    }
    return run_words(io, (int)words->len, (char **)words->pdata);
}

static int coroutine_fn command_loop(Io *io, const Options *o)
{
    int status = 0;
    if (o->commands->len) {
        for (guint i = 0; i < o->commands->len && !io->quit; i++) {
            g_autofree char *line = g_strdup(o->commands->pdata[i]);
            status |= run_command(io, line) < 0;
            fflush(stdout);
        }
        return status;
    }
    char *line = NULL;
    size_t room = 0;
    for (;;) {
        fputs(io->quit ? "" : "qemu-io> ", stdout);
        fflush(stdout);
        if (io->quit || getline(&line, &room, stdin) <= 0) {
            break;
        }
        g_strchomp(line);
        status |= run_command(io, line) < 0;
        fflush(stdout);
    }
    free(line);
    return status;
}

/* ---- open and close ---- */

static bool coroutine_fn open_image(Io *io, const char *filename, const Options *o)
{
    GError *error = NULL;
    if (o->image_opts) {
        g_autoptr(JsonValue) opts = keyval_parse(filename, "file", NULL, &error);
        if (opts) {
            g_autofree char *text = json_to_string(opts);
            g_autofree char *name = g_strconcat("json:", text, NULL);
            io->node = node_co_open_image(io->tool->graph, name, &o->open, &error);
        }
    } else {
        io->node = node_co_open_image(io->tool->graph, filename, &o->open, &error);
    }
    if (!io->node) {
        const char *shown = o->image_opts ? o->shown : filename;
        tool_error(io->tool, "can't open%s%s: %s", shown ? " device " : "", shown ? shown : "",
                   error->message);
        g_error_free(error);
        return false;
    }
    if (o->open.writable) {
        tool_warn_guessed_raw(io->node, node_filename(io->node));
    }
    unsigned perm = PERM_CONSISTENT_READ | (o->open.writable ? PERM_WRITE | PERM_RESIZE : 0);
    io->port = port_co_new(io->node, perm, PERM_ALL, "", NULL, NULL, &error);
    if (!io->port) {
        tool_error_free(io->tool, error);
        node_co_unref(io->node);
        io->node = NULL;
        return false;
    }
    io->writable = o->open.writable;
    io->writethrough = o->writethrough;
    return true;
}

static bool coroutine_fn close_image(Io *io)
{
    while (io->nb_aio) {
        co_queue_wait(&io->aio_done);
    }
    bool ok = true;
    if (io->writable) {
        int ret = port_co_flush(io->port);
        if (ret < 0) {
            tool_error(io->tool, "flush failed: %s", strerror(-ret));
            ok = false;
        }
    }
    port_co_free(io->port);
    node_co_unref(io->node);
    io->port = NULL;
    io->node = NULL;
    return ok;
}

static int coroutine_fn cmd_close(Io *io, int argc, char **argv)
{
    return close_image(io) ? 0 : -1;
}

/* "driver=x,key=value" and a path as one list of options. */
static char *with_path(const char *options, const char *path)
{
    if (!path) {
        return g_strdup(options);
    }
    g_auto(GStrv) parts = g_strsplit(path, ",", -1);
    g_autofree char *escaped = g_strjoinv(",,", parts);
    return g_strconcat(options, ",file.filename=", escaped, NULL);
}

static int coroutine_fn cmd_open(Io *io, int argc, char **argv)
{
    Options o = {.open = {.writable = true, .unmap = true}};
    const char *list = NULL;
    int c;

    optind = 0;
    while ((c = getopt(argc, argv, "snCro:ki:t:d:U")) != -1) {
        switch (c) {
        case 'n':
            o.open.direct = true;
            break;
        case 'r':
            o.open.writable = false;
            break;
        case 'U':
            o.open.force_share = true;
            break;
        case 'o':
            list = optarg;
            break;
        case 't':
            if (!tool_parse_cache(optarg, &o.open, &o.writethrough)) {
                tool_error(io->tool, "Invalid cache option: %s", optarg);
                return -1;
            }
            break;
        case '?':
            printf("%s %s -- %s\n", argv[0], file_commands[0].args, file_commands[0].help);
            return -1;
        default:
            tool_error(io->tool, "option -%c is not supported yet", c);
            return -1;
        }
    }
    if (argc - optind > 1 || (optind == argc && !list)) {
        printf("%s %s -- %s\n", argv[0], file_commands[0].args, file_commands[0].help);
        return -1;
    }
    if (io->port) {
        tool_error(io->tool, "file open already, try 'help close'");
        return -1;
    }
    o.image_opts = list != NULL;
    o.shown = argv[optind];
    g_autofree char *name = list ? with_path(list, argv[optind]) : g_strdup(argv[optind]);
    return open_image(io, name, &o) ? 0 : -1;
}

enum { OPT_IMAGE_OPTS = 256, OPT_OBJECT };

static const struct option long_options[] = {
    {"help", no_argument, NULL, 'h'},        {"version", no_argument, NULL, 'V'},
    {"cmd", required_argument, NULL, 'c'},   {"format", required_argument, NULL, 'f'},
    {"read-only", no_argument, NULL, 'r'},   {"snapshot", no_argument, NULL, 's'},
    {"nocache", no_argument, NULL, 'n'},     {"copy-on-read", no_argument, NULL, 'C'},
    {"misalign", no_argument, NULL, 'm'},    {"native-aio", no_argument, NULL, 'k'},
    {"aio", required_argument, NULL, 'i'},   {"discard", required_argument, NULL, 'd'},
    {"cache", required_argument, NULL, 't'}, {"trace", required_argument, NULL, 'T'},
    {"force-share", no_argument, NULL, 'U'}, {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
    {"object", required_argument, NULL, OPT_OBJECT}, {NULL, 0, NULL, 0}};

/* -1: go on; else the exit status. */
static int parse_options(Tool *tool, Options *o)
{
    int c;
    optind = 1;
    o->open.writable = true;
    o->open.unmap = true; /* compat: discards are let through unless told otherwise */
    while ((c = getopt_long(tool->argc, tool->argv, "hVc:rsnCmki:d:t:T:Uf:", long_options,
                            NULL)) != -1) {
        switch (c) {
        case 'c':
            g_ptr_array_add(o->commands, optarg);
            break;
        case 'f':
            o->open.format = optarg;
            break;
        case 'r':
            o->open.writable = false;
            break;
        case 'n':
            o->open.direct = true;
            break;
        case 't':
            if (!tool_parse_cache(optarg, &o->open, &o->writethrough)) {
                tool_error(tool, "Invalid cache option: %s", optarg);
                return 1;
            }
            break;
        case 'd':
            if (strcmp(optarg, "unmap") != 0 && strcmp(optarg, "on") != 0 &&
                strcmp(optarg, "ignore") != 0 && strcmp(optarg, "off") != 0) {
                tool_error(tool, "Invalid discard option: %s", optarg);
                return 1;
            }
            o->open.unmap = optarg[0] == 'u' || strcmp(optarg, "on") == 0;
            break;
        case 'i':
            o->open.aio = optarg;
            break;
        case 'k':
            o->open.aio = "native";
            break;
        case 'U':
            o->open.force_share = true;
            break;
        case OPT_IMAGE_OPTS:
            o->image_opts = true;
            break;
        case 'V':
            printf("qemu-io version 7.2.0 (qemu-dp %s)\n", QDP_VERSION);
            return 0;
        case 'h':
            usage();
            return 0;
        case 's': /* refused: to ignore it would write to the image */
        case 'C':
            tool_error(tool, "option -%c is not supported yet", c);
            return 1;
        case 'm':
        case 'T':
            break;
        case OPT_OBJECT:
            tool_refuse_object(tool, optarg);
            return 1;
        default:
            usage();
            return 1;
        }
    }
    return -1;
}

static int coroutine_fn io_main(Tool *tool)
{
    g_autoptr(GPtrArray) commands = g_ptr_array_new();
    Options o = {.commands = commands};
    Io io = {.tool = tool};
    int status = parse_options(tool, &o);

    if (status >= 0) {
        return status;
    }
    if (optind < tool->argc - 1) {
        usage();
        return 1;
    }
    co_queue_init(&io.aio_done, tool->loop);
    if (optind < tool->argc && !open_image(&io, tool->argv[optind], &o)) {
        return 1;
    }
    status = command_loop(&io, &o);
    return !io.port || close_image(&io) ? status : 1;
}

int main(int argc, char **argv)
{
    return tool_run("qemu-io", argc, argv, io_main);
}
