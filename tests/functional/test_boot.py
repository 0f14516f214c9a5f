# SPDX-License-Identifier: Apache-2.0
"""A stock Debian kernel boots to a shell, does what it is told, and powers off."""
import base64
import hashlib
import os
import re
import subprocess
import time

import pytest

from conftest import Console, trouble


@pytest.mark.parametrize('cpus', [1, 2, 4])
def test_shell_and_poweroff(boot, cpus):
    guest = boot(cpus=cpus).shell()
    assert guest.run('nproc') == str(cpus)
    assert guest.run('echo $((6 * 7))') == '42'
    assert re.fullmatch(r'6\.\d+\.\d+-\d+-cloud-amd64', guest.run('uname -r'))
    assert guest.run('cat /proc/1/comm') == 'init'
    memory = int(guest.run("awk '/MemTotal/ {print $2}' /proc/meminfo"))
    assert 180 << 10 < memory < 256 << 10
    log = guest.run('dmesg')
    assert not trouble(log)
    assert guest.poweroff() == 0
    assert not trouble(guest.text())


def test_every_cpu_works(boot):
    guest = boot(cpus=4).shell()
    for cpu in range(4):
        assert guest.run(f'taskset {1 << cpu:x} awk "BEGIN {{print 3 * 4}}"').endswith('12')
    counts = guest.run("awk '/^LOC:/ {print $2, $3, $4, $5}' /proc/interrupts").split()
    assert len(counts) == 4 and all(int(n) > 0 for n in counts)
    assert guest.poweroff() == 0


def test_computes_right(boot):
    guest = boot().shell()
    numbers = ''.join(f'{n}\n' for n in range(1, 30001)).encode()
    for tool in ('md5', 'sha1', 'sha256', 'sha512'):
        assert guest.run(f'seq 1 30000 | {tool}sum').split()[0] == hashlib.new(tool, numbers).hexdigest()
    assert guest.run('seq 1 30000 | gzip | gunzip | md5sum').split()[0] == hashlib.md5(numbers).hexdigest()
    assert guest.run('seq 1 30000 | sort -r | sort -n | md5sum').split()[0] == \
        hashlib.md5(numbers).hexdigest()
    assert guest.run("awk 'BEGIN {print 1 / 3, 355 / 113, 1e300 * 1e10}'") == '0.333333 3.14159 inf'
    assert guest.poweroff() == 0


def test_many_processes(boot):
    guest = boot(cpus=2).shell()
    assert guest.run('i=0; while [ $i -lt 200 ]; do /bin/busybox true || echo bad; i=$((i + 1)); done') == ''
    assert guest.run('for i in 1 2 3 4 5 6 7 8; do (seq 1 5000 | md5sum) & done; wait') \
        .count(hashlib.md5(''.join(f'{n}\n' for n in range(1, 5001)).encode()).hexdigest()) == 8
    assert not trouble(guest.run('dmesg'))
    assert guest.poweroff() == 0


def test_time_passes(boot):
    guest = boot().shell()
    assert abs(int(guest.run('date +%s')) - time.time()) < 5
    start = time.monotonic()
    before = float(guest.run('cut -d" " -f1 /proc/uptime'))
    guest.run('sleep 3')
    after = float(guest.run('cut -d" " -f1 /proc/uptime'))
    wall = time.monotonic() - start
    assert 2.9 < after - before < wall + 0.2
    assert 2.9 < wall < 8
    assert guest.poweroff() == 0


def test_clock_source_is_not_a_fallback(boot):
    guest = boot().shell()
    guest.run('sleep 2')  # the kernel settles on one a while after boot
    source = guest.run('cat /sys/devices/system/clocksource/clocksource0/current_clocksource')
    assert source in ('kvm-clock', 'tsc', 'tsc-early')
    assert guest.poweroff() == 0


def test_reboot_ends_the_program(boot):
    guest = boot().shell()
    guest.child.send('reboot\r')
    guest.wait_end()
    assert 'Restarting system' in guest.text()


def test_panic_ends_the_program(boot):
    guest = boot().shell()
    guest.child.send('echo c > /proc/sysrq-trigger\r')
    guest.expect('Kernel panic')
    guest.wait_end()


@pytest.mark.parametrize('memory', ['128M', '1G', '3584M'])
def test_memory_sizes(boot, memory):
    mib = int(memory[:-1]) * (1024 if memory[-1] == 'G' else 1)
    guest = boot(memory=memory).shell()
    total = int(guest.run("awk '/MemTotal/ {print $2}' /proc/meminfo")) / 1024
    assert mib * 0.7 < total < mib
    assert guest.poweroff() == 0


def test_memory_holds_what_was_written(boot):
    guest = boot(memory='512M').shell()
    guest.run('mount -o remount,size=80% /tmp')
    # /dev/zero where it must be zero, noise where it must be itself again.
    zeros = guest.run('dd if=/dev/zero bs=1M count=40 2>/dev/null | tee /tmp/zeros | md5sum').split()[0]
    assert zeros == hashlib.md5(bytes(40 << 20)).hexdigest()
    noise = guest.run('dd if=/dev/urandom bs=1M count=60 2>/dev/null | tee /tmp/noise | md5sum').split()[0]
    guest.run('seq 1 20000 > /tmp/between')
    assert guest.run('md5sum < /tmp/noise').split()[0] == noise
    assert guest.run('md5sum < /tmp/zeros').split()[0] == zeros
    assert guest.poweroff() == 0


def test_kernel_and_program_command_line(boot):
    guest = boot(append='trivisor_test="two words" loglevel=4').shell()
    assert 'trivisor_test="two words" loglevel=4' in guest.run('cat /proc/cmdline')
    assert guest.poweroff() == 0


def test_acpi_tables(boot, tmp_path):
    """The live tables disassemble, and the DSDT compiles again, without a complaint of iasl's."""
    guest = boot(cpus=2).shell()
    names = guest.run('ls -p /sys/firmware/acpi/tables | grep -v /').split()
    assert {'APIC', 'DSDT', 'FACP'} <= set(names)
    for name in names:
        text = guest.run(f'base64 /sys/firmware/acpi/tables/{name}')
        data = base64.b64decode(text)
        if name != 'FACS':  # the one table without a checksum
            assert sum(data) & 0xff == 0, f'{name}: checksum'
        (tmp_path / f'{name}.dat').write_bytes(data)
        r = subprocess.run(['iasl', '-d', f'{name}.dat'], cwd=tmp_path, capture_output=True, text=True,
                           timeout=60, check=False)
        assert r.returncode == 0, r.stdout + r.stderr
        assert os.path.getsize(tmp_path / f'{name}.dsl') > 0
        dsl = (tmp_path / f'{name}.dsl').read_text(errors='replace')
        assert 'Invalid' not in dsl, f'{name}: {dsl[-500:]}'
    r = subprocess.run(['iasl', '-p', 'again', 'DSDT.dsl'], cwd=tmp_path, capture_output=True, text=True,
                       timeout=60, check=False)
    assert r.returncode == 0 and ' 0 Errors' in r.stdout + r.stderr, r.stdout + r.stderr
    assert not re.search(r'ACPI.*(Error|BIOS Bug|Exception)', guest.run('dmesg'))
    assert guest.poweroff() == 0


def test_same_results_as_the_host(batch, bench_image):
    """The checksums of the benchmark's tests, integer to AVX2, are those the host computes."""
    root = os.path.dirname(bench_image)
    classes = ['user-int', 'user-fp', 'user-simd']
    options = ['--target-ms', '1', '--repeats', '1'] + classes
    host = subprocess.run([os.path.join(root, 'bench')] + options, capture_output=True, text=True,
                          timeout=120, check=True).stdout
    guest = batch('bench ' + ' '.join(options), initrd=bench_image)

    def sums(text):
        return {f[1]: f[4] for f in (line.split() for line in text.splitlines())
                if len(f) == 5 and f[0] == 'bench'}

    assert guest.returncode == 0 and 'bench-done' in guest.stdout, guest.stdout[-2000:] + guest.stderr
    assert len(sums(host)) > 20
    assert sums(guest.stdout) == sums(host)


def test_without_a_command_line_there_is_a_console(program, kernel, initramfs):
    guest = Console([program, 'run', '-k', kernel, '-i', initramfs, '-m', '256M']).shell()
    assert guest.run('cat /proc/cmdline') == 'console=ttyS0'
    assert guest.poweroff() == 0


@pytest.mark.parametrize('cpus', [1, 4])
def test_stress(batch, bench_image, cpus):
    r = batch(f'stress 8 {cpus}', cpus=cpus, initrd=bench_image)
    assert 'stress-done errors=0' in r.stdout, r.stdout[-3000:] + r.stderr
    assert not trouble(r.stdout)
    assert r.returncode == 0
