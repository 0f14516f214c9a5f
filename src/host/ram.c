/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM and what the host has of it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/bits.h"
#include "core/host.h"
#include "host/init.h"
#include "host/ram.h"

#define HUGE_SIZE ((u64)2 << 20)
#define MAPPED_SHIFT 16

/* Guest RAM that is in part a file's; changed before there are other threads, and after. */
static struct host_ram *mapped_rams;

/* What all guest RAM is; in vain, on some hosts, without harm. */
static void advise(void *p, u64 size)
{
    madvise(p, size, MADV_HUGEPAGE);
    /* Guest memory in a core file helps nobody; failing to leave it out harms nobody. */
    madvise(p, size, MADV_DONTDUMP);
}

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
    advise(p, size);
    /* For who reads /proc/PID/maps; Linux 5.17. */
    prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, size, "trivisor-ram");
    if (madvise(p, size, MADV_DONTFORK)) {
        err = errno;
        munmap(p, size);
        return -err;
    }
    *r = (struct host_ram){.ptr = p, .size = size};
    r->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return 0;
}

void host_ram_free(struct host_ram *r)
{
    for (struct host_ram **at = &mapped_rams; r->mapped && *at; at = &(*at)->next)
        if (*at == r) {
            *at = r->next;
            break;
        }
    free(r->mapped);
    r->mapped = NULL;
    if (!r->ptr)
        return;
    if (r->pagemap >= 0)
        close(r->pagemap);
    munmap(r->ptr, r->size);
    r->ptr = NULL;
}

int host_ram_map(struct host_ram *r, u64 off, u64 len, int fd, u64 at)
{
    u8 *p = (u8 *)r->ptr + off;

    if (!r->mapped) {
        r->mapped = calloc((r->size >> MAPPED_SHIFT) / 64 + 1, sizeof(u64));
        if (!r->mapped)
            return -ENOMEM;
        r->next = mapped_rams;
        mapped_rams = r;
    }
    for (u64 i = off >> MAPPED_SHIFT; i << MAPPED_SHIFT < off + len; i++)
        r->mapped[i / 64] |= BIT64(i % 64);
    if (mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
             (off_t)at) == MAP_FAILED ||
        madvise(p, len, MADV_DONTFORK))
        return -errno;
    madvise(p, len, MADV_DONTDUMP);
    return 0;
}

/* What /proc/PID/pagemap says of a page (Linux Documentation/admin-guide/mm/pagemap.rst): it is in
 * memory or swapped out. */
#define PAGEMAP_THERE (BIT64(63) | BIT64(62))
#define PAGEMAP_FEW 16
#define PAGEMAP_MANY 1024

u64 host_ram_next_used(const struct host_ram *r, u64 off)
{
    u64 entry[PAGEMAP_MANY];
    u64 n = PAGEMAP_FEW;

    while (off < r->size) {
        u64 left = (r->size - off) / PAGE_SIZE, at = ((u64)r->ptr + off) / PAGE_SIZE * sizeof(u64);
        ssize_t got;

        n = n < left ? n : left;
        got = r->pagemap < 0 ? -1 : pread(r->pagemap, entry, n * sizeof(u64), (off_t)at);
        if (got <= 0)
            return off;
        for (u64 i = 0; i < (u64)got / sizeof(u64); i++, off += PAGE_SIZE)
            if ((entry[i] & PAGEMAP_THERE) ||
                (r->mapped &&
                 r->mapped[(off >> MAPPED_SHIFT) / 64] >> (off >> MAPPED_SHIFT) % 64 & 1))
                return off;
        n = PAGEMAP_MANY;
    }
    return r->size;
}

static bool may_be_mapped(const void *p)
{
    for (const struct host_ram *r = mapped_rams; r; r = r->next)
        if ((u64)p - (u64)r->ptr < r->size)
            return true;
    return false;
}

void host_ram_check_signal(int sig, const siginfo_t *info)
{
    static const char text[] = "trivisor: the file of the saved machine has become shorter or "
                               "cannot be read: the guest's memory is lost";
    static u32 said;

    if (sig != SIGBUS || info->si_code != BUS_ADRERR || !may_be_mapped(info->si_addr))
        return;
    /* Several threads may meet it: the others come no further. */
    while (__atomic_exchange_n(&said, 1, __ATOMIC_SEQ_CST))
        continue;
    host_end();
    host_print_line(text, sizeof(text) - 1);
    _exit(125);
}

/* Dropped, a file's page would be read from the file again. */
static int discard_mapped(void *p, u64 len)
{
    if (mmap(p, len, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
        /* More mappings than a process may have. */
        memset(p, 0, len);
        return 0;
    }
    advise(p, len);
    return madvise(p, len, MADV_DONTFORK) ? -errno : 0;
}

int host_ram_discard(void *ptr, u64 len)
{
    if (may_be_mapped(ptr))
        return discard_mapped(ptr, len);
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
