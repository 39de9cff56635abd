# SPDX-License-Identifier: GPL-2.0-or-later
"""qemu-dp-qmp-ref.md: the reference for people, from the same schema."""


def _type(type_):
    if type_.kind == 'list':
        return 'array of ' + _type(type_.element)
    if type_.kind == 'builtin':
        return '`%s`' % type_.name
    return '[`%s`](#%s)' % (type_.name, type_.name.lower())


def _rows(members, out):
    for m in members:
        notes = ['optional'] if m.optional else []
        notes += m.features
        out.append('- `%s` (%s%s): %s' % (m.name, _type(m.type),
                   ''.join(', ' + n for n in notes), ' '.join(m.doc or [])))


def _tags(doc, out):
    for tag in ('Returns', 'Note', 'Since'):
        if tag in doc.tags:
            out.append('\n*%s:* %s' % (tag, ' '.join(doc.tags[tag])))


def _head(name, kind, doc, out):
    out.append('\n### %s\n\n%s%s\n' % (name, kind, ' '.join(doc.body)))


def _argument(thing, out):
    if thing.arg and thing.arg.implicit:
        _rows(thing.arg.members, out)
    elif thing.arg:
        out.append('Its arguments are the members of %s.' % _type(thing.arg))


def _type_text(type_, out):
    kind = {'struct': 'Object', 'enum': 'Enumeration', 'alternate': 'Alternate'}
    _head(type_.name, '(%s) ' % kind[type_.kind], type_.doc, out)
    if type_.kind == 'enum':
        for value, _ in type_.values:
            out.append('- `%s`: %s' % (value, ' '.join(type_.doc.members[value])))
    elif type_.kind == 'alternate':
        _rows(type_.branches, out)
    else:
        _rows(type_.members, out)
        for value, variant in type_.variants.items():
            out.append('- with `%s` = `%s`: the members of %s'
                       % (type_.tag.name, value, _type(variant)))
    _tags(type_.doc, out)


def text(schema):
    out = ['<!-- Generated from qapi/schema.json. -->\n# qemu-dp QMP reference\n']
    out.append('## Commands')
    for command in schema.commands:
        _head(command.name, '', command.doc, out)
        _argument(command, out)
        for feature in command.features:
            if feature in command.doc.members:
                out.append('- feature `%s`: %s' % (
                    feature, ' '.join(command.doc.members[feature])))
        if command.ret:
            out.append('\n*Type of the reply:* %s' % _type(command.ret))
        _tags(command.doc, out)
    out.append('\n## Events')
    for event in schema.events:
        _head(event.name, '', event.doc, out)
        _argument(event, out)
        _tags(event.doc, out)
    out.append('\n## Types')
    for type_ in schema.types.values():
        if type_.kind in ('struct', 'enum', 'alternate') and not (
                type_.kind == 'struct' and type_.implicit):
            _type_text(type_, out)
    return '\n'.join(out) + '\n'
