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
            size_t size, room;
        };
    };
};

#endif
