# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the program, a stock kernel, the guest images, and a guest with a shell on its serial console.

TRIVISOR names another program to test (default: build/trivisor), TRIVISOR_KERNEL another guest kernel."""
import os
import re
import subprocess
import sys

import pexpect
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# What a healthy guest kernel never prints.
TROUBLE = re.compile(r'\bBUG\b|WARNING:|\bOops\b|lockup|Call Trace|unchecked MSR|Kernel panic')
APPEND = 'console=ttyS0 panic=-1'
PROMPT = 'trivisor:[^\r\n]*# '
LIMIT = 60  # seconds for any one thing a guest does


def trouble(text):
    return [line for line in text.splitlines() if TROUBLE.search(line) and 'ommand line' not in line]


@pytest.fixture(scope='session', autouse=True)
def runtime_dir(tmp_path_factory):
    """The machines of the tests are not among the user's."""
    before = os.environ.get('XDG_RUNTIME_DIR')
    path = tmp_path_factory.mktemp('run')
    os.environ['XDG_RUNTIME_DIR'] = str(path)
    yield path / 'trivisor'
    if before is None:
        del os.environ['XDG_RUNTIME_DIR']
    else:
        os.environ['XDG_RUNTIME_DIR'] = before


def running(program):
    """{name: process id} of the machines that run."""
    r = subprocess.run([program, 'console'], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=20, check=True)
    return {line.split()[0]: int(line.split()[1]) for line in r.stdout.splitlines()}


@pytest.fixture(scope='session')
def program():
    path = os.environ.get('TRIVISOR', os.path.join(ROOT, 'build', 'trivisor'))
    assert os.access(path, os.X_OK), f'{path} is not built'
    return path


@pytest.fixture(scope='session')
def kernel():
    r = subprocess.run([os.path.join(ROOT, 'tools', 'fetch-kernel.sh')], capture_output=True, text=True,
                       timeout=300, check=False)
    assert r.returncode == 0, f'no guest kernel: {r.stderr}'
    return r.stdout.strip()


@pytest.fixture(scope='session')
def initramfs():
    path = os.path.join(ROOT, 'build', 'tools', 'initramfs.img')
    assert os.path.exists(path), f'{path} is missing: ninja -C build images'
    return path


@pytest.fixture(scope='session')
def bench_image():
    path = os.path.join(ROOT, 'build', 'bench', 'bench.img')
    assert os.path.exists(path), f'{path} is missing: ninja -C build images'
    return path


@pytest.fixture(scope='session')
def virtio_image(kernel):
    """An initramfs with the drivers of virtio devices, loaded at boot for what is there."""
    r = subprocess.run(['ninja', '-C', os.path.join(ROOT, 'build'), 'tools/virtio.img'], capture_output=True,
                       text=True, timeout=300, check=False)
    assert r.returncode == 0, f'no guest image: {r.stdout[-2000:]}{r.stderr}'
    return os.path.join(ROOT, 'build', 'tools', 'virtio.img')


class Console:
    """A guest on a terminal of its own."""

    def __init__(self, argv):
        self.argv = argv
        self.child = pexpect.spawn(argv[0], argv[1:], timeout=LIMIT, encoding='utf-8',
                                   codec_errors='replace', dimensions=(50, 200))
        self.log = []
        self.child.logfile_read = self

    def write(self, text):
        self.log.append(text)

    def flush(self):
        pass

    def text(self):
        return ''.join(self.log)

    def expect(self, what, timeout=LIMIT):
        try:
            return self.child.expect(what, timeout=timeout)
        except (pexpect.TIMEOUT, pexpect.EOF) as e:
            pytest.fail(f'waited for {what!r}, {type(e).__name__}; the end of the console:\n'
                        + self.text()[-2000:])

    def shell(self):
        """Waits for the first prompt and keeps kernel messages off the console from then on."""
        self.expect(PROMPT)
        self.child.send('dmesg -n 1\r')
        self.expect(PROMPT)
        return self

    def run(self, text, timeout=LIMIT):
        """Runs a command in the guest's shell, which must succeed; its output."""
        # The marks are written so that the echo of the typed line does not hold them.
        self.child.send(f'echo "<"BEGIN">"; {text}; echo "<"END $?">"\r')
        self.expect('<BEGIN>\r+\n', timeout)
        self.expect(r'<END (\d+)>', timeout)
        output = self.child.before.replace('\r', '').rstrip('\n')
        status = int(self.child.match.group(1))
        self.expect(PROMPT, timeout)
        assert status == 0, f'{text}: status {status}: {output}'
        return output

    def wait_end(self, timeout=LIMIT):
        """Waits for the program's end; its exit status (negative: killed by a signal)."""
        self.expect(pexpect.EOF, timeout)
        self.child.close()
        return self.child.exitstatus if self.child.exitstatus is not None else -self.child.signalstatus

    def poweroff(self):
        self.child.send('poweroff\r')
        return self.wait_end()


@pytest.fixture
def boot(program, kernel, initramfs):
    """boot(cpus=1, append='', args=()) starts a guest; it is gone when the test is."""
    consoles = []

    def start(cpus=1, memory='256M', append='', args=(), initrd=None):
        console = Console([program, 'run', '--engine', 'bt', '-k', kernel, '-i', initrd or initramfs,
                           '-m', memory, '-c', str(cpus), '-a', f'{APPEND} {append}'.strip(), *args])
        consoles.append(console)
        return console

    yield start
    for console in consoles:
        console.child.close(force=True)


@pytest.fixture
def batch(program, kernel, initramfs):
    """batch('command') runs it in a guest without a terminal; the finished process."""

    def go(command, cpus=1, memory='256M', initrd=None, args=(), timeout=LIMIT * 2, append='', **more):
        argv = [program, 'run', '--engine', 'bt', '-k', kernel, '-i', initrd or initramfs, '-m', memory,
                '-c', str(cpus), '-a', f'{APPEND} {append} run="{command}"', *args]
        more.setdefault('stdin', subprocess.DEVNULL)
        return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              errors='replace', timeout=timeout, check=False, **more)

    return go
