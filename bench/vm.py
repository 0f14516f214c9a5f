# SPDX-License-Identifier: Apache-2.0
"""Starts guests under trivisor or QEMU and watches them: serial lines with the time they came, CPU time,
memory. Shared by run.py and soak.py."""
import os
import re
import select
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLAIN_IMAGE = os.path.join(ROOT, 'build/tools/initramfs.img')
BENCH_IMAGE = os.path.join(ROOT, 'build/bench/bench.img')
BENCH_PROGRAM = os.path.join(ROOT, 'build/bench/bench')
INIT_MARK = 'trivisor-guest: init'

# What a healthy guest kernel never prints.
TROUBLE = re.compile(r'\bBUG\b|WARNING:|\bOops\b|lockup|Call Trace|unchecked MSR|Kernel panic|'
                     r'rcu.*stall|stuck for|general protection|segfault')


def die(text):
    sys.exit(f'{os.path.basename(sys.argv[0])}: {text}')


def kernel_path():
    r = subprocess.run([os.path.join(ROOT, 'tools/fetch-kernel.sh')], stdout=subprocess.PIPE, text=True,
                       check=False)
    if r.returncode:
        die('no guest kernel (see the message above)')
    return r.stdout.strip()


def command(kind, a, initrd, append):
    """The command line of one monitor; a has kernel, memory, cpus, trivisor, engine, machine."""
    if kind == 'trivisor':
        return [a.trivisor, 'run', '--engine', a.engine, '-m', f'{a.memory}M', '-c', str(a.cpus),
                '-k', a.kernel, '-i', initrd, '-a', append]
    # -erms,-fsrm: with them Linux uses rep movsb/stosb, which TCG runs byte by byte; hiding them is what a
    # user who cares for speed does, so it is the fair opponent. tcg,thread=multi is QEMU's default here.
    return ['qemu-system-x86_64', '-accel', 'tcg', '-cpu', 'max,-erms,-fsrm', '-M', a.machine,
            '-m', str(a.memory), '-smp', str(a.cpus), '-nographic', '-no-reboot',
            '-kernel', a.kernel, '-initrd', initrd, '-append', append]


def process_tree(pid):
    pids = [pid]
    for p in pids:
        try:
            for task in os.listdir(f'/proc/{p}/task'):
                with open(f'/proc/{p}/task/{task}/children', encoding='ascii') as f:
                    pids += [int(c) for c in f.read().split()]
        except OSError:
            pass
    return pids


def cpu_seconds(pid):
    """User and system time of the process and its children."""
    total = 0
    for p in process_tree(pid):
        try:
            with open(f'/proc/{p}/stat', encoding='ascii', errors='replace') as f:
                fields = f.read().rsplit(')', 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except (OSError, IndexError, ValueError):
            pass
    return total / os.sysconf('SC_CLK_TCK')


def overhead_kib(pid, memory_mib):
    """Resident memory of a monitor beyond its guest's RAM, in KiB.

    The sum over /proc/PID/smaps of what is resident (RssAnon + RssFile + RssShmem by mapping) but for the
    mappings of guest RAM itself: trivisor's, named "trivisor-ram", QEMU's anonymous mapping of just the guest's
    size. A shared-memory page that the process maps twice (code caches: once writable, once executable) is
    counted once, by its proportional share.
    """
    total = 0
    for p in process_tree(pid):
        guest = shmem = False
        try:
            with open(f'/proc/{p}/smaps', encoding='ascii', errors='replace') as f:
                for line in f:
                    m = re.match(r'([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)', line)
                    if m:
                        size = int(m[2], 16) - int(m[1], 16)
                        name = m[3].strip()
                        shmem = 'memfd:' in name or '/dev/shm' in name
                        guest = 'trivisor-ram' in name or (name == '' and size == memory_mib << 20)
                    elif not guest and line.startswith('Pss:' if shmem else 'Rss:'):
                        total += int(line.split()[1])
        except OSError:
            pass
    return total


class Guest:
    """A running guest; use as a context manager: leaving it kills what is left."""

    def __init__(self, argv, log=None):
        self.argv = argv
        self.start = time.monotonic()
        try:
            self.proc = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, start_new_session=True)
        except OSError as e:
            die(f'{argv[0]}: {e.strerror}')
        os.set_blocking(self.proc.stdout.fileno(), False)
        self.buffer = b''
        self.lines = []  # (seconds since start, text)
        self.ended = False
        self.log = log
        self.on_tick = None
        self.last_tick = 0

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.proc.poll() is None:
            os.killpg(self.proc.pid, signal.SIGTERM)
            try:
                self.proc.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.proc.pid, signal.SIGKILL)
                self.proc.wait()
        self.proc.stdin.close()
        self.proc.stdout.close()

    def pump(self, seconds):
        """Waits up to that long for output; False when the guest has ended."""
        if self.ended:
            return False
        now = time.monotonic()
        if self.on_tick and now - self.last_tick > 0.1:
            self.last_tick = now
            self.on_tick(self)
            seconds = min(seconds, 0.1)
        if not select.select([self.proc.stdout], [], [], max(0, seconds))[0]:
            return True
        data = self.proc.stdout.read(65536)
        now = time.monotonic() - self.start
        if not data:
            self.ended = True
            if self.buffer:
                self.lines.append((now, self.buffer.decode(errors='replace')))
            self.proc.wait()
            return False
        *whole, self.buffer = (self.buffer + data).split(b'\n')
        for line in whole:
            self.lines.append((now, line.decode(errors='replace').rstrip('\r')))
        return True

    def wait_line(self, text, limit):
        """Seconds from the start to the first line that contains text, or None."""
        seen = 0
        end = time.monotonic() + limit
        while True:
            for when, line in self.lines[seen:]:
                if text in line:
                    return when
            seen = len(self.lines)
            left = end - time.monotonic()
            if left <= 0 or not self.pump(min(left, 0.2)):
                for when, line in self.lines[seen:]:
                    if text in line:
                        return when
                return None

    def wait_text(self, text, limit):
        """The same for text that need not end its line: a prompt."""
        end = time.monotonic() + limit
        while True:
            if text in self.buffer.decode(errors='replace'):
                return time.monotonic() - self.start
            for when, line in self.lines:
                if text in line:
                    return when
            left = end - time.monotonic()
            if left <= 0 or not self.pump(min(left, 0.2)):
                return None

    def wait_end(self, limit):
        """The exit status, or None when it does not end in time."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if not self.pump(min(0.2, end - time.monotonic())):
                return self.proc.returncode
        return None

    def text(self):
        return '\n'.join(line for _, line in self.lines)

    def trouble(self):
        """Lines no healthy kernel prints."""
        return [line for _, line in self.lines if TROUBLE.search(line) and 'ommand line' not in line]


def host_tsc_khz():
    """The host's TSC frequency as the bench program measures it."""
    r = subprocess.run([BENCH_PROGRAM, '--target-ms', '1', '--repeats', '1', 'none'], capture_output=True,
                       text=True, check=False, timeout=60)
    m = re.search(r'tsc-khz (\d+)', r.stdout)
    if not m:
        die('the bench program does not run on this host')
    return int(m[1])


def add_arguments(p):
    p.add_argument('--trivisor', default=os.path.join(ROOT, 'build/trivisor'), metavar='PATH')
    p.add_argument('--engine', default='bt')
    p.add_argument('--machine', default='microvm', help='QEMU machine type')
    p.add_argument('--memory', type=int, default=512, metavar='MIB')
    p.add_argument('--kernel', metavar='PATH', help="default: Debian's cloud kernel, fetched")
    p.add_argument('--cpus', type=int, default=1)


def base_append(tsc_khz):
    # tsc_early_khz: neither guest then depends on calibrating against an emulated PIT, which fails under
    # QEMU now and then when the host is busy.
    return f'console=ttyS0 panic=-1 tsc_early_khz={tsc_khz}'
