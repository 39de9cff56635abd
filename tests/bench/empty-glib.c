/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The smallest glib program: what idle memory and start-up time are measured against.
 * Without arguments it ends at once; with one it waits to be looked at.
 */
#include <glib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    g_autoptr(GPtrArray) array = g_ptr_array_new();
    g_ptr_array_add(array, argv[0]);
    if (argc > 1) {
        pause();
    }
    return array->len == 1 ? 0 : 1;
}
