# SPDX-License-Identifier: Apache-2.0
"""The outer machine of the nested tests: QEMU's TCG with an emulated AMD CPU, Debian's kernel, kvm-amd, and trivisor with
its guests in the initramfs. It runs steps, shell commands with a limit each, and says how they ended.

With several CPUs it hangs now and then (docs/decisions/0016), and then all of it: no step, whatever it does, outlives its
limit in a kernel that still works. So a machine in which one does is killed and another does the rest. That is told by a
warning with the CPUs' registers; a step in which two machines have hung has no result."""
import os
import re
import select
import socket
import subprocess
import time
import warnings

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, 'build')
BOOT_LIMIT = 90  # seconds to the first step, and from the last one
SLACK = 30  # what a step may take beyond its limit

# All processes of a step end with it: busybox's timeout ends one.
STEP = """step() {
    setsid sh /tmp/step </dev/null 2>&1 &
    group=$!
    (sleep $1; kill -TERM -$group; sleep 5; kill -9 -$group) &
    watch=$!
    wait $group
    status=$?
    kill $watch
    kill -9 -$group 2>/dev/null
    return $status
}"""


def script(steps):
    """A shell script that runs {name: (command, limit in seconds)}, those not named in $skip."""
    out = ['#!/bin/sh', 'cd /bin', 'ld-linux-x86-64.so.2 --library-path /bin /bin/hold </dev/null &', STEP]
    for name, (command, limit) in steps.items():
        # A file each: the guest's own console cannot be mistaken for ours.
        out += [f'case ,$skip, in *,{name},*) ;; *)', f"cat > /tmp/step <<'STEP'\n{command}\nSTEP",
                f'echo "@begin {name}"; step {limit}; echo "@end {name} $?" ;;', 'esac']
    return '\n'.join(out) + '\n'


def libraries(program):
    r = subprocess.run(['ldd', program], capture_output=True, text=True, timeout=30, check=True)
    return re.findall(r'(/lib\S+)', r.stdout)


def slirp():
    """What a user network loads when it is made."""
    r = subprocess.run(['/sbin/ldconfig', '-p'], capture_output=True, text=True, timeout=30, check=True)
    path = re.search(r'libslirp\.so\.0 \(libc6,x86-64.* => (\S+)', r.stdout)[1]
    return [path] + libraries(path)


def image(tmp, kernel, guests, steps):
    """The initramfs: trivisor, these guests, and for each {cpus: steps} a script."""
    r = subprocess.run(['ninja', '-C', BUILD, 'tests/carry/carry.img'], capture_output=True, text=True, timeout=300,
                       check=False)
    assert r.returncode == 0, f'no guest image: {r.stdout[-2000:]}{r.stderr}'
    program = os.environ.get('TRIVISOR', os.path.join(BUILD, 'trivisor'))
    small = tmp / 'trivisor.bin'
    subprocess.run(['strip', '-o', small, program], timeout=60, check=True)
    for cpus in steps:
        (tmp / f'steps-{cpus}').write_text(script(steps[cpus]))
    (tmp / 'trivisor').write_text('#!/bin/sh\nexec /bin/ld-linux-x86-64.so.2 --library-path /bin /bin/trivisor.bin "$@"\n')
    add = [str(small), str(tmp / 'trivisor'), f'{kernel}:/bin/vmlinuz']
    add += [str(tmp / f'steps-{cpus}') for cpus in steps]
    add += [f'{os.path.realpath(lib)}:/bin/{os.path.basename(lib)}' for lib in sorted({*libraries(program), *slirp()})]
    add += [os.path.join(BUILD, 'guests', f'guest-{g}') for g in guests]
    add += [os.path.join(BUILD, 'tools', f) for f in ('initramfs.img', 'virtio.img')]
    add += [os.path.join(BUILD, 'tests', 'nested', f) for f in ('dirty', 'hold', 'slow.so')]
    add += [os.path.join(BUILD, 'tests', 'carry', 'carry.img'), os.path.join(ROOT, 'tests', 'nested', 'change.sh'),
            os.path.join(ROOT, 'bench', 'start.sh')]
    out = str(tmp / 'outer.img')
    argv = [os.path.join(ROOT, 'tools', 'mkinitramfs.py'), '-o', out, '--init', os.path.join(BUILD, 'tools', 'init'),
            '--modules', 'kvm_amd']
    for a in add:
        argv += ['--add', a]
    r = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
    assert r.returncode == 0, r.stderr
    return out


def registers(path):
    """What QEMU's monitor at path says of the CPUs."""
    out = b''
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(path)
            s.sendall(b'info registers -a\n')
            while True:
                out += s.recv(65536)
    except OSError:
        pass
    out = re.sub(r'.*\x1b.*\n', '', out.decode(errors='replace').replace('\r', ''))  # the echo of what was typed
    return '\n'.join(line for line in out.split('\n') if not re.match(r'(FPR|[XYZ]MM|Opmask)', line))


def boot(kernel, initrd, cpus, steps, skip, until):
    """Runs one machine, by time.monotonic() == until at most. Returns ({step: (exit status, output)} of the steps that
    came to an end, None or what is known of a machine that did not)."""
    monitor = initrd + '.monitor'
    argv = ['qemu-system-x86_64', '-accel', 'tcg,thread=multi', '-cpu', 'max,-smap', '-M', 'q35', '-m', '2G', '-smp', str(cpus),
            '-display', 'none', '-serial', 'stdio', '-monitor', f'unix:{monitor},server=on,wait=off', '-no-reboot',
            '-nic', 'none', '-kernel', kernel, '-initrd', initrd, '-append',
            f'console=ttyS0 loglevel=2 panic=-1 no_timer_check tsc=reliable modules=kvm_amd run=steps-{cpus} '
            f'skip={",".join(skip)}']
    raw, hung = b'', None
    limit = min(until, time.monotonic() + BOOT_LIMIT)
    seen = 0
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
        try:
            while True:
                left = limit - time.monotonic()
                if left <= 0:
                    hung = f'{registers(monitor)}\n{raw[-3000:].decode(errors="replace")}'
                    break
                if not select.select([p.stdout], [], [], left)[0]:
                    continue
                got = os.read(p.stdout.fileno(), 65536)
                if not got:
                    break
                raw += got
                if b'\n' not in got:
                    continue
                lines, seen = raw[seen:], raw.rindex(b'\n') + 1
                for what, name in re.findall(rb'^@(begin|end) (\S+)(?: \d+)?\r?\n', lines, re.M):
                    more = steps[name.decode()][1] + SLACK if what == b'begin' else BOOT_LIMIT
                    limit = min(until, time.monotonic() + more)
        finally:
            p.kill()
    text = raw.decode(errors='replace').replace('\r', '')
    ended = re.findall(r'^@begin (\S+)\n(.*?)^@end \1 (\d+)\n', text, re.S | re.M)
    if hung is None and len(ended) + len(skip) < len(steps):
        hung = text[-3000:]
    return {name: (int(status), out) for name, out, status in ended}, hung


def run(kernel, initrd, cpus, steps, until):
    """Boots machines till all steps have come to an end: {step: (exit status, output)}."""
    results, hung_in = {}, []
    while time.monotonic() < until:
        skip = [n for n in steps if n in results or hung_in.count(n) > 1]
        if len(skip) == len(steps):
            break
        found, hung = boot(kernel, initrd, cpus, steps, skip, until)
        results.update(found)
        if hung:
            hung_in.append(next((n for n in steps if n not in results and n not in skip), 'poweroff'))
            warnings.warn(f'the outer machine with {cpus} CPU(s) hung in step {hung_in[-1]}:\n{hung}', stacklevel=2)
    return results
