# SPDX-License-Identifier: Apache-2.0
"""Named machines: leaving them, coming back, several at one console, and machines that were killed."""
import fcntl
import os
import re
import signal
import socket
import stat
import subprocess
import time

from pexpect import fdpexpect
import pytest

from conftest import PROMPT, Console, running


@pytest.fixture
def attach(program):
    """attach(name) is a terminal at a running machine's console."""
    consoles = []

    def start(name):
        console = Console([program, 'console', name])
        consoles.append(console)
        return console

    yield start
    for console in consoles:
        console.child.close(force=True)


@pytest.fixture
def background(program, kernel, initramfs):
    """background(name, ...) starts a machine with --detach and returns its process id; it is gone with the test."""
    pids = []

    def start(name, *args, append=''):
        r = subprocess.run([program, 'run', '--engine', 'bt', '-k', kernel, '-i', initramfs, '-m', '256M', '-q',
                            '-a', f'console=ttyS0 panic=-1 {append}'.strip(), '--name', name, '--detach', *args],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
        assert r.returncode == 0, r.stderr
        assert r.stdout == f'{name}\n' and r.stderr == ''
        pids.append(running(program)[name])
        return pids[-1]

    yield start
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


@pytest.fixture(autouse=True)
def nothing_left(program):
    yield
    for pid in running(program).values():
        os.kill(pid, signal.SIGKILL)


def wait_until(what, limit=20):
    end = time.monotonic() + limit
    while not what():
        assert time.monotonic() < end, 'it did not happen'
        time.sleep(0.02)


def gone(pid):
    """The process has ended (a zombie has, too)."""
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii', errors='replace') as f:
            return f.read().rsplit(')', 1)[1].split()[0] == 'Z'
    except OSError:
        return True


def locked(path):
    """Whether a process holds the lock, as the last of its threads lets it go."""
    with open(path, 'rb') as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_leave_and_come_back(boot, attach, program):
    guest = boot(args=('--name', 'left')).shell()
    guest.run('echo before-leaving; cd /tmp')
    pid = running(program)['left']
    assert pid != guest.child.pid
    guest.child.send('\x01d')
    assert guest.wait_end(10) == 0
    assert "'trivisor console left'" in guest.text()
    assert running(program) == {'left': pid}
    again = attach('left')
    again.expect('before-leaving')  # what was printed earlier comes first
    again.child.send('\rpwd\r')
    again.expect('\n/tmp\r')  # the same shell
    again.child.send('\x01d')
    assert again.wait_end(10) == 0
    assert running(program) == {'left': pid}
    last = attach('left')
    last.expect(PROMPT)
    last.child.send('\x01x')
    assert last.wait_end(10) == 0
    wait_until(lambda: running(program) == {})


def test_replay_asks_the_terminal_nothing(background, attach):
    """The guest's shell asks for the cursor's position at every prompt; shown again, it must not be answered."""
    background('quiet')
    first = attach('quiet')
    first.shell()
    first.child.send('\x01d')
    assert first.wait_end(10) == 0
    again = attach('quiet')
    again.expect(PROMPT)
    assert '\x1b[6n' in first.text() and '\x1b[6n' not in again.text()


def test_two_at_one_console(boot, attach):
    guest = boot(args=('--name', 'shared')).shell()
    other = attach('shared')
    other.expect(PROMPT)
    other.child.send('echo from-$((1 + 1))\r')
    guest.expect('from-2\r')
    other.expect('from-2\r')
    guest.child.send('echo from-$((2 + 2))\r')
    other.expect('from-4\r')
    guest.expect('from-4\r')
    assert guest.poweroff() == 0
    assert other.wait_end(10) == 0
    assert 'has ended' in other.text()


def test_help_and_literal_keys(background, attach):
    background('keys')
    client = attach('keys').shell()
    client.child.send('\x01h')
    client.expect('C-a d', 5)
    client.child.send(' moved\x01\x01echo\r')
    client.expect('\nmoved')


def test_terminal_is_restored_after_leaving(background, program, tmp_path):
    background('tty')
    client = Console(['/bin/sh', '-c', f"stty -g > {tmp_path}/before; {program} console tty; "
                      f"echo status=$?; stty -g > {tmp_path}/after; echo the-end"])
    client.shell()
    client.child.send('\x01d')
    client.expect('status=0', 10)
    client.expect('the-end', 10)
    client.wait_end()
    assert (tmp_path / 'after').read_text() == (tmp_path / 'before').read_text()


def test_terminal_is_restored_when_the_machine_is_killed(boot, program, tmp_path):
    guest = boot(args=('--name', 'killed'))
    argv = ' '.join(f"'{a}'" for a in guest.argv)
    guest.child.close(force=True)
    wait_until(lambda: 'killed' not in running(program))
    guest.__init__(['/bin/sh', '-c', f"stty -g > {tmp_path}/before; {argv}; echo status=$?; "
                    f"stty -g > {tmp_path}/after; echo the-end"])
    guest.shell()
    os.kill(running(program)['killed'], signal.SIGKILL)
    guest.expect('status=137', 10)
    guest.expect('the-end', 10)
    assert (tmp_path / 'after').read_text() == (tmp_path / 'before').read_text()


def test_front_end_killed_ends_the_machine(boot, program):
    guest = boot(args=('--name', 'headless')).shell()
    pid = running(program)['headless']
    os.kill(guest.child.pid, signal.SIGKILL)
    wait_until(lambda: gone(pid) and running(program) == {})


def test_terminal_closed_ends_the_machine(boot, program):
    guest = boot(args=('--name', 'hangup')).shell()
    pid = running(program)['hangup']
    guest.child.ptyproc.fileobj.close()
    wait_until(lambda: gone(pid))


def test_stop_and_continue(boot, program):
    """A stopped front end stops no machine; when it goes on it takes the terminal again."""
    guest = boot(args=('--name', 'stopped')).shell()
    os.kill(guest.child.pid, signal.SIGSTOP)
    guest.child.send('echo $((40 + 2))\r')
    os.kill(guest.child.pid, signal.SIGCONT)
    guest.expect('42\r')
    assert guest.poweroff() == 0


def test_killed_machines_leave_no_trace(background, program, runtime_dir):
    pid = background('victim')
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not locked(runtime_dir / 'victim.lock'))
    assert len(list(runtime_dir.iterdir())) == 3  # console, control, lock
    r = subprocess.run([program, 'console', 'victim'], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=10, check=False)
    assert r.returncode == 125 and "'victim'" in r.stderr and len(r.stderr.splitlines()) == 1
    second = background('victim')  # the name is free at once
    assert second != pid
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: running(program) == {})
    assert list(runtime_dir.iterdir()) == []


def test_name_in_use(background, program, kernel):
    pid = background('taken')
    r = subprocess.run([program, 'run', '-k', kernel, '--name', 'taken'], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=10, check=False)
    assert r.returncode == 125
    assert r.stderr == f"trivisor: the name 'taken' is in use: process {pid}\n"
    assert running(program) == {'taken': pid}


def test_only_the_owner_gets_in(background, runtime_dir):
    background('private')
    assert stat.S_IMODE(os.stat(runtime_dir).st_mode) == 0o700
    for path in runtime_dir.iterdir():
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_failed_start_in_the_background(program, kernel, initramfs):
    for args in (['-k', '/nonexistent'], ['-k', kernel, '-i', initramfs, '-m', '8M'], ['-k', kernel, '--name', '-x']):
        r = subprocess.run([program, 'run', '--detach'] + args, stdin=subprocess.DEVNULL, capture_output=True,
                           text=True, timeout=20, check=False)
        assert r.returncode == 125 and r.stdout == ''
        assert len(r.stderr.splitlines()) == 1 and r.stderr.startswith('trivisor: ')


def test_nobody_waits_for_a_machine_in_the_background(program, kernel, initramfs, tmp_path):
    """Its helper processes too let go of standard output and error: $(... 2>&1) comes to its end."""
    r = subprocess.run([program, 'run', '-q', '--detach', '--name', 'left', '-k', kernel, '-i', initramfs, '-m', '256M',
                        '-n', 'user', '-v', f'{tmp_path}:x'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=20, check=False)
    assert (r.returncode, r.stdout) == (0, 'left\n')
    assert list(running(program)) == ['left']


def test_default_name_is_the_process(batch, program, kernel, initramfs):
    argv = [program, 'run', '--engine', 'bt', '-k', kernel, '-i', initramfs, '-m', '256M', '-a', 'console=ttyS0']
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
        try:
            wait_until(lambda: running(program) == {f'trivisor-{p.pid}': p.pid})
        finally:
            p.kill()


def connect(runtime_dir, name):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(20)
    cwd = os.getcwd()
    try:
        os.chdir(runtime_dir)  # an address is at most 107 bytes
        s.connect(f'{name}.console')
    finally:
        os.chdir(cwd)
    return s


def resident(pid):
    with open(f'/proc/{pid}/status', encoding='ascii', errors='replace') as f:
        return int(re.search(r'VmRSS:\s+(\d+)', f.read()).group(1))


def test_a_client_that_does_not_read(background, attach, runtime_dir):
    """Others are not held up, and nothing grows."""
    pid = background('flood', '--console-log', '64K')
    with connect(runtime_dir, 'flood') as idle:
        assert idle.recv(100) == b'hflood'
        client = attach('flood').shell()
        # A round writes 1.2 MiB, and a queue without a bound would hold each. Memory that the guest or the translator
        # comes to for the first time counts too, in large pages now and then, but not in every round.
        grown = []
        while not grown or (min(grown) > 512 and len(grown) < 6):
            before = resident(pid)
            client.run('yes 0123456789012345678901234567890123456789 | head -n 30000')
            grown.append(resident(pid) - before)
        assert min(grown) <= 512, grown
        lost = 0
        while True:
            m = idle.recv(5000)
            if m[:1] == b'l':
                lost += int.from_bytes(m[1:], 'little')
                break
        assert lost > 50000


def test_strange_clients(background, attach, runtime_dir):
    background('strange')
    client = attach('strange').shell()
    for message in (b'?', b'w', b'w12345', b'i' + b'x' * 5000):
        with connect(runtime_dir, 'strange') as s:
            s.send(message)
            while s.recv(5000):
                pass
    clients = [connect(runtime_dir, 'strange') for _ in range(7)]
    with connect(runtime_dir, 'strange') as one_too_many:
        assert one_too_many.recv(100) == b''
    for s in clients:
        s.close()
    assert client.run('echo alive') == 'alive'


def test_piped_client(background, program):
    """Without a terminal: commands in, output out."""
    background('piped')
    with subprocess.Popen([program, 'console', 'piped'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors='replace') as p:
        try:
            out = ''
            while '# ' not in out and (c := p.stdout.read(1)):  # what comes earlier may be lost
                out += c
            out, err = p.communicate('echo $((111 * 111))\npoweroff\n', timeout=60)
        finally:
            p.kill()
    assert p.returncode == 0
    assert '12321' in out and 'has ended' in err


def test_serial_at_a_socket(background, attach, tmp_path):
    path = tmp_path / 's'
    background('sock', '--serial', f'unix:{path}')

    def talk(say, until):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(str(path))
            s.sendall(say)
            data = b''
            while until not in data:
                data += s.recv(4096)
            return data

    os.chdir(tmp_path)
    assert b'Linux version' in talk(b'', b'# ')  # from the first byte on
    assert b'Linux version' not in talk(b'echo $((111 * 111))\r', b'12321')
    attach('sock').expect('12321')


def test_serial_at_a_socket_in_use(background, program, kernel, tmp_path):
    os.chdir(tmp_path)
    background('first', '--serial', 'unix:s')
    r = subprocess.run([program, 'run', '-k', kernel, '--serial', 'unix:s'], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=10, check=False)
    assert r.returncode == 125 and 'in use' in r.stderr and len(r.stderr.splitlines()) == 1
    os.kill(running(program)['first'], signal.SIGKILL)
    wait_until(lambda: running(program) == {})
    background('second', '--serial', 'unix:s')  # what the killed one left is replaced


def test_serial_at_a_pseudo_terminal(program, kernel, initramfs):
    argv = [program, 'run', '--engine', 'bt', '-k', kernel, '-i', initramfs, '-m', '256M', '--serial', 'pty',
            '-a', 'console=ttyS0 panic=-1']
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as p:
        try:
            path = p.stdout.readline().strip()
            assert path.startswith('/dev/pts/')
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
            tty = fdpexpect.fdspawn(fd, timeout=60, encoding='utf-8', codec_errors='replace')
            tty.expect(PROMPT)
            tty.send('echo $((111 * 111))\r')
            tty.expect('12321')
            tty.send('poweroff\r')
            assert p.wait(60) == 0
        finally:
            p.kill()


def test_bounded_log(batch, tmp_path):
    path = tmp_path / 'log'
    r = batch('seq 1 20000; echo the-last-line', args=('--serial', f'log:{path},size=64K'))
    assert r.returncode == 0 and r.stdout == ''
    text = path.read_bytes()
    assert 32768 <= len(text) <= 65536
    lines = text.decode(errors='replace').split('\r\n')
    at = lines.index('the-last-line')
    assert lines[at - 3000:at] == [str(n) for n in range(17001, 20001)]
