# SPDX-License-Identifier: Apache-2.0
"""Completions for shells: they load, and offer what the option table says."""
import os
import subprocess

import pytest

from conftest import running


def script(program, shell):
    r = subprocess.run([program, 'completion', shell], capture_output=True, text=True, timeout=20, check=True)
    return r.stdout


def options(program):
    out = subprocess.run([program, 'run', '--dump-options'], capture_output=True, text=True, timeout=20, check=True).stdout
    return [line.split('\t') for line in out.splitlines()]


def complete(program, *words, cwd=None):
    """What bash offers for the last word; a shell passes its words cut at = and :."""
    line = ' '.join(f"'{w}'" for w in words)
    r = subprocess.run(['bash', '-c', f'eval "$(\'{program}\' completion bash)"; COMP_WORDS=({line}); '
                        f'COMP_CWORD={len(words) - 1}; _trivisor; printf "%s\\n" "${{COMPREPLY[@]}}"'],
                       capture_output=True, text=True, timeout=20, check=False, cwd=cwd)
    assert r.returncode == 0 and r.stderr == '', r.stderr
    return r.stdout.split()


def test_bash_offers_commands_and_options(program):
    assert {'run', 'console', 'completion', 'help'} <= set(complete(program, program, ''))
    assert complete(program, program, 'comp') == ['completion']
    assert set(complete(program, program, 'run', '--')) == {o[0] for o in options(program)}
    assert complete(program, program, 'run', '--ker') == ['--kernel']
    assert complete(program, program, 'run', '--', '--ker') == []


def test_bash_offers_choices(program):
    for name, letter, kind, _, choices, _ in options(program):
        if kind != 'choice':
            continue
        assert set(complete(program, program, 'run', name, '')) == set(choices.split('|'))
        assert set(complete(program, program, 'run', name, '=', choices[0])) == \
            {c for c in choices.split('|') if c.startswith(choices[0])}
        if letter != '-':
            assert set(complete(program, program, 'run', letter, '')) == set(choices.split('|'))
    assert complete(program, program, 'run', '--serial', 'p') == ['pty']
    assert complete(program, program, 'run', '--name', '') == []


def test_bash_offers_files(program, tmp_path):
    (tmp_path / 'vmlinuz-1').touch()
    (tmp_path / 'vmdir').mkdir()
    for option in ('-k', '--kernel', '-i'):
        assert sorted(complete(program, program, 'run', option, 'vm', cwd=tmp_path)) == ['vmdir', 'vmlinuz-1']
    assert complete(program, program, 'run', '--share', 'vm', cwd=tmp_path) == ['vmdir']


def test_bash_offers_running_machines(program, kernel, initramfs):
    argv = [program, 'run', '-k', kernel, '-i', initramfs, '-m', '128M', '--name', 'offered', '--detach']
    subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=True)
    try:
        assert complete(program, program, 'console', 'off') == ['offered']
    finally:
        os.kill(running(program)['offered'], 9)


@pytest.mark.parametrize('shell, check', [('bash', '-n'), ('zsh', '-n'), ('fish', '--no-execute')])
def test_scripts_are_sound(program, shell, check, tmp_path):
    path = tmp_path / 'script'
    path.write_text(script(program, shell))
    r = subprocess.run([shell, check, str(path)], capture_output=True, text=True, timeout=20, check=False)
    assert r.returncode == 0 and r.stderr == '', r.stderr
    for option in options(program):
        assert option[0].lstrip('-') in path.read_text()


def test_fish_offers(program, tmp_path):
    path = tmp_path / 'script'
    path.write_text(script(program, 'fish'))

    def offers(line):
        r = subprocess.run(['fish', '--no-config', '-c', f"source {path}; complete -C '{line}'"], capture_output=True,
                           text=True, timeout=20, check=True)
        return {row.split('\t')[0] for row in r.stdout.splitlines()}

    assert '--kernel' in offers('trivisor run --')
    assert offers('trivisor run --engine ') >= {'auto', 'bt'}
    assert offers('trivisor completion ') >= {'bash', 'zsh', 'fish'}


def test_zsh_offers_options(program, tmp_path):
    """Sourced as the help says; the completion system only says whether it takes it."""
    path = tmp_path / 'script'
    path.write_text(script(program, 'zsh'))
    r = subprocess.run(['zsh', '-f', '-c', f'autoload -Uz compinit; compinit -u -d {tmp_path}/dump; source {path}; '
                        'print -r -- $_comps[trivisor]'], capture_output=True, text=True, timeout=20, check=False)
    assert r.stdout == '_trivisor\n' and r.stderr == '', r.stderr


def test_refused(program):
    for args in ([], ['tcsh'], ['bash', 'zsh']):
        r = subprocess.run([program, 'completion'] + args, capture_output=True, text=True, timeout=20, check=False)
        assert r.returncode == 125 and len(r.stderr.splitlines()) == 1
