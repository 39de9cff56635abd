/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input is a file name as the tools take it: a path, "file:", "json:{...}". The files
 * there are: "image", a small qcow2 image over "base"; "base". The first byte chooses
 * the format and the mode; what opens is read, and shows a name that opens again.
 */
#include <string.h>

#include "block/base/error.h"
#include "block/node.h"
#include "qapi/qapi-visit.h"
#include "tests/fuzz/fuzz.h"

typedef struct Run {
    Graph *graph;
    const char *name;
    unsigned mode;
} Run;

static void coroutine_fn use(BlockNode *node)
{
    uint8_t bytes[512];
    BlockPort *port =
        port_co_new(node, PERM_CONSISTENT_READ, PERM_ALL, "fuzz", NULL, NULL, NULL);

    if (port) {
        if (port_length(port) >= sizeof(bytes)) {
            port_co_read(port, 0, sizeof(bytes), bytes, 0);
        }
        port_co_free(port);
    }
    qapi_free_ImageInfoSpecific(node_image_info_specific(node));
}

/* Does what opened open again by the name it shows? Read-only, for sharing. */
static void coroutine_fn open_again(Run *r, const char *name)
{
    g_autoptr(GError) error = NULL;
    ImageOpenOptions o = {.no_backing = false};
    BlockNode *node = node_co_open_image(r->graph, name, &o, &error);

    fuzz_check(!node == !!error, "either a node or an error");
    node_co_unref(node);
}

static void coroutine_fn run(void *opaque)
{
    static const char *const formats[] = {NULL, "raw", "qcow2", "file"};
    Run *r = opaque;
    g_autoptr(GError) error = NULL;
    ImageOpenOptions o = {
        .format = formats[r->mode % 4],
        .writable = r->mode & 4,
        .no_backing = r->mode & 8,
        .direct = r->mode & 16,
        .unmap = r->mode & 32,
    };
    BlockNode *node = node_co_open_image(r->graph, r->name, &o, &error);

    fuzz_check(!node == !!error, "either a node or an error");
    if (node) {
        use(node);
        g_autofree char *shown = g_strdup(node_filename(node));
        node_co_unref(node);
        open_again(r, shown);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t image[2048];
    MemFiles files;

    if (size < 1) {
        return 0;
    }
    g_autofree char *name = g_strndup((const char *)data + 1, size - 1);
    Run r = {.graph = graph_new(fuzz_loop()), .name = name, .mode = data[0]};
    mem_image_make(image);
    mem_files_init(&files, image, sizeof(image), 1 << 20);
    graph_set_open_file(r.graph, mem_files_open, &files);
    loop_run_coroutine(fuzz_loop(), run, &r);
    graph_free(r.graph);
    mem_files_fini(&files);
    return 0;
}
