# SPDX-License-Identifier: Apache-2.0
"""trivisor run -- command: its status is ours, its output is all there is, its input is what we get."""
import hashlib
import random
import signal
import subprocess
import time

import pytest

from conftest import LIMIT, Console


@pytest.fixture
def argv(program, kernel, initramfs):
    """argv(words...) is the command line that runs a command in a guest."""
    return lambda *words, args=(): [program, 'run', '--engine', 'bt', '-k', kernel, '-i', initramfs, '-m', '256M', *args,
                                    '--', *words]


@pytest.fixture
def run(argv):
    def go(*words, args=(), **more):
        more.setdefault('stdin', None if 'input' in more else subprocess.DEVNULL)
        return subprocess.run(argv(*words, args=args), capture_output=True, timeout=2 * LIMIT, check=False, **more)
    return go


@pytest.mark.parametrize('words, status, says', [
    (['true'], 0, b''),
    (['false'], 1, b''),
    (['/etc'], 126, b'cannot run /etc'),
    (['no-such-command'], 127, b'cannot run no-such-command'),
    (['sh', '-c', 'kill -9 $$'], 137, b''),
    (['sh', '-c', 'kill -TERM $$; sleep 9'], 143, b''),
], ids=['0', '1', '126', '127', 'KILL', 'TERM'])
def test_status(run, words, status, says):
    r = run(*words)
    assert r.returncode == status, r.stderr
    assert r.stdout == b''
    assert says in r.stderr and len(r.stderr.splitlines()) == bool(says)


def test_words_arrive_as_they_are(run):
    words = ['two words', "quote's", 'double"', '$HOME', '*', 'new\nline', '', 'caf\xe9', '-x', 'back\\slash']
    r = run('printf', '<%s>', *words)
    assert r.returncode == 0
    assert r.stdout.decode() == ''.join(f'<{w}>' for w in words)


def test_input_and_output_are_bytes(run):
    data = random.Random(3).randbytes(300000)
    r = run('cat', input=data)
    assert r.returncode == 0 and r.stderr == b''
    assert r.stdout == data


def test_input_ends(run):
    assert run('sh', '-c', 'wc -c; echo more; wc -c', input=b'12345').stdout.split() == [b'5', b'more', b'0']
    assert run('cat').stdout == b''


def test_input_nobody_reads(run):
    r = run('sh', '-c', 'exec <&-; sleep 1; echo done', input=bytes(1 << 20))
    assert r.returncode == 0 and r.stdout == b'done\n'


def test_output_and_error_are_apart(run):
    r = run('sh', '-c', 'echo to-out; echo to-err >&2; exit 5')
    assert (r.returncode, r.stdout, r.stderr) == (5, b'to-out\n', b'to-err\n')


def test_much_output_is_not_lost(run):
    size = 10 << 20
    r = run('sh', '-c', f'yes 0123456789abcde | head -c {size}')
    assert r.returncode == 0
    assert hashlib.md5(r.stdout).hexdigest() == hashlib.md5(b'0123456789abcde\n' * (size // 16)).hexdigest()


def test_slow_reader_loses_nothing(argv):
    with subprocess.Popen(argv('seq', '300000'), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as p:
        try:
            first = p.stdout.readline()
            time.sleep(4)
            rest = p.stdout.read()
            assert p.wait(20) == 0
        finally:
            p.kill()
    assert first + rest == b''.join(b'%d\n' % n for n in range(1, 300001))


def test_reader_that_goes_away(argv):
    """The command gets SIGPIPE, as it would here."""
    with subprocess.Popen(argv('yes'), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as p:
        try:
            assert p.stdout.read(2) == b'y\n'
            p.stdout.close()
            assert p.wait(LIMIT) == 141
        finally:
            p.kill()


def test_background_processes_are_not_waited_for(run):
    start = time.monotonic()
    assert run('sh', '-c', 'sleep 1000 & echo started').stdout == b'started\n'
    assert time.monotonic() - start < 100


def test_signal_ends_it(argv):
    with subprocess.Popen(argv('sh', '-c', 'echo ready; sleep 1000'), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as p:
        try:
            assert p.stdout.readline() == b'ready\n'
            p.send_signal(signal.SIGTERM)
            assert p.wait(20) == 143
        finally:
            p.kill()


def test_guest_that_ends_first(run):
    r = run('sh', '-c', 'echo c > /proc/sysrq-trigger; sleep 100')
    assert r.returncode == 125
    assert b'the guest ended before its command did' in r.stderr
    assert b'sysrq triggered crash' in r.stderr  # what its console said last


def test_serial_port_is_the_kernels(run, tmp_path):
    path = tmp_path / 'console'
    r = run('dmesg', '-n', '8', args=('--serial', f'file:{path}', '-a', 'console=ttyS0 panic=-1'))
    assert r.returncode == 0 and r.stdout == b'' and r.stderr == b''
    assert 'Linux version' in path.read_text(errors='replace')


def test_a_terminal(argv, tmp_path):
    """On a terminal the command has one, too: keys are its own, sizes follow, the status comes back."""
    words = ' '.join(f"'{w}'" for w in argv('sh'))
    guest = Console(['/bin/sh', '-c', f"stty -g > {tmp_path}/before; TERM=vt220 {words}; echo status=$?; "
                     f"stty -g > {tmp_path}/after; echo the-end"])
    try:
        guest.expect('# ')
        guest.child.send('tty; stty size; echo $TERM; sleep 100\r')
        guest.expect('/dev/pts/0\r+\n50 200\r+\nvt220\r')
        guest.child.setwinsize(33, 77)
        time.sleep(0.5)
        guest.child.send('\x03')
        guest.expect('# ')
        guest.child.send('stty size\r')
        guest.expect('33 77\r')
        guest.child.send('\x01d')
        guest.expect('cannot be left')
        guest.child.send('exit 3\r')
        guest.expect('status=3')
        guest.expect('the-end')
    finally:
        guest.child.close(force=True)
    assert (tmp_path / 'after').read_text() == (tmp_path / 'before').read_text()


def test_refused(program, kernel, initramfs):
    for args, says in ((['-k', kernel, '--', 'true'], '-i'), (['-k', kernel, '-i', initramfs, '--'], '--'),
                       (['-k', kernel, '-i', initramfs, '--', ''], '--'),
                       (['-k', kernel, '-i', initramfs, '--detach', '--', 'true'], '--detach'),
                       (['-i', initramfs, '--', 'true'], '-k')):
        r = subprocess.run([program, 'run'] + args, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=20, check=False)
        assert r.returncode == 125 and len(r.stderr.splitlines()) == 1 and says in r.stderr, r.stderr


def test_output_that_cannot_be_written_is_a_failure(argv):
    with open('/dev/full', 'wb') as full:
        r = subprocess.run(argv('echo', 'lost'), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                           timeout=LIMIT, check=False)
    assert r.returncode == 125
    assert r.stderr == b"trivisor: the command's output: No space left on device\n"


def test_a_command_that_loads_its_drivers(program, kernel, virtio_image, tmp_path):
    """Nothing else has, in init's place: as docs/building.md has it."""
    image = tmp_path / 'disk.img'
    image.write_bytes(b'on the disk' + bytes((1 << 20) - 11))
    r = subprocess.run([program, 'run', '-k', kernel, '-i', virtio_image, '-d', str(image), '--', 'sh', '-c',
                        'ls /sys/block; /sbin/modprobe virtio_pci; /sbin/modprobe virtio_blk; head -c 11 /dev/vda'],
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False)
    assert (r.returncode, r.stdout, r.stderr) == (0, b'on the disk', b'')


def test_closed_descriptors(argv):
    """Files that are opened take the numbers of 0 to 2 if nothing else does."""
    r = subprocess.run(['sh', '-c', 'exec "$@" <&- >&-', 'sh', *argv('sh', '-c', 'cat; echo out; echo err >&2')],
                       stderr=subprocess.PIPE, timeout=LIMIT, check=False)
    assert (r.returncode, r.stderr) == (125, b"trivisor: the command's output: Bad file descriptor\nerr\n")
