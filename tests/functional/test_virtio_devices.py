# SPDX-License-Identifier: Apache-2.0
"""Small virtio devices with a stock kernel's drivers."""
import collections
import math

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
