/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The streaming JSON parser: tokens in, values out.  It reads texts; it does not know
 * QMP. json-token.c cuts the bytes into tokens; the grammar here builds the value on an
 * explicit stack.  After an error bytes are skipped as json.h says.
 *
 * Invariants:
 *  P1 a container on the stack is already an item of the one below it, so the outermost
 *     owns everything read so far;
 *  P2 while skipping, the stack is empty and the tokenizer at rest; what brackets and
 *     strings are open is counted in skip_depth and skip_quote;
 *  P3 an error is emitted once per stretch skipped, and every byte of a bad text is
 *     either read before the error or skipped after it, never read as a new text.
 *
 * compat: the texts of errors are those of the stock programs, as seen by clients.
 * spec: RFC 8259.
 */
#include <string.h>

#include "block/base/error.h"
#include "block/base/json-parser.h"

#define TOKEN_KEPT (64u << 10)

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

/* A new text begins; one long string does not keep its memory for the session's life.
 */
static void forget_text(JsonParser *p)
{
    p->total = p->n_values = 0;
    if (p->token->allocated_len > TOKEN_KEPT) {
        g_string_free(p->token, TRUE);
        p->token = g_string_new(NULL);
    }
}

void json_parser_fail(JsonParser *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_autoptr(GError) error =
        g_error_new_literal(QDP_ERROR, ERROR_CLASS_GENERIC_ERROR, text);
    p->skip_depth = p->levels->len;
    p->skip_quote = p->lex == LEX_NONE || p->lex == LEX_WORD ? 0 : p->quote;
    p->skip_escape = false;
    p->skipping = p->skip_depth || p->skip_quote;
    drop_levels(p);
    p->lex = LEX_NONE;
    p->high_surrogate = 0;
    forget_text(p);
    p->emit(p->opaque, NULL, error);
}

static Level *top(JsonParser *p)
{
    return p->levels->len ? &g_array_index(p->levels, Level, p->levels->len - 1) : NULL;
}

/* Something came that the innermost container does not want now. */
static void fail_expected(JsonParser *p, bool scalar)
{
    const Level *level = top(p);
    Expect expect = level ? level->expect : EXPECT_VALUE;
    if (expect == EXPECT_COLON) {
        json_parser_fail(p, "JSON parse error, missing : in object pair");
    } else if (expect == EXPECT_COMMA_OR_END) {
        json_parser_fail(p, "JSON parse error, expected separator in %s",
                         level->container->type == JSON_OBJECT ? "dict" : "list");
    } else if (scalar) {
        json_parser_fail(p, "JSON parse error, key is not a string in object");
    } else {
        json_parser_fail(p, "JSON parse error, expecting value");
    }
}

static void emit_value(JsonParser *p, JsonValue *value)
{
    forget_text(p);
    p->emit(p->opaque, value, NULL);
}

static void enter(JsonParser *p, JsonValue *container)
{
    Level level = {container, NULL,
                   container->type == JSON_OBJECT ? EXPECT_KEY_OR_END
                                                  : EXPECT_VALUE_OR_END};
    g_array_append_val(p->levels, level);
}

/* A scalar, or a container whose bracket was just opened; owns @value. */
void json_parser_value(JsonParser *p, JsonValue *value)
{
    Level *level = top(p);
    if (level && level->expect != EXPECT_VALUE &&
        level->expect != EXPECT_VALUE_OR_END) {
        json_free(value);
        fail_expected(p, true);
        return;
    }
    if (++p->n_values > JSON_MAX_VALUES) {
        json_free(value);
        json_parser_fail(p, "JSON token count limit exceeded");
        return;
    }
    if (json_is_container(value) && p->levels->len >= JSON_MAX_DEPTH) {
        json_free(value);
        json_parser_fail(p, "JSON nesting depth limit exceeded");
        return;
    }
    if (level && level->container->type == JSON_OBJECT) {
        json_object_set(level->container, level->key, value);
        g_clear_pointer(&level->key, g_free);
        level->expect = EXPECT_COMMA_OR_END;
    } else if (level) {
        json_array_append(level->container, value);
        level->expect = EXPECT_COMMA_OR_END;
    }
    if (json_is_container(value)) {
        enter(p, value); /* moves *level */
    } else if (!level) {
        emit_value(p, value);
    }
}

void json_parser_string(JsonParser *p)
{
    Level *level = top(p);
    if (!g_utf8_validate(p->token->str, (gssize)p->token->len, NULL)) {
        json_parser_fail(p, "JSON parse error, invalid UTF-8 sequence in string");
        return;
    }
    if (level && (level->expect == EXPECT_KEY || level->expect == EXPECT_KEY_OR_END)) {
        if (json_object_lookup(level->container, p->token->str)) {
            json_parser_fail(p, "JSON parse error, duplicate key");
            return;
        }
        level->key = g_strdup(p->token->str);
        level->expect = EXPECT_COLON;
        return;
    }
    json_parser_value(p, json_string(p->token->str));
}

static void close_container(JsonParser *p, JsonType type)
{
    Level *level = top(p);
    if (!level || level->container->type != type ||
        (level->expect != EXPECT_COMMA_OR_END && level->expect != EXPECT_KEY_OR_END &&
         level->expect != EXPECT_VALUE_OR_END)) {
        fail_expected(p, false);
        return;
    }
    JsonValue *value = level->container;
    g_array_set_size(p->levels, p->levels->len - 1);
    if (p->levels->len == 0) {
        emit_value(p, value);
    }
}

void json_parser_punctuation(JsonParser *p, char c)
{
    Level *level = top(p);
    switch (c) {
    case '{':
        json_parser_value(p, json_object());
        return;
    case '[':
        json_parser_value(p, json_array());
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
            level->expect =
                level->container->type == JSON_OBJECT ? EXPECT_KEY : EXPECT_VALUE;
            return;
        }
        break;
    }
    fail_expected(p, false);
}

void json_parser_feed(JsonParser *p, const char *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        json_parser_byte(p, data[i]);
    }
}

/* json_parse(): one text. */
typedef struct OneText {
    JsonValue *value;
    GError *error;
    bool more;
} OneText;

static void take_one(void *opaque, JsonValue *value, const GError *error)
{
    OneText *one = opaque;
    if (one->value) { /* whether what follows is good or bad */
        one->more = true;
    } else if (value) {
        one->value = value;
        return;
    } else if (!one->error) {
        one->error = g_error_copy(error);
    }
    json_free(value);
}

JsonValue *json_parse(const char *text, GError **errp)
{
    OneText one = {NULL, NULL, false};
    JsonParser *p = json_parser_new(take_one, &one);
    json_parser_feed(p, text, strlen(text));
    bool open = p->lex != LEX_NONE && p->lex != LEX_WORD; /* an unfinished string */
    if (!open) {
        json_parser_feed(p, "\n", 1); /* ends a word */
        open = p->levels->len > 0;
    }
    json_parser_free(p);
    if (one.error) {
        g_propagate_error(errp, one.error);
    } else if (one.more || (open && one.value)) {
        error_set(errp, "Expecting at most one JSON value");
    } else if (open) {
        error_set(errp, "JSON parse error, premature EOI");
    } else if (!one.value) {
        error_set(errp, "Expecting a JSON value");
    } else {
        return one.value;
    }
    json_free(one.value);
    return NULL;
}
