/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input is a stream of JSON texts; its first byte says how it is cut into pieces.
 *
 *  1 however it is cut, the same values and errors come out;
 *  2 what a value prints as is read as an equal value, which prints the same;
 *  3 crumple leaves an object of which both hold, or what it was given.
 */
#include <string.h>

#include "block/base/json-crumple.h"
#include "block/base/json.h"
#include "tests/fuzz/fuzz.h"

static void check_round_trip(const JsonValue *value)
{
    g_autofree char *text = json_to_string(value);
    g_autofree char *pretty = json_to_string_pretty(value);
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonValue) again = json_parse(text, &error);

    fuzz_check(again, "%s: %s", text, error->message);
    g_autofree char *text_again = json_to_string(again);
    fuzz_check(strcmp(text, text_again) == 0, "%s becomes %s", text, text_again);
    g_autoptr(JsonValue) from_pretty = json_parse(pretty, &error);
    fuzz_check(from_pretty, "%s: %s", pretty, error->message);
    g_autofree char *text_pretty = json_to_string(from_pretty);
    fuzz_check(strcmp(text, text_pretty) == 0, "%s becomes %s", text, text_pretty);
}

static void crumple(const JsonValue *value)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonValue) copy = json_copy(value);
    g_autofree char *before = json_to_string(copy);

    if (json_crumple(copy, &error)) {
        fuzz_check(!error, "success has no error");
        check_round_trip(copy);
    } else {
        g_autofree char *after = json_to_string(copy);
        fuzz_check(error && strcmp(before, after) == 0, "%s becomes %s", before, after);
    }
}

typedef struct Heard {
    GString *text;
    bool look; /* at each value, too */
} Heard;

static void emitted(void *opaque, JsonValue *value, const GError *error)
{
    Heard *heard = opaque;

    fuzz_check(!value == !!error, "either a value or an error");
    if (error) {
        g_string_append_printf(heard->text, "error: %s\n", error->message);
        return;
    }
    json_append_to(value, heard->text);
    g_string_append_c(heard->text, '\n');
    if (heard->look) {
        check_round_trip(value);
        if (json_type(value) == JSON_OBJECT) {
            crumple(value);
        }
    }
    json_free(value);
}

static GString *hear(const uint8_t *data, size_t size, size_t piece, bool look)
{
    Heard heard = {g_string_new(NULL), look};
    JsonParser *parser = json_parser_new(emitted, &heard);

    for (size_t at = 0; at < size; at += piece) {
        json_parser_feed(parser, (const char *)data + at, MIN(piece, size - at));
    }
    json_parser_free(parser);
    return heard.text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    size_t piece = data[0] % 16 + 1;
    GString *whole = hear(data + 1, size - 1, size, true);
    GString *pieces = hear(data + 1, size - 1, piece, false);
    fuzz_check(g_string_equal(whole, pieces), "in pieces of %zu: %s\nnot %s", piece,
               pieces->str, whole->str);
    g_string_free(whole, TRUE);
    g_string_free(pieces, TRUE);

    g_autofree char *text = g_strndup((const char *)data + 1, size - 1);
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonValue) value = json_parse(text, &error);
    fuzz_check(!value == !!error, "either a value or an error");
    return 0;
}
