/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM and what the host has of it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
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

static u64 read_limit(const char *path)
{
    unsigned long long v = 0;
    FILE *f = fopen(path, "re");

    if (!f)
        return 0;
    if (fscanf(f, "%llu", &v) != 1) /* "max" */
        v = 0;
    fclose(f);
    return v;
}

/* The smallest limit of the group and those above it, in the hierarchy at root (cgroups(7)). */
static u64 smallest_limit(const char *root, char *group, const char *file)
{
    char path[4096 + 64];
    u64 least = 0;

    for (;;) {
        char *slash = strrchr(group, '/');
        u64 v;

        snprintf(path, sizeof(path), "%s%s/%s", root, group, file);
        v = read_limit(path);
        if (v && (!least || v < least))
            least = v;
        if (!slash)
            return least;
        *slash = 0;
    }
}

u64 host_memory_limit(void)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[4096];
    u64 least = 0;

    while (f && fgets(line, sizeof(line), f)) {
        char *group = strstr(line, ":/");
        u64 v = 0;

        line[strcspn(line, "\n")] = 0;
        if (group && !strncmp(line, "0::", 3)) /* version 2 */
            v = smallest_limit("/sys/fs/cgroup", group + 1, "memory.max");
        else if (group && strstr(line, ":memory:"))
            v = smallest_limit("/sys/fs/cgroup/memory", group + 1, "memory.limit_in_bytes");
        if (v && (!least || v < least))
            least = v;
    }
    if (f)
        fclose(f);
    return least < host_total_memory() ? least : 0;
}
