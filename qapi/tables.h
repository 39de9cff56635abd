/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The schema as read-only tables, for the visitors, the introspection and the
 * dispatcher.
 *
 * Rules:
 *  T1 no pointers: strings are offsets into qapi_strings, types are indexes, so that
 *     nothing is relocated at start;
 *  T2 a struct's members stand in one run [first, first + count), its base's first;
 *  T3 an optional member that is no pointer has a bool at has_offset; an absent pointer
 *     is NULL;
 *  T4 a member whose type is a struct, list or alternate is held by pointer; a variant
 * is embedded at u_offset.
 */
#ifndef QAPI_TABLES_H
#define QAPI_TABLES_H

#include <stddef.h>
#include <stdint.h>

#define QAPI_NO_OFFSET 0xffff
#define QAPI_NO_TYPE   0xffff

typedef enum QapiKind {
    QAPI_KIND_NULL,
    QAPI_KIND_BOOL,
    QAPI_KIND_INT8,
    QAPI_KIND_INT16,
    QAPI_KIND_INT32,
    QAPI_KIND_INT64,
    QAPI_KIND_UINT8,
    QAPI_KIND_UINT16,
    QAPI_KIND_UINT32,
    QAPI_KIND_UINT64,
    QAPI_KIND_SIZE,
    QAPI_KIND_NUMBER,
    QAPI_KIND_STR,
    QAPI_KIND_ANY,
    QAPI_KIND_ENUM,
    QAPI_KIND_STRUCT,
    QAPI_KIND_ALTERNATE,
    QAPI_KIND_LIST,
} QapiKind;

typedef struct QapiType {
    uint16_t name;
    uint16_t features; /* comma separated, "" for none */
    uint16_t size;     /* of the C type */
    uint16_t first;    /* member, enum value; a list's element type */
    uint16_t count;
    uint16_t tag; /* index into qapi_members */
    uint16_t first_variant, nb_variants;
    uint16_t u_offset;
    uint16_t kind;
} QapiType;

typedef struct QapiMember {
    uint16_t name;
    uint16_t type;
    uint16_t offset;
    uint16_t has_offset;
    uint16_t features;
    uint16_t optional;
} QapiMember;

typedef struct QapiValue {
    uint16_t name;
    uint16_t features;
} QapiValue;

typedef struct QapiVariant {
    uint16_t value; /* of the tag */
    uint16_t type;
} QapiVariant;

enum {
    QAPI_CMD_OOB = 1,   /* may be executed out of band */
    QAPI_CMD_QUERY = 2, /* changes nothing: does not take the graph lock */
};

typedef struct QapiCommand {
    uint16_t name;
    uint16_t arg;
    uint16_t ret;
    uint16_t features;
    uint16_t flags;
} QapiCommand;

extern const char qapi_strings[];
extern const QapiType qapi_types[];
extern const QapiMember qapi_members[];
extern const QapiValue qapi_values[];
extern const QapiVariant qapi_variants[];
extern const QapiCommand qapi_commands[];
extern const QapiCommand qapi_events[];
extern const unsigned qapi_nb_types, qapi_nb_commands, qapi_nb_events;

static inline const char *qapi_string(uint16_t offset)
{
    return qapi_strings + offset;
}

#endif
