/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input is an image, and qemu-img is run on it: info in both forms and of the whole
 * chain, map, check, rebase -u to another name, info again. After a rebase that
 * succeeded the image opens, and shows the new name.
 */
#include <string.h>
#include <stdio.h>

#include "qdp/tool/qemu-img.h"
#include "tests/fuzz/fuzz.h"

typedef struct Run {
    MemFiles files;
    Tool tool;
} Run;

static int coroutine_fn img(Run *r, ImgCommand *command, const char *const *words)
{
    char *argv[12] = {NULL};
    int argc = 0;

    for (; words[argc]; argc++) {
        argv[argc] = g_strdup(words[argc]); /* getopt may move them */
    }
    char *copy[12];
    memcpy(copy, argv, sizeof(copy));
    argv[argc] = NULL;
    int status = command(&r->tool, argc, argv);
    for (int i = 0; i < argc; i++) {
        g_free(copy[i]);
    }
    return status;
}
#define IMG(run, command, ...) img(run, command, (const char *const[]){__VA_ARGS__, NULL})

static char *coroutine_fn backing_name(Run *r)
{
    ImageOpenOptions o = {.format = "qcow2", .no_backing = true};
    BlockNode *node = node_co_open_image(r->tool.graph, "image", &o, NULL);
    char *name = node ? g_strdup(node_header_backing_file(node)) : NULL;

    node_co_unref(node);
    return name;
}

static void coroutine_fn run(void *opaque)
{
    Run *r = opaque;

    IMG(r, img_info, "info", "image");
    IMG(r, img_info, "info", "--output=json", "--backing-chain", "image");
    IMG(r, img_info, "info", "-f", "qcow2", "image");
    IMG(r, img_map, "map", "--output=json", "-f", "qcow2", "--max-length=1048576", "image");
    IMG(r, img_check, "check", "-f", "qcow2", "image");
    if (IMG(r, img_rebase, "rebase", "-u", "-f", "qcow2", "-b", "base", "-F", "raw", "image") == 0) {
        g_autofree char *name = backing_name(r);
        fuzz_check(name && strcmp(name, "base") == 0, "the name is %s", name);
    }
    if (IMG(r, img_rebase, "rebase", "-u", "-f", "qcow2", "-b", "", "image") == 0) {
        g_autofree char *name = backing_name(r);
        fuzz_check(!name || !*name, "the name is %s", name);
    }
    IMG(r, img_info, "info", "--output=json", "image");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *null;
    FILE *out = stdout, *err = stderr;
    Run r = {.tool = {.name = "qemu-img", .loop = fuzz_loop()}};

    if (fuzz_image_is_slow(data, size)) {
        return 0;
    }
    if (!null) {
        null = fopen("/dev/null", "w");
    }
    r.tool.graph = graph_new(fuzz_loop());
    mem_files_init(&r.files, data, size, 4 << 20);
    graph_set_open_file(r.tool.graph, mem_files_open, &r.files);
    if (!g_getenv("FUZZ_VERBOSE")) { /* glibc: both can be set */
        stdout = stderr = null;
    }
    loop_run_coroutine(fuzz_loop(), run, &r);
    stdout = out;
    stderr = err;
    graph_free(r.tool.graph);
    mem_files_fini(&r.files);
    return 0;
}
