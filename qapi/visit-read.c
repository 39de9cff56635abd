/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From JSON to typed values, by table: strict about members, types and ranges.
 *
 * Invariants:
 *  R1 on failure everything made so far is freed and *errp is set once;
 *  R2 memory is zeroed before it is filled, so that a half built value can be freed;
 *  R3 recursion is limited by QAPI_MAX_DEPTH: handlers run on small stacks.
 * compat: the texts are those of QEMU 7.2's visitors.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "block/base/error.h"
#include "qapi/keyval.h"
#include "qapi/tables.h"
#include "qapi/visit.h"
#include "qapi/walk.h"

#define QAPI_MAX_DEPTH 160

/* Where we are, for messages: a list on the stack, innermost first. */
typedef struct Place {
    const struct Place *parent;
    const char *name; /* NULL: an array element */
    size_t index;
    unsigned depth;
} Place;

typedef struct Reader {
    QapiMode mode;
    GError **errp;
} Reader;

static bool read_slot(const Reader *r, unsigned type, char *slot, const JsonValue *json,
                      const Place *place);

static void append_place(GString *out, const Place *place)
{
    if (!place) {
        return;
    }
    append_place(out, place->parent);
    if (!place->name) {
        g_string_append_printf(out, "[%zu]", place->index);
    } else if (place->name[0]) {
        g_string_append_printf(out, "%s%s", out->len ? "." : "", place->name);
    }
}

static char *place_text(const Place *place)
{
    GString *out = g_string_new(NULL);

    append_place(out, place);
    if (!out->len) {
        g_string_append(out, "<anonymous>");
    }
    return g_string_free(out, FALSE);
}

/* An array's element is called as the array. */
static const char *own_name(const Place *place)
{
    while (!place->name && place->parent) {
        place = place->parent;
    }
    return place->name && place->name[0] ? place->name : "<anonymous>";
}

static bool fail(const Reader *r, const Place *place, const char *what)
{
    g_autofree char *text = place_text(place);

    error_set(r->errp, "Parameter '%s' %s", text, what);
    return false;
}

static bool fail_type(const Reader *r, const Place *place, const char *expected)
{
    g_autofree char *text = place_text(place);

    error_set(r->errp, "Invalid parameter type for '%s', expected: %s", text, expected);
    return false;
}

static bool fail_member(const Reader *r, const Place *place, const char *name,
                        const char *what)
{
    Place member = {.parent = place, .name = name};
    g_autofree char *text = place_text(&member);

    error_set(r->errp, "Parameter '%s' is %s", text, what);
    return false;
}

/* ---- scalars ---- */

static bool keyval_bool(const Reader *r, const char *text, bool *ret,
                        const Place *place)
{
    if (!strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true") ||
        !strcmp(text, "y")) {
        *ret = true;
    } else if (!strcmp(text, "off") || !strcmp(text, "no") || !strcmp(text, "false") ||
               !strcmp(text, "n")) {
        *ret = false;
    } else {
        return fail(r, place, "expects 'on' or 'off'");
    }
    return true;
}

static bool read_bool(const Reader *r, bool *ret, const JsonValue *json,
                      const Place *place)
{
    const char *text = json_get_string(json);

    if (r->mode == QAPI_KEYVAL && text) {
        return keyval_bool(r, text, ret, place);
    }
    return json_get_bool(json, ret) || fail_type(r, place, "boolean");
}

/* A whole number from a command line: decimal, 0x.., or with a size suffix. */
static bool keyval_number(const char *text, int64_t *ret_int, uint64_t *ret_uint)
{
    char *end;

    errno = 0;
    if (text[0] == '-') {
        *ret_int = strtoll(text, &end, 0);
        *ret_uint = UINT64_MAX;
        return !errno && !*end && end != text;
    }
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        *ret_uint = strtoull(text, &end, 16);
        if (errno || *end) {
            return false;
        }
    } else if (!keyval_parse_size(text, ret_uint, NULL)) {
        return false;
    }
    *ret_int = *ret_uint > INT64_MAX ? -1 : (int64_t)*ret_uint;
    return true;
}

static bool fail_keyval_number(const Reader *r, QapiKind kind, const Place *place)
{
    if (kind == QAPI_KIND_SIZE) {
        return fail(r, place, "expects a size");
    }
    return fail(r, place, "expects integer");
}

static bool fail_range(const Reader *r, const Place *place, unsigned bits,
                       bool is_signed)
{
    /* compat: the member's own name here, not its path */
    error_set(r->errp, "Parameter '%s' expects %sint%u_t", own_name(place),
              is_signed ? "" : "u", bits);
    return false;
}

static bool read_signed(const Reader *r, QapiKind kind, char *slot,
                        const JsonValue *json, const Place *place)
{
    const char *text = r->mode == QAPI_KEYVAL ? json_get_string(json) : NULL;
    unsigned bits = 8u << (kind - QAPI_KIND_INT8);
    uint64_t positive = 0;
    int64_t value;

    if (text) {
        if (!keyval_number(text, &value, &positive) ||
            (text[0] != '-' && positive > INT64_MAX)) {
            return fail_keyval_number(r, kind, place);
        }
    } else if (!json_get_int(json, &value)) {
        return fail_type(r, place, "integer");
    }
    if (bits < 64 &&
        (value < -(INT64_C(1) << (bits - 1)) || value >= INT64_C(1) << (bits - 1))) {
        return fail_range(r, place, bits, true);
    }
    switch (kind) {
    case QAPI_KIND_INT8:
        *(int8_t *)slot = (int8_t)value;
        break;
    case QAPI_KIND_INT16:
        *(int16_t *)slot = (int16_t)value;
        break;
    case QAPI_KIND_INT32:
        *(int32_t *)slot = (int32_t)value;
        break;
    default:
        *(int64_t *)slot = value;
    }
    return true;
}

static bool read_unsigned(const Reader *r, QapiKind kind, char *slot,
                          const JsonValue *json, const Place *place)
{
    const char *text = r->mode == QAPI_KEYVAL ? json_get_string(json) : NULL;
    unsigned bits = kind == QAPI_KIND_SIZE ? 64 : 8u << (kind - QAPI_KIND_UINT8);
    int64_t negative;
    uint64_t value;

    if (text) {
        if (text[0] == '-' || !keyval_number(text, &negative, &value)) {
            return fail_keyval_number(r, kind, place);
        }
    } else if (!json_get_uint(json, &value)) {
        if (json_get_int(json, &negative)) {
            return fail_range(r, place, bits, false);
        }
        return fail_type(r, place, "integer");
    }
    if (bits < 64 && value >> bits) {
        return fail_range(r, place, bits, false);
    }
    switch (kind) {
    case QAPI_KIND_UINT8:
        *(uint8_t *)slot = (uint8_t)value;
        break;
    case QAPI_KIND_UINT16:
        *(uint16_t *)slot = (uint16_t)value;
        break;
    case QAPI_KIND_UINT32:
        *(uint32_t *)slot = (uint32_t)value;
        break;
    default:
        *(uint64_t *)slot = value;
    }
    return true;
}

static bool read_number(const Reader *r, double *ret, const JsonValue *json,
                        const Place *place)
{
    const char *text = r->mode == QAPI_KEYVAL ? json_get_string(json) : NULL;
    char *end;

    if (text) {
        *ret = g_ascii_strtod(text, &end);
        if (end == text || *end || !isfinite(*ret)) {
            return fail_type(r, place, "number");
        }
        return true;
    }
    return json_get_double(json, ret) || fail_type(r, place, "number");
}

static bool read_enum(const Reader *r, unsigned type, unsigned *ret,
                      const JsonValue *json, const Place *place)
{
    const char *text = json_get_string(json);
    int value;

    if (!text) {
        return fail_type(r, place, "string");
    }
    value = qapi_enum_parse(type, text);
    if (value < 0) {
        /* compat: the member's own name here, not its path */
        error_set(r->errp, "Parameter '%s' does not accept value '%s'", own_name(place),
                  text);
        return false;
    }
    *ret = (unsigned)value;
    return true;
}

/* ---- structs ---- */

static bool member_known(const QapiType *t, const char *key)
{
    for (unsigned i = 0; i < t->count; i++) {
        if (!strcmp(qapi_string(qapi_members[t->first + i].name), key)) {
            return true;
        }
    }
    return false;
}

static bool read_members(const Reader *r, const QapiType *t, char *value,
                         const JsonValue *json, const Place *place)
{
    for (unsigned i = 0; i < t->count; i++) {
        const QapiMember *m = &qapi_members[t->first + i];
        const char *name = qapi_string(m->name);
        const JsonValue *item = json_object_lookup(json, name);
        Place at = {.parent = place, .name = name, .depth = place->depth + 1};

        if (!item) {
            if (!m->optional) {
                return fail_member(r, place, name, "missing");
            }
            continue;
        }
        if (!read_slot(r, m->type, value + m->offset, item, &at)) {
            return false;
        }
        if (m->has_offset != QAPI_NO_OFFSET) {
            *(bool *)(value + m->has_offset) = true;
        }
    }
    return true;
}

static bool read_struct(const Reader *r, unsigned type, char *value,
                        const JsonValue *json, const Place *place)
{
    const QapiType *t = &qapi_types[type];
    const QapiVariant *variant;

    if (json_type(json) != JSON_OBJECT) {
        return fail_type(r, place, "object");
    }
    if (!read_members(r, t, value, json, place)) {
        return false;
    }
    variant = qapi_struct_variant(t, value);
    if (variant && !read_members(r, &qapi_types[variant->type], value + t->u_offset,
                                 json, place)) {
        return false;
    }
    for (size_t i = 0; i < json_object_size(json); i++) {
        const char *key = json_object_key_at(json, i);
        if (!member_known(t, key) &&
            !(variant && member_known(&qapi_types[variant->type], key))) {
            return fail_member(r, place, key, "unexpected");
        }
    }
    return true;
}

static bool read_alternate(const Reader *r, unsigned type, char *value,
                           const JsonValue *json, const Place *place)
{
    const QapiType *t = &qapi_types[type];
    const QapiMember *m = qapi_alternate_branch(t, json_type(json));

    if (!m) {
        return fail_type(r, place, qapi_string(t->name));
    }
    *(JsonType *)value = json_type(json);
    return read_slot(r, m->type, value + m->offset, json, place);
}

static bool read_list(const Reader *r, unsigned type, char **head,
                      const JsonValue *json, const Place *place)
{
    const QapiType *t = &qapi_types[type];
    char **tail = head;

    if (json_type(json) != JSON_ARRAY) {
        return fail_type(r, place, "array");
    }
    for (size_t i = 0; i < json_array_size(json); i++) {
        Place at = {.parent = place, .index = i, .depth = place->depth + 1};
        char *element = g_malloc0(t->size);

        *tail = element;
        tail = (char **)element;
        if (!read_slot(r, t->first, element + QAPI_LIST_VALUE, json_array_at(json, i),
                       &at)) {
            return false;
        }
    }
    return true;
}

static bool read_pointer(const Reader *r, unsigned type, char **slot,
                         const JsonValue *json, const Place *place)
{
    const QapiType *t = &qapi_types[type];

    if (place->depth > QAPI_MAX_DEPTH) {
        return fail(r, place, "is nested too deeply");
    }
    if (t->kind == QAPI_KIND_LIST) {
        return read_list(r, type, slot, json, place);
    }
    *slot = g_malloc0(t->size);
    if (t->kind == QAPI_KIND_ALTERNATE) {
        return read_alternate(r, type, *slot, json, place);
    }
    return read_struct(r, type, *slot, json, place);
}

static bool read_slot(const Reader *r, unsigned type, char *slot, const JsonValue *json,
                      const Place *place)
{
    QapiKind kind = (QapiKind)qapi_types[type].kind;

    switch (kind) {
    case QAPI_KIND_NULL:
        return json_type(json) == JSON_NULL || fail_type(r, place, "null");
    case QAPI_KIND_BOOL:
        return read_bool(r, (bool *)slot, json, place);
    case QAPI_KIND_INT8:
    case QAPI_KIND_INT16:
    case QAPI_KIND_INT32:
    case QAPI_KIND_INT64:
        return read_signed(r, kind, slot, json, place);
    case QAPI_KIND_UINT8:
    case QAPI_KIND_UINT16:
    case QAPI_KIND_UINT32:
    case QAPI_KIND_UINT64:
    case QAPI_KIND_SIZE:
        return read_unsigned(r, kind, slot, json, place);
    case QAPI_KIND_NUMBER:
        return read_number(r, (void *)slot, json, place);
    case QAPI_KIND_STR:
        if (!json_get_string(json)) {
            return fail_type(r, place, "string");
        }
        *(char **)slot = g_strdup(json_get_string(json));
        return true;
    case QAPI_KIND_ANY:
        *(JsonValue **)slot = json_copy(json);
        return true;
    case QAPI_KIND_ENUM:
        return read_enum(r, type, (unsigned *)slot, json, place);
    case QAPI_KIND_STRUCT:
    case QAPI_KIND_ALTERNATE:
    case QAPI_KIND_LIST:
        return read_pointer(r, type, (char **)slot, json, place);
    }
    g_assert_not_reached();
}

void *qapi_from_json(unsigned type, const JsonValue *json, const char *what,
                     QapiMode mode, GError **errp)
{
    const Reader reader = {.mode = mode, .errp = errp};
    const Place place = {.name = what ? what : ""};
    char *value = NULL;

    if (!read_pointer(&reader, type, &value, json, &place)) {
        qapi_free(type, value);
        return NULL;
    }
    return value;
}
