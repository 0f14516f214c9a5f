# SPDX-License-Identifier: Apache-2.0
"""A whole Debian on a disk: boots by itself to a login prompt, is up without a failed unit, reaches a server on
the host, installs a package, compiles, is reached by ssh, writes its disk and leaves it clean. Then the same disk
under Debian's other kernel, as a qcow2 overlay.

A suite of its own (tests/run.py debian): it builds the image first, unless it is in .cache; TRIVISOR_DEBIAN names
another one of make image's. The tests share two guests and run in order."""
import functools
import hashlib
import http.server
import os
import re
import socket
import subprocess
import threading

import pytest

from conftest import Console, PROMPT, ROOT, trouble

BOOT = 300  # seconds to the login prompt, on a busy host
PARTITION = 1 << 20
ENV = {**os.environ, 'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin'}


def tool(*argv, **more):
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace',
                       env=ENV, check=False, **more)
    assert r.returncode == 0, f'{" ".join(argv)}: {r.stdout[-2000:]}'
    return r.stdout


@pytest.fixture(scope='module')
def pristine():
    if os.environ.get('TRIVISOR_DEBIAN'):
        return os.environ['TRIVISOR_DEBIAN']
    r = subprocess.run([os.path.join(ROOT, 'tools/mkdebian.py'), '--kernel', 'both', '--pristine'],
                       capture_output=True, text=True, timeout=900, check=False)
    assert r.returncode == 0, r.stderr
    return r.stdout.strip()


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return tmp_path_factory.mktemp('debian')


@pytest.fixture(scope='module')
def disk(pristine, place):
    path = str(place / 'disk.img')
    tool('cp', '--sparse=always', '--reflink=auto', pristine, path)
    return path


def test_image_holds_no_host_key_and_files_are_roots(pristine):
    """Each copy makes a key of its own; and sshd takes no authorized_keys that are somebody else's."""
    files = tool('debugfs', '-R', 'ls -p /etc/ssh', f'{pristine}?offset=1048576')
    assert '/sshd_config/' in files and 'ssh_host_' not in files
    owners = tool('debugfs', '-R', 'ls -p /root/.ssh', f'{pristine}?offset=1048576')
    # Inode, mode, user, group and name, with slashes between them.
    assert re.search(r'^/\d+/100600/0/0/authorized_keys/', owners, re.M), owners
    assert re.search(r'^/\d+/040700/0/0/\./', owners, re.M), owners


class Debian(Console):
    def login(self):
        """From the login prompt to a plain shell."""
        self.expect(r'debian login: ', BOOT)
        self.child.send('root\r')
        self.expect(r'root@debian:~# ', BOOT)
        # Without line editing the console is text and nothing else.
        self.child.send("export PAGER= DEBIAN_FRONTEND=noninteractive; PS1='trivisor:debian# ' exec bash --norc "
                        '--noediting\r')
        self.expect(PROMPT)
        return self


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.fixture(scope='module')
def port():
    return free_port()


@pytest.fixture(scope='module')
def guest(program, disk, port):
    console = Debian([program, 'run', disk, '--net', 'user', '--publish', f'127.0.0.1:{port}:22'])
    yield console
    console.child.close(force=True)


@pytest.fixture(scope='module')
def archive(place):
    """A package archive on the host: the URL's port."""
    root = place / 'archive'
    tree = place / 'package'
    os.makedirs(root)
    os.makedirs(tree / 'DEBIAN')
    os.makedirs(tree / 'usr/bin')
    (tree / 'DEBIAN/control').write_text('Package: trivisor-hello\nVersion: 1\nArchitecture: all\n'
                                         'Maintainer: nobody <nobody@localhost>\nDescription: says hello\n')
    (tree / 'usr/bin/trivisor-hello').write_text('#!/bin/sh\necho hello from a package\n')
    os.chmod(tree / 'usr/bin/trivisor-hello', 0o755)
    # Something to transfer.
    (tree / 'usr/bin/trivisor-ballast').write_bytes(os.urandom(2 << 20))
    tool('dpkg-deb', '--build', '--root-owner-group', str(tree), str(root / 'hello.deb'))
    deb = (root / 'hello.deb').read_bytes()
    (root / 'Packages').write_text((tree / 'DEBIAN/control').read_text()
                                   + f'Filename: ./hello.deb\nSize: {len(deb)}\n'
                                   + f'SHA256: {hashlib.sha256(deb).hexdigest()}\n')

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *unused):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def test_boots_to_a_login_prompt(guest):
    guest.login()
    assert re.search(r'-cloud-amd64$', guest.run('uname -r'))
    assert guest.run('findmnt -no SOURCE,FSTYPE,OPTIONS / | tr -s " "').startswith('/dev/vda1 ext4 rw')


def test_is_up_without_a_failed_unit(guest):
    assert guest.run('systemctl is-system-running --wait', BOOT) == 'running'
    assert guest.run('systemctl --failed --no-legend') == ''
    log = guest.run('dmesg')
    assert not trouble(log)
    assert not re.search(r'EXT4-fs error|I/O error|virtio.*(fail|error)', log)
    assert guest.run('systemd-detect-virt') != 'none'


def test_has_the_time(guest):
    """Without a network time server: from the RTC."""
    assert abs(int(guest.run('date +%s')) - int(tool('date', '+%s'))) <= 5


def test_reaches_the_host(guest):
    # The login prompt does not wait for IPv6.
    guest.run('/lib/systemd/systemd-networkd-wait-online --timeout=30', 40)
    state = 'networkctl --no-legend list "en*" | tr -s " " | cut -d " " -f 5-'
    guest.run(f'for i in $(seq 60); do case "$({state})" in *configured*) break;; esac; sleep 0.5; done', 40)
    assert guest.run(state).strip() == 'routable configured'
    assert re.search(r'^10\.0\.2\.', guest.run("ip -4 -o addr show scope global | awk '{print $4}'"))


def test_installs_a_package(guest, archive):
    guest.run(f'echo "deb [trusted=yes] http://10.0.2.2:{archive} ./" >/etc/apt/sources.list')
    guest.run('apt-get -q update', 180)
    guest.run('apt-get -q -y install trivisor-hello', 180)
    assert guest.run('trivisor-hello') == 'hello from a package'


def test_compiles(guest):
    guest.run("printf '#include <stdio.h>\\n#include <math.h>\\nint main(void)\\n"
              '{\\n    double s = 0;\\n    for (int i = 1; i < 1000000; i++)\\n        s += 1.0 / i / i;\\n'
              '    printf("%%.4f\\\\n", s);\\n    return 0;\\n}\\n'
              "' >/var/tmp/sum.c")
    guest.run('cd /var/tmp && printf "sum: sum.c\\n\\tgcc -O2 -Wall -o sum sum.c -lm\\n" >Makefile && make', 120)
    assert guest.run('/var/tmp/sum') == '1.6449'


def test_is_reached_by_ssh(guest, port):
    key = os.path.join(ROOT, '.cache/debian/id_ed25519')
    argv = ['ssh', '-i', key, '-p', str(port), '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null',
            '-o', 'BatchMode=yes', '-o', 'LogLevel=ERROR', '-o', 'ConnectTimeout=60', 'root@127.0.0.1']
    assert tool(*argv, 'cat /etc/hostname', timeout=120).strip() == 'debian'
    # A stream through both directions.
    data = os.urandom(1 << 20)
    r = subprocess.run(argv + ['cat | tee /var/tmp/stream'], input=data, stdout=subprocess.PIPE, timeout=120, check=False)
    assert r.returncode == 0 and r.stdout == data
    assert guest.run('sha256sum </var/tmp/stream').split()[0] == hashlib.sha256(data).hexdigest()
    # Nobody gets in without a key, although root has no password.
    r = subprocess.run(['ssh', '-p', str(port), '-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null',
                        '-o', 'PubkeyAuthentication=no', '-o', 'NumberOfPasswordPrompts=1', '-o', 'LogLevel=ERROR',
                        'root@127.0.0.1', 'true'], stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                       env={**os.environ, 'SSH_ASKPASS': '/bin/echo', 'SSH_ASKPASS_REQUIRE': 'force'}, check=False)
    assert r.returncode == 255


def test_writes_its_disk(guest):
    guest.run('dd if=/dev/urandom of=/var/tmp/random bs=1M count=32 conv=fsync status=none', 120)
    before = guest.run('sha256sum /var/tmp/random')
    guest.run('sync; echo 3 >/proc/sys/vm/drop_caches')
    assert guest.run('sha256sum /var/tmp/random') == before
    guest.run('sha256sum /var/tmp/random >/var/tmp/random.sum')
    guest.run('for i in $(seq 200); do echo $i >/var/tmp/file-$i; done; sync')
    guest.run('fstrim -v /', 120)


def test_powers_off_and_leaves_the_disk_clean(guest, disk):
    guest.child.send('poweroff\r')
    assert guest.wait_end(120) == 0
    assert not trouble(guest.text())
    out = tool('e2fsck', '-fn', f'{disk}?offset={PARTITION}')
    assert 'clean' in out or 'files' in out
    assert 'WARNING' not in out and 'Fix?' not in out, out


def test_other_kernel_on_an_overlay(program, disk, place):
    """Debian's kernel for bare metal, two CPUs, a qcow2 image on top of the disk the first guest left."""
    names = tool('debugfs', '-R', 'ls -p /boot', f'{disk}?offset={PARTITION}')
    version = re.search(r'/vmlinuz-(\d[\w.]*-\d+-amd64)/', names)
    if not version:
        pytest.skip('the image has no other kernel (KERNEL=both)')
    version = version[1]
    for name in ('vmlinuz', 'initrd.img'):
        tool('debugfs', '-R', f'dump /boot/{name}-{version} {place}/{name}', f'{disk}?offset={PARTITION}')
    over = str(place / 'over.qcow2')
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', disk, over)
    guest = Debian([program, 'run', over, '-k', str(place / 'vmlinuz'), '-i', str(place / 'initrd.img'), '-c', '2',
                    '-a', 'root=LABEL=debian ro console=ttyS0'])
    try:
        guest.login()
        assert guest.run('uname -r') == version
        assert guest.run('nproc') == '2'
        assert guest.run('systemctl is-system-running --wait', BOOT) == 'running'
        assert guest.run('cd / && sha256sum --quiet -c /var/tmp/random.sum', 120) == ''
        guest.run('rm /var/tmp/random; dd if=/dev/zero bs=1M count=16 2>/dev/null | tr "\\0" x >/var/tmp/more; sync')
        assert not trouble(guest.run('dmesg'))
        guest.child.send('poweroff\r')
        assert guest.wait_end(120) == 0
    finally:
        guest.child.close(force=True)
    assert 'No errors' in tool('qemu-img', 'check', over)
    # The disk below was not written: it still has the file.
    assert '/random/' in tool('debugfs', '-R', 'ls -p /var/tmp', f'{disk}?offset={PARTITION}')
