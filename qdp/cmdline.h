/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's command line.  Three forms (client-contract): one socket path, one slice
 * number, or options: the clients' own and those of qemu-storage-daemon.
 *
 * Parsing (cmdline-parse.c) only cuts the words; carrying out (cmdline-run.c) happens
 * in order of appearance, in a coroutine, as in the storage daemon.
 */
#ifndef QDP_CMDLINE_H
#define QDP_CMDLINE_H

#include <glib.h>
#include <stdbool.h>
#include "block/aio/coroutine.h"
#include "block/base/json.h"
#include "qdp/qmp/monitor.h"
#include "qdp/sandbox.h"

typedef enum OptionKind {
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_ABLATE,
    OPTION_BLOCKDEV,
    OPTION_CHARDEV,
    OPTION_CHROOT,
    OPTION_DAEMONIZE,
    OPTION_EXPORT,
    OPTION_GROUP,
    OPTION_MONITOR,
    OPTION_NBD_SERVER,
    OPTION_OBJECT,
    OPTION_PIDFILE,
    OPTION_QMP,
    OPTION_SANDBOX,
    OPTION_SNAPSHOT_NODE_NAME,
    OPTION_TRACE,
    OPTION_USER,
    OPTION_MACHINE,
    OPTION_XEN_ATTACH,
    OPTION_XEN_DOMID,
} OptionKind;

typedef struct Option {
    OptionKind kind;
    char *word; /* as given, for messages */
    char *arg;  /* NULL for options without */
} Option;

typedef enum CmdlineForm {
    FORM_OPTIONS,
    FORM_PATH,  /* one argument with a slash: the QMP socket */
    FORM_SLICE, /* one argument without: the two sockets of that slice */
} CmdlineForm;

typedef struct Cmdline {
    CmdlineForm form;
    GPtrArray *options; /* Option */
    bool daemonize;
    const char *pidfile;      /* borrowed from options */
    Walls walls;              /* its strings, too */
    bool client_rules;        /* no option of the storage daemon was used */
    bool snapshot_moves_name; /* the same, unless --snapshot-node-name says otherwise */
} Cmdline;

/* NULL and *errp for words that make no sense. --help and --version are left to the
 * caller to see first. */
Cmdline *cmdline_parse(int argc, char **argv, GError **errp);
void cmdline_free(Cmdline *cmdline);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Cmdline, cmdline_free)

/* Print the texts of --help and --version. */
void cmdline_print_help(void);
void cmdline_print_version(void);

/*
 * "socket,id=c,path=/x,server,nowait": an object of strings. A first part without "="
 * is the value of @implied_key; another one is a flag: "x" means x=on, "nox" x=off.
 */
JsonValue *cmdline_parse_flags(const char *text, const char *implied_key,
                               GError **errp);

/* Members of what cmdline_parse_flags() gave. get: NULL if it is not there; get_bool: *ret
 * stays then; known_keys: @before 'KEY'@after is the error for a key not in @known. */
const char *cmdline_get(const JsonValue *opts, const char *key);
bool cmdline_get_bool(const JsonValue *opts, const char *key, bool *ret, GError **errp);
bool cmdline_known_keys(const JsonValue *opts, const char *const *known,
                        const char *before, const char *after, GError **errp);

/* Carry out all options in order. Holds the graph lock. False and *errp, which names
 * the option, at the first that fails. */
bool coroutine_fn cmdline_co_run(const Cmdline *cmdline, const MonitorHost *host,
                                 GError **errp);

/* --chardev and --monitor (cmdline-chardev.c). */
typedef struct ChardevTable ChardevTable;
ChardevTable *chardev_table_new(void);
void chardev_table_free(ChardevTable *table); /* closes what no monitor took */
bool coroutine_fn chardev_co_add(ChardevTable *table, Loop *loop, const char *arg,
                                 GError **errp);
bool chardev_monitor(ChardevTable *table, Monitor *monitor, const char *arg,
                     GError **errp);
/* --qmp unix:PATH[,server][,wait=on] or tcp:HOST:PORT[,...] */
bool coroutine_fn qmp_co_option(Monitor *monitor, Loop *loop, const char *arg,
                                GError **errp);
/* The socket of the path and slice forms. */
bool coroutine_fn qmp_co_listen_unix(Monitor *monitor, Loop *loop, const char *path,
                                     GError **errp);

#endif
