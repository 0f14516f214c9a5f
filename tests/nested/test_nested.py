# SPDX-License-Identifier: Apache-2.0
"""Engine kvm on a machine that has no /dev/kvm to offer: QEMU's TCG emulates an AMD CPU with SVM and nested
paging, Debian's kernel on it has KVM, and in its initramfs is trivisor.

Two machines (outer.py) run all steps, one with two CPUs and, for changes of engine, one with one (docs/decisions/0016);
the tests look at what came out. Stock kernels get noxsave: this TCG does not intercept XSETBV. The guest `debug` is no step: this TCG's
VMRUN loads DR7 and arms no breakpoint. -smap: with it this TCG takes the stack of an IRET in ring 3 for a supervisor's.
tsc=reliable: on a busy host the outer kernel finds its TSC unstable, and KVM moves the guests' then."""
import os
import re
import subprocess
import time

import pytest

import outer

ROOT = outer.ROOT
LIMIT = int(os.environ.get('NESTED_LIMIT', 840))  # seconds for all machines
# For a soak: NESTED_STEPS=change NESTED_CHANGES=200 NESTED_LIMIT=3600
STEPS = os.environ.get('NESTED_STEPS', '').split()
MACHINES = (2, 1)  # by their CPUs
CHANGES = int(os.environ.get('NESTED_CHANGES', 6))
GUESTS = [('stub', 1), ('stub', 2), ('strings', 1), ('blocks', 1), ('timer', 1), ('ipi', 1), ('ipi', 2),
          ('poweroff', 1), ('exceptions', 1), ('paging', 1), ('prot32', 1), ('v86', 1), ('realmode', 1), ('syscall', 1),
          ('msr', 1), ('fpu', 1), ('io', 1), ('smc', 1), ('pcboard', 1), ('smp', 2)]
# On a level without XSAVE; elsewhere a smaller MAXPHYADDR than the host's would show, which KVM cannot hide.
NO_XSAVE = {'fpu', 'syscall'}
# What KVM does otherwise than the SDM has it: its local APIC records no illegal vectors, and takes any value for an EOI
# by MSR; a page table where there is no memory it takes for the access itself.
DEVIATES = {'esr__illegal_vector', 'lapic__x2apic_mode', 'hole__tables_outside_memory'}
# What this TCG does, besides what guests expect of it (they are told by -a tcg): an exception while KVM injects one that
# it had intercepted is not the second of two.
DEVIATES |= {'df__contributory_twice'}
LINUX = 'trivisor run --engine kvm -m 256 -k /bin/vmlinuz -a "console=ttyS0 panic=-1 noxsave $a run=\\"$r\\"" $o'
DISK = ('dd if=/dev/urandom of=/tmp/x bs=64k count=32 2>/dev/null; dd if=/tmp/x of=/dev/vda bs=64k conv=fsync '
        '2>/dev/null; sha256sum < /tmp/x; dd if=/dev/vda of=/dev/null bs=4k count=1000 iflag=direct')


TICKS = 'i=0; while [ $i -lt 6 ]; do sleep 1; i=$((i+1)); echo tick $i; done'
PAUSE = """
a=quiet; r='TICKS'; o='--name p -c 2 -i /bin/initramfs.img'
export XDG_RUNTIME_DIR=/tmp
(LINUX) >/tmp/out & machine=$!
until grep -q '^tick 2' /tmp/out; do kill -0 $machine || break; sleep 1; done
trivisor pause p && grep -c ^tick /tmp/out
sleep 8
grep -c ^tick /tmp/out
trivisor resume p
wait $machine; status=$?
cat /tmp/out
exit $status""".replace('TICKS', TICKS).replace('LINUX', LINUX)

PLUGGED = ('/sbin/modprobe virtio_pci; /sbin/modprobe virtio_blk; for i in 1 2; do echo ready $i; '
           'while [ ! -e /dev/vda ]; do usleep 100000; done; dd if=/dev/urandom of=/tmp/x bs=64k count=16 2>/dev/null; '
           'dd if=/tmp/x of=/dev/vda bs=64k conv=fsync 2>/dev/null; dd if=/dev/vda of=/dev/null bs=1k count=500 iflag=direct; '
           # The disk goes before its ejection has come to an end.
           'sha256sum < /tmp/x; echo done $i; while [ -e /dev/vda ]; do usleep 100000; done; done; sleep 5')
PLUG = """
a=quiet; r='PLUGGED'; o='--name q -q -c 2 -i /bin/virtio.img --stats'
export XDG_RUNTIME_DIR=/tmp
dd if=/dev/zero of=/tmp/plugged bs=64k count=16 2>/dev/null
(LINUX) >/tmp/out & machine=$!
for i in 1 2; do
    until grep -q "^ready $i" /tmp/out; do kill -0 $machine || break; sleep 1; done
    trivisor plug q -d /tmp/plugged
    until grep -q "^done $i" /tmp/out; do kill -0 $machine || break; sleep 1; done
    trivisor unplug q disk0; echo "unplugged $?"
    sha256sum < /tmp/plugged
done
wait $machine; status=$?
cat /tmp/out
exit $status""".replace('PLUGGED', PLUGGED).replace('LINUX', LINUX)


def steps(cpus_outside):
    """Those of the machine with so many CPUs, for outer.script()."""
    if cpus_outside == 1:
        s = {'change': (f'/bin/change.sh {CHANGES}', 60 + 20 * CHANGES)}
        return {name: step for name, step in s.items() if not STEPS or name in STEPS}
    s = {'doctor': ('trivisor doctor', 40)}
    # The second one finds what the first one has measured.
    s['auto'] = ('mkdir -p /run; for i in 1 2; do trivisor run --engine auto --check -k /bin/guest-stub; done; '
                 'cat /run/trivisor/engine-speeds', 60)
    # A level without XSAVE, see above.
    s['cpu'] = ('trivisor run --engine kvm --cpu x86-64-v2 -m 64 -k /bin/guest-cpuid', 60)
    for name, cpus in GUESTS:
        cpu = '--cpu x86-64-v2' if name in NO_XSAVE else ''
        s[f'{name}-{cpus}'] = (f'trivisor run --engine kvm {cpu} -m 64 -c {cpus} -k /bin/guest-{name} -a tcg', 60)
    for cpus in 1, 2:
        s[f'linux-{cpus}'] = (f"a=quiet r='grep -c ^processor /proc/cpuinfo' o='-c {cpus} -i /bin/initramfs.img'; " + LINUX,
                              90)
    s['disk'] = ('dd if=/dev/zero of=/tmp/disk bs=64k count=64 2>/dev/null; '
                 f"a=quiet r='{DISK}' o='-i /bin/virtio.img --stats -d /tmp/disk'; {LINUX}; "
                 'dd if=/tmp/disk bs=64k count=32 2>/dev/null | sha256sum', 120)
    s['dirty'] = ('ld-linux-x86-64.so.2 --library-path /bin /bin/dirty', 30)
    s['start'] = ('TMPDIR=/tmp sh /bin/start.sh --engine kvm --program trivisor --runs 2', 60)
    # Of two kinds (slow.c); what 'auto' has found is forgotten before.
    s['slow'] = ('mkdir -p /run; forget="rm -f /run/trivisor/engine-speeds"; export LD_PRELOAD=/bin/slow.so; $forget; '
                 'trivisor doctor; $forget; trivisor run --engine auto -m 64 -k /bin/guest-stub; $forget; '
                 'SLOW_KVM=hang trivisor run --engine auto -m 64 -k /bin/guest-stub', 90)
    s['pause'] = (PAUSE, 120)
    s['plug'] = (PLUG, 180)
    return {name: step for name, step in s.items() if not STEPS or name in STEPS}


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """{step: (exit status, output)}"""
    tmp = tmp_path_factory.mktemp('nested')
    r = subprocess.run([os.path.join(ROOT, 'tools', 'fetch-kernel.sh')], capture_output=True, text=True, timeout=300,
                       check=False)
    assert r.returncode == 0, f'no guest kernel: {r.stderr}'
    kernel = r.stdout.strip()
    until = time.monotonic() + LIMIT
    todo = {cpus: steps(cpus) for cpus in MACHINES}
    initrd = outer.image(tmp, kernel, sorted({'cpuid'} | {g for g, _ in GUESTS}), todo)
    found = {}
    for cpus in MACHINES:
        found.update(outer.run(kernel, initrd, cpus, todo[cpus], until))
    return found


def of(results, step):
    assert step in results, f'no end of it, see the warnings; there is one of {", ".join(results)}'
    return results[step]


def test_doctor(results):
    status, out = of(results, 'doctor')
    assert status == 0, out
    assert re.search(r'kvm +works', out) and 'million instructions' in out, out
    assert '--engine auto takes' in out


def test_auto_measures_once_and_says_why(results):
    status, out = of(results, 'auto')
    assert status == 0, out
    lines = re.findall(r'^trivisor: (engine: (?:kvm|bt) \(.*\))$', out, re.M)
    assert len(lines) == 2, out
    assert lines[0] == lines[1] or 'doctor' in lines[1], out
    assert re.search(r'measured \d+\.\dx (bt|kvm)\)|(bt|kvm): a small guest', lines[0]), out
    assert re.search(r'^kvm \d+\nbt \d+\nend$', out, re.M), out


def test_a_cpu_of_a_level(results):
    status, out = of(results, 'cpu')
    assert status == 1 and re.search(r'^guest: 5 passed, 0 failed, 1 skipped', out, re.M), out


@pytest.mark.parametrize('name,cpus', GUESTS)
def test_guest(results, name, cpus):
    status, out = of(results, f'{name}-{cpus}')
    m = re.search(r'^guest: (\d+) passed, (\d+) failed', out, re.M)
    assert m, f'no summary, status {status}:\n{out[-3000:]}'
    failed = set(re.findall(r'^(?:fail|error) (\S+)', out, re.M))
    assert int(m[1]) and int(m[2]) == len(failed) and failed <= DEVIATES, out
    # isa-debug-exit: (value << 1) | 1
    assert status == (0 if name == 'poweroff' else 3 if failed else 1)


@pytest.mark.parametrize('cpus', [1, 2])
def test_a_stock_kernel_boots(results, cpus):
    status, out = of(results, f'linux-{cpus}')
    assert status == 0, out
    assert re.search(rf'trivisor-guest: init\n(.*\n)*{cpus}\ntrivisor-guest: exit 0', out), out
    assert not re.search(r'\bBUG\b|WARNING:|\bOops\b|lockup|Call Trace|Kernel panic', out), out


def test_what_the_guest_writes_is_on_the_disk(results):
    status, out = of(results, 'disk')
    assert status == 0, out
    sums = re.findall(r'^([0-9a-f]{64}) ', out, re.M)
    assert len(sums) == 2 and sums[0] == sums[1], out
    # 1,270 for all else: the disk's notifications, one a read about, are no exits.
    count = {name: int(n) for name, n in re.findall(r'^(\w+) +(\d+)$', out, re.M)}
    assert '1000+0 records in' in out and count.get('mmio', 9999) < 1700, out
    # Nor are its interrupts calls, and a route is set once a vector: two of the disk's, and the I/O APIC's pins.
    assert count.get('msi_by_irqfd', 0) >= 1000 and 2 <= count.get('gsi_routings', 0) <= 10, out


def test_memory_beyond_the_guests(results):
    status, out = of(results, 'start')
    assert status == 0, out
    sizes = re.findall(r'(\d+) process\(es\), (\d+) KiB of RSS', out)
    assert [int(n) for n, _ in sizes] == [1, 2] and 1024 < int(sizes[0][1]) < int(sizes[1][1]) < 8192, out


def test_a_kvm_that_only_emulates_is_not_taken(results):
    status, out = of(results, 'slow')
    assert re.search(r'slow: it emulates.*\n +measured: less than a million', out), out
    # --engine auto, of one that is slow and of one that hangs
    assert out.count('engine: bt (kvm: a small guest did not end within 1000 ms)') == 2, out
    assert out.count('guest: 5 passed, 0 failed') == 2 and status == 1, out


def test_a_pause_stops_the_timers_of_both_cpus(results):
    status, out = of(results, 'pause')
    assert status == 0, out
    counts = re.findall(r'^\d+$', out, re.M)
    assert len(counts) == 2 and counts[0] == counts[1], out
    assert re.search(r'^tick 6$', out, re.M), out
    assert not re.search(r'\bBUG\b|WARNING:|\bOops\b|lockup|Call Trace|stall', out), out


def test_the_log_of_dirty_pages(results):
    status, out = of(results, 'dirty')
    assert status == 0, out
    assert out == 'begin:\nguest: 5 9\nagain:\nboth: 5 9 20 21\n', out


def test_a_disk_is_plugged_and_unplugged(results):
    status, out = of(results, 'plug')
    assert status == 0, out
    assert out.count('disk0\n') == 2 and out.count('unplugged 0\n') == 2, out
    sums = re.findall(r'^([0-9a-f]{64}) ', out, re.M)
    assert len(sums) == 4 and sums[:2] == sums[2:], out
    # Its doorbells are at its new places: 1,500 for all else, one a read without them.
    m = re.search(r'^mmio +(\d+)', out, re.M)
    assert out.count('500+0 records in') == 2 and m and int(m[1]) < 2000, out
    assert not re.search(r'\bBUG\b|WARNING:|\bOops\b|lockup|Call Trace|Kernel panic', out), out


def test_a_machine_changes_its_engine(results):
    """Under kvm, bt, kvm...: the guest's program finds nothing wrong, and no line of it is lost or comes twice."""
    status, out = of(results, 'change')
    assert status == 0 and f'@changed {CHANGES} times' in out, out[-3000:]
    assert 'CARRY FAILED' not in out, out[-3000:]
    assert not re.search(r'\bBUG\b|WARNING:|\bOops\b|lockup|Call Trace|Kernel panic', out), out[-3000:]
    numbers = [int(n) for n in re.findall(r'^carry (\d+)$', out, re.M)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 3 * CHANGES
