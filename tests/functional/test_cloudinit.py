# SPDX-License-Identifier: Apache-2.0
"""--cloud-init: the guest finds a read-only disk labelled cidata with what cloud-init's NoCloud source reads."""
import subprocess

import pytest

from conftest import LIMIT

# A line, then each file behind its name.
LOOK = ('for m in virtio_pci virtio_blk isofs; do /sbin/modprobe $m; done; mkdir /mnt; mount -t iso9660 /dev/vda /mnt || exit; '
        'echo $(cat /sys/block/vda/ro) $(dd if=/dev/vda bs=1 skip=32808 count=6 2>/dev/null); cd /mnt; '
        'for f in *; do echo "== $f"; cat $f; done')


@pytest.fixture
def look(program, kernel, virtio_image):
    """look(option) is what the guest finds: {name: contents}."""

    def go(option):
        r = subprocess.run([program, 'run', '--engine', 'bt', '-k', kernel, '-i', virtio_image, '-m', '256M',
                            '--cloud-init', option, '--', 'sh', '-c', LOOK], stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=2 * LIMIT, check=False)
        assert r.returncode == 0, r.stdout + r.stderr
        head, *files = r.stdout.split('== ')
        assert head == '1 cidata\n'
        return dict(f.split('\n', 1) for f in files)

    return go


def test_files_arrive(look, tmp_path):
    texts = {'user-data': '#cloud-config\npackages: [vim]\n', 'meta-data': 'instance-id: mine\n',
             'network-config': 'version: 2\n'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert look(','.join(f'{n}={tmp_path / n}' for n in texts)) == texts


def test_made_from_a_key(look, tmp_path):
    key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF someone@somewhere'
    (tmp_path / 'key.pub').write_text(key + '\n')
    files = look(f'hostname=box,ssh-key={tmp_path}/key.pub')
    assert files['user-data'] == '#cloud-config\n'
    assert f"local-hostname: box\npublic-keys:\n  - '{key}'\n" in files['meta-data']
    assert files['meta-data'].startswith('instance-id: iid-')


@pytest.mark.parametrize('option, says', [
    ('', "''"), ('user-data=/nonexistent', '/nonexistent'), ('wings=x', 'wings'), ('hostname', 'hostname'),
    ('hostname=a b', 'a b'), ('hostname=a,hostname=b', 'twice'), ('ssh-key=/dev/null', '/dev/null'),
    ('ssh-key={k}', 'public key'), ('meta-data={k},hostname=a', 'meta-data'), ('user-data=/', 'directory')])
def test_refused(program, kernel, tmp_path, option, says):
    (tmp_path / 'k').write_text('two\nlines\n')
    r = subprocess.run([program, 'run', '-k', kernel, '--cloud-init', option.format(k=tmp_path / 'k')],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert r.returncode == 125 and len(r.stderr.splitlines()) == 1 and says in r.stderr, r.stderr
