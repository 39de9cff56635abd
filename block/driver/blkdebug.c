/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blkdebug: errors on purpose, and limits of other storage, over another node; for tests.
 *
 * Events are told by the nodes above (node_co_event) and, where they are about the storage,
 * by this file.  The rules are blkdebug-rules.c's.
 *
 * D1 it acts, so map answers SLOW as soon as there is a rule or a limit;
 * D2 with align an unaligned write is a read-modify-write, exclusive over its blocks;
 * D3 a request that stands at a breakpoint stays in flight: drains wait for it.
 */
#include "block/driver/blkdebug.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "block/base/error.h"
#include "block/base/iov.h"
#include "block/driver/table.h"
#include "qapi/qapi-visit.h"

#define SLICE_IOV 64

typedef struct DebugLimits {
    uint64_t align, max_transfer;
    uint64_t opt_write_zero, max_write_zero;
    uint64_t opt_discard, max_discard;
} DebugLimits;

typedef struct Suspended {
    ListLink link; /* DebugState.suspended */
    char *tag;
    Coroutine *co; /* NULL: may go on */
} Suspended;

typedef struct DebugState {
    DebugRules rules;
    DebugLimits limits;
    char *config;
    JsonValue *own; /* the options that a plain name cannot say */
    unsigned take_perms, unshare_perms;
    TrackedFile ranges; /* of writes, for D2; has no file */
    ListLink suspended;
} DebugState;

/* ---- events ---- */

static void coroutine_fn debug_event(BlockNode *node, BlkdebugEvent event)
{
    DebugState *s = node->state;
    char *tag = debug_rules_event(&s->rules, event);

    if (tag) {
        Suspended here = {.tag = tag, .co = coroutine_self()};
        list_append(&s->suspended, &here.link);
        while (here.co) {
            coroutine_yield();
        }
        g_free(tag);
    }
}

static Suspended *find_suspended(const DebugState *s, const char *tag)
{
    list_foreach(it, &s->suspended) {
        Suspended *here = container_of(it, Suspended, link);
        if (strcmp(here->tag, tag) == 0) {
            return here;
        }
    }
    return NULL;
}

static void let_go(BlockNode *node, Suspended *here)
{
    Coroutine *co = here->co;
    here->co = NULL;
    list_remove(&here->link);
    coroutine_wake_later(graph_loop(node->graph), co);
}

static int debug_break(BlockNode *node, const char *event_name, const char *tag)
{
    DebugState *s = node->state;
    DebugRule rule = {.action = DEBUG_BREAK, .tag = (char *)tag};

    if (!BlkdebugEvent_parse(event_name, &rule.event)) {
        return -ENOENT;
    }
    return debug_rule_add(&s->rules, &rule) ? 0 : -ENOSPC;
}

static int debug_resume(BlockNode *node, const char *tag)
{
    Suspended *here = find_suspended(node->state, tag);

    if (!here) {
        return -ENOENT;
    }
    let_go(node, here);
    return 0;
}

static int debug_remove_break(BlockNode *node, const char *tag)
{
    DebugState *s = node->state;
    Suspended *here;
    int ret = -ENOENT;

    for (int event = 0; event < BLKDEBUG_EVENT__MAX; event++) {
        list_foreach_safe(it, next, &s->rules.of[event]) {
            DebugRule *rule = container_of(it, DebugRule, link);
            if (rule->action == DEBUG_BREAK && strcmp(rule->tag, tag) == 0) {
                debug_rule_free(&s->rules, rule);
                ret = 0;
            }
        }
    }
    while ((here = find_suspended(s, tag))) {
        let_go(node, here);
        ret = 0;
    }
    return ret;
}

static bool debug_is_suspended(const BlockNode *node, const char *tag)
{
    return find_suspended(node->state, tag) != NULL;
}

/* ---- opening ---- */

static bool limit(const char *name, bool has, int64_t value, uint64_t unit, uint64_t max,
                  uint64_t *ret, GError **errp)
{
    *ret = has ? (uint64_t)value : 0;
    if (has && value < 0) {
        error_set(errp, "Parameter '%s' expects a non-negative number below 2^64", name);
        return false;
    }
    if (*ret > max || *ret % unit) {
        error_set(errp, "Cannot meet constraints with %s %" PRIu64, name, *ret);
        return false;
    }
    return true;
}

static bool set_limits(DebugLimits *l, const BlockdevOptionsBlkdebug *o, GError **errp)
{
    const uint64_t max = INT32_MAX;

    if (!limit("align", o->has_align, o->align, 1, max, &l->align, errp)) {
        return false;
    }
    if (l->align & (l->align - 1)) {
        error_set(errp, "Cannot meet constraints with align %" PRIu64, l->align);
        return false;
    }
    uint64_t unit = MAX(l->align, 1);
    return limit("max-transfer", o->has_max_transfer, o->max_transfer, MAX(unit, 512), max,
                 &l->max_transfer, errp) &&
           limit("opt-write-zero", o->has_opt_write_zero, o->opt_write_zero, unit, max,
                 &l->opt_write_zero, errp) &&
           limit("max-write-zero", o->has_max_write_zero, o->max_write_zero,
                 MAX(unit, l->opt_write_zero), max, &l->max_write_zero, errp) &&
           limit("opt-discard", o->has_opt_discard, o->opt_discard, unit, max,
                 &l->opt_discard, errp) &&
           limit("max-discard", o->has_max_discard, o->max_discard,
                 MAX(unit, l->opt_discard), max, &l->max_discard, errp);
}

static unsigned perm_bits(const BlockPermissionList *list)
{
    static const unsigned bits[] = {
        [BLOCK_PERMISSION_CONSISTENT_READ] = PERM_CONSISTENT_READ,
        [BLOCK_PERMISSION_WRITE] = PERM_WRITE,
        [BLOCK_PERMISSION_WRITE_UNCHANGED] = PERM_WRITE_UNCHANGED,
        [BLOCK_PERMISSION_RESIZE] = PERM_RESIZE,
    };
    unsigned perm = 0;
    for (; list; list = list->next) {
        perm |= bits[list->value];
    }
    return perm;
}

static bool read_config(DebugState *s, const char *path, GError **errp)
{
    g_autofree char *text = g_try_malloc(DEBUG_CONFIG_MAX + 1);
    FILE *file = text ? fopen(path, "re") : NULL;
    if (!file) {
        error_set_errno(errp, text ? -errno : -ENOMEM, "Could not read blkdebug config file");
        return false;
    }
    size_t len = fread(text, 1, DEBUG_CONFIG_MAX + 1, file);
    bool failed = ferror(file);
    fclose(file);
    if (failed || len > DEBUG_CONFIG_MAX) {
        error_set_errno(errp, failed ? -EIO : -EFBIG, "Could not read blkdebug config file");
        return false;
    }
    text[len] = '\0';
    return debug_rules_parse(&s->rules, text, errp);
}

/* What a name has to say besides the image and the config, as dotted keys. */
static JsonValue *own_options(const BlockdevOptionsBlkdebug *o)
{
    JsonValue *own = json_object();
    g_autoptr(JsonValue) all = qapi_BlockdevOptionsBlkdebug_to_json(o);

    for (size_t i = 0; i < json_object_size(all); i++) {
        const char *key = json_object_key_at(all, i);
        const JsonValue *value = json_object_value_at(all, i);
        if (strcmp(key, "image") == 0 || strcmp(key, "config") == 0) {
            continue;
        }
        if (json_type(value) != JSON_ARRAY) {
            json_object_set(own, key, json_copy(value));
            continue;
        }
        for (size_t n = 0; n < json_array_size(value); n++) {
            const JsonValue *item = json_array_at(value, n);
            for (size_t m = 0; m < json_object_size(item); m++) {
                g_autofree char *name =
                    g_strdup_printf("%s.%zu.%s", key, n, json_object_key_at(item, m));
                json_object_set(own, name, json_copy(json_object_value_at(item, m)));
            }
        }
    }
    return own;
}

static DebugState *state_new(const BlockNode *node)
{
    DebugState *s = g_new0(DebugState, 1);

    debug_rules_init(&s->rules);
    list_init(&s->ranges.writes);
    list_init(&s->ranges.exclusives);
    co_queue_init(&s->ranges.changed, graph_loop(node->graph));
    list_init(&s->suspended);
    return s;
}

static void state_free(DebugState *s)
{
    debug_rules_fini(&s->rules);
    json_free(s->own);
    g_free(s->config);
    g_free(s);
}

static bool coroutine_fn open_image(BlockNode *node, const BlockdevOptionsBlkdebug *o,
                                    const OpenInherit *inherit, GError **errp)
{
    BlockEdge *edge = node_co_open_child(node, o->image, "image", inherit, errp);
    if (!edge) {
        return false;
    }
    const DebugState *s = node->state;
    BlockNode *image = edge->child;
    node->length = image->length;
    node->read_only |= image->read_only;
    node->request_align = MAX(image->request_align, (uint32_t)s->limits.align);
    node->mem_align = image->mem_align;
    node->watched = true;
    if (!g_str_has_prefix(node_filename(image), "json:")) {
        node->filename = g_strdup_printf("blkdebug:%s:%s", s->config ? s->config : "",
                                         node_filename(image));
    }
    return true;
}

static bool coroutine_fn debug_co_open(BlockNode *node, const BlockdevOptions *options,
                                       const OpenInherit *inherit, GError **errp)
{
    const BlockdevOptionsBlkdebug *o = &options->u.blkdebug;
    DebugState *s = state_new(node);

    s->own = own_options(o);
    s->config = g_strdup(o->config);
    s->take_perms = perm_bits(o->take_child_perms);
    s->unshare_perms = perm_bits(o->unshare_child_perms);
    node->state = s;
    if ((o->config && o->config[0] && !read_config(s, o->config, errp)) ||
        !debug_rules_from_options(&s->rules, o, errp) ||
        !set_limits(&s->limits, o, errp) || !open_image(node, o, inherit, errp)) {
        state_free(s);
        node->state = NULL;
        return false;
    }
    debug_event(node, BLKDEBUG_EVENT_NONE);
    return true;
}

static void coroutine_fn debug_co_close(BlockNode *node)
{
    state_free(node->state);
}

/* ---- requests ---- */

static int coroutine_fn co_strike(BlockNode *node, BlkdebugIOType iotype, uint64_t offset,
                                  uint64_t len)
{
    DebugState *s = node->state;
    bool immediately = true;
    int ret = debug_rules_strike(&s->rules, iotype, offset, len, &immediately);

    if (ret < 0 && !immediately) {
        coroutine_wake_later(graph_loop(node->graph), coroutine_self());
        coroutine_yield();
    }
    return ret;
}

static void debug_map(BlockNode *node, MapOp op, uint64_t offset, uint64_t len,
                      MapResult *ret)
{
    const DebugState *s = node->state;
    const DebugLimits *l = &s->limits;
    ret->len = l->max_transfer ? min_u64(len, l->max_transfer) : len;
    ret->extent_flags = 0;
    if (op != MAP_OP_STATUS && (s->rules.count || l->align > 1)) { /* D1 */
        ret->kind = MAP_SLOW;
        return;
    }
    ret->kind = MAP_CHILD;
    ret->child = node->file_child;
    ret->offset = offset;
}

static int coroutine_fn debug_co_read(BlockNode *node, uint64_t offset, uint64_t len,
                                      const struct iovec *iov, int niov, unsigned flags)
{
    int ret = co_strike(node, BLKDEBUG_IO_TYPE_READ, offset, len);
    return ret < 0 ? ret : node_co_read(node->file_child, offset, len, iov, niov, flags);
}

/* The block at @start into @buf, between its two events. */
static int coroutine_fn co_read_block(BlockNode *node, uint64_t start, uint64_t block,
                                      uint8_t *buf, BlkdebugEvent before,
                                      BlkdebugEvent after)
{
    debug_event(node, before);
    uint64_t len = start < node->length ? min_u64(block, node->length - start) : 0;
    struct iovec iov = {buf, len};
    memset(buf + len, 0, block - len);
    int ret = len ? debug_co_read(node, start, len, &iov, 1, 0) : 0;
    debug_event(node, after);
    return ret;
}

/* D2: at most SLICE_IOV pieces; the caller holds the range. */
static int coroutine_fn co_write_around(BlockNode *node, uint64_t offset, uint64_t len,
                                        const struct iovec *iov, int niov, unsigned flags)
{
    const DebugState *s = node->state;
    uint64_t align = s->limits.align;
    uint64_t start = round_down(offset, align);
    uint64_t end = min_u64(round_up(offset + len, align),
                           max_u64(node->length, offset + len));
    uint64_t head = offset - start, tail = end - (offset + len);
    uint64_t last = round_down(offset + len - 1, align);
    struct iovec out[SLICE_IOV + 2];
    int n = 0, ret = 0;

    uint8_t *blocks = disk_buffer_try_alloc(4096, round_up(2 * align, 4096));
    if (!blocks) {
        return -ENOMEM;
    }
    uint8_t *tail_block = last == start ? blocks : blocks + align;
    if (head) {
        ret = co_read_block(node, start, align, blocks, BLKDEBUG_EVENT_PWRITEV_RMW_HEAD,
                            BLKDEBUG_EVENT_PWRITEV_RMW_AFTER_HEAD);
        out[n++] = (struct iovec){blocks, head};
    }
    if (ret == 0 && tail && !(head && last == start)) {
        ret = co_read_block(node, last, align, tail_block, BLKDEBUG_EVENT_PWRITEV_RMW_TAIL,
                            BLKDEBUG_EVENT_PWRITEV_RMW_AFTER_TAIL);
    }
    memcpy(out + n, iov, (size_t)niov * sizeof(*iov));
    n += niov;
    if (tail) {
        out[n++] = (struct iovec){tail_block + (offset + len - last), tail};
    }
    if (ret == 0) {
        ret = co_strike(node, BLKDEBUG_IO_TYPE_WRITE, start, end - start);
    }
    if (ret == 0) {
        ret = node_co_write(node->file_child, start, end - start, out, n, flags);
    }
    disk_buffer_free(blocks);
    return ret;
}

static int coroutine_fn co_write_now(BlockNode *node, uint64_t offset, uint64_t len,
                                     const struct iovec *iov, int niov, unsigned flags)
{
    DebugState *s = node->state;
    uint64_t align = s->limits.align;
    TrackedWrite range;
    int ret;

    if (align > 1 && ((offset | len) & (align - 1)) && niov <= SLICE_IOV) {
        uint64_t start = round_down(offset, align);
        tracked_co_exclusive_begin(&s->ranges, &range, start,
                                   round_up(offset + len, align) - start);
        ret = co_write_around(node, offset, len, iov, niov, flags);
        tracked_exclusive_end(&s->ranges, &range);
        return ret;
    }
    if (align > 1) {
        tracked_co_write_begin(&s->ranges, &range, offset, len);
    }
    ret = co_strike(node, BLKDEBUG_IO_TYPE_WRITE, offset, len);
    if (ret == 0) {
        ret = node_co_write(node->file_child, offset, len, iov, niov, flags);
    }
    if (align > 1) {
        tracked_write_end(&s->ranges, &range);
    }
    return ret;
}

static int coroutine_fn debug_co_write(BlockNode *node, uint64_t offset, uint64_t len,
                                       const struct iovec *iov, int niov, unsigned flags)
{
    debug_event(node, BLKDEBUG_EVENT_PWRITEV);
    int ret = co_write_now(node, offset, len, iov, niov, flags);
    debug_event(node, BLKDEBUG_EVENT_PWRITEV_DONE);
    return ret;
}

/* Zero or discard [@offset, @end), at most @max (0: all) at a time. */
static int coroutine_fn co_pieces(BlockNode *node, BlkdebugIOType iotype, uint64_t offset,
                                  uint64_t end, uint64_t max, unsigned flags)
{
    int ret = 0;
    while (ret == 0 && offset < end) {
        uint64_t piece = max ? min_u64(end - offset, max) : end - offset;
        ret = co_strike(node, iotype, offset, piece);
        if (ret == 0) {
            ret = iotype == BLKDEBUG_IO_TYPE_DISCARD
                      ? node_co_discard(node->file_child, offset, piece)
                      : node_co_write_zeroes(node->file_child, offset, piece, flags);
        }
        offset += piece;
    }
    return ret;
}

static int coroutine_fn debug_co_write_zeroes(BlockNode *node, uint64_t offset,
                                              uint64_t len, unsigned flags)
{
    const DebugState *s = node->state;
    uint64_t align = MAX(MAX(s->limits.opt_write_zero, s->limits.align), 1);
    uint64_t start = round_up(offset, align), end = round_down(offset + len, align);

    debug_event(node, BLKDEBUG_EVENT_PWRITEV_ZERO);
    bool whole = start == offset && end == offset + len;
    if (start >= end || (!whole && (flags & BLOCK_NO_FALLBACK))) {
        return -ENOTSUP; /* the caller writes them as data */
    }
    int ret = co_pieces(node, BLKDEBUG_IO_TYPE_WRITE_ZEROES, start, end,
                        s->limits.max_write_zero, flags);
    if (ret == 0 && offset < start) {
        ret = node_co_write_zero_data(node, offset, start - offset);
    }
    if (ret == 0 && end < offset + len) {
        ret = node_co_write_zero_data(node, end, offset + len - end);
    }
    return ret;
}

static int coroutine_fn debug_co_discard(BlockNode *node, uint64_t offset, uint64_t len)
{
    const DebugState *s = node->state;
    uint64_t align = MAX(MAX(s->limits.opt_discard, s->limits.align), 1);

    return co_pieces(node, BLKDEBUG_IO_TYPE_DISCARD, round_up(offset, align),
                     round_down(offset + len, align), s->limits.max_discard, 0);
}

static int coroutine_fn debug_co_flush(BlockNode *node)
{
    int ret = co_strike(node, BLKDEBUG_IO_TYPE_FLUSH, 0, 0);
    return ret < 0 ? ret : node_co_flush(node->file_child);
}

static int coroutine_fn debug_co_status(BlockNode *node, uint64_t offset, uint64_t len,
                                        BlockExtent *ret)
{
    int struck = co_strike(node, BLKDEBUG_IO_TYPE_BLOCK_STATUS, offset, len);
    return struck < 0 ? struck : node_co_status(node->file_child, offset, len, ret);
}

/* ---- the rest passes through ---- */

static bool coroutine_fn debug_co_truncate(BlockNode *node, uint64_t size, GError **errp)
{
    if (!node_co_truncate(node->file_child, size, errp)) {
        return false;
    }
    node_set_length(node, node->file_child->length);
    return true;
}

static int64_t debug_refresh_length(BlockNode *node)
{
    return node_refresh_length(node->file_child);
}

static bool debug_name_options(const BlockNode *node, JsonValue *options)
{
    const DebugState *s = node->state;

    if (s->config) {
        json_object_set_string(options, "config", s->config);
    }
    for (size_t i = 0; i < json_object_size(s->own); i++) {
        json_object_set(options, json_object_key_at(s->own, i),
                        json_copy(json_object_value_at(s->own, i)));
    }
    return json_object_size(s->own) > 0;
}

static void debug_child_perm(BlockNode *node, const BlockEdge *edge, unsigned perm,
                             unsigned shared, unsigned *ret_perm, unsigned *ret_shared)
{
    const DebugState *s = node->state;

    filter_child_perm(node, edge, perm, shared, ret_perm, ret_shared);
    *ret_perm |= s->take_perms;
    *ret_shared &= ~s->unshare_perms;
}

static const NodeDebug debug_calls = {
    .co_event = debug_event,
    .set_break = debug_break,
    .resume = debug_resume,
    .remove_break = debug_remove_break,
    .is_suspended = debug_is_suspended,
};

const BlockDriver driver_blkdebug = {
    .name = "blkdebug",
    .qapi_id = BLOCKDEV_DRIVER_BLKDEBUG,
    .is_filter = true,
    .child_role = "image",
    .names_itself = true,
    .debug = &debug_calls,
    .co_open = debug_co_open,
    .co_close = debug_co_close,
    .map = debug_map,
    .co_read = debug_co_read,
    .co_write = debug_co_write,
    .co_write_zeroes = debug_co_write_zeroes,
    .co_discard = debug_co_discard,
    .co_flush = debug_co_flush,
    .co_status = debug_co_status,
    .co_truncate = debug_co_truncate,
    .refresh_length = debug_refresh_length,
    .name_options = debug_name_options,
    .child_perm = debug_child_perm,
};
