# SPDX-License-Identifier: Apache-2.0
"""--engine auto and what doctor says about engines."""
import os
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STUB = os.path.join(ROOT, 'build', 'guests', 'guest-stub')


def test_auto_says_what_and_why(program, tmp_path):
    r = subprocess.run([program, 'run', '--engine', 'auto', '--check', '-k', STUB], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=60, check=False,
                       env={**os.environ, 'XDG_RUNTIME_DIR': str(tmp_path)})
    assert r.returncode == 0, r.stderr
    assert re.fullmatch(r'trivisor: engine: (bt|kvm) \(.*(bt|kvm).*\)\n', r.stderr), r.stderr
    if not os.path.exists('/dev/kvm'):
        assert 'engine: bt (kvm: there is no /dev/kvm' in r.stderr
        assert not (tmp_path / 'trivisor' / 'engine-speeds').exists()  # nothing was measured


@pytest.mark.skipif(not os.path.exists('/dev/kvm'), reason='there is no /dev/kvm')
@pytest.mark.parametrize('text', [b'', b'trivisor engine speeds 1\n', b'\xff' * 600, b'trivisor engine speeds 1\nx\nend\n'])
def test_a_broken_file_of_speeds_is_as_good_as_none(program, tmp_path, text):
    (tmp_path / 'trivisor').mkdir(mode=0o700)
    (tmp_path / 'trivisor' / 'engine-speeds').write_bytes(text)
    r = subprocess.run([program, 'run', '--engine', 'auto', '--check', '-k', STUB], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=60, check=False,
                       env={**os.environ, 'XDG_RUNTIME_DIR': str(tmp_path)})
    assert r.returncode == 0 and r.stderr.count('\n') == 1, r.stderr


def test_doctor_explains_every_engine(program):
    r = subprocess.run([program, 'doctor'], capture_output=True, text=True, timeout=60, check=False)
    assert r.returncode == 0, r.stdout
    assert re.search(r'^engine +bt +works', r.stdout, re.M) and 'million instructions a second' in r.stdout
    assert re.search(r'^verdict  --engine auto takes (bt|kvm) \(', r.stdout, re.M), r.stdout
    if not os.path.exists('/dev/kvm'):
        assert re.search(r'^engine +kvm +does not work: there is no /dev/kvm', r.stdout, re.M), r.stdout
