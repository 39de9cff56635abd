# SPDX-License-Identifier: GPL-2.0-or-later
"""qapi-types.h: C types, enum constants, free functions; qapi-visit.h: from and to JSON."""

from output import banner


def _enum(type_, out):
    out.append('typedef enum %s {' % type_.c_name)
    for value, _ in type_.values:
        out.append('    %s,' % type_.constant(value))
    out.append('    %s,' % type_.constant('_MAX'))
    out.append('} %s;\n' % type_.c_name)


def _member(member, out):
    if member.has_flag:
        out.append('    bool has_%s;' % member.c_name)
    if member.type.c_type:
        out.append('    %s%s;' % (member.type.c_type, member.c_name))


def _struct(type_, out):
    out.append('struct %s {' % type_.c_name)
    for member in type_.members:
        _member(member, out)
    filled = {v: t for v, t in type_.variants.items() if t.members}
    if filled:
        out.append('    union {')
        for value, variant in filled.items():
            out.append('        %s %s;' % (variant.c_name, variant_name(value)))
        out.append('    } u;')
    elif not type_.members:
        out.append('    char unused_;')
    out.append('};\n')


def variant_name(value):
    from schema import c_name
    return c_name(value)


def _alternate(type_, out):
    out.append('struct %s {' % type_.c_name)
    out.append('    JsonType type;')
    out.append('    union {')
    for branch in type_.branches:
        if branch.type.c_type:
            out.append('        %s%s;' % (branch.type.c_type, branch.c_name))
    out.append('    } u;')
    out.append('};\n')


def _list(type_, out):
    out.append('struct %s {' % type_.c_name)
    out.append('    %s *next;' % type_.c_name)
    out.append('    %svalue;' % type_.element.c_type)
    out.append('};\n')


def types_header(schema, ids):
    out = [banner('The types of the QMP schema.', 'QAPI_TYPES_H')]
    out.append('#include <glib.h>\n#include <stdbool.h>\n#include <stdint.h>')
    out.append('#include "block/base/json.h"')
    out.append('#include "qapi/visit.h"\n')
    types = [t for t in schema.ordered() if t.kind != 'builtin']
    for type_ in types:
        if type_.kind == 'enum':
            _enum(type_, out)
    for type_ in types:
        if type_.kind != 'enum':
            out.append('typedef struct %s %s;' % (type_.c_name, type_.c_name))
    out.append('')
    emit = {'struct': _struct, 'alternate': _alternate, 'list': _list}
    for type_ in types:
        if type_.kind in emit:
            emit[type_.kind](type_, out)
    out.append('enum {')
    out += ['    QAPI_TYPE_%s = %d,' % (t.c_name, ids[t.name])
            for t in types]
    out.append('};\n')
    for type_ in types:
        _functions(type_, out)
    out.append('\n#endif\n')
    return '\n'.join(out)


def _functions(type_, out):
    name = type_.c_name
    if type_.kind == 'enum':
        out.append('static inline const char *%s_str(%s value)\n{' % (name, name))
        out.append('    return qapi_enum_str(QAPI_TYPE_%s, value);\n}' % name)
        out.append('static inline bool %s_parse(const char *text, %s *ret_value)\n{'
                   % (name, name))
        out.append('    int value = qapi_enum_parse(QAPI_TYPE_%s, text);' % name)
        out.append('    if (value < 0) {\n        return false;\n    }')
        out.append('    *ret_value = (%s)value;\n    return true;\n}' % name)
        return
    out.append('static inline void qapi_free_%s(%s *value)\n{' % (name, name))
    out.append('    qapi_free(QAPI_TYPE_%s, value);\n}' % name)
    out.append('G_DEFINE_AUTOPTR_CLEANUP_FUNC(%s, qapi_free_%s)' % (name, name))


def visit_header(schema):
    out = [banner('Typed values from and to JSON; see qapi/visit.h.', 'QAPI_VISIT_H')]
    out.append('#include "qapi/qapi-types.h"\n')
    for type_ in schema.ordered():
        if type_.kind in ('builtin', 'enum'):
            continue
        name = type_.c_name
        out.append('static inline %s *qapi_%s_from_json(const JsonValue *json,' %
                   (name, name))
        out.append('    const char *what, GError **errp)\n{')
        out.append('    return (%s *)qapi_from_json(QAPI_TYPE_%s, json, what, '
                   'QAPI_STRICT, errp);\n}' % (name, name))
        out.append('static inline %s *qapi_%s_from_keyval(const JsonValue *json,' %
                   (name, name))
        out.append('    const char *what, GError **errp)\n{')
        out.append('    return (%s *)qapi_from_json(QAPI_TYPE_%s, json, what, '
                   'QAPI_KEYVAL, errp);\n}' % (name, name))
        out.append('static inline JsonValue *qapi_%s_to_json(const %s *value)\n{' %
                   (name, name))
        out.append('    return qapi_to_json(QAPI_TYPE_%s, value);\n}' % name)
        out.append('static inline %s *qapi_%s_copy(const %s *value)\n{' %
                   (name, name, name))
        out.append('    return (%s *)qapi_copy(QAPI_TYPE_%s, value);\n}' % (name, name))
    out.append('\n#endif\n')
    return '\n'.join(out)
