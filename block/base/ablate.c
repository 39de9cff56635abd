/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The switches of the catalogue: see ablate.h. */
#include "block/base/ablate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/base/error.h"

uint32_t ablate_mask;

static const struct {
    const char *page, *name;
} table[] = {ABLATE_TABLE};

_Static_assert(ABLATE_COUNT <= 32, "a bit each");

bool ablate_set(const char *list, GError **errp)
{
    g_auto(GStrv) words = g_strsplit(list, ",", -1);
    uint32_t mask = 0;

    for (char **word = words; *word; word++) {
        uint32_t found = 0;
        for (unsigned i = 0; i < ABLATE_COUNT; i++) {
            if (!strcmp(*word, table[i].name) || !strcmp(*word, table[i].page) ||
                !strcmp(*word, "all")) {
                found |= UINT32_C(1) << i;
            }
        }
        if (!found) {
            error_set(errp, "There is no switch '%s' (try 'help')", *word);
            return false;
        }
        mask |= found;
    }
    ablate_mask |= mask;
    return true;
}

void ablate_from_environment(void)
{
    const char *list = getenv("QDP_ABLATE");
    g_autoptr(GError) error = NULL;

    if (list && *list && !ablate_set(list, &error)) {
        fprintf(stderr, "QDP_ABLATE: %s\n", error->message);
        exit(1);
    }
}

char *ablate_names(void)
{
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; i < ABLATE_COUNT; i++) {
        g_string_append_printf(text, "%s %s\n", table[i].page, table[i].name);
    }
    return g_string_free(text, FALSE);
}
