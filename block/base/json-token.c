/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON's tokens out of bytes, split anywhere between two feeds, and what is skipped
 * after an error.  Not the grammar: that is json-parse.c, whose invariants hold here
 * too.
 *
 * Strings may stand in single quotes, as the QMP specification allows.
 * spec: RFC 8259, sections 6 and 7; QMP specification, "Forcing the JSON parser into
 * known-good state".
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "block/base/json-parser.h"

#define STRAY_SHOWN 64 /* bytes of a bad token that an error message repeats */

/* A token that is none, with the byte that made it so (or 0). */
static void fail_stray(JsonParser *p, char quote, char last)
{
    g_autoptr(GString) text = g_string_new(NULL);
    if (quote) {
        g_string_append_c(text, quote);
    }
    g_string_append_len(text, p->token->str, MIN((gssize)p->token->len, STRAY_SHOWN));
    if (last) {
        g_string_append_c(text, last);
    }
    g_autofree char *valid = g_utf8_make_valid(text->str, (gssize)text->len);
    json_parser_fail(p, "JSON parse error, stray '%s'", valid);
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

/* NULL if even a double cannot hold it. */
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
    double real = g_ascii_strtod(text, NULL);
    return isfinite(real) ? json_double(real) : NULL;
}

static void got_number(JsonParser *p, bool integer)
{
    JsonValue *number = number_value(p->token->str, integer);
    if (number) {
        json_parser_value(p, number);
    } else {
        json_parser_fail(p, "JSON parse error, number out of range");
    }
}

static void got_word(JsonParser *p)
{
    const char *word = p->token->str;
    bool integer;
    if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0) {
        json_parser_value(p, json_bool(word[0] == 't'));
    } else if (strcmp(word, "null") == 0) {
        json_parser_value(p, json_null());
    } else if (number_is_wellformed(word, &integer)) {
        got_number(p, integer);
    } else if (strspn(word, "abcdefghijklmnopqrstuvwxyz") == p->token->len) {
        json_parser_fail(p, "JSON parse error, invalid keyword '%.*s'", STRAY_SHOWN,
                         word);
    } else {
        fail_stray(p, 0, 0);
    }
}

/* After an error: wait for a newline or for balanced brackets, strings left aside. */
static void skip(JsonParser *p, char c)
{
    if (p->skip_escape) {
        p->skip_escape = false;
    } else if (p->skip_quote) {
        p->skip_escape = c == '\\';
        p->skip_quote = c == p->skip_quote ? 0 : p->skip_quote;
    } else if (c == '"' || c == '\'') {
        p->skip_quote = c;
    } else if (c == '{' || c == '[') {
        p->skip_depth++;
    } else if (c == '}' || c == ']') {
        p->skip_depth -= p->skip_depth > 0;
    }
    p->skipping = p->skip_depth || p->skip_quote;
}

/* A byte that no text holds, not even inside a string. */
static bool is_impossible(char c)
{
    unsigned char byte = (unsigned char)c;
    return byte >= 0xfe || (byte < 0x20 && byte != '\t' && byte != '\r');
}

static void fail_unicode(JsonParser *p, unsigned high)
{
    if (high) {
        json_parser_fail(
            p, "JSON parse error, \\u%04x is not a valid Unicode character", high);
    } else {
        json_parser_fail(p, "JSON parse error, \\u%s is not a valid Unicode character",
                         p->digits);
    }
}

static void append_unicode(JsonParser *p)
{
    unsigned c = (unsigned)g_ascii_strtoull(p->digits, NULL, 16);
    bool high = c >= 0xd800 && c <= 0xdbff, low = c >= 0xdc00 && c <= 0xdfff;
    if (low != (p->high_surrogate != 0)) {
        fail_unicode(p, p->high_surrogate);
        return;
    }
    if (c == 0) { /* J2 */
        json_parser_fail(p, "JSON parse error, \\u0000 is not supported in strings");
        return;
    }
    if (high) {
        p->high_surrogate = c;
    } else {
        if (low) {
            c = 0x10000 + ((p->high_surrogate - 0xd800) << 10) + (c - 0xdc00);
            p->high_surrogate = 0;
        }
        g_string_append_unichar(p->token, c);
    }
    p->lex = LEX_STRING;
}

static void in_escape(JsonParser *p, char c)
{
    static const char from[] = "\"'\\/bfnrt";
    static const char to[] = "\"'\\/\b\f\n\r\t";
    if (c == 'u') {
        p->lex = LEX_UNICODE;
        p->n_digits = 0;
        memset(p->digits, 0, sizeof(p->digits));
        return;
    }
    if (p->high_surrogate) {
        fail_unicode(p, p->high_surrogate);
        return;
    }
    const char *at = strchr(from, c);
    if (!at) {
        json_parser_fail(p, "JSON parse error, invalid escape sequence in string");
        return;
    }
    g_string_append_c(p->token, to[at - from]);
    p->lex = LEX_STRING;
}

static void in_unicode(JsonParser *p, char c)
{
    if (!g_ascii_isxdigit(c)) {
        json_parser_fail(p, "JSON parse error, \\u%s is not a valid Unicode character",
                         p->digits);
        skip(p, c); /* it may be the closing quote */
        return;
    }
    p->digits[p->n_digits++] = c;
    if (p->n_digits == 4) {
        append_unicode(p);
    }
}

static void in_string(JsonParser *p, char c)
{
    if (c == '\\') {
        p->lex = LEX_ESCAPE;
    } else if (p->high_surrogate) {
        fail_unicode(p, p->high_surrogate);
        skip(p, c);
    } else if (c == p->quote) {
        p->lex = LEX_NONE;
        json_parser_string(p);
    } else if ((unsigned char)c < 0x20) { /* tab or carriage return */
        fail_stray(p, p->quote, c);
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
    if (strchr(" \t\r\n", c)) {
        p->total = p->levels->len ? p->total : 0;
        return;
    }
    g_string_truncate(p->token, 0);
    if (c == '"' || c == '\'') {
        p->quote = c;
        p->lex = LEX_STRING;
    } else if (strchr("{}[]:,", c)) {
        json_parser_punctuation(p, c);
        if (p->skipping) {
            skip(p, c); /* a bracket in the wrong place counts too */
        }
    } else if (is_word_char(c)) {
        p->lex = LEX_WORD;
        g_string_append_c(p->token, c);
    } else {
        fail_stray(p, 0, c);
    }
}

/* The end of a line or an impossible byte: nothing is open behind it. */
static void feed_break(JsonParser *p, char c)
{
    bool in_text =
        p->lex == LEX_STRING || p->lex == LEX_ESCAPE || p->lex == LEX_UNICODE;
    if (p->lex == LEX_WORD) {
        p->lex = LEX_NONE;
        got_word(p);
    }
    if (!p->skipping && (in_text || c != '\n')) {
        if (!in_text) {
            g_string_truncate(p->token, 0);
        }
        fail_stray(p, in_text ? p->quote : 0, c);
    }
    p->skipping = false;
}

void json_parser_byte(JsonParser *p, char c)
{
    if (is_impossible(c)) {
        feed_break(p, c);
        return;
    }
    if (p->skipping) {
        skip(p, c);
        return;
    }
    if (++p->total > JSON_MAX_BYTES) {
        json_parser_fail(p, "JSON token size limit exceeded");
        return;
    }
    if (p->lex == LEX_WORD) {
        if (is_word_char(c)) {
            g_string_append_c(p->token, c);
            return;
        }
        p->lex = LEX_NONE;
        got_word(p);
        if (p->skipping) {
            skip(p, c);
            return;
        }
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
    default:
        in_none(p, c);
        return;
    }
}
