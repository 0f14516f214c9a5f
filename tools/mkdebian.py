#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Builds a disk image with a whole Debian: systemd, udev, a kernel and initrd of its own, ssh, a compiler.

The image is a raw file with a GUID partition table and one ext4 partition. Packages come from the archive
that apt is set up with here. Needs neither root nor loop devices: mmdebstrap makes a tar file, fakeroot unpacks
it, mke2fs -d makes the file system.

The pristine image is kept under .cache/debian and made again only when something it depends on has changed;
--output gets a sparse copy, unless there is one of the same making already: that one may have been used.
Prints the path of the copy, or with --pristine that of the pristine image, which is not to be written to.
"""
import argparse
import contextlib
import fcntl
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.path.join(ROOT, '.cache', 'debian')
OUT = os.path.join(ROOT, 'build', 'image')
MIB = 1 << 20
PARTITION_AT = 1 * MIB
# The backup partition table takes the last 33 sectors; whole MiB keep the file system aligned.
PARTITION_TAIL = 1 * MIB
TYPE_LINUX_ROOT = '4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709'  # systemd's Discoverable Partitions, x86-64 root
NAMESPACE = uuid.UUID('5d6f1d1c-7b0c-4b8e-9f06-6a0d5f1b3a52')

KERNELS = {'cloud': ['linux-image-cloud-amd64'], 'generic': ['linux-image-amd64'],
           'both': ['linux-image-cloud-amd64', 'linux-image-amd64']}
PACKAGES = ['systemd', 'systemd-sysv', 'udev', 'dbus', 'libpam-systemd', 'systemd-resolved',  # the system
            'kmod', 'initramfs-tools', 'zstd', 'e2fsprogs',                                   # booting it
            'openssh-server', 'iproute2', 'iputils-ping', 'ca-certificates',                  # network
            'procps', 'less', 'vim-tiny']                                                     # people
COMPILER = ['gcc', 'libc6-dev', 'make']

# File: contents. What a Debian installer would ask or find out.
FILES = {
    'etc/hostname': 'debian\n',
    'etc/hosts': '127.0.0.1 localhost\n127.0.1.1 debian\n::1 localhost ip6-localhost ip6-loopback\n',
    'etc/fstab': 'UUID={fs} / ext4 errors=remount-ro 0 1\n',
    'etc/default/locale': 'LANG=C.UTF-8\n',
    'etc/systemd/network/80-dhcp.network':
        '[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n',
    'root/.ssh/authorized_keys': '{key}\n',
    # Each copy of the image is a host of its own. A condition costs later boots no process; one kind of key
    # is what every client knows, and an RSA key would take seconds to find.
    'etc/systemd/system/ssh-host-key.service':
        '[Unit]\nDescription=SSH host key of this machine\nBefore=ssh.service\n'
        'ConditionFileNotEmpty=!{host_key}.pub\n\n'
        '[Service]\nType=oneshot\nExecStartPre=rm -f {host_key} {host_key}.pub\n'
        'ExecStart=ssh-keygen -q -t ed25519 -N "" -C "" -f {host_key}\n'
        'ExecStartPost=sync {host_key} {host_key}.pub\n\n'
        '[Install]\nRequiredBy=ssh.service\n',
}
HOST_KEY = '/etc/ssh/ssh_host_ed25519_key'
ENABLE = ['systemd-networkd.service', 'systemd-resolved.service', 'ssh-host-key.service', 'ssh.service']
# Housekeeping that would start downloads and scans some time after boot: not in a machine made for a moment.
MASK = ['apt-daily.timer', 'apt-daily-upgrade.timer', 'e2scrub_all.timer', 'e2scrub_reap.service']


def die(text):
    sys.exit(f'mkdebian: {text}')


def log(text):
    print(f'mkdebian: {text}', file=sys.stderr, flush=True)


def output(argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as e:
        return die(f'{" ".join(argv)}: {getattr(e, "stderr", "") or e}')


def archive(suite):
    """The sources.list lines for a suite, after those apt is set up with on this machine."""
    form = '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)'
    here = re.search(r'^VERSION_CODENAME=(\S+)', open('/etc/os-release', encoding='utf-8').read(), re.M)
    here = here[1] if here else ''
    lines = []
    for row in output(['apt-get', 'indextargets', '--format', form, 'Identifier: Packages']).splitlines():
        uri, release, component, signed = row.split('|')
        if component != 'main' or release not in (here, f'{here}-updates', f'{here}-security'):
            continue
        # Without a key named, mmdebstrap finds Debian's.
        signed = f' [signed-by={signed}]' if signed.startswith('/') else ''
        line = f'deb{signed} {uri} {release.replace(here, suite, 1)} main'
        if line not in lines:
            lines.append(line)
    if not any(line.endswith(f' {suite} main') for line in lines):
        die('apt is set up with no Debian archive here (component main of the release this machine runs)')
    return lines


def apt_options():
    """What apt needs to reach and believe that archive."""
    keep = re.compile(r'Acquire::(Check-Valid-Until|Check-Date|Retries|https?::(Proxy|Timeout)[\w:.-]*) "(.*)";')
    return [line[:-1] for line in output(['apt-config', 'dump']).splitlines()
            if keep.fullmatch(line) and not line.endswith('"";')]


def public_key(path):
    """The line for authorized_keys; a pair of our own is made when no path is given."""
    if path:
        path = path if path.endswith('.pub') else path + '.pub'
    else:
        path = os.path.join(CACHE, 'id_ed25519.pub')
        if not os.path.exists(path):
            output(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', 'trivisor', '-f', path[:-4]])
    try:
        with open(path, encoding='ascii') as f:
            line = f.read().strip()
    except (OSError, UnicodeDecodeError) as e:
        return die(f'{path}: {e}')
    if not re.fullmatch(r'(ssh|ecdsa|sk)-[\w@.-]+ [\w+/=]+[^\n]*', line):
        die(f'{path} holds no public ssh key')
    return line


def staging(archive_path, values):
    """A tar file that is unpacked over the new root, and the commands run in there afterwards."""
    # Files only, and root's: whoever runs this is nobody in there.
    with tarfile.open(archive_path, 'w') as tar:
        for name, text in FILES.items():
            data = text.format(host_key=HOST_KEY, **values).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = 0o644
            member.mtime = int(time.time())
            tar.addfile(member, io.BytesIO(data))
    return '; '.join([
        'set -e',
        # See no_initrd.
        'rm /usr/sbin/update-initramfs',
        'dpkg-divert --quiet --local --rename --remove /usr/sbin/update-initramfs',
        'for v in /lib/modules/*; do update-initramfs -c -k "${v##*/}"; done',
        'rm /etc/ssh/ssh_host_*',  # its package made them
        'chmod 700 /root/.ssh', 'chmod 600 /root/.ssh/authorized_keys',
        # On the consoles root has no password; sshd takes empty passwords from nobody.
        'passwd -q -d root',
        f'systemctl -q enable {" ".join(ENABLE)}',
        f'systemctl -q mask {" ".join(MASK)}',
        'rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/dpkg/dpkg.cfg.d/99mmdebstrap',
    ])


def no_initrd():
    """Shell commands that keep packages from making initrds: each would be made twice, and it takes long."""
    real = '/usr/sbin/update-initramfs'
    return '; '.join([
        'set -e',
        f'chroot "$1" dpkg-divert --quiet --local --rename --divert {real}.real --add {real}',
        f'ln -s /bin/true "$1{real}"',
    ])


def place():
    """Where to unpack: in memory when there is plenty, which is several times as fast as a disk."""
    with contextlib.suppress(OSError):
        shm = os.statvfs('/dev/shm')
        free = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        available = re.search(r'^MemAvailable: +(\d+)', read('/proc/meminfo'), re.M)
        free = int(available[1]) << 10 if available else free
        if min(free // 2, shm.f_bavail * shm.f_frsize) >= 4 << 30 and \
                not shm.f_flag & (os.ST_NOEXEC | os.ST_NODEV | os.ST_RDONLY) and os.access('/dev/shm', os.W_OK):
            return '/dev/shm'
    return CACHE


@contextlib.contextmanager
def work_directory():
    """A temporary directory that is gone afterwards; not what is mounted there, should any be left."""
    work = tempfile.mkdtemp(prefix='mkdebian.', dir=place())
    try:
        # mmdebstrap may change to another user id, and makes its own directory below TMPDIR.
        os.chmod(work, 0o1777)
        yield work
    finally:
        subprocess.run(['rm', '-rf', '--one-file-system', work], stderr=subprocess.DEVNULL, check=False)


def run_to_its_end(argv, **more):
    """As subprocess.call; but when we are ended its processes are told, and clean up (mounts!) before we do."""
    with subprocess.Popen(argv, start_new_session=True, **more) as p:
        try:
            return p.wait()
        except BaseException:
            os.killpg(p.pid, signal.SIGTERM)
            p.wait()
            raise


def build(a, values, image):
    """Makes the image file."""
    packages = PACKAGES + KERNELS[a.kernel] + ([] if a.small else COMPILER)
    part = image + '.new'
    with work_directory() as work:
        files, tar = (os.path.join(work, n) for n in ('files.tar', 'root.tar'))
        commands = staging(files, values)
        argv = ['mmdebstrap', '--quiet', '--variant=apt', f'--include={",".join(packages)}',
                '--dpkgopt=force-unsafe-io',
                '--dpkgopt=path-exclude=/usr/share/man/*', '--dpkgopt=path-exclude=/usr/share/doc/*',
                '--dpkgopt=path-include=/usr/share/doc/*/copyright',
                '--dpkgopt=path-exclude=/usr/share/locale/*',
                f'--essential-hook={no_initrd()}',
                f'--customize-hook=tar-in {files} /',
                f'--chrooted-customize-hook={commands}']
        argv += [f'--aptopt={o}' for o in apt_options()]
        argv += [a.suite, tar] + archive(a.suite)
        log(f'installing Debian {a.suite} ({len(packages)} packages and what they need)')
        with open(os.path.join(work, 'log'), 'w+', encoding='utf-8', errors='replace') as out:
            status = run_to_its_end(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                    env={**os.environ, 'TMPDIR': work})
            if status:
                out.seek(0)
                die(f'mmdebstrap failed:\n{out.read()[-3000:]}')
        log('making the file system')
        with open(part, 'wb') as f:
            f.truncate(a.bytes)
        table = f'label: gpt\nlabel-id: {values["disk"]}\nstart={PARTITION_AT // 512}, ' \
                f'size={(a.bytes - PARTITION_AT - PARTITION_TAIL) // 512}, type={TYPE_LINUX_ROOT}, ' \
                f'uuid={values["part"]}, name=root\n'
        make = f'mkdir "$1" && tar -C "$1" -xf "$2" && ' \
               f'mke2fs -q -F -t ext4 -L debian -U {values["fs"]} -E offset={PARTITION_AT},' \
               f'hash_seed={values["fs"]},root_owner=0:0,lazy_itable_init=1 -d "$1" "$3" ' \
               f'{(a.bytes - PARTITION_AT - PARTITION_TAIL) // 1024}k; status=$?; rm -rf "$1"; exit $status'
        for what, text in ((['sfdisk', '-q', part], table),
                           (['fakeroot', 'sh', '-c', make, 'make', os.path.join(work, 'root'), tar, part], '')):
            r = subprocess.run(what, input=text, capture_output=True, text=True, check=False,
                               env={**os.environ, 'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin'})
            if r.returncode:
                die(f'{what[0]}: {r.stderr or r.stdout}')
        os.replace(part, image)


def sparse_copy(source, target):
    subprocess.run(['cp', '--sparse=always', '--reflink=auto', source, target + '.new'], check=True)
    os.replace(target + '.new', target)


def read(path):
    with contextlib.suppress(OSError), open(path, encoding='utf-8') as f:
        return f.read()
    return ''


def write(path, text):
    with open(path, 'w', encoding='utf-8') as f:
        f.write(text)


def size(text):
    m = re.fullmatch(r'(\d+)([MG])i?B?', text, re.I)
    if not m:
        raise argparse.ArgumentTypeError('a size such as 3G or 2500M')
    return int(m[1]) * (MIB if m[2] in 'mM' else 1024 * MIB)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--suite', default='bookworm')
    p.add_argument('--kernel', choices=KERNELS, default='cloud')
    p.add_argument('--size', type=size, dest='bytes', default='3G', metavar='SIZE')
    p.add_argument('--small', action='store_true', help='no compiler')
    p.add_argument('--key', metavar='PATH', help='ssh key for root; default: a new one beside the image')
    p.add_argument('--output', default=os.path.join(OUT, 'debian.img'), metavar='PATH')
    p.add_argument('--pristine', action='store_true', help='no copy; print the path of the pristine image')
    a = p.parse_args()
    if not re.fullmatch('[a-z]+', a.suite):
        die(f'{a.suite!r} is no suite')
    if a.bytes < 1024 * MIB:
        die('--size: less than 1G does not hold it')

    os.makedirs(CACHE, exist_ok=True)
    name = f'{a.suite}-{a.kernel}' + ('-small' if a.small else '')
    image = os.path.join(CACHE, name + '.img')
    with open(os.path.join(CACHE, 'lock'), 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        key = public_key(a.key)
        making = hashlib.sha256(repr((name, a.bytes, key, read(os.path.abspath(__file__)))).encode()).hexdigest()
        if not os.path.exists(image) or read(image + '.key') != making:
            values = {n: str(uuid.uuid5(NAMESPACE, f'{making} {n}')) for n in ('disk', 'part', 'fs')}
            build(a, {'key': key, **values}, image)
            write(image + '.key', making)
        if a.pristine:
            print(image)
            return
        os.makedirs(os.path.dirname(os.path.abspath(a.output)), exist_ok=True)
        if not os.path.exists(a.output) or read(a.output + '.key') != making:
            sparse_copy(image, a.output)
            write(a.output + '.key', making)
    if not a.key:
        private = os.path.join(os.path.dirname(os.path.abspath(a.output)), 'id_ed25519')
        shutil.copy(os.path.join(CACHE, 'id_ed25519'), private)
        os.chmod(private, 0o600)
    print(a.output)


ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end(number, _frame):
    for again in ENDS:
        signal.signal(again, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == '__main__':
    for s in ENDS:
        signal.signal(s, end)
    main()
