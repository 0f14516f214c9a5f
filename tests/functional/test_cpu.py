# SPDX-License-Identifier: Apache-2.0
"""--cpu: what CPU the guest sees."""
import os
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CPUID = os.path.join(ROOT, 'build', 'guests', 'guest-cpuid')


def guest_cpuid(program, cpu):
    return subprocess.run([program, 'run', '--engine', 'bt', '--cpu', cpu, '-m', '16', '-k', CPUID],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize('cpu', ['host', 'common', 'x86-64-v2', 'x86-64-v3', 'x86-64-v4', 'host,-avx512f', 'host,-avx2',
                                 'host,-avx', 'host,-xsave', 'common,-sse4_1,-aes', 'x86-64-v3,-bmi2'])
def test_it_hangs_together(program, cpu):
    r = guest_cpuid(program, cpu)
    if r.returncode == 125 and cpu.startswith('x86-64'):
        assert re.search(r'^trivisor: --cpu \S+: engine bt on this host cannot give \w+', r.stderr), r.stderr
        pytest.skip(r.stderr)
    assert re.search(r'^guest: [56] passed, 0 failed', r.stdout, re.M), r.stdout + r.stderr
    assert r.returncode == 1  # isa-debug-exit: (0 << 1) | 1


@pytest.mark.parametrize('cpu,why', [
    ('host,+monitor', 'cannot give monitor'),
    ('x86-64-v2,+la57,+hle', 'cannot give hle, la57'),
    ('host,-avx512q', "no CPU feature 'avx512q'"),
    ('host,-sse2', 'cannot be without sse2'),
    ('x86-64-v2,+avx512vl', 'avx512vl needs xsave, which this CPU has not: add +xsave'),
    ('x86-64-v5', 'it is host, common,'),
    ('host,avx', 'it is host, common,'),
    ('host,', 'it is host, common,'),
    ('', 'it is host, common,'),
    ('host,-' + 'a' * 80, 'too long'),
])
def test_refusals_are_one_line(program, cpu, why):
    r = guest_cpuid(program, cpu)
    assert r.returncode == 125 and why in r.stderr, r.stderr
    assert len(r.stderr.splitlines()) == 1


def flags(batch, cpu):
    r = batch('cat /proc/cpuinfo', args=['--cpu', cpu])
    assert r.returncode == 0, r.stderr
    m = re.search(r'^flags\s*: (.*)$', r.stdout.replace('\r', ''), re.M)
    assert m, r.stdout
    return set(m[1].split()), r.stdout


def test_linux_sees_a_level(batch):
    seen, out = flags(batch, 'x86-64-v2')
    assert 'trivisor x86-64-v2' in out
    assert {'cx16', 'lahf_lm', 'popcnt', 'pni', 'sse4_1', 'sse4_2', 'ssse3', 'nx', 'x2apic'} <= seen
    assert not seen & {'avx', 'xsave', 'aes', 'bmi1', 'bmi2', 'fma', 'movbe', 'abm', 'tsc_deadline_timer', 'sha_ni'}
    assert re.search(r'address sizes\s*: 39 bits physical, 48 bits virtual', out)


def test_linux_without_a_feature(batch):
    seen, _ = flags(batch, 'host,-avx')
    assert not [f for f in seen if f.startswith('avx') or f in ('fma', 'f16c', 'vaes', 'vpclmulqdq')]
    assert 'sse4_2' in seen


def test_common_has_what_can_move(batch):
    host, _ = flags(batch, 'host')
    common, _ = flags(batch, 'common')
    assert 'tsc_deadline_timer' in host and 'tsc_deadline_timer' not in common
    assert 'sse4_2' in common
