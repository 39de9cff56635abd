# SPDX-License-Identifier: GPL-2.0-or-later
"""Daemons with NBD exports, for the tests 300-329: ours, or stock as oracle."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# pylint: disable=wrong-import-position,unused-import
import nbdclient as n
import qmpdaemon as q


class Server(q.Daemon):
    """@nodes: blockdev dictionaries; each is exported, writable, under its node name
    unless it is in @read_only or in @hidden."""

    def __init__(self, scratch, nodes, program=q.OURS, read_only=(), hidden=(), extra=(),
                 export=None, name='d', stderr=None):
        self.nbd = scratch.file(name + '.nbd')
        args = []
        for node in nodes:
            args += ['--blockdev', json.dumps(node)]
        args += ['--nbd-server', 'addr.type=unix,addr.path=%s,max-connections=0' % self.nbd]
        for node in nodes:
            name_ = node['node-name']
            if name_ in hidden:
                continue
            options = {'type': 'nbd', 'id': 'x-' + name_, 'node-name': name_,
                       'writable': name_ not in read_only}
            options.update(export or {})
            args += ['--export', json.dumps(options)]
        super().__init__(scratch, args + list(extra), program=program, name=name + '.qmp',
                         stderr=subprocess.DEVNULL if program == q.STOCK else stderr)
        q.connect(self.nbd).close()
        # it listens before the exports of its command line are there
        want = len(nodes) - len(hidden)
        if not n.wait_for(lambda: self.nb_exports() == want, q.TIMEOUT):
            raise AssertionError('the exports do not come')

    def client(self, **kw):
        return n.Client(self.nbd, **kw)

    def nb_exports(self):
        with self.client() as c:
            c.greet()
            return [kind for kind, _ in c.option(n.OPT_LIST)].count('SERVER')

    def uri(self, node):
        return 'nbd+unix:///%s?socket=%s' % (node, self.nbd)

    def rss_kib(self):
        """Resident memory; always 0 for a sanitized program, which keeps what is freed."""
        with open('/proc/%d/maps' % self.process.pid, encoding='utf-8') as maps:
            if 'libasan' in maps.read():
                return 0
        with open('/proc/%d/status' % self.process.pid, encoding='ascii') as lines:
            return [int(line.split()[1]) for line in lines if line.startswith('VmRSS')][0]

    def nb_fds(self):
        return len(os.listdir('/proc/%d/fd' % self.process.pid))


def file_node(name, path, driver='qcow2', **options):
    node = {'driver': 'file', 'filename': path}
    node.update(options.pop('file', {}))
    if driver == 'file':
        return dict(node, **{'node-name': name}, **options)
    return dict({'driver': driver, 'node-name': name, 'file': node}, **options)


def null_node(name, size=1 << 20, **options):
    return dict({'driver': 'null-co', 'node-name': name, 'size': size}, **options)


def run(*cmd):
    done = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120, check=False)
    if done.returncode:
        print('failed:', ' '.join(cmd), '\n', done.stdout)
    return done.stdout
