/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdload, an NBD load generator: what its parts share.
 *
 * It exists because the client is the bottleneck otherwise: it takes every waiting
 * reply with one recv and refills all free slots with one send.  One thread serves one
 * connection; threads share nothing but the start and the end of the measured time.
 */
#ifndef TESTS_BENCH_NBDLOAD_H
#define TESTS_BENCH_NBDLOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Logarithmic histogram: 32 steps for each doubling, so at most 3 % off. */
#define HIST_STEPS   32
#define HIST_BUCKETS (64 * HIST_STEPS)
typedef struct Hist {
    uint64_t count, sum, max;
    uint64_t bucket[HIST_BUCKETS];
} Hist;
void hist_add(Hist *hist, uint64_t value);
void hist_merge(Hist *into, const Hist *from);
uint64_t hist_quantile(const Hist *hist, double q);

typedef enum Order {
    ORDER_RANDOM, /* any block, again and again */
    ORDER_SEQ,    /* one after the other, round and round */
    ORDER_ONCE,   /* every block once, in a scattered order; then the run ends */
} Order;

typedef struct Load {
    const char *unix_path; /* or host and port */
    const char *host, *port;
    const char *export_name;
    unsigned connections, depth;
    uint32_t block_size;   /* bytes of one request */
    uint64_t step;         /* distance of neighbouring blocks */
    uint64_t range;        /* bytes of the export in use; 0 = all */
    unsigned read_percent; /* the others are writes */
    unsigned flush_every;  /* a flush after so many writes of a slot; 0 = never */
    bool fua, zeroes, trim, structured, verify, sync;
    Order order;
    uint64_t max_ops; /* 0 = by time */
    double seconds, warmup;
    uint64_t spin_ns; /* poll so long for replies before sleeping */
    uint64_t seed;
    _Atomic bool stop; /* send nothing new */
    _Atomic bool measuring;
} Load;

typedef struct Conn {
    Load *load;
    unsigned index;
    int fd;
    uint64_t size;
    uint16_t flags;
    uint64_t rng;
    uint64_t next;      /* the next block of the orders that count */
    uint64_t nb_blocks; /* of this connection */
    uint64_t first_block;
    struct Slot *slots;
    /* results */
    uint64_t started; /* data operations, the warm-up included */
    uint64_t ops, flushes, bytes, errors, mismatches, sends, recvs;
    Hist latency;
    const char *failure; /* why the connection ended early; NULL = it did not */
    int first_error;     /* NBD error of the first reply that had one */
} Conn;

/* nbdload-conn.c: connect and negotiate; false and conn->failure on error. */
bool conn_open(Conn *conn);
/* Run until the load says stop, the operations are done or the connection fails. */
void conn_run(Conn *conn);

/* nbdload-pattern.c: contents keyed by the offset and the seed. */
void pattern_fill(uint8_t *buf, uint32_t len, uint64_t offset, uint64_t seed);
bool pattern_matches(const uint8_t *buf, uint32_t len, uint64_t offset, uint64_t seed);

#endif
