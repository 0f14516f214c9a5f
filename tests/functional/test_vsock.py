# SPDX-License-Identifier: Apache-2.0
"""Stream sockets between guest and host (--vsock) with a stock kernel's driver."""
import hashlib
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import ROOT, trouble

MIB8 = 8 << 20


@pytest.fixture(scope='module')
def image(kernel):
    """An initramfs with virtio drivers and the program `vsock`."""
    r = subprocess.run(['ninja', '-C', os.path.join(ROOT, 'build'), 'bench/vsock.img'], capture_output=True,
                       text=True, timeout=300, check=False)
    assert r.returncode == 0, f'no guest image: {r.stdout[-2000:]}{r.stderr}'
    return os.path.join(ROOT, 'build', 'bench', 'vsock.img')


@pytest.fixture
def vboot(boot, image, tmp_path):
    def go(cpus=1, args=(), spec='', **more):
        return boot(cpus=cpus, initrd=image, args=['--vsock', f'{tmp_path}/v{spec}', *args], **more).shell()
    return go


@pytest.fixture
def ask(tmp_path):
    """ask(port): a connection to the guest's port."""
    def go(port):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        s.connect(f'{tmp_path}/v')
        s.sendall(f'CONNECT {port}\n'.encode())
        line = b''
        while not line.endswith(b'\n'):
            c = s.recv(1)
            if not c:
                s.close()
                return None
            line += c
        assert re.fullmatch(rb'OK \d+\n', line), line
        return s
    return go


@pytest.fixture
def serve(tmp_path):
    """serve(port): a listening socket that is the host's port."""
    listening = []

    def go(port):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        s.bind(f'{tmp_path}/v_{port}')
        s.listen(16)
        listening.append(s)
        return s
    yield go
    for s in listening:
        s.close()


def everything(s):
    data = bytearray()
    while piece := s.recv(1 << 16):
        data += piece
    return bytes(data)


def send(s, data):
    def go():
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=go)
    t.start()
    return t


@pytest.mark.parametrize('cpus,append,args', [(1, 'pci=nomsi', ['--virtio-without', 'packed']), (2, '', [])])
def test_both_ways(vboot, ask, serve, cpus, append, args):
    g = vboot(cpus=cpus, append=append, args=args)
    data = os.urandom(MIB8)
    digest = hashlib.sha256(data).hexdigest()
    # The guest connects; each side ends its half when it is done.
    listener = serve(52)
    g.run('head -c 8388608 /dev/urandom > /tmp/out')
    g.run('(vsock connect 52 < /tmp/out | sha256sum > /tmp/sum) & true')
    s, _ = listener.accept()
    with s:
        sender = send(s, data)
        got = everything(s)
        sender.join(60)
    assert hashlib.sha256(got).hexdigest() == g.run('sha256sum < /tmp/out').split()[0]
    assert g.run('while [ ! -s /tmp/sum ]; do sleep 0.1; done; cat /tmp/sum').split()[0] == digest
    # The host connects, several at once.
    g.run('vsock echo 1024 > /tmp/echo & while [ ! -s /tmp/echo ]; do sleep 0.1; done')
    streams = [ask(1024) for _ in range(4)]
    senders = [send(s, data) for s in streams]
    results = [None] * 4

    def receive(i):
        results[i] = everything(streams[i])
    receivers = [threading.Thread(target=receive, args=(i,)) for i in range(4)]
    for t in receivers:
        t.start()
    for t in senders + receivers:
        t.join(60)
    assert all(r == data for r in results)
    for s in streams:
        s.close()
    assert g.poweroff() == 0
    assert not trouble(g.text())


def test_nobody_there(vboot, ask, serve, tmp_path):
    g = vboot(spec=',cid=77')
    # No listener, no socket, something else of that name, a link, another machine.
    serve(1).close()
    (tmp_path / 'v_2').write_text('a file')
    serve(3)
    os.symlink(tmp_path / 'v_3', tmp_path / 'v_4')
    for port in ('1', '2', '4', '5', '4294967294', '3 9'):
        assert 'reset by peer' in g.run(f'vsock connect {port} 2>&1 < /dev/null || true'), port
    # Nobody in the guest; nonsense; a program that goes while it asks.
    assert ask(4000) is None
    for text in (b'GET / HTTP/1.0\n', b'CONNECT \n', b'CONNECT 99999999999\n', b'CONNECT 1' + b'0' * 100, b'\n'):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(f'{tmp_path}/v')
            s.sendall(text)
            try:
                assert s.recv(1) == b''
            except ConnectionResetError:
                pass  # what it sent was not all read
    for text in (b'', b'CONN', b'CONNECT 4000\n'):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(f'{tmp_path}/v')
            s.sendall(text)
    # All is well after that, also for a line in pieces and data right behind it.
    g.run('vsock echo 7 > /tmp/echo & while [ ! -s /tmp/echo ]; do sleep 0.1; done')
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60)
        s.connect(f'{tmp_path}/v')
        for piece in (b'CON', b'NECT ', b'7', b'\nhello'):
            s.sendall(piece)
            time.sleep(0.02)
        s.shutdown(socket.SHUT_WR)
        assert re.fullmatch(rb'OK \d+\nhello', everything(s))
    assert g.poweroff() == 0


def test_slow_readers_and_sudden_ends(vboot, ask, serve):
    g = vboot(cpus=2)
    listener = serve(80)
    # More than there is room for, to somebody who does not read yet: others are not held up.
    g.run('(head -c 8388608 /dev/zero | vsock connect 80; echo $? > /tmp/status) & true')
    slow, _ = listener.accept()
    g.run('vsock echo 7 > /tmp/echo & while [ ! -s /tmp/echo ]; do sleep 0.1; done')
    with ask(7) as s:
        s.sendall(b'x' * 1000)
        s.shutdown(socket.SHUT_WR)
        assert len(everything(s)) == 1000
    g.run('[ ! -e /tmp/status ]')
    slow.shutdown(socket.SHUT_WR)
    assert len(everything(slow)) == MIB8
    slow.close()
    assert g.run('while [ ! -s /tmp/status ]; do sleep 0.1; done; cat /tmp/status') == '0'
    # A reader who goes: the guest's writer sees it.
    g.run('(head -c 8388608 /dev/zero | vsock connect 80 2> /tmp/err; echo done >> /tmp/err) & true')
    s, _ = listener.accept()
    s.recv(1000)
    s.close()
    g.run('while ! grep -q done /tmp/err; do sleep 0.1; done; grep -q write /tmp/err')
    # A guest's program that goes: the host's reader sees it, after all that was sent.
    g.run('head -c 200000 /dev/zero > /tmp/z; (sleep 1000 | cat /tmp/z - | vsock connect 80) & true')
    s, _ = listener.accept()
    s.recv(1)
    g.run('sleep 0.3; kill -9 $(pidof vsock | tr " " "\\n" | head -n 1); true')
    assert len(everything(s)) == 199999
    s.close()
    # The driver goes with open connections, and comes again.
    g.run('vsock echo 8 > /tmp/echo8 & while [ ! -s /tmp/echo8 ]; do sleep 0.1; done')
    s = ask(8)
    g.run('cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport; d=$(echo virtio*); echo $d > unbind; cd /')
    assert everything(s) == b''
    s.close()
    g.run('cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport; echo $d > bind; cd /')
    with ask(8) as s:
        s.sendall(b'again')
        assert s.recv(5) == b'again'
    assert g.poweroff() == 0
    assert not trouble(g.text())


def test_as_many_as_there_may_be(vboot, serve):
    """Connections are bounded, and all are given back."""
    g = vboot()
    listener = serve(80)
    listener.listen(1000)
    for _ in range(2):
        g.run('rm -f /tmp/hold; vsock hold 80 300 > /tmp/hold & while [ ! -s /tmp/hold ]; do sleep 0.1; done')
        assert g.run('cat /tmp/hold') == 'vsock hold 256'
        g.run('kill %1; wait; true')
        for _ in range(256):
            s, _ = listener.accept()
            assert everything(s) == b''
            s.close()
    assert g.poweroff() == 0


def helper_of(pid):
    pids = [pid]
    for p in pids:
        with open(f'/proc/{p}/comm', encoding='ascii') as f:
            if f.read().strip() == 'trivisor-vsock':
                return p
        with open(f'/proc/{p}/task/{p}/children', encoding='ascii') as f:
            pids += [int(c) for c in f.read().split()]
    raise AssertionError('there is no helper process')


def test_the_helper_dies(vboot, ask, serve):
    g = vboot()
    serve(80)
    os.kill(helper_of(g.child.pid), signal.SIGKILL)
    g.expect('cannot reach the host')
    assert 'reset by peer' in g.run('vsock connect 80 2>&1 < /dev/null || true')
    g.run('vsock echo 7 > /tmp/echo & while [ ! -s /tmp/echo ]; do sleep 0.1; done')
    with ask(7) as s:
        s.sendall(b'still')
        assert s.recv(5) == b'still'
    assert g.poweroff() == 0


@pytest.mark.parametrize('spec,names', [
    ('', '--vsock'), ('/nonexistent/v', '/nonexistent'), ('/tmp/', 'path'), ('v,cid=2', 'cid'), ('v,cid=', 'cid'),
    ('v,cid=4294967295', 'cid'), ('v,color=red', 'cid'), ('/' + 'x' * 107, '107'),
])
def test_bad_options_are_refused_in_one_line(program, kernel, tmp_path, spec, names):
    r = subprocess.run([program, 'run', '-k', kernel, '--vsock', spec], capture_output=True, text=True, timeout=60,
                       cwd=tmp_path, check=False)
    assert r.returncode == 125
    assert len(r.stderr.splitlines()) == 1 and names in r.stderr
