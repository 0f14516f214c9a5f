# SPDX-License-Identifier: Apache-2.0
"""-v: directories shared with a stock kernel's virtiofs."""
import os
import pwd
import signal
import stat
import subprocess
import time

import pytest

from conftest import trouble


@pytest.fixture
def share(tmp_path):
    top = tmp_path / 'share'
    (top / 'dir').mkdir(parents=True)
    (top / 'file').write_text('content\n')
    (top / 'dir' / 'inner').write_text('inner\n')
    (tmp_path / 'secret').write_text('secret\n')
    (top / 'out').symlink_to('../secret')
    (top / 'abs').symlink_to(tmp_path / 'secret')
    return top


@pytest.fixture
def mounted(boot, virtio_image):
    """mounted(share) boots a guest with it at /m; its console."""

    def go(share, options='', cpus=1, args=()):
        console = boot(initrd=virtio_image, cpus=cpus, args=['-v', f'{share}:src{options}', *args]).shell()
        console.run('mkdir /m && mount -t virtiofs src /m && cd /m')
        return console

    return go


def helpers(pid):
    """The file servers below a process: the machine's, or the one that holds the terminal for it."""
    parent, name = {}, {}
    for entry in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{entry}/stat', encoding='utf-8') as f:
                text = f.read()
        except OSError:
            continue
        state, up = text[text.rindex(')') + 2:].split()[:2]
        if state != 'Z':
            parent[int(entry)], name[int(entry)] = int(up), text[text.index('(') + 1:text.rindex(')')]

    def below(p):
        return p == pid or (p in parent and below(parent[p]))

    return [p for p in parent if name[p] == 'trivisor-share' and below(p)]


def capabilities(pid):
    with open(f'/proc/{pid}/status', encoding='utf-8') as f:
        return int(dict(line.split(':\t', 1) for line in f.read().splitlines())['CapEff'], 16)


def alive(pid):
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8') as f:
            return f.read().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError:
        return False


def wait_for(what, limit=20):
    end = time.monotonic() + limit
    while True:
        value = what()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.02)


def wait_gone(pids):
    return wait_for(lambda: not any(alive(p) for p in pids))


def test_files_and_directories(mounted, share):
    g = mounted(share, cpus=2)
    assert g.run('cat file dir/inner') == 'content\ninner'
    g.run('echo new > new && cat new file >> sum && mkdir -p a/b && mv new a/b/moved && ln sum hard')
    assert (share / 'sum').read_text() == 'new\ncontent\n'
    assert (share / 'a/b/moved').read_text() == 'new\n'
    assert (share / 'hard').stat().st_nlink == 2
    g.run('ln -s to/nowhere sym && chmod 640 sum && truncate -s 5 hard && touch -d @1000000000 dir/inner')
    assert os.readlink(share / 'sym') == 'to/nowhere'
    assert stat.S_IMODE((share / 'sum').stat().st_mode) == 0o640
    assert (share / 'sum').stat().st_size == 5
    assert (share / 'dir/inner').stat().st_mtime == 1000000000
    # What the host makes is seen at once where the guest has not looked before, what it changes in a second.
    (share / 'fromhost').write_text('host\n')
    assert g.run('cat fromhost') == 'host'
    (share / 'fromhost').write_text('changed\n')
    assert g.run('sleep 1.1; cat fromhost') == 'changed'
    # A file that is deleted while it is open; a big one; many small ones.
    assert g.run('exec 3<file; rm file; cat <&3; exec 3<&-') == 'content'
    assert not (share / 'file').exists()
    g.run('dd if=/dev/urandom of=big bs=1M count=24 2>/dev/null')
    sums = g.run('md5sum <big; echo 3 >/proc/sys/vm/drop_caches; md5sum <big').split()
    host = subprocess.run(['md5sum', share / 'big'], capture_output=True, text=True, check=True).stdout.split()
    assert sums[0] == sums[2] == host[0]
    g.run('mkdir many; for i in $(seq 300); do echo $i >many/$i; done')
    assert g.run('ls many | wc -l; cat many/* | wc -l').split() == ['300', '300']
    assert sorted(os.listdir(share / 'many'), key=int) == [str(i) for i in range(1, 301)]
    g.run('rm -r many a && cd / && umount /m')
    assert not (share / 'many').exists()
    # And again: the server begins anew.
    assert g.run('mount -t virtiofs src /m && cat /m/dir/inner') == 'inner'
    assert not trouble(g.text())
    assert g.poweroff() == 0


def test_readonly_and_links(boot, virtio_image, share, tmp_path):
    other = tmp_path / 'with:colon'
    other.mkdir()
    if os.geteuid() == 0:  # root reads what is somebody else's
        os.chown(share / 'file', 12345, 12345)
        (share / 'file').chmod(0o600)
    g = boot(initrd=virtio_image, args=['-v', f'{share}:/mnt/src:ro', '-v', f'{other}:other']).shell()
    g.run('mkdir -p /mnt/src /m && mount -t virtiofs /mnt/src /mnt/src && mount -t virtiofs other /m && cd /mnt/src')
    assert g.run('cat file') == 'content'
    if os.geteuid() == 0:  # DAC_READ_SEARCH alone, and what the other share needs
        assert sorted(capabilities(pid) for pid in helpers(g.child.pid)) == [0b100, 0b1011]
    for command in ('echo x > file', 'echo x >> file', 'echo x > new', 'mkdir new', 'rm file', 'mv file new',
                    'chmod 600 file', 'touch file', 'ln file new', 'ln -s a new', 'truncate -s 0 file', 'rmdir dir'):
        said = g.run(f'({command}) 2>&1 && echo DONE; true')
        assert 'Read-only file system' in said and 'DONE' not in said, command
    assert (share / 'file').read_text() == 'content\n'
    assert sorted(os.listdir(share)) == ['abs', 'dir', 'file', 'out']
    # The guest resolves links in its own tree, where there is no such file.
    assert g.run('cat out abs 2>&1 | grep -c "No such file"') == '2'
    g.run(f'cd /m; ln -s {tmp_path} escape; ln -s ../../../../../../../../etc dots; echo x > escape/made; true')
    assert g.run('ls dots/shadow 2>&1; cat escape/secret 2>&1; ls ..; true').count('No such file') == 2
    assert not (tmp_path / 'made').exists()
    assert (tmp_path / 'secret').read_text() == 'secret\n'
    assert 'not permitted' in g.run('mknod null c 1 3 2>&1; true')
    g.run('cp /bin/busybox suid && chmod 6755 suid')
    assert stat.S_IMODE((other / 'suid').stat().st_mode) == 0o755


def check_confined(pid, share):
    with open(f'/proc/{pid}/status', encoding='utf-8') as f:
        status = dict(line.split(':\t', 1) for line in f.read().splitlines())
    assert status['NoNewPrivs'] == '1'
    assert status['Seccomp'] == '2'
    # DAC_OVERRIDE, FOWNER and CHOWN of root's; nothing of anybody else's.
    assert int(status['CapEff'], 16) == (0b1011 if os.geteuid() == 0 else 0)
    names = [os.readlink(f'/proc/{pid}/fd/{n}') for n in os.listdir(f'/proc/{pid}/fd') if int(n) > 2]
    assert all(n.startswith(('socket:', str(share))) for n in names), names
    # No memory of the guest's.
    with open(f'/proc/{pid}/maps', encoding='utf-8') as f:
        assert 'memfd' not in f.read()


def test_the_server_is_confined_and_dies_first(mounted, share, tmp_path):
    g = mounted(share, args=['-v', f'{tmp_path}:all'])
    first, second = sorted(helpers(g.child.pid))
    check_confined(first, share)
    os.kill(first, signal.SIGKILL)
    g.expect('share src: its server has ended; the guest gets errors there from now on')
    assert 'not connected' in g.run('cat file 2>&1; ls dir 2>&1; true')
    assert g.run('mkdir /all; mount -t virtiofs all /all && cat /all/secret') == 'secret'
    g.run('cd /; umount /m; true')
    assert g.poweroff() == 0
    assert wait_gone([second])


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_is_left(program, kernel, share, how):
    p = subprocess.Popen([program, 'run', '-k', kernel, '-v', f'{share}:src'], stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        pids = wait_for(lambda: helpers(p.pid))
        p.send_signal(how)
        p.wait(timeout=20)
    finally:
        p.kill()
        p.wait()
    assert len(pids) == 1
    assert wait_gone(pids)


def test_without_privilege(program, kernel, virtio_image, share, tmp_path):
    if os.geteuid() != 0:
        pytest.skip('cannot become another user')
    nobody = pwd.getpwnam('nobody')
    for where, dirs, files in os.walk(tmp_path):
        for name in dirs + files + ['.']:
            os.chown(os.path.join(where, name), nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    (share / 'roots').write_text('root\n')
    (share / 'roots').chmod(0o600)
    for path in list(share.resolve().parents)[:-1]:
        path.chmod(path.stat().st_mode | 0o111)
    command = ('mkdir /m; mount -t virtiofs src /m; cd /m; echo hi > new; chmod 700 new; cat file roots; '
               'chown 1:1 new; rm -r dir; ls -ln new')
    r = subprocess.run([program, 'run', '-k', kernel, '-i', virtio_image, '-m', '256M', '-v', f'{share}:src', '-a',
                        f'console=ttyS0 quiet panic=-1 run="{command}"'], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=120, check=False, user=nobody.pw_uid,
                       group=nobody.pw_gid, extra_groups=[])
    assert r.returncode == 0, r.stdout + r.stderr
    assert 'content' in r.stdout
    assert "can't open 'roots': Permission denied" in r.stdout
    assert 'chown: new: Operation not permitted' in r.stdout
    assert f'-rwx------    1 {nobody.pw_uid}' in r.stdout
    assert (share / 'new').read_text() == 'hi\n'
    assert (share / 'new').stat().st_uid == nobody.pw_uid
    assert not (share / 'dir').exists()


@pytest.mark.parametrize('spec, says', [
    ('/nonexistent:src', 'trivisor: -v /nonexistent: No such file or directory'),
    ('/etc/passwd:src', 'trivisor: -v /etc/passwd: Not a directory'),
    ('/tmp', 'it is HOST:GUEST, HOST:GUEST:ro or HOST:GUEST:rw'),
    (':src', 'the directory is missing'),
    ('/tmp:', "the guest's name for it is missing"),
    ('/tmp:' + 37 * 'x', "the guest's name for it is longer than 36 bytes"),
])
def test_bad_shares(program, kernel, spec, says):
    r = subprocess.run([program, 'run', '-k', kernel, '-v', spec], stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, timeout=20, check=False)
    assert r.returncode == 125
    assert says in r.stderr and r.stderr.count('\n') == 1, r.stderr


def test_two_of_one_name(program, kernel, tmp_path):
    r = subprocess.run([program, 'run', '-k', kernel, '-v', f'{tmp_path}:a', '-v', f'{tmp_path}:a:ro'],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert r.returncode == 125
    assert r.stderr == 'trivisor: -v: two directories are called a\n'
