#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue as data: its pages declare the switches that programs know.

    catalogue.py header OUT   write the enumeration of switches (block/base/ablate.h)
    catalogue.py pages        the pages' paths, for the build's dependencies
    catalogue.py switches     "0008 direct-path", one a line
    catalogue.py check        is every page whole, does what it names exist?
"""
import glob
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
KINDS = ('perf', 'behaviour', 'safety', 'scope')
NEEDED = ('kind', 'switch', 'default', 'files', 'tests')
MAX_SWITCHES = 32  # bits of a word


def page_names():
    with open(os.path.join(HERE, 'series'), encoding='utf-8') as lines:
        return [line.strip() for line in lines if line.strip()]


def read(name):
    """The front matter of one page; 'switches' is the list of its switches' names."""
    with open(os.path.join(HERE, name), encoding='utf-8') as page:
        text = page.read()
    m = re.match(r'---\n(.*?)\n---\n# ([^\n]+)\n', text, re.S)
    if not m:
        raise ValueError(f'{name}: no front matter with a title after it')
    front = {'page': name, 'number': name[:4], 'title': m.group(2)}
    for line in m.group(1).split('\n'):
        key, colon, value = line.partition(':')
        if not colon:
            raise ValueError(f'{name}: {line!r} is no "key: value"')
        front[key.strip()] = value.strip()
    front['switches'] = []
    switch = front.get('switch', '')
    if not switch.startswith(('none', '--')):
        front['switches'] = [w for w in re.split(r'[,\s]+', switch) if w]
    return front


def switches():
    return [(f['number'], s) for f in map(read, page_names()) for s in f['switches']]


def write_header(out):
    found = switches()
    if len(found) > MAX_SWITCHES:
        raise ValueError(f'{len(found)} switches; a word has {MAX_SWITCHES} bits')
    with open(out, 'w', encoding='utf-8') as f:
        f.write('/* Generated from patches/ by patches/catalogue.py. */\n')
        f.write('typedef enum AblateSwitch {\n')
        for _, name in found:
            f.write(f'    ABLATE_{name.upper().replace("-", "_")},\n')
        f.write('    ABLATE_COUNT\n} AblateSwitch;\n')
        f.write('#define ABLATE_TABLE \\\n')
        f.writelines(f'    {{"{number}", "{name}"}}, \\\n' for number, name in found)
        f.write('    {NULL, NULL}\n')


def words(value):
    return [w for w in re.split(r'[,\s]+', value) if w]


def names_a_test(word):
    """A path, or the number(s) of an I/O test after the first path: "106, 300-312"."""
    path = os.path.join(ROOT, word)
    first = re.match(r'(?:tests/qemu-iotests/)?(\d{3})(?:-\d{3})?$', word)
    if first:
        path = os.path.join(ROOT, 'tests/qemu-iotests', first.group(1))
    return bool(glob.glob(path) or glob.glob(path + '.c'))


def check():
    wrong = []
    names = page_names()
    there = sorted(os.path.basename(p)
                   for p in glob.glob(os.path.join(HERE, '[0-9][0-9][0-9][0-9]-*.md')))
    if sorted(names) != there or names != sorted(names):
        wrong.append(f'series lists {names}, there is {there}')
    seen = set()
    for front in map(read, names):
        page = front['page']
        wrong += [f'{page}: no "{key}"' for key in NEEDED if not front.get(key)]
        if front.get('kind') not in KINDS:
            wrong.append(f'{page}: kind is one of {KINDS}')
        if front.get('kind') == 'perf' and front.get('switch') == 'none' and \
                'switch' not in open(os.path.join(HERE, page), encoding='utf-8').read():
            wrong.append(f'{page}: a perf page names its switch or says why there is none')
        wrong += [f'{page}: there is no {w}' for w in words(front.get('files', ''))
                  if not os.path.exists(os.path.join(ROOT, w))]
        wrong += [f'{page}: there is no test {w}' for w in words(front.get('tests', ''))
                  if not names_a_test(w)]
        for s in front['switches']:
            if s in seen or not re.match(r'[a-z][a-z0-9-]*$', s):
                wrong.append(f'{page}: switch {s!r} is taken or no name')
            seen.add(s)
            name = 'ABLATE_' + s.upper().replace('-', '_')
            users = [p for p in glob.glob(os.path.join(ROOT, 'block/**/*.[ch]'), recursive=True)
                     + glob.glob(os.path.join(ROOT, 'qdp/**/*.[ch]'), recursive=True)
                     if name in open(p, encoding='utf-8').read()]
            if not users:
                wrong.append(f'{page}: nothing asks for {name}')
    for w in wrong:
        print(w)
    print(f'{len(names)} pages, {len(seen)} switches, {len(wrong)} wrong')
    return 1 if wrong else 0


def main():
    what = sys.argv[1] if len(sys.argv) > 1 else ''
    if what == 'header':
        write_header(sys.argv[2])
    elif what == 'pages':
        print('\n'.join(page_names()))
    elif what == 'switches':
        print('\n'.join(' '.join(s) for s in switches()))
    elif what == 'check':
        return check()
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
