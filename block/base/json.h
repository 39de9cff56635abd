/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON values and a streaming parser.
 *
 * Invariants:
 *  J1 an object keeps the order of its members and never holds a key twice;
 *  J2 a string has no NUL byte inside; it is valid UTF-8 if it was parsed, but json_string()
 *     takes file names as they are: what is no UTF-8 in them prints as U+FFFD;
 *  J3 a number without fraction and exponent that fits int64 is JSON_INT; one that fits
 *     only uint64 is JSON_UINT; everything else is JSON_DOUBLE;
 *  J4 depth, token size and total size are limited by name, and the parser never recurses.
 *
 * A JsonValue is owned by exactly one owner: the tree it was put in, or the caller.
 * spec: RFC 8259, and the QMP specification's leniency (single-quoted strings accepted).
 */
#ifndef BLOCK_BASE_JSON_H
#define BLOCK_BASE_JSON_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum JsonType {
    JSON_NULL,
    JSON_BOOL,
    JSON_INT,
    JSON_UINT,
    JSON_DOUBLE,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
} JsonType;

#define JSON_MAX_DEPTH 1024
#define JSON_MAX_BYTES (64u << 20)
#define JSON_MAX_VALUES (2u << 20) /* in one text: "0,0,0" costs far more than its bytes */

typedef struct JsonValue JsonValue;

/* Constructors: the caller owns the result. Strings are copied. Integers choose J3. */
JsonValue *json_null(void);
JsonValue *json_bool(bool value);
JsonValue *json_int(int64_t value);
JsonValue *json_uint(uint64_t value);
JsonValue *json_double(double value);
JsonValue *json_string(const char *value);
JsonValue *json_string_printf(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
JsonValue *json_array(void);
JsonValue *json_object(void);
JsonValue *json_copy(const JsonValue *value);
void json_free(JsonValue *value);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JsonValue, json_free)

JsonType json_type(const JsonValue *value);
const char *json_type_name(JsonType type);

/* Scalars. The _get_ functions return false when the type does not fit. int accepts a
 * JSON_UINT never, uint accepts a non-negative JSON_INT, double accepts all numbers. */
bool json_get_bool(const JsonValue *value, bool *ret_value);
bool json_get_int(const JsonValue *value, int64_t *ret_value);
bool json_get_uint(const JsonValue *value, uint64_t *ret_value);
bool json_get_double(const JsonValue *value, double *ret_value);
const char *json_get_string(const JsonValue *value); /* NULL if not a string; borrowed */

/* Arrays. append takes ownership of @item. */
size_t json_array_size(const JsonValue *array);
JsonValue *json_array_at(const JsonValue *array, size_t i); /* borrowed */
void json_array_append(JsonValue *array, JsonValue *item);

/* Objects. set takes ownership of @item and replaces a member of that name; lookup
 * borrows, take hands over and removes. */
size_t json_object_size(const JsonValue *object);
const char *json_object_key_at(const JsonValue *object, size_t i);
JsonValue *json_object_value_at(const JsonValue *object, size_t i);
JsonValue *json_object_lookup(const JsonValue *object, const char *key);
JsonValue *json_object_take(JsonValue *object, const char *key);
void json_object_set(JsonValue *object, const char *key, JsonValue *item);
/* Shorthands: json_object_set(object, key, json_string(value)), ... */
void json_object_set_string(JsonValue *object, const char *key, const char *value);
void json_object_set_int(JsonValue *object, const char *key, int64_t value);
void json_object_set_uint(JsonValue *object, const char *key, uint64_t value);
void json_object_set_bool(JsonValue *object, const char *key, bool value);

/* Text. Compact: one line, ", " and ": " between (as QEMU writes on a QMP socket).
 * Pretty: four spaces of indent per level. Non-ASCII is written as \uXXXX escapes.
 * The caller frees with g_free / the GString is the caller's. */
char *json_to_string(const JsonValue *value);
char *json_to_string_pretty(const JsonValue *value);
void json_append_to(const JsonValue *value, GString *out);

/* One complete text. NULL and *errp on failure or trailing rubbish. */
JsonValue *json_parse(const char *text, GError **errp);

/*
 * A stream of values with nothing or white space between them, split anywhere.
 * @emit receives each complete value (and owns it), or value NULL and the error
 * (borrowed) of a bad one; after an error the parser resynchronises at the next newline
 * or when nesting returns to 0 and goes on. A byte that no text can hold (a control
 * character, 0xFE, 0xFF) resynchronises at once: spec: QMP specification, "Forcing the
 * JSON parser into known-good state". @emit must not free the parser.
 */
typedef struct JsonParser JsonParser;
typedef void JsonEmit(void *opaque, JsonValue *value, const GError *error);
JsonParser *json_parser_new(JsonEmit *emit, void *opaque);
void json_parser_free(JsonParser *parser);
void json_parser_feed(JsonParser *parser, const char *data, size_t len);

#endif
