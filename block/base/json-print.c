/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON text from values: one line as on a QMP socket, or indented as the tools print.
 *
 * Invariants: P1 the text is ASCII and reads back as an equal value (if J2 holds); P2 printing does
 * not recurse (V1).
 */
#include <math.h>

#include "block/base/json-private.h"

/* The character at *p, and on to the next. A byte that begins none is U+FFFD: file names
 * need not be UTF-8 (J2). */
static gunichar next_char(const char **p)
{
    gunichar c = g_utf8_get_char_validated(*p, -1);

    if (c >= (gunichar)-2) {
        (*p)++;
        return 0xfffd;
    }
    *p = g_utf8_next_char(*p);
    return c;
}

static void append_string(GString *out, const char *text)
{
    g_string_append_c(out, '"');
    for (const char *p = text; *p;) {
        gunichar c = next_char(&p);
        switch (c) {
        case '"':
            g_string_append(out, "\\\"");
            break;
        case '\\':
            g_string_append(out, "\\\\");
            break;
        case '\b':
            g_string_append(out, "\\b");
            break;
        case '\f':
            g_string_append(out, "\\f");
            break;
        case '\n':
            g_string_append(out, "\\n");
            break;
        case '\r':
            g_string_append(out, "\\r");
            break;
        case '\t':
            g_string_append(out, "\\t");
            break;
        default:
            if (c >= 0x10000) {
                c -= 0x10000;
                g_string_append_printf(out, "\\u%04X\\u%04X", 0xd800 + (c >> 10),
                                       0xdc00 + (c & 0x3ff));
            } else if (c < 0x20 || c >= 0x7f) {
                g_string_append_printf(out, "\\u%04X", c);
            } else {
                g_string_append_c(out, (char)c);
            }
        }
    }
    g_string_append_c(out, '"');
}

static void append_double(GString *out, double number)
{
    char buf[G_ASCII_DTOSTR_BUF_SIZE];
    if (!isfinite(number)) { /* JSON has no word for it */
        g_string_append(out, "null");
        return;
    }
    if (number == 0 && signbit(number)) {
        g_string_append(out, "-0.0"); /* "-0" would read back as an integer, 0 */
        return;
    }
    /* the shortest text that reads back as the same number */
    for (int digits = 15; digits <= 17; digits++) {
        char fmt[8];
        g_snprintf(fmt, sizeof(fmt), "%%.%dg", digits);
        g_ascii_formatd(buf, sizeof(buf), fmt, number);
        if (g_ascii_strtod(buf, NULL) == number) {
            break;
        }
    }
    g_string_append(out, buf);
}

static void newline(GString *out, guint indent)
{
    g_string_append_c(out, '\n');
    for (guint i = 0; i < indent; i++) {
        g_string_append(out, "    ");
    }
}

static void append_scalar(GString *out, const JsonValue *value)
{
    switch (value->type) {
    case JSON_BOOL:
        g_string_append(out, value->flag ? "true" : "false");
        return;
    case JSON_INT:
        g_string_append_printf(out, "%" G_GINT64_FORMAT, value->integer);
        return;
    case JSON_UINT:
        g_string_append_printf(out, "%" G_GUINT64_FORMAT, value->natural);
        return;
    case JSON_DOUBLE:
        append_double(out, value->real);
        return;
    case JSON_STRING:
        append_string(out, value->text);
        return;
    default:
        g_string_append(out, "null");
        return;
    }
}

typedef struct PrintLevel {
    const JsonValue *container;
    size_t next;
} PrintLevel;

/* Print the value; a container only as far as its opening bracket. */
static void begin(GString *out, const JsonValue *value, GArray *levels)
{
    if (!json_is_container(value)) {
        append_scalar(out, value);
        return;
    }
    PrintLevel level = {value, 0};
    g_string_append_c(out, value->type == JSON_OBJECT ? '{' : '[');
    g_array_append_val(levels, level);
}

static void append_value(GString *out, const JsonValue *value, bool pretty)
{
    g_autoptr(GArray) levels = g_array_new(FALSE, FALSE, sizeof(PrintLevel));
    begin(out, value, levels);
    while (levels->len) {
        PrintLevel *level = &g_array_index(levels, PrintLevel, levels->len - 1);
        const JsonValue *container = level->container;
        bool object = container->type == JSON_OBJECT;
        if (level->next == container->size) {
            g_array_set_size(levels, levels->len - 1);
            if (pretty) {
                newline(out, levels->len);
            }
            g_string_append_c(out, object ? '}' : ']');
            continue;
        }
        const JsonItem *item = &container->items[level->next++];
        if (level->next > 1) {
            g_string_append(out, pretty ? "," : ", ");
        }
        if (pretty) {
            newline(out, levels->len);
        }
        if (object) {
            append_string(out, item->key);
            g_string_append(out, ": ");
        }
        begin(out, item->value, levels);
    }
}

void json_append_to(const JsonValue *value, GString *out)
{
    append_value(out, value, false);
}

char *json_to_string(const JsonValue *value)
{
    GString *out = g_string_new(NULL);
    append_value(out, value, false);
    return g_string_free(out, FALSE);
}

char *json_to_string_pretty(const JsonValue *value)
{
    GString *out = g_string_new(NULL);
    append_value(out, value, true);
    return g_string_free(out, FALSE);
}
