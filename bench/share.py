#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures a shared directory: on the host itself, under trivisor (-v), and under QEMU's TCG with its virtiofsd.
The same static program and the same kernel everywhere; medians of the rounds, in alternation. Needs
`ninja -C build bench/share.img`."""
import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import vm

IMAGE = os.path.join(vm.ROOT, 'build/bench/share.img')
PROGRAM = os.path.join(vm.ROOT, 'build/bench/share')
VIRTIOFSD = '/usr/lib/qemu/virtiofsd'


def parse(text):
    rows = {}
    for line in text.splitlines():
        m = re.match(r'share (\S+) +([\d.]+) (.*)', line)
        if m:
            rows[m[1]] = (float(m[2]), m[3].strip())
    return rows if 'share-done' in text else {}


def on_host(a, where):
    r = subprocess.run([PROGRAM, where, str(a.scale)], capture_output=True, text=True, check=False, timeout=600)
    return parse(r.stdout)


def in_guest(argv, a):
    with vm.Guest(argv) as g:
        g.wait_line('share-done', a.limit)
        g.wait_end(20)
        if not parse(g.text()):
            print(g.text()[-2000:], file=sys.stderr)
        return parse(g.text())


def append(a):
    return (f'{vm.base_append(a.tsc_khz)} quiet run="mkdir /m; mount -t virtiofs src /m && SHARE_GUEST=1 share /m '
            f'{a.scale}"')


def on_trivisor(a, where):
    return in_guest([a.trivisor, 'run', '--engine', a.engine, '-m', f'{a.memory}M', '-c', str(a.cpus), '-k', a.kernel,
                     '-i', IMAGE, '-v', f'{where}:src', '-a', append(a)], a)


def on_qemu(a, where):
    """virtiofsd with its defaults but for its sandbox, which wants to be root or have user namespaces."""
    path = os.path.join(tempfile.mkdtemp(), 'socket')
    server = subprocess.Popen([VIRTIOFSD, f'--socket-path={path}', '-o', f'source={where}', '-o',
                               f'sandbox={a.virtiofsd_sandbox}', '-f'], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while not os.path.exists(path) and time.monotonic() < end:
            time.sleep(0.05)
        argv = ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max,-erms,-fsrm', '-M', 'q35,memory-backend=mem',
                '-object', f'memory-backend-memfd,id=mem,size={a.memory}M,share=on', '-m', str(a.memory), '-smp',
                str(a.cpus), '-nographic', '-no-reboot', '-nodefaults', '-serial', 'stdio', '-kernel', a.kernel,
                '-initrd', IMAGE, '-append', append(a), '-chardev', f'socket,id=fs,path={path}', '-device',
                'vhost-user-fs-pci,chardev=fs,tag=src']
        return in_guest(argv, a)
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(os.path.dirname(path))


RUNNERS = {'host': on_host, 'trivisor': on_trivisor, 'qemu': on_qemu}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    vm.add_arguments(p)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--scale', type=int, default=4, help='how much of everything')
    p.add_argument('--only', default='host,trivisor,qemu')
    p.add_argument('--dir', help='where the shared directory is made (default: $TMPDIR or /tmp)')
    p.add_argument('--limit', type=int, default=300, help='seconds for a guest')
    p.add_argument('--virtiofsd-sandbox', default='chroot', help='chroot or namespace')
    a = p.parse_args()
    a.kernel = a.kernel or vm.kernel_path()
    a.tsc_khz = vm.host_tsc_khz()
    for path in (IMAGE, PROGRAM):
        if not os.path.exists(path):
            vm.die(f'{path} is missing: ninja -C build bench/share.img')
    names = a.only.split(',')
    if 'qemu' in names and not os.path.exists(VIRTIOFSD):
        vm.die(f'{VIRTIOFSD} is missing (package qemu-system-common); --only host,trivisor does without')
    found = {name: [] for name in names}
    for _ in range(a.rounds):
        for name in names:
            with tempfile.TemporaryDirectory(dir=a.dir) as where:
                rows = RUNNERS[name](a, where)
            if not rows:
                vm.die(f'{name}: no result')
            found[name].append(rows)
    print(f'{socket.gethostname()}: {a.rounds} rounds, scale {a.scale}, {a.cpus} CPU(s)')
    print(f'{"":12}' + ''.join(f'{n:>12}' for n in names))
    for test, (_, unit) in found[names[0]][0].items():
        values = [statistics.median(r[test][0] for r in found[n]) for n in names]
        print(f'{test:12}' + ''.join(f'{v:12.1f}' for v in values) + f'  {unit}')


main()
