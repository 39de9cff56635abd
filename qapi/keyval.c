/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * key=value,... to JSON objects; see keyval.h.
 *
 * Invariants:
 *  K1 a later value of a key replaces an earlier one;
 *  K2 a key is either a leaf or has members, never both;
 *  K3 arrays are objects with keys 0..n-1 until the end, then converted.
 */
#include "qapi/keyval.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "block/base/error.h"

#define KEYVAL_MAX_DEPTH 64
#define KEYVAL_MAX_KEY   128

/* Cut the text up to the next single comma; "a,,b" gives "a,b". */
static const char *take_value(const char *text, GString *out)
{
    g_string_truncate(out, 0);
    while (*text) {
        if (*text == ',') {
            text++;
            if (*text != ',') {
                break;
            }
        }
        g_string_append_c(out, *text++);
    }
    return text;
}

static bool key_part_ok(const char *part, size_t len)
{
    if (!len || len >= KEYVAL_MAX_KEY) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (!g_ascii_isalnum(part[i]) && !strchr("-_", part[i])) {
            return false;
        }
    }
    return true;
}

/* Put @value at the dotted @key. */
static bool put(JsonValue *object, const char *key, const char *value, GError **errp)
{
    g_auto(GStrv) parts = g_strsplit(key, ".", KEYVAL_MAX_DEPTH);
    JsonValue *old;

    for (char **part = parts; *part; part++) {
        /* the whole is no list: a key does not begin with an index */
        if (!key_part_ok(*part, strlen(*part)) ||
            (part == parts && g_ascii_isdigit((*part)[0]))) {
            error_set(errp, "Invalid parameter '%s'", key);
            return false;
        }
        old = json_object_lookup(object, *part);
        if (!part[1]) {
            if (old && json_type(old) == JSON_OBJECT) {
                error_set(errp, "Parameters '%s.*' used inconsistently", key);
                return false;
            }
            json_object_set_string(object, *part, value);
            return true;
        }
        if (old && json_type(old) != JSON_OBJECT) {
            error_set(errp, "Parameters '%s.*' used inconsistently", *part);
            return false;
        }
        if (!old) {
            old = json_object();
            json_object_set(object, *part, old);
        }
        object = old;
    }
    error_set(errp, "Invalid parameter '%s'", key);
    return false;
}

/* The length of the key at the start of @text; *ret_eq tells whether "=" follows. */
static size_t key_length(const char *text, bool *ret_eq)
{
    size_t len = strcspn(text, "=,");

    *ret_eq = text[len] == '=';
    return len;
}

static bool is_array(const JsonValue *object)
{
    size_t n = json_object_size(object);
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        any |= g_ascii_isdigit(json_object_key_at(object, i)[0]);
    }
    return any;
}

static JsonValue *listify(JsonValue *value, const char *key, GError **errp);

static JsonValue *to_array(JsonValue *object, const char *key, GError **errp)
{
    g_autoptr(JsonValue) array = json_array();
    size_t n = json_object_size(object);

    for (size_t i = 0; i < n; i++) {
        g_autofree char *index = g_strdup_printf("%zu", i);
        JsonValue *item = json_object_take(object, index);
        if (!item) {
            error_set(errp, "Parameter '%s.%zu' missing", key, i);
            return NULL;
        }
        item = listify(item, index, errp);
        if (!item) {
            return NULL;
        }
        json_array_append(array, item);
    }
    return g_steal_pointer(&array);
}

/* Turn objects whose keys are 0..n-1 to arrays; consumes @value. */
static JsonValue *listify(JsonValue *value, const char *key, GError **errp)
{
    g_autoptr(JsonValue) object = value;

    if (json_type(object) != JSON_OBJECT) {
        return g_steal_pointer(&object);
    }
    if (is_array(object)) {
        return to_array(object, key, errp);
    }
    for (size_t i = 0; i < json_object_size(object); i++) {
        const JsonValue *child = json_object_value_at(object, i);
        if (json_type(child) == JSON_OBJECT) {
            g_autofree char *name = g_strdup(json_object_key_at(object, i));
            JsonValue *item = listify(json_copy(child), name, errp);
            if (!item) {
                return NULL;
            }
            json_object_set(object, name, item);
        }
    }
    return g_steal_pointer(&object);
}

static JsonValue *parse_json_object(const char *text, GError **errp)
{
    g_autoptr(JsonValue) value = json_parse(text, errp);

    if (value && json_type(value) != JSON_OBJECT) {
        error_set(errp, "JSON object expected");
        return NULL;
    }
    return g_steal_pointer(&value);
}

/* One part of the text; *text moves on. */
static bool parse_part(JsonValue *object, const char **text, const char *implied_key,
                       bool *ret_help, GString *value, GError **errp)
{
    g_autofree char *key = NULL;
    bool has_eq;
    size_t len = key_length(*text, &has_eq);

    if (has_eq) {
        key = g_strndup(*text, len);
        *text = take_value(*text + len + 1, value);
        return put(object, key, value->str, errp);
    }
    key = g_strndup(*text, len);
    if (ret_help && (!strcmp(key, "help") || !strcmp(key, "?"))) {
        *ret_help = true;
        *text = take_value(*text, value);
        return true;
    }
    if (implied_key) {
        *text = take_value(*text, value);
        if (!value->len) {
            error_set(errp, "No implicit parameter name for value ''");
            return false;
        }
        return put(object, implied_key, value->str, errp);
    }
    if (!key_part_ok(key, len)) {
        error_set(errp, "Invalid parameter '%s'", key);
    } else {
        error_set(errp, "Expected '=' after parameter '%s'", key);
    }
    return false;
}

JsonValue *keyval_parse(const char *text, const char *implied_key, bool *ret_help,
                        GError **errp)
{
    g_autoptr(JsonValue) object = NULL;
    GString *value;
    bool ok = true;

    if (g_str_has_prefix(text, "json:")) {
        return parse_json_object(text + 5, errp);
    }
    if (text[0] == '{') {
        return parse_json_object(text, errp);
    }
    object = json_object();
    value = g_string_new(NULL);
    while (ok && *text) {
        ok = parse_part(object, &text, implied_key, ret_help, value, errp);
        implied_key = NULL;
    }
    g_string_free(value, TRUE);
    return ok ? listify(g_steal_pointer(&object), "", errp) : NULL;
}

static int suffix_shift(char suffix)
{
    static const char suffixes[] = "BKMGTPE";
    const char *found = suffix ? strchr(suffixes, g_ascii_toupper(suffix)) : NULL;

    return found ? 10 * (int)(found - suffixes) : -1;
}

bool keyval_parse_size(const char *text, uint64_t *ret_size, GError **errp)
{
    char *end;
    uint64_t whole;
    double fraction = 0;
    int shift = 0;

    errno = 0;
    whole = strtoull(text, &end, 10);
    if (!g_ascii_isdigit(text[0]) || errno) {
        goto bad;
    }
    if (*end == '.' && g_ascii_isdigit(end[1])) {
        fraction = g_ascii_strtod(end, &end);
    }
    if (*end) {
        shift = suffix_shift(*end++);
    }
    if (shift < 0 || *end || (fraction > 0 && shift == 0)) {
        goto bad;
    }
    if (shift && whole >> (64 - shift)) {
        goto bad;
    }
    *ret_size = (whole << shift) + (uint64_t)ldexp(fraction, shift);
    return true;

bad:
    error_set(errp,
              "'%s' is not a size: a number with an optional suffix k, M, G, T, P "
              "or E was expected",
              text);
    return false;
}
