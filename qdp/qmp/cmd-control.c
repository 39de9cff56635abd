/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The monitor's own commands: version, command list, end. */
#include "qapi/qapi-commands.h"
#include "qapi/tables.h"
#include "qdp/qmp/session.h"

/* The level of QEMU's interface that the schema follows. */
#define INTERFACE_MAJOR 7
#define INTERFACE_MINOR 2
#define INTERFACE_MICRO 0

VersionInfo *monitor_version(void)
{
    VersionInfo *info = g_new0(VersionInfo, 1);

    info->qemu = g_new0(VersionTriple, 1);
    info->qemu->major = INTERFACE_MAJOR;
    info->qemu->minor = INTERFACE_MINOR;
    info->qemu->micro = INTERFACE_MICRO;
    info->package = g_strdup("qemu-dp " QDP_VERSION);
    return info;
}

VersionInfo *coroutine_fn qmp_query_version(GError **errp)
{
    return monitor_version();
}

CommandInfoList *coroutine_fn qmp_query_commands(GError **errp)
{
    CommandInfoList *list = NULL;

    for (unsigned i = qapi_nb_commands; i-- > 0;) {
        CommandInfoList *element = g_new0(CommandInfoList, 1);
        element->value = g_new0(CommandInfo, 1);
        element->value->name = g_strdup(qapi_string(qapi_commands[i].name));
        element->next = list;
        list = element;
    }
    return list;
}

bool coroutine_fn qmp_quit(GError **errp)
{
    /* order: the reply goes out before anything is closed; quit only begins it */
    monitor_host()->quit(SHUTDOWN_CAUSE_HOST_QMP_QUIT);
    return true;
}
