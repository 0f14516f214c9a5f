/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that populates memory ahead of the vCPUs. One a process, as memory is. */
#include "host/populate.h"

static struct host_thread *thread;
static unsigned users; /* machines of this process; the event loop's thread only */

static void run(void *opaque)
{
    (void)opaque;
    for (;;) {
        host_event_wait(&host_populator.event, UINT64_MAX);
        if (__atomic_load_n(&host_populator.stop, __ATOMIC_ACQUIRE))
            return;
        for (unsigned i = 0; i < POPULATE_REQUESTS; i++) {
            u64 r = __atomic_load_n(&host_populator.request[i], __ATOMIC_ACQUIRE);

            if (!r)
                continue;
            host_populate((void *)(r & PAGE_MASK), (r & (PAGE_SIZE - 1)) / 2 * POPULATE_UNIT,
                          r & 1);
            __atomic_store_n(&host_populator.request[i], 0, __ATOMIC_RELEASE);
        }
    }
}

int host_populator_start(void)
{
    int err;

    if (users++)
        return 0;
    /* One that came while the last thread ended is for memory that may be gone. */
    for (unsigned i = 0; i < POPULATE_REQUESTS; i++)
        host_populator.request[i] = 0;
    __atomic_store_n(&host_populator.stop, 0, __ATOMIC_RELEASE);
    err = host_thread_create(&thread, "populate", run, NULL);
    if (err)
        users = 0;
    else
        __atomic_store_n(&host_populator.running, 1, __ATOMIC_RELEASE);
    return err;
}

void host_populator_stop(void)
{
    if (!users || --users)
        return;
    __atomic_store_n(&host_populator.running, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&host_populator.stop, 1, __ATOMIC_RELEASE);
    host_event_set(&host_populator.event);
    host_thread_join(thread);
}
