/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The Xen commands. This build has no Xen: attaching says so, detaching has nothing to
 * do. */
#include <string.h>

#include "block/base/error.h"
#include "qapi/qapi-commands.h"

static bool check_type(const char *type, GError **errp)
{
    if (strcmp(type, "qdisk")) {
        error_set_class(errp, ERROR_CLASS_DEVICE_NOT_FOUND,
                        "Device type '%s' not supported", type);
        return false;
    }
    return true;
}

bool coroutine_fn qmp_xen_watch_device(const XenWatchDeviceArgs *args, GError **errp)
{
    if (check_type(args->type, errp)) {
        error_set(errp,
                  "Cannot serve device %" G_GINT64_FORMAT " of domain %" G_GINT64_FORMAT
                  ": Xen is not available",
                  args->devid, args->domid);
    }
    return false;
}

bool coroutine_fn qmp_xen_unwatch_device(const XenUnwatchDeviceArgs *args,
                                         GError **errp)
{
    return check_type(args->type, errp);
}
