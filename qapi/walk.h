/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What all walks over typed values ask of the tables; for the files of this folder. */
#ifndef QAPI_WALK_H
#define QAPI_WALK_H

#include "block/base/json.h"
#include "qapi/tables.h"

/* Where a list element holds its value. */
#define QAPI_LIST_VALUE 8

/* The variant that a union's tag selects; NULL if the type has none. */
static inline const QapiVariant *qapi_struct_variant(const QapiType *t,
                                                     const char *value)
{
    unsigned tag;

    if (!t->nb_variants) {
        return NULL;
    }
    tag = *(const unsigned *)(value + qapi_members[t->tag].offset);
    for (unsigned i = 0; i < t->nb_variants; i++) {
        if (qapi_variants[t->first_variant + i].value == tag) {
            return &qapi_variants[t->first_variant + i];
        }
    }
    return NULL;
}

/* The JSON type that a value of this type has on the wire. */
static inline JsonType qapi_wire_type(unsigned type)
{
    switch (qapi_types[type].kind) {
    case QAPI_KIND_NULL:
        return JSON_NULL;
    case QAPI_KIND_BOOL:
        return JSON_BOOL;
    case QAPI_KIND_NUMBER:
        return JSON_DOUBLE;
    case QAPI_KIND_STR:
    case QAPI_KIND_ENUM:
        return JSON_STRING;
    case QAPI_KIND_STRUCT:
        return JSON_OBJECT;
    case QAPI_KIND_LIST:
        return JSON_ARRAY;
    default:
        return JSON_INT;
    }
}

/* The branch of an alternate for values of this JSON type, or NULL. */
static inline const QapiMember *qapi_alternate_branch(const QapiType *t, JsonType type)
{
    for (unsigned i = 0; i < t->count; i++) {
        const QapiMember *m = &qapi_members[t->first + i];
        if (qapi_wire_type(m->type) == type) {
            return m;
        }
    }
    return NULL;
}

#endif
