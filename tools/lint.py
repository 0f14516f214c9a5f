#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""House rules a compiler does not see. Prints each breach; exit status 1 if any.

layers    the include rule (tools/layers.py)
spdx      the licence line in the first lines of every source file
length    no source file over 1000 lines (aim: 800)
paths     no path of somebody's machine in the tree
docs      files named in README.md and docs/ exist
man       mandoc finds nothing wrong with the manual page, when it has been built
"""
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CODE = ('.c', '.h', '.S', '.py', '.sh', '.ld', '.asl')
LIMIT = 1000


def tracked():
    out = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True,
                         check=True).stdout
    return [f for f in out.split('\0') if f and os.path.isfile(os.path.join(ROOT, f))]


def main():
    breaches = []
    for name in tracked():
        path = os.path.join(ROOT, name)
        try:
            with open(path, encoding='utf-8') as f:
                text = f.read()
        except UnicodeDecodeError:
            continue
        lines = text.split('\n')
        script = lines[0].startswith('#!')
        if (name.endswith(CODE) or script) and text.strip():
            if not any('SPDX-License-Identifier: Apache-2.0' in line for line in lines[:3]):
                breaches.append(f'{name}: no SPDX line')
            if len(lines) > LIMIT:
                breaches.append(f'{name}: {len(lines)} lines, limit {LIMIT}')
        for n, line in enumerate(lines, 1):
            if re.search(r'(^|[\s"\'=:(])/(work|home|root)/[a-z]+', line) and name != 'tools/lint.py':
                breaches.append(f'{name}:{n}: a path of one machine: {line.strip()[:80]}')
        if name.endswith('.md'):
            for ref in re.findall(r'`((?:src|app|tests|tools|guests|bench|docs|include)/[\w./-]+)`', text):
                if not os.path.exists(os.path.join(ROOT, ref)):
                    breaches.append(f'{name}: names {ref}, which is not there')
    for line in breaches:
        print(line)
    bad = bool(breaches)
    bad |= subprocess.run([os.path.join(ROOT, 'tools/layers.py'), '--check'], check=False).returncode != 0
    page = os.path.join(ROOT, 'build', 'docs', 'trivisor.1')
    if os.path.exists(page) and shutil.which('mandoc'):
        r = subprocess.run(['mandoc', '-Tlint', '-Wwarning', page], capture_output=True, text=True,
                           check=False)
        if r.stdout.strip():
            print(r.stdout.strip())
            bad = True
    program = os.path.join(ROOT, 'build', 'trivisor')
    if os.path.exists(page) and os.path.exists(program):
        text = subprocess.run([program, 'help'], capture_output=True, text=True, check=False).stdout
        with open(page, encoding='utf-8') as f:
            described = set(re.findall(r'\w+', ' '.join(re.findall(r'^\.It Cm (.*)$', f.read(), re.M))))
        for name in re.findall(r'^  (\w+) ', text.split('Commands:')[1], re.M):
            if name not in described:
                print(f'docs/man/trivisor.1.in: nothing about {name}')
                bad = True
        text = subprocess.run([program, 'help', 'run'], capture_output=True, text=True, check=False).stdout
        if re.search(r'be repeated[^-]*?be repeated', text):
            print('src/config/options.c: an option that says twice that it may be repeated')
            bad = True
    sys.exit(1 if bad else 0)


main()
