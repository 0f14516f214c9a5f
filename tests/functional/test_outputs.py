# SPDX-License-Identifier: Apache-2.0
"""What a machine's ports and sockets lead to on the host: nothing of the user's is lost, nothing is left."""
import os
import signal
import socket
import subprocess
import time

import pytest

KEPT = b'what somebody wants to keep\n' * 200


@pytest.fixture
def run(program, kernel, initramfs, tmp_path):
    """run(*options): the finished process, in tmp_path."""
    os.chdir(tmp_path)

    def go(*args):
        return subprocess.run([program, 'run', '--engine', 'bt', '-k', kernel, '-i', initramfs, '-m', '128M', *args],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace',
                              timeout=120, check=False)

    return go


@pytest.fixture
def machine(program, kernel, initramfs, tmp_path):
    """machine(name, *options): starts one in the background."""
    os.chdir(tmp_path)
    names = []

    def go(name, *args):
        r = subprocess.run([program, 'run', '--engine', 'bt', '-k', kernel, '-i', initramfs, '-m', '256M', '--detach',
                            '--name', name, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=60, check=False)
        assert r.returncode == 0, r.stderr
        names.append(name)

    yield go
    for name in names:
        subprocess.run([program, 'kill', name], capture_output=True, timeout=60, check=False)


def fill(path):
    with open(path, 'wb') as f:
        f.write(KEPT)


def kept(path):
    with open(path, 'rb') as f:
        return f.read() == KEPT


def refused(r, *words):
    assert r.returncode == 125, r.stderr
    assert len(r.stderr.splitlines()) == 1, r.stderr
    for word in words:
        assert word in r.stderr, r.stderr


@pytest.mark.parametrize('closed', [False, True])
def test_output_that_is_lost_is_an_error(program, machine, closed):
    def lost(*argv):
        command = '"$0" "$@" >&-' if closed else '"$0" "$@" >/dev/full'
        r = subprocess.run(['sh', '-c', command, program, *argv], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                           text=True, timeout=60, check=False)
        assert r.returncode == 125, argv
        assert len(r.stderr.splitlines()) == 1, r.stderr
        assert ('Bad file' if closed else 'No space') in r.stderr

    machine('web')
    for argv in (['help'], ['help', 'run'], ['version'], ['completion', 'bash'], ['ps'], ['ps', '--json'], ['console'],
                 ['stats', 'web'], ['devices', 'web', '--json']):
        lost(*argv)


def test_a_command_whose_output_is_closed(program, kernel, initramfs):
    for command, status in (('echo hi', 125), ('true', 0)):
        r = subprocess.run(['sh', '-c', '"$0" "$@" >&-', program, 'run', '-k', kernel, '-i', initramfs, '-q', '--', 'sh',
                            '-c', command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60,
                           check=False)
        assert r.returncode == status
        assert len(r.stderr.splitlines()) == (status != 0)


WAYS = [('--serial', 'file:f'), ('--serial', 'log:f'), ('--port', 'p=file:f'), ('--virtio-console', 'file:f')]
SOCKETS = [('--serial', 'unix:f'), ('--port', 'p=unix:f'), ('--virtio-console', 'unix:f'), ('--vsock', 'f')]


@pytest.mark.parametrize('option', WAYS + SOCKETS)
def test_check_makes_and_changes_nothing(run, option):
    r = run(*option, '--check')
    assert r.returncode == 0, r.stderr
    assert not os.path.lexists('f')
    fill('f')
    r = run(*option, '--check')
    assert (r.returncode == 0) == (option in WAYS), r.stderr
    assert kept('f')


@pytest.mark.parametrize('option', WAYS)
def test_a_start_that_fails_changes_nothing(run, option):
    fill('f')
    fill('d.img')
    for bad in (('-d', 'd.img,foo'), ('--gdb', 'unix:/nonexistent/g')):
        refused(run(*option, *bad))
        assert kept('f')


def test_check_says_what_cannot_be_opened(run):
    for option in (('--serial', 'file:/nonexistent/f'), ('--serial', 'log:/nonexistent/f'),
                   ('--serial', 'unix:/nonexistent/f'), ('--port', 'p=unix:/nonexistent/f'),
                   ('--vsock', '/nonexistent/f')):
        refused(run(*option, '--check'), '/nonexistent')


@pytest.mark.parametrize('option', WAYS)
def test_a_disk_is_no_output(run, option):
    with open('f', 'wb') as f:
        f.write(bytes(4 << 20))
    refused(run(*option, '-d', 'f', *(['--check'] if 'log' in option[1] else [])), ' f:', 'disk')
    assert os.path.getsize('f') == 4 << 20


def test_a_running_machines_disk_and_output_are_nobodys_output(run, machine):
    with open('disk', 'wb') as f:
        f.write(bytes(4 << 20))
    machine('owner', '-d', 'disk', '--serial', 'file:out')
    deadline = time.monotonic() + 60
    while not os.path.getsize('out'):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for path in ('disk', 'out'):
        size = os.path.getsize(path)
        refused(run('--serial', f'file:{path}'), path)
        refused(run('--port', f'p=file:{path}', '--serial', 'null'), path)
        assert os.path.getsize(path) >= size > 0
    refused(run('-d', 'out'), 'out')
    refused(run('--serial', 'file:two', '--port', 'p=file:two'), 'two', 'twice')


def test_a_saved_machine_is_no_output_of_its_own(program, machine):
    machine('saved')
    r = subprocess.run([program, 'snapshot', 'saved', 'snap', '--stop'], capture_output=True, text=True, timeout=60,
                       check=False)
    assert r.returncode == 0, r.stderr
    size = os.path.getsize('snap')
    refused(subprocess.run([program, 'restore', 'snap', '--serial', 'file:snap'], capture_output=True, text=True,
                           stdin=subprocess.DEVNULL, timeout=60, check=False), 'snap')
    assert os.path.getsize('snap') == size


@pytest.mark.parametrize('option', SOCKETS + [('--gdb', 'unix:f')])
def test_what_is_no_socket_is_left_alone(run, option):
    fill('f')
    refused(run(*option), 'listen at f', 'no socket')
    assert kept('f')
    os.unlink('f')
    os.symlink('elsewhere', 'f')
    refused(run(*option), 'no socket')
    assert os.readlink('f') == 'elsewhere' and not os.path.lexists('elsewhere')


ALL_SOCKETS = ['--serial', 'unix:a', '--port', 'p=unix:b', '--virtio-console', 'unix:c', '--vsock', 'd',
               '--gdb', 'unix:e']


@pytest.mark.parametrize('sandbox', ['on', 'off'])
def test_sockets_are_replaced_when_stale_and_gone_at_the_end(run, sandbox):
    for name in 'abcde':
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(name)
    r = run(*ALL_SOCKETS, '--sandbox', sandbox, '-a', 'console=ttyS0 panic=-1 run="true"')
    assert r.returncode == 0, r.stderr
    assert os.listdir('.') == []


def test_a_failed_start_leaves_no_socket(run):
    refused(run(*ALL_SOCKETS, '--port', 'q=file:/nonexistent/x'), '/nonexistent/x')
    assert os.listdir('.') == []


def test_only_ones_own_socket_is_removed(program, machine):
    machine('own', '--serial', 'unix:a', '--vsock', 'b')
    os.unlink('a')
    with socket.socket(socket.AF_UNIX) as s:
        s.bind('a')
        before = os.stat('a')
        assert subprocess.run([program, 'kill', 'own'], timeout=60, check=False).returncode == 0
        deadline = time.monotonic() + 20
        while os.path.lexists('b'):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert os.stat('a').st_ino == before.st_ino


def test_a_signal_leaves_no_socket(program, kernel, initramfs, tmp_path):
    argv = [program, 'run', '--engine', 'bt', '-k', kernel, '-i', initramfs, '-m', '256M', '--serial', 'unix:s']
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, cwd=tmp_path, stderr=subprocess.DEVNULL) as p:
        deadline = time.monotonic() + 60
        while not os.path.lexists(tmp_path / 's'):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        p.send_signal(signal.SIGINT)
        assert p.wait(30) == 130
    assert not os.path.lexists(tmp_path / 's')


def test_vsock_takes_a_path_and_nothing_else(run):
    for word in ('null', 'stdio', 'unix:s'):
        refused(run('--vsock', word), '--vsock', word)
    assert os.listdir('.') == []
