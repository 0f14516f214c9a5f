# SPDX-License-Identifier: Apache-2.0
"""Disk images shared with QEMU's tools: who holds one keeps the other out, and what one writes the other reads."""
import os
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BLOCKIO = os.path.join(ROOT, 'build', 'tests', 'blockio', 'blockio')

pytestmark = pytest.mark.skipif(not shutil.which('qemu-io'), reason='needs qemu-utils')


def call(*argv, text=None):
    return subprocess.run(argv, input=text, stdin=subprocess.DEVNULL if text is None else None,
                          capture_output=True, text=True, timeout=60, check=False)


def create(path, fmt, *more):
    assert call('qemu-img', 'create', '-q', '-f', fmt, *more, str(path), '8M').returncode == 0
    return str(path)


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_qemu_sees_our_lock(tmp_path, fmt):
    image = create(tmp_path / f'disk.{fmt}', fmt)
    p = subprocess.Popen([BLOCKIO, image, 'script'], stdin=subprocess.PIPE, text=True)
    try:
        p.stdin.write('w 0 512 7\nf\n')
        p.stdin.flush()
        for _ in range(200):  # until it is open
            r = call('qemu-io', '-f', fmt, '-c', 'write 0 512', image)
            if r.returncode:
                break
        assert r.returncode and 'lock' in r.stderr, r.stderr
        if fmt == 'qcow2':  # of raw images QEMU's readers let others write
            r = call('qemu-io', '-r', '-f', fmt, '-c', 'read 0 512', image)
            assert r.returncode and 'lock' in r.stderr, r.stderr
    finally:
        p.stdin.close()
        assert p.wait(timeout=30) == 0
    assert call('qemu-io', '-f', fmt, '-c', 'write 0 512', image).returncode == 0


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_we_see_qemus_lock(tmp_path, fmt):
    image = create(tmp_path / f'disk.{fmt}', fmt)
    p = subprocess.Popen(['qemu-io', '-f', fmt, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        p.stdin.write('write -P 9 0 512\n')
        p.stdin.flush()
        while 'wrote' not in p.stdout.readline():
            pass
        for options in ('', ',ro'):
            r = call(BLOCKIO, image + options, 'script', text='')
            assert r.returncode == 1
            assert image in r.stderr and 'somebody else' in r.stderr and len(r.stderr.splitlines()) == 1
    finally:
        p.stdin.close()
        p.wait(timeout=30)
    assert call(BLOCKIO, image, 'script', text='r 0 512 9\n').returncode == 0


def test_readers_share(tmp_path):
    image = create(tmp_path / 'disk.qcow2', 'qcow2')
    p = subprocess.Popen(['qemu-io', '-r', '-f', 'qcow2', image], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True)
    try:
        p.stdin.write('read 0 512\n')
        p.stdin.flush()
        while 'read' not in p.stdout.readline():
            pass
        assert call(BLOCKIO, image + ',ro', 'script', text='r 0 512 0\n').returncode == 0
    finally:
        p.stdin.close()
        p.wait(timeout=30)


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_discard_gives_space_back(tmp_path, fmt):
    image = create(tmp_path / f'disk.{fmt}', fmt)
    call(BLOCKIO, image, 'script', text='w 0 4194304 5\n')
    full = os.stat(image).st_blocks * 512
    assert full >= 4 << 20
    call(BLOCKIO, image + ',discard=off', 'script', text='d 0 4194304\n')
    assert os.stat(image).st_blocks * 512 >= 4 << 20
    assert call(BLOCKIO, image, 'script', text='d 0 4194304\nr 0 4194304 0\n').returncode == 0
    assert os.stat(image).st_blocks * 512 < full - (3 << 20)


def test_a_backing_file_without_its_format_is_not_guessed(tmp_path):
    base = create(tmp_path / 'base.img', 'qcow2')
    image = create(tmp_path / 'disk.qcow2', 'qcow2', '-b', base, '-F', 'qcow2')
    assert call(BLOCKIO, image, 'script', text='r 0 512 0\n').returncode == 0
    # The same without the name of the format in the header.
    with open(image, 'r+b') as f:
        head = bytearray(f.read(4096))
        at = head.index(bytes.fromhex('e2792aca'))
        head[at:at + 4] = b'\x12\x34\x56\x78'
        f.seek(0)
        f.write(head)
    r = call(BLOCKIO, image, 'script', text='')
    assert r.returncode == 1 and 'base.img' not in r.stdout
    assert 'qemu-img rebase' in r.stderr and len(r.stderr.splitlines()) == 1
