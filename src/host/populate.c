/* SPDX-License-Identifier: Apache-2.0 */
/* Pages before they are touched. Built for general registers only, without libc. */
#include <sys/syscall.h>

#include "core/host.h"

/* linux/mman.h, Linux 5.14 */
#define POPULATE_READ 22
#define POPULATE_WRITE 23

void host_populate(void *p, u64 len, bool write)
{
    long ret;

    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "0"((long)SYS_madvise), "D"(p), "S"(len),
                       "d"(write ? (long)POPULATE_WRITE : (long)POPULATE_READ)
                     : "rcx", "r11", "memory");
    (void)ret; /* the pages are populated one by one then */
}
