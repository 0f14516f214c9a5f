# SPDX-License-Identifier: Apache-2.0
"""What is wrong is said in one line on stderr, with exit status 125; never a crash, never a hang."""
import os
import random
import socket
import subprocess

import pytest

STATUS = 125


def refused(argv, names=None, cwd=None):
    r = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace',
                       timeout=30, check=False, cwd=cwd)
    assert r.returncode == STATUS, f'{argv[1:]}: status {r.returncode}: {r.stderr}'
    lines = r.stderr.splitlines()
    assert len(lines) == 1, f'{argv[1:]}: {r.stderr}'
    assert lines[0].startswith('trivisor: '), lines[0]
    if names:
        assert names in lines[0], lines[0]
    assert r.stdout == ''


# {k} and {i} stand for a good kernel and initramfs; the second item must be in the message.
TABLE = {
    'no-command': ([], 'command'),
    'unknown-command': (['fly'], 'fly'),
    'no-kernel': (['run'], 'kernel'),
    'unknown-option': (['run', '--wings', '-k', '{k}'], 'wings'),
    'unknown-letter': (['run', '-Z', '-k', '{k}'], 'Z'),
    'option-without-argument': (['run', '-k'], None),
    'stray-word': (['run', '-k', '{k}', 'stray'], 'stray'),
    'missing-kernel': (['run', '-k', '/nonexistent/kernel'], '/nonexistent/kernel'),
    'empty-kernel-name': (['run', '--kernel', ''], 'kernel'),
    'directory-as-kernel': (['run', '-k', '/'], None),
    'device-as-kernel': (['run', '-k', '/dev/zero'], '/dev/zero'),
    'null-as-kernel': (['run', '-k', '/dev/null'], '/dev/null'),
    'missing-initrd': (['run', '-k', '{k}', '-i', '/nonexistent/initrd'], '/nonexistent/initrd'),
    'directory-as-initrd': (['run', '-k', '{k}', '-i', '/'], None),
    'memory-zero': (['run', '-k', '{k}', '--memory', '0'], 'memory'),
    'memory-text': (['run', '-k', '{k}', '-m', 'much'], 'much'),
    'memory-negative': (['run', '-k', '{k}', '-m', '-5'], None),
    'memory-unit': (['run', '-k', '{k}', '-m', '5X'], '5X'),
    'memory-overflow': (['run', '-k', '{k}', '-m', '99999999999999999999G'], None),
    'memory-wraps': (['run', '-k', '{k}', '-m', '18014398509481984K'], None),
    'memory-more-than-the-host': (['run', '-k', '{k}', '-m', '1000G'], None),
    'memory-too-small-for-kernel': (['run', '-k', '{k}', '-m', '4M'], None),
    'memory-too-small-for-initrd': (['run', '-k', '{k}', '-i', '{big}', '-m', '64M'], None),
    'cpus-zero': (['run', '-k', '{k}', '-c', '0'], '-c'),
    'cpus-many': (['run', '-k', '{k}', '--cpus', '9'], 'cpus'),
    'cpus-text': (['run', '-k', '{k}', '-c', 'two'], 'two'),
    'cpus-fraction': (['run', '-k', '{k}', '-c', '1.5'], '1.5'),
    'engine-unknown': (['run', '-k', '{k}', '--engine', 'steam'], 'steam'),
    'engine-pv': (['run', '-k', '{k}', '--engine', 'pv'], 'pv'),
    # Where it works, it has no debugger.
    'engine-kvm': (['run', '-k', '{k}', '-i', '{i}', '--engine', 'kvm', '--gdb', '1'], 'kvm'),
    'bt-mode-unknown': (['run', '-k', '{k}', '--bt-mode', 'magic'], 'magic'),
    'serial-unknown': (['run', '-k', '{k}', '--serial', 'smoke'], 'smoke'),
    'serial-file-nowhere': (['run', '-k', '{k}', '--serial', 'file:/nonexistent/out'], '/nonexistent/out'),
    'serial-socket-nowhere': (['run', '-k', '{k}', '--serial', 'unix:/nonexistent/s'], '/nonexistent/s'),
    'serial-socket-path-too-long': (['run', '-k', '{k}', '--serial', 'unix:/' + 'x' * 120], '107'),
    'serial-log-too-small': (['run', '-k', '{k}', '--serial', 'log:/tmp/x,size=1K'], 'size'),
    'serial-log-to-a-device': (['run', '-k', '{k}', '-i', '{i}', '--serial', 'log:/dev/null'], '/dev/null'),
    'virtio-without-all': (['run', '-k', '{k}', '--virtio-without', 'packed,wheels'], 'packed'),
    'virtio-without-nothing': (['run', '-k', '{k}', '--virtio-without', ''], 'list'),
    'publish-as-typed': (['run', '-k', '{k}', '-p', '22'], 'trivisor: -p: '),
    'publish-as-typed-long': (['run', '-k', '{k}', '--publish', '22'], 'trivisor: --publish: '),
    'net-as-typed': (['run', '-k', '{k}', '-n', 'user,foo=1'], 'trivisor: -n: '),
    'disk-as-typed': (['run', '-k', '{k}', '--disk', '/nonexistent/d'], 'trivisor: --disk: '),
    'plug-of-nobody': (['plug', 'nobody', '-d', '/nonexistent/d'], "'nobody'"),
    'share-read-write': (['run', '-k', '{k}', '-v', '/nonexistent/d:a:rw'], '/nonexistent/d:'),
    'cpu-feature-without-another': (['run', '-k', '{k}', '--cpu', 'x86-64-v2,+avx2'], 'needs xsave'),
    'name-empty': (['run', '-k', '{k}', '--name', ''], 'name'),
    'name-with-a-slash': (['run', '-k', '{k}', '--name', '../x'], 'name'),
    'name-too-long': (['run', '-k', '{k}', '--name', 'x' * 65], 'name'),
    'console-of-nobody': (['console', 'nobody'], 'nobody'),
    'console-of-a-path': (['console', '../x'], '../x'),
    'console-of-two': (['console', 'a', 'b'], 'one name'),
    'long-name-with-one-dash': (['run', '-k', '{k}', '-append', 'x'], '--append'),
    'long-name-with-one-dash-and-value': (['run', '-memory=5'], '--memory=5'),
    'qemus-smp': (['run', '-k', '{k}', '-smp', '2'], '-c N'),
    'qemus-drive': (['run', '-drive', 'file=x'], '-d PATH'),
    'unknown-letters': (['run', '-zap'], '-zap'),
    'run-left-out': (['disk.img', '-m', '1G'], 'trivisor run disk.img'),
    'run-left-out-before-an-option': (['-m', '1G'], 'trivisor run -m'),
    'kernel-as-disk': (['run', '{k}'], '-k'),
    'empty-file-as-disk': (['run', '{empty}'], 'it is empty'),
    'empty-file-as-second-disk': (['run', '-k', '{k}', '-d', '{empty}'], 'it is empty'),
    'directory-as-disk': (['run', '/'], 'disk /'),
    'disk-given-twice': (['run', '-k', '{k}', '-d', '{big}', '-d', '{big}'], 'twice'),
    'missing-directory-to-share': (['run', '-k', '{k}', '-v', '/nonexistent:x'], '/nonexistent'),
    'file-to-share': (['run', '-k', '{k}', '-v', '/etc/passwd:x'], '/etc/passwd'),
    'directory-for-cloud-init': (['run', '-k', '{k}', '--cloud-init', 'user-data=/'], 'user-data'),
    'append-too-long': (['run', '-k', '{k}', '-a', 'x' * 5000], None),
    'text-as-kernel': (['run', '-k', '{text}'], None),
    'noise-as-kernel': (['run', '-k', '{noise}'], None),
    'empty-file-as-kernel': (['run', '-k', '{empty}'], None),
    'elf-program-as-kernel': (['run', '-k', '{program}'], None),
    'initramfs-as-kernel': (['run', '-k', '{i}'], None),
    'kernel-cut-to-100': (['run', '-k', '{cut100}'], None),
    'kernel-cut-to-600': (['run', '-k', '{cut600}'], None),
    'kernel-cut-to-half': (['run', '-k', '{cuthalf}'], None),
    'kernel-cut-by-a-page': (['run', '-k', '{cutpage}'], None),
}


@pytest.fixture(scope='module')
def files(tmp_path_factory, kernel, initramfs, program):
    d = tmp_path_factory.mktemp('images')
    with open(kernel, 'rb') as f:
        image = f.read()
    contents = {'text': b'Hello, I am no kernel.\n' * 1000, 'noise': random.Random(1).randbytes(1 << 20),
                'empty': b'', 'cut100': image[:100], 'cut600': image[:600],
                'cuthalf': image[:len(image) // 2], 'cutpage': image[:-65536]}
    paths = {'k': kernel, 'i': initramfs, 'program': program, 'big': str(d / 'big')}
    for name, data in contents.items():
        path = d / name
        path.write_bytes(data)
        paths[name] = str(path)
    with open(paths['big'], 'wb') as f:
        f.truncate(200 << 20)
    return paths


@pytest.mark.parametrize('name', TABLE)
def test_refused(program, files, name):
    args, says = TABLE[name]
    refused([program] + [files[a[1:-1]] if a[:1] == '{' else a for a in args], says)


def test_unreadable_kernel(program, kernel, tmp_path):
    if os.getuid() == 0:
        pytest.skip('root reads everything')
    path = tmp_path / 'secret'
    path.write_bytes(b'x')
    path.chmod(0)
    refused([program, 'run', '-k', str(path)], str(path))


def test_flipped_headers(program, kernel, tmp_path):
    """Random damage to the kernel's header: refused in one line, or accepted; with --check nothing runs."""
    with open(kernel, 'rb') as f:
        image = bytearray(f.read())
    rng = random.Random(20)
    path = tmp_path / 'flipped'
    for _ in range(40):
        damaged = bytearray(image)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(0x1e0, 0x270)
            damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        r = subprocess.run([program, 'run', '--check', '-q', '-k', str(path), '-m', '256M'],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
        assert r.returncode in (0, STATUS), f'status {r.returncode}: {r.stderr}'
        assert len(r.stderr.splitlines()) == (r.returncode == STATUS), r.stderr


@pytest.mark.parametrize('args', [['version'], ['help'], ['--help'], ['--version'], ['run', '--help'],
                                  ['run', '--dump-options'], ['doctor'], ['help', 'console'], ['console', '--help']])
def test_words_that_answer(program, args):
    r = subprocess.run([program] + args, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=60, check=False)
    assert r.returncode == 0, r.stderr
    assert r.stdout.strip()


def test_doctor_names_the_engines(program):
    r = subprocess.run([program, 'doctor'], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=60, check=False)
    assert r.returncode == 0
    for engine in ('bt', 'kvm'):
        assert engine in r.stdout


@pytest.mark.parametrize('kind', ['arm64', 'aarch64-elf', 'i386-elf', 'gzip'])
def test_kernels_that_are_not_for_this_machine(program, tmp_path, kind):
    """What other architectures, or other builds, call their kernel."""
    elf = b'\x7fELF%c\1\1' + bytes(9) + b'\2\0%c%c\1\0\0\0'
    image = {'arm64': b'MZ' + bytes(54) + b'ARMd' + bytes(4096),  # Documentation/arm64/booting.rst
             'aarch64-elf': elf % (2, 183, 0) + bytes(4096),
             'i386-elf': elf % (1, 3, 0) + bytes(4096),
             'gzip': b'\x1f\x8b\x08' + bytes(4096)}[kind]
    path = tmp_path / 'kernel'
    path.write_bytes(image)
    refused([program, 'run', '-k', str(path)], str(path))


def test_port_in_use(program, kernel):
    with socket.create_server(('127.0.0.1', 0)) as s:
        port = str(s.getsockname()[1])
        refused([program, 'run', '-k', kernel, '-p', f'127.0.0.1:{port}:22'], port)
        refused([program, 'run', '-k', kernel, '--gdb', port], port)


def test_limit_on_the_size_of_files(program, kernel):
    """ulimit -f: the default action of its signal is to kill the process without a word."""
    argv = ['prlimit', '--fsize=100000', program, 'run', '-k', kernel, '-m', '128M']
    refused(argv, 'File too large')


def test_limit_on_the_address_space(program, kernel):
    refused(['prlimit', '--as=300000000', program, 'run', '-k', kernel, '-m', '128M'], 'memory')
