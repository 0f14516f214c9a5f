#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures a virtio disk from inside a guest against QEMU's TCG: fio in the same kernel, initramfs and programs, on
images made alike, in alternating pairs; medians. With --gate a ratio below 1 is exit status 1. CPU time of the monitor
for the same work is told too; on a busy host it varies less than speed, but by some times as well."""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import vm

IMAGE = os.path.join(vm.ROOT, 'build/tools/virtio.img')
MIB, GIB = 1 << 20, 1 << 30
SIZE = 512 * MIB      # of a disk that is full
NEW_SIZE = 16 * GIB   # of one that is empty
NEW_IO = 768 * MIB    # what a sequential writer puts on it
NEW_COUNT = 16000     # how many scattered writes

# name: (rw, request bytes, requests in flight)
JOBS = {
    'read 1M': ('read', '1M', 8),
    'write 1M': ('write', '1M', 8),
    'randread 4k': ('randread', '4k', 1),
    'randread 4k qd16': ('randread', '4k', 16),
    'randwrite 4k': ('randwrite', '4k', 1),
    'randwrite 4k qd16': ('randwrite', '4k', 16),
}
# name: (format, everything was written before)
DISKS = {
    'raw': ('raw', True),
    'qcow2': ('qcow2', True),
    'qcow2 new': ('qcow2', False),
}


def call(*argv):
    r = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=600)
    if r.returncode:
        vm.die(f'{" ".join(argv)}: {r.stderr.strip()}')
    return r.stdout


def make_programs(where):
    """A file system with fio and the libraries it needs: the guest reads of them what it uses, from its first disk."""
    fio = shutil.which('fio')
    top, image = os.path.join(where, 'root'), os.path.join(where, 'programs.img')
    for d in ('dev', 'proc', 'sys', 'tmp'):
        os.makedirs(os.path.join(top, d))
    for path in [fio] + re.findall(r'(/\S+) \(0x', call('ldd', fio)):
        to = top + path
        os.makedirs(os.path.dirname(to), exist_ok=True)
        shutil.copy(path, to)
    call('truncate', '-s', '256M', image)
    call('mke2fs', '-q', '-t', 'ext4', '-d', top, image)
    shutil.rmtree(top)
    return image, fio


def make_disk(where, fmt, full):
    path = os.path.join(where, f'disk.{fmt}')
    if os.path.exists(path):
        os.unlink(path)
    call('qemu-img', 'create', '-q', '-f', fmt, path, str(SIZE if full else NEW_SIZE))
    if full:
        call('qemu-io', '-f', fmt, '-c', f'write -q -P 65 0 {SIZE}', path)
    return path


def command(kind, a, programs, disk, fmt, append):
    argv = vm.command(kind, a, IMAGE, append)
    if kind == 'trivisor':
        return argv + ['-d', f'{programs},format=raw,ro', '-d', f'{disk},format={fmt}']
    return argv + ['-drive', f'file={programs},format=raw,if=virtio,readonly=on',
                   '-drive', f'file={disk},format={fmt},if=virtio,cache=writeback']


def fio_options(a, name, full, number):
    rw, size, depth = JOBS[name]
    o = f'--rw={rw} --bs={size} --iodepth={depth}'
    if full:
        return o + f' --time_based --runtime={a.seconds}'
    # Each writes once to a part of the disk of its own, and what it wrote counts when it is flushed.
    if rw == 'write':
        return o + f' --offset={number * 4}G --size={NEW_IO} --end_fsync=1'
    return o + f' --offset={number * 4}G --size=4G --io_size={NEW_COUNT * 4096} --end_fsync=1'


def once(kind, a, programs, fio, disk, fmt, full, jobs):
    """{job: (MiB/s or requests a second, CPU seconds for a GiB or 100000 requests)}"""
    script = ('mkdir /p; mount -t ext4 -o ro /dev/vda /p; for d in dev proc sys; do mount -o bind /$d /p/$d; done; '
              f'f() {{ echo; echo job $1:; shift; chroot /p {fio} --name=x --filename=/dev/vdb --direct=1 '
              '--ioengine=libaio --output-format=terse --terse-version=3 $*; }; ')
    # Twice nothing much: what starting fio costs when it was translated before.
    options = ['--rw=read --bs=4k --size=4k'] * 2
    options += [fio_options(a, name, full, number) for number, name in enumerate(jobs)]
    for number, o in enumerate(options):
        script += f'f {number} {o}; '
    append = f'{vm.base_append(a.tsc_khz)} quiet run="{script}echo; echo job {len(options)}:"'
    cpu = []
    with vm.Guest(command(kind, a, programs, disk, fmt, append)) as g:
        for number in range(len(options) + 1):
            if g.wait_line(f'job {number}:', a.limit) is None:
                print(f'  {kind}: did not finish: {g.text()[-400:]}', file=sys.stderr)
            cpu.append(vm.cpu_seconds(g.proc.pid))
        g.wait_end(20)
        text = g.text()
    result = {}
    for number, fields in re.findall(r'^job (\d+):\n.*?(3;fio-[^\n]*)', text, re.M | re.S):
        n, fields = int(number), fields.split(';')
        if n < 2:
            continue
        name = jobs[n - 2]
        rw, size, _ = JOBS[name]
        kib, rate, iops = map(float, fields[5:8] if 'read' in rw else fields[46:49])
        work = kib / MIB if size == '1M' else kib / 400000
        if work:
            result[name] = (rate / 1024 if size == '1M' else iops,
                            (cpu[n + 1] - cpu[n] - (cpu[2] - cpu[1])) / work)
    return result


def main():
    p = argparse.ArgumentParser(description=__doc__)
    vm.add_arguments(p)
    p.set_defaults(machine='q35')
    p.add_argument('--pairs', type=int, default=3)
    p.add_argument('--seconds', type=int, default=3, help='of a job')
    p.add_argument('--dir', default='/dev/shm', help="where the images are made: in memory, for the host's disk not "
                   'to decide')
    p.add_argument('--disk', default='', help='only disks of this name: ' + ', '.join(DISKS))
    p.add_argument('--only', default='', help='only jobs whose name has this in it')
    p.add_argument('--limit', type=float, default=180)
    p.add_argument('--gate', action='store_true')
    a = p.parse_args()
    for program in ('fio', 'qemu-img', 'qemu-io', 'mke2fs'):
        if not shutil.which(program):
            vm.die(f'needs {program} (packages fio, qemu-utils, e2fsprogs)')
    if not os.path.exists(IMAGE):
        vm.die(f'{IMAGE} is missing: ninja -C build tools/virtio.img')
    a.kernel = a.kernel or vm.kernel_path()
    a.tsc_khz = vm.host_tsc_khz()
    where = tempfile.mkdtemp(prefix='trivisor-disk-', dir=a.dir)
    good = True
    try:
        programs, fio = make_programs(where)
        print(f'{"":28}{"trivisor":>12}{"qemu":>12}{"ratio":>8}{"CPU":>10}{"qemu":>8}{"ratio":>8}\n'
              f'{"":28}{"(1M: MiB/s; 4k: requests/s)":>32}{"(seconds for a GiB; for 100000)":>26}')
        for disk_name, (fmt, full) in DISKS.items():
            jobs = [j for j in JOBS if a.only in j and (full or 'write' in j)]
            if (a.disk and disk_name != a.disk) or not jobs:
                continue
            rows = {'trivisor': [], 'qemu': []}
            disk = make_disk(where, fmt, full)
            for n in range(a.pairs):
                for kind in list(rows)[::-1 if n % 2 else 1]:
                    if not full:
                        disk = make_disk(where, fmt, full)
                    r = once(kind, a, programs, fio, disk, fmt, full, jobs)
                    print(f'  {disk_name}: {kind}: ' +
                          ', '.join(f'{j} {x:.0f} ({c:.2f} s)' for j, (x, c) in r.items()), file=sys.stderr, flush=True)
                    rows[kind].append(r)
            for job in jobs:
                both = [[r[job] for r in rows[k] if job in r] for k in ('trivisor', 'qemu')]
                if not all(both):
                    vm.die(f'{disk_name}, {job}: no result')
                mine, theirs = (statistics.median(x for x, _ in values) for values in both)
                cpu, their_cpu = (statistics.median(c for _, c in values) for values in both)
                good = good and mine >= theirs
                print(f'{disk_name + " " + job:28}{mine:12.1f}{theirs:12.1f}{mine / theirs:8.2f}'
                      f'{cpu:10.2f}{their_cpu:8.2f}{their_cpu / cpu:8.2f}', flush=True)
    finally:
        shutil.rmtree(where)
    sys.exit(1 if a.gate and not good else 0)


main()
