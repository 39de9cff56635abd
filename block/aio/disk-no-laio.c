/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What stands in for disk-laio.c in a build without libaio: it is never available. */
#include "block/aio/disk-private.h"
#include "block/base/error.h"

bool laio_open(Loop *loop, GError **errp)
{
    error_set(errp, "aio=native was specified, but is not supported in this build.");
    return false;
}

bool laio_start(Loop *loop, DiskOp *op)
{
    return false;
}

bool laio_reap(Loop *loop)
{
    return false;
}

void laio_flush(Loop *loop)
{
}

void laio_free(Loop *loop)
{
}
