# SPDX-License-Identifier: Apache-2.0
"""Machines that are saved and restored, in the middle of what they do (docs/snapshot.md)."""
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from conftest import ROOT, running, trouble


@pytest.fixture(autouse=True)
def nothing_left(program):
    yield
    for pid in running(program).values():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope='session')
def carry_image(kernel):
    """An initramfs with a program that checks itself (tests/carry)."""
    r = subprocess.run(['ninja', '-C', os.path.join(ROOT, 'build'), 'tests/carry/carry.img'], capture_output=True,
                       text=True, timeout=300, check=False)
    assert r.returncode == 0, f'no guest image: {r.stdout[-2000:]}{r.stderr}'
    return os.path.join(ROOT, 'build', 'tests', 'carry', 'carry.img')


class Machine:
    """One machine over all its lives: what its guest printed in all of them is one text."""

    def __init__(self, program, tmp_path, name='box'):
        self.program, self.name, self.tmp = program, name, tmp_path
        self.out, self.lives, self.process = '', 0, None

    def spawn(self, *args):
        self.lives += 1
        path = self.tmp / f'{self.name}.{self.lives}.out'
        with open(path, 'wb') as out:
            self.process = subprocess.Popen([self.program, *args, '--name', self.name], stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=subprocess.PIPE)
        # Opened again: the machine writes where its own offset is, not where somebody has read.
        self.file = open(path, encoding='utf-8', errors='replace', newline='')

    def run(self, *args):
        self.spawn('run', '--engine', 'bt', '-q', *args)
        return self

    def restore(self, path, *args):
        self.spawn('restore', str(path), '-q', *args)
        return self

    def text(self):
        if self.file.closed:
            return self.out
        self.file.seek(0)
        return self.out + self.file.read()

    def wait(self, what, limit=60):
        end = time.monotonic() + limit
        while True:
            m = re.search(what, self.text())
            if m:
                return m
            if self.process.poll() is not None:
                time.sleep(0.1)
                m = re.search(what, self.text())
                assert m, f'it ended: {self.text()[-2000:]} {self.process.stderr.read()}'
                return m
            assert time.monotonic() < end, f'waited for {what}: {self.text()[-2000:]}'
            time.sleep(0.02)

    def count(self):
        lines = re.findall(r'carry (\d+)\r?\n', self.text())
        return int(lines[-1]) if lines else 0

    def go_on(self, n=3, limit=60):
        """Waits until the guest has printed n lines more."""
        self.wait(f'carry {self.count() + n}\r?\n', limit)

    def save(self, path, *args):
        r = subprocess.run([self.program, 'snapshot', self.name, str(path), *args], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=120, check=False)
        if '--stop' in args and r.returncode == 0:
            assert self.process.wait(20) == 0, self.process.stderr.read()
            self.end_life()
        return r

    def end_life(self):
        self.out = self.text()
        self.file.close()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.end_life()

    def check(self):
        """Nothing was lost or came twice, and the guest found nothing wrong."""
        text = self.text()
        assert 'CARRY FAILED' not in text, text[-2000:]
        assert not trouble(text)
        numbers = [int(n) for n in re.findall(r'carry (\d+)\r?\n', text)]
        assert numbers == list(range(1, len(numbers) + 1)), numbers
        return len(numbers)


@pytest.fixture
def machine(program, kernel, carry_image, tmp_path):
    """machine(*args) runs carry on /dev/vda, or on nothing without disk=."""
    machines = []

    def make(*args, cpus=1, disk=None, memory='256M', name='box', seconds=3600, append='', then=''):
        m = Machine(program, tmp_path, name)
        machines.append(m)
        what = f'carry {"/dev/vda" if disk else "-"} {seconds}'
        return m.run('-k', kernel, '-i', carry_image, '-m', memory, '-c', str(cpus),
                     '-a', f'console=ttyS0 quiet panic=-1 {append} run="{what}; {then} poweroff"',
                     *(['-d', str(disk)] if disk else []), *args)

    yield make
    for m in machines:
        if m.process.poll() is None:
            m.process.kill()
            m.process.wait()


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / 'disk.img'
    with open(path, 'wb') as f:
        f.truncate(16 << 20)
    return path


@pytest.mark.parametrize('cpus', [1, 2])
def test_goes_on_where_it_was(machine, tmp_path, disk, cpus):
    m = machine(cpus=cpus, disk=disk, seconds=6)
    m.wait('carry 3\r?\n')
    for i in range(3):
        path = tmp_path / f'box.{i}.vm'
        r = m.save(path, '--stop')
        assert r.returncode == 0, r.stderr
        assert re.match(r"trivisor: saved 'box': \d+ MiB; it stood still for \d+ ms and has ended\n$", r.stderr)
        assert os.stat(path).st_mode & 0o777 == 0o600
        m.restore(path).go_on()
    m.wait('CARRY DONE')
    assert m.process.wait(30) == 0
    m.check()


def test_packed_and_qcow2(machine, tmp_path):
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', tmp_path / 'd.qcow2', '64M'], check=True)
    m = machine(cpus=2, disk=tmp_path / 'd.qcow2')
    m.wait('carry 3\r?\n')
    assert m.save(tmp_path / 'plain.vm').returncode == 0
    m.go_on(1)
    assert m.save(tmp_path / 'box.vm', '--stop', '--compress').returncode == 0
    assert os.path.getsize(tmp_path / 'box.vm') < os.path.getsize(tmp_path / 'plain.vm') / 2
    m.restore(tmp_path / 'box.vm').go_on()
    m.process.terminate()
    m.process.wait(20)
    m.check()
    subprocess.run(['qemu-img', 'check', '-q', tmp_path / 'd.qcow2'], check=True)


def test_a_machine_that_goes_on_leaves_its_disk_alone(machine, tmp_path, disk, program):
    m = machine(disk=disk)
    m.wait('carry 3\r?\n')
    assert m.save(tmp_path / 'box.vm').returncode == 0
    m.go_on()
    m.kill()
    for how in [], ['--detach']:  # in the background, too, it is told before the command ends
        r = subprocess.run([program, 'restore', tmp_path / 'box.vm'] + how, stdin=subprocess.DEVNULL, capture_output=True,
                           text=True, timeout=30, check=False)
        assert r.returncode == 125 and not r.stdout
        assert re.fullmatch(r'trivisor: .*box\.vm: disk .*disk\.img was written to after the machine was saved; '
                            r'given with --disk it is taken as it is, for better or worse\n', r.stderr)
    shutil.copy(disk, tmp_path / 'second.img')
    r = subprocess.run([program, 'restore', tmp_path / 'box.vm', '-d', disk, '-d', tmp_path / 'second.img'],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert r.returncode == 125
    assert r.stderr.endswith('box.vm: the machine was saved with 1 disk(s), and 2 are given\n'), r.stderr


def test_clones_with_disks_of_their_own(machine, tmp_path, disk, program):
    m = machine(disk=disk)
    m.wait('carry 5\r?\n')
    assert m.save(tmp_path / 'box.vm', '--stop').returncode == 0
    clones = []
    for i in range(3):
        shutil.copy(disk, tmp_path / f'disk{i}.img')
        c = Machine(program, tmp_path, f'clone{i}')
        c.out = m.out
        c.restore(tmp_path / 'box.vm', '-d', str(tmp_path / f'disk{i}.img'))
        clones.append(c)
    for c in clones:
        c.go_on(5)
        c.kill()
        c.check()


def test_from_another_directory_and_in_the_background(machine, tmp_path, program, disk, monkeypatch):
    monkeypatch.chdir(tmp_path)
    m = machine(disk=disk.name)
    m.wait('carry 2\r?\n')
    assert m.save('box.vm', '--stop').returncode == 0
    monkeypatch.chdir('/')
    r = subprocess.run([program, 'restore', tmp_path / 'box.vm', '--detach', '--name', 'far'],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert (r.returncode, r.stdout) == (0, 'far\n'), r.stderr
    assert 'far' in running(program)


def test_bad_files_get_one_line(machine, tmp_path, program, disk):
    m = machine(disk=disk)
    m.wait('carry 1\r?\n')
    good = tmp_path / 'box.vm'
    assert m.save(good, '--stop').returncode == 0
    size = os.path.getsize(good)

    def refused(*args, path):
        r = subprocess.run([program, 'restore', str(path), *args], stdin=subprocess.DEVNULL, capture_output=True,
                           text=True, timeout=30, check=False)
        assert r.returncode == 125, r.stderr
        assert r.stderr.count('\n') == 1 and r.stderr.startswith('trivisor: '), r.stderr
        return r.stderr

    def changed(at, data=None, length=None):
        bad = tmp_path / 'bad.vm'
        shutil.copy(good, bad)
        with open(bad, 'r+b') as f:
            f.seek(at)
            old = f.read(1)
            f.seek(at)
            f.write(data or bytes([old[0] ^ 0x10]))
            if length is not None:
                f.truncate(length)
        return bad

    assert 'no saved machine' in refused(path=disk)
    assert 'No such file' in refused(path=tmp_path / 'none')
    for at in (20, 30, 4096, 5000, size // 2, size - 5000, size - 1):
        assert 'damaged' in refused(path=changed(at))
    for length in (10, 4095, 4096, size // 2, size - 1):
        refused(path=changed(100, b'\0', length))
    assert 'what it was saved with' in refused('-m', '1G', path=good)
    assert 'started already' in refused('-k', 'vmlinuz', path=good)
    with open(tmp_path / 'other.img', 'wb') as f:
        f.truncate(1 << 20)
    assert 'saved with 1 disk(s), and 2 are given' in refused('-d', str(disk), '-d', str(tmp_path / 'other.img'), path=good)
    assert 'had no device virtio-net 0' in refused('-n', 'user', path=good)
    assert 'give it with the options it had' in refused('-d', f'{disk},ro', path=good)
    assert 'it had 16777216' in refused('-d', str(tmp_path / 'other.img'), path=good)
    # Nothing of all that has touched it.
    m.restore(good).go_on()
    m.check()


def test_a_file_that_becomes_shorter(machine, tmp_path):
    """Memory is read from it as the guest comes to it (docs/snapshot.md)."""
    m = machine(cpus=2)
    m.wait('carry 1\r?\n')
    assert m.save(tmp_path / 'box.vm', '--stop').returncode == 0
    m.restore(tmp_path / 'box.vm').go_on(1)
    os.truncate(tmp_path / 'box.vm', 4096)
    err = m.process.communicate(timeout=30)[1].decode()
    assert m.process.returncode == 125, err
    assert err == ('trivisor: the file of the saved machine has become shorter or cannot be read: the guest\'s '
                   'memory is lost\n')


def test_what_cannot_be_saved_says_so(machine, tmp_path, program, kernel, carry_image):
    m = machine()
    m.wait('carry 1\r?\n')
    (tmp_path / 'mine').write_text('precious')
    r = m.save(tmp_path / 'mine')
    assert r.returncode == 125 and 'is left alone' in r.stderr
    assert (tmp_path / 'mine').read_text() == 'precious'
    r = m.save(tmp_path / 'no' / 'such')
    assert r.returncode == 125 and 'No such file' in r.stderr
    r = subprocess.run([program, 'snapshot', 'nobody', tmp_path / 'x'], capture_output=True, text=True, check=False)
    assert r.returncode == 125 and "no machine 'nobody' runs" in r.stderr
    assert not (tmp_path / 'x').exists()
    m.go_on()
    m.kill()
    m = machine('-v', f'{tmp_path}:/mnt', name='sharing', append='mount')
    m.wait('carry 1\r?\n')
    m.kill()


def test_full_disk_of_the_host(machine, tmp_path):
    """The machine goes on as if nothing had been asked."""
    small = tmp_path / 'small'
    small.mkdir()
    if os.getuid() or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4M', 'none', small], check=False).returncode:
        pytest.skip('needs the right to mount')
    try:
        m = machine()
        m.wait('carry 1\r?\n')
        r = m.save(small / 'box.vm', '--stop')
        assert r.returncode == 125 and 'No space left' in r.stderr, r.stderr
        assert not os.listdir(small)
        m.go_on()
        m.check()
    finally:
        subprocess.run(['umount', small], check=True)


def test_requests_without_a_file(machine, runtime_dir):
    m = machine()
    m.wait('carry 1\r?\n')
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.connect(str(runtime_dir / 'box.control'))
        f = s.makefile('rwb')

        def ask(text, fds=()):
            socket.send_fds(s, [text + b'\n'], list(fds))
            return f.readline()

        assert b'descriptor' in ask(b'{"command":"snapshot"}')
        assert b'stop is true or false' in ask(b'{"command":"snapshot","stop":1}')
        r, w = os.pipe()
        assert b'no regular file' in ask(b'{"command":"snapshot"}', [w])
        os.close(w)
        assert os.read(r, 1) == b''  # nobody has kept it
        os.close(r)
        with open('/dev/null', 'wb') as null:
            before = len(os.listdir(f'/proc/{m.process.pid}/fd'))
            for _ in range(5):
                assert b'"ok":true' in ask(b'{"command":"status"}', [null.fileno()] * 7)
            assert len(os.listdir(f'/proc/{m.process.pid}/fd')) == before
    m.go_on()
    m.check()


def test_the_guest_is_told_that_it_is_another_one(machine, tmp_path):
    m = machine(seconds=2, then='cat /sys/firmware/acpi/interrupts/gpe05;')
    m.wait('carry 2\r?\n')
    assert m.save(tmp_path / 'box.vm', '--stop').returncode == 0
    m.restore(tmp_path / 'box.vm').wait(r'\s1\s+EN\s+enabled')
    assert m.process.wait(30) == 0
    m.check()


class Asked:
    """trivisor snapshot, whose machine does nothing yet."""

    def __init__(self, m, path, *args):
        self.m, self.path = m, path
        m.process.send_signal(signal.SIGSTOP)
        self.client = subprocess.Popen([m.program, 'snapshot', m.name, str(path), *args], stdin=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 20
        while not self.has_opened():
            assert time.monotonic() < end and self.client.poll() is None
            time.sleep(0.01)

    def has_opened(self):
        """Its file has a name if the machine is to end, and none otherwise."""
        fds = f'/proc/{self.client.pid}/fd'
        return any(os.path.realpath(f'{fds}/{fd}').startswith(f'{self.path.parent}/') for fd in os.listdir(fds))

    def unfinished(self):
        return [f for f in os.listdir(self.path.parent) if f.startswith(self.path.name + '.')]

    def go_on(self):
        self.m.process.send_signal(signal.SIGCONT)

    def end(self):
        err = self.client.communicate(timeout=60)[1]
        return self.client.returncode, err


@pytest.mark.parametrize('args', [[], ['--stop']])
def test_a_client_that_is_interrupted(machine, tmp_path, args):
    """The machine goes on: nobody would know of what it was saved to."""
    m = machine()
    m.wait('carry 1\r?\n')
    asked = Asked(m, tmp_path / 'box.vm', *args)
    asked.client.send_signal(signal.SIGINT)
    assert asked.end()[0] == -signal.SIGINT
    asked.go_on()
    m.go_on()
    assert not (tmp_path / 'box.vm').exists()
    assert args or not asked.unfinished()
    m.check()


def test_a_client_that_is_killed_leaves_nothing(machine, tmp_path):
    m = machine()
    m.wait('carry 1\r?\n')
    asked = Asked(m, tmp_path / 'box.vm')
    asked.client.send_signal(signal.SIGKILL)
    assert asked.end()[0] == -signal.SIGKILL
    asked.go_on()
    m.go_on()
    assert not list(tmp_path.glob('box.vm*'))
    path = tmp_path / 'box.vm'
    for _ in range(2):  # there is none, and there is one
        assert m.save(path).returncode == 0
        assert [p.name for p in tmp_path.glob('box.vm*')] == ['box.vm']
    nowhere = tmp_path / 'no' / 'x'
    r = m.save(nowhere)
    assert r.returncode == 125 and r.stderr == f'trivisor: {nowhere}: No such file or directory\n'
    m.check()


def test_a_port_that_is_taken(machine, tmp_path, program):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    m = machine('-p', f'127.0.0.1:{port}:22')
    m.wait('carry 1\r?\n')
    path = tmp_path / 'box.vm'
    assert m.save(path).returncode == 0
    err = refused(program, path)
    assert f"port {port}" in err and str(path) in err and 'anew with --publish' in err
    assert 'virtio-net 0' in refused(program, path, '-n', 'none')


def test_a_name_that_cannot_be_given(machine, tmp_path):
    """The only copy of a machine that has ended is not thrown away."""
    m = machine()
    m.wait('carry 1\r?\n')
    asked = Asked(m, tmp_path / 'box.vm', '--stop')
    (tmp_path / 'box.vm').mkdir()
    asked.go_on()
    code, err = asked.end()
    [name] = asked.unfinished()
    assert code == 125 and re.search(rf"'box' has ended and is saved in .*{re.escape(name)}\n$", err), err
    assert m.process.wait(20) == 0
    m.end_life()
    m.restore(tmp_path / name).go_on()
    m.check()


def test_files_that_cannot_be_written_to(machine, tmp_path, runtime_dir):
    m = machine()
    m.wait('carry 1\r?\n')
    path = tmp_path / 'box.vm'
    assert m.save(path, '--stop').returncode == 0
    m.restore(path).go_on(1)

    def refusal(mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s, open(path, mode) as f:
            s.connect(str(runtime_dir / 'box.control'))
            socket.send_fds(s, [b'{"command":"snapshot","stop":true}\n'], [f.fileno()])
            return s.makefile('rb').readline()

    assert b'runs from that file' in refusal('r+b')
    path = tmp_path / 'other.vm'
    assert b'open for writing' in refusal('ab')
    assert b'open for writing' in refusal('rb')
    m.go_on()
    m.check()


def refused(program, path, *args):
    r = subprocess.run([program, 'restore', str(path), *args], stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, timeout=30, check=False)
    assert r.returncode == 125 and r.stderr.count('\n') == 1, r.stderr
    return r.stderr


def test_a_file_gets_nothing_of_this_host_by_naming_it(machine, tmp_path, program):
    """Who has it from somebody else loses no file and shows none (docs/snapshot.md)."""
    log = tmp_path / 'log'
    m = machine('--serial', f'log:{log}', '--port', 'a=null', '--vsock', tmp_path / 'v', '-n', 'user', '-n',
                'user,restrict=on')
    end = time.monotonic() + 60
    while b'carry 1' not in (log.read_bytes() if log.exists() else b''):
        assert time.monotonic() < end and m.process.poll() is None, m.process.stderr.read()
        time.sleep(0.05)
    path = tmp_path / 'box.vm'
    r = m.save(path, '--stop')
    assert r.returncode == 0, r.stderr
    log.write_text('precious')
    err = refused(program, path)
    assert f'--serial log:{log}, --vsock {tmp_path / "v"}\n' in err
    assert log.read_text() == 'precious'
    assert not (tmp_path / 'v').exists()
    again = ['--serial', 'stdio', '--vsock', str(tmp_path / 'v')]
    # As many devices as there were, or the guest finds others in their places.
    assert 'virtio-net 1' in refused(program, path, *again, '-n', 'user')
    assert 'virtio-console' in refused(program, path, *again, '--port', 'a=null', '--port', 'b=null')
    m.restore(path, *again).wait('carry [0-9]+\r?\n')
    m.kill()
    assert log.read_text() == 'precious'


def test_what_is_taken_is_said(machine, tmp_path, program, disk):
    m = machine('-n', 'user', disk=disk)
    m.wait('carry 1\r?\n')
    assert m.save(tmp_path / 'box.vm', '--stop').returncode == 0
    r = subprocess.run([program, 'restore', tmp_path / 'box.vm', '--detach', '--name', 'box'],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert r.returncode == 0, r.stderr
    assert f'as it was saved: disk {disk}, net user\n' in r.stderr


def test_a_block_device_is_not_taken(machine, tmp_path, program, disk):
    r = subprocess.run(['losetup', '-f', '--show', str(disk)], capture_output=True, text=True, check=False)
    if r.returncode:
        pytest.skip('needs the right to make a loop device')
    device = r.stdout.strip()
    try:
        m = machine(disk=device)
        m.wait('carry 2\r?\n')
        path = tmp_path / 'box.vm'
        assert m.save(path, '--stop').returncode == 0
        assert f'{device} is a block device' in refused(program, path)
        m.restore(path, '-d', device).go_on()
        m.kill()
        m.check()
    finally:
        subprocess.run(['losetup', '-d', device], check=True)
