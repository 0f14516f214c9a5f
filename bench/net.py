#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures user-mode networking against QEMU's TCG: TCP from and to the host, the same kernel, initramfs and
program at both ends, in alternating pairs; medians. With --gate a ratio below 1 is exit status 1."""
import argparse
import os
import re
import socket
import statistics
import subprocess
import sys

import vm

IMAGE = os.path.join(vm.ROOT, 'build/bench/net.img')
PROGRAM = os.path.join(vm.ROOT, 'build/bench/net')
TESTS = ('get', 'put', 'get v6', 'put v6', 'ping')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def command(kind, a, append):
    argv = vm.command(kind, a, IMAGE, append)
    if kind == 'trivisor':
        return argv + ['-n', 'user']
    return argv + ['-netdev', 'user,id=n0', '-device', a.device + ',netdev=n0']


def once(kind, a, port, udp):
    """{test: MiB/s, or round trips a second}"""
    script = (f'udhcpc -q -n; net get 10.0.2.2 {port} 4; net get 10.0.2.2 {port} {a.mib};'
              f'net put 10.0.2.2 {port} {a.mib}; sleep 4; net get fec0::2 {port} {a.mib};'
              f'net put fec0::2 {port} {a.mib}; net ping 10.0.2.2 {udp} 2000 64; echo bench-done')
    append = f'{vm.base_append(a.tsc_khz)} quiet run="{script}"'
    with vm.Guest(command(kind, a, append)) as g:
        if g.wait_line('bench-done', a.limit) is None:
            print(f'  {kind}: did not finish: {g.text()[-400:]}', file=sys.stderr)
        text = g.text()
    speeds = re.findall(r'net (?:get|put) \d+ bytes [\d.]+ s ([\d.]+) MiB/s', text)[1:]
    trips = re.findall(r'net ping 2000 of 2000 back ([\d.]+) ms', text)
    if len(speeds) < 4 or not trips:
        return {}
    return dict(zip(TESTS, [float(s) for s in speeds] + [1000 / float(trips[0])]))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    vm.add_arguments(p)
    p.set_defaults(machine='q35')
    p.add_argument('--device', default='virtio-net-pci', help="QEMU's network device")
    p.add_argument('--pairs', type=int, default=3)
    p.add_argument('--mib', type=int, default=200, help='bytes of a transfer')
    p.add_argument('--limit', type=float, default=300)
    p.add_argument('--gate', action='store_true')
    a = p.parse_args()
    a.kernel = a.kernel or vm.kernel_path()
    a.tsc_khz = vm.host_tsc_khz()
    for path in (IMAGE, PROGRAM):
        if not os.path.exists(path):
            vm.die(f'{path} is missing: ninja -C build bench/net.img bench/net')
    rows = {'trivisor': [], 'qemu': []}
    port, udp = free_port(), free_port()
    with subprocess.Popen([PROGRAM, 'serve', str(port)], stdout=subprocess.DEVNULL) as server, \
            subprocess.Popen([PROGRAM, 'echo', str(udp)], stdout=subprocess.DEVNULL) as echo:
        for _ in range(a.pairs):
            for kind, runs in rows.items():
                r = once(kind, a, port, udp)
                print(f'  {kind}: {r}', file=sys.stderr, flush=True)
                if r:
                    runs.append(r)
        server.kill()
        echo.kill()
    if not all(rows.values()):
        vm.die('no result')
    good = True
    print(f'{"":10}{"trivisor":>12}{"qemu":>12}{"ratio":>8}   (MiB/s; ping: round trips/s; medians)')
    for t in TESTS:
        mine, theirs = (statistics.median(r[t] for r in rows[k]) for k in ('trivisor', 'qemu'))
        good = good and mine >= theirs
        print(f'{t:10}{mine:12.1f}{theirs:12.1f}{mine / theirs:8.2f}')
    sys.exit(1 if a.gate and not good else 0)


main()
