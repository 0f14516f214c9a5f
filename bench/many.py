#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Many machines at once: starts them all, waits until each has reached init and answered, measures time and
memory, and ends them. Exit status 1 when one did not get there or did not end in good order."""
import argparse
import statistics
import sys
import time

import vm


def meminfo(name):
    with open('/proc/meminfo', encoding='ascii') as f:
        for line in f:
            if line.startswith(name + ':'):
                return int(line.split()[1]) / 1024
    return 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    vm.add_arguments(p)
    p.set_defaults(memory=256)
    p.add_argument('--count', type=int, default=24)
    p.add_argument('--kind', choices=('trivisor', 'qemu'), default='trivisor')
    p.add_argument('--limit', type=float, default=300, metavar='S')
    a = p.parse_args()
    a.kernel = a.kernel or vm.kernel_path()
    a.tsc_khz = vm.host_tsc_khz()
    append = f'{vm.base_append(a.tsc_khz)} run="echo machine-$((2 + 3))-is-up; read x; echo answered-$x"'
    before, start = meminfo('MemAvailable'), time.monotonic()
    guests = []
    try:
        for _ in range(a.count):
            guests.append(vm.Guest(vm.command(a.kind, a, vm.PLAIN_IMAGE, append)))
        launched = time.monotonic() - start
        # Init prints before the command; all are polled in turn.
        ready = {}
        while len(ready) < a.count and time.monotonic() - start < a.limit:
            for i, g in enumerate(guests):
                if i in ready:
                    continue
                g.pump(0.02)
                if any('machine-5-is-up' in line for _, line in g.lines):
                    ready[i] = time.monotonic() - start
        cpu = sum(vm.cpu_seconds(g.proc.pid) for g in guests)
        overhead = [vm.overhead_kib(g.proc.pid, a.memory) / 1024 for g in guests]
        used = before - meminfo('MemAvailable')
        # Each one still listens.
        answered = 0
        for i, g in enumerate(guests):
            if i in ready:
                g.proc.stdin.write(b'%d\n' % i)
                g.proc.stdin.flush()
        for i, g in enumerate(guests):
            if i in ready and g.wait_line(f'answered-{i}', a.limit) is not None and g.wait_end(a.limit) == 0 \
                    and not g.trouble():
                answered += 1
    finally:
        for g in guests:
            g.__exit__()
    times = sorted(ready.values())
    print(f'{a.count} machines of {a.memory} MiB with {a.cpus} CPU(s), {a.kind}: {len(ready)} up, {answered} '
          'answered and powered off')
    if times:
        print(f'up after {times[0]:.1f} s the first, {statistics.median(times):.1f} s median, {times[-1]:.1f} s the '
              f'last (all started after {launched:.1f} s); {cpu:.1f} s of CPU time, '
              f'{cpu / len(times):.2f} s a machine')
        print(f'memory beyond the guests\': {sum(overhead):.0f} MiB, {statistics.median(overhead):.1f} MiB a machine; '
              f'{used:.0f} MiB less available on the host')
    sys.exit(0 if answered == a.count else 1)


main()
