/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-img: which subcommand, and opening images. */
#include "qdp/tool/qemu-img.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "qapi/keyval.h"

static const struct {
    const char *name;
    ImgCommand *fn;
    const char *args;
} commands[] = {
    {"check", img_check, "[-f fmt] [-r leaks|all] [-T cache] [-U] [-q] [--output=human|json] filename"},
    {"commit", img_commit, "[-f fmt] [-t cache] [-b base] [-d] [-p] [-q] filename"},
    {"compare", img_compare, "[-f fmt] [-F fmt] [-T cache] [-s] [-p] [-q] [-U] filename1 filename2"},
    {"convert", img_convert,
     "[-f fmt] [-O fmt] [-o options] [-B backing -F fmt] [-n] [-q] [-p] [-t cache] "
     "[-T cache] [-m n] [-W] [-C] [-U] [-S size] [--target-is-zero] [--target-image-opts] "
     "filename [filename2 ...] output"},
    {"create", img_create,
     "[-f fmt] [-b backing -F fmt] [-u] [-o options] [-q] filename [size]"},
    {"info", img_info, "[-f fmt] [--output=human|json] [--backing-chain] [-U] filename"},
    {"map", img_map, "[-f fmt] [-s offset] [-l length] [--output=human|json] [-U] filename"},
    {"rebase", img_rebase, "-u [-f fmt] [-b backing -F fmt] [-t cache] [-T cache] [-p] [-q] [-U] filename"},
    {"resize", img_resize, "[-f fmt] [--shrink] [-q] filename [+|-]size"},
};

/* stock's other commands */
static const char *const not_built[] = {"amend", "bench",   "bitmap",
                                        "dd",    "measure", "snapshot"};

static void img_usage(void)
{
    printf("usage: qemu-img command [command options]\n"
           "QEMU disk image utility of qemu-dp\n\nCommands:\n");
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        printf("  %s %s\n", commands[i].name, commands[i].args);
    }
    printf("\nAll but create and rebase take --image-opts: the file name is a list of options.\n"
           "create and convert: -o help lists the options of a format. Formats: qcow2 raw\n");
}

int img_usage_error(const Tool *tool, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    tool_error(tool, "%s\nTry 'qemu-img --help' for more information", text);
    return 1;
}

int img_bad_option(const Tool *tool, int c, char **argv)
{
    return img_usage_error(tool, c == ':' ? "missing argument for option '%s'"
                                          : "unrecognized option '%s'", argv[optind - 1]);
}

int img_shared_option(const Tool *tool, ImgArgs *args, int c)
{
    switch (c) {
    case 'f':
        args->open.format = optarg;
        return 1;
    case 'U':
        args->open.force_share = true;
        return 1;
    case OPT_OUTPUT:
        args->json = strcmp(optarg, "json") == 0;
        if (!args->json && strcmp(optarg, "human") != 0) {
            tool_error(tool, "--output must be used with human or json as argument.");
            return -1;
        }
        return 1;
    case OPT_IMAGE_OPTS:
        args->image_opts = true;
        return 1;
    case OPT_OBJECT:
        tool_refuse_object(tool, optarg);
        return -1;
    default:
        return 0;
    }
}

bool coroutine_fn image_co_open(Tool *tool, Image *image, const char *filename,
                                const ImageOpenOptions *options, bool image_opts)
{
    GError *error = NULL;
    g_autofree char *name = g_strdup(filename);

    *image = (Image){NULL, NULL};
    if (image_opts && options->format) {
        tool_error(tool, "--image-opts and --format are mutually exclusive");
        return false;
    }
    if (image_opts) {
        g_autoptr(JsonValue) opts = keyval_parse(filename, "file", NULL, &error);
        if (opts) {
            g_autofree char *text = json_to_string(opts);
            g_free(name);
            name = g_strconcat("json:", text, NULL);
        }
    }
    if (!error) {
        image->node = node_co_open_image(tool->graph, name, options, &error);
    }
    if (image->node && options->writable) {
        tool_warn_guessed_raw(image->node, node_filename(image->node));
    }
    if (image->node) {
        unsigned perm = PERM_CONSISTENT_READ |
                        (options->writable ? PERM_WRITE | PERM_RESIZE : 0);
        image->port = port_co_new(image->node, perm, PERM_ALL, "", NULL, NULL, &error);
    }
    if (!image->port) {
        tool_error(tool, "Could not open '%s': %s", filename, error->message);
        g_error_free(error);
        node_co_unref(image->node);
        image->node = NULL;
        return false;
    }
    return true;
}

void coroutine_fn image_co_close(Image *image)
{
    port_co_free(image->port);
    node_co_unref(image->node);
    *image = (Image){NULL, NULL};
}

static int coroutine_fn main_entry(Tool *tool)
{
    if (tool->argc < 2) {
        tool_error(tool, "Not enough arguments\nTry 'qemu-img --help' for more information");
        return 1;
    }
    const char *name = tool->argv[1];
    for (int i = 1; i < tool->argc && strcmp(tool->argv[i], "--") != 0; i++) {
        if (strcmp(tool->argv[i], "--help") == 0 || strcmp(tool->argv[i], "-h") == 0) {
            img_usage();
            return 0;
        }
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        printf("qemu-img version 7.2.0 (qemu-dp %s)\n", QDP_VERSION);
        return 0;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return commands[i].fn(tool, tool->argc - 1, tool->argv + 1);
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(not_built); i++) {
        if (strcmp(not_built[i], name) == 0) {
            tool_error(tool, "The command '%s' is not supported yet", name);
            return 1;
        }
    }
    if (name[0] == '-') {
        return img_usage_error(tool, "unrecognized option '%s'", name);
    }
    tool_error(tool, "Command not found: %s\nTry 'qemu-img --help' for more information",
               name);
    return 1;
}

int main(int argc, char **argv)
{
    return tool_run("qemu-img", argc, argv, main_entry);
}
