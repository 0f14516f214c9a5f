# SPDX-License-Identifier: Apache-2.0
"""trivisor run DISK: the kernel comes out of the disk's file system, read by a confined process; a disk that
cannot be booted is refused in one line."""
import os
import random
import subprocess

import pytest

MIB = 1 << 20
ENV = {**os.environ, 'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin'}
START = MIB  # of the partition
FS_SIZE = 64 * MIB


def tool(*argv, **more):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENV, **more)


def make_disk(path, tree, kind='ext4', options=(), label='gpt'):
    """A disk image with one partition (label None: without) and tree's files in it."""
    at = START if label else 0
    with open(path, 'wb') as f:
        f.truncate(at + FS_SIZE + (MIB if label else 0))
    if label:
        tool('sfdisk', '-q', path, input=f'label: {label}\nstart=2048, size={FS_SIZE // 512}, type=linux\n'.encode())
    tool('mke2fs', '-q', '-F', '-t', kind, *options, '-E', f'offset={at}', '-d', str(tree), path,
         f'{FS_SIZE // 1024}k')
    return str(path)


@pytest.fixture(scope='module')
def tree(tmp_path_factory, kernel, initramfs):
    """What a small distribution would have installed."""
    d = tmp_path_factory.mktemp('tree')
    os.makedirs(d / 'boot')
    os.makedirs(d / 'etc')
    (d / 'etc/fstab').touch()
    for source, name in ((kernel, 'boot/vmlinuz-6.1'), (initramfs, 'boot/initrd.img-6.1')):
        with open(source, 'rb') as f, open(d / name, 'wb') as g:
            g.write(f.read())
    os.symlink('boot/vmlinuz-6.1', d / 'vmlinuz')
    os.symlink('boot/initrd.img-6.1', d / 'initrd.img')
    return d


def boot(program, disk, *args, append='panic=-1 run="cat /proc/cmdline"'):
    return subprocess.run([program, 'run', '-m', '256M', *args, str(disk), '-a', append],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace',
                          timeout=120, check=False)


def refused(program, disk, *names, args=()):
    r = boot(program, disk, *args)
    assert r.returncode == 125, r.stderr
    assert len(r.stderr.splitlines()) == 1, r.stderr
    for name in (f'trivisor: disk {disk}', *names):
        assert name in r.stderr, r.stderr


@pytest.mark.parametrize('kind,options,label', [
    ('ext4', (), 'gpt'), ('ext4', ('-b', '1024'), None), ('ext2', ('-b', '4096', '-I', '128'), 'dos')])
def test_boots(program, tree, tmp_path, kind, options, label):
    disk = make_disk(tmp_path / 'disk.img', tree, kind, options, label)
    r = boot(program, disk)
    assert r.returncode == 0, r.stderr
    line = [x for x in r.stdout.splitlines() if x.startswith('root=')][-1]
    assert line.startswith('root=UUID=') and ' ro console=ttyS0 panic=-1 run=' in line


def test_grub_chooses(program, tree, tmp_path):
    os.makedirs(tmp_path / 'tree')
    tool('cp', '-a', f'{tree}/.', str(tmp_path / 'tree'))
    os.makedirs(tmp_path / 'tree/boot/grub')
    (tmp_path / 'tree/boot/grub/grub.cfg').write_text(
        'menuentry "x" {\n  linux /boot/vmlinuz-6.1 root=LABEL=other ro chosen=grub\n'
        '  initrd /boot/initrd.img-6.1\n}\n')
    r = boot(program, make_disk(tmp_path / 'disk.img', tmp_path / 'tree'))
    assert r.returncode == 0, r.stderr
    assert 'root=LABEL=other ro chosen=grub console=ttyS0' in r.stdout


def test_qcow2_with_a_backing_file(program, tree, tmp_path):
    disk = make_disk(tmp_path / 'disk.img', tree)
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', disk, str(tmp_path / 'over.qcow2'))
    r = boot(program, tmp_path / 'over.qcow2', '--check')
    assert r.returncode == 0, r.stderr


def test_a_kernel_of_ones_own_comes_first(program, tree, tmp_path, kernel, initramfs):
    disk = make_disk(tmp_path / 'disk.img', tree)
    r = boot(program, disk, '-k', kernel, '-i', initramfs, append='console=ttyS0 panic=-1 run="cat /proc/cmdline"')
    assert r.returncode == 0, r.stderr
    assert 'root=' not in r.stdout


def test_what_cannot_be_read_is_named(program, tmp_path):
    for name, at, mark in (('XFS', 0, b'XFSB'), ('btrfs', 0x10040, b'_BHRfS_M'), ('LVM', 0x218, b'LVM2 001')):
        disk = tmp_path / name
        with open(disk, 'wb') as f:
            f.truncate(4 * MIB)
            f.seek(at)
            f.write(mark)
        refused(program, disk, name, '-k')
    refused(program, tmp_path / 'nothing-there', 'No such file')
    (tmp_path / 'empty').write_bytes(bytes(MIB))
    refused(program, tmp_path / 'empty', 'no kernel')


def test_a_kernel_that_is_none(program, tree, tmp_path):
    os.makedirs(tmp_path / 'tree')
    (tmp_path / 'tree/vmlinuz').write_text('no kernel at all\n')
    (tmp_path / 'tree/initrd.img').write_text('x')
    os.makedirs(tmp_path / 'tree/etc')
    (tmp_path / 'tree/etc/fstab').touch()
    disk = make_disk(tmp_path / 'disk.img', tmp_path / 'tree')
    r = boot(program, disk)
    assert r.returncode == 125
    assert r.stderr.startswith(f'trivisor: /vmlinuz of disk {disk} is no kernel'), r.stderr


def test_damage_is_survived(program, tree, tmp_path):
    """Flipped bytes in the file system's metadata: booted or refused, in no time, and never a crash."""
    disk = make_disk(tmp_path / 'disk.img', tree, options=('-O', '^metadata_csum'))
    with open(disk, 'rb') as f:
        good = f.read(START + MIB)
    chance = random.Random(7)
    refusals = 0
    for _ in range(25):
        bad = bytearray(good)
        for _ in range(chance.choice((1, 30, 3000))):
            bad[chance.randrange(START + 1024, len(bad))] = chance.randrange(256)
        with open(disk, 'r+b') as f:
            f.write(bad)
        r = boot(program, disk, '--check', '-q')
        assert r.returncode in (0, 125), r.stderr
        assert len(r.stderr.splitlines()) == (r.returncode == 125), r.stderr
        refusals += r.returncode == 125
    assert refusals


def test_a_truncated_image(program, tree, tmp_path):
    disk = make_disk(tmp_path / 'disk.img', tree)
    for size in (MIB + 512, MIB + 4096, 5 * MIB):
        os.truncate(disk, size)
        refused(program, disk)


def test_an_initrd_alone_is_refused(program, tree, tmp_path, initramfs):
    disk = make_disk(tmp_path / 'disk.img', tree)
    r = boot(program, disk, '-i', initramfs)
    assert r.returncode == 125 and '-i' in r.stderr and len(r.stderr.splitlines()) == 1
