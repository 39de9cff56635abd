/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "driver=qcow2,file.driver=file,file.filename=a,,b" to nested JSON objects, whose
 * leaves are strings.  A doubled comma stands for a comma in a value; digits as a
 * path's component make an array.  The result goes through the visitors in keyval mode.
 */
#ifndef QAPI_KEYVAL_H
#define QAPI_KEYVAL_H

#include <glib.h>
#include <stdbool.h>
#include "block/base/json.h"

/*
 * Parse @text to an object (the caller's).  @implied_key, unless NULL, is the key of a
 * first part without "=".  With @ret_help a part "help" or "?" sets *ret_help and is
 * left out; without, it is an error.  A text that starts with "{" or "json:{" is JSON
 * and must be an object.
 */
JsonValue *keyval_parse(const char *text, const char *implied_key, bool *ret_help,
                        GError **errp);

/* A size "64k", "1.5G", "4096": bytes.  False and *errp unless the whole text is one.
 */
bool keyval_parse_size(const char *text, uint64_t *ret_size, GError **errp);

#endif
