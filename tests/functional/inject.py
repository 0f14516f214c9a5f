# SPDX-License-Identifier: Apache-2.0
"""System calls made inside another process, by ptrace: what code that a guest smuggled into it could do."""
import ctypes
import os
import signal
import time

TRACEME, PEEK, GETREGS, SETREGS, CONT, SINGLESTEP, ATTACH, DETACH = 0, 2, 12, 13, 7, 9, 16, 17
REGS = ('r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base '
        'gs_base ds es fs gs').split()
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Regs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in REGS]


def ptrace(request, pid, addr=None, data=None):
    r = libc.ptrace(request, pid, addr, data)
    if r < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return r


def stopped(tid):
    """The signal a traced thread stopped with, or None when the process ended; then also how."""
    _, status = os.waitpid(tid, 0x40000000)  # __WALL
    if os.WIFSTOPPED(status):
        return os.WSTOPSIG(status), None
    return None, status


class Thread:
    """A thread that waits in a system call, or will soon, stopped there."""

    def __init__(self, tid):
        self.tid = tid
        for _ in range(1000):
            ptrace(ATTACH, tid)
            sig, _ = stopped(tid)
            while sig is not None and sig != signal.SIGSTOP:  # a kick came first
                ptrace(CONT, tid, None, sig)
                sig, _ = stopped(tid)
            assert sig == signal.SIGSTOP
            self.regs = self.get()
            if self.regs.orig_rax != 2**64 - 1:
                return
            ptrace(DETACH, tid, None, None)  # it was on its way
            time.sleep(0.01)
        assert False, 'the thread is in no system call'

    def get(self):
        regs = Regs()
        ptrace(GETREGS, self.tid, None, ctypes.addressof(regs))
        return regs

    def put(self, regs):
        ptrace(SETREGS, self.tid, None, ctypes.addressof(regs))

    def call(self, nr, *args):
        """('returned', value), ('trapped', SIGSYS) where the call was refused and the thread lives on because
        the signal is kept from it, or ('died', wait status)."""
        regs = Regs.from_buffer_copy(self.regs)
        regs.rip -= 2  # the system call instruction it is in
        regs.orig_rax = 2**64 - 1  # no restart
        regs.rax = nr
        for name, value in zip(('rdi', 'rsi', 'rdx', 'r10', 'r8', 'r9'), args + (0,) * 6):
            setattr(regs, name, value & (2**64 - 1))
        self.put(regs)
        while True:
            ptrace(SINGLESTEP, self.tid)
            sig, status = stopped(self.tid)
            if sig is None:
                return 'died', status
            now = self.get()
            if sig != signal.SIGTRAP or now.rip != regs.rip:
                break  # not the trap of a step that a signal had cut short
        value = ctypes.c_longlong(now.rax).value
        self.put(self.regs)
        return ('trapped', sig) if sig == signal.SIGSYS else ('returned', value)

    def deliver(self, sig):
        """Ends the tracing with a signal."""
        ptrace(DETACH, self.tid, None, sig)

    def detach(self):
        self.put(self.regs)
        ptrace(DETACH, self.tid, None, None)
