/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a written sector looks like: stamp, sector number, and a pattern of both in every
 * word, so that a sector from elsewhere, metadata, or half a sector is seen as such.
 */
#ifndef TESTS_SIM_TAG_H
#define TESTS_SIM_TAG_H

#include <stdbool.h>
#include <stdint.h>

#define TAG_WORDS 128u
#define TAG_BACKING 0x80000000u /* in the stamps of the read-only base */
#define TAG_START   0x40000000u /* in those of the image that a world begins with */

static inline uint32_t tag_word(uint32_t stamp, uint32_t sector, uint32_t i)
{
    return i == 0 ? stamp : i == 1 ? sector : (stamp * 2654435761u) ^ (sector << 7) ^ i;
}

/* @stamp 0: zeros. */
static inline void tag_fill(void *buf, uint32_t first, uint32_t count, uint32_t stamp)
{
    uint32_t *words = buf;
    for (uint32_t s = 0; s < count; s++) {
        for (uint32_t i = 0; i < TAG_WORDS; i++) {
            *words++ = stamp ? tag_word(stamp, first + s, i) : 0;
        }
    }
}

/* The stamp of a sector; false: it is not one that was written for this place. */
static inline bool tag_read(const void *buf, uint32_t sector, uint32_t *ret_stamp)
{
    const uint32_t *words = buf;
    *ret_stamp = words[0];
    for (uint32_t i = 0; i < TAG_WORDS; i++) {
        if (words[i] != (words[0] ? tag_word(words[0], sector, i) : 0)) {
            return false;
        }
    }
    return true;
}

#endif
