/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM and what the host has of it. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/host.h"

int host_ram_alloc(struct host_ram *r, u64 size)
{
    int fd = memfd_create("trivisor-ram", MFD_CLOEXEC);
    int err;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size))
        goto fail;
    r->ptr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (r->ptr == MAP_FAILED)
        goto fail;
    /* Guest memory in a core file helps nobody; failing to leave it out harms nobody. */
    madvise(r->ptr, size, MADV_DONTDUMP);
    /* A helper process that needs it is given the descriptor. */
    madvise(r->ptr, size, MADV_DONTFORK);
    r->size = size;
    r->fd = fd;
    return 0;
fail:
    err = errno;
    close(fd);
    r->ptr = NULL;
    return -err;
}

void host_ram_free(struct host_ram *r)
{
    if (!r->ptr)
        return;
    munmap(r->ptr, r->size);
    close(r->fd);
    r->ptr = NULL;
}

int host_ram_discard(void *ptr, u64 len)
{
    return madvise(ptr, len, MADV_REMOVE) ? -errno : 0;
}

u64 host_total_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

    return pages < 0 || size < 0 ? 0 : (u64)pages * (u64)size;
}
