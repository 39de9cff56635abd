/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What "-o" may say when an image is made: names, types and defaults per format, the line
 * that announces them, and their translation to blockdev-create's options.
 *
 * compat: the tables stand in the order in which stock's "Formatting" line shows them.
 */
#include <stdio.h>
#include <string.h>

#include "block/base/error.h"
#include "qdp/tool/qemu-img.h"

typedef enum OptionType { OPTION_TEXT, OPTION_SIZE, OPTION_NUMBER, OPTION_BOOL } OptionType;

typedef struct CreateOption {
    const char *name;
    OptionType type;
    const char *qapi;     /* its name in blockdev-create; NULL: handled apart */
    const char *shown;    /* what is announced when it is not given; NULL: nothing */
    bool of_file;         /* goes to the file that is made, not to the format */
    const char *help;
} CreateOption;

#define FILE_SIZE_HINT                                                                  \
    {                                                                                   \
        "extent_size_hint", OPTION_SIZE, "extent-size-hint", NULL, true,                \
            "size of the pieces in which the file system is asked for blocks"           \
    }

static const CreateOption qcow2_options[] = {
    {"cluster_size", OPTION_SIZE, "cluster-size", "65536", false, "bytes of a cluster"},
    {"extended_l2", OPTION_BOOL, "extended-l2", "off", false, "subclusters"},
    {"preallocation", OPTION_TEXT, "preallocation", NULL, false,
     "off, metadata, falloc or full"},
    {"compression_type", OPTION_TEXT, "compression-type", "zlib", false,
     "method of compressed clusters"},
    {"size", OPTION_SIZE, NULL, NULL, false, "bytes of the disk"},
    {"compat", OPTION_TEXT, NULL, NULL, false, "0.10 (v2) or 1.1 (v3)"},
    {"backing_file", OPTION_TEXT, "backing-file", NULL, false, "name of the backing file"},
    {"backing_fmt", OPTION_TEXT, "backing-fmt", NULL, false, "format of the backing file"},
    {"data_file", OPTION_TEXT, "data-file", NULL, false, "name of an external data file"},
    {"data_file_raw", OPTION_BOOL, "data-file-raw", NULL, false,
     "the external data file is a raw image by itself"},
    {"lazy_refcounts", OPTION_BOOL, "lazy-refcounts", "off", false,
     "reference counts may be written late"},
    {"refcount_bits", OPTION_NUMBER, "refcount-bits", "16", false,
     "width of a reference count"},
    {"nocow", OPTION_BOOL, "nocow", NULL, true, "no copy on write in the file system"},
    FILE_SIZE_HINT,
    {.name = NULL},
};

static const CreateOption raw_options[] = {
    {"size", OPTION_SIZE, NULL, NULL, true, "bytes of the disk"},
    {"nocow", OPTION_BOOL, "nocow", NULL, true, "no copy on write in the file system"},
    {"preallocation", OPTION_TEXT, "preallocation", NULL, true, "off, falloc or full"},
    FILE_SIZE_HINT,
    {.name = NULL},
};

static const CreateOption *table_of(const char *format)
{
    return strcmp(format, "qcow2") == 0 ? qcow2_options
           : strcmp(format, "raw") == 0 ? raw_options
                                        : NULL;
}

static const CreateOption *find_option(const CreateOption *table, const char *name)
{
    for (; table->name; table++) {
        if (strcmp(table->name, name) == 0) {
            return table;
        }
    }
    return NULL;
}

static const char *text_of(const JsonValue *options, const char *key)
{
    const JsonValue *value = json_object_lookup(options, key);
    return value ? json_get_string(value) : NULL;
}

bool img_option_size(const char *name, const char *text, uint64_t *ret, GError **errp)
{
    int bad = tool_parse_size_u64(text, ret);
    if (bad == -ERANGE) {
        error_set(errp, "Value '%s' is out of range for parameter '%s'", text, name);
        return false;
    }
    if (bad < 0) {
        error_set(errp, "Parameter '%s' expects a non-negative number below 2^64\n"
                        "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, "
                        "peta-\nand exabytes, respectively.", name);
        return false;
    }
    return true;
}

static bool check_value(const CreateOption *option, const char *text, GError **errp)
{
    uint64_t size;
    char *end;
    switch (option->type) {
    case OPTION_SIZE:
        return img_option_size(option->name, text, &size, errp);
    case OPTION_NUMBER:
        (void)g_ascii_strtoull(text, &end, 0);
        if (!g_ascii_isdigit(text[0]) || *end) {
            error_set(errp, "Parameter '%s' expects a number", option->name);
            return false;
        }
        return true;
    case OPTION_BOOL:
        if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0) {
            error_set(errp, "Parameter '%s' expects 'on' or 'off'", option->name);
            return false;
        }
        return true;
    default:
        return true;
    }
}

bool img_options_check(const char *format, const JsonValue *options, GError **errp)
{
    const CreateOption *table = table_of(format);
    if (!table) {
        error_set(errp, "Unknown file format '%s'", format);
        return false;
    }
    if (table == raw_options && json_object_lookup(options, "backing_file")) {
        error_set(errp, "Backing file not supported for file format '%s'", format);
        return false;
    }
    if (table == raw_options && json_object_lookup(options, "backing_fmt")) {
        error_set(errp, "Backing format not supported for file format '%s'", format);
        return false;
    }
    for (size_t i = 0; i < json_object_size(options); i++) {
        const CreateOption *option = find_option(table, json_object_key_at(options, i));
        const char *text = json_get_string(json_object_value_at(options, i));
        if (g_str_has_prefix(json_object_key_at(options, i), "encrypt")) {
            error_set(errp, "Encryption is not supported yet");
            return false;
        }
        if (!option || !text) {
            error_set(errp, "Invalid parameter '%s'", json_object_key_at(options, i));
            return false;
        }
        if (!check_value(option, text, errp)) {
            return false;
        }
    }
    return true;
}

void img_options_announce(const char *filename, const char *format,
                          const JsonValue *options, uint64_t size)
{
    printf("Formatting '%s', fmt=%s", filename, format);
    for (const CreateOption *o = table_of(format); o->name; o++) {
        const char *text = text_of(options, o->name);
        text = text ? text : o->shown;
        if (strcmp(o->name, "size") == 0) {
            printf(" size=%" G_GINT64_FORMAT, (int64_t)size); /* compat: signed */
        } else if (text && o->type == OPTION_SIZE) {
            uint64_t bytes = 0;
            (void)tool_parse_size_u64(text, &bytes); /* checked before */
            printf(" %s=%" G_GINT64_FORMAT, o->name, (int64_t)bytes); /* compat: signed */
        } else if (text) {
            g_auto(GStrv) parts = g_strsplit(text, ",", -1);
            g_autofree char *doubled = g_strjoinv(",,", parts);
            printf(" %s=%s", o->name, doubled);
        }
    }
    printf("\n");
}

void img_options_help(const char *format)
{
    static const char *const types[] = {"str", "size", "num", "bool (on/off)"};
    printf("Supported %s options:\n", format);
    for (const CreateOption *o = table_of(format); o && o->name; o++) {
        g_autofree char *left = g_strdup_printf("  %s=<%s>", o->name, types[o->type]);
        printf("%-35s - %s\n", left, o->help);
    }
}

void img_options_translate(const char *format, const JsonValue *options, JsonValue *file,
                           JsonValue *image)
{
    const CreateOption *table = table_of(format);
    for (size_t i = 0; i < json_object_size(options); i++) {
        const CreateOption *option = find_option(table, json_object_key_at(options, i));
        const char *text = json_get_string(json_object_value_at(options, i));
        JsonValue *to = option->of_file ? file : image;
        if (strcmp(option->name, "compat") == 0) {
            bool v2 = strcmp(text, "0.10") == 0, v3 = strcmp(text, "1.1") == 0;
            json_object_set_string(image, "version", v2 ? "v2" : v3 ? "v3" : text);
        } else if (option->qapi && option->type == OPTION_SIZE) {
            uint64_t bytes = 0;
            (void)tool_parse_size_u64(text, &bytes); /* checked before */
            json_object_set_uint(to, option->qapi, bytes);
        } else if (option->qapi) {
            json_object_set_string(to, option->qapi, text);
        }
    }
}
