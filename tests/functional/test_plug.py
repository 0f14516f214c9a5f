# SPDX-License-Identifier: Apache-2.0
"""Disks and networks that come and go while a stock kernel runs."""
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import time
import urllib.request

import pytest

from conftest import running, trouble
from test_net import free_port, gone
from test_sandbox import assert_confined, idle_kernel

LIMIT = 60
BLANK = 16 << 20


@pytest.fixture(autouse=True)
def nothing_left(program):
    yield
    for pid in running(program).values():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def trivisor(program):
    """trivisor('plug', ...) runs a command; its output without the line feed. fails=: it must, with that line."""

    def go(*args, fails=None):
        r = subprocess.run([program, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=LIMIT, check=False)
        if fails is None:
            assert r.returncode == 0, r.stderr
            return r.stdout.rstrip('\n')
        assert r.returncode == 125
        assert r.stderr.count('\n') == 1 and fails in r.stderr, r.stderr
        return r.stderr

    return go


@pytest.fixture
def guest(boot, virtio_image):
    """guest(*args) boots a guest named box to a shell, with the drivers of disks and networks loaded."""

    def start(*args, **more):
        console = boot(args=['--name', 'box', '-q', *map(str, args)], initrd=virtio_image, **more).shell()
        console.run('/sbin/modprobe virtio_pci; /sbin/modprobe virtio_blk; /sbin/modprobe virtio_net')
        return console

    return start


@pytest.fixture
def blank(tmp_path):
    """blank(name) makes an empty raw image."""

    def make(name, size=BLANK):
        path = tmp_path / name
        with open(path, 'wb') as f:
            f.truncate(size)
        return path

    return make


def sha(path, size=None):
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read(size)).hexdigest()


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.02)


def appears(g, path):
    g.run(f'while [ ! -e {path} ]; do usleep 20000; done')


def is_gone(g, path):
    g.run(f'while [ -e {path} ]; do usleep 20000; done')


def devices(trivisor, name='box'):
    return {d['device']: d for d in json.loads(trivisor('devices', name, '--json'))}


def qemu_img(*args, good=True):
    r = subprocess.run(['qemu-img', *map(str, args)], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (r.returncode == 0) == good, r.stdout + r.stderr
    return r.stdout


def test_a_disk_comes_and_goes(guest, trivisor, program, blank):
    image = blank('a.raw')
    g = guest('-d', blank('boot.raw'), cpus=2)
    appears(g, '/dev/vda')
    pid = running(program)['box']
    threads = len(os.listdir(f'/proc/{pid}/task'))
    files = len(os.listdir(f'/proc/{pid}/fd'))
    for turn in range(2):
        assert trivisor('plug', 'box', '-d', image) == 'disk1'
        appears(g, '/dev/vdb')
        assert devices(trivisor)['disk1'] == {'device': 'disk1', 'kind': 'disk', 'slot': 24 + turn,
                                              'state': 'plugged', 'value': str(image)}
        assert_confined(pid, threads + 1, os.getuid() == 0)
        qemu_img('resize', '-f', 'raw', image, '32M', good=False)  # it is locked
        if not turn:
            g.run('mke2fs /dev/vdb >/dev/null 2>&1')
        out = g.run('mount -t ext2 /dev/vdb /tmp && dd if=/dev/urandom of=/tmp/x bs=64k count=64 2>/dev/null && '
                    'sync && cat /tmp/x | sha256sum && umount /tmp && sha256sum /dev/vdb')
        trivisor('unplug', 'box', 'disk1')
        # All is over by then: files, locks, threads.
        assert sha(image) == out.split()[-2]
        qemu_img('resize', '-f', 'raw', image, str(BLANK))
        assert len(os.listdir(f'/proc/{pid}/task')) <= threads
        wait_for(lambda: len(os.listdir(f'/proc/{pid}/fd')) == files)  # clients' connections
        is_gone(g, '/dev/vdb')
        assert set(devices(trivisor)) == {'disk0'}
    assert subprocess.run(['e2fsck', '-fn', image], capture_output=True, timeout=LIMIT, check=False).returncode == 0
    # What was there at the start has stayed in order.
    g.run('dd if=/dev/vda of=/dev/null bs=1M count=1 2>/dev/null')
    assert not trouble(g.run('dmesg'))
    assert g.poweroff() == 0


def test_a_chain_of_images(guest, trivisor, tmp_path):
    """The client opens all of them; nobody else writes to any."""
    base, middle, top = (tmp_path / n for n in ('base.raw', 'middle.qcow2', 'top.qcow2'))
    base.write_bytes(os.urandom(1 << 20))
    base_sha = sha(base)
    qemu_img('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', middle, '8M')
    qemu_img('create', '-q', '-f', 'qcow2', '-b', middle, '-F', 'qcow2', top)
    g = guest()
    assert trivisor('plug', 'box', '-d', f'{top},id=data,serial=S3') == 'data'
    appears(g, '/dev/vda')
    assert g.run('cat /sys/block/vda/serial').strip() == 'S3'
    assert base_sha in g.run('head -c 1048576 /dev/vda | sha256sum')
    qemu_img('info', middle, good=True)
    qemu_img('resize', middle, '16M', good=False)
    out = g.run('dd if=/dev/urandom of=/dev/vda bs=256k count=8 seek=2 2>/dev/null; blkdiscard -o 4M /dev/vda;'
                'sha256sum /dev/vda')
    trivisor('unplug', 'box', 'data')
    for image in (middle, top):
        qemu_img('check', '-q', image)
    qemu_img('convert', '-O', 'raw', top, tmp_path / 'flat.raw')
    assert sha(tmp_path / 'flat.raw') == out.split()[0]
    assert sha(base) == base_sha
    os.unlink(base)
    trivisor('plug', 'box', '-d', top, fails='base.raw')
    assert not devices(trivisor)


def helpers():
    """Processes of user-mode networks that are nobody's children."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/stat', encoding='ascii', errors='replace') as f:
                text = f.read()
        except OSError:
            continue
        state, parent = text.rsplit(')', 1)[1].split()[:2]
        if '(trivisor-net)' in text and state != 'Z' and parent == '1':
            found.append(int(pid))
    return set(found)


def fetch(port, path):
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/{path}', timeout=LIMIT) as f:
        return f.read()


def test_a_network_comes_and_goes(guest, trivisor, program):
    before = helpers()
    g = guest(cpus=2)
    port = free_port()
    for turn in range(2):
        assert trivisor('plug', 'box', '-n', 'user', '-p', f'127.0.0.1:{port}:80') == 'net0'
        appears(g, '/sys/class/net/eth0')
        g.run('ip link set eth0 up && udhcpc -q -n -i eth0 >/dev/null 2>&1')
        assert '10.0.2.15' in g.run('ip addr show eth0')
        if not turn:
            g.run('mkdir /tmp/w && dd if=/dev/urandom of=/tmp/w/x bs=64k count=64 2>/dev/null && httpd -p 80 -h /tmp/w')
            digest = g.run('cat /tmp/w/x | sha256sum').split()[0]
        assert hashlib.sha256(fetch(port, 'x')).hexdigest() == digest
        assert devices(trivisor)['net0']['value'] == f'user,publish=127.0.0.1:{port}:80,mac=52:54:00:12:34:56'
        helper, = helpers() - before
        with open(f'/proc/{helper}/status', encoding='ascii') as f:
            assert 'Seccomp:\t2' in f.read()
        trivisor('unplug', 'box', 'net0')
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT
            s.bind(('127.0.0.1', port))  # nobody listens by then
        is_gone(g, '/sys/class/net/eth0')
        wait_for(lambda pid=helper: gone(pid))
    assert not trouble(g.run('dmesg'))
    trivisor('plug', 'box', '-n', 'user,hostname=a')
    appears(g, '/sys/class/net/eth0')
    helper, = helpers() - before
    g.run('ip link set eth0 up')
    os.kill(helper, signal.SIGKILL)
    g.run('while [ "$(cat /sys/class/net/eth0/carrier)" != 0 ]; do usleep 20000; done')
    trivisor('unplug', 'box', 'net0')
    trivisor('plug', 'box', '-n', 'user,speed=9', fails='unknown option')
    trivisor('plug', 'box', '-n', 'none', fails='nothing')
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('127.0.0.1', port))
        s.listen()
        trivisor('plug', 'box', '-n', 'user', '-p', f'127.0.0.1:{port}:80', fails='in use')
    # It ends with the machine, however that ends.
    trivisor('plug', 'box', '-n', 'user')
    helper, = helpers() - before
    os.kill(running(program)['box'], signal.SIGKILL)
    wait_for(lambda: gone(helper))
    assert helpers() == before


@pytest.mark.skipif(os.getuid() != 0, reason='makes a tap device')
def test_a_tap_comes_and_goes(guest, trivisor):
    name = f'tv{os.getpid()}'
    g = guest()
    assert trivisor('plug', 'box', '-n', f'tap={name}') == 'net0'
    appears(g, '/sys/class/net/eth0')
    value = devices(trivisor)['net0']['value']
    assert g.run('cat /sys/class/net/eth0/address').strip() == value.split('mac=')[1]
    g.run('ip link set eth0 up && ip addr add 10.99.98.2/24 dev eth0')
    subprocess.run(['ip', 'addr', 'add', '10.99.98.1/24', 'dev', name], check=True)
    g.run('ping -c 3 -i 0.2 10.99.98.1')
    trivisor('unplug', 'box', 'net0')
    assert not os.path.exists(f'/sys/class/net/{name}')
    assert not trouble(g.run('dmesg'))


def test_refused_in_one_line(guest, trivisor, blank, tmp_path):
    g = guest('-d', blank('boot.raw'))
    trivisor('plug', 'box', '-d', blank('boot.raw'), fails='somebody else')
    trivisor('plug', 'box', '-d', tmp_path / 'none', fails='No such file')
    trivisor('plug', 'box', '-d', f'{blank("x")},speed=9', fails='unknown key')
    trivisor('plug', 'box', '-d', f'{blank("x")},id=disk0', fails="there is a device 'disk0'")
    trivisor('plug', 'box', '-m', '1G', fails='--disk and --net')
    trivisor('plug', 'box', fails='one device')
    trivisor('plug', 'nobody', '-d', blank('x'), fails='no machine')
    trivisor('unplug', 'box', 'disk0', fails='stays')
    trivisor('unplug', 'box', 'disk7', fails='no device')
    trivisor('unplug', 'box', fails='unplug takes')
    for i in range(8):
        trivisor('plug', 'box', '-d', f'{blank(f"{i}")},ro')
    trivisor('plug', 'box', '-d', blank('x'), fails='all 8 slots')
    appears(g, '/dev/vdi')
    trivisor('pause', 'box')
    trivisor('unplug', 'box', 'disk3', fails='paused')
    trivisor('resume', 'box')
    trivisor('unplug', 'box', 'disk3')
    assert trivisor('plug', 'box', '-d', blank('x')) == 'disk3'
    assert not trouble(g.run('dmesg'))


def test_a_guest_that_does_not_listen(program, trivisor, blank, tmp_path):
    p = subprocess.Popen([program, 'run', '--engine', 'bt', '-q', '--name', 'box', '-m', '4', '--serial', 'null',
                          '-k', idle_kernel(tmp_path / 'idle')], stdin=subprocess.DEVNULL)
    wait_for(lambda: 'box' in running(program))
    r = subprocess.run([program, 'plug', 'box', '-d', blank('x')], stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, timeout=LIMIT, check=False)
    assert (r.returncode, r.stdout) == (0, 'disk0\n')
    assert 'no driver for hot-plug' in r.stderr
    trivisor('unplug', 'box', 'disk0', '--timeout', '1', fails='does not listen')
    assert devices(trivisor)['disk0']['state'] == 'asked back'
    trivisor('kill', 'box')
    p.wait()
    qemu_img('resize', '-f', 'raw', tmp_path / 'x', '32M')


def test_many_disks_at_work(guest, trivisor, program, tmp_path):
    """Each has threads that allocate: more of them than malloc gives arenas without looking where it may not."""
    images = [tmp_path / f'{i}.qcow2' for i in range(10)]
    for i in images:
        qemu_img('create', '-q', '-f', 'qcow2', i, '16M')
    g = guest(*(word for i in images[:4] for word in ('-d', i)), cpus=2)
    for i in images[4:]:
        trivisor('plug', 'box', '-d', i)
    appears(g, '/dev/vdj')
    g.run('for d in a b c d e f g h i j; do for k in 0 1; do dd if=/dev/zero of=/dev/vd$d bs=64k seek=$((k*64)) '
          'count=4 oflag=direct conv=fsync 2>/dev/null & done; done; wait')
    assert 'box' in running(program)
    trivisor('kill', 'box')
    for i in images:
        qemu_img('check', '-q', i)


def any_descriptors(tmp_path):
    """A descriptor of each kind that is none of a disk's or a network's."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(tmp_path / 'listening'))
    listening.listen()
    (tmp_path / 'empty').touch()
    fds = [os.open(p, flags) for p, flags in ((tmp_path, os.O_RDONLY), (tmp_path / 'empty', os.O_RDWR),
                                              ('/dev/zero', os.O_RDWR), ('/dev/null', os.O_RDWR),
                                              ('/', os.O_PATH))]
    return fds + [*os.pipe(), *os.openpty(), os.memfd_create('empty'), listening.detach(), os.eventfd(0)]


def test_descriptors_of_any_kind(program, trivisor, runtime_dir, tmp_path):
    """All are refused at once, nothing of them stays, and neither does a client that goes in the middle."""
    p = subprocess.Popen([program, 'run', '--engine', 'bt', '-q', '--name', 'box', '-m', '4', '--serial', 'null',
                          '-k', idle_kernel(tmp_path / 'idle')], stdin=subprocess.DEVNULL)
    wait_for(lambda: 'box' in running(program))
    pid = running(program)['box']
    fds = any_descriptors(tmp_path)
    name = '\u00e9' * 1000  # longer than an error: it is cut within a character, or beside one
    requests = [{kind: text} for kind, text in (('disk', '/x'), ('disk', '/x,ro'), ('disk', '/x.qcow2'), ('disk', 'x'),
                                                ('disk', '/' + name), ('disk', '/.' + name), ('net', 'user'),
                                                ('net', 'tap=t,mac=52:54:00:00:00:01'),
                                                ('net', 'tap=t,queues=2,mac=52:54:00:00:00:01'))]
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(LIMIT)
        s.connect(str(runtime_dir / 'box.control'))
        # An answer comes from a machine that has all its threads.
        s.sendall(b'{"command": "status"}\n')
        assert json.loads(s.makefile().readline())['ok']
        threads, files = (len(os.listdir(f'/proc/{pid}/{what}')) for what in ('task', 'fd'))
        for request in requests:
            line = json.dumps({'command': 'plug', **request}, ensure_ascii=False).encode() + b'\n'
            for sent in [[], *([fd] for fd in fds), *([fd, fd] for fd in fds), fds, fds * 2, fds * 3]:
                socket.send_fds(s, [line], sent)
                reply = json.loads(s.makefile().readline())
                assert not reply['ok'] and reply['error'], (request, sent)
        # Not whole, and gone.
        for n in range(20):
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(str(runtime_dir / 'box.control'))
                socket.send_fds(other, [line[:n]] if n else [b'\n'], fds)
    # The connection above has gone, and so may have that of whoever asked what runs.
    wait_for(lambda: len(os.listdir(f'/proc/{pid}/fd')) < files)
    assert len(os.listdir(f'/proc/{pid}/task')) <= threads
    assert devices(trivisor) == {}
    trivisor('kill', 'box')
    p.wait()
    for fd in fds:
        os.close(fd)


def ejector():
    """A Linux program that writes all ones to the register that ejects."""
    code = bytes.fromhex('b8ac000000 bf03000000 0f05'  # iopl(3)
                         'ba18060000 b8ffffffff ef'  # outl(0xffffffff, 0x618)
                         '31ff b83c000000 0f05')  # exit(0)
    size = 120 + len(code)
    head = struct.pack('<16sHHIQQQIHHHHHH', b'\x7fELF\2\1\1', 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack('<IIQQQQQQ', 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000) + code


def test_a_guest_that_ejects_when_it_likes(guest, trivisor, blank):
    """Under load, without a word to its driver, which waits for ever then; and what it has not seen yet."""
    boot_disk = blank('boot')
    with open(boot_disk, 'r+b') as f:
        f.write(ejector())
    g = guest('-d', boot_disk, cpus=2)
    appears(g, '/dev/vda')
    g.run('head -c 512 /dev/vda > /tmp/eject; chmod +x /tmp/eject; /tmp/eject')
    for turn in range(6):
        image = blank(f'{turn}')
        trivisor('plug', 'box', '-d', image)
        if not turn:
            appears(g, '/dev/vdb')
            g.run('for i in 1 2 3; do dd if=/dev/zero of=/dev/vdb bs=256k oflag=direct 2>/dev/null & done; '
                  'while [ "$(cat /sys/block/vdb/inflight)" = "       0        0" ]; do :; done')
        g.run('/tmp/eject')
        wait_for(lambda: list(devices(trivisor)) == ['disk0'])
        qemu_img('resize', '-f', 'raw', image, '32M')
    g.run('/tmp/eject; head -c 65536 /dev/vda | sha256sum')
    trivisor('kill', 'box')


def restore(program, saved, *args):
    p = subprocess.Popen([program, 'restore', str(saved), '--name', 'box', '-q', '--serial', 'pty', *args],
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: 'box' in running(program))
    return p


def end(p):
    p.kill()
    p.wait()


def test_saved_in_the_middle_of_an_ejection(guest, trivisor, program, runtime_dir, blank, tmp_path):
    """The guest was asked and has not had the time: it does so in its next life."""
    saved = tmp_path / 'box.vm'
    g = guest()
    trivisor('plug', 'box', '-d', blank('a'))
    appears(g, '/dev/vda')
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s, open(saved, 'xb') as f:
        s.connect(str(runtime_dir / 'box.control'))
        replies = s.makefile('rb')
        s.sendall(b'{"command":"unplug","device":"disk0"}\n')
        socket.send_fds(s, [b'{"command":"snapshot","stop":true}\n'], [f.fileno()])
        assert b'"listening":true' in replies.readline()
        assert b'"ok":true' in replies.readline()
    g.wait_end()
    p = restore(program, saved)
    wait_for(lambda: not devices(trivisor))
    qemu_img('resize', '-f', 'raw', tmp_path / 'a', '32M')
    end(p)


def test_saved_with_what_was_plugged(guest, trivisor, program, blank, tmp_path):
    a, b, saved, port = blank('a'), blank('b'), tmp_path / 'box.vm', free_port()
    g = guest('-d', blank('boot'))
    trivisor('plug', 'box', '-d', a)
    trivisor('plug', 'box', '-d', f'{b},id=data')
    trivisor('plug', 'box', '-n', 'user')
    trivisor('plug', 'box', '-n', 'user', '-p', f'127.0.0.1:{port}:80')
    trivisor('unplug', 'box', 'net0')
    g.run('mkdir /tmp/w; echo hello > /tmp/w/x; httpd -p 80 -h /tmp/w')
    appears(g, '/sys/class/net/eth*')
    g.run('udhcpc -q -n -i $(basename /sys/class/net/eth*) >/dev/null 2>&1')
    assert fetch(port, 'x') == b'hello\n'
    appears(g, '/dev/vdc')
    trivisor('unplug', 'box', 'disk1')
    out = g.run('mke2fs /dev/vdb >/dev/null 2>&1 || mke2fs /dev/vdc >/dev/null 2>&1; sync; ls /dev/vd?; '
                'cat /sys/class/block/vd*/device/driver/uevent; echo 3 > /proc/sys/vm/drop_caches')
    left = '/dev/vdc' if '/dev/vdc' in out else '/dev/vdb'
    trivisor('snapshot', 'box', saved, '--stop')
    g.wait_end()
    digest = sha(b)

    p = restore(program, saved)
    assert [(d, v['slot']) for d, v in devices(trivisor).items()] == [('disk0', 1), ('data', 25), ('net1', 27)]
    assert fetch(port, 'x') == b'hello\n'
    trivisor('unplug', 'box', 'data')
    trivisor('plug', 'box', '-d', a)
    end(p)
    assert sha(b) == digest
    # A clone, with a copy of each.
    os.rename(b, tmp_path / 'copy')
    p = restore(program, saved, '-d', str(tmp_path / 'boot'), '-d', str(tmp_path / 'copy'))
    assert devices(trivisor)['data']['value'] == str(tmp_path / 'copy')
    assert fetch(port, 'x') == b'hello\n'
    trivisor('unplug', 'box', 'net1')
    end(p)
    r = subprocess.run([program, 'restore', str(saved), '-q', '-d', str(tmp_path / 'boot')], capture_output=True,
                       stdin=subprocess.DEVNULL, text=True, timeout=LIMIT, check=False)
    assert r.returncode == 125 and r.stderr.count('\n') == 1, r.stderr
    assert left
