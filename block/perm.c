/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Permissions: who may do what to a node, and who tolerates whom.
 *
 * Every edge says what its parent needs of the child (perm) and what it tolerates others
 * to do (shared).  A change is planned over all nodes below, checked, and only then
 * committed, so that a refused change leaves nothing behind.
 *
 * Invariants (outside of a change):
 *  M1 for two edges a, b of one node: a.perm is a subset of b.shared;
 *  M2 node->writing is "some parent holds WRITE, WRITE_UNCHANGED or RESIZE".
 */
#include <string.h>

#include "block/base/error.h"
#include "block/graph-private.h"

#define PERM_WRITES (PERM_WRITE | PERM_WRITE_UNCHANGED | PERM_RESIZE)

static char *perm_names(unsigned perm)
{
    static const char *const names[] = {"consistent read", "write", "write unchanged",
                                        "resize"};
    GString *out = g_string_new(NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (perm & (1u << i)) {
            g_string_append_printf(out, "%s%s", out->len ? ", " : "", names[i]);
        }
    }
    return g_string_free(out, FALSE);
}

/* "node 'fmt'", "block device 'drive0'": who stands above an edge. */
static char *edge_user(const BlockEdge *edge)
{
    if (edge->parent_node) {
        return g_strdup_printf("node '%s'", edge->parent_node->name);
    }
    const BlockPort *port = edge->parent_port;
    if (port->name && port->name[0]) {
        return g_strdup_printf("%s '%s'", port->user && port->user->kind ? port->user->kind
                                                                         : "block device",
                               port->name);
    }
    return g_strdup("an unnamed block device");
}

static void set_conflict(const BlockEdge *needs, const BlockEdge *refuses, GError **errp)
{
    g_autofree char *names = perm_names(needs->plan_perm & ~refuses->plan_shared);
    g_autofree char *who = edge_user(needs);
    g_autofree char *other = edge_user(refuses);
    const char *child = needs->child->name;
    error_set(errp,
              "Permission conflict on node '%s': permissions '%s' are both required by %s "
              "(uses node '%s' as '%s' child) and unshared by %s (uses node '%s' as '%s' "
              "child).",
              child, names, who, child, needs->role, other, child, refuses->role);
}

static bool check_node(const BlockNode *node, GError **errp)
{
    list_foreach(a, &node->parents) {
        list_foreach(b, &node->parents) {
            const BlockEdge *needs = container_of(a, BlockEdge, in_child);
            const BlockEdge *refuses = container_of(b, BlockEdge, in_child);
            if (a != b && (needs->plan_perm & ~refuses->plan_shared)) {
                set_conflict(needs, refuses, errp);
                return false;
            }
        }
    }
    return true;
}

static void planned(const BlockNode *node, unsigned *ret_perm, unsigned *ret_shared)
{
    *ret_perm = 0;
    *ret_shared = PERM_ALL;
    list_foreach(it, &node->parents) {
        const BlockEdge *edge = container_of(it, BlockEdge, in_child);
        *ret_perm |= edge->plan_perm;
        *ret_shared &= edge->plan_shared;
    }
}

/* Plan all edges below @node; graphs are shallow but for backing chains, which open.c
 * limits, and this runs on control stacks. */
static bool plan_below(BlockNode *node, GError **errp)
{
    unsigned perm, shared;
    if (!check_node(node, errp)) {
        return false;
    }
    planned(node, &perm, &shared);
    if (node->read_only && (perm & (PERM_WRITE | PERM_RESIZE))) {
        error_set(errp, "Block node is read-only");
        return false;
    }
    list_foreach(it, &node->children) {
        BlockEdge *edge = container_of(it, BlockEdge, in_parent);
        node->drv->child_perm(node, edge, perm, shared, &edge->plan_perm,
                              &edge->plan_shared);
        if (!plan_below(edge->child, errp)) {
            return false;
        }
    }
    return true;
}

static void forget_plan(BlockNode *node)
{
    list_foreach(it, &node->children) {
        BlockEdge *edge = container_of(it, BlockEdge, in_parent);
        edge->plan_perm = edge->perm;
        edge->plan_shared = edge->shared;
        forget_plan(edge->child);
    }
}

/* order: writers are welcomed from the file upwards and let go from the top downwards,
 * so that a format always has a writable file under it while it writes. */
static bool coroutine_fn acquire_below(BlockNode *node, GError **errp)
{
    list_foreach(it, &node->children) {
        if (!acquire_below(container_of(it, BlockEdge, in_parent)->child, errp)) {
            return false;
        }
    }
    unsigned perm, shared;
    planned(node, &perm, &shared);
    if (!node->writing && (perm & PERM_WRITES)) {
        bool ok = true;
        if (node->drv->co_set_writing) {
            /* order: it may read the image again, and readers of other ports look up what
             * they look up in tables that are being replaced */
            GraphDrain drain;
            graph_co_drain_begin(&drain, node);
            ok = node->drv->co_set_writing(node, true, errp);
            graph_drain_end(&drain);
        }
        if (!ok) {
            return false;
        }
        node->writing = true;
    }
    return true;
}

static bool coroutine_fn release_below(BlockNode *node, GError **errp)
{
    bool ok = true;
    unsigned perm, shared;
    planned(node, &perm, &shared);
    if (node->writing && !(perm & PERM_WRITES)) {
        if (node->drv->co_set_writing) {
            /* order: it frees what readers of other ports may have mapped still */
            GraphDrain drain;
            graph_co_drain_begin(&drain, node);
            ok = node->drv->co_set_writing(node, false, errp);
            graph_drain_end(&drain);
        }
        node->writing = false;
    }
    list_foreach(it, &node->children) {
        ok &= release_below(container_of(it, BlockEdge, in_parent)->child,
                            ok ? errp : NULL);
    }
    return ok;
}

static void commit_below(BlockNode *node)
{
    list_foreach(it, &node->children) {
        BlockEdge *edge = container_of(it, BlockEdge, in_parent);
        edge->perm = edge->plan_perm;
        edge->shared = edge->plan_shared;
        commit_below(edge->child);
    }
}

bool coroutine_fn perm_co_update(BlockNode *node, GError **errp)
{
    if (!plan_below(node, errp)) {
        forget_plan(node);
        return false;
    }
    /* Once releasing began there is no way back: its errors are reported, not undone. */
    if (!acquire_below(node, errp)) {
        forget_plan(node);
        release_below(node, NULL);
        return false;
    }
    commit_below(node);
    return release_below(node, errp);
}

bool coroutine_fn perm_co_change(BlockEdge *edge, unsigned perm, unsigned shared,
                                 GError **errp)
{
    edge->plan_perm = perm;
    edge->plan_shared = shared;
    if (!perm_co_update(edge->child, errp)) {
        edge->plan_perm = edge->perm;
        edge->plan_shared = edge->shared;
        return false;
    }
    edge->perm = perm;
    edge->shared = shared;
    return true;
}

/* ---- what drivers need of their children ---- */

void format_child_perm(BlockNode *node, const BlockEdge *edge, unsigned perm,
                       unsigned shared, unsigned *ret_perm, unsigned *ret_shared)
{
    if (strcmp(edge->role, "backing") == 0) {
        /* Nobody may change what the overlay was made over. */
        *ret_perm = PERM_CONSISTENT_READ;
        *ret_shared = PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED;
        return;
    }
    bool writes = !node->read_only && !node->demoted;
    *ret_perm = PERM_CONSISTENT_READ;
    *ret_shared = PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED;
    if (writes || (perm & PERM_WRITES)) {
        /* Metadata is written even when no guest writes. */
        *ret_perm |= PERM_WRITE | PERM_RESIZE;
        *ret_shared = PERM_CONSISTENT_READ | PERM_WRITE_UNCHANGED;
    }
    if (node->force_share) {
        *ret_shared = PERM_ALL;
    }
}

void filter_child_perm(BlockNode *node, const BlockEdge *edge, unsigned perm,
                       unsigned shared, unsigned *ret_perm, unsigned *ret_shared)
{
    *ret_perm = perm;
    *ret_shared = shared;
    if (node->force_share) {
        *ret_shared = PERM_ALL;
    }
}
