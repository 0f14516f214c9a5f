# SPDX-License-Identifier: Apache-2.0
"""What a running machine's process still may do: nothing that its own descriptors do not give."""
import errno
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import termios

import pexpect
import pytest

from conftest import running
from inject import Thread

NR = {'read': 0, 'write': 1, 'open': 2, 'stat': 4, 'mmap': 9, 'mprotect': 10, 'ioctl': 16, 'getpid': 39, 'socket': 41,
      'connect': 42, 'clone': 56, 'fork': 57, 'execve': 59, 'kill': 62, 'fcntl': 72, 'unlink': 87, 'ptrace': 101,
      'setuid': 105, 'prctl': 157, 'chroot': 161, 'mount': 165, 'tkill': 200, 'setns': 308, 'tgkill': 234,
      'keyctl': 250, 'openat': 257, 'unshare': 272, 'perf_event_open': 298, 'process_vm_readv': 310, 'seccomp': 317,
      'memfd_create': 319, 'bpf': 321, 'pidfd_open': 434, 'io_uring_setup': 425, 'clone3': 435, 'openat2': 437}
AT_FDCWD = -100
TIOCSTI = 0x5412
# The machine's process must die of these...
DEADLY = [('execve',), ('fork',), ('ptrace', 0), ('process_vm_readv', 1), ('mount',), ('unshare', 0x10000000),
          ('setns', 0, 0), ('chroot',), ('setuid', 0), ('bpf',), ('perf_event_open',), ('io_uring_setup', 1),
          ('keyctl',), ('seccomp', 1), ('pidfd_open', 1)]
# What pthread_create gives clone, and no more: CLONE_NEWUSER is one of those it does not, CLONE_THREAD one it does.
THREAD = 0x3d0f00
# ...and of these unless somebody keeps the signal from it.
TRAPPED = [('open',), ('openat', AT_FDCWD), ('openat2', AT_FDCWD), ('stat',), ('unlink',), ('socket', 1, 1),
           ('socket', 2, 1), ('connect', 0), ('clone', 17), ('clone', THREAD | 0x10000000),
           ('clone', THREAD & ~0x10000), ('kill', 1, 0), ('tkill', 1, 0),
           ('tgkill', 1, 1, 0), ('mmap', 0, 4096, 5, 0x22, -1), ('mmap', 0, 4096, 7, 0x22, -1),
           ('mprotect', 0x10000, 4096, 5), ('memfd_create',), ('ioctl', 0, TIOCSTI), ('fcntl', 0, 8, 1),
           ('prctl', 4, 1), ('prctl', 22, 0)]


def idle_kernel(path):
    """A Multiboot image that writes R to the serial port and halts."""
    load, size = 0x100000, 48
    flags = 0x10000  # the addresses below are valid
    code = bytes((0x66, 0xba, 0xf8, 0x03, 0xb0, ord('R'), 0xee, 0xfa, 0xf4, 0xeb, 0xfd))
    head = struct.pack('<8I', 0x1badb002, flags, -(0x1badb002 + flags) & 0xffffffff, load, load, load + size,
                       load + size, load + 32)
    path.write_bytes((head + code).ljust(size, b'\0'))
    return str(path)


@pytest.fixture
def idle(program, tmp_path):
    """idle(*args) starts a machine whose guest halts at once; it is gone when the test is."""
    started = []
    kernel = idle_kernel(tmp_path / 'idle')

    def start(*args, **more):
        p = subprocess.Popen([program, 'run', '--engine', 'bt', '-k', kernel, '-m', '4', *args],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
        started.append(p)
        assert p.stdout.read(1) == b'R', p.stderr.read()
        return p

    yield start
    for p in started:
        p.kill()
        p.wait()
        p.stdout.close()
        p.stderr.close()


def family(pid):
    """A process and all below it."""
    parent = {}
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{name}/stat', encoding='ascii', errors='replace') as f:
                parent[int(name)] = int(f.read().rsplit(')', 1)[1].split()[1])
        except OSError:
            continue  # it has just ended
    found = [pid]
    for p in found:
        found += [child for child, its in parent.items() if its == p]
    return found


def thread_states(pid):
    """(process id, thread name, fields of /proc/PID/task/TID/status) of every thread of a process and its
    children."""
    for p in family(pid):
        for tid in os.listdir(f'/proc/{p}/task'):
            with open(f'/proc/{p}/task/{tid}/status', encoding='ascii', errors='replace') as f:
                fields = dict(re.findall(r'^(\w+):\t(.*)$', f.read(), re.M))
            yield p, fields['Name'], fields


# What root's shared directories need: CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER (src/backend/share/share.c).
SHARE_CAPS = 1 << 0 | 1 << 1 | 1 << 3


def assert_confined(pid, threads, root, share=None):
    """Every thread of the machine and of its helpers; share: the name of the helpers that keep SHARE_CAPS."""
    states = list(thread_states(pid))
    assert len([s for s in states if s[0] == pid]) >= threads
    leaders = {p: fields['Name'] for p, _, fields in states if fields['Pid'] == str(p)}
    for p, name, fields in states:
        who = f'{leaders[p]}/{name}'
        kept = SHARE_CAPS if root and share and leaders[p] == share else 0
        for caps in ('CapPrm', 'CapEff'):
            assert int(fields[caps], 16) & ~kept == 0, f'{who}: {caps} {fields[caps]}'
        for caps in ('CapInh', 'CapAmb') + (('CapBnd',) if root else ()):
            assert int(fields[caps], 16) == 0, f'{who}: {caps} {fields[caps]}'
        assert fields['NoNewPrivs'] == '1', who
        assert fields['Seccomp'] == '2', who
    return leaders


def test_every_thread_is_confined(idle, tmp_path):
    """With everything a machine can have: disks, network, a shared directory, a debugger's socket, pty."""
    shared = tmp_path / 'shared'
    shared.mkdir()
    disk = tmp_path / 'disk.raw'
    disk.write_bytes(bytes(1 << 20))
    p = idle('-c', '4', '-d', f'{disk},format=raw', '-n', 'user', '-v', f'{shared}:/shared', '--gdb', '0')
    names = assert_confined(p.pid, 5, os.getuid() == 0, share='trivisor-share')
    assert len(names) == 3, names  # the machine, the network's process, the directory's process


@pytest.mark.skipif(os.getuid() != 0, reason='becomes another user')
def test_every_thread_is_confined_without_root(program):
    with tempfile.TemporaryDirectory() as d:
        where = pathlib.Path(d)
        os.chmod(where, 0o755)
        exe = shutil.copy(program, where / 'trivisor')
        kernel = idle_kernel(where / 'idle')
        p = subprocess.Popen([exe, 'run', '-k', kernel, '-m', '4', '-c', '2'], cwd='/', user=65534, group=65534,
                             extra_groups=[], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            assert p.stdout.read(1) == b'R'
            assert_confined(p.pid, 3, False)
        finally:
            p.kill()
            p.wait()
            p.stdout.close()


def test_off_is_off_and_says_so(idle):
    p = idle('--sandbox', 'off')
    assert all(fields['Seccomp'] == '0' for _, _, fields in thread_states(p.pid))
    p.terminate()
    _, err = p.communicate(timeout=30)
    assert err.count(b'--sandbox off') == 1 and b'warning' in err


def test_no_core_file_and_no_debugger(idle):
    p = idle()
    with open(f'/proc/{p.pid}/limits', encoding='ascii') as f:
        assert re.search(r'^Max core file size +0 +0 ', f.read(), re.M)
    if os.getuid():
        with pytest.raises(PermissionError):
            Thread(p.pid)


@pytest.mark.skipif(os.getuid() != 0, reason='/proc/PID/fd of a confined process is root\'s')
def test_descriptors_of_the_caller_are_closed(idle, tmp_path):
    secret = tmp_path / 'secret'
    secret.write_text('x')
    fd = os.open(secret, os.O_RDONLY)
    high = 4000 if os.sysconf('SC_OPEN_MAX') > 4000 else 200
    os.dup2(fd, high)
    try:
        p = idle(pass_fds=(fd, high))
    finally:
        os.close(fd)
        os.close(high)
    held = {os.readlink(f'/proc/{p.pid}/fd/{n}') for n in os.listdir(f'/proc/{p.pid}/fd')}
    assert str(secret) not in held
    # What it keeps is its own: no directory, no file but the lock on its name.
    own = re.compile(r'(pipe|anon_inode|socket):|/dev/null$|/memfd:|.*/trivisor-\d+\.lock$|/proc/\d+/pagemap$')
    assert all(own.match(path) for path in held), held


def test_kernel_through_an_inherited_descriptor(program, tmp_path):
    """What the shell makes of -k <(cat FILE)."""
    kernel = idle_kernel(tmp_path / 'idle')
    with open(kernel, 'rb') as f:
        r = subprocess.run([program, 'run', '--check', '-m', '4', '-k', f'/dev/fd/{f.fileno()}'], stdin=f,
                           pass_fds=(f.fileno(),), capture_output=True, timeout=30, check=False)
    assert r.returncode == 0, r.stderr


def tracer(pid):
    try:
        return Thread(pid)
    except PermissionError:
        pytest.skip('no ptrace here')


@pytest.mark.skipif(os.getuid() != 0, reason='a confined process is traced by root only')
def test_calls_from_inside_are_refused(idle):
    t = tracer(idle('-c', '2').pid)
    assert t.call(NR['getpid'])[0] == 'returned'  # the method works
    assert t.call(NR['mmap'], 0, 4096, 3, 0x22, -1)[0] == 'returned'
    assert t.call(NR['clone3']) == ('returned', -errno.ENOSYS)
    for name, *args in TRAPPED:
        assert t.call(NR[name], *args) == ('trapped', signal.SIGSYS), (name, args)
    t.detach()


@pytest.mark.skipif(os.getuid() != 0, reason='a confined process is traced by root only')
@pytest.mark.parametrize('call', DEADLY, ids=lambda c: c[0])
def test_calls_from_inside_kill(idle, call):
    p = idle()
    what, how = tracer(p.pid).call(NR[call[0]], *call[1:])
    assert what == 'died' and os.WTERMSIG(how) == signal.SIGSYS


@pytest.mark.skipif(os.getuid() != 0, reason='a confined process is traced by root only')
def test_vcpu_threads_are_refused_too(idle):
    p = idle('-c', '2')
    tids = []
    for t in os.listdir(f'/proc/{p.pid}/task'):
        with open(f'/proc/{p.pid}/task/{t}/comm', encoding='utf-8') as f:
            if f.read().startswith('vcpu'):
                tids.append(int(t))
    assert len(tids) == 2
    for tid in tids:
        t = tracer(tid)
        assert t.call(NR['openat'], AT_FDCWD) == ('trapped', signal.SIGSYS)
        t.detach()


@pytest.mark.skipif(os.getuid() != 0, reason='a confined process is traced by root only')
def test_a_violation_is_told_and_the_terminal_given_back(program, tmp_path):
    kernel = idle_kernel(tmp_path / 'idle')
    child = pexpect.spawn(program, ['run', '-k', kernel, '-m', '4', '--name', 'trap'], timeout=30, encoding='utf-8')
    try:
        before = termios.tcgetattr(child.child_fd)
        child.expect('R')
        assert termios.tcgetattr(child.child_fd) != before
        t = tracer(running(program)['trap'])
        assert t.call(NR['openat'], AT_FDCWD) == ('trapped', signal.SIGSYS)
        t.deliver(signal.SIGSYS)
        child.expect('vm process: the sandbox forbids system call')
        child.expect(pexpect.EOF)
        assert termios.tcgetattr(child.child_fd) == before
        child.close()
        assert child.exitstatus == 128 + signal.SIGSYS
    finally:
        child.close(force=True)


@pytest.mark.skipif(os.getuid() != 0, reason='a confined process is traced by root only')
def test_terminals_process_is_confined(program, tmp_path):
    """The one in front of a machine, and that of trivisor console: at their other end may be anything."""
    children = [pexpect.spawn(program, ['run', '-k', idle_kernel(tmp_path / 'idle'), '-m', '4', '--name', 'front'],
                              timeout=30)]
    try:
        children[0].expect('R')
        machine = running(program)['front']
        children.append(pexpect.spawn(program, ['console', 'front'], timeout=30))
        children[1].expect('R')
        for child, may_signal in zip(children, (True, False)):
            with open(f'/proc/{child.pid}/status', encoding='ascii', errors='replace') as f:
                fields = dict(re.findall(r'^(\w+):\t(.*)$', f.read(), re.M))
            assert (fields['NoNewPrivs'], fields['Seccomp'], int(fields['CapPrm'], 16)) == ('1', '2', 0)
            t = tracer(child.pid)
            for name, *args in TRAPPED:
                assert t.call(NR[name], *args) == ('trapped', signal.SIGSYS), (name, args)
            assert (t.call(NR['kill'], machine, 0)[0] == 'returned') == may_signal
            assert t.call(NR['kill'], 0, 0) == ('trapped', signal.SIGSYS)
            t.detach()
    finally:
        for child in children:
            child.close(force=True)


def test_crash_dump_is_printed(program, tmp_path):
    kernel = tmp_path / 'crash'
    idle_kernel(kernel)
    image = bytearray(kernel.read_bytes())
    image[32:34] = b'\x0f\x0b'  # ud2, and no IDT
    kernel.write_bytes(image)
    r = subprocess.run([program, 'run', '-k', kernel, '-m', '4'], stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, timeout=60, check=False)
    assert r.returncode == 122
    assert 'the guest crashed' in r.stderr and re.search(r'\brip\b', r.stderr, re.I)


def test_doctor_tells_what_works(program):
    out = subprocess.run([program, 'doctor'], capture_output=True, text=True, timeout=120, check=True).stdout
    assert re.search(r'^sandbox +seccomp works', out, re.M)
    assert re.search(r'^ +landlock (works \(ABI \d+\)|is not offered)', out, re.M)
