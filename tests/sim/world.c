/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One machine: disks in memory, the graph over them, one port. Nothing here decides what
 * happens; that is the workload's.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/base/error.h"
#include "qapi/qapi-visit.h"
#include "tests/sim/sim.h"
#include "tests/sim/tag.h"

SimOptions sim_options = {.only_cut = -1};
BlockBreak block_break;
BlockKnobs block_knobs;

void world_fail(const World *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (!sim_options.silent) {
        printf("%s, seed %u, step %" G_GUINT64_FORMAT "%s: %s\n", w->scenario->name, w->seed,
               w->resurrected ? w->cut : sim_host_steps(w->host),
               w->resurrected ? " (cut)" : "", text);
        fflush(stdout);
    }
    _exit(1);
}

/* ---- disks and nodes ---- */

SimDisk *world_find_disk(World *w, const char *name)
{
    for (unsigned i = 0; i < w->nb_files; i++) {
        if (strcmp(sim_disk_name(w->files[i]), name) == 0) {
            return w->files[i];
        }
    }
    return w->second ? world_find_disk(w->second, name) : w->base;
}

static DiskFile *open_file(void *opaque, Loop *loop, const char *filename, int oflags,
                           DiskAio aio, GError **errp)
{
    World *w = opaque;
    bool writable = (oflags & O_ACCMODE) != O_RDONLY;
    return sim_disk_open(world_find_disk(w, filename), writable, false);
}

BlockNode *coroutine_fn world_co_open_node(Graph *graph, JsonValue *options, GError **errp)
{
    g_autoptr(BlockdevOptions) typed = qapi_BlockdevOptions_from_keyval(options, "", errp);
    json_free(options);
    return typed ? node_co_open(graph, typed, errp) : NULL;
}

static JsonValue *file_options(const char *name)
{
    JsonValue *file = json_object();
    json_object_set_string(file, "driver", "file");
    json_object_set_string(file, "filename", name);
    return file;
}

static JsonValue *base_options(void)
{
    JsonValue *raw = json_object();
    json_object_set_string(raw, "driver", "raw");
    json_object_set_bool(raw, "read-only", true);
    json_object_set(raw, "file", file_options("base"));
    return raw;
}

JsonValue *world_image_options(const World *w, unsigned file, bool read_only)
{
    JsonValue *o = json_object();
    json_object_set_string(o, "driver", "qcow2");
    json_object_set_string(o, "discard", "unmap");
    json_object_set_bool(o, "read-only", read_only);
    JsonValue *cache = json_object();
    json_object_set_bool(cache, "no-flush", w->cfg.no_flush);
    json_object_set_bool(cache, "direct", w->cfg.traits.direct);
    json_object_set(o, "cache", cache);
    json_object_set(o, "file", file_options(sim_disk_name(w->files[file])));
    uint64_t slice = MIN(1u << w->cfg.cluster_bits, 4096u) + 100;
    json_object_set_uint(o, "l2-cache-size", w->cfg.l2_slices * slice);
    if (w->cfg.l2_slices % 2 == 0) { /* several slices a table, as large clusters have */
        json_object_set_uint(o, "l2-cache-entry-size", 512);
    }
    json_object_set_uint(o, "refcount-cache-size", 8192);
    return o;
}

/* @shared: the base is a node that is there already. */
static JsonValue *chain_options(const World *w, unsigned depth, bool read_only, bool shared)
{
    JsonValue *o = world_image_options(w, w->chain[depth - 1], read_only);
    if (depth > 1) {
        json_object_set(o, "backing", chain_options(w, depth - 1, true, shared));
    } else if (shared) {
        json_object_set_string(o, "backing", "shared");
    } else if (w->cfg.base) {
        json_object_set(o, "backing", base_options());
    } else {
        json_object_set(o, "backing", json_null());
    }
    return o;
}

JsonValue *world_chain_options(const World *w, unsigned depth, bool read_only)
{
    return chain_options(w, depth, read_only, false);
}

bool coroutine_fn world_co_open(World *w, bool read_only, GError **errp)
{
    BlockNode *node =
        world_co_open_node(w->graph, chain_options(w, w->depth, read_only, w->shared_base),
                           errp);
    if (!node) {
        return false;
    }
    unsigned perm = PERM_CONSISTENT_READ | (read_only ? 0 : PERM_WRITE);
    w->port = port_co_new(node, perm, PERM_ALL, w->prefix, NULL, NULL, errp);
    node_co_unref(node); /* the port holds it */
    return w->port != NULL;
}

void coroutine_fn world_co_close(World *w)
{
    BlockPort *port = w->port;
    w->port = NULL;
    port_co_free(port);
}

/* ---- images ---- */

static void add_file(World *w)
{
    g_autofree char *name = g_strdup_printf("%s%u", w->prefix, w->nb_files);
    w->files[w->nb_files++] = sim_disk_new(w->host, name, w->cfg.image_bytes);
}

static JsonValue *create_options(const World *w, unsigned file)
{
    JsonValue *o = json_object();
    json_object_set_string(o, "driver", "qcow2");
    json_object_set(o, "file", file_options(sim_disk_name(w->files[file])));
    json_object_set_uint(o, "size", (uint64_t)w->size * 512);
    json_object_set_uint(o, "cluster-size", 1u << w->cfg.cluster_bits);
    json_object_set_string(o, "version", w->cfg.v2 ? "v2" : "v3");
    json_object_set_uint(o, "refcount-bits", 1u << w->cfg.refcount_order);
    return o;
}

static bool coroutine_fn create_image(World *w, JsonValue *options, GError **errp)
{
    g_autoptr(BlockdevCreateOptions) typed =
        qapi_BlockdevCreateOptions_from_keyval(options, "", errp);
    json_free(options);
    return typed && image_co_create(w->graph, typed, NULL, NULL, errp);
}

bool coroutine_fn world_co_create(World *w, unsigned *ret_file, GError **errp)
{
    unsigned file = *ret_file = w->nb_files;
    add_file(w);
    JsonValue *o = create_options(w, file);
    if (w->depth || w->cfg.base) {
        const char *below = w->depth ? sim_disk_name(w->files[w->chain[w->depth - 1]])
                                     : "base";
        json_object_set_string(o, "backing-file", below);
        json_object_set_string(o, "backing-fmt", w->depth ? "qcow2" : "raw");
    }
    return create_image(w, o, errp);
}

bool coroutine_fn world_co_create_alone(World *w, unsigned *ret_file, GError **errp)
{
    unsigned file = *ret_file = w->nb_files;
    add_file(w);
    JsonValue *o = create_options(w, file);
    if (w->cfg.nb_sectors % 2) {
        json_object_set_string(o, "preallocation", "metadata");
    }
    return create_image(w, o, errp);
}

static void begin_with_image(World *w)
{
    add_file(w);
    sim_disk_foreign_write(w->files[0], 0, w->start_bytes, w->start_len);
    g_clear_pointer(&w->start_bytes, g_free);
    if (w->cfg.start_snapshot && internal_snapshot(w->files[0], &w->internal)) {
        w->internal_bytes = model_contents(w->model, w->size);
        w->internal_sectors = w->size;
        w->internal_file = 0;
    }
}

static void coroutine_fn begin_disk(World *w)
{
    g_autoptr(GError) error = NULL;
    unsigned file = 0;
    if (w->cfg.start) {
        begin_with_image(w);
    } else if (!world_co_create(w, &file, &error)) {
        world_fail(w, "cannot create: %s", error->message);
    }
    w->chain[w->depth++] = file;
    if (!world_co_open(w, false, &error)) {
        world_fail(w, "cannot open: %s", error->message);
    }
}

/* Both disks stand on one node. */
static void coroutine_fn open_shared_base(World *w)
{
    g_autoptr(GError) error = NULL;
    JsonValue *raw = base_options();
    json_object_set_string(raw, "node-name", "shared");
    w->shared_base = world_co_open_node(w->graph, raw, &error);
    if (!w->shared_base) {
        world_fail(w, "cannot open the base: %s", error->message);
    }
    w->second->shared_base = w->shared_base;
}

void coroutine_fn world_co_begin(World *w)
{
    if (w->second && w->cfg.base && w->seed % 2) {
        open_shared_base(w);
    }
    begin_disk(w);
    if (w->second) {
        begin_disk(w->second);
    }
}

/* ---- worlds ---- */

static void make_machine(World *w, uint32_t seed)
{
    g_autoptr(GError) error = NULL;
    w->loop = loop_new(LOOP_EPOLL, &error);
    if (!w->loop) {
        fprintf(stderr, "no loop: %s\n", error->message);
        _exit(2);
    }
    w->host = sim_host_new(w->loop, seed, &w->cfg.traits);
    w->graph = graph_new(w->loop);
    graph_set_open_file(w->graph, open_file, w);
    co_queue_init(&w->changed, w->loop);
    w->control = g_new(CoMutex, 1);
    co_mutex_init(w->control, w->loop);
    w->jobs = job_registry_new(w->loop, NULL, NULL);
}

/* A raw file below everything: stamps of its own, with holes, and of any length. */
static void make_base(World *w, GRand *rand, uint32_t *stamps)
{
    uint32_t n = (uint32_t)g_rand_int_range(rand, 1, (gint32)w->cfg.nb_sectors + 64);
    g_autofree uint8_t *image = g_malloc0((gsize)n * 512);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t stamp = (i / 16) % 3 ? TAG_BACKING | i : 0;
        tag_fill(image + (gsize)i * 512, i, 1, stamp);
        stamps[i] = stamp;
    }
    w->base = sim_disk_new(w->host, "base", w->cfg.max_file_bytes);
    sim_disk_load(w->base, image, (uint64_t)n * 512);
}

/* What the disk shows at first, and its model. @below: the stamps of the base. */
static void make_contents(World *w, GRand *rand, const uint32_t *below, uint32_t nb_below)
{
    uint32_t n = w->cfg.nb_sectors, room = 2 * n + 64; /* a disk may grow */
    g_autofree uint32_t *stamps = g_new0(uint32_t, room);

    memcpy(stamps, below, MIN(n, nb_below) * sizeof(*stamps));
    w->size = n;
    w->sizes = g_array_new(FALSE, FALSE, sizeof(w->size));
    g_array_append_val(w->sizes, w->size);
    if (w->cfg.start) {
        w->start_bytes = start_image(&w->cfg, rand, stamps, &w->start_len);
    }
    w->model = model_new(room, stamps);
}

/* Another disk of the same process: its own geometry, the same machine. */
static void make_second(World *w, GRand *rand, const uint32_t *below, uint32_t nb_below)
{
    World *o = w->second = g_new0(World, 1);
    scenario_draw(w->scenario, rand, &o->cfg);
    o->cfg.base = w->cfg.base;
    o->cfg.no_flush = w->cfg.no_flush;
    o->cfg.traits = w->cfg.traits;
    o->cfg.faults = w->cfg.faults;
    o->cfg.start_snapshot &= !o->cfg.traits.block_device;
    o->prefix = "g";
    o->scenario = w->scenario;
    o->seed = w->seed;
    o->loop = w->loop;
    o->graph = w->graph;
    o->host = w->host;
    o->base = w->base;
    o->control = w->control;
    o->jobs = w->jobs;
    co_queue_init(&o->changed, o->loop);
    make_contents(o, rand, below, nb_below);
}

World *world_new(const Scenario *scenario, uint32_t seed)
{
    World *w = g_new0(World, 1);
    GRand *rand = g_rand_new_with_seed(seed);
    w->prefix = "f";
    w->scenario = scenario;
    w->seed = seed;
    scenario_draw(scenario, rand, &w->cfg);
    w->ops = scenario_ops(scenario, rand, &w->cfg);
    block_knobs = w->cfg.knobs;
    make_machine(w, seed);
    uint32_t nb_below = w->cfg.nb_sectors + 64;
    g_autofree uint32_t *below = g_new0(uint32_t, nb_below);
    if (w->cfg.base) {
        make_base(w, rand, below);
    }
    make_contents(w, rand, below, nb_below);
    if (w->cfg.second) {
        make_second(w, rand, below, nb_below);
    }
    g_rand_free(rand);
    return w;
}

World *world_resurrect(World *old, GRand *rand, bool power_loss)
{
    World *w = g_new(World, 1);
    uint64_t len;
    *w = *old;
    w->port = NULL;
    w->second = NULL;
    w->shared_base = NULL;
    w->resurrected = true;
    w->cut = sim_host_steps(old->host);
    w->cfg.traits.slow_one_in = 0;
    w->cfg.traits.no_punch = false;
    make_machine(w, 1);
    for (unsigned i = 0; i < w->nb_files; i++) {
        uint8_t *image = sim_disk_survivors(old->files[i], rand, power_loss, &len);
        w->files[i] = sim_disk_new(w->host, sim_disk_name(old->files[i]), w->cfg.image_bytes);
        sim_disk_adopt(w->files[i], image, len);
    }
    if (w->base) {
        const uint8_t *image = sim_disk_contents(old->base, &len);
        w->base = sim_disk_new(w->host, "base", w->cfg.max_file_bytes);
        sim_disk_adopt(w->base, (uint8_t *)image, len); /* nobody writes to it */
    }
    return w;
}
