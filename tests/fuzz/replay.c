/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Run the files named as arguments (folders: what is in them) through a fuzzing target:
 * the corpus as a unit test, with any compiler. A file has a minute: it needs milliseconds,
 * but the machine may be busy.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define SECONDS 60

static char current[512]; /* for the handlers */

/* Name the input whose run ends the process. */
static void say_current(int signo)
{
    static const char text[] = "died of a signal, or its time is over: ";
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0 ||
        write(STDERR_FILENO, current, strlen(current)) < 0 ||
        write(STDERR_FILENO, "\n", 1) < 0) {
        _exit(2);
    }
    signal(signo, SIG_DFL);
    raise(signo);
}

static bool run_file(const char *path)
{
    g_autofree char *data = NULL;
    g_autoptr(GError) error = NULL;
    gsize size;

    if (!g_file_get_contents(path, &data, &size, &error)) {
        fprintf(stderr, "%s\n", error->message);
        return false;
    }
    /* exactly as long as it is: a sanitizer sees what is read beyond it */
    g_autofree uint8_t *exact = g_malloc(size ? size : 1);
    memcpy(exact, data, size);
    g_strlcpy(current, path, sizeof(current));
    alarm(SECONDS);
    LLVMFuzzerTestOneInput(exact, size);
    alarm(0);
    return true;
}

static int run_folder(const char *path)
{
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort), done = 0;
    bool ok = n >= 0;

    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.' && ok) {
            g_autofree char *file = g_build_filename(path, entries[i]->d_name, NULL);
            ok = run_file(file);
            done++;
        }
        free(entries[i]);
    }
    if (n >= 0) {
        free(entries);
    }
    return ok ? done : -1;
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    int total = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(signals); i++) {
        signal(signals[i], say_current);
    }
    for (int i = 1; i < argc; i++) {
        bool folder = g_file_test(argv[i], G_FILE_TEST_IS_DIR);
        int done = folder ? run_folder(argv[i]) : run_file(argv[i]);
        if (done < 0 || (!folder && !done)) {
            return 1;
        }
        total += done;
    }
    printf("%d inputs\n", total);
    return total ? 0 : 1; /* an empty corpus is no test */
}
