/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Errors of the control path: one domain, the code is the QMP error class. */
#include "block/base/error.h"

#include <stdlib.h>
#include <string.h>

G_DEFINE_QUARK(qdp - error - quark, qdp_error)

const char *error_class_name(int error_class)
{
    switch (error_class) {
    case ERROR_CLASS_COMMAND_NOT_FOUND:
        return "CommandNotFound";
    case ERROR_CLASS_DEVICE_NOT_ACTIVE:
        return "DeviceNotActive";
    case ERROR_CLASS_DEVICE_NOT_FOUND:
        return "DeviceNotFound";
    case ERROR_CLASS_KVM_MISSING_CAP:
        return "KVMMissingCap";
    default:
        return "GenericError";
    }
}

static void G_GNUC_PRINTF(4, 0)
    setv(GError **errp, int code, const char *suffix, const char *fmt, va_list ap)
{
    if (!errp) {
        return;
    }
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    g_set_error(errp, QDP_ERROR, code, "%s%s%s", text, suffix ? ": " : "",
                suffix ? suffix : "");
}

void error_set(GError **errp, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    setv(errp, ERROR_CLASS_GENERIC_ERROR, NULL, fmt, ap);
    va_end(ap);
}

void error_set_class(GError **errp, ErrorClass error_class, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    setv(errp, error_class, NULL, fmt, ap);
    va_end(ap);
}

void error_set_errno(GError **errp, int err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    setv(errp, ERROR_CLASS_GENERIC_ERROR, strerror(abs(err)), fmt, ap);
    va_end(ap);
}
