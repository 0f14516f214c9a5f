# SPDX-License-Identifier: Apache-2.0
"""The engine's memory under a guest that makes it forget and learn all the time."""
import os
import re
import subprocess

from conftest import ROOT


def resident(pid):
    """MiB."""
    with open(f'/proc/{pid}/statm', encoding='ascii') as f:
        return int(f.read().split()[1]) / 256


def test_copies_of_one_page_without_end(program):
    guest = os.path.join(ROOT, 'build', 'guests', 'guest-aliases')
    at = []
    with subprocess.Popen([program, 'run', '--engine', 'bt', '-k', guest, '-m', '64M'], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as p:
        try:
            for line in p.stdout:
                if line.startswith('many '):
                    at.append(resident(p.pid))
        finally:
            p.kill()
    assert len(at) == 4
    assert at[3] - at[0] < 8, at


def test_spaces_of_an_isolated_kernel_are_kept(batch):
    """With page-table isolation each system call is two changes of address space, by PCIDs that keep what is known."""
    r = batch('dd if=/dev/zero bs=512 count=5000 2>/dev/null | cat | wc -c', append='pti=on', args=['--stats'])
    assert '2560000' in r.stdout, r.stdout
    count = {name: int(n) for name, n in re.findall(r'^(\w+) +(\d+)', r.stderr, re.M)}
    assert count['cr3_writes'] > 20000 and count['window_flushes'] < count['cr3_writes'] / 2, r.stderr
