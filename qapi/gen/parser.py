# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads schema files: a JSON-like language with comments, one expression per definition.

It yields Expr objects (the plain dict, where it stands, its documentation) and knows
nothing about what the definitions mean; schema.py does.

Documentation is a comment block that starts and ends with a line "##".  In it
"# @name: text" begins a section: the first one names the definition, later ones its
members; lines that follow belong to the section, "# Since: x" and "# Returns: x" end it.
"""

import os
import re


class SchemaError(Exception):
    def __init__(self, where, text):
        super().__init__('%s: %s' % (where, text))


class Doc:
    """One documentation block: symbol, body text, members' texts, tags."""

    def __init__(self, where, lines):
        self.where = where
        self.symbol = None
        self.body = []
        self.members = {}
        self.tags = {}
        section = self.body
        for line in lines:
            match = re.match(r'@([A-Za-z0-9_.-]+):\s*(.*)$', line)
            tag = re.match(r'(Since|Returns|Note|Example|Deprecated):\s*(.*)$', line)
            if match and self.symbol is None:
                self.symbol = match.group(1)
                text = match.group(2)
            elif match:
                if match.group(1) in self.members:
                    raise SchemaError(where, "'@%s' described twice" % match.group(1))
                section = self.members[match.group(1)] = []
                text = match.group(2)
            elif tag:
                section = self.tags.setdefault(tag.group(1), [])
                text = tag.group(2)
            else:
                text = line
            if text or section:
                section.append(text)


class Expr:
    def __init__(self, where, value, doc):
        self.where = where
        self.value = value
        self.doc = doc


_TOKEN = re.compile(r"\s*(?:(?P<comment>#[^\n]*)|(?P<string>'[^'\n]*')"
                    r"|(?P<word>true|false|[0-9]+)|(?P<punct>[{}\[\]:,]))")


class _Lexer:
    def __init__(self, path):
        with open(path, encoding='utf-8') as file:
            self.text = file.read()
        self.path = path
        self.pos = 0
        self.doc = None
        self.kind = self.value = None
        self.advance()

    def where(self):
        line = self.text.count('\n', 0, self.pos) + 1
        return '%s:%d' % (os.path.basename(self.path), line)

    def advance(self):
        while True:
            match = _TOKEN.match(self.text, self.pos)
            if not match:
                if self.text[self.pos:].strip():
                    raise SchemaError(self.where(), 'stray characters')
                self.kind = 'end'
                return
            self.pos = match.end()
            self.kind = match.lastgroup
            self.value = match.group(self.kind)
            if self.kind == 'comment':
                if self.value == '##':
                    self._take_doc()
                continue
            if self.kind == 'string':
                self.value = self.value[1:-1]
            return

    def _take_doc(self):
        where = self.where()
        lines = []
        while True:
            end = self.text.find('\n', self.pos + 1)
            if end < 0:
                raise SchemaError(where, 'documentation does not end with ##')
            line = self.text[self.pos + 1:end]
            self.pos = end
            if line == '##':
                break
            if not line.startswith('#'):
                raise SchemaError(where, 'documentation line without #')
            lines.append(line[1:].strip())
        self.doc = Doc(where, lines)


def _fail(lex, wanted):
    raise SchemaError(lex.where(), 'expected %s' % wanted)


def _punct(lex, char):
    if lex.kind != 'punct' or lex.value != char:
        _fail(lex, "'%s'" % char)
    lex.advance()


def _value(lex):
    if lex.kind == 'string':
        value = lex.value
        lex.advance()
        return value
    if lex.kind == 'word':
        value = {'true': True, 'false': False}.get(lex.value)
        if value is None:
            _fail(lex, 'a string, true or false')
        lex.advance()
        return value
    if lex.kind == 'punct' and lex.value == '{':
        return _object(lex)
    if lex.kind == 'punct' and lex.value == '[':
        return _list(lex)
    return _fail(lex, 'a value')


def _object(lex):
    members = {}
    _punct(lex, '{')
    while lex.kind == 'string':
        name, where = lex.value, lex.where()
        lex.advance()
        _punct(lex, ':')
        if name in members:
            raise SchemaError(where, "member '%s' twice" % name)
        members[name] = _value(lex)
        if lex.kind == 'punct' and lex.value == ',':
            lex.advance()
        else:
            break
    _punct(lex, '}')
    return members


def _list(lex):
    items = []
    _punct(lex, '[')
    while not (lex.kind == 'punct' and lex.value == ']'):
        items.append(_value(lex))
        if lex.kind == 'punct' and lex.value == ',':
            lex.advance()
        else:
            break
    _punct(lex, ']')
    return items


def parse(path, seen=None):
    """All expressions of the file and of those it includes, in order."""
    seen = set() if seen is None else seen
    path = os.path.abspath(path)
    if path in seen:
        return []
    seen.add(path)
    exprs = []
    lex = _Lexer(path)
    while lex.kind != 'end':
        where, doc = lex.where(), lex.doc
        lex.doc = None
        value = _object(lex)
        if list(value) == ['include']:
            exprs += parse(os.path.join(os.path.dirname(path), value['include']), seen)
            lex.doc = None if lex.doc is doc else lex.doc
        else:
            exprs.append(Expr(where, value, doc))
    return exprs
