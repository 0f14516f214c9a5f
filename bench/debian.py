#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Times a whole Debian's boot, from starting the monitor to the login prompt: trivisor against QEMU's TCG, the same
disk image, kernel, initrd and command line, a virtio disk and a virtio network card, in alternating pairs.

Each run gets a copy of its own of the image, made before the clock starts. Prints the medians of wall and CPU time
and their ratio; with --gate a ratio over the goal is exit status 1. To look into one monitor:

    bench/debian.py --only trivisor --pairs 1 --wrap 'perf record -g -o build/perf.data'
    bench/debian.py --only trivisor --pairs 1 --extra=--stats --log build/boot.log
"""
import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile

import vm

GOAL = 0.4
PARTITION = 1 << 20
# Places on the way, and what the serial line says there.
MARKS = (('initrd', 'Run /init as init process'), ('systemd', 'systemd[1]: systemd '), ('login', 'debian login: '))


def tool(*argv):
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                       env={**os.environ, 'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin'})
    if r.returncode:
        vm.die(f'{" ".join(argv)}: {r.stderr}')
    return r.stdout


def unpack(image, where):
    """(kernel, initrd, root=) of the image."""
    part = f'{image}?offset={PARTITION}'
    paths = []
    for name in ('vmlinuz', 'initrd.img'):
        listing = tool('debugfs', '-R', f'stat /{name}', part)
        target = re.search(r'Fast link dest: "(.*)"', listing)[1]
        paths.append(os.path.join(where, name))
        tool('debugfs', '-R', f'dump /{target} {paths[-1]}', part)
    uuid = re.search(r'Filesystem UUID:\s+(\S+)', tool('dumpe2fs', '-h', part))[1]
    return paths + [f'root=UUID={uuid}']


def command(kind, a, disk):
    append = f'{a.root} ro console=ttyS0 tsc_early_khz={a.tsc_khz} {a.append}'.strip()
    if kind == 'trivisor':
        argv = [a.trivisor, 'run', '--engine', a.engine, '-m', f'{a.memory}M', '-c', str(a.cpus), '-d',
                f'{disk},format=raw', '--net', 'user', '-k', a.kernel, '-i', a.initrd, '-a', append] + a.extra
        return shlex.split(a.wrap) + argv
    return ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max,-erms,-fsrm', '-M', a.machine, '-m', str(a.memory),
            '-smp', str(a.cpus), '-nographic', '-no-reboot', '-kernel', a.kernel, '-initrd', a.initrd,
            '-append', append, '-drive', f'file={disk},format=raw,if=none,id=disk',
            '-device', 'virtio-blk-pci,drive=disk', '-nic', 'user,model=virtio-net-pci']


def once(kind, a, work):
    """{mark: seconds, 'cpu': seconds}; {} when it did not get there."""
    disk = os.path.join(work, 'run.img')
    tool('cp', '--sparse=always', '--reflink=auto', a.image, disk)
    try:
        with vm.Guest(command(kind, a, disk)) as g:
            last = g.wait_text(MARKS[-1][1], a.limit)
            times = {'cpu': vm.cpu_seconds(g.proc.pid)}
            for name, text in MARKS[:-1]:
                times[name] = next((when for when, line in g.lines if text in line), None)
            times[MARKS[-1][0]] = last
            if a.log and kind == 'trivisor':
                with open(a.log, 'w', encoding='utf-8') as f:
                    f.writelines(f'{when:8.3f} {line}\n' for when, line in g.lines)
            if last is None:
                print(f'{kind}: no login prompt: ' + ' | '.join(line for _, line in g.lines[-3:]), file=sys.stderr)
                return {}
            trouble = g.trouble()
            if trouble:
                print(f'{kind}: kernel log: {trouble[0]}', file=sys.stderr)
            return times
    finally:
        os.unlink(disk)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    vm.add_arguments(p)
    p.set_defaults(machine='q35')
    p.add_argument('--image', metavar='PATH', help='default: the one of make image, pristine')
    p.add_argument('--pairs', type=int, default=3)
    p.add_argument('--only', choices=('trivisor', 'qemu'))
    p.add_argument('--append', default='', help='more for the kernel command line')
    p.add_argument('--extra', action='append', default=[], metavar='OPTION', help='more for trivisor run')
    p.add_argument('--wrap', default='', metavar='COMMAND', help='runs trivisor under it')
    p.add_argument('--log', metavar='PATH', help="trivisor's console with times, of the last run")
    p.add_argument('--limit', type=float, default=300, metavar='S')
    p.add_argument('--gate', action='store_true')
    a = p.parse_args()
    if not a.image:
        a.image = tool(os.path.join(vm.ROOT, 'tools/mkdebian.py'), '--pristine').strip()
    a.tsc_khz = vm.host_tsc_khz()
    kinds = (a.only,) if a.only else ('qemu', 'trivisor')
    runs = {k: [] for k in kinds}
    where = '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as work:
        kernel, a.initrd, a.root = unpack(a.image, work)
        a.kernel = a.kernel or kernel
        for n in range(a.pairs):
            for kind in kinds:
                r = once(kind, a, work)
                print(f'{n + 1} {kind:<9}' + ''.join(f' {m} {r[m]:7.2f} s' for m in r if r[m] is not None), flush=True)
                if r:
                    runs[kind].append(r)
    names = [m for m, _ in MARKS] + ['cpu']
    med = {k: {m: statistics.median(v) if v else None for m in names
               for v in [[r[m] for r in runs[k] if r.get(m) is not None]]} for k in kinds}
    print(f'\n{"median, s":<12}' + ''.join(f'{k:>11}' for k in kinds) + ('      ratio' if len(kinds) == 2 else ''))
    ratios = {}
    for m in names:
        row = [med[k][m] for k in kinds]
        if None in row:
            continue
        if len(row) == 2:
            ratios[m] = row[1] / row[0]
        print(f'{m:<12}' + ''.join(f'{v:11.2f}' for v in row) + (f'{ratios[m]:11.2f}' if m in ratios else ''))
    failed = any(len(runs[k]) < a.pairs for k in kinds)
    if 'login' in ratios:
        met = ratios['login'] <= GOAL
        print(f'\ngoal: to the login prompt in at most {GOAL} of QEMU\'s time: {ratios["login"]:.2f} '
              f'{"met" if met else "MISSED"}')
        failed = failed or (a.gate and not met)
    sys.exit(1 if failed else 0)


main()
