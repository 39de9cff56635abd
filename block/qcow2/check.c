/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Check and repair: count every reference to every host cluster, and compare with the
 * refcounts.  A reference without count is a corruption; a count without reference is a
 * leak.
 *
 * An L2 table is walked once for the active L1 table and once for all snapshots together,
 * which may be thousands: its references then count as often as it has been seen.
 *
 * Repair only ever sets counts to what the references say; it deletes no entry, and does
 * nothing where the metadata overlaps, so that it cannot make anything worse than it is.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "block/base/error.h"
#include "block/break.h"
#include "block/qcow2/qcow2.h"

/* What a cluster was seen as, next to the number of references. */
#define REFS_DATA     (1u << 31)
#define REFS_METADATA (1u << 30) /* but no L2 table */
#define REFS_TABLE    (1u << 29) /* an L2 table */
#define REFS_COUNT    (REFS_TABLE - 1)

typedef struct Check {
    Qcow2 *q;
    CheckResult *res;
    void (*message)(void *, bool, const char *);
    void *opaque;
    uint32_t *refs; /* per host cluster: REFS_* */
    uint64_t nb_refs;
    uint32_t *tables; /* per host cluster: how often snapshots refer to an L2 table there */
    uint32_t times;   /* that what is being walked is referred to */
    uint64_t next_expected; /* host offset that would continue the last data cluster */
    uint64_t snapshots_bytes; /* of the snapshot table */
    bool confused;            /* some cluster is both data and metadata */
    bool incomplete;          /* references that we cannot know may be missing */
} Check;

static void G_GNUC_PRINTF(3, 4) say(Check *c, bool is_error, const char *fmt, ...)
{
    if (!c->message) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    c->message(c->opaque, is_error, text);
}

static bool make_refs(Check *c, uint64_t clusters)
{
    c->nb_refs = clusters;
    c->refs = g_try_new0(uint32_t, max_u64(clusters, 1));
    return c->refs != NULL;
}

static void count_as(Check *c, uint64_t offset, uint64_t bytes, uint32_t kind)
{
    Qcow2 *q = c->q;
    if (bytes == 0) {
        return;
    }
    uint64_t first = offset >> q->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> q->cluster_bits;
    for (uint64_t i = first; i <= last; i++) {
        if (i >= c->nb_refs) {
            say(c, true, "ERROR: cluster %" PRIu64 " is outside of the image file", i);
            c->res->corruptions += c->times;
            return;
        }
        uint32_t count = c->refs[i] & REFS_COUNT;
        c->refs[i] = (c->refs[i] & ~REFS_COUNT) | kind | MIN((uint64_t)count + c->times, REFS_COUNT);
        c->confused |= (c->refs[i] & REFS_DATA) && (c->refs[i] & (REFS_METADATA | REFS_TABLE));
    }
}

static void count_range(Check *c, uint64_t offset, uint64_t bytes)
{
    count_as(c, offset, bytes, REFS_METADATA);
}

/* A referenced cluster's COPIED flag says "exactly one reference". */
static void coroutine_fn check_copied(Check *c, uint64_t entry, const char *what)
{
    uint64_t count;
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;
    if (refcount_co_get(c->q, offset >> c->q->cluster_bits, &count) == 0 &&
        (count == 1) != !!(entry & QCOW2_COPIED)) {
        say(c, true, "ERROR OFLAG_COPIED %s: l%d_entry=%" PRIx64 " refcount=%" PRIu64, what,
            strcmp(what, "L2 cluster") == 0 ? 1 : 2, entry, count);
        c->res->corruptions++;
    }
}

static void coroutine_fn check_l2_entry(Check *c, uint64_t entry, bool active)
{
    Qcow2 *q = c->q;
    if (entry & QCOW2_COMPRESSED) {
        uint64_t offset, len;
        compressed_location(q, entry, &offset, &len);
        if (entry & QCOW2_COPIED) {
            say(c, true, "ERROR: coffset=0x%" PRIx64 ": copied flag must never be set for "
                         "compressed clusters", offset);
            c->res->corruptions += c->times;
        }
        count_as(c, offset, len, REFS_DATA);
        if (active) {
            c->res->allocated_clusters++;
            c->res->compressed_clusters++;
            c->res->fragmented_clusters++;
        }
        return;
    }
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;
    if (entry & ~(QCOW2_COPIED | QCOW2_L2_OFFSET_MASK | QCOW2_ZERO)) {
        say(c, true, "ERROR found l2 entry with reserved bits set: %" PRIx64, entry);
        c->res->corruptions += c->times;
    }
    if (!offset) {
        return;
    }
    if (offset & (q->cluster_size - 1)) {
        say(c, true, "ERROR offset=%" PRIx64 ": Cluster is not properly aligned; L2 entry "
                     "corrupted.", offset);
        c->res->corruptions += c->times;
        return;
    }
    count_as(c, offset, q->cluster_size, REFS_DATA);
    if (active) {
        c->res->allocated_clusters++;
        if (c->next_expected && c->next_expected != offset) {
            c->res->fragmented_clusters++;
        }
        c->next_expected = offset + q->cluster_size;
        check_copied(c, entry, "data cluster");
    }
}

static int coroutine_fn check_l2_table(Check *c, uint64_t offset, bool active)
{
    Qcow2 *q = c->q;
    be64 *table = disk_buffer_try_alloc(4096, MAX(q->cluster_size, 4096));
    if (!table) {
        return -ENOMEM;
    }
    c->next_expected = 0; /* compat: stock counts fragments inside of one table */
    int ret = node_co_read_buf(q->file, offset, q->cluster_size, table);
    if (ret < 0) {
        say(c, true, "ERROR: I/O error in check_refcounts_l2");
        c->res->check_errors++;
    }
    for (uint64_t i = 0; ret == 0 && i < q->cluster_size / 8; i++) {
        check_l2_entry(c, be64_get(table[i]), active);
    }
    disk_buffer_free(table);
    return ret;
}

static int coroutine_fn check_l1(Check *c, uint64_t offset, uint64_t entries, bool active)
{
    Qcow2 *q = c->q;
    uint64_t bytes = entries * 8, tables = 0;
    count_range(c, offset, bytes);
    be64 *l1 = disk_buffer_try_alloc(4096, round_up(max_u64(bytes, 1), 4096));
    int ret = l1 ? 0 : -ENOMEM;
    if (ret == 0 && bytes) {
        ret = node_co_read_buf(q->file, offset, bytes, l1);
    }
    for (uint64_t i = 0; ret == 0 && i < entries; i++) {
        uint64_t entry = be64_get(l1[i]);
        uint64_t table = entry & QCOW2_L1_OFFSET_MASK;
        if (entry & ~(QCOW2_COPIED | QCOW2_L1_OFFSET_MASK)) {
            say(c, true, "ERROR found L1 entry with reserved bits set: %" PRIx64, entry);
            c->res->corruptions++;
        }
        if (!table) {
            continue;
        }
        if (table & (q->cluster_size - 1)) {
            say(c, true, "ERROR l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 "
                         "entry corrupted", table);
            c->res->corruptions++;
            continue;
        }
        count_as(c, table, q->cluster_size, REFS_TABLE);
        if (table >> q->cluster_bits >= c->nb_refs) {
            continue; /* said already */
        }
        if (!active) {
            uint32_t *seen = &c->tables[table >> q->cluster_bits];
            *seen += *seen < REFS_COUNT;
            continue;
        }
        if (++tables > c->nb_refs) { /* some of them again and again: it has no end */
            say(c, true, "ERROR an L1 table has more L2 tables than the file has clusters");
            c->res->corruptions++;
            c->incomplete = true;
            break;
        }
        check_copied(c, entry, "L2 cluster");
        ret = check_l2_table(c, table, true);
    }
    disk_buffer_free(l1);
    return ret;
}

/* The L2 tables that check_l1() has seen in snapshots. */
static int coroutine_fn check_snapshot_tables(Check *c)
{
    int ret = 0;
    for (uint64_t i = 0; ret == 0 && i < c->nb_refs; i++) {
        if (c->tables[i]) {
            c->times = c->tables[i];
            ret = check_l2_table(c, i << c->q->cluster_bits, false);
        }
    }
    c->times = 1;
    return ret;
}

/* The snapshot table, and the L1 tables of the snapshots. */
static int coroutine_fn check_snapshots(Check *c)
{
    Qcow2 *q = c->q;
    uint64_t pos = q->snapshots_offset, l1_bytes = 0;
    if (!q->nb_snapshots) {
        return 0;
    }
    c->tables = g_try_new0(uint32_t, max_u64(c->nb_refs, 1));
    if (!c->tables) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < q->nb_snapshots; i++) {
        Qcow2DiskSnapshot snap;
        int ret = node_co_read_buf(q->file, pos, sizeof(snap), &snap);
        if (ret < 0) {
            return ret;
        }
        uint64_t l1_size = be32_get(snap.l1_size);
        if (l1_size > QCOW2_MAX_L1_BYTES / 8) {
            say(c, true, "ERROR snapshot %" PRIu32 " has a too large L1 table", i);
            c->res->corruptions++;
            c->incomplete = true;
        } else {
            uint64_t l1 = be64_get(snap.l1_table_offset);
            uint64_t file_end = node_length(q->file);
            c->incomplete |= l1 & (q->cluster_size - 1) || l1 >= file_end;
            l1_bytes += l1_size * 8;
            if (l1_bytes > file_end) { /* they overlap, or are not there: it has no end */
                say(c, true, "ERROR the L1 tables of the snapshots are larger than the file");
                c->res->corruptions++;
                c->incomplete = true;
                return 0;
            }
            ret = check_l1(c, l1, l1_size, false);
            if (ret < 0) {
                return ret;
            }
        }
        pos += round_up(sizeof(snap) + (uint64_t)be32_get(snap.extra_data_size) +
                            be16_get(snap.id_size) + be16_get(snap.name_size), 8);
        if (pos - q->snapshots_offset > 64 * MiB) {
            return -EFBIG;
        }
    }
    c->snapshots_bytes = pos - q->snapshots_offset;
    count_range(c, q->snapshots_offset, c->snapshots_bytes);
    return check_snapshot_tables(c);
}

static void count_bitmap_range(void *opaque, uint64_t offset, uint64_t len)
{
    count_range(opaque, offset, len);
}

static void check_refcount_blocks(Check *c)
{
    Qcow2 *q = c->q;
    count_range(c, q->rt_offset, (uint64_t)q->rt_clusters << q->cluster_bits);
    for (uint32_t i = 0; i < q->rt_entries; i++) {
        uint64_t offset = q->rt[i] & QCOW2_RT_OFFSET_MASK;
        if (!offset) {
            continue;
        }
        if (offset & (q->cluster_size - 1)) {
            say(c, true, "ERROR refcount block %" PRIu32 " is not cluster aligned; refcount "
                         "table entry corrupted", i);
            c->res->corruptions++;
            continue;
        }
        count_range(c, offset, q->cluster_size);
    }
}

/* Does each of these clusters have one reference, the one from which we came? */
static bool alone(const Check *c, uint64_t offset, uint64_t bytes)
{
    const Qcow2 *q = c->q;
    uint64_t first = offset >> q->cluster_bits;
    uint64_t end = first + clusters_for(q, bytes);
    for (uint64_t i = first; i < end; i++) {
        if (i >= c->nb_refs || (c->refs[i] & REFS_COUNT) != 1) {
            return false;
        }
    }
    return true;
}

/* Repair writes to what it counts with: where that overlaps something else, or is not there,
 * it would change what nobody looks at now.  And it frees what nothing refers to: so it must
 * have seen all that refers. */
static bool can_repair(const Check *c)
{
    const Qcow2 *q = c->q;
    bool can = !c->incomplete && !c->confused && alone(c, 0, q->cluster_size) &&
               alone(c, q->snapshots_offset, c->snapshots_bytes) &&
               alone(c, q->l1_offset, q->l1_size * 8ULL) &&
               alone(c, q->rt_offset, (uint64_t)q->rt_clusters << q->cluster_bits);
    for (uint32_t i = 0; can && i < q->rt_entries; i++) {
        uint64_t offset = q->rt[i] & QCOW2_RT_OFFSET_MASK;
        can = !offset || alone(c, offset, q->cluster_size);
    }
    return can;
}

static int coroutine_fn collect(Check *c)
{
    Qcow2 *q = c->q;
    count_range(c, 0, q->cluster_size);
    int ret = check_l1(c, q->l1_offset, q->l1_size, true);
    if (ret == 0) {
        ret = check_snapshots(c);
    }
    if (ret == 0) {
        ret = bitmap_co_each_range(c->q, count_bitmap_range, c);
    }
    check_refcount_blocks(c);
    return ret;
}

static void coroutine_fn compare(Check *c, unsigned fix)
{
    Qcow2 *q = c->q;
    CheckResult *res = c->res;
    for (uint64_t i = 0; i < c->nb_refs; i++) {
        uint64_t count;
        uint32_t refs = c->refs[i] & REFS_COUNT;
        if (refcount_co_get(q, i, &count) < 0) {
            say(c, true, "Can't get refcount for cluster %" PRIu64, i);
            res->check_errors++;
            continue;
        }
        if (count || refs) {
            res->image_end_offset = (int64_t)((i + 1) << q->cluster_bits);
        }
        if (count == refs) {
            continue;
        }
        bool leak = count > refs;
        bool repair = fix & (leak ? CHECK_FIX_LEAKS : CHECK_FIX_ERRORS);
        if (repair && refcount_co_set(q, i, refs) == 0) {
            say(c, leak ? false : true,
                "Repairing cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu32, i,
                count, refs);
            *(leak ? &res->leaks_fixed : &res->corruptions_fixed) += 1;
            continue;
        }
        say(c, !leak, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu32,
            leak ? "Leaked" : "ERROR", i, count, refs);
        *(leak ? &res->leaks : &res->corruptions) += 1;
    }
}

/* The COPIED flag that an entry for @offset should have, when its count is right now. False:
 * leave the entry alone. */
static bool coroutine_fn copied_wrong(Check *c, uint64_t entry, uint64_t offset)
{
    uint64_t cluster = offset >> c->q->cluster_bits;
    uint64_t count;
    return offset && !(offset & (c->q->cluster_size - 1)) && cluster < c->nb_refs &&
           refcount_co_get(c->q, cluster, &count) == 0 && count &&
           count == (c->refs[cluster] & REFS_COUNT) && (count == 1) != !!(entry & QCOW2_COPIED);
}

/* The table of one L1 entry, on the disk: the cache keeps tables with entries that make no
 * sense as they are. One that has a second reference, from a snapshot or by mistake, only
 * loses flags: what it refers to is shared as well. */
static int coroutine_fn repair_copied_table(Check *c, uint64_t offset)
{
    Qcow2 *q = c->q;
    be64 *table = disk_buffer_try_alloc(4096, MAX(q->cluster_size, 4096));
    int ret = table ? node_co_read_buf(q->file, offset, q->cluster_size, table) : -ENOMEM;
    int64_t changed = 0;

    for (uint64_t i = 0; ret == 0 && i < q->cluster_size / 8; i++) {
        uint64_t entry = be64_get(table[i]);
        if (!(entry & QCOW2_COMPRESSED) &&
            copied_wrong(c, entry, entry & QCOW2_L2_OFFSET_MASK)) {
            table[i] = be64_make(entry ^ QCOW2_COPIED);
            changed++;
        }
    }
    if (ret == 0 && changed) {
        ret = node_co_write_buf(q->file, offset, q->cluster_size, table, 0);
    }
    if (ret == 0) {
        c->res->corruptions_fixed += changed;
    }
    disk_buffer_free(table);
    return ret;
}

/* Make the COPIED flags of the active tables say what the repaired counts say. */
static int coroutine_fn repair_copied(Check *c)
{
    Qcow2 *q = c->q;
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && i < q->l1_size; i++) {
        uint64_t entry = q->l1[i];
        uint64_t table = entry & QCOW2_L1_OFFSET_MASK;
        if (!table || (table & (q->cluster_size - 1))) {
            continue;
        }
        if (copied_wrong(c, entry, table)) {
            q->l1[i] = entry ^ QCOW2_COPIED;
            q->l1_dirty[i / 64 / 8] |= (uint8_t)(1 << (i / 64 % 8));
            q->l1_any_dirty = true;
            c->res->corruptions_fixed++;
        }
        uint64_t cluster = table >> q->cluster_bits;
        if (cluster < c->nb_refs && !(c->refs[cluster] & REFS_METADATA)) {
            ret = repair_copied_table(c, table);
        }
    }
    l2_co_settle(q);
    l2_cache_clear(q); /* order: all was flushed before the check; what it has is old now */
    return ret == 0 ? qcow2_co_flush(q->node) : ret;
}

/* Repair frees what nothing refers to: so nothing may be reserved, or known to this driver
 * alone. Nor may a guest be at work: whoever calls has drained the node. */
static int coroutine_fn prepare_repair(Qcow2 *q)
{
    if (BROKEN(BREAK_REPAIR_WINDOW)) {
        return qcow2_co_flush(q->node);
    }
    int ret = qcow2_co_come_to_rest(q);
    if (ret == 0 && (q->window_next != q->window_end || q->dropped->len ||
                     alloc_nb_quarantined(q) || !list_empty(&q->cache.dirty) ||
                     !list_empty(&q->cows))) {
        ret = -EBUSY;
    }
    /* what the allocator knows of free clusters is old when counts have changed */
    q->scan_cluster = 0;
    q->uncounted_first = q->uncounted_end = 0;
    return ret;
}

int coroutine_fn qcow2_co_check(BlockNode *node, unsigned fix,
                                void (*message)(void *, bool, const char *),
                                void *opaque, CheckResult *ret_result)
{
    Qcow2 *q = node->state;
    memset(ret_result, 0, sizeof(*ret_result));
    int ret = node->read_only ? 0 : fix ? prepare_repair(q) : qcow2_co_flush(node);
    if (ret < 0) {
        return ret;
    }
    Check c = {.q = q, .res = ret_result, .message = message, .opaque = opaque, .times = 1};
    ret_result->total_clusters = (int64_t)clusters_for(q, node->length);
    node_refresh_length(q->file);
    if (!make_refs(&c, clusters_for(q, node_length(q->file)))) {
        return -ENOMEM;
    }
    co_mutex_lock(&q->alloc_lock);
    ret = collect(&c);
    if (ret == 0 && fix && !can_repair(&c)) {
        say(&c, true, "ERROR: metadata overlaps or cannot be read; nothing is repaired");
        fix = 0;
    }
    if (ret == 0) {
        compare(&c, fix);
    }
    if (ret == 0 && fix) {
        ret = refcount_co_write_dirty(q);
    }
    co_mutex_unlock(&q->alloc_lock);
    if (ret == 0 && fix && !node->read_only) {
        ret = repair_copied(&c);
    }
    if (ret == 0 && fix) {
        ret = node_co_flush(q->file);
    }
    g_free(c.refs);
    g_free(c.tables);
    return ret;
}

bool coroutine_fn qcow2_co_repair_dirty(Qcow2 *q, GError **errp)
{
    CheckResult res;
    int ret = qcow2_co_check(q->node, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS, NULL, NULL, &res);
    if (ret == 0) { /* what the first pass found wrong, the second finds right */
        ret = qcow2_co_check(q->node, 0, NULL, NULL, &res);
    }
    if (ret == 0 && (res.corruptions || res.check_errors)) {
        ret = -EIO;
    }
    if (ret == 0) {
        q->incompatible &= ~(uint64_t)QCOW2_INCOMPAT_DIRTY;
        be64 field = be64_make(q->incompatible);
        ret = header_co_write_field(q, offsetof(Qcow2DiskHeader, incompatible_features),
                                    &field, sizeof(field));
    }
    if (ret == 0) {
        ret = node_co_flush(q->file);
    }
    if (ret < 0) {
        error_set_errno(errp, ret, "Could not repair dirty image");
        return false;
    }
    return true;
}
