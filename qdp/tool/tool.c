/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The common part of the command line tools. */
#include "qdp/tool/tool.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "block/base/ablate.h"
#include "block/base/math.h"
#include "qapi/keyval.h"
#include "qapi/qapi-visit.h"

static void coroutine_fn run_main(void *opaque)
{
    Tool *tool = opaque;
    tool->status = tool->main(tool);
    loop_stop(tool->loop);
}

static void start(LoopWork *work)
{
    Tool *tool = container_of(work, Tool, start);
    Coroutine *co = coroutine_try_new(run_main, tool, CO_STACK_CONTROL);
    if (!co) {
        tool_error(tool, "no memory to start: %s", strerror(ENOMEM));
        loop_stop(tool->loop);
        return;
    }
    coroutine_enter(co);
}

int tool_run(const char *name, int argc, char **argv, int (*main)(Tool *tool))
{
    g_autoptr(GError) error = NULL;
    Tool tool = {.name = name, .argc = argc, .argv = argv, .main = main, .status = 1,
                 .progress_shown = -1};

    ablate_from_environment();
    tool.loop = loop_new(LOOP_AUTO, &error);
    if (!tool.loop) {
        tool_error(&tool, "%s", error->message);
        return 1;
    }
    tool.graph = graph_new(tool.loop);
    loop_work_init(&tool.start, start);
    loop_work_schedule(tool.loop, &tool.start);
    loop_run(tool.loop);
    graph_free(tool.graph);
    loop_free(tool.loop);
    fflush(stdout);
    return tool.status;
}

void tool_error(const Tool *tool, const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fprintf(stderr, "%s: ", tool->name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void tool_error_free(const Tool *tool, GError *error)
{
    tool_error(tool, "%s", error->message);
    g_error_free(error);
}

void tool_refuse_object(const Tool *tool, const char *arg)
{
    GError *error = NULL;
    g_autoptr(JsonValue) opts = keyval_parse(arg, "qom-type", NULL, &error);
    g_autoptr(ObjectOptions) object =
        opts ? qapi_ObjectOptions_from_keyval(opts, NULL, &error) : NULL;

    if (!object) {
        tool_error_free(tool, error);
    } else {
        tool_error(tool, "invalid object type: %s", ObjectType_str(object->qom_type));
    }
}

static int suffix_shift(char c)
{
    static const char letters[] = "bkmgtpe";
    const char *at = c ? strchr(letters, g_ascii_tolower(c)) : NULL;
    return at ? (int)(at - letters) * 10 : -1;
}

int tool_parse_size_u64(const char *text, uint64_t *ret)
{
    char *end;
    int shift = 0;

    text += text[0] == '+'; /* compat: as strtoull takes it */
    if (!g_ascii_isdigit(text[0])) {
        return -EINVAL;
    }
    errno = 0;
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    guint64 whole = g_ascii_strtoull(text, &end, hex ? 16 : 10);
    if (errno == ERANGE) {
        return -ERANGE;
    }
    double fraction = 0;
    if (*end == '.' && !hex) {
        const char *point = end;
        fraction = g_ascii_strtod(point, &end);
    }
    if (*end) {
        shift = suffix_shift(*end);
        if (shift < 0 || end[1]) {
            return -EINVAL;
        }
    }
    if (fraction != 0 && shift == 0) { /* a part of a byte */
        return -EINVAL;
    }
    if (shift && whole > UINT64_MAX >> shift) {
        return -ERANGE;
    }
    double extra = fraction * (double)(UINT64_C(1) << shift);
    *ret = (whole << shift) + (uint64_t)(extra + 0.5);
    return 0;
}

int64_t tool_parse_size(const char *text)
{
    uint64_t bytes;
    int ret = tool_parse_size_u64(text, &bytes);
    return ret < 0 ? ret : bytes > INT64_MAX ? -ERANGE : (int64_t)bytes;
}

void tool_progress(Tool *tool, double percent)
{
    if (!tool->progress || (percent < 100 && percent < tool->progress_shown + 1 &&
                            tool->progress_shown >= 0)) {
        return;
    }
    tool->progress_shown = percent;
    printf("    (%.2f/100%%)\r", percent);
    fflush(stdout);
}

void tool_progress_end(Tool *tool)
{
    if (tool->progress) {
        tool->progress = false;
        printf("\n");
    }
}

char *tool_size_text(uint64_t bytes)
{
    static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    /* spec by observation: the unit in which the number has at most three digits, 1000 to
     * 1023 going to the next one */
    unsigned i = 0;
    double value = (double)bytes;
    while (value >= 1000 && i + 1 < G_N_ELEMENTS(units)) {
        value /= 1024;
        i++;
    }
    return g_strdup_printf("%0.3g %sB", value, units[i]);
}

void tool_warn_guessed_raw(const BlockNode *node, const char *filename)
{
    if (node_is_guessed_raw(node)) {
        fflush(stdout);
        fprintf(stderr,
                "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
                "         Automatically detecting the format is dangerous for raw images, write "
                "operations on block 0 will be restricted.\n"
                "         Specify the 'raw' format explicitly to remove the restrictions.\n",
                filename);
    }
}

bool tool_parse_cache(const char *mode, ImageOpenOptions *options, bool *ret_writethrough)
{
    *ret_writethrough = false;
    if (strcmp(mode, "none") == 0 || strcmp(mode, "off") == 0) {
        options->direct = true;
    } else if (strcmp(mode, "directsync") == 0) {
        options->direct = true;
        *ret_writethrough = true;
    } else if (strcmp(mode, "writethrough") == 0) {
        *ret_writethrough = true;
    } else if (strcmp(mode, "unsafe") == 0) {
        options->no_flush = true;
    } else if (strcmp(mode, "writeback") != 0) {
        return false;
    }
    return true;
}
