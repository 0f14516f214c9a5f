# SPDX-License-Identifier: Apache-2.0
"""A stock kernel under gdb: symbols by tools/kernel-symbols, code and data from the guest."""
import os
import subprocess

import pytest

from conftest import APPEND, ROOT, trouble
from test_gdb import machine  # noqa: F401  (a fixture)

BOOT = '''
    # The first C function: identity-mapped boot code has just been left.
    run('hbreak *start_kernel')
    go()
    assert last == 'hbreak' and value('$pc') == value('(unsigned long)&start_kernel'), last
    assert value('$cr0') >> 31 and value('$efer') & 0x400
    run('delete')
'''

EARLY = '''
    run('watch *(char *)&early_boot_irqs_disabled')
    go()
    assert last == 'watch' and here() == 'start_kernel' and value('*(char *)&early_boot_irqs_disabled') == 1, last
    run('delete')
    run('break *setup_arch')
    go()
    assert last == 'break' and 'start_kernel' in run('bt 2'), last
    run('delete')
    for i in range(100):
        run('stepi')
    assert 'CPU#1 [waiting' in run('info threads')
    run('kill')
'''

CALLS = '''
    # A system call from its first instruction to user code and back.
    run('break *do_sys_openat2')
    go()
    assert last == 'break' and value('$cs') & 3 == 0, last
    assert 'do_sys_openat2' in run('bt 2')
    cpus = run('info threads')
    assert 'CPU#0' in cpus and 'CPU#1' in cpus, cpus
    run('delete')
    run('break *entry_SYSCALL_64 if $rax == 257')  # openat: one that comes back
    go()
    assert last == 'break' and value('$rax') == 257, last
    run('delete')
    def gs():
        return [value(r) & (1 << 64) - 1 for r in ('$gs_base', '$k_gs_base')]
    before = gs()
    back = value('$rcx')
    assert value('$cs') & 3 == 0 and back < 1 << 47 and before[1] >> 63
    for i in range(4):
        run('stepi')
        if gs() != before:
            break
    assert gs() == before[::-1], (before, gs())
    # Interrupts do not get in between: all steps stay on the way into the call.
    for i in range(20):
        run('stepi')
        assert value('$cs') & 3 == 0
    assert value('$rsp') >> 63
    run('break *%d' % back)
    go()
    assert last == 'break' and value('$pc') == back and value('$cs') & 3 == 3, last
    run('delete')
    run('stepi')
    assert value('$cs') & 3 == 3

'''

CLOCK = '''
    # A variable that the kernel changes by itself.
    run('watch *(unsigned long *)&jiffies')
    seen = []
    for i in range(3):
        go()
        assert last == 'watch', last
        seen.append(value('*(unsigned long *)&jiffies'))
    assert seen == sorted(set(seen)) and seen[2] - seen[0] < 10, seen
    run('delete')

'''

SCHEDULER = '''
    # Both processors on and off, one alone.
    for i in range(3):
        run('break *schedule')
        go()
        assert last == 'break', last
        run('delete')
    run('set scheduler-locking on')
    for i in range(20):
        run('stepi')
    run('set scheduler-locking off')
    run('monitor regs all')
    go()
    assert last == 'exited', last
'''


@pytest.fixture(scope='session')
def symbols(kernel, program):
    r = subprocess.run([os.path.join(ROOT, 'tools', 'kernel-symbols'), '--trivisor', program, kernel],
                       capture_output=True, text=True, timeout=240, check=False)
    assert r.returncode == 0, r.stderr
    return r.stdout.strip()


def test_kernel(machine, kernel, initramfs, symbols):  # noqa: F811
    m = machine('-i', initramfs, '-a', f'{APPEND} nokaslr run="uname -a; echo guest is well; sleep 1"', cpus=2,
                kernel=kernel)
    m.gdb(BOOT + CALLS + CLOCK + SCHEDULER, symbols=symbols, timeout=120)
    assert m.wait() == 0, m.messages()
    console = m.console()
    assert 'guest is well' in console
    # It did not notice: no lockup, no stall, no unstable clock.
    assert not trouble(console), trouble(console)
    assert 'nstable' not in console and 'stall' not in console


def test_kernel_interpreted(machine, kernel, initramfs, symbols):  # noqa: F811
    """As far as the interpreter comes in reasonable time."""
    m = machine('-i', initramfs, '-a', f'{APPEND} nokaslr', '--bt-mode', 'interp', cpus=2, kernel=kernel)
    m.gdb(BOOT + EARLY, symbols=symbols, timeout=120)
    assert m.wait() == 137
