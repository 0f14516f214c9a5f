# SPDX-License-Identifier: Apache-2.0
"""qcow2 images that QEMU left with refcounts it had only in memory (lazy_refcounts): they are rebuilt when such an
image is opened for writing, and qemu-img check finds nothing afterwards, not even leaks."""
import json
import os
import random
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BLOCKIO = os.path.join(ROOT, 'build', 'tests', 'blockio', 'blockio')
MIB = 1 << 20
SIZE = 64 * MIB

pytestmark = pytest.mark.skipif(not shutil.which('qemu-io'), reason='needs qemu-utils')

IMAGES = {
    'plain': '',
    'small-clusters': 'cluster_size=512',
    'large-clusters': 'cluster_size=2M',
    'refcounts-of-one-bit': 'refcount_bits=1',
    'refcounts-of-eight-bytes': 'refcount_bits=64,cluster_size=4k',
    'extended': 'extended_l2=on',
    'compressed': '',
    'snapshots': 'cluster_size=16k',
}


def call(*argv, status=0, text=None):
    r = subprocess.run(argv, input=text, stdin=subprocess.DEVNULL if text is None else None, capture_output=True,
                       text=True, timeout=120, check=False)
    assert r.returncode == status, f'{" ".join(argv)}: {r.returncode}: {r.stdout[-2000:]}{r.stderr[-2000:]}'
    return r


def check(image):
    r = subprocess.run(['qemu-img', 'check', '-f', 'qcow2', '--output=json', image], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=120, check=False)
    out = json.loads(r.stdout)
    return out.get('corruptions', 0) + out.get('check-errors', 0), out.get('leaks', 0)


def marked(image):
    with open(image, 'rb') as f:
        f.seek(79)
        return f.read(1)[0] & 1


def lazily(image, known, rng):
    """QEMU writes and unmaps here and there, and is killed; known: what each 64 KiB holds."""
    argv = ['qemu-io', '-f', 'qcow2', '-d', 'unmap']
    for n in range(24):
        first, value = rng.randrange(len(known) - 4), rng.randrange(1, 256)
        count = rng.randrange(1, 5)
        if n % 6 == 5:
            argv += ['-c', f'write -z -u {first << 16} {count << 16}']
            value = 0
        else:
            argv += ['-c', f'write -P {value} {first << 16} {count << 16}']
        known[first:first + count] = [value] * count
    # Data and the tables that name it are on disk; what counts them need not be.
    call(*argv, '-c', 'flush', '-c', 'sigraise 9', image, status=-9)


def requests(known, what):
    return ''.join(f'{what} {i << 16} 65536 {v}\n' for i, v in enumerate(known))


@pytest.mark.parametrize('name', IMAGES)
def test_refcounts_are_rebuilt(tmp_path, name):
    rng = random.Random(name)
    image = str(tmp_path / 'disk.qcow2')
    options = ','.join(filter(None, ['lazy_refcounts=on', IMAGES[name]]))
    known = [0] * (SIZE >> 16)
    if name == 'compressed':
        raw = str(tmp_path / 'raw')
        with open(raw, 'wb') as f:
            for i in range(SIZE >> 16):
                known[i] = i % 3 * 40
                f.write(bytes([known[i]]) * 65536)
        call('qemu-img', 'convert', '-q', '-c', '-O', 'qcow2', '-o', options, raw, image)
    else:
        call('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, image, str(SIZE))
    stale = 0
    for turn in range(3):
        lazily(image, known, rng)
        assert marked(image)
        stale += check(image)[0]
        call(BLOCKIO, image + ',ro', 'script', text=requests(known, 'r'))
        assert marked(image)
        r = call(BLOCKIO, image, 'script', text='')
        assert 'rebuilt' in r.stderr and len(r.stderr.splitlines()) == 1
        assert not marked(image) and check(image) == (0, 0)
        # And it is used as any other one.
        known[turn] = 99
        r = call(BLOCKIO, image, 'script', text=f'w {turn << 16} 65536 99\nf\n' + requests(known, 'r'))
        assert not r.stderr and check(image) == (0, 0)
        if name == 'snapshots':
            call('qemu-img', 'snapshot', '-c', f's{turn}', image)
    assert stale or name == 'small-clusters'  # QEMU's cache is smaller than all its blocks
    if name == 'snapshots':
        for turn in (1, 0, 2):
            call('qemu-img', 'snapshot', '-d', f's{turn}', image)
        assert check(image) == (0, 0)
        call(BLOCKIO, image, 'script', text=requests(known, 'r'))


def test_a_full_disk_leaves_it_marked(tmp_path):
    """What cannot be written is not pretended."""
    image = str(tmp_path / 'disk.qcow2')
    call('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on', image, str(SIZE))
    lazily(image, [0] * (SIZE >> 16), random.Random(1))
    limit = 'trap "" XFSZ; ulimit -f 1; exec "$0" "$@"'
    r = call('sh', '-c', limit, BLOCKIO, image, 'script', status=1, text='')
    assert 'qemu-img check' in r.stderr and marked(image)
    call(BLOCKIO, image, 'script', text='')
    assert not marked(image) and check(image) == (0, 0)
