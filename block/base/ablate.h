/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Switches of the catalogue (patches/): each turns one departure from the simple way off, so
 * that it can be measured and so that the simple way is its oracle.
 *
 * The enumeration is made from the pages' front matter: no switch without a page. Set once,
 * before the first loop and disk; read where a thing is opened or at a predictable branch.
 */
#ifndef BLOCK_BASE_ABLATE_H
#define BLOCK_BASE_ABLATE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "block/base/ablate-switches.h"

extern uint32_t ablate_mask;

static inline bool ablated(AblateSwitch what)
{
    return G_UNLIKELY(ablate_mask & (UINT32_C(1) << what));
}

/* Turn off what @list names: switches and pages' numbers, comma separated; "all". Adds to
 * what is off already. */
bool ablate_set(const char *list, GError **errp);
/* The same from the environment's QDP_ABLATE, for programs without the option; an unknown
 * name there is told on standard error and ends the program. */
void ablate_from_environment(void);
/* "0008 direct-path\n" and so on; the caller frees. */
char *ablate_names(void);

#endif
