#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every suite and ends with one line: N passed, N failed, N skipped.

Suites (all by default, or those named on the command line):
  format      clang-format
  lint        include rule, licence lines, file lengths, manual pages
  gcc         the build, warnings are errors
  clang       the same with clang
  unit        cmocka tests
  unit-clang  the same, built by clang
  asan        the unit tests with AddressSanitizer and UndefinedBehaviorSanitizer
  guests      freestanding test kernels under the engine
  diff        random instructions, host CPU against translator, some seconds
  functional  the program as a user drives it: a stock kernel, bad input, the terminal
  nested      engine kvm inside QEMU's emulation of a CPU with SVM
  debian      a whole Debian: builds its disk (once), boots it, network, packages, compiler, ssh

Every suite has a time limit, and every test in it one of its own; a suite that does not come to an end
counts as a failure. Exit status 1 when anything failed.
"""
import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Suite:
    """Counts of one suite."""

    def __init__(self, name):
        self.name = name
        self.passed = self.failed = self.skipped = 0
        self.log = ''

    def one(self, good):
        if good:
            self.passed += 1
        else:
            self.failed += 1


def run(argv, limit, env=None):
    """Runs argv in ROOT; returns (status, output). Kills its whole process group at the limit."""
    try:
        p = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, start_new_session=True,
                             env={**os.environ, **(env or {})})
    except OSError as e:
        return 127, f'{argv[0]}: {e.strerror}\n'
    try:
        out, _ = p.communicate(timeout=limit)
        return p.returncode, out.decode(errors='replace')
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        out, _ = p.communicate()
        return 124, out.decode(errors='replace') + f'\n{argv[0]}: no end after {limit} s\n'


def command(suite, argv, limit, env=None):
    status, out = run(argv, limit, env)
    suite.log = out if status else ''
    suite.one(status == 0)
    return status == 0


BUILDS = {
    'build': ({}, []),
    'build-clang': ({'CC': 'clang'}, []),
    'build-asan': ({'CC': 'clang'}, ['-Db_sanitize=address,undefined', '-Db_lundef=false',
                                     '-Doptimization=1']),
}
built = {}


def build(where):
    """Configures and builds one build directory, once; (good, log)."""
    if where in built:
        return built[where]
    env, options = BUILDS[where]
    log = ''
    status = 0
    if not os.path.exists(os.path.join(ROOT, where, 'build.ninja')):
        status, log = run(['meson', 'setup', where] + options, 120, env)
    if status == 0:
        targets = ['all', 'images', 'tools/virtio.img'] if where == 'build' else ['all']
        status, out = run(['ninja', '-C', where] + targets, 1800)
        log += out
    built[where] = (status == 0, log)
    return built[where]


def need(suite, where):
    """A suite's build directory; a failed build fails the suite, naming the reason once."""
    good, log = build(where)
    if not good:
        suite.failed += 1
        suite.log = f'{where}: does not build\n' + log[-3000:]
    return good


def subtests(text):
    """(passed, failed, skipped) as cmocka, the guests and difftest print them."""
    passed = sum(int(n) for n in re.findall(r'\[  PASSED  \] (\d+) test', text))
    failed = sum(int(n) for n in re.findall(r'\[  FAILED  \] \S+: (\d+) test', text))
    failed += sum(int(n) for n in re.findall(r'\[  FAILED  \] (\d+) test', text))
    skipped = sum(int(n) for n in re.findall(r'\[  SKIPPED \] \S+: (\d+) test', text))
    for p, f, rest in re.findall(r'^guest: (\d+) passed, (\d+) failed(.*)$', text, re.M):
        passed += int(p)
        failed += int(f)
        skipped += sum(int(n) for n in re.findall(r'(\d+) skipped', rest))
    return passed, failed, skipped


def meson_suite(suite, where, name, limit, env=None):
    if not need(suite, where):
        return
    log_name = f'testlog-{suite.name}'
    status, out = run(['meson', 'test', '-C', where, '--no-rebuild', '--suite', name,
                       '--logbase', log_name, '--num-processes', '2'], limit, env)
    path = os.path.join(ROOT, where, 'meson-logs', log_name + '.json')
    if 'No suitable tests defined' in out:
        suite.failed += 1
        suite.log = f'{suite.name}: no tests are registered\n'
        return
    if status == 124:
        suite.failed += 1
        suite.log = out
    try:
        with open(path, encoding='utf-8') as f:
            rows = [json.loads(line) for line in f if line.strip()]
    except (OSError, ValueError):
        rows = []
    if not rows and status != 0:
        suite.failed += 1
        suite.log = out[-3000:]
    for row in rows:
        # cmocka writes to stderr, guests to stdout.
        text = (row.get('stdout') or '') + (row.get('stderr') or '')
        passed, failed, skipped = subtests(text)
        result = row['result']
        if result == 'SKIP':
            skipped = max(skipped, 1)
        elif result in ('OK', 'EXPECTEDFAIL'):
            passed = max(passed, 1)
        else:
            failed = max(failed, 1)
            suite.log += f'--- {row["name"]}: {result}\n{text[-4000:]}\n'
        suite.passed += passed
        suite.failed += failed
        suite.skipped += skipped


DEBIAN = 'tests/functional/test_debian.py'


def functional(suite, limit, what):
    if not need(suite, 'build'):
        return
    report = os.path.join(ROOT, 'build', suite.name + '.xml')
    if os.path.exists(report):
        os.unlink(report)
    status, out = run(['/usr/bin/python3', '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
                       '--junitxml', report] + what, limit)
    suite.log = out if status or 'warnings summary' in out else ''
    try:
        root = ET.parse(report).getroot()
        tests = root if root.tag == 'testsuite' else root[0]
        count = {k: int(tests.get(k, 0)) for k in ('tests', 'failures', 'errors', 'skipped')}
        suite.failed = count['failures'] + count['errors']
        suite.skipped = count['skipped']
        suite.passed = count['tests'] - suite.failed - suite.skipped
    except (OSError, ET.ParseError, IndexError):
        suite.failed += 1
    if status and not suite.failed:
        suite.failed = 1


ASAN = {
    'ASAN_OPTIONS': 'detect_leaks=1:abort_on_error=0:allocator_may_return_null=1',
    'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1',
}


def build_suite(where):
    def go(suite):
        good, log = build(where)
        suite.one(good)
        suite.log = '' if good else log[-4000:]
    return go


SUITES = {
    'format': lambda s: command(s, ['tools/format.sh', '--check'], 120),
    'gcc': build_suite('build'),
    'lint': lambda s: command(s, ['tools/lint.py'], 120),
    'clang': build_suite('build-clang'),
    'unit': lambda s: meson_suite(s, 'build', 'unit', 600),
    'unit-clang': lambda s: meson_suite(s, 'build-clang', 'unit', 600),
    'asan': lambda s: meson_suite(s, 'build-asan', 'unit', 900, ASAN),
    'guests': lambda s: meson_suite(s, 'build', 'guests', 1200),
    'diff': lambda s: meson_suite(s, 'build', 'diff', 600),
    # Guests wait a lot and have one CPU mostly. A file's tests stay together: they share what they set up.
    'functional': lambda s: functional(s, 1200, ['-n', '2', '--dist', 'loadfile', 'tests/functional', '--ignore', DEBIAN]),
    'nested': lambda s: functional(s, 900, ['tests/nested']),
    'debian': lambda s: functional(s, 1200, ['-x', DEBIAN]),
}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('suites', nargs='*', metavar='suite', help='format, lint, gcc, ...')
    a = p.parse_args()
    for name in a.suites:
        if name not in SUITES:
            p.error(f'no suite {name!r}')

    done = []
    for name, go in SUITES.items():
        if a.suites and name not in a.suites:
            continue
        suite = Suite(name)
        start = time.monotonic()
        go(suite)
        done.append(suite)
        if suite.log:
            print(suite.log.rstrip(), flush=True)
        skipped = f', {suite.skipped} skipped' if suite.skipped else ''
        print(f'{name}: {suite.passed} passed, {suite.failed} failed{skipped}'
              f' ({time.monotonic() - start:.0f} s)', flush=True)
    passed, failed, skipped = (sum(getattr(s, k) for s in done) for k in ('passed', 'failed', 'skipped'))
    print(f'{passed} passed, {failed} failed, {skipped} skipped', flush=True)
    sys.exit(1 if failed else 0)


main()
