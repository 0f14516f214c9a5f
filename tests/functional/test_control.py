# SPDX-License-Identifier: Apache-2.0
"""The control socket of a running machine and the commands that use it (docs/control.md)."""
import json
import os
import signal
import socket
import stat
import subprocess
import time

import pytest

from conftest import ROOT, running

TICK = 'i=0; while true; do i=$((i + 1)); echo tick $i; usleep 50000; done'


@pytest.fixture(autouse=True)
def nothing_left(program):
    yield
    for pid in running(program).values():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start(program, kernel, initramfs):
    """start(name, *args, run=command) starts a machine in the background; its process is our child."""
    processes = []

    def go(name, *args, run=TICK, initrd=initramfs, append=''):
        p = subprocess.Popen([program, 'run', '-k', kernel, '-i', initrd, '-m', '128M', '-q', '--name', name,
                              '-a', f'console=ttyS0 quiet panic=-1 {append} run="{run}"', *args],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        processes.append(p)
        return p

    yield go
    for p in processes:
        p.kill()
        p.communicate()


@pytest.fixture
def trivisor(program):
    """trivisor('pause', 'name') runs a command; the finished process."""

    def go(*args, timeout=40):
        return subprocess.run([program, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout, check=False)

    return go


@pytest.fixture
def ask(runtime_dir):
    """ask(name) is a connection, as soon as the machine is there: ask(name)('status') is the reply."""
    connections = []

    def connect(name):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end = time.monotonic() + 20
        while True:
            try:
                s.connect(str(runtime_dir / f'{name}.control'))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < end
                time.sleep(0.02)
        s.settimeout(20)
        f = s.makefile('rwb')
        connections.extend((f, s))

        def one(command=None, raw=None):
            f.write(raw if raw is not None else json.dumps({'id': command, 'command': command}).encode() + b'\n')
            f.flush()
            reply = json.loads(f.readline())
            if raw is None:
                assert reply.pop('id') == command
            return reply

        one.socket = s
        return one

    yield connect
    for c in connections:
        try:
            c.close()
        except OSError:
            pass


def wait_output(p, what, limit=40):
    """Reads the machine's output until `what` is in it."""
    os.set_blocking(p.stdout.fileno(), False)
    seen, end = b'', time.monotonic() + limit
    while what not in seen:
        assert time.monotonic() < end and p.poll() is None, seen[-2000:]
        seen += p.stdout.read() or b''
        time.sleep(0.01)
    return seen


def drain(p):
    return p.stdout.read() or b''


def test_pause_stops_the_guest_and_its_time(start, trivisor, ask):
    p = start('still')
    wait_output(p, b'tick 3\r')
    assert trivisor('pause', 'still').returncode == 0
    control = ask('still')
    first = control('status')
    assert first['state'] == 'paused'
    time.sleep(0.1)
    drain(p)
    time.sleep(0.6)
    assert drain(p) == b''
    second = control('status')
    assert second['guest_ms'] == first['guest_ms']
    assert second['uptime_ms'] >= first['uptime_ms'] + 600
    # Pauses do not nest, whoever asks.
    assert control('pause') == {'ok': True, 'state': 'paused'}
    r = trivisor('resume', 'still')
    assert (r.returncode, r.stdout, r.stderr) == (0, '', '')
    assert control('status')['state'] == 'running'
    assert control('resume') == {'ok': True, 'state': 'running'}
    wait_output(p, b'tick')
    assert control('status')['guest_ms'] > first['guest_ms']
    assert b'clocksource' not in drain(p)


def test_ps_stats_and_two_machines(start, trivisor, program, tmp_path):
    disk = tmp_path / 'disk.img'
    disk.write_bytes(bytes(1 << 20))
    one, two = start('one', '-c', '2', '-d', f'{disk},ro'), start('two')
    wait_output(one, b'tick')
    wait_output(two, b'tick')
    assert trivisor('pause', 'two').returncode == 0
    r = trivisor('ps')
    assert r.returncode == 0 and r.stderr == ''
    rows = [line.split() for line in r.stdout.splitlines()]
    assert rows[0] == ['NAME', 'PID', 'STATE', 'ENGINE', 'CPUS', 'MEMORY', 'UPTIME']
    assert rows[1][:6] == ['one', str(one.pid), 'running', 'bt', '2', '128M']
    assert rows[2][:6] == ['two', str(two.pid), 'paused', 'bt', '1', '128M']
    machines = {m['name']: m for m in json.loads(trivisor('ps', '--json').stdout)}
    assert set(machines) == {'one', 'two'}
    m = machines['one']
    version = trivisor('version').stdout.split()[1]
    assert (m['pid'], m['state'], m['engine'], m['cpus'], m['memory'], m['version']) == \
        (one.pid, 'running', 'bt', 2, 128 << 20, version)
    assert m['disks'] == [f'{disk},ro'] and m['nets'] == [] and m['uptime_ms'] >= m['guest_ms'] > 0
    before = json.loads(trivisor('stats', 'one', '--json').stdout)
    assert before['blocks'] > 0 and before['enters'] > 0
    lines = dict(line.split() for line in trivisor('stats', 'one').stdout.splitlines())
    assert set(lines) == set(before) and int(lines['enters']) >= before['enters']
    # What is done to one is not done to the other.
    assert trivisor('kill', 'two').returncode == 0
    assert two.wait(10) == 137
    assert list(running(program)) == ['one']
    assert trivisor('kill', 'one').returncode == 0
    r = trivisor('ps')
    assert (r.returncode, r.stdout, r.stderr) == (0, '', 'trivisor: no machine runs\n')
    assert json.loads(trivisor('ps', '--json').stdout) == []


@pytest.fixture(scope='session')
def button_image(kernel, tmp_path_factory):
    """An initramfs with the drivers of the power button."""
    path = str(tmp_path_factory.mktemp('button') / 'button.img')
    subprocess.run([os.path.join(ROOT, 'tools', 'mkinitramfs.py'), '--init', os.path.join(ROOT, 'build/tools/init'),
                    '--modules', 'button,evdev', '-o', path], check=True, timeout=120, stdin=subprocess.DEVNULL)
    return path


def test_stop_shuts_the_guest_down(start, trivisor, button_image):
    p = start('polite', initrd=button_image, append='modules=button,evdev',
              run='mkdir -p /etc/acpi/PWRF; (echo \\#!/bin/sh; echo echo pressed; echo poweroff) > '
              '/etc/acpi/PWRF/00000080; chmod 755 /etc/acpi/PWRF/00000080; acpid -d & '
              'echo lis""tening; sleep 1000')
    wait_output(p, b'listening')
    r = trivisor('stop', 'polite', '--timeout', '20')
    assert (r.returncode, r.stdout, r.stderr) == (0, '', '')
    assert p.wait(1) == 0


def test_stop_of_a_guest_that_does_not_listen(start, trivisor, program):
    p = start('deaf')
    wait_output(p, b'tick')
    r = trivisor('stop', '--timeout=1', 'deaf')
    first, second = r.stderr.splitlines()
    assert r.returncode == 125 and "'deaf' does not listen to its power button" in first and 'waiting for 1 s' in first
    assert 'kill deaf' in second and p.poll() is None
    with subprocess.Popen([program, 'stop', 'deaf'], stderr=subprocess.PIPE, text=True) as stop:
        assert 'does not listen' in stop.stderr.readline()  # long before it gives up
        stop.kill()
    assert trivisor('pause', 'deaf').returncode == 0
    r = trivisor('stop', 'deaf')
    assert r.returncode == 125 and 'paused' in r.stderr
    # A paused machine can be ended, too.
    assert trivisor('kill', 'deaf').returncode == 0
    assert p.wait(10) == 137


def test_stop_of_a_guest_that_listens_and_stays(start, trivisor, button_image):
    p = start('stubborn', initrd=button_image, append='modules=button')
    wait_output(p, b'tick')
    r = trivisor('stop', 'stubborn', '--timeout', '1')
    assert r.returncode == 125 and 'was asked to shut down 1 s ago and runs still' in r.stderr
    assert p.poll() is None


def test_nothing_to_talk_to(trivisor, runtime_dir):
    for command in ('pause', 'resume', 'stop', 'kill', 'stats'):
        for name in ('nobody', '../nobody', 'x' * 200):
            r = trivisor(command, name)
            assert r.returncode == 125 and r.stdout == '' and r.stderr.count('\n') == 1, r.stderr
            assert r.stderr.startswith('trivisor: no machine '), r.stderr
        assert trivisor(command).returncode == 125
    assert trivisor('stop', 'x', '--timeout', '0').returncode == 125
    assert trivisor('stop', 'x', '--timeout', '5s').returncode == 125
    assert trivisor('ps', 'x').returncode == 125


def test_killed_machine_leaves_nothing_that_matters(start, trivisor, ask, runtime_dir):
    def come():
        p = start('again')
        assert ask('again')('status')['pid'] == p.pid
        return p

    p = come()
    path = runtime_dir / 'again.control'
    mode = os.stat(path)
    assert stat.S_ISSOCK(mode.st_mode) and stat.S_IMODE(mode.st_mode) == 0o600
    p.kill()
    p.wait(10)
    assert path.exists()
    r = trivisor('kill', 'again')
    assert r.returncode == 125 and 'no machine' in r.stderr
    assert trivisor('ps').stdout == '' and not path.exists()
    # And with the socket left behind, a new machine takes the name.
    p = come()
    p.kill()
    p.wait(10)
    come()
    # Also when the file is there and no lock is.
    assert trivisor('kill', 'again').returncode == 0
    path.touch()
    come()


def test_machine_that_hangs(start, trivisor, ask):
    p = start('hung')
    assert ask('hung')('status')['ok']
    os.kill(p.pid, signal.SIGSTOP)
    r = trivisor('ps')
    assert r.returncode == 0 and 'does not answer' in r.stderr
    assert r.stdout.splitlines()[1].split()[:3] == ['hung', str(p.pid), 'unknown']
    r = trivisor('kill', 'hung')
    assert r.returncode == 0 and 'its process is killed' in r.stderr
    assert p.wait(10) == -signal.SIGKILL


def test_debugger_and_pause(start, ask, tmp_path):
    """Either's pause is its own."""
    start('both', '--gdb', f'unix:{tmp_path}/gdb')
    control = ask('both')
    assert control('status')['state'] == 'running'

    def until(state):
        end = time.monotonic() + 20
        while control('status')['state'] != state:
            assert time.monotonic() < end
            time.sleep(0.01)

    def debugger():
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.connect(f'{tmp_path}/gdb')
        s.settimeout(20)
        s.send(b'$?#3f')
        assert s.recv(1) == b'+'
        return s

    with debugger():  # stops the machine
        assert control('status')['state'] == 'paused'
        assert control('resume') == {'ok': True, 'state': 'paused'}
        assert control('pause')['state'] == control('pause')['state'] == 'paused'
    with debugger():
        assert control('status')['state'] == 'paused'
        assert control('resume')['state'] == 'paused'
    until('running')
    assert control('pause')['state'] == 'paused'
    assert control('resume')['state'] == 'running'


def test_hostile_clients(start, ask, trivisor):
    p = start('busy')
    wait_output(p, b'tick')
    good = ask('busy')
    assert good('status')['ok']
    for raw in (b'\n', b'\xff\xfe\n', b'{}\n', b'[' * 4000 + b'\n', b'{"command": "quit"}\n', b'\0\n',
                b'{"command": "status", "x": 1}\n', b'{"command": ["status"]}\n'):
        reply = ask('busy')(raw=raw)
        assert reply['ok'] is False and '\n' not in reply['error']
    long = ask('busy')
    assert long(raw=b' ' * 4096) == {'ok': False, 'error': 'the request is too long'}
    assert long.socket.recv(1) == b''
    # A flood by one who never reads, half requests, and more clients than there is room for.
    flood = ask('busy').socket
    flood.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            flood.send(b'{"command": "stats"}\n' * 100)
    for _ in range(20):
        ask('busy').socket.send(b'{"command": "sta')
    for _ in range(20):
        assert ask('busy')('pause')['state'] == 'paused'
        assert ask('busy')('resume')['state'] == 'running'
    assert trivisor('stats', 'busy').returncode == 0
    drain(p)
    wait_output(p, b'tick')
    assert trivisor('kill', 'busy').returncode == 0
    assert p.wait(10) == 137
