# SPDX-License-Identifier: Apache-2.0
"""An acknowledged flush survives kill -9, and the image is never worse than leaky afterwards.

A writer (tests/blockio) is killed at random moments, again and again on one image. After each kill qemu-img
check may find leaked clusters and nothing else, and every sector must hold what the last acknowledged flush
left or what a later request wrote. TRIVISOR_CRASHES: kills an image (default 8), TRIVISOR_CRASH_SEED."""
import json
import os
import random
import shutil
import subprocess
import tempfile
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BLOCKIO = os.path.join(ROOT, 'build', 'tests', 'blockio', 'blockio')
KILLS = int(os.environ.get('TRIVISOR_CRASHES', '8'))
SEED = int(os.environ.get('TRIVISOR_CRASH_SEED', '1'))
LEAKS = 3  # qemu-img check's exit status

# name: (options of qemu-img create, size, base image or None, threads)
IMAGES = {
    'raw': (None, '24M', None, 2),
    'plain': ('cluster_size=64k', '24M', None, 4),
    'version-2': ('compat=0.10', '24M', 'raw', 2),
    'small-clusters': ('cluster_size=512,refcount_bits=64', '12M', None, 2),
    'backing': ('cluster_size=64k', '24M', 'qcow2', 4),
    'compressed': ('cluster_size=16k,refcount_bits=8', '24M', 'compressed', 3),
    'snapshot': ('cluster_size=32k', '24M', 'qcow2', 3),
    'extended': ('cluster_size=64k,extended_l2=on', '24M', 'raw', 4),
    'large-clusters': ('cluster_size=2M', '64M', None, 4),
}


def call(*argv, status=(0,)):
    r = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert r.returncode in status, f'{" ".join(argv)}: {r.returncode}: {r.stdout}{r.stderr}'
    return r.stdout


def check(image):
    out = json.loads(call('qemu-img', 'check', '-f', 'qcow2', '--output=json', image, status=(0, 2, LEAKS)))
    assert not out.get('corruptions') and not out.get('check-errors'), out


@pytest.fixture
def where():
    """In memory: a killed process is not a crashed host, and syncs are slow."""
    path = tempfile.mkdtemp(prefix='trivisor-crash-', dir='/dev/shm' if os.access('/dev/shm', os.W_OK) else None)
    yield path
    shutil.rmtree(path)


def make(where, name):
    options, size, base, _ = IMAGES[name]
    image = os.path.join(where, 'disk.raw' if options is None else 'disk.qcow2')
    more = []
    if base:
        raw = os.path.join(where, 'base.raw')
        call('qemu-img', 'create', '-q', '-f', 'raw', raw, size)
        call(BLOCKIO, raw, 'fill', '1')
        more = ['-b', raw, '-F', 'raw']
        if base != 'raw':
            packed = os.path.join(where, 'base.qcow2')
            call('qemu-img', 'convert', '-q', '-O', 'qcow2', *(['-c'] if base == 'compressed' else []), raw, packed)
            more = ['-b', packed, '-F', 'qcow2']
    if options is None:
        call('qemu-img', 'create', '-q', '-f', 'raw', image, size)
    else:
        call('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, *more, image, size)
    return image


def run_and_kill(image, seed, first, threads, rng):
    """The last request of every thread whose flush was acknowledged."""
    acknowledged = [0] * threads
    p = subprocess.Popen([BLOCKIO, image, 'crash-write', str(seed), str(first), str(threads)],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(rng.choice((0, 1, 5, 20, 60))):
            line = p.stdout.readline()
            assert line, p.stderr.read()
            t, i = map(int, line.split())
            acknowledged[t] = i
        time.sleep(rng.random() ** 3 * 0.02)  # anywhere between two flushes
    finally:
        p.kill()
    out, err = p.stdout.read(), p.stderr.read()
    assert p.wait() == -9, err
    for line in out.splitlines(keepends=True):
        if line.endswith('\n'):
            t, i = map(int, line.split())
            acknowledged[t] = i
    return acknowledged


@pytest.mark.skipif(not shutil.which('qemu-img'), reason='needs qemu-utils')
@pytest.mark.parametrize('name', IMAGES)
def test_killed(where, name):
    rng = random.Random(f'{SEED} {name}')
    threads = IMAGES[name][3]
    image = make(where, name)
    qcow2 = image.endswith('.qcow2')
    state = os.path.join(where, 'state')
    first = 2
    if IMAGES[name][2]:
        # What is there before is the base's.
        size = os.path.getsize(os.path.join(where, 'base.raw')) // 512
        with open(state, 'wb') as f:
            for s in range(0, size, 128):
                f.write((b'\1' if s // 128 % 2 == 0 else b'\0').ljust(8, b'\0') * min(128, size - s))
    for n in range(KILLS):
        seed = rng.getrandbits(32)
        acknowledged = run_and_kill(image, seed, first, threads, rng)
        if qcow2:
            check(image)
        out = call(BLOCKIO, f'{image}{",ro" if n % 2 else ""}', 'crash-check', str(seed), str(first), str(threads),
                   state, *map(str, acknowledged))
        first = int(out)
        if name == 'snapshot' and n % 4 == 1:
            call('qemu-img', 'snapshot', '-c', f's{n}', image)
        if qcow2 and n % 4 == 3:
            call('qemu-img', 'check', '-q', '-r', 'leaks', image)
