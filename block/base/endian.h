/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fields as they lie on disk or wire: wrapper structs that cannot be mistaken for
 * numbers.  They have alignment 1, so that a struct of them is exactly its bytes.
 */
#ifndef BLOCK_BASE_ENDIAN_H
#define BLOCK_BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define ENDIAN_FIELD(name, bits, order)                                                \
    typedef struct name {                                                              \
        uint8_t byte[(bits) / 8];                                                      \
    } name;                                                                            \
    static inline uint##bits##_t name##_get(name field)                                \
    {                                                                                  \
        uint##bits##_t raw;                                                            \
        memcpy(&raw, field.byte, sizeof(raw));                                         \
        return order##bits##toh(raw);                                                  \
    }                                                                                  \
    static inline name name##_make(uint##bits##_t value)                               \
    {                                                                                  \
        uint##bits##_t raw = hto##order##bits(value);                                  \
        name field;                                                                    \
        memcpy(field.byte, &raw, sizeof(raw));                                         \
        return field;                                                                  \
    }

ENDIAN_FIELD(be16, 16, be)
ENDIAN_FIELD(be32, 32, be)
ENDIAN_FIELD(be64, 64, be)
ENDIAN_FIELD(le16, 16, le)
ENDIAN_FIELD(le32, 32, le)
ENDIAN_FIELD(le64, 64, le)

#endif
