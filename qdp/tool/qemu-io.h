/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-io's inside: the open image and the table of commands. */
#ifndef QDP_TOOL_QEMU_IO_H
#define QDP_TOOL_QEMU_IO_H

#include "qdp/tool/tool.h"

typedef struct Io {
    Tool *tool;
    BlockNode *node;
    BlockPort *port;
    bool writable, writethrough;
    unsigned nb_aio; /* requests started by aio_* */
    CoQueue aio_done;
    bool quit;
} Io;

typedef struct IoCommand {
    const char *name, *alias;
    int min_args, max_args; /* -1: any */
    const char *args, *help;
    int coroutine_fn (*fn)(Io *io, int argc, char **argv); /* 0, or -1: failed */
} IoCommand;

extern const IoCommand io_data_commands[], io_info_commands[]; /* end with name NULL */

/* A size argument; false with QEMU's message printed. */
bool io_size_arg(const char *text, int64_t *ret);
/* "wrote 4096/4096 bytes at offset 0" and the line with the rates. */
void io_report(const char *verb, int64_t elapsed_ns, uint64_t offset, uint64_t count,
               uint64_t total, int nb_ops);
char *io_size_text(double bytes);

#endif
