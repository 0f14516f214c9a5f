# SPDX-License-Identifier: Apache-2.0
"""Engine kvm straight on this host's /dev/kvm, where it has one that runs guests on the CPU. One that emulates every
instruction is slow, and wrong in ways that are its own: doctor, which cannot hang on it, tells. The suite `nested` is
what needs no /dev/kvm."""
import os
import re
import subprocess

import pytest

from conftest import ROOT

# (guest, CPUs), as in the suite `nested`, and what KVM's local APIC does otherwise than the SDM has it.
GUESTS = [('stub', 1), ('stub', 2), ('strings', 1), ('blocks', 1), ('timer', 1), ('ipi', 1), ('ipi', 2),
          ('poweroff', 1)]
DEVIATES = {'esr__illegal_vector', 'lapic__x2apic_mode'}
SLOW = 25  # per cent of the bare CPU's speed


@pytest.fixture(scope='module')
def kvm(program):
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        pytest.skip('no /dev/kvm to be used here')
    out = subprocess.run([program, 'doctor'], capture_output=True, text=True, timeout=90, check=False).stdout
    m = re.search(r'^engine +kvm .*\n((?: .*\n)*)', out, re.M)
    speed = re.search(r'instructions a second, (\d+) %', m[1]) if m else None
    if not speed or int(speed[1]) < SLOW:
        pytest.skip(f'this /dev/kvm does not run guests on the CPU: {m[0] if m else out}')


@pytest.mark.parametrize('name,cpus', GUESTS)
def test_guest(kvm, program, name, cpus):
    r = subprocess.run([program, 'run', '--engine', 'kvm', '-m', '64', '-c', str(cpus), '-k',
                        os.path.join(ROOT, 'build', 'guests', f'guest-{name}')], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, errors='replace', timeout=60, check=False)
    m = re.search(r'^guest: (\d+) passed, (\d+) failed', r.stdout, re.M)
    assert m, f'no summary, status {r.returncode}:\n{r.stdout[-3000:]}{r.stderr}'
    failed = set(re.findall(r'^fail (\S+)', r.stdout, re.M))
    assert int(m[1]) and failed <= DEVIATES and int(m[2]) == len(failed), r.stdout
