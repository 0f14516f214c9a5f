#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Fills the manual page's template with the option list of the program itself: mkman PROGRAM TEMPLATE OUTPUT"""
import datetime
import os
import subprocess
import sys

program, template, output = sys.argv[1:]
options = subprocess.run([program, 'help', '--mdoc'], capture_output=True, text=True, check=True,
                         timeout=30).stdout
with open(template, encoding='utf-8') as f:
    text = f.read()
stamp = int(os.environ.get('SOURCE_DATE_EPOCH', os.stat(template).st_mtime))
date = datetime.datetime.fromtimestamp(stamp, datetime.timezone.utc)
text = text.replace('@DATE@', f'{date:%B} {date.day}, {date.year}').replace('@OPTIONS@\n', options)
with open(output, 'w', encoding='utf-8') as f:
    f.write(text)
