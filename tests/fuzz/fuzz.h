/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the fuzzing targets share: one loop for the life of the process, files in memory,
 * and a check that says what went wrong before it aborts.
 *
 *  Z1 a target leaves nothing behind: the next input finds what this one found;
 *  Z2 a target touches no file of the machine it runs on;
 *  Z3 every loop of a target is bounded, so that what hangs is the product.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <glib.h>
#include <stddef.h>
#include <stdint.h>
#include "block/graph.h"

/* spec: libFuzzer's entry point; replay.c calls it too. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The process's loop: epoll, so that every run takes the same way. */
Loop *fuzz_loop(void);

/* Not a g_assert: says more, and is no assertion of the product's. */
#define fuzz_check(condition, ...)                                                       \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fuzz_failed(#condition, __VA_ARGS__);                                        \
        }                                                                                \
    } while (0)
void fuzz_failed(const char *condition, const char *fmt, ...) G_GNUC_PRINTF(2, 3)
    G_GNUC_NORETURN;

/* Is most of the time going into the memory for tables of many MiB? The fuzzer has better
 * things to do; the corpus has some that are run. */
bool fuzz_image_is_slow(const uint8_t *data, size_t size);

/* ---- files in memory (mem-file.c) ---- */

typedef struct MemFile {
    uint8_t *data;
    uint64_t size, room, max;
    uint64_t nb_ops;
    uint64_t fail_op; /* the operation with this number fails with EIO; 0: none */
} MemFile;

/* Begin with a copy of @data; it may grow to @max bytes, then there is no space left. */
void mem_file_init(MemFile *file, const void *data, size_t size, uint64_t max);
void mem_file_fini(MemFile *file);
void mem_file_load(MemFile *file, const void *data, size_t size);
DiskFile *mem_file_open(MemFile *file, Loop *loop, bool writable);

/* An empty qcow2 image: 64 KiB, clusters of 512 bytes, over "base". */
void mem_image_make(uint8_t image[2048]);

/* All the files a graph can see. "image" is what the input says, "base" is 64 KiB of
 * letters; every other name is not there. */
typedef struct MemFiles {
    MemFile image, base;
} MemFiles;
void mem_files_init(MemFiles *files, const void *image, size_t size, uint64_t max);
void mem_files_fini(MemFiles *files);
/* For graph_set_open_file(). */
DiskFile *mem_files_open(void *opaque, Loop *loop, const char *filename, int oflags,
                         DiskAio aio, GError **errp);

#endif
