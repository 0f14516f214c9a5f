# SPDX-License-Identifier: Apache-2.0
"""Real gdb against the stub: a small guest with symbols (guests/stub). The scripts are Python inside gdb;
what they assert is checked there, what they print here."""
import os
import re
import socket
import subprocess
import tempfile
import textwrap
import time

import pytest

from conftest import ROOT

GUEST = os.path.join(ROOT, 'build', 'guests', 'guest-stub')
LIMIT = 60

PRELUDE = '''
import gdb, re
for setting in ('pagination off', 'confirm off', 'width 0', 'print thread-events off', 'debuginfod enabled off'):
    gdb.execute('set ' + setting)
def run(text):
    return gdb.execute(text, to_string=True)
def value(text):
    return int(gdb.parse_and_eval(text))
def here():
    return gdb.selected_frame().name()
last = ''
KINDS = {gdb.BP_BREAKPOINT: 'break', gdb.BP_HARDWARE_WATCHPOINT: 'watch', gdb.BP_READ_WATCHPOINT: 'rwatch',
         gdb.BP_ACCESS_WATCHPOINT: 'awatch'}
def on_stop(event):
    global last
    if isinstance(event, gdb.BreakpointEvent):
        last = KINDS.get(event.breakpoints[0].type, 'hbreak')
    elif isinstance(event, gdb.SignalEvent):
        last = event.stop_signal
    else:
        last = 'step'
def on_exit(event):
    global last
    last = 'exited'
gdb.events.stop.connect(on_stop)
gdb.events.exited.connect(on_exit)
def go(text='continue'):
    """Runs on; what it stopped for: break, hbreak, watch, rwatch, awatch, step, exited, or a signal."""
    global last
    last = ''
    run(text)
    return last
def thread(n):
    run('thread %d' % n)
'''


class Machine:
    """A guest under the stub, and gdb runs against it."""

    def __init__(self, program, directory, args, options=',wait', cpus=1, kernel=GUEST, **more):
        self.socket = os.path.join(directory, 'gdb')
        self.serial = os.path.join(directory, 'serial')
        self.directory = directory
        self.log = open(os.path.join(directory, 'log'), 'w+', encoding='utf-8')
        self.process = subprocess.Popen(
            [program, 'run', '--engine', 'bt', '-k', kernel, '-m', '128M', '-c', str(cpus), '--gdb',
             f'unix:{self.socket}{options}', '--serial', f'file:{self.serial}', *args],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, **more)
        end = time.monotonic() + 10
        while not os.path.exists(self.socket):
            assert self.process.poll() is None and time.monotonic() < end, self.messages()
            time.sleep(0.01)

    def messages(self):
        self.log.flush()
        with open(self.log.name, encoding='utf-8') as f:
            return f.read()

    def console(self):
        with open(self.serial, encoding='utf-8', errors='replace') as f:
            return f.read()

    def gdb(self, script, symbols=GUEST + '.elf', connect=True, timeout=LIMIT):
        """Runs Python in gdb, connected and stopped; its output. A failed assert fails the test."""
        path = os.path.join(self.directory, 'script.py')
        head = PRELUDE + (f"run('target remote {self.socket}')\n" if connect else '')
        with open(path, 'w', encoding='utf-8') as f:
            f.write(head + textwrap.dedent(script) + "\nprint('SCRIPT DONE')\n")
        r = subprocess.run(['gdb', '-q', '-nx', '-batch', '-x', path, symbols], capture_output=True, text=True,
                           errors='replace', timeout=timeout, check=False, stdin=subprocess.DEVNULL)
        assert 'SCRIPT DONE' in r.stdout, r.stdout + r.stderr + self.messages()
        return r.stdout

    def wait(self, timeout=LIMIT):
        return self.process.wait(timeout)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture
def machine(program):
    machines = []
    with tempfile.TemporaryDirectory(prefix='trivisor-gdb-') as top:
        def start(*args, **more):
            directory = os.path.join(top, str(len(machines)))
            os.mkdir(directory)
            machines.append(Machine(program, directory, args, **more))
            return machines[-1]

        yield start
        for m in machines:
            m.close()


MODES = pytest.mark.parametrize('mode', ['soft', 'interp'])


@MODES
def test_breakpoints_and_steps(machine, mode):
    m = machine('--bt-mode', mode)
    m.gdb('''
        run('break inner')
        go()
        assert here() == 'inner' and last == 'break', last
        assert value('$rdi') == 5 and value('$rsi') == 1
        assert [f.name() for f in (gdb.selected_frame(), gdb.selected_frame().older())] == ['inner', 'outer']
        go('finish')
        assert last == 'step' and here() == 'outer', last
        assert value('$rax') == 16
        go()
        assert here() == 'inner' and value('$rdi') == 6, last
        run('delete')
        at = value('$pc')
        go('stepi')
        assert value('$pc') > at
        # Stepping ends in the caller, source line by source line.
        for i in range(20):
            go('step')
            if here() != 'inner':
                break
        assert here() == 'outer', here()
        # A condition is looked at by gdb, which stops and goes on each time.
        run('break inner if $rdi == 70')
        go()
        assert value('$rdi') == 70, last
        run('delete')
        # Hardware breakpoints are reported as such.
        run('hbreak outer')
        go()
        assert here() == 'outer' and last == 'hbreak', last
        run('delete')
        run('tbreak memory')
        go()
        assert here() == 'memory', last
        go()
        assert last == 'exited', last
    ''')
    assert m.wait() == 1
    assert '5 passed, 0 failed' in m.console()


@MODES
def test_watchpoints(machine, mode):
    m = machine('--bt-mode', mode)
    m.gdb('''
        run('break memory')
        go()
        run('delete')
        run('watch watched')
        seen = []
        for i in range(3):
            go()
            assert last == 'watch' and here() in ('touch', 'memory'), last
            seen.append(value('watched'))
        assert seen == [1, 2, 42], seen
        run('delete')
    ''')
    assert m.wait() == 1
    assert '5 passed, 0 failed' in m.console()
    m = machine('--bt-mode', mode)
    m.gdb('''
        run('break peek')
        go()
        run('rwatch watched')
        go()
        assert last == 'rwatch' and here() in ('peek', 'memory'), last
        run('delete')
        run('awatch *(char *)&text[40]')
        go()
        assert last == 'awatch' and here() == 'strings', last
        # One iteration at a time: nothing beyond the byte has been written.
        assert value('text[40]') != 0 and value('text[41]') == 0
        # And again, by what reads it.
        go()
        assert last == 'awatch' and here() in ('memcmp', 'strings'), last
        run('delete')
        go()
        assert last == 'exited', last
    ''')
    assert m.wait() == 1
    assert '5 passed, 0 failed' in m.console()


@MODES
def test_registers_and_memory(machine, mode):
    m = machine('--bt-mode', mode)
    m.gdb('''
        run('break inner')
        go()
        run('set $rdi = 100')
        assert value('$rdi') == 100
        go('finish')
        assert value('$rax') == 301
        run('set $rax = 16')   # what the test expects
        # Every register can be written as it is.
        for name in ('rbx r15 eflags cs ss fs_base gs_base k_gs_base cr0 cr2 cr3 cr4 cr8 efer mxcsr fctrl ftag '
                     'dr6 dr7 xcr0 idtr_base tr').split():
            v = value('$' + name)
            run('set $%s = %d' % (name, v))
            assert value('$' + name) == v, name
        # and changed where the CPU can hold the value
        for name, v in (('r15', 0x1234567890abcdef), ('k_gs_base', 0xffff800000001000), ('cr2', 0x123456789),
                        ('mxcsr', 0x1fa0), ('fctrl', 0x27f), ('dr0', 0x1000), ('cr8', 3)):
            old = value('$' + name)
            run('set $%s = %d' % (name, v))
            run('maint flush register-cache')
            assert value('$' + name) == v, (name, value('$' + name))
            run('set $%s = %d' % (name, old))
        for name, v in (('k_gs_base', 0x1234567890abcdef), ('cr0', 0), ('cs', 0x1234), ('efer', 0)):
            try:
                run('set $%s = %d' % (name, v))
                assert False, name
            except gdb.error:
                pass
            run('maint flush register-cache')
        run('set $xmm3.v4_int32 = {1, 2, 3, 4}')
        run('maint flush register-cache')
        assert [value('$xmm3.v4_int32[%d]' % i) for i in range(4)] == [1, 2, 3, 4]
        run('set $st0 = 1.5')
        run('maint flush register-cache')
        assert float(gdb.parse_and_eval('$st0')) == 1.5
        names = [r.name for r in gdb.selected_frame().architecture().registers()]
        if 'ymm0' in names:
            run('set $ymm2.v8_int32 = {1, 2, 3, 4, 5, 6, 7, 8}')
            run('maint flush register-cache')
            assert value('$ymm2.v8_int32[7]') == 8 and value('$ymm2.v8_int32[0]') == 1
            print('AVX')
        if 'zmm0' in names:
            run('set $zmm17.v16_int32[15] = 77')
            run('set $k3 = 0x1234')
            run('maint flush register-cache')
            assert value('$zmm17.v16_int32[15]') == 77 and value('$k3') == 0x1234
            print('AVX-512')
        # Memory, by virtual and by physical address; what is not there is refused.
        run('set var result = 0x1122334455667788')
        assert value('result') == 0x1122334455667788
        phys = re.search('0x[0-9a-f]+', run('monitor gva2gpa %d' % value('&result'))).group(0)
        run('monitor phys on')
        run('maint flush dcache')
        assert value('*(unsigned long *)%s' % phys) == 0x1122334455667788
        run('monitor phys off')
        run('maint flush dcache')
        for bad in ('0xffff900000000000', '0x8000000000000000', '0xfee00000'):
            try:
                run('x/gx ' + bad)
                assert False, bad
            except gdb.error:
                pass
        assert 'cr3' in run('monitor regs') and 'engine bt' in run('monitor info')
        assert 'gva2gpa' in run('monitor help')
        # A function of the guest called from gdb.
        run('delete')
        assert value('inner(7, 2)') == 23
        go()
        assert last == 'exited', last
    ''')
    assert m.wait() == 1
    assert '5 passed, 0 failed' in m.console()


@MODES
def test_breakpoints_are_invisible(machine, mode):
    """The guest adds up its code, and has its own breakpoint and single-step traps."""
    m = machine('--bt-mode', mode)
    m.gdb('''
        run('break inner')
        run('hbreak *(inner + 4)')
        run('break on_db')
        for i in range(6):
            go()
            assert here() == 'inner', last
        run('disable 1-2')
        for i in range(3):
            go()
            assert here() == 'on_db', last
        go()
        assert last == 'exited', last
    ''')
    assert m.wait() == 1
    assert '5 passed, 0 failed' in m.console()


@MODES
def test_processors(machine, mode):
    m = machine('--bt-mode', mode, cpus=2)
    m.gdb('''
        run('break spin')
        go()
        run('set var hold = 1')
        first = value('$_thread')
        assert first in (1, 2)
        # Where it goes round the first one may be before the other comes.
        for i in range(1000):
            go()
            if value('$_thread') != first:
                break
        run('delete')
        text = run('info threads')
        assert 'CPU#0' in text and 'CPU#1' in text and text.count('spin') + text.count(' pause ()') >= 2, text
        text = run('thread apply all bt')
        assert 'in smp_idle' in text and 'in smp_run_all' in text and 'in processors' in text, text
        # One steps, the other stands.
        thread(1)
        run('set scheduler-locking on')
        before = [value('counter[0]'), value('counter[1]')]
        for i in range(30):
            go('stepi')
        after = [value('counter[0]'), value('counter[1]')]
        assert after[0] > before[0] and after[1] == before[1], (before, after)
        thread(2)
        for i in range(30):
            go('stepi')
        assert value('counter[1]') > after[1]
        # Both run when one steps.
        run('set scheduler-locking off')
        before = [value('counter[0]'), value('counter[1]')]
        for i in range(30):
            go('stepi')
        assert value('counter[0]') > before[0] and value('counter[1]') > before[1]
        # A watchpoint on what the other one does.
        thread(1)
        run('watch counter[1]')
        go()
        assert last == 'watch' and value('$_thread') == 2, last
        run('delete')
        run('set var hold = 0')
        go()
        assert last == 'exited', last
    ''')
    assert m.wait() == 1
    assert '5 passed, 0 failed' in m.console()


def test_32_bit_code(machine):
    guest = GUEST.replace('stub', 'prot32')
    m = machine(options=',wait,arch=i386', kernel=guest)
    m.gdb('''
        run('break run_tests')
        go()
        assert here() == 'run_tests' and last == 'break', last
        assert gdb.selected_frame().architecture().name() == 'i386'
        text = run('info registers')
        assert 'eip' in text and 'rip' not in text, text
        assert value('$cr0') & 1 and not value('$efer') & 0x400
        run('set $eax = 0x12345678')
        assert value('$ax') == 0x5678
        for i in range(10):
            go('step')
            assert last == 'step', last
        run('awatch *(int *)%d' % (value('$esp') - 4))
        go()
        assert last == 'awatch', last
        run('delete')
        go()
        assert last == 'exited', last
    ''', symbols=guest + '.elf')
    assert m.wait() == 1


@MODES
def test_16_bit_code(machine, mode):
    """Breakpoints are at linear addresses; the program counter is IP."""
    m = machine('--bt-mode', mode, cpus=2)
    m.gdb('''
        run('hbreak *0x2000')    # ap_start16
        go()
        assert last == 'step', last   # gdb knows of no breakpoint at IP: a plain SIGTRAP
        assert value('$_thread') == 2 and value('$cs') == 0x200 and value('$pc') == 0, last
        assert not value('$cr0') & 1
        run('delete')
        for i in range(3):
            run('stepi')
        assert value('$pc') > 0 and value('$cs') == 0x200
        run('set $ds = 0x1234')
        assert '12340' in run('monitor regs')
        run('set $ds = 0')
        go()
    ''', timeout=LIMIT)
    m.wait()


def packet(s, data):
    s.sendall(b'$%s#%02x' % (data, sum(data) & 255))


def answer(s):
    got = b''
    while not re.search(rb'\$[^#]*#..$', got):
        part = s.recv(65536)
        assert part, got
        got += part
    return re.search(rb'\$([^#]*)#..$', got).group(1)


def connect(m):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(LIMIT)
    s.connect(m.socket)
    return s


def ask(s, data):
    packet(s, data)
    r = answer(s)
    s.sendall(b'+')
    return r


def test_interrupt_detach_and_attach_again(machine):
    m = machine(options='', cpus=2)
    m.wait()
    m = machine(cpus=2)
    m.gdb('''
        run('break spin')
        go()
        run('set var hold = 1')
    ''')  # gdb's end detaches: breakpoints are gone, the guest spins
    s = connect(m)
    assert ask(s, b'?').startswith(b'T05thread:')
    packet(s, b'vCont;c')
    time.sleep(0.1)
    s.sendall(b'\x03')
    assert answer(s).startswith(b'T02thread:')
    s.sendall(b'+')
    assert ask(s, b'qfThreadInfo') == b'm1,2'
    assert b'running' in bytes.fromhex(ask(s, b'qThreadExtraInfo,1').decode())
    # A second debugger is turned away.
    with connect(m) as other:
        assert other.recv(10) == b''
    # The connection breaks: the guest goes on.
    s.close()
    m.gdb('''
        run('set var hold = 0')
        go()
        assert last == 'exited', last
    ''')
    assert m.wait() == 1
    assert '5 passed, 0 failed' in m.console()


def test_kill(machine):
    m = machine()
    m.gdb("run('kill')")
    assert m.wait() == 128 + 9
    m = machine()
    m.gdb("run('monitor quit')")
    assert m.wait() == 0


def test_a_stopped_guest_can_be_ended(machine):
    m = machine()
    s = connect(m)
    assert ask(s, b'?').startswith(b'T05')
    m.process.terminate()
    assert m.wait() == 128 + 15
    s.close()


def test_triple_fault_stops_first(machine):
    m = machine()
    m.gdb('''
        run('break inner')
        go()
        run('delete')
        # No interrupt table and a breakpoint instruction: nothing to deliver to.
        run('set *(char *)$pc = 0xcc')
        run('set $cr3 = 0')
        go()
        assert last == 'SIGABRT', last
        assert value('$cr3') == 0
        go()
        assert last == 'exited', last
    ''')
    assert m.wait() == 122


def test_tcp(program):
    p = subprocess.Popen([program, 'run', '-k', GUEST, '-m', '64M', '--gdb', '0,wait', '--serial', 'null'],
                         stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        line = ''
        while 'listening' not in line:
            line = p.stderr.readline()
            assert line, 'no port was printed'
        port = int(re.search(r'127\.0\.0\.1:(\d+)', line).group(1))
        with socket.create_connection(('127.0.0.1', port), timeout=LIMIT) as s:
            assert b'QStartNoAckMode+' in ask(s, b'qSupported:swbreak+;hwbreak+')
            assert ask(s, b'QStartNoAckMode') == b'OK'
            packet(s, b'vCont;c')
            assert answer(s) == b'W01'
        assert p.wait(LIMIT) == 1
    finally:
        p.kill()
        p.wait()


@pytest.mark.parametrize('where', ['', 'x', '1:2:3', '70000', '-1', 'unix:', '1.2.3:4', '1234,stay',
                                   'unix:/no/such/place', 'unix:' + 'a' * 200])
def test_bad_places(program, where):
    r = subprocess.run([program, 'run', '-k', GUEST, '--gdb', where], capture_output=True, text=True,
                       timeout=LIMIT, check=False, stdin=subprocess.DEVNULL)
    assert r.returncode == 125
    assert 'gdb' in r.stderr and r.stderr.count('\n') == 1, r.stderr


def test_a_stale_socket_is_replaced_a_live_one_is_not(program, machine):
    m = machine()
    r = subprocess.run([program, 'run', '-k', GUEST, '--gdb', 'unix:' + m.socket], capture_output=True,
                       text=True, timeout=LIMIT, check=False, stdin=subprocess.DEVNULL)
    assert r.returncode == 125 and 'in use' in r.stderr, r.stderr
    m.close()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(m.socket)
    r = subprocess.run([program, 'run', '-k', GUEST, '-m', '64M', '--gdb', 'unix:' + m.socket, '--serial',
                        'null'], capture_output=True, text=True, timeout=LIMIT, check=False,
                       stdin=subprocess.DEVNULL)
    assert r.returncode == 1, r.stderr
