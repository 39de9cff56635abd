/* SPDX-License-Identifier: GPL-2.0-or-later */
/* iothread objects: see iothread.c. */
#ifndef QDP_EXPORT_IOTHREAD_H
#define QDP_EXPORT_IOTHREAD_H

#include <glib.h>
#include <stdbool.h>
#include "block/aio/loop.h"
#include "qapi/qapi-types.h"

typedef struct IoThread IoThread;
typedef struct IoThreadTable {
    Loop *loop;
    ListLink threads, in_use;
} IoThreadTable;

void iothread_table_init(IoThreadTable *table, Loop *loop);
/* Nothing may be in use. */
void iothread_table_fini(IoThreadTable *table);
/* object-add, object-del; QEMU's texts. */
bool iothread_add(IoThreadTable *table, const char *id, const IothreadProperties *p,
                  GError **errp);
bool iothread_del(IoThreadTable *table, const char *id, GError **errp);
/* For an export's life: its polling applies. NULL and *errp when there is none. */
IoThread *iothread_get(IoThreadTable *table, const char *id, GError **errp);
void iothread_put(IoThreadTable *table, IoThread *thread); /* NULL is nothing */

#endif
