/* SPDX-License-Identifier: Apache-2.0 */
/* What every confined process may do. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "core/sandbox.h"

/* fd is one the process holds: none of these opens, makes or names anything. */
const struct sandbox_rule sandbox_base_rules[] = {
    SANDBOX_ALLOW(SYS_read, "pipes, eventfds, timerfds, the terminal"),
    SANDBOX_ALLOW(SYS_write, "the same, and messages on standard error"),
    SANDBOX_ALLOW(SYS_readv, "the same in pieces"),
    SANDBOX_ALLOW(SYS_writev, "the same in pieces"),
    SANDBOX_ALLOW(SYS_close, "ending a connection, or everything at the end"),
    SANDBOX_ALLOW(SYS_fcntl, "O_NONBLOCK of a connection", SANDBOX_INT(1, F_GETFL)),
    SANDBOX_ALLOW(SYS_fcntl, "O_NONBLOCK of a connection", SANDBOX_INT(1, F_SETFL)),
    SANDBOX_ALLOW(SYS_fcntl, "is it open?", SANDBOX_INT(1, F_GETFD)),
    SANDBOX_ALLOW(SYS_poll, "waiting for a descriptor"),
    SANDBOX_ALLOW(SYS_ppoll, "waiting for a descriptor"),
    SANDBOX_ALLOW(SYS_epoll_wait, "the event loop"),
    SANDBOX_ALLOW(SYS_epoll_pwait, "the event loop"),
    SANDBOX_ALLOW(SYS_epoll_ctl, "the event loop"),
    SANDBOX_ALLOW(SYS_fstat, "size of a file that is open"),
    /* glibc's fstat is newfstatat with an empty path, which a filter cannot see; Landlock does not
     * hide the attributes of files. stdio asks and goes on without. */
    SANDBOX_FAIL(SYS_newfstatat, "stdio, at its first output", EACCES),

    SANDBOX_ALLOW(SYS_futex, "locks, events, joining threads"),
    SANDBOX_ALLOW(SYS_sched_yield, "spinning politely"),
    SANDBOX_ALLOW(SYS_set_robust_list, "a thread that has just begun"),
    SANDBOX_ALLOW(SYS_rseq, "a thread that has just begun"),
    SANDBOX_ALLOW(SYS_prctl, "a thread that has just begun tells its name",
                  SANDBOX_INT(0, PR_SET_NAME)),
    SANDBOX_ALLOW(SYS_membarrier, "glibc, the end of a thread"),
    SANDBOX_ALLOW(SYS_clock_gettime,
                  "a thread's CPU time; time, where the vDSO has no clock to read"),
    SANDBOX_ALLOW(SYS_gettimeofday, "the same"),
    SANDBOX_ALLOW(SYS_time, "the same"),
    SANDBOX_ALLOW(SYS_clock_nanosleep, "waiting"),
    SANDBOX_ALLOW(SYS_nanosleep, "waiting"),
    SANDBOX_ALLOW(SYS_restart_syscall, "the kernel, after a stop during a wait"),
    SANDBOX_ALLOW(SYS_getpid, "signals to own threads"),
    SANDBOX_ALLOW(SYS_gettid, "signals to own threads"),
    SANDBOX_ALLOW(SYS_getrandom, "malloc's and hash tables' seeds, random devices"),

    SANDBOX_ALLOW(SYS_brk, "malloc"),
    SANDBOX_ALLOW(SYS_mmap, "malloc and thread stacks; never executable",
                  SANDBOX_WITHOUT(2, PROT_EXEC)),
    SANDBOX_ALLOW(SYS_mprotect, "malloc's arenas; never executable", SANDBOX_WITHOUT(2, PROT_EXEC)),
    SANDBOX_ALLOW(SYS_munmap, "free"),
    SANDBOX_ALLOW(SYS_mremap, "realloc"),
    SANDBOX_ALLOW(SYS_madvise, "free, the end of a thread"),

    SANDBOX_ALLOW(SYS_rt_sigreturn, "the end of a signal handler"),
    SANDBOX_ALLOW(SYS_rt_sigprocmask, "abort, threads"),
    SANDBOX_ALLOW(SYS_sigaltstack, "the end of a thread with a signal stack"),
    SANDBOX_ALLOW(SYS_tgkill, "signals to own threads, abort, raise", SANDBOX_SELF(0)),
    /* Not SIGSYS: its handler is the sandbox's. */
    SANDBOX_ALLOW(SYS_rt_sigaction, "the default action before dying of a fault",
                  SANDBOX_INT(0, SIGSEGV)),
    SANDBOX_ALLOW(SYS_rt_sigaction, "the same", SANDBOX_INT(0, SIGBUS)),
    SANDBOX_ALLOW(SYS_rt_sigaction, "the same", SANDBOX_INT(0, SIGFPE)),
    SANDBOX_ALLOW(SYS_rt_sigaction, "the same", SANDBOX_INT(0, SIGILL)),
    SANDBOX_ALLOW(SYS_rt_sigaction, "the same", SANDBOX_INT(0, SIGTRAP)),
    SANDBOX_ALLOW(SYS_rt_sigaction, "the same: abort", SANDBOX_INT(0, SIGABRT)),
    SANDBOX_ALLOW(SYS_rt_sigaction, "the same", SANDBOX_INT(0, SIGQUIT)),
    SANDBOX_ALLOW(SYS_exit, "the end of a thread"),
    SANDBOX_ALLOW(SYS_exit_group, "the end"),
    SANDBOX_END,
};
