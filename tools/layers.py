#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The include rule of the house: which folder of src/ may include which.

--links DIR  makes DIR/FOLDER/ with a symbolic link for every folder that FOLDER may include; the build gives
             each static library only that directory as its include path, so a breach does not compile.
--check      reads every #include "..." under src/ and app/ and reports breaches; exit status 1 if any.
"""
import argparse
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SRC = os.path.join(ROOT, 'src')

ALLOWED = {
    'base': [],
    'x86': ['base'],
    'core': ['base', 'x86'],
    'engine/interp': ['base', 'x86', 'core'],
    'engine/bt': ['base', 'x86', 'core', 'engine/interp'],
    'engine/kvm': ['base', 'x86', 'core', 'engine/interp'],
    'dev': ['base', 'core', 'x86'],
    'debug': ['base', 'core', 'x86'],
    'control': ['base', 'core', 'proto'],
    'snapshot': ['base', 'core'],
    'backend': ['base', 'core', 'x86', 'proto'],
    'host': ['base', 'core'],
    'config': ['base'],
    'proto': ['base'],
    'agent': ['base', 'proto'],
    'board': ['agent', 'proto', 'base', 'x86', 'core', 'engine/interp', 'engine/bt', 'engine/kvm', 'dev', 'backend',
              'debug', 'control', 'snapshot', 'host', 'config'],
    'app': ['board', 'config', 'proto', 'host', 'snapshot', 'core', 'base', 'x86'],
}


def make_links(out):
    for folder, allowed in ALLOWED.items():
        top = os.path.join(out, folder.replace('/', '_'))
        for dep in allowed + ([folder] if folder != 'app' else []):
            target = os.path.join(SRC, dep)
            if not os.path.isdir(target):
                continue
            link = os.path.join(top, dep)
            os.makedirs(os.path.dirname(link), exist_ok=True)
            if os.path.islink(link):
                if os.readlink(link) == target:
                    continue
                os.unlink(link)
            os.symlink(target, link)


def folder_of(path):
    rel = os.path.relpath(path, ROOT)
    rel = rel[4:] if rel.startswith('src/') else rel
    best = ''
    for folder in ALLOWED:
        if rel.startswith(folder + '/') and len(folder) > len(best):
            best = folder
    return best


def check():
    bad = 0
    for base in (SRC, os.path.join(ROOT, 'app')):
        for where, _, names in os.walk(base):
            for name in names:
                if not name.endswith(('.c', '.h', '.S')):
                    continue
                path = os.path.join(where, name)
                mine = folder_of(path)
                if not mine:
                    print(f'{os.path.relpath(path, ROOT)}: in no known folder')
                    bad += 1
                    continue
                with open(path, encoding='utf-8') as f:
                    for n, line in enumerate(f, 1):
                        m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
                        if not m:
                            continue
                        inc = os.path.join(SRC, m.group(1))
                        theirs = folder_of(inc) if os.path.exists(inc) else mine
                        if theirs != mine and theirs not in ALLOWED[mine]:
                            print(f'{os.path.relpath(path, ROOT)}:{n}: {mine} may not include {theirs}')
                            bad += 1
    return bad


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--links')
    p.add_argument('--check', action='store_true')
    a = p.parse_args()
    if a.links:
        make_links(a.links)
    if a.check and check():
        sys.exit(1)


main()
