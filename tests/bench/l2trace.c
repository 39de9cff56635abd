/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which slices should an L2 cache let go of?  Replays look-ups, at the granularity of slices,
 * against several rules and prints their miss rates: what block/qcow2/l2-evict.c does was
 * chosen by this.
 *
 *     l2trace                 the table, for traces made here from a seed
 *     l2trace FILE [NAME]     a recorded trace: one slice number a line (traces/record.py); the
 *                             slices kept are parts of those that it touches
 *     l2trace --dump NAME     a made trace, one slice number a line
 *
 * A trace's look-ups are what map() sees: a reader of 32 MiB in pieces of 64 KiB looks at one
 * slice 512 times in a row, which is why rules that count looks must not count those.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NB_SLICES 32768u /* 1 TiB at 64 KiB clusters */

/* ---- traces ---- */

typedef struct Trace {
    uint32_t *look;
    size_t nb, cap;
} Trace;

static uint64_t seed = 88172645463325252ull;
static uint64_t rnd(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (seed >> 11) % n;
}

static void look(Trace *t, uint32_t slice, unsigned times)
{
    while (times--) {
        if (t->nb == t->cap) {
            t->cap = t->cap ? 2 * t->cap : 1 << 20;
            t->look = realloc(t->look, t->cap * sizeof(*t->look));
            if (!t->look) {
                abort();
            }
        }
        t->look[t->nb++] = slice;
    }
}

/* Zipf with exponent 1 over NB_SLICES, spread over the disk. */
static double *zipf_sums;
static uint32_t zipf(void)
{
    if (!zipf_sums) {
        double sum = 0;
        zipf_sums = malloc(NB_SLICES * sizeof(double));
        for (uint32_t i = 0; i < NB_SLICES; i++) {
            zipf_sums[i] = sum += 1.0 / (i + 1);
        }
    }
    double at = zipf_sums[NB_SLICES - 1] * ((double)rnd(1u << 30) / (1u << 30));
    uint32_t low = 0, high = NB_SLICES - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (zipf_sums[middle] < at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return (uint32_t)((uint64_t)low * 12347 % NB_SLICES);
}

static void trace_random(Trace *t)
{
    for (unsigned i = 0; i < 2000000; i++) {
        look(t, (uint32_t)rnd(NB_SLICES), 1);
    }
}

static void trace_zipf(Trace *t)
{
    for (unsigned i = 0; i < 2000000; i++) {
        look(t, zipf(), 1);
    }
}

/* A guest uses 3000 slices all the time; a backup reads the whole disk besides, in 1 MiB. */
static void trace_backup(Trace *t)
{
    for (uint32_t slice = 0; slice < NB_SLICES; slice++) {
        for (unsigned piece = 0; piece < 32; piece++) {
            look(t, slice, 1);
            look(t, (uint32_t)(rnd(3000) * 10 % NB_SLICES), 2);
        }
    }
}

/* The same, the backup in requests of 64 KiB and the guest slower: its looks come in bursts. */
static void trace_backup_small(Trace *t)
{
    for (uint32_t slice = 0; slice < NB_SLICES; slice++) {
        for (unsigned piece = 0; piece < 64; piece++) {
            look(t, slice, 1);
            if (piece % 4 == 0) {
                look(t, (uint32_t)(rnd(3000) * 10 % NB_SLICES), 1);
            }
        }
    }
}

/* Half of the time random, half of it a reader that goes round a quarter of the disk. */
static void trace_mix(Trace *t)
{
    uint32_t at = 0;
    for (unsigned i = 0; i < 500000; i++) {
        look(t, zipf(), 1);
        look(t, at / 16, 1);
        at = (at + 1) % (16 * NB_SLICES / 4);
    }
}

/* A guest starts: some areas read in order, with jumps back to directories; then its hot
 * set moves every now and then. */
static void trace_boot(Trace *t)
{
    uint32_t base = 0;
    for (unsigned phase = 0; phase < 40; phase++) {
        base = (uint32_t)rnd(NB_SLICES - 2000);
        for (unsigned i = 0; i < 20000; i++) {
            if (i % 10 < 7) {
                look(t, base + (uint32_t)(rnd(44) * rnd(44)), 2);
            } else if (i % 10 < 9) {
                look(t, base + i / 20, 3);
            } else {
                look(t, (uint32_t)rnd(500) * 64, 1);
            }
        }
    }
}

/* A ring larger than the cache, again and again: what LRU does worst. */
static void trace_ring(Trace *t)
{
    for (unsigned round = 0; round < 8; round++) {
        for (uint32_t slice = 0; slice < 12000; slice++) {
            look(t, slice, 8);
        }
    }
}

static const struct {
    const char *name;
    void (*make)(Trace *t);
} traces[] = {{"random", trace_random},
              {"zipf", trace_zipf},
              {"backup-1m+hot", trace_backup},
              {"backup-64k+hot", trace_backup_small},
              {"ring+zipf", trace_mix},
              {"boot", trace_boot},
              {"ring", trace_ring}};
#define NB_TRACES (sizeof(traces) / sizeof(traces[0]))

/* ---- rules ---- */

typedef struct Item {
    int32_t next, prev; /* in its queue, -1: end */
    uint8_t where;      /* 0 nowhere, 1 small, 2 main */
    uint8_t freq;
    uint64_t ghost; /* its number among those evicted from small, + 1 */
    uint64_t came;
} Item;

typedef struct Queue {
    int32_t head, tail;
    uint32_t nb;
} Queue;

typedef enum Rule { LRU, CLOCK, S3_FIFO, S3_LATE, TWO_Q, NB_RULES } Rule;
static const char *const rule_names[NB_RULES] = {"lru", "clock", "s3-fifo", "s3-late", "2q-clock"};

typedef struct Cache {
    Rule rule;
    uint32_t size;
    Item *items;
    Queue small, main;
    uint64_t ghosts, loads, steps, most_steps;
} Cache;

static void unlink_item(Cache *c, Queue *q, int32_t i)
{
    Item *it = &c->items[i];
    *(it->prev < 0 ? &q->head : &c->items[it->prev].next) = it->next;
    *(it->next < 0 ? &q->tail : &c->items[it->next].prev) = it->prev;
    q->nb--;
}

static void append(Cache *c, Queue *q, int32_t i)
{
    Item *it = &c->items[i];
    it->next = -1;
    it->prev = q->tail;
    *(q->tail < 0 ? &q->head : &c->items[q->tail].next) = i;
    q->tail = i;
    q->nb++;
}

static void evict_main(Cache *c)
{
    unsigned steps = 0;
    while (steps++ < 64 && c->items[c->main.head].freq && c->rule != LRU) {
        int32_t i = c->main.head;
        c->items[i].freq--;
        unlink_item(c, &c->main, i);
        append(c, &c->main, i);
    }
    c->steps += steps;
    int32_t gone = c->main.head;
    unlink_item(c, &c->main, gone);
    c->items[gone].where = 0;
}

/* False: it went to main instead. */
static bool evict_small(Cache *c)
{
    int32_t i = c->small.head;
    unlink_item(c, &c->small, i);
    c->steps++;
    if (c->items[i].freq && c->rule != TWO_Q) {
        c->items[i].freq = 0;
        c->items[i].where = 2;
        append(c, &c->main, i);
        return false;
    }
    c->items[i].where = 0;
    c->items[i].ghost = ++c->ghosts;
    return true;
}

static void make_room(Cache *c)
{
    uint32_t share = c->size / 10 ? c->size / 10 : 1;
    while (c->small.nb + c->main.nb >= c->size) {
        if (c->small.nb > share || !c->main.nb) {
            evict_small(c);
        } else {
            evict_main(c);
        }
    }
}

static bool lookup(Cache *c, uint32_t slice)
{
    Item *it = &c->items[slice];
    if (it->where) {
        if (c->rule == LRU) {
            unlink_item(c, &c->main, (int32_t)slice);
            append(c, &c->main, (int32_t)slice);
        } else if (c->rule == S3_FIFO) {
            it->freq += it->freq < 3;
        } else if (c->rule == S3_LATE) { /* in small: a look counts after half of its stay */
            if (it->where == 2 || c->loads - it->came > c->size / 20) {
                it->freq = 1;
            }
        } else {
            it->freq = 1;
        }
        return true;
    }
    uint64_t before = c->steps;
    make_room(c);
    c->most_steps = c->steps - before > c->most_steps ? c->steps - before : c->most_steps;
    bool known = it->ghost && c->ghosts - it->ghost <= c->main.nb + 16;
    bool small = c->rule >= S3_FIFO && !known;
    it->where = small ? 1 : 2;
    it->freq = c->rule == CLOCK;
    it->came = c->loads++;
    append(c, small ? &c->small : &c->main, (int32_t)slice);
    return false;
}

static double miss_rate(const Trace *t, Rule rule, uint32_t size, uint64_t *most)
{
    Cache c = {.rule = rule, .size = size, .small = {-1, -1, 0}, .main = {-1, -1, 0}};
    c.items = calloc(NB_SLICES, sizeof(Item));
    size_t misses = 0;
    for (size_t i = 0; i < t->nb; i++) {
        misses += !lookup(&c, t->look[i] % NB_SLICES);
    }
    free(c.items);
    *most = c.most_steps;
    return 100.0 * (double)misses / (double)t->nb;
}

#define NB_SIZES 3
static void table(const char *name, const Trace *t, const uint32_t *sizes)
{
    for (unsigned s = 0; s < NB_SIZES; s++) {
        printf("| %-14s | %5u |", name, sizes[s]);
        for (Rule rule = 0; rule < NB_RULES; rule++) {
            uint64_t most;
            printf(" %6.2f |", miss_rate(t, rule, sizes[s], &most));
        }
        printf("\n");
    }
}

/* Distinct slices. */
static uint32_t touched(const Trace *t)
{
    bool *seen = calloc(NB_SLICES, sizeof(*seen));
    uint32_t n = 0;
    for (size_t i = 0; i < t->nb; i++) {
        n += !seen[t->look[i] % NB_SLICES];
        seen[t->look[i] % NB_SLICES] = true;
    }
    free(seen);
    return n;
}

static bool read_trace(const char *path, Trace *t)
{
    FILE *f = fopen(path, "r");
    unsigned slice;
    if (!f) {
        perror(path);
        return false;
    }
    while (fscanf(f, "%u", &slice) == 1) {
        look(t, slice, 1);
    }
    fclose(f);
    return t->nb > 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--dump")) {
        for (size_t k = 0; k < NB_TRACES; k++) {
            Trace t = {0};
            if (strcmp(traces[k].name, argv[2])) {
                continue;
            }
            traces[k].make(&t);
            for (size_t i = 0; i < t.nb; i++) {
                printf("%u\n", t.look[i]);
            }
            free(t.look);
            return 0;
        }
        fprintf(stderr, "l2trace: no trace '%s'\n", argv[2]);
        return 1;
    }
    printf("| misses in %%    | slices |");
    for (Rule rule = 0; rule < NB_RULES; rule++) {
        printf(" %s |", rule_names[rule]);
    }
    printf("\n|---|---|---|---|---|---|---|\n");
    if (argc == 2 || argc == 3) {
        Trace t = {0};
        if (!read_trace(argv[1], &t)) {
            return 1;
        }
        uint32_t n = touched(&t);
        const uint32_t parts[NB_SIZES] = {n / 16 + 1, n / 8 + 1, n / 3 + 1};
        printf("%zu look-ups of %u slices\n", t.nb, n);
        table(argv[argc - 1], &t, parts);
        free(t.look);
        return 0;
    }
    for (size_t k = 0; k < NB_TRACES; k++) {
        Trace t = {0};
        traces[k].make(&t);
        static const uint32_t sizes[NB_SIZES] = {1024, 4096, 8192};
        table(traces[k].name, &t, sizes);
        free(t.look);
    }
    free(zipf_sums);
    return 0;
}
