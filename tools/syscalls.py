#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The system calls of this host's headers as entries of a C array of names: syscalls.py COMPILER..."""
import re
import subprocess
import sys

r = subprocess.run(sys.argv[1:] + ['-E', '-dM', '-x', 'c', '-'], input='#include <asm/unistd.h>\n', capture_output=True,
                   text=True, check=True)
calls = {int(number): name for name, number in re.findall(r'^#define __NR_(\w+) (\d+)$', r.stdout, re.M)}
if len(calls) < 300:
    sys.exit('syscalls.py: these headers know only %d system calls' % len(calls))
for number, name in sorted(calls.items()):
    print('[%d] = "%s",' % (number, name))
