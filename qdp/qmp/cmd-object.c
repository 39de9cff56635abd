/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands about objects: the threads of exports. */
#include "qapi/qapi-commands.h"
#include "qdp/qmp/monitor.h"

bool coroutine_fn qmp_object_add(const ObjectOptions *args, GError **errp)
{
    return export_iothread_add(monitor_host()->exports, args->id, &args->u.iothread, errp);
}

bool coroutine_fn qmp_object_del(const ObjectDelArgs *args, GError **errp)
{
    return export_iothread_del(monitor_host()->exports, args->id, errp);
}
