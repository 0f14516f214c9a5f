/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is the host the CPU it says? In the guests of some paravirtualizing hypervisors a kernel without
 * ring 0 stands in between: 32-bit code does not run, NT gets lost, other faults become #GP.
 */
#include <sys/syscall.h>

#include "difftest.h"

/* On a CPU a system call that goes right back leaves NT alone (SDM 2B SYSCALL, SYSRET). */
bool host_is_faithful(void)
{
    long nr = SYS_getpid;
    u64 flags;

    __asm__ volatile("pushfq; orq %2, (%%rsp); popfq; syscall; pushfq; popq %1;"
                     "pushfq; andq %3, (%%rsp); popfq"
                     : "+a"(nr), "=&r"(flags)
                     : "r"((u64)RFLAGS_NT), "r"(~(u64)RFLAGS_NT)
                     : "rcx", "r11", "memory", "cc");
    return (flags & RFLAGS_NT) != 0;
}
