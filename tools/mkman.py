#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Fills the manual page's template with the option list of the program itself, and with the counters of engine bt and
what its source says of them: mkman PROGRAM TEMPLATE OUTPUT"""
import datetime
import os
import re
import subprocess
import sys

program, template, output = sys.argv[1:]
options = subprocess.run([program, 'help', '--mdoc'], capture_output=True, text=True, check=True,
                         timeout=30).stdout
with open(template, encoding='utf-8') as f:
    text = f.read()
source = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'src', 'engine', 'bt', 'bt_priv.h')
with open(source, encoding='utf-8') as f:
    counters = re.findall(r'^    X\((\w+), "([^"]+)"\)', f.read(), re.MULTILINE)
assert counters, f'{source}: no counters'
lines = ''.join(f'.It Cm {name}\n{what[0].upper()}{what[1:]}.\n' for name, what in counters)
stamp = int(os.environ.get('SOURCE_DATE_EPOCH', os.stat(template).st_mtime))
date = datetime.datetime.fromtimestamp(stamp, datetime.timezone.utc)
text = text.replace('@DATE@', f'{date:%B} {date.day}, {date.year}').replace('@OPTIONS@\n', options)
text = text.replace('@COUNTERS@\n', lines)
with open(output, 'w', encoding='utf-8') as f:
    f.write(text)
