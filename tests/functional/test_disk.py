# SPDX-License-Identifier: Apache-2.0
"""Disks (-d) under a stock kernel: data, flush, discard, read-only, identity, several queues, INTx."""
import hashlib
import os
import subprocess

import pytest

from conftest import LIMIT

DATA = 'dd if=/dev/urandom of=/tmp/x bs=64k count=64 2>/dev/null'


@pytest.fixture
def disk(tmp_path):
    """disk(size, name) makes an empty raw image."""

    def make(size, name='disk.raw'):
        path = tmp_path / name
        with open(path, 'wb') as f:
            f.truncate(size)
        return str(path)

    return make


def sha(path, n):
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read(n)).hexdigest()


@pytest.mark.parametrize('append,cpus', [('', 1), ('', 2), ('pci=nomsi', 1)])
def test_what_the_guest_writes_is_in_the_image(batch, virtio_image, disk, append, cpus):
    image = disk(16 << 20)
    r = batch(f'{DATA}; dd if=/tmp/x of=/dev/vda bs=1M conv=fsync 2>/dev/null && sha256sum /tmp/x', cpus=cpus,
              initrd=virtio_image, args=['-d', image], append=append)
    assert r.returncode == 0, r.stderr
    assert sha(image, 4 << 20) in r.stdout
    assert os.path.getsize(image) == 16 << 20


def test_requests_of_all_pieces_a_queue_takes(batch, virtio_image, disk):
    image = disk(16 << 20)
    r = batch(f'{DATA}; cat /sys/block/vda/queue/max_segments; sha256sum /tmp/x; '
              'dd if=/tmp/x of=/dev/vda bs=1M oflag=direct && dd if=/dev/vda bs=1M count=4 iflag=direct | sha256sum',
              initrd=virtio_image, args=['-d', image])
    assert '254' in r.stdout.split(), r.stdout[-800:]
    assert r.stdout.count(sha(image, 4 << 20)) == 2, r.stdout[-800:]


def test_a_file_system_survives(batch, virtio_image, disk):
    image = disk(64 << 20)
    r = batch('mke2fs /dev/vda >/dev/null 2>&1 && mount -t ext2 /dev/vda /tmp && cp -r /bin /tmp && umount /tmp',
              initrd=virtio_image, args=['-d', image])
    assert 'exit 0' in r.stdout, r.stdout[-800:]
    e2fsck = subprocess.run(['e2fsck', '-fn', image], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert e2fsck.returncode == 0, e2fsck.stdout


def test_qcow2(batch, virtio_image, tmp_path):
    image = str(tmp_path / 'disk.qcow2')
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', image, '64M'], check=True, timeout=LIMIT)
    r = batch(f'{DATA}; dd if=/tmp/x of=/dev/vda bs=1M seek=3 conv=fsync 2>/dev/null && sha256sum /tmp/x',
              initrd=virtio_image, args=['-d', image + ',format=qcow2'])
    assert 'exit 0' in r.stdout, r.stdout[-800:]
    check = subprocess.run(['qemu-img', 'check', image], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert check.returncode == 0, check.stdout + check.stderr
    raw = str(tmp_path / 'raw')
    subprocess.run(['qemu-img', 'convert', '-O', 'raw', image, raw], check=True, timeout=LIMIT)
    with open(raw, 'rb') as f:
        f.seek(3 << 20)
        assert hashlib.sha256(f.read(4 << 20)).hexdigest() in r.stdout


def test_discard_gives_space_back(batch, virtio_image, disk):
    image = disk(16 << 20)
    with open(image, 'r+b') as f:
        f.write(b'x' * (16 << 20))
    assert os.stat(image).st_blocks * 512 >= 16 << 20
    r = batch('blkdiscard /dev/vda && hexdump -n 64 /dev/vda', initrd=virtio_image, args=['-d', image])
    assert 'exit 0' in r.stdout, r.stdout[-800:]
    assert os.stat(image).st_blocks * 512 < 1 << 20


def test_read_only(batch, virtio_image, disk):
    image = disk(1 << 20)
    before = sha(image, 1 << 20)
    r = batch('cat /sys/block/vda/ro; echo x > /dev/vda; dd if=/dev/vda of=/dev/null', initrd=virtio_image,
              args=['-d', image + ',ro'])
    assert r.returncode == 0 and 'exit 0' in r.stdout, r.stdout[-800:]
    assert sha(image, 1 << 20) == before


def test_serial_and_order(batch, virtio_image, disk):
    a, b = disk(1 << 20, 'a'), disk(2 << 20, 'b')
    r = batch('cat /sys/block/vda/serial /sys/block/vda/size /sys/block/vdb/serial /sys/block/vdb/size',
              initrd=virtio_image, args=['-d', a + ',serial=first', '-d', b + ',serial=second'])
    # sysfs ends a serial number without a new line
    assert 'first2048' in r.stdout.replace('\r', '').replace('\n', ''), r.stdout[-800:]
    assert 'second4096' in r.stdout.replace('\r', '').replace('\n', ''), r.stdout[-800:]


def test_the_driver_comes_and_goes_under_load(batch, virtio_image, disk):
    """Resets with requests in flight: nothing hangs, and the disk works afterwards."""
    image = disk(64 << 20)
    r = batch('for i in 1 2 3 4 5; do dd if=/dev/zero of=/dev/vda bs=256k count=200 2>/dev/null & '
              'dev=$(basename $(readlink -f /sys/block/vda/device)); '
              'echo $dev > /sys/bus/virtio/drivers/virtio_blk/unbind; wait; '
              'echo $dev > /sys/bus/virtio/drivers/virtio_blk/bind; done; '
              'dd if=/dev/vda of=/dev/null bs=1M && echo still here', initrd=virtio_image, args=['-d', image])
    assert 'still here' in r.stdout, r.stdout[-800:]


@pytest.mark.parametrize('arg,line', [
    ('/nonexistent', 'No such file'),
    ('/dev/null', ''),
])
def test_bad_disks_are_refused_in_one_line(program, kernel, arg, line):
    r = subprocess.run([program, 'run', '-k', kernel, '-d', arg], capture_output=True, text=True, timeout=LIMIT,
                       stdin=subprocess.DEVNULL, check=False)
    assert r.returncode == 125
    assert len(r.stderr.splitlines()) == 1 and line in r.stderr, r.stderr
