# SPDX-License-Identifier: Apache-2.0
"""Small virtio devices with a stock kernel's drivers."""
import collections
import hashlib
import math
import re
import socket
import subprocess
import threading
import time

import pytest


@pytest.fixture
def vboot(boot, virtio_image):
    """boot() with the drivers of virtio devices."""
    return lambda **more: boot(initrd=virtio_image, **more)


def entropy(data):
    """Bits a byte."""
    return -sum(n / len(data) * math.log2(n / len(data)) for n in collections.Counter(data).values())


@pytest.mark.parametrize('cpus,append', [(1, ''), (2, 'pci=nomsi')])
def test_rng(vboot, cpus, append):
    guest = vboot(cpus=cpus, append=append).shell()
    assert 'virtio_rng' in guest.run('cat /sys/class/misc/hw_random/rng_current')
    text = guest.run('dd if=/dev/hwrng bs=4096 count=16 2>/dev/null | xxd -p')
    data = bytes.fromhex(text.replace('\n', ''))
    assert len(data) == 65536
    assert entropy(data) > 7.99
    # Away and back while it is read, again and again
    guest.run('(while :; do cat /dev/hwrng; done 2>/dev/null | dd of=/dev/null bs=512 count=100000 2>/dev/null) & '
              'cd /sys/bus/virtio/drivers/virtio_rng; d=$(echo virtio*); '
              'for i in $(seq 30); do echo $d > unbind; echo $d > bind; done; kill %1; cd /')
    assert len(guest.run('dd if=/dev/hwrng bs=64 count=1 2>/dev/null | xxd -p -c 64')) == 128
    assert guest.poweroff() == 0


# --- console and ports ------------------------------------------------------------------------------------

# The device of a port by its name: there is no udev in this guest.
FIND_PORT = 'port() { for p in /sys/class/virtio-ports/*; do grep -qsx "$1" $p/name && echo /dev/${p##*/}; done; }'
MIB10 = 10 << 20


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(str(path))
    return s


def receive(s, n):
    data = bytearray()
    while len(data) < n:
        piece = s.recv(min(65536, n - len(data)))
        assert piece, f'the connection ended after {len(data)} of {n} bytes'
        data += piece
    return bytes(data)


@pytest.mark.parametrize('cpus,append', [(1, 'pci=nomsi'), (2, '')])
def test_ports_carry_everything(vboot, tmp_path, cpus, append):
    guest = vboot(cpus=cpus, append=append, args=('--port', f'org.example.0=unix:{tmp_path}/a',
                                                  '--port', f'second=unix:{tmp_path}/b')).shell()
    guest.run(FIND_PORT)
    assert guest.run('cat /sys/class/virtio-ports/*/name').split() == ['org.example.0', 'second']
    guest.run('head -c 10485760 /dev/urandom > /tmp/data')
    digest = guest.run('sha256sum < /tmp/data').split()[0]
    with connect(tmp_path / 'a') as a:
        # Out, to a reader who is slow at first
        guest.run('cat /tmp/data > $(port org.example.0) & sleep 1')
        data = receive(a, MIB10)
        assert hashlib.sha256(data).hexdigest() == digest
        # In, to a guest that does not read at first
        sender = threading.Thread(target=a.sendall, args=(data,))
        sender.start()
        assert guest.run('sleep 1; head -c 10485760 < $(port org.example.0) | sha256sum').split()[0] == digest
        sender.join(60)
        # Both at once
        sender = threading.Thread(target=a.sendall, args=(data,))
        sender.start()
        guest.run('exec 5<> $(port org.example.0); cat /tmp/data >&5 & '
                  'head -c 10485760 <&5 | sha256sum > /tmp/sum')
        assert hashlib.sha256(receive(a, MIB10)).hexdigest() == digest
        sender.join(60)
        assert guest.run('while [ ! -s /tmp/sum ]; do sleep 0.1; done; exec 5>&-; cat /tmp/sum').split()[0] == digest
    # Somebody else comes, to the other one meanwhile too
    with connect(tmp_path / 'a') as a, connect(tmp_path / 'b') as b:
        guest.run('echo to a > $(port org.example.0); echo to b > $(port second)')
        assert receive(a, 5) == b'to a\n'
        assert receive(b, 5) == b'to b\n'
        b.sendall(b'line\n')
        assert guest.run('head -n 1 < $(port second)') == 'line'
    # Drivers that come and go
    guest.run('cd /sys/bus/virtio/drivers/virtio_console; d=$(echo virtio*); '
              'for i in $(seq 20); do echo $d > unbind; echo $d > bind; done; cd /')
    with connect(tmp_path / 'b') as b:
        guest.run('echo again > $(port second)')
        assert receive(b, 6) == b'again\n'
    assert guest.poweroff() == 0


def test_shell_on_the_virtio_console(vboot, tmp_path):
    """On the user's terminal, whose size it knows."""
    guest = vboot(cpus=2, append='console=hvc0', args=('--serial', f'file:{tmp_path}/serial', '--virtio-console',
                                                       'stdio')).shell()
    assert guest.run('stty size; readlink /proc/self/fd/0').split() == ['50', '200', '/dev/hvc0']
    guest.child.setwinsize(31, 77)
    guest.run('until [ "$(stty size)" = "31 77" ]; do sleep 0.1; done')
    assert guest.poweroff() == 0


def test_virtio_console(program, kernel, virtio_image, tmp_path):
    """A shell on hvc0, commands from a pipe, and more output than any buffer holds."""
    argv = [program, 'run', '--engine', 'bt', '-k', kernel, '-i', virtio_image, '-m', '256M',
            '--serial', f'file:{tmp_path}/serial', '--virtio-console', 'stdio', '-a',
            'console=ttyS0 panic=-1 '
            'run="(echo ready; head -n 1) < /dev/hvc0 > /dev/hvc0; seq 1 200000 > /tmp/s; cat /tmp/s > /dev/hvc0"']
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as p:
        watchdog = threading.Timer(90, p.kill)
        watchdog.start()
        try:
            assert b'ready' in p.stdout.readline()  # what is typed before anybody listens is lost
            out, _ = p.communicate(b'typed on hvc0\n', timeout=90)
        finally:
            watchdog.cancel()
            p.kill()
    assert p.returncode == 0
    text = out.decode().replace('\r', '')
    assert 'typed on hvc0\n' in text
    assert text[text.index('1\n2\n3\n'):].split() == [str(n) for n in range(1, 200001)]


# --- balloon ----------------------------------------------------------------------------------------------

MIB = 1024  # KiB


def guest_memory(guest, size):
    """KiB of its RAM, a mapping of so many MiB, that the machine has from the host."""
    pid = guest.child.pid
    # The machine may be a child of the process that holds the terminal.
    with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as f:
        pids = [pid, *map(int, f.read().split())]
    resident = []
    ram = False
    for p in pids:
        with open(f'/proc/{p}/smaps', encoding='ascii', errors='replace') as f:
            for line in f:
                m = re.match('([0-9a-f]+)-([0-9a-f]+) ', line)
                if m:
                    ram = int(m[2], 16) - int(m[1], 16) == size << 20
                elif ram and line.startswith('Rss:'):
                    resident.append(int(line.split()[1]))
    assert len(resident) == 1
    return resident[0]


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it did not happen'
        time.sleep(0.2)


def test_freed_memory_goes_back_to_the_host(vboot):
    guest = vboot(memory='512M').shell()
    guest.run('dd if=/dev/zero of=/tmp/x bs=1M count=200 2>/dev/null')
    used = guest_memory(guest, 512)
    guest.run('rm /tmp/x')
    wait_for(lambda: guest_memory(guest, 512) < used - 150 * MIB)
    # And is good memory again
    guest.run('dd if=/dev/urandom of=/tmp/y bs=1M count=20 2>/dev/null; cp /tmp/y /tmp/z; '
              'dd if=/dev/zero of=/tmp/x bs=1M count=200 2>/dev/null; cmp /tmp/y /tmp/z')
    assert guest.poweroff() == 0


def test_balloon(vboot):
    guest = vboot(memory='512M', cpus=2, append='pci=nomsi', args=('--balloon', '200M')).shell()
    free = 'awk "/MemFree/ { print \\$2 }" /proc/meminfo'
    guest.run(f'until [ $({free}) -lt {260 * MIB} ]; do sleep 0.1; done')
    assert guest_memory(guest, 512) < 300 * MIB
    # The driver goes, and the guest has its memory back, again and again
    guest.run('cd /sys/bus/virtio/drivers/virtio_balloon; d=$(echo virtio*)')
    for _ in range(3):
        guest.run(f'echo $d > unbind; [ $({free}) -gt {350 * MIB} ]')
        guest.run(f'echo $d > bind; until [ $({free}) -lt {260 * MIB} ]; do sleep 0.1; done')
    assert guest.poweroff() == 0


def test_balloon_of_all_memory(program, kernel):
    r = subprocess.run([program, 'run', '-k', kernel, '-m', '256M', '--balloon', '256M'], capture_output=True,
                       text=True, timeout=30, check=False)
    assert r.returncode == 125
    assert '--balloon' in r.stderr
