/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What --help and --version print. */
#include <stdio.h>

#include "qdp/cmdline.h"

void cmdline_print_version(void)
{
    puts("qemu-dp version " QDP_VERSION "\n"
         "QMP as of QEMU 7.2");
}

void cmdline_print_help(void)
{
    fputs(
        "Usage: qemu-dp SOCKET-PATH\n"
        "       qemu-dp SLICE-NUMBER\n"
        "       qemu-dp [options]\n"
        "Serve virtual disks, controlled by QMP.\n"
        "\n"
        "  -h, --help             display this help and exit\n"
        "  -V, --version          output version information and exit\n"
        "\n"
        "  --qmp unix:PATH|tcp:HOST:PORT[,server=on|off][,wait=on|off]\n"
        "        [,pretty=on|off]\n"
        "                         accept QMP clients at this address (repeatable)\n"
        "  --ablate SWITCH[,SWITCH...]\n"
        "                         turn parts of the fast paths off, to measure what\n"
        "                         they are worth; 'help' lists them\n"
        "  --snapshot-node-name move|stay\n"
        "                         whether the overlay takes over the node name at\n"
        "                         blockdev-snapshot (default: move, but stay as soon\n"
        "                         as --blockdev, --chardev, --export, --monitor or\n"
        "                         --nbd-server is given)\n"
        "\n"
        "Options as of qemu-storage-daemon, carried out in order:\n"
        "  --blockdev [driver=]DRIVER[,node-name=NAME][,OPTION=VALUE...]\n"
        "                         open a block node; also as a JSON object\n"
        "  --chardev socket,id=ID,path=PATH|host=HOST,port=PORT|fd=NUMBER\n"
        "            [,server=on|off][,wait=on|off]\n"
        "  --chardev stdio,id=ID\n"
        "  --chardev pipe|file,id=ID,path=PATH\n"
        "                         something for --monitor\n"
        "  --daemonize            go to the background when the start is complete\n"
        "  --export [type=]nbd,id=ID,node-name=NAME[,name=EXPORT][,writable=on|off]\n"
        "                         export a node (requires --nbd-server)\n"
        "  --monitor [chardev=]ID[,mode=control][,pretty=on|off]\n"
        "                         accept QMP clients at this chardev\n"
        "  --nbd-server addr.type=unix,addr.path=PATH[,max-connections=N]\n"
        "  --nbd-server addr.type=inet,addr.host=HOST,addr.port=PORT\n"
        "               [,max-connections=N]\n"
        "                         start the NBD server\n"
        "  --object TYPE[,PROPERTY=VALUE...]\n"
        "                         create an object: iothread,id=ID[,poll-max-ns=N]\n"
        "                         lets exports that name it poll before sleeping\n"
        "  --pidfile PATH         write the process id there; removed at the end\n"
        "  --sandbox on|off       allow only the system calls that serving disks needs\n"
        "  --chroot DIR, --user NAME, --group NAME\n"
        "                         taken on when all options are carried out\n"
        "  -T, --trace [[enable=]PATTERN][,events=FILE][,file=FILE]\n"
        "                         tell what passes the doors; --trace help lists events\n"
        "\n"
        "Accepted and ignored, for the wrappers of production:\n"
        "  -machine NAME, -xen-attach, -xen-domid N\n",
        stdout);
}
