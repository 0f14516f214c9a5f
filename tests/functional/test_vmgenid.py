# SPDX-License-Identifier: Apache-2.0
"""The generation ID: a guest finds it, and no two machines have the same."""
import re
import subprocess

from conftest import LIMIT

# /dev/mem shows what lies below 1 MiB; the address is \_SB.VGEN.ADDR's.
LOOK = ('cat /sys/bus/acpi/devices/TRVS0001:00/modalias /sys/firmware/acpi/interrupts/gpe05; '
        'dd if=/dev/mem bs=4096 skip=255 count=1 2>/dev/null | hexdump -n 16 -v -e \'16/1 "%02x" "\\n"\'')


def look(program, kernel, initramfs):
    r = subprocess.run([program, 'run', '--engine', 'bt', '-k', kernel, '-i', initramfs, '-m', '256M', '--', 'sh', '-c',
                        LOOK], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert r.returncode == 0 and not r.stderr, r.stderr
    modalias, event, identity = r.stdout.splitlines()
    assert modalias == 'acpi:TRVS0001:VM_GEN_COUNTER:'
    assert re.search(r'\benabled\b', event), event
    assert re.fullmatch('[0-9a-f]{32}', identity) and identity != '0' * 32
    return identity


def test_each_machine_has_its_own(program, kernel, initramfs):
    assert look(program, kernel, initramfs) != look(program, kernel, initramfs)
