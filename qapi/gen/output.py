# SPDX-License-Identifier: GPL-2.0-or-later
"""Small pieces that all generated files share."""

import os


def banner(what, guard=None):
    text = ('/* SPDX-License-Identifier: GPL-2.0-or-later */\n'
            '/* %s  Generated from qapi/schema.json. */\n' % what)
    if guard:
        text += '#ifndef %s\n#define %s\n' % (guard, guard)
    return text


def write(folder, name, text):
    """Write only what changed, so that the build does not run in vain."""
    path = os.path.join(folder, name)
    if os.path.exists(path):
        with open(path, encoding='utf-8') as file:
            if file.read() == text:
                return
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)
