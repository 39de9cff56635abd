/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors of the control path.
 *
 * One GError domain; the code is the QMP error class, so that a handler's GError becomes
 * a QMP error reply without a table.  The data path does not use this: it returns 0 or
 * -errno and allocates nothing (block/README.md, rule R5).
 */
#ifndef BLOCK_BASE_ERROR_H
#define BLOCK_BASE_ERROR_H

#include <glib.h>

/* spec: QMP specification, "Error classes". */
typedef enum ErrorClass {
    ERROR_CLASS_GENERIC_ERROR,
    ERROR_CLASS_COMMAND_NOT_FOUND,
    ERROR_CLASS_DEVICE_NOT_ACTIVE,
    ERROR_CLASS_DEVICE_NOT_FOUND,
    ERROR_CLASS_KVM_MISSING_CAP,
} ErrorClass;

#define QDP_ERROR (qdp_error_quark())
GQuark qdp_error_quark(void);

/* The class's name on the wire: "GenericError", ... */
const char *error_class_name(int error_class);

/* Set *errp (which may be NULL) to a GenericError with this text.  Never fails. */
void error_set(GError **errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* The same with another class. */
void error_set_class(GError **errp, ErrorClass error_class, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/* "TEXT: strerror(err)"; @err is a positive or negative errno. */
void error_set_errno(GError **errp, int err, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

#endif
