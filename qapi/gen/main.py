# SPDX-License-Identifier: GPL-2.0-or-later
"""main.py SCHEMA OUTPUT-FOLDER: writes the generated C files and the reference."""

import os
import sys

import c_commands
import c_events
import c_tables
import c_types
import reference
from output import write
from parser import SchemaError
from schema import Schema


def main(argv):
    schema = Schema(argv[1])
    ids = {t.name: i for i, t in enumerate(schema.ordered())}
    folder = argv[2]
    write(folder, 'qapi-types.h', c_types.types_header(schema, ids))
    write(folder, 'qapi-visit.h', c_types.visit_header(schema))
    write(folder, 'qapi-tables.c', c_tables.source(schema, ids))
    write(folder, 'qapi-commands.h', c_commands.header(schema))
    write(folder, 'qapi-dispatch.c', c_commands.source(schema, ids))
    write(folder, 'qapi-events.h', c_events.header(schema))
    write(folder, 'qapi-events.c', c_events.source(schema))
    write(folder, 'qemu-dp-qmp-ref.md', reference.text(schema))
    files = [m.__file__ for m in list(sys.modules.values())
             if getattr(m, '__file__', None)
             and os.path.dirname(m.__file__) == os.path.dirname(__file__)]
    return files


if __name__ == '__main__':
    try:
        main(sys.argv)
    except SchemaError as error:
        sys.exit(str(error))
