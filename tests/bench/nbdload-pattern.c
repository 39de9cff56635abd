/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The data that nbdload writes and checks, and its latency histogram. */
#include <string.h>

#include "tests/bench/nbdload.h"

static uint64_t word_at(uint64_t offset, uint64_t seed)
{
    uint64_t x = (offset + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ seed;
    return x ^ (x >> 29);
}

void pattern_fill(uint8_t *buf, uint32_t len, uint64_t offset, uint64_t seed)
{
    for (uint32_t i = 0; i + 8 <= len; i += 8) {
        uint64_t word = word_at(offset + i, seed);
        memcpy(buf + i, &word, 8);
    }
}

bool pattern_matches(const uint8_t *buf, uint32_t len, uint64_t offset, uint64_t seed)
{
    for (uint32_t i = 0; i + 8 <= len; i += 8) {
        uint64_t word = word_at(offset + i, seed);
        if (memcmp(buf + i, &word, 8) != 0) {
            return false;
        }
    }
    return true;
}

static unsigned bucket_of(uint64_t value)
{
    if (value < HIST_STEPS) {
        return (unsigned)value;
    }
    unsigned top = 63 - (unsigned)__builtin_clzll(value);
    unsigned step = (unsigned)(value >> (top - 5)) & (HIST_STEPS - 1);
    return (top - 4) * HIST_STEPS + step;
}

static uint64_t bucket_value(unsigned bucket)
{
    if (bucket < HIST_STEPS) {
        return bucket;
    }
    unsigned top = bucket / HIST_STEPS + 4;
    return (uint64_t)(HIST_STEPS + bucket % HIST_STEPS) << (top - 5);
}

void hist_add(Hist *hist, uint64_t value)
{
    hist->count++;
    hist->sum += value;
    hist->max = value > hist->max ? value : hist->max;
    hist->bucket[bucket_of(value)]++;
}

void hist_merge(Hist *into, const Hist *from)
{
    into->count += from->count;
    into->sum += from->sum;
    into->max = from->max > into->max ? from->max : into->max;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        into->bucket[i] += from->bucket[i];
    }
}

uint64_t hist_quantile(const Hist *hist, double q)
{
    uint64_t want = (uint64_t)((double)hist->count * q), seen = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += hist->bucket[i];
        if (seen > want) {
            return bucket_value(i);
        }
    }
    return hist->max;
}
