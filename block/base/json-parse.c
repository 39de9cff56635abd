/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The streaming JSON parser: bytes in, values out, one state per open bracket.
 *
 * A byte goes first to the tokenizer (strings, numbers and words may be split anywhere
 * between two feeds); a complete token goes to the grammar, which builds the value on an
 * explicit stack.  After an error everything up to the next newline, or up to where the
 * brackets seen since the error balance, is skipped.
 */
#include <errno.h>
#include <string.h>

#include "block/base/error.h"
#include "block/base/json-private.h"

#define MAX_TOKEN JSON_MAX_BYTES

typedef enum Lex { LEX_NONE, LEX_STRING, LEX_ESCAPE, LEX_UNICODE, LEX_WORD } Lex;

/* What the grammar expects next inside one container. */
typedef enum Expect {
    EXPECT_VALUE,
    EXPECT_VALUE_OR_END, /* just after '[' */
    EXPECT_KEY,
    EXPECT_KEY_OR_END, /* just after '{' */
    EXPECT_COLON,
    EXPECT_COMMA_OR_END,
} Expect;

typedef struct Level {
    JsonValue *container;
    char *key;
    Expect expect;
} Level;

struct JsonParser {
    JsonEmit *emit;
    void *opaque;
    Lex lex;
    char quote;
    GString *token;
    unsigned unicode, unicode_digits;
    unsigned high_surrogate;
    GArray *levels; /* Level */
    size_t total;
    bool skipping;
    int skip_depth;
};

JsonParser *json_parser_new(JsonEmit *emit, void *opaque)
{
    JsonParser *p = g_new0(JsonParser, 1);
    p->emit = emit;
    p->opaque = opaque;
    p->token = g_string_new(NULL);
    p->levels = g_array_new(FALSE, FALSE, sizeof(Level));
    return p;
}

static void drop_levels(JsonParser *p)
{
    for (guint i = 0; i < p->levels->len; i++) {
        g_free(g_array_index(p->levels, Level, i).key);
    }
    if (p->levels->len) { /* the outermost owns all others */
        json_free(g_array_index(p->levels, Level, 0).container);
    }
    g_array_set_size(p->levels, 0);
}

void json_parser_free(JsonParser *p)
{
    if (p) {
        drop_levels(p);
        g_array_free(p->levels, TRUE);
        g_string_free(p->token, TRUE);
        g_free(p);
    }
}

static void G_GNUC_PRINTF(2, 3) fail(JsonParser *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_autoptr(GError) error = g_error_new_literal(QDP_ERROR, ERROR_CLASS_GENERIC_ERROR, text);
    p->skip_depth = (int)p->levels->len;
    drop_levels(p);
    p->skipping = p->skip_depth > 0;
    p->lex = LEX_NONE;
    p->total = 0;
    p->high_surrogate = 0;
    g_string_truncate(p->token, 0);
    p->emit(p->opaque, NULL, error);
}

static Level *top(JsonParser *p)
{
    return p->levels->len ? &g_array_index(p->levels, Level, p->levels->len - 1) : NULL;
}

/* ---- grammar ---- */

static void got_value(JsonParser *p, JsonValue *value)
{
    Level *level = top(p);
    if (!level) {
        if (value->type >= JSON_ARRAY) { /* its bracket was just opened */
            Level first = {value, NULL,
                           value->type == JSON_OBJECT ? EXPECT_KEY_OR_END
                                                      : EXPECT_VALUE_OR_END};
            g_array_append_val(p->levels, first);
            return;
        }
        p->total = 0;
        p->emit(p->opaque, value, NULL);
        return;
    }
    if (level->expect != EXPECT_VALUE && level->expect != EXPECT_VALUE_OR_END) {
        json_free(value);
        fail(p, "JSON parse error, expecting value");
        return;
    }
    if (level->container->type == JSON_OBJECT) {
        json_object_set(level->container, level->key, value);
        g_clear_pointer(&level->key, g_free);
    } else {
        json_array_append(level->container, value);
    }
    level->expect = EXPECT_COMMA_OR_END;
    if (value->type >= JSON_ARRAY) {
        if (p->levels->len >= JSON_MAX_DEPTH) {
            fail(p, "JSON nesting depth limit exceeded");
            return;
        }
        Level inner = {value, NULL,
                       value->type == JSON_OBJECT ? EXPECT_KEY_OR_END
                                                  : EXPECT_VALUE_OR_END};
        g_array_append_val(p->levels, inner);
    }
}

static void got_string(JsonParser *p)
{
    Level *level = top(p);
    if (p->high_surrogate) {
        fail(p, "JSON parse error, invalid UTF-16 surrogate in string");
        return;
    }
    if (!g_utf8_validate(p->token->str, (gssize)p->token->len, NULL)) {
        fail(p, "JSON parse error, invalid UTF-8 sequence in string");
        return;
    }
    if (level && (level->expect == EXPECT_KEY || level->expect == EXPECT_KEY_OR_END)) {
        if (json_object_lookup(level->container, p->token->str)) {
            fail(p, "JSON parse error, duplicate key");
            return;
        }
        level->key = g_strdup(p->token->str);
        level->expect = EXPECT_COLON;
        return;
    }
    got_value(p, json_string(p->token->str));
}

static void close_container(JsonParser *p, JsonType type)
{
    Level *level = top(p);
    if (!level || level->container->type != type ||
        (level->expect != EXPECT_COMMA_OR_END && level->expect != EXPECT_KEY_OR_END &&
         level->expect != EXPECT_VALUE_OR_END)) {
        fail(p, "JSON parse error, unexpected '%c'", type == JSON_OBJECT ? '}' : ']');
        return;
    }
    JsonValue *value = level->container;
    g_array_set_size(p->levels, p->levels->len - 1);
    if (p->levels->len == 0) {
        p->total = 0;
        p->emit(p->opaque, value, NULL);
    }
}

static void got_punctuation(JsonParser *p, char c)
{
    Level *level = top(p);
    switch (c) {
    case '{':
        got_value(p, json_object());
        return;
    case '[':
        got_value(p, json_array());
        return;
    case '}':
        close_container(p, JSON_OBJECT);
        return;
    case ']':
        close_container(p, JSON_ARRAY);
        return;
    case ':':
        if (level && level->expect == EXPECT_COLON) {
            level->expect = EXPECT_VALUE;
            return;
        }
        break;
    default: /* ',' */
        if (level && level->expect == EXPECT_COMMA_OR_END) {
            level->expect = level->container->type == JSON_OBJECT ? EXPECT_KEY
                                                                  : EXPECT_VALUE;
            return;
        }
        break;
    }
    fail(p, "JSON parse error, unexpected '%c'", c);
}

/* spec: RFC 8259, section 6: -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)? */
static bool number_is_wellformed(const char *s, bool *ret_integer)
{
    *ret_integer = true;
    s += *s == '-';
    if (*s == '0') {
        s++;
    } else if (g_ascii_isdigit(*s)) {
        while (g_ascii_isdigit(*s)) {
            s++;
        }
    } else {
        return false;
    }
    if (*s == '.') {
        *ret_integer = false;
        if (!g_ascii_isdigit(*++s)) {
            return false;
        }
        while (g_ascii_isdigit(*s)) {
            s++;
        }
    }
    if (*s == 'e' || *s == 'E') {
        *ret_integer = false;
        s++;
        s += *s == '+' || *s == '-';
        if (!g_ascii_isdigit(*s)) {
            return false;
        }
        while (g_ascii_isdigit(*s)) {
            s++;
        }
    }
    return !*s;
}

static JsonValue *number_value(const char *text, bool integer)
{
    if (integer) {
        errno = 0;
        gint64 number = g_ascii_strtoll(text, NULL, 10);
        if (!errno) {
            return json_int(number);
        }
        errno = 0;
        guint64 natural = g_ascii_strtoull(text, NULL, 10);
        if (!errno && text[0] != '-') {
            return json_uint(natural);
        }
    }
    return json_double(g_ascii_strtod(text, NULL));
}

static void got_word(JsonParser *p)
{
    const char *word = p->token->str;
    bool integer;
    if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0) {
        got_value(p, json_bool(word[0] == 't'));
    } else if (strcmp(word, "null") == 0) {
        got_value(p, json_null());
    } else if (number_is_wellformed(word, &integer)) {
        got_value(p, number_value(word, integer));
    } else if (g_utf8_validate(word, (gssize)p->token->len, NULL)) {
        fail(p, "JSON parse error, invalid keyword '%s'", word);
    } else {
        fail(p, "JSON parse error, invalid UTF-8 sequence");
    }
}

/* ---- tokens ---- */

static void append_unicode(JsonParser *p)
{
    unsigned c = p->unicode;
    p->lex = LEX_STRING;
    if (c >= 0xd800 && c <= 0xdbff && !p->high_surrogate) {
        p->high_surrogate = c;
        return;
    }
    if (c >= 0xdc00 && c <= 0xdfff && p->high_surrogate) {
        c = 0x10000 + ((p->high_surrogate - 0xd800) << 10) + (c - 0xdc00);
        p->high_surrogate = 0;
    } else if (p->high_surrogate || (c >= 0xd800 && c <= 0xdfff)) {
        fail(p, "JSON parse error, invalid UTF-16 surrogate in string");
        return;
    }
    if (c == 0) {
        fail(p, "JSON parse error, \\u0000 is not supported in strings");
        return;
    }
    g_string_append_unichar(p->token, c);
}

static void in_escape(JsonParser *p, char c)
{
    static const char from[] = "\"'\\/bfnrt";
    static const char to[] = "\"'\\/\b\f\n\r\t";
    if (c == 'u') {
        p->lex = LEX_UNICODE;
        p->unicode = p->unicode_digits = 0;
        return;
    }
    const char *at = c ? strchr(from, c) : NULL;
    if (!at || p->high_surrogate) {
        fail(p, "JSON parse error, invalid escape sequence in string");
        return;
    }
    g_string_append_c(p->token, to[at - from]);
    p->lex = LEX_STRING;
}

static void in_unicode(JsonParser *p, char c)
{
    if (!g_ascii_isxdigit(c)) {
        fail(p, "JSON parse error, invalid hexadecimal digit in string");
        return;
    }
    p->unicode = p->unicode * 16 + g_ascii_xdigit_value(c);
    if (++p->unicode_digits == 4) {
        append_unicode(p);
    }
}

static void in_string(JsonParser *p, char c)
{
    if (c == p->quote) {
        p->lex = LEX_NONE;
        got_string(p);
    } else if (c == '\\') {
        p->lex = LEX_ESCAPE;
    } else if ((unsigned char)c < 0x20) {
        fail(p, "JSON parse error, control character in string");
    } else if (p->high_surrogate) {
        fail(p, "JSON parse error, invalid UTF-16 surrogate in string");
    } else {
        g_string_append_c(p->token, c);
    }
}

static bool is_word_char(char c)
{
    return g_ascii_isalnum(c) || strchr("+-._", c) || (unsigned char)c >= 0x80;
}

static void in_none(JsonParser *p, char c)
{
    if (c && strchr(" \t\r\n", c)) {
        p->total = p->levels->len ? p->total : 0;
        return;
    }
    g_string_truncate(p->token, 0);
    if (c == '"' || c == '\'') {
        p->quote = c;
        p->lex = LEX_STRING;
    } else if (c && strchr("{}[]:,", c)) {
        got_punctuation(p, c);
    } else if (c && is_word_char(c)) {
        p->lex = LEX_WORD;
        g_string_append_c(p->token, c);
    } else {
        fail(p, "JSON parse error, stray character 0x%02x", (unsigned char)c);
    }
}

/* After an error: wait for a newline or for balanced brackets. */
static void skip(JsonParser *p, char c)
{
    if (c == '{' || c == '[') {
        p->skip_depth++;
    } else if (c == '}' || c == ']') {
        p->skip_depth--;
    }
    if (c == '\n' || p->skip_depth <= 0) {
        p->skipping = false;
    }
}

static void feed_byte(JsonParser *p, char c)
{
    if (p->skipping) {
        skip(p, c);
        return;
    }
    if (++p->total > MAX_TOKEN) {
        fail(p, "JSON token size limit exceeded");
        return;
    }
    switch (p->lex) {
    case LEX_STRING:
        in_string(p, c);
        return;
    case LEX_ESCAPE:
        in_escape(p, c);
        return;
    case LEX_UNICODE:
        in_unicode(p, c);
        return;
    case LEX_WORD:
        if (c && is_word_char(c)) {
            g_string_append_c(p->token, c);
            return;
        }
        p->lex = LEX_NONE;
        got_word(p);
        if (p->skipping) {
            skip(p, c);
            return;
        }
        in_none(p, c);
        return;
    default:
        in_none(p, c);
        return;
    }
}

void json_parser_feed(JsonParser *p, const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        feed_byte(p, data[i]);
    }
}

/* ---- one text ---- */

typedef struct OneText {
    JsonValue *value;
    GError *error;
    bool more;
} OneText;

static void take_one(void *opaque, JsonValue *value, const GError *error)
{
    OneText *one = opaque;
    if (error && !one->error) {
        one->error = g_error_copy(error);
    } else if (value && !one->value) {
        one->value = value;
        return;
    } else if (value) {
        one->more = true;
    }
    json_free(value);
}

JsonValue *json_parse(const char *text, GError **errp)
{
    OneText one = {NULL, NULL, false};
    JsonParser *p = json_parser_new(take_one, &one);
    json_parser_feed(p, text, strlen(text));
    json_parser_feed(p, "\n", 1);
    bool open = p->levels->len > 0 || p->lex != LEX_NONE;
    json_parser_free(p);
    if (one.error) {
        g_propagate_error(errp, one.error);
    } else if (open || !one.value || one.more) {
        error_set(errp, open || !one.value ? "JSON parse error, incomplete text"
                                           : "JSON parse error, text after the value");
    } else {
        return one.value;
    }
    json_free(one.value);
    return NULL;
}
