/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input is an image of unknown format, then (its last 512 bytes) what a guest writes
 * into the first sector. After that write probing must say what it said before
 * (CVE-2008-2004): a guest cannot turn its raw disk into something else.
 */
#include <errno.h>
#include <string.h>

#include "block/node.h"
#include "tests/fuzz/fuzz.h"

typedef struct Run {
    Graph *graph;
    const uint8_t *sector;
} Run;

static BlockPort *coroutine_fn open_probed(Run *r, bool writable)
{
    ImageOpenOptions o = {.writable = writable, .no_backing = true};
    unsigned perm = PERM_CONSISTENT_READ | (writable ? PERM_WRITE : 0);
    BlockNode *node = node_co_open_image(r->graph, "image", &o, NULL);
    BlockPort *port = NULL;

    if (node) {
        port = port_co_new(node, perm, PERM_ALL, "fuzz", NULL, NULL, NULL);
        node_co_unref(node);
    }
    return port;
}

/* The guest's sector in the ways it can come: whole, in two halves, byte by byte at the
 * magic, as part of more. */
static void coroutine_fn write_sector(Run *r, BlockPort *port)
{
    uint8_t more[1024];

    port_co_write(port, 0, 512, r->sector, 0);
    port_co_write(port, 0, 2, r->sector, 0);
    port_co_write(port, 2, 510, r->sector + 2, 0);
    for (unsigned i = 0; i < 4; i++) {
        port_co_write(port, i, 1, r->sector + i, 0);
    }
    memcpy(more, r->sector, 512);
    memset(more + 512, 0, 512);
    if (port_length(port) >= 1024) {
        port_co_write(port, 0, 1024, more, 0);
    }
}

static void coroutine_fn run(void *opaque)
{
    Run *r = opaque;
    BlockPort *port = open_probed(r, true);

    if (!port) {
        return;
    }
    g_autofree char *format = g_strdup(node_driver_name(port_root(port)));
    if (port_length(port) >= 512) {
        write_sector(r, port);
    }
    port_co_free(port);
    if (strcmp(format, "raw") != 0) {
        return;
    }
    port = open_probed(r, false);
    fuzz_check(port, "it was raw, and opens no more");
    fuzz_check(strcmp(node_driver_name(port_root(port)), "raw") == 0, "raw became %s",
               node_driver_name(port_root(port)));
    port_co_free(port);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    MemFiles files;

    if (size < 512 || fuzz_image_is_slow(data, size)) {
        return 0;
    }
    Run r = {.graph = graph_new(fuzz_loop()), .sector = data + size - 512};
    mem_files_init(&files, data, size - 512, 1 << 20);
    graph_set_open_file(r.graph, mem_files_open, &files);
    loop_run_coroutine(fuzz_loop(), run, &r);
    graph_free(r.graph);
    mem_files_fini(&files);
    return 0;
}
