# SPDX-License-Identifier: Apache-2.0
"""The serial console on the user's terminal, and how the program ends."""
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import pytest

from conftest import running


def test_quit_key(boot):
    guest = boot().shell()
    guest.child.send('\x01x')
    assert guest.wait_end(10) == 0


def test_help_key(boot):
    guest = boot().shell()
    guest.child.send('\x01h')
    guest.expect('C-a x', 5)
    assert guest.run('echo alive') == 'alive'
    assert guest.poweroff() == 0


def test_literal_escape_key(boot):
    guest = boot().shell()
    # C-a C-a gives the guest one C-a: in the shell's line editor, to the start of the line.
    guest.child.send(' moved\x01\x01echo\r')
    guest.expect('\nmoved')
    assert guest.poweroff() == 0


def test_interrupt_key_goes_to_the_guest(boot):
    guest = boot().shell()
    guest.child.send('sleep 1000\r')
    time.sleep(1)
    guest.child.send('\x03')
    guest.expect('trivisor:[^\r\n]*# ', 10)
    assert guest.run('echo $((1 + 1))') == '2'
    assert guest.poweroff() == 0


def test_suspend_key_goes_to_the_guest(boot):
    guest = boot().shell()
    guest.child.send('sleep 1000\r')
    time.sleep(1)
    guest.child.send('\x1a')
    guest.expect('Stopped', 10)
    guest.run('kill %1; true')
    assert guest.poweroff() == 0


@pytest.mark.parametrize('how', ['poweroff', 'quit', 'TERM', 'INT', 'HUP'])
def test_terminal_is_restored(boot, how, tmp_path):
    """A shell around the program prints the terminal's settings before and after."""
    guest = boot()
    argv = ' '.join(shlex.quote(a) for a in guest.argv)
    guest.child.close(force=True)
    pid_file = tmp_path / 'pid'
    script = (f"stty -g > {tmp_path}/before; sh -c 'echo $$ > {pid_file}; exec \"$@\"' x {argv}; "
              f"echo status=$? > {tmp_path}/status; stty -g > {tmp_path}/after; echo the-end")
    guest.__init__(['/bin/sh', '-c', script])
    guest.shell()
    if how == 'poweroff':
        guest.child.send('poweroff\r')
    elif how == 'quit':
        guest.child.send('\x01x')
    else:
        os.kill(int(pid_file.read_text()), getattr(signal, 'SIG' + how))
    guest.expect('the-end', 20)
    guest.wait_end()
    assert (tmp_path / 'after').read_text() == (tmp_path / 'before').read_text()


def test_long_output_arrives_whole(boot):
    guest = boot().shell()
    lines = guest.run('seq 1 20000', timeout=120).split('\n')
    assert lines == [str(n) for n in range(1, 20001)]
    assert guest.poweroff() == 0


def test_pasted_input_arrives_whole(boot):
    guest = boot().shell()
    lines = [f'line {n} of a text that is pasted at once' for n in range(1, 61)]
    guest.child.send('cat > /tmp/pasted\r')
    time.sleep(0.5)
    guest.child.send('\r'.join(lines) + '\r\x04')
    guest.expect('trivisor:[^\r\n]*# ')
    assert guest.run('wc -l < /tmp/pasted').strip() == '60'
    assert guest.run('tail -n 1 /tmp/pasted') == lines[-1]
    assert guest.poweroff() == 0


def test_commands_from_a_pipe(program, kernel, initramfs):
    argv = [program, 'run', '--engine', 'bt', '-k', kernel, '-i', initramfs, '-m', '256M',
            '-a', 'console=ttyS0 panic=-1']
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as p:
        watchdog = threading.Timer(60, p.kill)
        watchdog.start()
        try:
            out = ''
            while 'trivisor:' not in out and (c := p.stdout.read(1)):  # what comes earlier may be lost
                out += c
            out, _ = p.communicate('echo $((111 * 111))\npoweroff\n', timeout=60)
        finally:
            watchdog.cancel()
            p.kill()
    assert p.returncode == 0
    assert '12321' in out


def test_serial_to_a_file(batch, tmp_path):
    path = tmp_path / 'serial'
    r = batch('echo to-the-file', args=('--serial', f'file:{path}'))
    assert r.returncode == 0
    assert r.stdout == ''
    assert 'to-the-file' in path.read_text(errors='replace')


def test_serial_to_nothing(batch):
    r = batch('echo nowhere', args=('--serial', 'null'))
    assert r.returncode == 0
    assert r.stdout == ''


def test_reader_that_goes_away(program, kernel, initramfs):
    """A closed pipe at the output is no reason to spin or crash."""
    argv = [program, 'run', '--engine', 'bt', '-k', kernel, '-i', initramfs, '-m', '256M',
            '-a', 'console=ttyS0 panic=-1 run=true']
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as p:
        p.stdout.read(100)
        p.stdout.close()
        try:
            status = p.wait(60)
        finally:
            p.kill()
    assert status in (0, 125)


def test_two_guests_at_once(boot):
    one, two = boot(), boot(cpus=2)
    one.shell()
    two.shell()
    one.run('echo one > /tmp/name')
    assert two.run('ls /tmp') == ''
    assert one.poweroff() == 0
    assert two.run('echo still here') == 'still here'
    assert two.poweroff() == 0


def test_idle_guest_uses_little_cpu(boot, program):
    guest = boot(args=('--name', 'idle')).shell()
    pid = running(program)['idle']
    time.sleep(3)

    def used():
        with open(f'/proc/{pid}/stat', encoding='ascii', errors='replace') as f:
            fields = f.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    before = used()
    time.sleep(5)
    assert (used() - before) / 5 < 0.05  # the goal is 2 %, measured by make bench on a quiet host
    assert guest.poweroff() == 0


def test_counters(batch):
    r = batch('true', args=('--stats',))
    assert r.returncode == 0
    assert len([line for line in r.stderr.splitlines() if line.split()[-1:] and
                line.split()[-1].isdigit()]) > 3, r.stderr


def test_without_privilege(program, kernel, initramfs, tmp_path):
    """Runs as a user who may do nothing special, with no access to /dev/kvm."""
    if os.getuid() != 0:
        pytest.skip('already without privilege')
    place = tempfile.mkdtemp(prefix='trivisor-test-')
    try:
        os.chmod(place, 0o755)
        files = [shutil.copy(f, place) for f in (program, kernel, initramfs)]
        for f in files:
            os.chmod(f, 0o755)
        r = subprocess.run([files[0], 'run', '--engine', 'auto', '-k', files[1], '-i', files[2], '-m', '256M',
                            '-a', 'console=ttyS0 panic=-1 run="echo unprivileged-$((2 + 3))"'],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace',
                           timeout=120, check=False, user=65534, group=65534, extra_groups=[], cwd='/')
    finally:
        shutil.rmtree(place)
    assert r.returncode == 0, r.stderr
    assert 'unprivileged-5' in r.stdout
