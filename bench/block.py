#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the disk back ends against QEMU's: tests/blockio against `qemu-img bench`, the same requests to images
made alike, in alternating pairs. Prints a table of medians; a ratio is QEMU's time over ours."""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BLOCKIO = os.path.join(ROOT, 'build', 'tests', 'blockio', 'blockio')
KIB, MIB = 1 << 10, 1 << 20
SIZE = 1024 * MIB
SCATTER = 618 * MIB + 4 * KIB  # steps that visit the disk all over

# name: (format, what is there before, write, request bytes, step, count, requests in flight, flush every)
CASES = {
    'raw sequential read 1M': ('raw', 'full', False, MIB, MIB, 1024, 1, 0),
    'raw sequential write 1M': ('raw', 'empty', True, MIB, MIB, 512, 1, 0),
    'raw scattered read 4k': ('raw', 'full', False, 4 * KIB, SCATTER, 100000, 1, 0),
    'raw scattered write 4k': ('raw', 'full', True, 4 * KIB, SCATTER, 50000, 1, 0),
    'qcow2 sequential read 1M': ('qcow2', 'full', False, MIB, MIB, 1024, 1, 0),
    'qcow2 sequential write 1M, new': ('qcow2', 'empty', True, MIB, MIB, 512, 1, 0),
    'qcow2 sequential write 4k, new': ('qcow2', 'empty', True, 4 * KIB, 4 * KIB, 50000, 1, 0),
    'qcow2 scattered read 4k': ('qcow2', 'full', False, 4 * KIB, SCATTER, 100000, 1, 0),
    'qcow2 scattered read 4k, 4 at once': ('qcow2', 'full', False, 4 * KIB, SCATTER, 100000, 4, 0),
    'qcow2 scattered write 4k': ('qcow2', 'full', True, 4 * KIB, SCATTER, 50000, 1, 0),
    'qcow2 scattered write 4k, 4 at once': ('qcow2', 'full', True, 4 * KIB, SCATTER, 50000, 4, 0),
    'qcow2 scattered write 4k, new': ('qcow2', 'empty', True, 4 * KIB, SCATTER, 8000, 1, 0),
    'qcow2 scattered write 4k, on a base': ('qcow2', 'base', True, 4 * KIB, SCATTER, 4000, 1, 0),
    'qcow2 write 4k, new, flush every 32': ('qcow2', 'empty', True, 4 * KIB, 4 * KIB, 2000, 1, 32),
}


def call(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=600)


def prepare(where, fmt, before):
    path = os.path.join(where, f'disk.{fmt}')
    base = os.path.join(where, 'base.raw')
    if os.path.exists(path):
        os.unlink(path)
    more = ['-b', base, '-F', 'raw'] if before == 'base' else []
    call('qemu-img', 'create', '-q', '-f', fmt, *more, path, str(SIZE))
    if before == 'full':
        call('qemu-io', '-f', fmt, '-c', f'write -q -P 65 0 {SIZE}', path)
    os.sync()
    return path


def ours(path, case):
    _, _, write, size, step, count, depth, flush = case
    out = subprocess.run([BLOCKIO, path, 'bench', 'write' if write else 'read', str(size), str(step), str(count),
                          str(depth), str(flush)], check=True, capture_output=True, text=True, timeout=600).stdout
    return float(out)


def theirs(path, case):
    fmt, _, write, size, step, count, depth, flush = case
    argv = ['qemu-img', 'bench', '-f', fmt, '-t', 'writeback', '-s', str(size), '-S', str(step), '-c', str(count),
            '-d', str(depth)]
    if write:
        # Without a flush of its own at the end: one is added after the last request.
        argv += ['-w', '--flush-interval', str(flush or count)]
    out = subprocess.run(argv + [path], check=True, capture_output=True, text=True, timeout=600).stdout
    return float(re.search(r'completed in ([\d.]+) seconds', out).group(1))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--pairs', type=int, default=3)
    p.add_argument('--dir', default=tempfile.gettempdir(), help='where the images are made')
    p.add_argument('--only', default='', help='cases whose name has this in it')
    a = p.parse_args()
    where = tempfile.mkdtemp(prefix='trivisor-block-', dir=a.dir)
    try:
        base = os.path.join(where, 'base.raw')
        call('qemu-img', 'create', '-q', '-f', 'raw', base, str(SIZE))
        call('qemu-io', '-f', 'raw', '-c', f'write -q -P 66 0 {SIZE}', base)
        print(f'{"case":40} {"trivisor":>10} {"QEMU":>10} {"ratio":>6}')
        for name, case in CASES.items():
            if a.only not in name:
                continue
            times = {ours: [], theirs: []}
            for n in range(a.pairs):
                for run in (ours, theirs) if n % 2 == 0 else (theirs, ours):
                    path = prepare(where, case[0], case[1])
                    times[run].append(run(path, case))
            mine, other = (statistics.median(times[f]) for f in (ours, theirs))
            print(f'{name:40} {mine:8.3f} s {other:8.3f} s {other / mine:6.2f}', flush=True)
    finally:
        shutil.rmtree(where)


if __name__ == '__main__':
    if not shutil.which('qemu-img') or not shutil.which('qemu-io'):
        sys.exit('block.py: needs qemu-img and qemu-io (qemu-utils)')
    main()
