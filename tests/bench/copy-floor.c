/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The least that copying clusters costs here: one thread, no format, no socket; what is
 * left between it and an allocating write over a backing image is ours.
 *
 *     copy-floor FILE CLUSTER PIECE COUNT
 *
 * reads COUNT clusters of FILE in scattered order and writes them to a new file beside
 * it, in pieces of PIECE bytes, by each way that the kernel has: a read and a write, in
 * the kernel from file to file, through a pipe; and each half of the first alone.
 * Prints microseconds of processor time per cluster.
 */
#include <err.h>
#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct Job {
    int in, out, pipe[2];
    uint8_t *buf;
    size_t piece;
} Job;

typedef bool Step(Job *job, loff_t from, loff_t to);

static bool step_read(Job *job, loff_t from, loff_t to)
{
    (void)to;
    return pread(job->in, job->buf, job->piece, from) == (ssize_t)job->piece;
}

static bool step_write(Job *job, loff_t from, loff_t to)
{
    (void)from;
    return pwrite(job->out, job->buf, job->piece, to) == (ssize_t)job->piece;
}

static bool step_read_write(Job *job, loff_t from, loff_t to)
{
    return step_read(job, from, to) && step_write(job, from, to);
}

static bool step_copy_file_range(Job *job, loff_t from, loff_t to)
{
    return copy_file_range(job->in, &from, job->out, &to, job->piece, 0) ==
           (ssize_t)job->piece;
}

static bool step_splice(Job *job, loff_t from, loff_t to)
{
    for (size_t left = job->piece; left > 0;) {
        ssize_t n = splice(job->in, &from, job->pipe[1], NULL, left, 0);
        if (n <= 0) {
            return false;
        }
        left -= (size_t)n;
        while (n > 0) {
            ssize_t out = splice(job->pipe[0], NULL, job->out, &to, (size_t)n, 0);
            if (out <= 0) {
                return false;
            }
            n -= out;
        }
    }
    return true;
}

static double cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void run(Job *job, const char *name, Step *step, const char *path,
                size_t cluster, uint64_t count, uint64_t in_clusters)
{
    job->out = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (job->out < 0 || ftruncate(job->out, (off_t)(count * cluster)) < 0) {
        err(1, "%s", path);
    }
    double begin = cpu_us();
    for (uint64_t i = 0; i < count; i++) {
        uint64_t from = i * UINT64_C(2654435761) % in_clusters * cluster;
        for (size_t at = 0; at < cluster; at += job->piece) {
            if (!step(job, (loff_t)(from + at), (loff_t)(i * cluster + at))) {
                unlink(path);
                err(1, "%s", name);
            }
        }
    }
    printf("%-16s %9.2f\n", name, (cpu_us() - begin) / (double)count);
    close(job->out);
    unlink(path);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        Step *step;
    } ways[] = {
        {"write (warms up)", step_write},
        {"write", step_write},
        {"read", step_read},
        {"read and write", step_read_write},
        {"copy_file_range", step_copy_file_range},
        {"splice", step_splice},
    };
    if (argc != 5) {
        errx(2, "usage: copy-floor FILE CLUSTER PIECE COUNT");
    }
    const size_t cluster = strtoull(argv[2], NULL, 0);
    const uint64_t count = strtoull(argv[4], NULL, 0);
    g_autofree char *path = g_strdup_printf("%s.copy-floor", argv[1]);
    Job job = {.in = open(argv[1], O_RDONLY), .piece = strtoull(argv[3], NULL, 0)};
    struct stat st;

    if (job.in < 0 || fstat(job.in, &st) < 0 || pipe(job.pipe) < 0) {
        err(1, "%s", argv[1]);
    }
    if (!job.piece || !cluster || cluster % job.piece || st.st_size < (off_t)cluster) {
        errx(2, "the piece divides the cluster, the file has one at least");
    }
    if (posix_memalign((void **)&job.buf, 4096, job.piece)) {
        errx(1, "no memory");
    }
    memset(job.buf, 1, job.piece);
    for (size_t i = 0; i < G_N_ELEMENTS(ways); i++) {
        run(&job, ways[i].name, ways[i].step, path, cluster, count,
            (uint64_t)st.st_size / cluster);
    }
    free(job.buf);
    return 0;
}
