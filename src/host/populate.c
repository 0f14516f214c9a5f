/* SPDX-License-Identifier: Apache-2.0 */
/* Memory populated before it is touched. Built for general registers only, without libc. */
#include <sys/syscall.h>

#include "host/populate.h"

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

struct populator host_populator;

bool host_populate_later(void *p, u64 len, bool write)
{
    u64 request = (u64)p | len / POPULATE_UNIT << 1 | write;

    if (!__atomic_load_n(&host_populator.running, __ATOMIC_ACQUIRE) || len % POPULATE_UNIT ||
        len / POPULATE_UNIT >= PAGE_SIZE / 2 || (u64)p % PAGE_SIZE)
        return false;
    for (unsigned i = 0; i < POPULATE_REQUESTS; i++) {
        u64 none = 0;

        if (__atomic_compare_exchange_n(&host_populator.request[i], &none, request, false,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
            host_event_set(&host_populator.event);
            return true;
        }
    }
    return false;
}
