#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures trivisor against QEMU's TCG: the same kernel, initramfs and command line, in alternating pairs,
medians of the pairs. Prints a table and the goals, writes JSON; with --gate a missed goal is exit status 1."""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time

import vm

MONITORS = ('native', 'qemu', 'trivisor')
# Ratios are QEMU's time over trivisor's. See docs/bench.md.
GOALS = {
    'boot, part of QEMU\'s': ('boot_ratio', '<=', 0.5),
    'user-int geomean': ('user-int', '>=', 3.0),
    'fp and simd geomean': ('user-fp+simd', '>=', 8.0),
    'kernel geomean': ('kernel', '>=', 2.5),
    'slowest test': ('worst', '>=', 0.95),
    'idle CPU, percent': ('idle', '<', 2.0),
    'memory beyond the guest\'s, MiB': ('overhead', '<', 64.0),
}


def log(text):
    print(text, file=sys.stderr, flush=True)


def parse(text):
    """{test: (class, ns, checksum)} from the bench program's output."""
    rows = {}
    for line in text.splitlines():
        f = line.split()
        if len(f) == 5 and f[0] == 'bench':
            try:
                rows[f[1]] = (f[2], float(f[3]), f[4])
            except ValueError:
                pass
    return rows


def bench_once(kind, a):
    """One run of the bench program; {} when it failed."""
    options = ['--tsc-khz', str(a.tsc_khz), '--target-ms', str(a.target_ms), '--repeats', str(a.repeats)]
    options += a.tests
    if kind == 'native':
        r = subprocess.run([vm.BENCH_PROGRAM] + options, capture_output=True, text=True, check=False,
                           timeout=600)
        return parse(r.stdout) if r.returncode == 0 else {}
    append = f'{vm.base_append(a.tsc_khz)} {a.append} run="bench {" ".join(options)}"'
    for _ in range(a.retries):
        with vm.Guest(vm.command(kind, a, vm.BENCH_IMAGE, append)) as g:
            done = g.wait_line('bench-done', a.limit)
            g.wait_end(20)
            rows = parse(g.text())
            if done is not None:
                return rows
            tail = ' | '.join(line for _, line in g.lines[-3:])
            log(f'  {kind}: did not finish after {time.monotonic() - g.start:.0f} s: {tail[-300:]}')
    return rows


def boot_once(kind, a):
    """Boot and idle: {'boot': s, 'overhead': MiB, 'idle': percent}, or {} when it failed."""
    append = f'{vm.base_append(a.tsc_khz)} {a.append} run="echo settled; sleep 3600"'
    peak = [0]

    def sample(g):
        peak[0] = max(peak[0], vm.overhead_kib(g.proc.pid, a.memory))

    for _ in range(a.retries):
        # Timed without the sampling, which costs time.
        with vm.Guest(vm.command(kind, a, vm.PLAIN_IMAGE, append)) as g:
            boot = g.wait_line(vm.INIT_MARK, 120)
            if boot is None or g.wait_line('settled', 60) is None:
                tail = ' | '.join(line for _, line in g.lines[-3:])
                log(f'  {kind}: did not boot: {tail[-300:]}')
                continue
            end = time.monotonic() + a.settle
            while time.monotonic() < end:
                g.pump(end - time.monotonic())
            before, start = vm.cpu_seconds(g.proc.pid), time.monotonic()
            while time.monotonic() < start + a.idle_seconds:
                g.pump(0.5)
            used = vm.cpu_seconds(g.proc.pid) - before
            idle = 100 * used / (time.monotonic() - start)
        break
    else:
        return {}
    with vm.Guest(vm.command(kind, a, vm.PLAIN_IMAGE, append)) as g:
        g.on_tick = sample
        g.wait_line('settled', 120)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            g.pump(0.1)
    return {'boot': boot, 'idle': idle, 'overhead': peak[0] / 1024}


def median(values):
    return statistics.median(values) if values else None


def geomean(values):
    return math.exp(sum(math.log(v) for v in values) / len(values)) if values else None


def show(value, form='{:.2f}'):
    return '-' if value is None else form.format(value)


def nanoseconds(v):
    if v is None:
        return '-'
    for unit, scale in (('ns', 1), ('us', 1e3), ('ms', 1e6)):
        if v < 1000 * scale:
            return f'{v / scale:.4g} {unit}'
    return f'{v / 1e9:.4g} s'


def report(a, runs, boots):
    """Prints the tables; returns the results as one object."""
    names = list(dict.fromkeys(n for k in MONITORS for run in runs[k] for n in run))
    classes = {n: run[n][0] for k in MONITORS for run in runs[k] for n in run}
    med = {k: {n: median([run[n][1] for run in runs[k] if n in run]) for n in names} for k in MONITORS}
    wrong = sorted({n for n in names
                    if len({run[n][2] for k in MONITORS for run in runs[k] if n in run}) > 1})
    ratios = {n: med['qemu'][n] / med['trivisor'][n] for n in names
              if med['qemu'][n] and med['trivisor'][n]}

    print(f'{"test":<14}{"class":<11}{"native":>11}{"qemu":>11}{"trivisor":>11}'
          f'{"qemu/triv":>11}{"triv/native":>13}')
    for n in names:
        slow = med['trivisor'][n] / med['native'][n] if med['trivisor'][n] and med['native'][n] else None
        print(f'{n:<14}{classes[n]:<11}' + ''.join(f'{nanoseconds(med[k][n]):>11}' for k in MONITORS)
              + f'{show(ratios.get(n)):>11}{show(slow):>13}' + ('  WRONG RESULT' if n in wrong else ''))
    groups = {'user-int': ('user-int',), 'user-fp': ('user-fp',), 'user-simd': ('user-simd',),
              'user-fp+simd': ('user-fp', 'user-simd'), 'user': ('user-int', 'user-fp', 'user-simd'),
              'kernel': ('kernel',)}
    summary = {g: geomean([ratios[n] for n in ratios if classes[n] in members])
               for g, members in groups.items()}
    print()
    for g, value in summary.items():
        print(f'geomean {g:<14}{show(value):>8}')

    # Median of each pair's ratio would need both sides of a pair; medians of each side do without.
    b = {k: {f: median([x[f] for x in boots[k] if f in x]) for f in ('boot', 'idle', 'overhead')}
         for k in ('qemu', 'trivisor')}
    print()
    for f, title in (('boot', 'boot to init, s'), ('idle', 'idle CPU, %'),
                     ('overhead', 'peak memory beyond the guest\'s, MiB')):
        print(f'{title:<38}qemu {show(b["qemu"][f]):>8}   trivisor {show(b["trivisor"][f]):>8}')
    if b['qemu']['boot'] and b['trivisor']['boot']:
        summary['boot_ratio'] = b['trivisor']['boot'] / b['qemu']['boot']
    summary['worst'] = min(ratios.values()) if ratios else None
    summary['idle'] = b['trivisor']['idle']
    summary['overhead'] = b['trivisor']['overhead']

    print()
    missed = len(wrong)
    goals = {}
    for title, (key, op, limit) in GOALS.items():
        value = summary.get(key)
        met = value is not None and {'<=': value <= limit, '>=': value >= limit, '<': value < limit}[op]
        goals[title] = {'value': value, 'goal': f'{op} {limit}', 'met': met}
        missed += not met
        print(f'goal: {title:<34}{show(value):>8}  {op} {limit:<6}{"met" if met else "MISSED"}')
    if summary['worst'] is not None:
        print(f'slowest test: {min(ratios, key=ratios.get)}')
    return {'tests': {n: {'class': classes[n], 'ratio': ratios.get(n), 'wrong': n in wrong,
                          **{k: med[k][n] for k in MONITORS}} for n in names},
            'boot': b, 'summary': summary, 'goals': goals, 'pairs': a.pairs, 'cpus': a.cpus,
            'machine': a.machine, 'tsc_khz': a.tsc_khz, 'raw': {'runs': runs, 'boots': boots}}, missed


def main():
    p = argparse.ArgumentParser(description=__doc__)
    vm.add_arguments(p)
    p.add_argument('--pairs', type=int, default=3)
    p.add_argument('--monitors', default=','.join(MONITORS), help='which of native,qemu,trivisor to run')
    p.add_argument('--append', default='', metavar='TEXT', help='more for the command lines of both kernels')
    p.add_argument('--target-ms', type=int, default=40, help='length of one repetition')
    p.add_argument('--repeats', type=int, default=5, help='repetitions a test; the fastest counts')
    p.add_argument('--limit', type=float, default=300, metavar='S', help='time limit of one guest')
    p.add_argument('--retries', type=int, default=2, help='attempts at a guest that does not finish')
    p.add_argument('--settle', type=float, default=3, metavar='S', help='wait before measuring idleness')
    p.add_argument('--idle-seconds', type=float, default=6, metavar='S')
    p.add_argument('--no-boot', action='store_true', help='only the bench program')
    p.add_argument('--no-tests', action='store_true', help='only boot, idle and memory')
    p.add_argument('--json', default=os.path.join(vm.ROOT, 'build/bench.json'), metavar='PATH')
    p.add_argument('--gate', action='store_true', help='a missed goal is exit status 1')
    p.add_argument('tests', nargs='*', help='tests or classes (default: all)')
    a = p.parse_args()
    wanted = a.monitors.split(',')
    if a.pairs < 1 or a.retries < 1 or not set(wanted) <= set(MONITORS):
        p.error('--pairs and --retries are at least 1; --monitors is of native,qemu,trivisor')
    for path in (vm.PLAIN_IMAGE, vm.BENCH_IMAGE, vm.BENCH_PROGRAM):
        if not os.path.exists(path):
            vm.die(f'{os.path.relpath(path, vm.ROOT)} is missing: run make images')
    a.kernel = a.kernel or vm.kernel_path()
    a.tsc_khz = vm.host_tsc_khz()

    runs = {k: [] for k in MONITORS}
    boots = {k: [] for k in MONITORS}
    for pair in range(a.pairs):
        # Alternating, and in alternating order, so that a drift of the host hits both alike.
        order = [k for k in (MONITORS if pair % 2 else MONITORS[::-1]) if k in wanted]
        for kind in order:
            log(f'pair {pair + 1} of {a.pairs}: {kind}')
            if not a.no_tests:
                runs[kind].append(bench_once(kind, a))
            if not a.no_boot and kind != 'native':
                boots[kind].append(boot_once(kind, a))
    result, missed = report(a, runs, boots)
    os.makedirs(os.path.dirname(os.path.abspath(a.json)), exist_ok=True)
    with open(a.json, 'w', encoding='utf-8') as f:
        json.dump(result, f, indent=1)
    if a.gate and missed:
        sys.exit(1)


main()
