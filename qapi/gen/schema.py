# SPDX-License-Identifier: GPL-2.0-or-later
"""What the definitions mean: types, commands and events, checked and linked.

Everything a later stage needs is decided here: the flattened member lists, which C type
holds a member, and the order of types.  Errors name file and line.
"""

import re

from parser import SchemaError, parse

# QAPI name -> (C type, JSON type on the wire)
BUILTIN = {
    'str': ('char *', 'string'),
    'int': ('int64_t ', 'int'),
    'number': ('double ', 'number'),
    'bool': ('bool ', 'boolean'),
    'int8': ('int8_t ', 'int'), 'int16': ('int16_t ', 'int'),
    'int32': ('int32_t ', 'int'), 'int64': ('int64_t ', 'int'),
    'uint8': ('uint8_t ', 'int'), 'uint16': ('uint16_t ', 'int'),
    'uint32': ('uint32_t ', 'int'), 'uint64': ('uint64_t ', 'int'),
    'size': ('uint64_t ', 'int'),
    'any': ('JsonValue *', 'value'),
    'null': ('', 'null'),
}

_C_RESERVED = set('''auto break case char const continue default do double else enum
    extern float for goto if int long register return short signed sizeof static struct
    switch typedef union unsigned void volatile while inline restrict asm bool linux
    unix i386 errno or and not xor'''.split())


def c_name(name):
    """The C identifier for a name of the schema."""
    ident = re.sub(r'[^A-Za-z0-9_]', '_', name)
    if ident in _C_RESERVED or ident[0].isdigit():
        return 'q_' + ident
    return ident


def upper_name(name):
    """BlockdevDriver -> BLOCKDEV_DRIVER, NBDServer -> NBD_SERVER."""
    name = re.sub(r'([A-Z]+)([A-Z][a-z])', r'\1_\2', name)
    name = re.sub(r'([a-z0-9])([A-Z])', r'\1_\2', name)
    return re.sub(r'[^A-Za-z0-9]+', '_', name).upper()


def camel_name(name):
    return ''.join(part[:1].upper() + part[1:] for part in re.split(r'[-_]', name))


class Member:
    def __init__(self, name, type_, optional, features, doc=None):
        self.name, self.type, self.optional = name, type_, optional
        self.features = features
        self.doc = doc
        self.c_name = c_name(name)

    @property
    def has_flag(self):
        """Optional values need has_x; an absent pointer is NULL."""
        return self.optional and not self.type.by_pointer


class Type:
    kind = None
    by_pointer = False

    def __init__(self, name, where=None, doc=None, features=()):
        self.name, self.where, self.doc = name, where, doc
        self.features = list(features)
        self.c_name = c_name(name)

    @property
    def c_type(self):
        return self.c_name + (' *' if self.by_pointer else ' ')


class Builtin(Type):
    kind = 'builtin'

    def __init__(self, name):
        super().__init__(name)
        self.json = BUILTIN[name][1]
        self.by_pointer = BUILTIN[name][0].endswith('*')

    @property
    def c_type(self):
        return BUILTIN[self.name][0]


class Enum(Type):
    kind = 'enum'

    def __init__(self, name, values, **kw):
        super().__init__(name, **kw)
        self.values = values  # [(name, features)]

    def constant(self, value):
        return upper_name(self.name) + '_' + re.sub(r'[^A-Za-z0-9]', '_', value).upper()

    def index(self, value):
        return [v for v, _ in self.values].index(value)


class Struct(Type):
    kind = 'struct'
    by_pointer = True

    def __init__(self, name, **kw):
        super().__init__(name, **kw)
        self.members = []      # with the base's members first
        self.base = None
        self.tag = None        # Member
        self.variants = {}     # enum value -> Struct
        self.implicit = False


class Alternate(Type):
    kind = 'alternate'
    by_pointer = True

    def __init__(self, name, **kw):
        super().__init__(name, **kw)
        self.branches = []     # [Member]


class List(Type):
    kind = 'list'
    by_pointer = True

    def __init__(self, element):
        super().__init__(element.name + 'List')
        self.element = element


class Command:
    def __init__(self, name, expr):
        self.name, self.where, self.doc = name, expr.where, expr.doc
        self.arg = self.ret = None
        self.features = expr.value.get('features', [])
        self.allow_oob = expr.value.get('allow-oob', False)
        # ours: a query changes nothing and needs no graph lock
        self.query = expr.value.get('query', name.startswith('query-'))
        # without: the monitor itself answers it
        self.gen = expr.value.get('gen', True)
        self.c_name = c_name(name)


class Event:
    def __init__(self, name, expr):
        self.name, self.where, self.doc = name, expr.where, expr.doc
        self.features = expr.value.get('features', [])
        self.arg = None


_KEYS = {
    'struct': {'data', 'base', 'features'},
    'union': {'base', 'discriminator', 'data', 'features'},
    'alternate': {'data', 'features'},
    'enum': {'data', 'features'},
    'command': {'data', 'returns', 'boxed', 'allow-oob', 'features', 'query', 'gen'},
    'event': {'data', 'boxed', 'features'},
}


class Schema:
    def __init__(self, path):
        self.types = {name: Builtin(name) for name in BUILTIN}
        self.commands, self.events = [], []
        self._exprs = {}
        exprs = parse(path)
        for expr in exprs:
            self._declare(expr)
        for expr in exprs:
            self._define(expr)
        for type_ in list(self.types.values()):
            self._check_variants(type_)

    def _declare(self, expr):
        meta = next(iter(expr.value))
        if meta not in _KEYS:
            raise SchemaError(expr.where, "unknown expression '%s'" % meta)
        extra = set(expr.value) - _KEYS[meta] - {meta}
        if extra:
            raise SchemaError(expr.where, 'unknown key %s' % sorted(extra))
        name = expr.value[meta]
        if not expr.doc or expr.doc.symbol != name:
            raise SchemaError(expr.where, "'%s' has no documentation block" % name)
        expr.meta, expr.name = meta, name
        if meta in ('command', 'event'):
            return
        if name in self.types:
            raise SchemaError(expr.where, "type '%s' defined twice" % name)
        kw = {'where': expr.where, 'doc': expr.doc,
              'features': expr.value.get('features', [])}
        if meta == 'enum':
            values = [(v, []) if isinstance(v, str) else (v['name'], v['features'])
                      for v in expr.value['data']]
            self.types[name] = Enum(name, values, **kw)
            self._documented(expr, [v for v, _ in values])
        else:
            self.types[name] = (Alternate if meta == 'alternate' else Struct)(name, **kw)
        self._exprs[name] = expr

    def lookup(self, ref, where):
        if isinstance(ref, list):
            element = self.lookup(ref[0], where)
            return self.types.setdefault(element.name + 'List', List(element))
        if ref not in self.types:
            raise SchemaError(where, "unknown type '%s'" % ref)
        return self.types[ref]

    def _members(self, expr, data):
        members = []
        for key, ref in data.items():
            features = []
            if isinstance(ref, dict):
                features, ref = ref.get('features', []), ref['type']
            name = key.lstrip('*')
            members.append(Member(name, self.lookup(ref, expr.where),
                                  key.startswith('*'), features,
                                  expr.doc.members.get(name)))
        self._documented(expr, [m.name for m in members])
        return members

    @staticmethod
    def _documented(expr, names):
        missing = [n for n in names if n not in expr.doc.members]
        extra = [n for n in expr.doc.members if n not in names
                 and n not in expr.value.get('features', [])]
        if missing or extra:
            raise SchemaError(expr.where, "'%s': undescribed %s, described in vain %s"
                              % (expr.name, missing, extra))

    def _define(self, expr):
        if expr.meta == 'struct':
            self._define_struct(self.types[expr.name])
        elif expr.meta == 'union':
            self._define_union(self.types[expr.name], expr)
        elif expr.meta == 'alternate':
            self.types[expr.name].branches = self._members(expr, expr.value['data'])
        elif expr.meta == 'command':
            command = Command(expr.name, expr)
            command.arg = self._argument(expr, 'Args')
            if 'returns' in expr.value:
                command.ret = self.lookup(expr.value['returns'], expr.where)
            self.commands.append(command)
        elif expr.meta == 'event':
            event = Event(expr.name, expr)
            event.arg = self._argument(expr, 'Event')
            self.events.append(event)

    def _define_struct(self, struct):
        if struct.members:
            return
        expr = self._exprs[struct.name]
        own = self._members(expr, expr.value.get('data', {}))
        if 'base' in expr.value:
            struct.base = self.lookup(expr.value['base'], expr.where)
            self._define_struct(struct.base)
            own = struct.base.members + own
        struct.members = own

    def _define_union(self, union, expr):
        base = expr.value['base']
        if isinstance(base, str):
            union.base = self.lookup(base, expr.where)
            self._define_struct(union.base)
            union.members = union.base.members
            self._documented(expr, [])
        else:
            union.members = self._members(expr, base)
        tags = [m for m in union.members if m.name == expr.value['discriminator']]
        if not tags or tags[0].type.kind != 'enum':
            raise SchemaError(expr.where, 'the discriminator is no enum of the base')
        union.tag = tags[0]
        for value, ref in expr.value['data'].items():
            union.variants[value] = self.lookup(ref, expr.where)

    def _check_variants(self, type_):
        if type_.kind != 'struct':
            return
        for value, variant in type_.variants.items():
            if value not in [v for v, _ in type_.tag.type.values]:
                raise SchemaError(type_.where, "no value '%s' in the tag" % value)
            clash = {m.name for m in type_.members} & {m.name for m in variant.members}
            if clash:
                raise SchemaError(type_.where, 'members twice: %s' % sorted(clash))

    def _argument(self, expr, suffix):
        data = expr.value.get('data')
        if data is None:
            return None
        if isinstance(data, str):
            return self.lookup(data, expr.where)
        base = expr.name.lower() if expr.name.isupper() or '_' in expr.name else expr.name
        struct = Struct(camel_name(base) + suffix, where=expr.where, doc=expr.doc)
        struct.implicit = True
        struct.members = self._members(expr, data)
        if struct.name in self.types:
            raise SchemaError(expr.where, "type '%s' defined twice" % struct.name)
        self.types[struct.name] = struct
        return struct

    def ordered(self):
        """Types with a C definition, an embedded one before whoever embeds it."""
        done, out = set(), []

        def visit(type_):
            if type_.name in done:
                return
            done.add(type_.name)
            if type_.kind == 'struct':
                for variant in type_.variants.values():
                    visit(variant)
            out.append(type_)
        for type_ in self.types.values():
            visit(type_)
        return out
