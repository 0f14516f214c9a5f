#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Saving and restoring a running machine, trivisor against QEMU in turns: how long it takes to save one with so much
memory in use and end it, and how long from starting the program that restores it until its guest prints again. QEMU
saves with migration into a file, as its users (libvirt's "save") do."""
import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time

import vm

TICK = 'tick'


class Qmp:
    """QEMU's monitor."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 10
        while True:
            try:
                self.sock.connect(path)
                break
            except OSError:
                if time.monotonic() > end:
                    vm.die('QEMU has no monitor')
                time.sleep(0.01)
        self.file = self.sock.makefile('r')
        self.file.readline()
        self.do('qmp_capabilities')

    def do(self, name, **arguments):
        self.sock.sendall(json.dumps({'execute': name, 'arguments': arguments}).encode() + b'\n')
        for line in self.file:
            answer = json.loads(line)
            if 'error' in answer:
                vm.die(f"QEMU: {name}: {answer['error']['desc']}")
            if 'return' in answer:
                return answer['return']
        vm.die(f'QEMU ended during {name}')
        return None


def ticks(guest):
    return sum(TICK in line for _, line in guest.lines)


def wait_ticks(guest, count, limit=120):
    end = time.monotonic() + limit
    while ticks(guest) < count:
        if time.monotonic() > end or not guest.pump(0.05):
            vm.die(f'the guest does not run: {guest.text()[-800:]}')


def ended(guest):
    if guest.wait_end(60) != 0:
        vm.die(f'{guest.argv[0]} did not end well: {guest.text()[-800:]}')


def first_tick(guest):
    seconds = guest.wait_line(TICK, 120)
    if seconds is None:
        vm.die(f'{guest.argv[0]}: not restored: {guest.text()[-800:]}')
    return seconds


def trivisor_round(a, append, file):
    with vm.Guest(vm.command('trivisor', a, vm.PLAIN_IMAGE, append) + ['--name', 'bench-save']) as g:
        wait_ticks(g, 3)
        start = time.monotonic()
        r = subprocess.run([a.trivisor, 'snapshot', 'bench-save', file, '--stop'], capture_output=True, text=True,
                           timeout=120, check=False)
        if r.returncode:
            vm.die(r.stderr.strip())
        ended(g)
        saved = time.monotonic() - start
    with vm.Guest([a.trivisor, 'restore', file, '--engine', a.engine, '--name', 'bench-save']) as g:
        restored = first_tick(g)
        wait_ticks(g, 3)
    return saved, restored


def qemu_round(a, append, file):
    monitor = file + '.qmp'
    argv = vm.command('qemu', a, vm.PLAIN_IMAGE, append) + ['-qmp', f'unix:{monitor},server=on,wait=off']
    with vm.Guest(argv) as g:
        wait_ticks(g, 3)
        qmp = Qmp(monitor)
        qmp.do('migrate-set-parameters', **{'max-bandwidth': 1 << 40})
        start = time.monotonic()
        qmp.do('stop')
        qmp.do('migrate', uri=f'exec:cat > {file}')
        while qmp.do('query-migrate').get('status') != 'completed':
            time.sleep(0.005)
        qmp.do('quit')
        ended(g)
        saved = time.monotonic() - start
    with vm.Guest(argv + ['-incoming', f'exec:cat {file}']) as g:
        # Stopped when it was saved, so is it now.
        qmp = Qmp(monitor)
        while qmp.do('query-status')['status'] == 'inmigrate':
            time.sleep(0.002)
        qmp.do('cont')
        restored = first_tick(g)
        wait_ticks(g, 3)
    return saved, restored


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    vm.add_arguments(p)
    p.set_defaults(memory=1024, machine='q35')
    p.add_argument('--used', type=int, default=64, metavar='MIB', help='random bytes in the guest (default: 64)')
    p.add_argument('--pairs', type=int, default=5)
    a = p.parse_args()
    a.kernel = a.kernel or vm.kernel_path()
    fill = f'mount -t tmpfs t /tmp; dd if=/dev/urandom of=/tmp/x bs=1M count={a.used} 2>/dev/null'
    append = (f'{vm.base_append(vm.host_tsc_khz())} quiet no_timer_check run="{fill}; '
              f'while usleep 5000; do echo {TICK}; done"')
    rounds = {'trivisor': [], 'qemu': []}
    size = {}
    with tempfile.TemporaryDirectory() as d:
        os.environ['XDG_RUNTIME_DIR'] = d
        for _ in range(a.pairs):
            for kind, one in ('trivisor', trivisor_round), ('qemu', qemu_round):
                file = os.path.join(d, kind + '.saved')
                rounds[kind].append(one(a, append, file))
                size[kind] = os.path.getsize(file) >> 20
                os.unlink(file)
    print(f'{a.memory} MiB, {a.used} of them random, {a.cpus} CPU(s), medians of {a.pairs}; ratio: of each pair')
    for i, what in enumerate(('save and end', 'restore, to output')):
        t, q = ([r[i] for r in rounds[kind]] for kind in ('trivisor', 'qemu'))
        ratio = statistics.median(x / y for x, y in zip(t, q))
        print(f'{what:20} trivisor {statistics.median(t) * 1000:7.0f} ms  qemu {statistics.median(q) * 1000:7.0f} ms'
              f'  ratio {ratio:.2f}')
    print(f"{'file':20} trivisor {size['trivisor']:7} MiB qemu {size['qemu']:7} MiB")


if __name__ == '__main__':
    main()
