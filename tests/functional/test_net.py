# SPDX-License-Identifier: Apache-2.0
"""Networks: a stock kernel's virtio driver, user mode and tap, and what happens when things go wrong."""
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from conftest import ROOT, trouble

NET = os.path.join(ROOT, 'build', 'bench', 'net')


@pytest.fixture(scope='module')
def image(kernel):
    """An initramfs with virtio drivers and the program `net`, which NET is on the host."""
    r = subprocess.run(['ninja', '-C', os.path.join(ROOT, 'build'), 'bench/net.img', 'bench/net'],
                       capture_output=True, text=True, timeout=300, check=False)
    assert r.returncode == 0, f'no guest image: {r.stdout[-2000:]}{r.stderr}'
    return os.path.join(ROOT, 'build', 'bench', 'net.img')


@pytest.fixture
def on_host():
    """on_host('serve', PORT) runs NET on the host until the test ends."""
    running = []

    def go(*args):
        p = subprocess.Popen([NET, *map(str, args)], stdout=subprocess.PIPE, text=True)
        running.append(p)
        assert 'ready' in p.stdout.readline()

    yield go
    for p in running:
        p.kill()
        p.wait()
        p.stdout.close()


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def host_net(*args):
    r = subprocess.run([NET, *map(str, args)], capture_output=True, text=True, timeout=60, check=False)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout


def helper_of(pid):
    """The process of a user-mode network below pid."""
    pids = [pid]
    for p in pids:
        with open(f'/proc/{p}/comm', encoding='ascii') as f:
            if f.read().strip() == 'trivisor-net':
                return p
        with open(f'/proc/{p}/task/{p}/children', encoding='ascii') as f:
            pids += [int(c) for c in f.read().split()]
    raise AssertionError('there is no helper process')


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.02)


def gone(pid):
    """No such process, or a zombie nobody of ours is the parent of."""
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii') as f:
            return f.read().rsplit(')', 1)[1].split()[0] == 'Z'
    except OSError:
        return True


def lease(console):
    out = console.run('udhcpc -q -n -i eth0 2>&1')
    assert 'lease of 10.0.2.15 obtained from 10.0.2.2' in out, out


def test_user_network(boot, image, on_host):
    """What people do with one, in one guest."""
    port, udp, published, published_udp = free_port(), free_port(socket.SOCK_DGRAM), free_port(), \
        free_port(socket.SOCK_DGRAM)
    on_host('serve', port)
    on_host('echo', udp)
    g = boot(cpus=2, initrd=image, args=['-n', 'user,hostname=guest-one', '-p', f'{published}:7',
                                         '-p', f'udp:127.0.0.1:{published_udp}:9']).shell()
    lease(g)
    assert g.run('hostname') == 'guest-one'
    assert '52:54:00:12:34:56' in g.run('cat /sys/class/net/eth0/address')
    assert '3 packets received' in g.run('ping -c 3 -i 0.1 10.0.2.2')
    # Downloads and uploads, every byte checked; the address of the host is its loopback.
    assert 'net get' in g.run(f'net get -c 10.0.2.2 {port} 64')
    assert 'net put' in g.run(f'net put -c 10.0.2.2 {port} 64')
    # Several at once, both ways.
    g.run(f'for i in 1 2 3; do net get -c 10.0.2.2 {port} 8 & net put -c 10.0.2.2 {port} 8 & done; wait')
    # Datagrams, fragmented ones too.
    for size in (1, 1000, 4000):
        assert '20 of 20' in g.run(f'net ping 10.0.2.2 {udp} 20 {size}')
    # IPv6, by router advertisement.
    wait_for(lambda: 'fec0' in g.run('ip -6 addr show dev eth0'))
    assert 'net get' in g.run(f'net get -c fec0::2 {port} 16')
    assert 'net put' in g.run(f'net put -c fec0::2 {port} 16')
    # Into the guest.
    g.run('net serve 7 >/tmp/serve & net echo 9 >/tmp/echo & sleep 0.2')
    wait_for(lambda: 'ready' in g.run('cat /tmp/serve /tmp/echo'))
    assert 'net get' in host_net('get', '-c', '127.0.0.1', published, 32)
    assert 'net put' in host_net('put', '-c', '127.0.0.1', published, 32)
    assert '10 of 10' in host_net('ping', '127.0.0.1', published_udp, 10, 500)
    # The big frames are really used: far fewer than there are segments.
    packets = int(g.run('cat /sys/class/net/eth0/statistics/rx_packets'))
    received = int(g.run('cat /sys/class/net/eth0/statistics/rx_bytes'))
    assert received > 5 * 1500 * packets, f'{received} bytes in {packets} packets'
    assert not trouble(g.run('dmesg'))
    assert g.poweroff() == 0


def test_driver_restart(boot, image, on_host):
    """The driver goes and comes back while data flows."""
    port = free_port()
    on_host('serve', port)
    g = boot(cpus=2, initrd=image, args=['-n', 'user']).shell()
    driver = '/sys/bus/virtio/drivers/virtio_net'
    name = g.run('basename $(readlink -f /sys/class/net/eth0/device)')
    for _ in range(2):
        lease(g)
        g.run(f'(net get 10.0.2.2 {port} 500; net put 10.0.2.2 {port} 500) >/tmp/out 2>&1 & sleep 0.3')
        g.run(f'echo {name} >{driver}/unbind')
        g.run('killall net; true')
        g.run(f'echo {name} >{driver}/bind')
    lease(g)
    g.run(f'net get -c 10.0.2.2 {port} 8')
    assert not trouble(g.run('dmesg'))
    assert g.poweroff() == 0


def test_restricted(boot, image, on_host):
    """restrict=on: nothing goes out, published ports work. Its driver gives plain frames only, and in the middle
    of a connection takes no others any more."""
    port, published = free_port(), free_port()
    on_host('serve', port)
    g = boot(initrd=image, append='virtio_net.gso=0 virtio_net.csum=0',
             args=['-n', 'user,restrict=on', '-p', f'127.0.0.1:{published}:7']).shell()
    lease(g)
    assert 'refused' in g.run(f'! net get 10.0.2.2 {port} 1')
    g.run('net serve 7 >/tmp/serve & sleep 0.2')
    wait_for(lambda: 'ready' in g.run('cat /tmp/serve'))
    host_net('get', '-c', '127.0.0.1', published, 8)
    with subprocess.Popen([NET, 'put', '-c', '127.0.0.1', str(published), '60'], stdout=subprocess.PIPE,
                          text=True) as p:
        g.run('net cut eth0')
        assert 'net put' in p.communicate(timeout=60)[0]
    # Frames of full size, and none bigger.
    statistics = '/sys/class/net/eth0/statistics'
    before = g.run(f'cat {statistics}/rx_packets {statistics}/rx_bytes').split()
    host_net('put', '-c', '127.0.0.1', published, 8)
    after = g.run(f'cat {statistics}/rx_packets {statistics}/rx_bytes').split()
    packets, received = (int(b) - int(a) for a, b in zip(before, after))
    assert 1000 * packets < received <= 1514 * packets
    assert g.poweroff() == 0


def test_nothing_stays(boot, image):
    """The program dies: its helper does, too, and the port is free."""
    published = free_port()
    g = boot(initrd=image, args=['-p', f'{published}:7']).shell()
    helper = helper_of(g.child.pid)
    with pytest.raises(OSError), socket.socket() as s:
        s.bind(('0.0.0.0', published))
    os.kill(g.child.pid, signal.SIGKILL)
    g.wait_end()
    wait_for(lambda: gone(helper))
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('0.0.0.0', published))


def test_helper(boot, image):
    """Its rights are few; when it dies, the guest sees its link go down and lives on."""
    g = boot(initrd=image, args=['-n', 'user,dns=10.0.2.9']).shell()
    lease(g)
    assert g.run('cat /etc/resolv.conf') == 'nameserver 10.0.2.9'
    helper = helper_of(g.child.pid)
    with open(f'/proc/{helper}/status', encoding='ascii') as f:
        status = dict(line.split(':\t', 1) for line in f if ':\t' in line)
    assert status['Name'].strip() == 'trivisor-net'
    assert int(status['CapEff'], 16) == int(status['CapBnd'], 16) == 0
    assert status['NoNewPrivs'].strip() == '1'
    assert status['Seccomp'].strip() == '2'
    # Nothing of the guest's memory is there.
    with open(f'/proc/{helper}/maps', encoding='utf-8') as f:
        maps = f.read()
    assert 'trivisor-ram' not in maps
    sizes = [int(b, 16) - int(a, 16) for a, b in re.findall(r'^([0-9a-f]+)-([0-9a-f]+) ', maps, re.M)]
    assert max(sizes) < 128 << 20
    fds = os.listdir(f'/proc/{helper}/fd')
    links = [os.readlink(f'/proc/{helper}/fd/{fd}') for fd in fds]
    assert sorted(links)[:2] == ['/dev/null', '/dev/null'] and len(links) == 4, links

    assert g.run('cat /sys/class/net/eth0/carrier') == '1'
    os.kill(helper, signal.SIGKILL)
    wait_for(lambda: g.run('cat /sys/class/net/eth0/carrier') == '0')
    g.run('! ping -c 1 -W 1 10.0.2.2')
    assert 'net: the helper process has ended' in g.text()
    assert g.poweroff() == 0


def refused(program, kernel, args, says):
    r = subprocess.run([program, 'run', '-k', kernel, *args], stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, timeout=30, check=False)
    assert r.returncode == 125, r.stderr
    assert len(r.stderr.splitlines()) == 1, r.stderr
    assert says in r.stderr, r.stderr


def test_taken_port(program, kernel):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        port = s.getsockname()[1]
        refused(program, kernel, ['-p', f'127.0.0.1:{port}:22'], f'TCP port {port} of the host: Address already')


def test_bad_options(program, kernel):
    refused(program, kernel, ['-n', 'bridge'], 'bridge')
    refused(program, kernel, ['-n', 'user,colour=red'], 'colour')
    refused(program, kernel, ['-n', 'user,mac=1'], 'mac=1')
    refused(program, kernel, ['-n', 'user', '-p', '22'], "'22'")
    refused(program, kernel, ['-n', 'none', '-p', '22:22'], '--net user')
    refused(program, kernel, ['-n', 'tap=no/name'], 'no/name')


def test_without_privilege(program, kernel, image, tmp_path):
    if os.getuid():
        pytest.skip('already without privilege')
    port = free_port()
    for src in (program, kernel, image):
        dst = tmp_path / os.path.basename(src)
        dst.write_bytes(open(src, 'rb').read())
        dst.chmod(0o755)
    for d in (tmp_path, *tmp_path.parents):
        if d.stat().st_mode & 1 == 0 and d != d.parent:
            d.chmod(d.stat().st_mode | 0o011)
    with subprocess.Popen([NET, 'serve', str(port)], stdout=subprocess.DEVNULL) as server:
        time.sleep(0.1)
        here = [str(tmp_path / os.path.basename(p)) for p in (program, kernel, image)]
        r = subprocess.run(
            [here[0], 'run', '-k', here[1], '-i', here[2], '-n', 'user', '-a',
             f'console=ttyS0 panic=-1 run="udhcpc -q -n; net get -c 10.0.2.2 {port} 4"'],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace', timeout=60, check=False,
            user=65534, group=65534, extra_groups=[])
        server.kill()
    assert re.search(r'net get 4194304 bytes', r.stdout), r.stdout[-1500:] + r.stderr


def namespace(script):
    """Runs a script in a network namespace of its own, where a tap device may be made."""
    return subprocess.run(['unshare', '-n', 'sh', '-ec', script], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, errors='replace', timeout=120, check=False)


@pytest.fixture(scope='module')
def may_tap():
    if not os.path.exists('/dev/net/tun'):
        pytest.skip('there is no /dev/net/tun')
    r = namespace('ip tuntap add probe mode tap')
    if r.returncode:
        pytest.skip(f'a network namespace with a tap device is not to be had: {r.stderr.strip()[:200]}')


@pytest.mark.parametrize('queues', [1, 2])
def test_tap(may_tap, program, kernel, image, queues):
    multi = 'multi_queue' if queues > 1 else ''
    run = ('ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0; ping -c 2 -i 0.2 10.9.0.1;'
           'net get -c 10.9.0.1 7 64; net put -c 10.9.0.1 7 64; ls /sys/class/net/eth0/queues')
    r = namespace(f'''
        ip tuntap add tap0 mode tap {multi}
        ip addr add 10.9.0.1/24 dev tap0
        ip link set tap0 up
        {NET} serve 7 >/dev/null & server=$!
        {program} run -k {kernel} -i {image} -c {queues} -n tap=tap0,queues={queues} -a \
            'console=ttyS0 panic=-1 run="{run}"'
        kill $server''')
    assert '2 packets received' in r.stdout, r.stdout[-2000:] + r.stderr
    assert 'net get 67108864' in r.stdout and 'net put 67108864' in r.stdout, r.stdout[-2000:] + r.stderr
    assert ('tx-1' in r.stdout) == (queues > 1), r.stdout[-500:]
    assert not trouble(r.stdout)


def test_tap_that_is_made(may_tap, program, kernel, image):
    """A device that is not there is made, up, and gone afterwards."""
    r = namespace(f'''
        {program} run -k {kernel} -i {image} -n tap=fresh0,mac=52:54:00:aa:bb:cc -a \
            'console=ttyS0 panic=-1 run="cat /sys/class/net/eth0/address /sys/class/net/eth0/carrier"'
        ! ip link show fresh0 2>/dev/null''')
    assert r.returncode == 0 and '52:54:00:aa:bb:cc' in r.stdout, r.stdout[-1000:] + r.stderr


def test_tap_errors(may_tap, program, kernel):
    one = f'{program} run -k {kernel} -n'
    r = namespace(f'''
        ip tuntap add tap0 mode tap
        {one} tap=lo 2>&1 || true
        {one} tap=tap0,queues=2 2>&1 || true
        setpriv --reuid 65534 --clear-groups --bounding-set -all {one} tap=tap0 2>&1 || true''')
    lines = r.stdout.splitlines()
    assert len(lines) == 3 and all('-n tap=' in line for line in lines), r.stdout + r.stderr
    assert 'several queues' in lines[1], r.stdout
    # /dev/net/tun is everybody's on most hosts, the interface is not.
    assert 'not permitted' in lines[2] or 'Permission denied' in lines[2], r.stdout


