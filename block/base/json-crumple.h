/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flattened options to nested ones: {"file.driver": "file", "file.filename": "x"} means
 * {"file": {"driver": "file", "filename": "x"}}, and "children.0.driver" the first item
 * of an array, as QEMU's users write them in "json:{...}" file names.
 */
#ifndef BLOCK_BASE_JSON_CRUMPLE_H
#define BLOCK_BASE_JSON_CRUMPLE_H

#include "block/base/json.h"

/*
 * Nest the dotted members of @object at every depth, in place. Flattened and nested
 * spellings of one member may be mixed ("file": {...} and "file.driver"). Members keep
 * the order of their first appearance. Values keep their types.
 *
 * False and *errp (GenericError), with @object as it was: a member that is given twice
 * or both with and without members of its own, list indexes that are not 0..n-1, an
 * empty part in a key, and the limits of json.h on the result. Does not yield nor
 * recurse.
 */
bool json_crumple(JsonValue *object, GError **errp);

#endif
