/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM and what the host has of it. */
#include <errno.h>
#include <linux/prctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "core/host.h"

#define HUGE_SIZE ((u64)2 << 20)

/*
 * Private memory and not a memfd's: most hosts give large pages to the one only, and with small
 * ones every second access of a guest misses the host's TLB. Helper processes have no part in it.
 */
int host_ram_alloc(struct host_ram *r, u64 size)
{
    u64 room = size + HUGE_SIZE, skip;
    u8 *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
    int err;

    r->ptr = NULL;
    if (p == MAP_FAILED)
        return -errno;
    skip = -(u64)p & (HUGE_SIZE - 1);
    if (skip)
        munmap(p, skip);
    munmap(p + skip + size, room - skip - size);
    p += skip;
    madvise(p, size, MADV_HUGEPAGE);
    /* For who reads /proc/PID/maps; Linux 5.17. */
    prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, size, "trivisor-ram");
    /* Guest memory in a core file helps nobody; failing to leave it out harms nobody. */
    madvise(p, size, MADV_DONTDUMP);
    if (madvise(p, size, MADV_DONTFORK)) {
        err = errno;
        munmap(p, size);
        return -err;
    }
    r->ptr = p;
    r->size = size;
    return 0;
}

void host_ram_free(struct host_ram *r)
{
    if (r->ptr)
        munmap(r->ptr, r->size);
    r->ptr = NULL;
}

int host_ram_discard(void *ptr, u64 len)
{
    return madvise(ptr, len, MADV_DONTNEED) ? -errno : 0;
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
