/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The inside of a JsonValue, for json-value.c, json-parse.c and json-print.c. */
#ifndef BLOCK_BASE_JSON_PRIVATE_H
#define BLOCK_BASE_JSON_PRIVATE_H

#include "block/base/json.h"

typedef struct JsonItem {
    char *key; /* NULL in arrays */
    JsonValue *value;
} JsonItem;

struct JsonValue {
    JsonType type;
    union {
        bool flag;
        int64_t integer;
        uint64_t natural;
        double real;
        char *text;
        struct {
            JsonItem *items;
            size_t size;
            union {
                size_t room;
                JsonValue *parent; /* the way back up, only while json_free() is at it */
            };
            GHashTable *index; /* key to position + 1; objects of many members only */
        };
    };
};

static inline bool json_is_container(const JsonValue *value)
{
    return value->type == JSON_ARRAY || value->type == JSON_OBJECT;
}

#endif
