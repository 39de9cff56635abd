/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * iothread objects: names with polling parameters.  There is one data thread; it polls by
 * the longest time of the iothreads that exports use.
 *
 * compat: QEMU 7.2's defaults and error texts.  As there, an object that is in use may be
 * deleted: its name is free at once, what it does lasts until its last export goes.
 */
#include <string.h>

#include "block/base/error.h"
#include "block/base/identifier.h"
#include "qdp/export/iothread.h"

#define POLL_MAX_NS 32768

struct IoThread {
    ListLink link; /* table->threads; not linked: deleted, and still in use */
    ListLink in_use;
    char *id;
    unsigned users;
    int64_t poll_max_ns;
    unsigned poll_grow, poll_shrink;
};

void iothread_table_init(IoThreadTable *table, Loop *loop)
{
    table->loop = loop;
    list_init(&table->threads);
    list_init(&table->in_use);
}

static void free_if_unused(IoThread *thread)
{
    if (!thread->users && !list_linked(&thread->link)) {
        g_free(thread->id);
        g_free(thread);
    }
}

void iothread_table_fini(IoThreadTable *table)
{
    g_assert(list_empty(&table->in_use));
    while (!list_empty(&table->threads)) {
        IoThread *thread = list_first(&table->threads, IoThread, link);
        list_remove(&thread->link);
        free_if_unused(thread);
    }
}

static IoThread *find(const IoThreadTable *table, const char *id)
{
    list_foreach(it, &table->threads) {
        IoThread *thread = container_of(it, IoThread, link);
        if (strcmp(thread->id, id) == 0) {
            return thread;
        }
    }
    return NULL;
}

static bool check_properties(const IothreadProperties *p, GError **errp)
{
    const struct {
        const char *name;
        int64_t value;
    } all[] = {
        {"poll-max-ns", p->has_poll_max_ns ? p->poll_max_ns : 0},
        {"poll-grow", p->has_poll_grow ? p->poll_grow : 0},
        {"poll-shrink", p->has_poll_shrink ? p->poll_shrink : 0},
        {"aio-max-batch", p->has_aio_max_batch ? p->aio_max_batch : 0},
        {"thread-pool-min", p->has_thread_pool_min ? p->thread_pool_min : 0},
        {"thread-pool-max", p->has_thread_pool_max ? p->thread_pool_max : 64},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
        if (all[i].value < 0) {
            error_set(errp, "%s value must be in range [0, %" G_GINT64_FORMAT "]",
                      all[i].name, G_MAXINT64);
            return false;
        }
    }
    if (!all[5].value || all[5].value < all[4].value) {
        error_set(errp, "bad thread-pool-min/thread-pool-max values");
        return false;
    }
    return true;
}

bool iothread_add(IoThreadTable *table, const char *id, const IothreadProperties *p,
                  GError **errp)
{
    if (!is_identifier(id)) {
        error_set(errp, "Parameter 'id' expects an identifier");
        return false;
    }
    if (!check_properties(p, errp)) {
        return false;
    }
    if (find(table, id)) {
        error_set(errp,
                  "attempt to add duplicate property '%s' to object (type 'container')",
                  id);
        return false;
    }
    IoThread *thread = g_new0(IoThread, 1);
    thread->id = g_strdup(id);
    thread->poll_max_ns = p->has_poll_max_ns ? p->poll_max_ns : POLL_MAX_NS;
    thread->poll_grow = p->has_poll_grow ? (unsigned)MIN(p->poll_grow, G_MAXINT32) : 0;
    thread->poll_shrink =
        p->has_poll_shrink ? (unsigned)MIN(p->poll_shrink, G_MAXINT32) : 0;
    list_init(&thread->in_use);
    list_append(&table->threads, &thread->link);
    return true;
}

bool iothread_del(IoThreadTable *table, const char *id, GError **errp)
{
    IoThread *thread = find(table, id);

    if (!thread) {
        error_set(errp, "object '%s' not found", id);
        return false;
    }
    list_remove(&thread->link);
    free_if_unused(thread);
    return true;
}

static void set_polling(const IoThreadTable *table)
{
    const IoThread *longest = NULL;

    list_foreach(it, &table->in_use) {
        const IoThread *thread = container_of(it, IoThread, in_use);
        if (!longest || thread->poll_max_ns > longest->poll_max_ns) {
            longest = thread;
        }
    }
    loop_set_polling(table->loop, longest ? longest->poll_max_ns : 0,
                     longest ? longest->poll_grow : 0, longest ? longest->poll_shrink : 0);
}

IoThread *iothread_get(IoThreadTable *table, const char *id, GError **errp)
{
    IoThread *thread = find(table, id);

    if (!thread) {
        error_set(errp, "iothread \"%s\" not found", id);
        return NULL;
    }
    if (!thread->users++) {
        list_append(&table->in_use, &thread->in_use);
        set_polling(table);
    }
    return thread;
}

void iothread_put(IoThreadTable *table, IoThread *thread)
{
    if (thread && !--thread->users) {
        list_remove(&thread->in_use);
        set_polling(table);
        free_if_unused(thread);
    }
}
