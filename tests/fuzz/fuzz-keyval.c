/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input is what stands behind --blockdev, --export and the like: key=value pairs, or
 * JSON. What the visitors accept must come back from them unchanged.
 */
#include <string.h>

#include "qapi/keyval.h"
#include "qapi/qapi-visit.h"
#include "tests/fuzz/fuzz.h"

/* Accepted options become JSON, which is accepted and becomes the same JSON. */
#define CHECK_TYPE(type, json)                                                           \
    do {                                                                                 \
        g_autoptr(GError) error = NULL;                                                  \
        type *typed = qapi_##type##_from_keyval(json, "", &error);                       \
        fuzz_check(!typed == !!error, "either options or an error");                     \
        if (typed) {                                                                     \
            g_autoptr(JsonValue) out = qapi_##type##_to_json(typed);                     \
            g_autofree char *text = json_to_string(out);                                 \
            type *again = qapi_##type##_from_json(out, "", &error);                      \
            fuzz_check(again, "%s: %s", text, error->message);                           \
            g_autoptr(JsonValue) out_again = qapi_##type##_to_json(again);               \
            g_autofree char *text_again = json_to_string(out_again);                     \
            fuzz_check(strcmp(text, text_again) == 0, "%s becomes %s", text, text_again);\
            qapi_free_##type(again);                                                     \
            qapi_free_##type(typed);                                                     \
        }                                                                                \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const implied[] = {NULL, "driver", "type", "qom-type"};
    if (size < 1) {
        return 0;
    }
    g_autofree char *given = g_strndup((const char *)data + 1, size - 1);
    g_autoptr(GError) failure = NULL;
    bool help = false;
    g_autoptr(JsonValue) json =
        keyval_parse(given, implied[data[0] % 4], data[0] & 4 ? &help : NULL, &failure);

    fuzz_check(!json == !!failure, "either a value or an error");
    if (json) {
        fuzz_check(json_type(json) == JSON_OBJECT, "it is an object");
        CHECK_TYPE(BlockdevOptions, json);
        CHECK_TYPE(BlockdevCreateOptions, json);
        CHECK_TYPE(BlockExportOptions, json);
        CHECK_TYPE(NbdServerOptions, json);
    }
    uint64_t bytes;
    g_clear_error(&failure);
    bool ok = keyval_parse_size(given, &bytes, &failure);
    fuzz_check(ok == !failure, "either a size or an error");
    return 0;
}
