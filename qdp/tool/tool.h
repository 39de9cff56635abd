/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the command line tools share: a loop with a graph, sizes in words, cache modes. */
#ifndef QDP_TOOL_TOOL_H
#define QDP_TOOL_TOOL_H

#include <glib.h>
#include <stdbool.h>
#include "block/aio/loop.h"
#include "block/graph.h"
#include "block/node.h"
#include "block/port.h"

typedef struct Tool {
    const char *name; /* for messages */
    Loop *loop;
    Graph *graph;
    int argc;
    char **argv;
    int status; /* of the process */
    int (*main)(struct Tool *tool);
    LoopWork start;
    bool progress;         /* -p: tool_progress() says how far */
    double progress_shown; /* percent; < 0: nothing yet */
} Tool;

/* Run @main in a coroutine on a loop with an empty graph; the process's exit status. */
int tool_run(const char *name, int argc, char **argv, int (*main)(Tool *tool));

/* "NAME: TEXT" to stderr. */
void tool_error(const Tool *tool, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* The same with @error, which is freed. */
void tool_error_free(const Tool *tool, GError *error);

/* Refuse the argument of --object: there is no object that a tool has use for. */
void tool_refuse_object(const Tool *tool, const char *arg);

/* Bytes of "64k", "1.5G", "4096"; -EINVAL (not a number) or -ERANGE. */
int64_t tool_parse_size(const char *text);
/* The same up to 2^64 - 1; 0, -EINVAL or -ERANGE. */
int tool_parse_size_u64(const char *text, uint64_t *ret);

/* "    (12.50/100%)" over itself on stdout, if tool->progress says so and it changed by a
 * percent; tool_progress_end() goes to the next line. */
void tool_progress(Tool *tool, double percent);
void tool_progress_end(Tool *tool);
/* "64 MiB": three significant digits, as qemu-img prints. Caller frees. */
char *tool_size_text(uint64_t bytes);

/* Say so if @node, opened for writing as @filename, was only guessed to be raw. */
void tool_warn_guessed_raw(const BlockNode *node, const char *filename);

/* none, writeback, writethrough, directsync, unsafe. False for anything else. */
bool tool_parse_cache(const char *mode, ImageOpenOptions *options, bool *ret_writethrough);

#endif
