# SPDX-License-Identifier: GPL-2.0-or-later
"""qapi-commands.h: the handlers' prototypes; qapi-dispatch.c: from number to handler."""

from output import banner


def _prototype(command):
    ret = command.ret.c_type if command.ret else 'bool '
    if command.ret and not command.ret.by_pointer:
        raise ValueError("command '%s' returns a scalar" % command.name)
    args = 'const %s *args, ' % command.arg.c_name if command.arg else ''
    return '%scoroutine_fn qmp_%s(%sGError **errp)' % (ret, command.c_name, args)


def header(schema):
    out = [banner('The handlers of the QMP commands.', 'QAPI_COMMANDS_H')]
    out.append('#include "qapi/qapi-types.h"\n')
    out.append('/* The mark of block/aio/coroutine.h, which this floor does not know. */')
    out.append('#ifndef coroutine_fn\n#define coroutine_fn\n#endif\n')
    out.append('/* A handler that returns a pointer tells failure by *errp alone (an empty'
               '\n * list is NULL); the caller owns the result, the handler borrows '
               'args. */')
    for command in schema.commands:
        if command.gen:
            out.append(_prototype(command) + ';')
    out.append('\nenum {')
    for i, command in enumerate(schema.commands):
        out.append('    QMP_COMMAND_%s = %d,' % (command.c_name.upper(), i))
    out.append('};\n')
    out.append('/* Run the handler of command number @index (qapi/tables.h) with its '
               'typed arguments;\n * *ret_value is its typed result or NULL. */')
    out.append('bool coroutine_fn qapi_co_dispatch(unsigned index, const void *args, '
               'void **ret_value,\n                                   GError **errp);')
    out.append('\n#endif\n')
    return '\n'.join(out)


def source(schema, ids):
    out = [banner('From the number of a command to its handler.')]
    out.append('#include "qapi/qapi-commands.h"\n')
    out.append('bool coroutine_fn qapi_co_dispatch(unsigned index, const void *args, '
               'void **ret_value,\n                                   GError **errp)\n{')
    out.append('    GError *error = NULL;\n\n    *ret_value = NULL;')
    out.append('    switch (index) {')
    for command in schema.commands:
        if not command.gen:
            continue
        call = 'qmp_%s(%s' % (command.c_name, 'args, ' if command.arg else '')
        out.append('    case QMP_COMMAND_%s:' % command.c_name.upper())
        if command.ret:
            out.append('        *ret_value = %s&error);' % call)
            out.append('        break;')
        else:
            out.append('        return %serrp);' % call)
    out.append('    default:\n        g_assert_not_reached();\n    }')
    out.append('    if (error) {\n        g_propagate_error(errp, error);')
    out.append('        return false;\n    }\n    return true;\n}\n')
    return '\n'.join(out)
