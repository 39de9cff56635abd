/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making images: between create.c and the formats. */
#ifndef BLOCK_CREATE_H
#define BLOCK_CREATE_H

#include "block/driver.h"

/* Write an empty image on @file, whose contents go away. *errp names the reason. */
bool coroutine_fn qcow2_co_create_on(BlockNode *file, const BlockdevCreateOptionsQcow2 *o,
                                     GError **errp);

#endif
