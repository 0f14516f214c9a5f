#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Builds a guest's initramfs: busybox, /init and any extra programs, as a gzipped newc cpio archive.

Written without cpio(1) or root: the archive format is simple (Linux Documentation/driver-api/
early-userspace/buffer-format.rst), device nodes need no privilege this way, and the result depends on
nothing but its inputs.
"""
import argparse
import gzip
import os
import re
import stat
import subprocess
import sys

TOOLS = os.path.dirname(os.path.abspath(__file__))
HERE = os.path.join(TOOLS, 'initramfs')

# `--modules virtio`: drivers of all virtio devices, and the file systems of what they carry.
VIRTIO = ['virtio_pci', 'virtio_blk', 'virtio_scsi', 'virtio_net', 'virtio_console', 'virtio_rng',
          'virtio_balloon', 'virtio_input', 'virtiofs', 'vmw_vsock_virtio_transport', 'isofs', 'vfat',
          'nls_cp437', 'nls_ascii', 'nls_iso8859_1', 'nls_utf8', 'overlay']


class Archive:
    def __init__(self):
        self.out = bytearray()
        self.ino = 0

    def add(self, name, mode, data=b'', rdev=(0, 0)):
        self.ino += 1
        raw = name.encode() + b'\0'
        fields = (self.ino, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(raw), 0)
        self.out += b'070701' + b''.join(b'%08X' % f for f in fields) + raw
        self.pad()
        self.out += data
        self.pad()

    def pad(self):
        self.out += b'\0' * (-len(self.out) % 4)

    def dir(self, name, perm=0o755):
        self.add(name, stat.S_IFDIR | perm)

    def file(self, name, data, perm=0o755):
        self.add(name, stat.S_IFREG | perm, data)

    def link(self, name, target):
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def finish(self):
        self.add('TRAILER!!!', 0)
        return bytes(self.out)


def read(path):
    with open(path, 'rb') as f:
        return f.read()


def modinfo(data, key):
    """Values of a key in a module's .modinfo section, which holds NUL-terminated KEY=VALUE strings."""
    return [v.decode() for v in re.findall(b'(?<=\\0)' + key + b'=([^\\0]*)\\0', data)]


def module_name(path):
    return os.path.basename(path)[:-3].replace('-', '_')


def add_modules(ar, wanted):
    """Modules with all they need, and the index that initramfs/modules.c reads: a line each of the name, what
    it needs (or -) and its aliases."""
    r = subprocess.run([os.path.join(TOOLS, 'fetch-kernel.sh')], stdout=subprocess.PIPE, text=True, check=False)
    if r.returncode:
        sys.exit('mkinitramfs: no guest kernel (see the message above)')
    top = os.path.join(os.path.dirname(r.stdout.strip()), 'modules')
    where = {module_name(name): os.path.join(d, name)
             for d, _, names in os.walk(top) for name in names if name.endswith('.ko')}
    index = {}

    def add(name):
        if name in index:
            return
        if name not in where:
            sys.exit(f'mkinitramfs: no module {name} under {top}')
        data = read(where[name])
        needs = [n.replace('-', '_') for n in ','.join(modinfo(data, b'depends')).split(',') if n]
        index[name] = f'{name} {",".join(needs) or "-"} {" ".join(modinfo(data, b"alias"))}\n'
        ar.file(f'lib/modules/{name}.ko', data, 0o644)
        for n in needs:
            add(n)

    for name in wanted:
        add(name)
    ar.file('lib/modules/index', ''.join(index.values()).encode(), 0o644)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('-o', '--output', required=True)
    p.add_argument('--init', required=True, help='the first process, a static program')
    p.add_argument('--busybox', default='/bin/busybox', help='a static busybox (busybox-static)')
    p.add_argument('--add', action='append', default=[], metavar='HOST[:GUEST]',
                   help='put a program or file into the guest (default place: /bin)')
    p.add_argument('--modules', metavar='LIST', help="modules of Debian's cloud kernel, separated by commas; "
                   "virtio: its virtio drivers and file systems")
    a = p.parse_args()

    try:
        busybox = read(a.busybox)
        applets = subprocess.run([a.busybox, '--list'], capture_output=True, text=True, check=True,
                                 timeout=20).stdout.split()
    except (OSError, subprocess.SubprocessError) as e:
        sys.exit(f'mkinitramfs: {a.busybox}: {e} (package busybox-static)')
    if b'/lib64/ld-linux' in busybox[:4096]:
        sys.exit(f'mkinitramfs: {a.busybox} is not static (package busybox-static)')

    ar = Archive()
    for d in ('bin', 'dev', 'etc', 'proc', 'root', 'sbin', 'sys', 'tmp'):
        ar.dir(d)
    # What the kernel opens for init before devtmpfs is mounted.
    ar.add('dev/console', stat.S_IFCHR | 0o600, rdev=(5, 1))
    ar.add('dev/null', stat.S_IFCHR | 0o666, rdev=(1, 3))
    ar.file('bin/busybox', busybox)
    for name in sorted(set(applets) - {'busybox', 'init', 'linuxrc'}):
        ar.link('bin/' + name, 'busybox')
    # Where the kernel looks for it. (In busybox' shell, plain modprobe is busybox' own.)
    ar.link('sbin/modprobe', '/init')
    ar.file('etc/profile', read(os.path.join(HERE, 'profile')), 0o644)
    ar.file('etc/passwd', b'root::0:0:root:/root:/bin/sh\n', 0o644)
    ar.file('etc/group', b'root:x:0:\n', 0o644)
    # Where Debian's busybox looks for it.
    ar.dir('etc/udhcpc')
    ar.file('etc/udhcpc/default.script', read(os.path.join(HERE, 'udhcpc')))
    ar.file('init', read(a.init))
    for item in a.add:
        host, _, guest = item.partition(':')
        guest = (guest or 'bin/' + os.path.basename(host)).lstrip('/')
        ar.file(guest, read(host), 0o755)

    if a.modules:
        ar.dir('lib')
        ar.dir('lib/modules')
        add_modules(ar, VIRTIO if a.modules == 'virtio' else a.modules.split(','))

    data = gzip.compress(ar.finish(), 9, mtime=0)
    tmp = a.output + '.tmp'
    with open(tmp, 'wb') as f:
        f.write(data)
    os.replace(tmp, a.output)


main()
