/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of a JsonParser, for json-parse.c (grammar, errors) and json-token.c
 * (bytes to tokens).  The invariants stand in json-parse.c.
 */
#ifndef BLOCK_BASE_JSON_PARSER_H
#define BLOCK_BASE_JSON_PARSER_H

#include "block/base/json-private.h"

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
    char digits[5]; /* of a \u escape, as they came */
    unsigned n_digits;
    unsigned high_surrogate;
    GArray *levels;         /* Level */
    size_t total, n_values; /* of the text that is being read */
    bool skipping;
    size_t skip_depth;
    char skip_quote; /* 0 outside strings */
    bool skip_escape;
};

/* Emit an error and start to skip. The token is not to be used afterwards. */
void json_parser_fail(JsonParser *p, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* A token for the grammar: a scalar (owned by the callee) or a container just opened;
 * the string in p->token, key or value; one of "{}[]:,". */
void json_parser_value(JsonParser *p, JsonValue *value);
void json_parser_string(JsonParser *p);
void json_parser_punctuation(JsonParser *p, char c);

/* One byte for the tokenizer. */
void json_parser_byte(JsonParser *p, char c);

#endif
