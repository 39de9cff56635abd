/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The names that users give to nodes, jobs, exports and objects. */
#ifndef BLOCK_BASE_IDENTIFIER_H
#define BLOCK_BASE_IDENTIFIER_H

#include <glib.h>
#include <stdbool.h>
#include <string.h>

/* QEMU's rule for identifiers: a letter, then letters, digits, '-', '.', '_'. */
static inline bool is_identifier(const char *text)
{
    if (!g_ascii_isalpha(text[0])) {
        return false;
    }
    for (const char *c = text; *c; c++) {
        if (!g_ascii_isalnum(*c) && !strchr("-._", *c)) {
            return false;
        }
    }
    return true;
}

#endif
