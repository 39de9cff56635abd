/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every driver there is; table.c lists them. */
#ifndef BLOCK_DRIVER_TABLE_H
#define BLOCK_DRIVER_TABLE_H

#include "block/driver.h"

extern const BlockDriver driver_blkdebug;
extern const BlockDriver driver_file;
extern const BlockDriver driver_host_device;
extern const BlockDriver driver_null_aio;
extern const BlockDriver driver_null_co;
extern const BlockDriver driver_qcow2;
extern const BlockDriver driver_raw;

#endif
