/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbdload: options, threads, the measured time, and the report (one JSON object).
 *
 * With --pid the processor time of the server is read from /proc at the two ends of the
 * measured time: user and system time of all its threads, kernel workers of its rings
 * included, for they belong to its thread group.
 */
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/nbdload.h"

static const char help[] =
    "Usage: nbdload [options] (UNIX-SOCKET-PATH | HOST:PORT) [EXPORT]\n"
    "  --rw read|write|zeroes|trim|mixed  what to do (mixed: half reads); --reads "
    "PERCENT\n"
    "  --bs BYTES --depth N --connections N --range BYTES --step BYTES\n"
    "  --order random|seq|once    once: every block one time, scattered\n"
    "  --flush-every N  --fua     durability of writes\n"
    "  --seconds S --warmup S --ops N --spin US (poll before sleeping)\n"
    "  --verify --seed N          write or check contents keyed by the offset\n"
    "  --structured --pid PID\n"
    "Sizes take k, M, G, T. The result is JSON on standard output.\n";

static uint64_t parse_size(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 0);
    switch (*end) {
    case 'T':
        value <<= 10; /* fall through */
        __attribute__((fallthrough));
    case 'G':
        value <<= 10;
        __attribute__((fallthrough));
    case 'M':
        value <<= 10;
        __attribute__((fallthrough));
    case 'k':
    case 'K':
        value <<= 10;
        end++;
        break;
    default:
        break;
    }
    if (*end || end == text) {
        fprintf(stderr, "nbdload: bad number '%s'\n", text);
        exit(2);
    }
    return value;
}

static double seconds_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

typedef struct CpuTime {
    double total; /* seconds */
    double user, system;
} CpuTime;

/* The processor clock of the thread group gives the total exactly; how it splits is
 * known to a tick only.  (The name in /proc/PID/stat may contain blanks.) */
static CpuTime cpu_time(int pid)
{
    char path[64], text[1024] = "";
    CpuTime cpu = {0};
    unsigned long long user, system;
    clockid_t clock;
    struct timespec ts;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = pid ? fopen(path, "r") : NULL;
    if (!file) {
        return cpu;
    }
    size_t n = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[n] = 0;
    const char *rest = strrchr(text, ')');
    if (rest &&
        sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
               &system) == 2) {
        cpu.user = (double)user / (double)sysconf(_SC_CLK_TCK);
        cpu.system = (double)system / (double)sysconf(_SC_CLK_TCK);
    }
    if (clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &ts) == 0) {
        cpu.total = (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
    }
    return cpu;
}

static void parse_rw(Load *load, const char *text)
{
    load->read_percent = 0;
    if (strcmp(text, "read") == 0) {
        load->read_percent = 100;
    } else if (strcmp(text, "mixed") == 0) {
        load->read_percent = 50;
    } else if (strcmp(text, "zeroes") == 0) {
        load->zeroes = true;
    } else if (strcmp(text, "trim") == 0) {
        load->trim = true;
    } else if (strcmp(text, "write") != 0) {
        fprintf(stderr, "nbdload: bad --rw '%s'\n", text);
        exit(2);
    }
}

static void parse_order(Load *load, const char *text)
{
    load->order = strcmp(text, "seq") == 0    ? ORDER_SEQ
                  : strcmp(text, "once") == 0 ? ORDER_ONCE
                                              : ORDER_RANDOM;
}

static void parse_target(Load *load, char *text)
{
    char *colon = strrchr(text, ':');
    if (text[0] == '/' || text[0] == '.' || !colon) {
        load->unix_path = text;
    } else {
        *colon = 0;
        load->host = text;
        load->port = colon + 1;
    }
}

static int parse_options(Load *load, int argc, char **argv)
{
    enum {
        RW = 1,
        READS,
        BS,
        DEPTH,
        CONNS,
        RANGE,
        STEP,
        ORDER,
        FLUSH,
        FUA,
        SECS,
        WARM,
        SPIN,
        OPS,
        VERIFY,
        SEED,
        STRUCT,
        PID,
        HELP
    };
    static const struct option options[] = {
        {"rw", 1, NULL, RW},
        {"reads", 1, NULL, READS},
        {"bs", 1, NULL, BS},
        {"depth", 1, NULL, DEPTH},
        {"connections", 1, NULL, CONNS},
        {"range", 1, NULL, RANGE},
        {"step", 1, NULL, STEP},
        {"order", 1, NULL, ORDER},
        {"flush-every", 1, NULL, FLUSH},
        {"fua", 0, NULL, FUA},
        {"seconds", 1, NULL, SECS},
        {"warmup", 1, NULL, WARM},
        {"spin", 1, NULL, SPIN},
        {"ops", 1, NULL, OPS},
        {"verify", 0, NULL, VERIFY},
        {"seed", 1, NULL, SEED},
        {"structured", 0, NULL, STRUCT},
        {"pid", 1, NULL, PID},
        {"help", 0, NULL, HELP},
        {0},
    };
    int c, pid = 0;
    while ((c = getopt_long(argc, argv, "", options, NULL)) > 0) {
        switch (c) {
        case RW:
            parse_rw(load, optarg);
            break;
        case READS:
            load->read_percent = (unsigned)parse_size(optarg);
            break;
        case BS:
            load->block_size = (uint32_t)parse_size(optarg);
            break;
        case DEPTH:
            load->depth = (unsigned)parse_size(optarg);
            break;
        case CONNS:
            load->connections = (unsigned)parse_size(optarg);
            break;
        case RANGE:
            load->range = parse_size(optarg);
            break;
        case STEP:
            load->step = parse_size(optarg);
            break;
        case ORDER:
            parse_order(load, optarg);
            break;
        case FLUSH:
            load->flush_every = (unsigned)parse_size(optarg);
            break;
        case FUA:
            load->fua = true;
            break;
        case SECS:
            load->seconds = atof(optarg);
            break;
        case WARM:
            load->warmup = atof(optarg);
            break;
        case SPIN:
            load->spin_ns = (uint64_t)(atof(optarg) * 1000);
            break;
        case OPS:
            load->max_ops = parse_size(optarg);
            break;
        case VERIFY:
            load->verify = true;
            break;
        case SEED:
            load->seed = parse_size(optarg);
            break;
        case STRUCT:
            load->structured = true;
            break;
        case PID:
            pid = (int)parse_size(optarg);
            break;
        case HELP:
            fputs(help, stdout);
            exit(0);
        default:
            fputs(help, stderr);
            exit(2);
        }
    }
    if (optind >= argc || argc - optind > 2 || !load->depth || !load->connections ||
        load->block_size < 512 || load->block_size > 32u << 20) {
        fputs(help, stderr);
        exit(2);
    }
    parse_target(load, argv[optind]);
    load->export_name = optind + 1 < argc ? argv[optind + 1] : "";
    load->step = load->step ? load->step : load->block_size;
    return pid;
}

static void *thread_main(void *opaque)
{
    conn_run(opaque);
    return NULL;
}

static void sleep_until(double when)
{
    double left = when - seconds_now();
    if (left > 0) {
        usleep((useconds_t)(left * 1e6));
    }
}

static int report(const Conn *conns, const Load *load, double elapsed, CpuTime cpu)
{
    static Conn sum;
    for (unsigned i = 0; i < load->connections; i++) {
        const Conn *c = &conns[i];
        sum.ops += c->ops;
        sum.flushes += c->flushes;
        sum.bytes += c->bytes;
        sum.errors += c->errors;
        sum.mismatches += c->mismatches;
        sum.sends += c->sends;
        sum.recvs += c->recvs;
        sum.started += c->started;
        sum.failure = sum.failure ? sum.failure : c->failure;
        sum.first_error = sum.first_error ? sum.first_error : c->first_error;
        hist_merge(&sum.latency, &c->latency);
    }
    double ops = sum.ops ? (double)sum.ops : 1;
    printf("{\"ops\": %llu, \"flushes\": %llu, \"seconds\": %.4f, \"iops\": %.1f, "
           "\"mib_per_s\": %.1f, ",
           (unsigned long long)sum.ops, (unsigned long long)sum.flushes, elapsed,
           (double)sum.ops / elapsed, (double)sum.bytes / elapsed / 1048576);
    printf("\"latency_us\": {\"mean\": %.2f, \"p50\": %.2f, \"p99\": %.2f, "
           "\"p999\": %.2f, \"max\": %.2f}, ",
           (double)sum.latency.sum / ops / 1e3,
           (double)hist_quantile(&sum.latency, 0.5) / 1e3,
           (double)hist_quantile(&sum.latency, 0.99) / 1e3,
           (double)hist_quantile(&sum.latency, 0.999) / 1e3,
           (double)sum.latency.max / 1e3);
    printf("\"server_cpu_us_per_op\": %.3f, \"server_user_s\": %.2f, "
           "\"server_system_s\": %.2f, ",
           cpu.total * 1e6 / ops, cpu.user, cpu.system);
    printf("\"started\": %llu, \"sends\": %llu, \"recvs\": %llu, \"errors\": %llu, "
           "\"first_error\": %d, \"mismatches\": %llu, \"failure\": %s%s%s}\n",
           (unsigned long long)sum.started, (unsigned long long)sum.sends,
           (unsigned long long)sum.recvs, (unsigned long long)sum.errors,
           sum.first_error, (unsigned long long)sum.mismatches, sum.failure ? "\"" : "",
           sum.failure ? sum.failure : "null", sum.failure ? "\"" : "");
    return sum.failure || sum.errors || sum.mismatches || !sum.started;
}

int main(int argc, char **argv)
{
    static Load load = {.connections = 1,
                        .depth = 1,
                        .block_size = 4096,
                        .read_percent = 100,
                        .seconds = 3,
                        .seed = 1};
    int pid = parse_options(&load, argc, argv);
    bool counted = load.max_ops || load.order == ORDER_ONCE;
    Conn *conns = calloc(load.connections, sizeof(Conn));
    pthread_t *threads = calloc(load.connections, sizeof(pthread_t));

    for (unsigned i = 0; i < load.connections; i++) {
        conns[i].load = &load;
        conns[i].index = i;
        conns[i].rng = (load.seed + i + 1) * UINT64_C(0x9e3779b97f4a7c15);
        if (!conn_open(&conns[i])) {
            fprintf(stderr, "nbdload: %s\n", conns[i].failure);
            return 1;
        }
    }
    load.measuring = load.warmup <= 0 || counted;
    double start = seconds_now();
    CpuTime before = cpu_time(pid);
    for (unsigned i = 0; i < load.connections; i++) {
        pthread_create(&threads[i], NULL, thread_main, &conns[i]);
    }
    if (!load.measuring) {
        sleep_until(start + load.warmup);
        start = seconds_now();
        before = cpu_time(pid);
        load.measuring = true;
    }
    double end = 0;
    CpuTime after = {0};
    if (!counted) {
        sleep_until(start + load.seconds);
        load.measuring = false;
        after = cpu_time(pid);
        end = seconds_now();
        load.stop = true;
    }
    for (unsigned i = 0; i < load.connections; i++) {
        pthread_join(threads[i], NULL);
    }
    if (counted) {
        end = seconds_now();
        after = cpu_time(pid);
    }
    return report(conns, &load, end - start,
                  (CpuTime){after.total - before.total, after.user - before.user,
                            after.system - before.system});
}
