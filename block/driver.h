/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What drivers see: the node's inside, the driver table, and map - the pure function that
 * both the direct path (resolve.c) and the coroutine path (node-io.c) stand on.
 *
 * Rules for drivers:
 *  V1 map does no I/O, does not yield, does not allocate and changes nothing. It answers
 *     with offsets, never with pointers into a cache;
 *  V2 a co_ function handles any length and offset inside the node, aligned or not;
 *  V3 a driver reaches its children through node_co_*() on the edge's child only;
 *  V4 numbers from the image are validated where they are read (style.md 7); the co_
 *     functions return -errno and log nothing.
 */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include "block/aio/disk.h"
#include "block/file-track.h"
#include "block/node.h"

typedef struct BlockDriver BlockDriver;
typedef struct BlockEdge BlockEdge;

typedef enum MapOp {
    MAP_OP_READ, /* READ and WRITE stand first: they count as use of metadata */
    MAP_OP_WRITE,
    MAP_OP_SCAN,   /* as READ, by somebody who reads once: metadata caches need not notice */
    MAP_OP_STATUS, /* as READ, but a compressed cluster is an answer too */
} MapOp;

typedef enum MapKind {
    MAP_CHILD, /* continue at child, offset */
    MAP_FILE,  /* the end of the walk: file, offset */
    MAP_ZERO,  /* reads as zeros */
    MAP_DONE,  /* nothing to do (null-co) */
    MAP_MISS,  /* metadata is not in memory: the co_ path loads it */
    MAP_SLOW,  /* the co_ path decides */
    MAP_ERROR, /* metadata is invalid here: -EIO */
} MapKind;

typedef struct MapResult {
    MapKind kind;
    uint64_t offset;
    uint64_t len; /* 1..asked */
    union {
        BlockNode *child;
        TrackedFile *file;
    };
    unsigned extent_flags; /* EXTENT_*, what this layer knows; for STATUS */
} MapResult;

#define MAP_AGAIN 1

/* An edge: parent to child, with permissions. A parent is a node or a port. */
struct BlockEdge {
    char role[16]; /* "file", "backing", "root" */
    BlockNode *child;
    BlockNode *parent_node; /* or */
    BlockPort *parent_port;
    unsigned perm, shared;
    unsigned plan_perm, plan_shared; /* while permissions are being changed */
    ListLink in_parent; /* node->children */
    ListLink in_child;  /* node->parents */
};

struct BlockNode {
    /* hot: read by every request that passes */
    const BlockDriver *drv;
    void *state; /* the driver's */
    uint64_t length;
    BlockNode *file_child; /* shorthands of the edges */
    BlockNode *backing_child;
    /* limits, set by co_open and by refresh */
    uint32_t request_align;
    uint32_t mem_align;
    bool watched; /* a driver that listens to events is here or below; see node_co_event() */
    /* cold */
    char name[NODE_NAME_MAX + 1];
    Graph *graph;
    int refcount;
    bool monitor_owned;
    bool ready;          /* between its opening and its closing: others may look at it */
    bool read_only;      /* opened read-only, or became so */
    bool auto_read_only; /* may fall back to read-only */
    bool writing;        /* somebody may write or resize: drv->co_set_writing(true) ran */
    bool demoted;        /* became a backing file: gave its file's WRITE back */
    bool force_share;
    bool cache_direct, cache_no_flush;
    bool discard_unmap;
    bool probed_raw; /* raw format was guessed: sector 0 is guarded */
    bool implicit;   /* opened from a header, not named by the user */
    BlockdevDetectZeroesOptions detect_zeroes;
    char *filename;
    char *backing_file, *backing_format; /* as the header says */
    char *opened_backing; /* the name that opening backing_file led to; may be NULL */
    bool backing_skipped; /* the user asked not to look below */
    char *shown_name;     /* node-name.c; valid while shown_shape is Graph.shape */
    uint64_t shown_shape;
    ListLink children;       /* BlockEdge.in_parent */
    ListLink parents;        /* BlockEdge.in_child */
    ListLink in_graph;
};

/* How a child inherits what its parent was told (client-contract.md, section 5). */
typedef struct OpenInherit {
    bool has_direct, direct;
    bool has_no_flush, no_flush;
    bool has_read_only, read_only;
    bool has_auto_read_only, auto_read_only;
    bool has_discard, discard_unmap;
    bool force_share;
    const char *aio;
    bool no_backing; /* what headers name is not opened */
    unsigned depth; /* of backing files; limited */
} OpenInherit;

/* Of a driver that listens to events: blkdebug. */
typedef struct NodeDebug {
    void coroutine_fn (*co_event)(BlockNode *node, BlkdebugEvent event);
    int (*set_break)(BlockNode *node, const char *event, const char *tag);
    int (*resume)(BlockNode *node, const char *tag);
    int (*remove_break)(BlockNode *node, const char *tag);
    bool (*is_suspended)(const BlockNode *node, const char *tag);
} NodeDebug;

struct BlockDriver {
    const char *name;
    BlockdevDriver qapi_id;
    bool is_format;        /* interprets a file child */
    bool is_filter;        /* passes its file child through unchanged */
    bool supports_backing;
    bool needs_filename;
    bool names_itself;      /* its filename has its child's in it */
    const char *child_role; /* of file_child, and its option; NULL: "file" */
    const NodeDebug *debug; /* NULL: does not listen */

    /* Open @node: attach children, set length, limits, state, filename. On failure
     * nothing is left in state (children are detached by the caller). */
    bool coroutine_fn (*co_open)(BlockNode *node, const BlockdevOptions *options,
                                 const OpenInherit *inherit, GError **errp);
    /* No request is in flight. Write what is to be written; free state. */
    void coroutine_fn (*co_close)(BlockNode *node);

    void (*map)(BlockNode *node, MapOp op, uint64_t offset, uint64_t len,
                MapResult *ret);
    /* Is what map says of this written range durable, and all that leads to it?  Then data
     * written there with FUA is all that a flush would add.  NULL: nothing leads to it. */
    bool (*map_is_durable)(const BlockNode *node, uint64_t offset);
    /* map said MISS: bring in the metadata of at least the first byte. 0 or -errno. */
    int coroutine_fn (*co_load)(BlockNode *node, uint64_t offset, uint64_t len,
                                unsigned flags);
    /* map said SLOW: do this part, which map delimited. Never goes down a backing chain,
     * so the walk (node-io.c) needs no recursion. 0, -errno, or MAP_AGAIN when map now
     * has the answer (the range was allocated). */
    int coroutine_fn (*co_read)(BlockNode *node, uint64_t offset, uint64_t len,
                                const struct iovec *iov, int niov, unsigned flags);
    int coroutine_fn (*co_write)(BlockNode *node, uint64_t offset, uint64_t len,
                                 const struct iovec *iov, int niov, unsigned flags);
    int coroutine_fn (*co_write_zeroes)(BlockNode *node, uint64_t offset, uint64_t len,
                                        unsigned flags);
    int coroutine_fn (*co_discard)(BlockNode *node, uint64_t offset, uint64_t len);
    int coroutine_fn (*co_flush)(BlockNode *node); /* to stable storage, all of it */
    int coroutine_fn (*co_status)(BlockNode *node, uint64_t offset, uint64_t len,
                                  BlockExtent *ret);
    /* Let go of every cluster, so that the backing file shows everywhere; may be NULL. */
    int coroutine_fn (*co_make_empty)(BlockNode *node);
    /* Change the length. NULL: cannot. */
    bool coroutine_fn (*co_truncate)(BlockNode *node, uint64_t size, GError **errp);
    /* The first writer came / the last writer left (safety.md Q11). Drained, before
     * requests of the new state. May be NULL. */
    bool coroutine_fn (*co_set_writing)(BlockNode *node, bool writing, GError **errp);
    /* A write found no space: free what the guest has let go of. The caller counts in no
     * epoch. Waits for grace periods. False: there is nothing to free. May be NULL. */
    bool coroutine_fn (*co_make_space)(BlockNode *node);
    /* Wait for the node's own background I/O. May be NULL. */
    void coroutine_fn (*co_quiesce)(BlockNode *node);
    /* The node was opened, or nothing is drained any more: such I/O may begin. May be NULL. */
    void (*drain_ended)(BlockNode *node);
    bool (*grows_with_zeros)(const BlockNode *node);
    int64_t (*allocated_size)(BlockNode *node);
    int64_t (*refresh_length)(BlockNode *node); /* ask the storage again; or -errno */
    /* A read went down many layers from here: remember for @offset and what is around it
     * which layer map may go on with. No I/O, no yield. May be NULL. */
    void (*learn_below)(BlockNode *node, uint64_t offset);
    uint32_t (*cluster_size)(BlockNode *node);
    ImageInfoSpecific *(*info_specific)(BlockNode *node);
    const SnapshotInfoList *(*snapshots)(const BlockNode *node); /* internal ones */
    void (*counters)(BlockNode *node,
                     void (*visit)(void *opaque, const char *name, uint64_t value),
                     void *opaque);
    int coroutine_fn (*co_check)(BlockNode *node, unsigned fix,
                                 void (*message)(void *, bool, const char *),
                                 void *opaque, CheckResult *ret);
    /* For json: names: set those of the driver's own options that say which data it shows;
     * true when there is one, so that no plain name will do. May be NULL. */
    bool (*name_options)(const BlockNode *node, JsonValue *options);
    /* What this driver needs of a child, given what its own users hold. */
    void (*child_perm)(BlockNode *node, const BlockEdge *edge, unsigned perm,
                       unsigned shared, unsigned *ret_perm, unsigned *ret_shared);
    /* How sure is this format of these first @len bytes? 0..100. NULL: not probed. */
    int (*probe)(const uint8_t *head, size_t len);
};

/* ---- the one table (driver/table.c) ---- */
const BlockDriver *driver_lookup(BlockdevDriver id);
const BlockDriver *driver_lookup_name(const char *name);
const BlockDriver *driver_probe(const uint8_t *head, size_t len);
/* The format of an image that begins with @head, of those that we know by sight only; NULL:
 * none of them. */
const char *driver_probe_foreign(const uint8_t *head, size_t len);
/* May the file of @fd be emptied to make an image? Not while a node of ours or
 * another program has it (driver/file-lock.c: stock's bytes, and those of our daemons). */
bool file_may_create(const Graph *graph, int fd, GError **errp);

/* ---- children (edge.c, open.c) ---- */
/* Open the child that @ref names or describes and attach it as @role; NULL and *errp. */
BlockEdge *coroutine_fn node_co_open_child(BlockNode *parent, const BlockdevRef *ref,
                                           const char *role, const OpenInherit *inherit,
                                           GError **errp);
/* Open what a header names as backing file; relative names are taken from @parent's. */
BlockEdge *coroutine_fn node_co_open_backing(BlockNode *parent,
                                             const OpenInherit *inherit, GError **errp);
BlockEdge *edge_attach(BlockNode *parent, BlockNode *child, const char *role);
/* Detach and drop the reference. Yields. */
void coroutine_fn edge_co_detach(BlockEdge *edge);
BlockEdge *node_edge(const BlockNode *node, const char *role);
/* What the format drivers need of "file" and "backing": QEMU's rules. */
void format_child_perm(BlockNode *node, const BlockEdge *edge, unsigned perm,
                       unsigned shared, unsigned *ret_perm, unsigned *ret_shared);
void filter_child_perm(BlockNode *node, const BlockEdge *edge, unsigned perm,
                       unsigned shared, unsigned *ret_perm, unsigned *ret_shared);

/* The options that open the same data; the caller owns them (node-name.c). */
JsonValue *node_name_options(const BlockNode *node);
/* The path or URL at the bottom of the "file" children; NULL if there is none. */
const char *node_plain_path(const BlockNode *node);
/* The header names another backing file from now on; NULL: none. */
void node_set_header_backing(BlockNode *node, const char *name);

/* ---- I/O on a node from above, in coroutines (node-io.c): driver to driver ---- */
int coroutine_fn node_co_read(BlockNode *node, uint64_t offset, uint64_t len,
                              const struct iovec *iov, int niov, unsigned flags);
int coroutine_fn node_co_write(BlockNode *node, uint64_t offset, uint64_t len,
                               const struct iovec *iov, int niov, unsigned flags);
/* The same without detect-zeroes and without the flush of a FUA. */
int coroutine_fn node_co_write_data(BlockNode *node, uint64_t offset, uint64_t len,
                                    const struct iovec *iov, int niov, unsigned flags);
int coroutine_fn node_co_read_buf(BlockNode *node, uint64_t offset, uint64_t len,
                                  void *buf);
int coroutine_fn node_co_write_buf(BlockNode *node, uint64_t offset, uint64_t len,
                                   const void *buf, unsigned flags);
int coroutine_fn node_co_write_zeroes(BlockNode *node, uint64_t offset, uint64_t len,
                                      unsigned flags);
/* Zeros as data, never as a hole: the storage has the space afterwards. */
int coroutine_fn node_co_write_zero_data(BlockNode *node, uint64_t offset, uint64_t len);
int coroutine_fn node_co_discard(BlockNode *node, uint64_t offset, uint64_t len);
int coroutine_fn node_co_flush(BlockNode *node);
bool coroutine_fn node_co_truncate(BlockNode *node, uint64_t size, GError **errp);
/* Ask the storage for its length again (files grow under us). */
int64_t node_refresh_length(BlockNode *node);
/* Through the backing chain; see port_co_status(). */
int coroutine_fn node_co_status_above(BlockNode *node, uint64_t offset, uint64_t len,
                                      BlockExtent *ret);
/* How many bytes from @offset on, at most @len, read as zeros because the maps of all layers
 * say so: metadata alone, no file is asked for holes (which costs milliseconds where they are
 * rare). Loads metadata. 0 or -errno. */
int coroutine_fn node_co_known_zero(BlockNode *node, uint64_t offset, uint64_t len,
                                    uint64_t *ret_len);
/*
 * What layers remember of each other (qcow2/map-flat.h) holds while this number stays. It
 * changes with every edge between nodes and every length; a driver tells of changes of its
 * map that let a walk end where it went on before, when other nodes stand on the node
 * (node_has_parent_node).
 */
const uint64_t *graph_ways(const Graph *graph);
void graph_ways_changed(Graph *graph);
void node_set_length(BlockNode *node, uint64_t length);
static inline bool node_has_parent_node(const BlockNode *node)
{
    list_foreach(it, &node->parents) {
        if (container_of(it, BlockEdge, in_child)->parent_node) {
            return true;
        }
    }
    return false;
}
/* Can @node grow by truncate, and read as zeros where it grew?  (Regular files; never
 * a block device, whose blocks hold somebody's old bytes.) */
bool node_grows_with_zeros(const BlockNode *node);
/* Is anything drained in the graph? Then a node begins no I/O of its own accord. */
bool node_is_draining(const BlockNode *node);

/* ---- buffers of copies (graph.c) ---- */
/* An aligned buffer of @len bytes, 1 .. 32 MiB. All copies of a graph together use 8 MiB (or
 * the one that is larger): waits until there is room. NULL when there is no memory. */
void *coroutine_fn node_co_copy_buffer_get(BlockNode *node, uint32_t len);
void node_copy_buffer_put(BlockNode *node, void *buf, uint32_t len);

/* ---- grace periods (epoch.c) ---- */
/* Now. A resource dropped in epoch E is free when epoch_oldest() > E. */
uint64_t epoch_now(Graph *graph);
uint64_t epoch_oldest(Graph *graph);

/* ---- events (node-event.c) ---- */
void coroutine_fn node_co_event_watched(BlockNode *node, BlkdebugEvent event);

/* Tell a blkdebug below @node what is about to happen. May yield, when one is there. */
static inline void coroutine_fn node_co_event(BlockNode *node, BlkdebugEvent event)
{
    if (G_UNLIKELY(node->watched)) {
        node_co_event_watched(node, event);
    }
}

/* Report that metadata contradicts itself (BLOCK_IMAGE_CORRUPTED). */
void node_image_corrupted(BlockNode *node, bool fatal, int64_t offset, int64_t size,
                          const char *fmt, ...) G_GNUC_PRINTF(5, 6);

#endif
