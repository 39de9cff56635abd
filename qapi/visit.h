/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Typed values from and to JSON, by table.  The generated headers wrap these functions
 * for each type; call those: qapi_Foo_from_json(), qapi_Foo_to_json(), qapi_free_Foo().
 */
#ifndef QAPI_VISIT_BY_TABLE_H
#define QAPI_VISIT_BY_TABLE_H

#include <glib.h>
#include <stdbool.h>
#include "block/base/json.h"

typedef enum QapiMode {
    QAPI_STRICT, /* JSON types must match */
    QAPI_KEYVAL, /* from a command line: scalars are strings (on/off, 64k, 1G) */
} QapiMode;

/*
 * Make a typed value; the caller frees it.  @what names the value in messages ("" or
 * NULL for a command's arguments; a member's path is put behind it).  Unknown and
 * missing members, wrong types and numbers out of range are errors, worded as QEMU
 * does.
 */
void *qapi_from_json(unsigned type, const JsonValue *json, const char *what,
                     QapiMode mode, GError **errp);

/* The reverse; absent optional members are left out. Never fails. */
JsonValue *qapi_to_json(unsigned type, const void *value);

/* Free deeply; NULL is legal. */
void qapi_free(unsigned type, void *value);

/* A deep copy; NULL gives NULL. */
void *qapi_copy(unsigned type, const void *value);

/* NULL for a value out of range. / -1 for an unknown text. */
const char *qapi_enum_str(unsigned type, unsigned value);
int qapi_enum_parse(unsigned type, const char *text);

/* The reply of query-qmp-schema, built anew at each call; the caller owns it. */
JsonValue *qapi_introspect(void);

/* The number of the command of this name, or -1. */
int qapi_command_lookup(const char *name);

#endif
