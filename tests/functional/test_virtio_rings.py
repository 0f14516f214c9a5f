# SPDX-License-Identifier: Apache-2.0
"""A stock kernel's drivers without one or another of the things virtio devices offer."""
import hashlib
import os
import socket
import subprocess

import pytest

from conftest import ROOT, trouble

NET = os.path.join(ROOT, 'build', 'bench', 'net')
BITS = {'indirect': 28, 'event-idx': 29, 'packed': 34}  # virtio 1.2 6


@pytest.fixture(scope='module')
def image(kernel):
    """An initramfs with virtio drivers and the program `net`, which NET is on the host."""
    r = subprocess.run(['ninja', '-C', os.path.join(ROOT, 'build'), 'bench/net.img', 'bench/net'],
                       capture_output=True, text=True, timeout=300, check=False)
    assert r.returncode == 0, f'no guest image: {r.stdout[-2000:]}{r.stderr}'
    return os.path.join(ROOT, 'build', 'bench', 'net.img')


@pytest.fixture(scope='module')
def port():
    """A port of the host where NET serves."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        number = s.getsockname()[1]
    with subprocess.Popen([NET, 'serve', str(number)], stdout=subprocess.PIPE, text=True) as p:
        assert 'ready' in p.stdout.readline()
        yield number
        p.kill()


# With everything is what all other tests are.
@pytest.mark.parametrize('without', ['packed', 'event-idx', 'indirect,msix', 'packed,event-idx,indirect'])
def test_disk_and_network(boot, image, port, tmp_path, without):
    disk = tmp_path / 'disk'
    disk.write_bytes(os.urandom(8 << 20))
    g = boot(cpus=2, initrd=image, args=['-d', str(disk), '-n', 'user', '--virtio-without', without]).shell()
    # What the drivers took is all that is left.
    for dev in ('/sys/block/vda/device', '/sys/class/net/eth0/device'):
        features = g.run(f'cat {dev}/features')
        for name, bit in BITS.items():
            assert features[bit] == str(int(name not in without.split(','))), f'{dev} {name}: {features}'
    assert ('PCI-MSI' in g.run('cat /proc/interrupts')) == ('msix' not in without)
    # Reading, writing, a flush
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    assert digest in g.run('sha256sum /dev/vda')
    g.run('dd if=/dev/urandom of=/tmp/x bs=64k count=64 2>/dev/null; '
          'dd if=/tmp/x of=/dev/vda bs=64k seek=32 conv=fsync 2>/dev/null')
    data = disk.read_bytes()
    assert hashlib.sha256(data[2 << 20:6 << 20]).hexdigest() in g.run('sha256sum /tmp/x')
    # Both ways, every byte checked
    g.run('udhcpc -q -n -i eth0')
    g.run(f'net get -c 10.0.2.2 {port} 8 & net put -c 10.0.2.2 {port} 8 & wait')
    # Drivers that come again find a device as new
    g.run('cd /sys/bus/virtio/drivers/virtio_blk; d=$(echo virtio*); echo $d > unbind; echo $d > bind; cd /; '
          'dd if=/dev/vda of=/dev/null bs=1M 2>/dev/null')
    assert g.poweroff() == 0
    assert not trouble(g.text())
