/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-img's inside: one function per subcommand, and the options many of them share. */
#ifndef QDP_TOOL_QEMU_IMG_H
#define QDP_TOOL_QEMU_IMG_H

#include "qdp/tool/tool.h"

typedef int coroutine_fn ImgCommand(Tool *tool, int argc, char **argv);

ImgCommand img_create, img_info, img_check, img_map, img_convert, img_compare, img_resize,
    img_rebase, img_commit;

/* One image opened behind a port. */
typedef struct Image {
    BlockNode *node;
    BlockPort *port;
} Image;

/* Open @filename (with @image_opts: a list of options); errors are printed in QEMU's words.
 * False: nothing is open. */
bool coroutine_fn image_co_open(Tool *tool, Image *image, const char *filename,
                                const ImageOpenOptions *options, bool image_opts);
void coroutine_fn image_co_close(Image *image);

/* Options that commands on one image share: -f, -U, --output, --image-opts, --object. */
typedef struct ImgArgs {
    ImageOpenOptions open;
    bool image_opts;
    bool json; /* --output=json */
} ImgArgs;
/* Take the option @c that getopt returned: 1 taken, 0 not one of them, -1 error printed. */
int img_shared_option(const Tool *tool, ImgArgs *args, int c);

/* "-o a=b,c=d" merged into @options; false with the error printed. */
bool img_merge_options(Tool *tool, JsonValue *options, const char *text);

/* TEXT and where to find help, to stderr; 1. */
int img_usage_error(const Tool *tool, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* What getopt refused (@c is ':' or '?'; the option strings begin with ':'), the same way. */
int img_bad_option(const Tool *tool, int c, char **argv);

/* create-options.c: string options of "-o" against @format's table. */
bool img_options_check(const char *format, const JsonValue *options, GError **errp);
/* "Formatting 'x', fmt=qcow2 cluster_size=65536 ...": what will be made, defaults too. */
void img_options_announce(const char *filename, const char *format,
                          const JsonValue *options, uint64_t size);
void img_options_help(const char *format);
/* To blockdev-create's options, for the file and for the format; checked before. */
void img_options_translate(const char *format, const JsonValue *options, JsonValue *file,
                           JsonValue *image);
bool img_option_size(const char *name, const char *text, uint64_t *ret, GError **errp);

/* What create and convert share: make @filename of @format with string options. @doing, if
 * any, and the format stand before the error. */
bool coroutine_fn img_co_create_file(Tool *tool, const char *filename, const char *format,
                                     JsonValue *options, uint64_t size, bool quiet,
                                     const char *doing);
/* The same as GError. */
bool coroutine_fn img_co_make(Tool *tool, const char *filename, const char *format,
                              const JsonValue *options, uint64_t size, GError **errp);

enum { OPT_OUTPUT = 256, OPT_OBJECT, OPT_IMAGE_OPTS, OPT_BACKING_CHAIN, OPT_TARGET_IMAGE_OPTS,
       OPT_SHRINK, OPT_PREALLOCATION, OPT_START, OPT_MAX_LENGTH, OPT_NOT_BUILT };

#endif
