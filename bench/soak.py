#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Endurance: boots a stock kernel many times in a row, then keeps guests busy with the stress program.

Every boot must reach init and a shell, run a command, power off with status 0 and leave a kernel log free of
trouble; every stress run must end with no errors. The log of a failed run is kept. Exit status 1 on any
failure."""
import argparse
import os
import statistics
import sys
import time

import vm


def keep(a, name, g):
    os.makedirs(a.logs, exist_ok=True)
    path = os.path.join(a.logs, name + '.log')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(' '.join(g.argv) + '\n')
        f.writelines(f'{when:8.3f} {line}\n' for when, line in g.lines)
    return os.path.relpath(path)


def verdict(g, done, status):
    if done is None:
        return 'not finished in time' if status is None else f'ended early, status {status}'
    if status != 0:
        return f'exit status {status}'
    trouble = g.trouble()
    return f'kernel log: {trouble[0]}' if trouble else None


def one_boot(a, cpus, n):
    a.cpus = cpus
    append = f'{vm.base_append(a.tsc_khz)} run="test $(nproc) = {cpus} && echo soak-alive"'
    with vm.Guest(vm.command(a.kind, a, vm.PLAIN_IMAGE, append)) as g:
        init = g.wait_line(vm.INIT_MARK, a.limit)
        done = g.wait_line('soak-alive', a.limit) if init is not None else None
        status = g.wait_end(a.limit if done is not None else 1)
        bad = verdict(g, done, status)
        if bad:
            print(f'boot {n} with {cpus} CPU(s): {bad}; log: {keep(a, f"boot-{n}-{cpus}cpu", g)}', flush=True)
        return init, bad


def boots(a):
    failed = 0
    for cpus in a.cpu_list:
        times = []
        for n in range(1, a.boots + 1):
            init, bad = one_boot(a, cpus, n)
            failed += bool(bad)
            if init is not None:
                times.append(init)
        if times:
            print(f'{a.boots} boots with {cpus} CPU(s): to init {min(times):.2f} s fastest, '
                  f'{statistics.median(times):.2f} s median, {max(times):.2f} s slowest', flush=True)
    return failed


def stress(a):
    seconds = int(a.stress_minutes * 60)
    failed = 0
    for cpus in a.cpu_list:
        a.cpus = cpus
        append = f'{vm.base_append(a.tsc_khz)} run="stress {seconds} {cpus}"'
        with vm.Guest(vm.command(a.kind, a, vm.BENCH_IMAGE, append)) as g:
            done = g.wait_line('stress-done errors=0', seconds * 1.5 + 120)
            status = g.wait_end(60 if done is not None else 1)
            bad = verdict(g, done, status)
            for _, line in g.lines:
                if line.startswith('stress: ') and 'left' not in line:
                    print(f'  {line}', flush=True)
            if bad:
                failed += 1
                print(f'stress with {cpus} CPU(s): {bad}; log: {keep(a, f"stress-{cpus}cpu", g)}', flush=True)
            else:
                print(f'stress with {cpus} CPU(s): {seconds} s without error', flush=True)
    return failed


def main():
    p = argparse.ArgumentParser(description=__doc__)
    vm.add_arguments(p)
    p.set_defaults(cpus=None)
    p.add_argument('--kind', choices=('trivisor', 'qemu'), default='trivisor')
    p.add_argument('--boots', type=int, default=100, help='boots for each number of CPUs')
    p.add_argument('--stress-minutes', type=float, default=1, metavar='M', help='0: none')
    p.add_argument('--limit', type=float, default=60, metavar='S', help='time limit of one boot')
    p.add_argument('--logs', default=os.path.join(vm.ROOT, 'build/soak'), metavar='DIR')
    a = p.parse_args()
    a.cpu_list = [a.cpus] if a.cpus else [1, 4]
    a.kernel = a.kernel or vm.kernel_path()
    a.tsc_khz = vm.host_tsc_khz()
    start = time.monotonic()
    failed = boots(a) if a.boots > 0 else 0
    if a.stress_minutes > 0:
        failed += stress(a)
    print(f'soak: {failed} failed ({time.monotonic() - start:.0f} s)')
    sys.exit(1 if failed else 0)


main()
