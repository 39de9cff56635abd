# SPDX-License-Identifier: GPL-2.0-or-later
"""qapi-tables.c: the schema as read-only tables without pointers (see qapi/tables.h).

Without pointers there is nothing to relocate at start, and a page of them is read only
when a command needs it.
"""

from output import banner

_ELEMENT = {'bool': 'BOOL', 'str': 'STR', 'number': 'NUMBER', 'any': 'ANY',
            'null': 'NULL', 'int': 'INT64', 'size': 'SIZE'}


class _Strings:
    """One pool; equal strings and tails of others are stored once."""

    def __init__(self):
        self.offsets, self.bytes = {'': 0}, '\0'

    def add(self, text):
        if text not in self.offsets:
            found = self.bytes.find(text + '\0')
            if found < 0:
                found = len(self.bytes)
                self.bytes += text + '\0'
            self.offsets[text] = found
        return self.offsets[text]


class _Tables:
    def __init__(self, ids):
        self.ids = ids
        self.strings = _Strings()
        self.types, self.members, self.values, self.variants = [], [], [], []

    def features(self, names):
        return self.strings.add(','.join(names))

    def member(self, member, where, offset, has):
        self.members.append('{ %d, %d, %s, %s, %d, %d }, /* %s.%s */' % (
            self.strings.add(member.name), self.ids[member.type.name], offset, has,
            self.features(member.features), member.optional, where, member.name))

    def add(self, type_):
        getattr(self, '_' + type_.kind)(type_)

    def _row(self, type_, kind, **kw):
        cells = {'name': self.strings.add(type_.name), 'kind': 'QAPI_KIND_' + kind}
        if type_.features:
            cells['features'] = self.features(type_.features)
        cells.update(kw)
        self.types.append('{ %s }, /* %d %s */' % (
            ', '.join('.%s = %s' % item for item in cells.items()),
            len(self.types), type_.name))

    def _builtin(self, type_):
        kind = _ELEMENT.get(type_.name, type_.name.upper())
        size = 'sizeof(%s)' % type_.c_type if type_.c_type else '0'
        self._row(type_, kind, size=size)

    def _enum(self, type_):
        first = len(self.values)
        for value, features in type_.values:
            self.values.append('{ %d, %d }, /* %s */' % (
                self.strings.add(value), self.features(features), value))
        self._row(type_, 'ENUM', size='sizeof(%s)' % type_.c_name, first=first,
                  count=len(type_.values))

    def _struct(self, type_):
        name, first = type_.c_name, len(self.members)
        for m in type_.members:
            offset = 'offsetof(%s, %s)' % (name, m.c_name) if m.type.c_type else '0'
            has = 'offsetof(%s, has_%s)' % (name, m.c_name) if m.has_flag else 'NO_HAS'
            self.member(m, type_.name, offset, has)
        extra = {}
        if type_.tag:
            extra = {'tag': first + type_.members.index(type_.tag),
                     'first_variant': len(self.variants),
                     'nb_variants': len(type_.variants)}
            if any(v.members for v in type_.variants.values()):
                extra['u_offset'] = 'offsetof(%s, u)' % name
            for value, variant in type_.variants.items():
                self.variants.append('{ %d, %d }, /* %s: %s */' % (
                    type_.tag.type.index(value), self.ids[variant.name], type_.name,
                    value))
        self._row(type_, 'STRUCT', size='sizeof(%s)' % name, first=first,
                  count=len(type_.members), **extra)

    def _alternate(self, type_):
        first = len(self.members)
        for branch in type_.branches:
            offset = ('offsetof(%s, u.%s)' % (type_.c_name, branch.c_name)
                      if branch.type.c_type else '0')
            self.member(branch, type_.name, offset, 'NO_HAS')
        self._row(type_, 'ALTERNATE', size='sizeof(%s)' % type_.c_name, first=first,
                  count=len(type_.branches))

    def _list(self, type_):
        self._row(type_, 'LIST', size='sizeof(%s)' % type_.c_name,
                  first=self.ids[type_.element.name])


def _array(out, kind, name, rows):
    out.append('const %s %s[] = {' % (kind, name))
    out += ['    ' + row for row in rows]
    out.append('};\n')


def _string_rows(text):
    return ['"%s\\0"' % part for part in text[:-1].split('\0')]


def source(schema, ids):
    tables = _Tables(ids)
    for type_ in schema.ordered():
        tables.add(type_)
    commands, events = [], []
    for command in schema.commands:
        flags = [f for f, on in (('QAPI_CMD_OOB', command.allow_oob),
                                 ('QAPI_CMD_QUERY', command.query)) if on]
        commands.append('{ %d, %s, %s, %d, %s }, /* %s */' % (
            tables.strings.add(command.name),
            ids[command.arg.name] if command.arg else 'QAPI_NO_TYPE',
            ids[command.ret.name] if command.ret else 'QAPI_NO_TYPE',
            tables.features(command.features), ' | '.join(flags) or '0', command.name))
    for event in schema.events:
        events.append('{ %d, %s, QAPI_NO_TYPE, %d, 0 }, /* %s */' % (
            tables.strings.add(event.name),
            ids[event.arg.name] if event.arg else 'QAPI_NO_TYPE',
            tables.features(event.features), event.name))
    assert len(tables.strings.bytes) < 65536
    out = [banner('The schema as tables; see qapi/tables.h.')]
    out.append('#include "qapi/qapi-types.h"\n#include "qapi/tables.h"\n')
    out.append('#define NO_HAS QAPI_NO_OFFSET\n')
    out.append('const char qapi_strings[] =')
    out += ['    ' + row for row in _string_rows(tables.strings.bytes)]
    out[-1] += ';\n'
    _array(out, 'QapiType', 'qapi_types', tables.types)
    _array(out, 'QapiMember', 'qapi_members', tables.members)
    _array(out, 'QapiValue', 'qapi_values', tables.values)
    _array(out, 'QapiVariant', 'qapi_variants', tables.variants)
    _array(out, 'QapiCommand', 'qapi_commands', commands)
    _array(out, 'QapiCommand', 'qapi_events', events)
    out.append('const unsigned qapi_nb_types = %d;' % len(tables.types))
    out.append('const unsigned qapi_nb_commands = %d;' % len(commands))
    out.append('const unsigned qapi_nb_events = %d;\n' % len(events))
    return '\n'.join(out)
