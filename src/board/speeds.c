/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "board/speeds.h"
#include "host/rundir.h"

#define FILE_NAME "engine-speeds"
#define FIRST_LINE "trivisor engine speeds 1"
#define LAST_LINE "end\n"
#define BUILD_ID_MAX 20
#define MIPS_MAX 1000000ull

static bool boot_id(char *id, size_t size)
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, id, size - 1);

    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return false;
    id[n] = 0;
    id[strcspn(id, "\n")] = 0;
    return true;
}

/* The linker's build ID of the program (the first object there is), in hexadecimal. */
static int build_id(struct dl_phdr_info *info, size_t size, void *opaque)
{
    char *out = opaque;

    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        const u8 *p = (const u8 *)(uintptr_t)(info->dlpi_addr + h->p_vaddr);
        const ElfW(Nhdr) *n = (const ElfW(Nhdr) *)(const void *)p;

        if (h->p_type != PT_NOTE || n->n_type != NT_GNU_BUILD_ID || n->n_namesz != 4 ||
            n->n_descsz > BUILD_ID_MAX)
            continue;
        for (unsigned k = 0; k < n->n_descsz; k++)
            snprintf(out + 2 * k, 3, "%02x", p[sizeof(*n) + 4 + k]);
    }
    return 1;
}

bool speeds_key(char *key, size_t size)
{
    struct stat exe, kvm = {0};
    char id[64], program[2 * BUILD_ID_MAX + 1] = "";

    dl_iterate_phdr(build_id, program);
    if (!boot_id(id, sizeof(id)) || stat("/proc/self/exe", &exe))
        return false;
    if (stat("/dev/kvm", &kvm))
        memset(&kvm, 0, sizeof(kvm));
    return snprintf(key, size, "%s %s:%llx:%llx:%llx:%llx.%lx %x:%x:%llx:%llx.%lx", id, program,
                    (unsigned long long)exe.st_dev, (unsigned long long)exe.st_ino,
                    (unsigned long long)exe.st_size, (unsigned long long)exe.st_mtim.tv_sec,
                    (unsigned long)exe.st_mtim.tv_nsec, major(kvm.st_rdev), minor(kvm.st_rdev),
                    (unsigned long long)kvm.st_ino, (unsigned long long)kvm.st_ctim.tv_sec,
                    (unsigned long)kvm.st_ctim.tv_nsec) < (int)size;
}

size_t speeds_write(const struct speeds *s, const char *key, char *text, size_t size)
{
    int n = snprintf(text, size, FIRST_LINE "\n%s\n", key);

    for (unsigned i = 0; i < s->n && n < (int)size; i++)
        n += snprintf(text + n, size - (size_t)n, "%s %llu\n", s->of[i].name,
                      (unsigned long long)s->of[i].mips);
    if (n < (int)size)
        n += snprintf(text + n, size - (size_t)n, LAST_LINE);
    return n < (int)size ? (size_t)n : 0;
}

/* Whether *text begins with `line` and its end; then *text is behind it. */
static bool take_line(const char **text, const char *line)
{
    size_t n = strlen(line);

    if (strncmp(*text, line, n) != 0 || (*text)[n] != '\n')
        return false;
    *text += n + 1;
    return true;
}

bool speeds_read(struct speeds *s, const char *key, const char *text, size_t len)
{
    char copy[SPEEDS_TEXT_MAX + 1];
    const char *p = copy;

    s->n = 0;
    if (len > SPEEDS_TEXT_MAX || memchr(text, 0, len))
        return false;
    memcpy(copy, text, len);
    copy[len] = 0;
    if (!take_line(&p, FIRST_LINE) || !take_line(&p, key))
        return false;
    while (strcmp(p, LAST_LINE) != 0) {
        size_t name = strspn(p, "abcdefghijklmnopqrstuvwxyz");
        size_t digits = p[name] == ' ' ? strspn(p + name + 1, "0123456789") : 0;

        if (s->n == SPEEDS_MAX || !name || name >= SPEEDS_NAME_MAX || !digits || digits > 7 ||
            p[name + 1 + digits] != '\n')
            return false;
        memcpy(s->of[s->n].name, p, name);
        s->of[s->n].name[name] = 0;
        s->of[s->n].mips = strtoull(p + name + 1, NULL, 10);
        if (s->of[s->n].mips > MIPS_MAX)
            return false;
        s->n++;
        p += name + 1 + digits + 1;
    }
    return true;
}

bool speeds_load(struct speeds *s)
{
    char key[256], text[SPEEDS_TEXT_MAX + 1], err[8];
    int dir = rundir_open(false, err, sizeof(err));
    ssize_t n = -1;

    s->n = 0;
    if (dir < 0)
        return false;
    n = rundir_get(dir, FILE_NAME, text, sizeof(text));
    close(dir);
    return n > 0 && speeds_key(key, sizeof(key)) && speeds_read(s, key, text, (size_t)n);
}

void speeds_keep(const struct speeds *s)
{
    char key[256], text[SPEEDS_TEXT_MAX + 1], err[8];
    size_t n = speeds_key(key, sizeof(key)) ? speeds_write(s, key, text, sizeof(text)) : 0;
    int dir = n ? rundir_open(true, err, sizeof(err)) : -1;

    if (dir < 0)
        return;
    rundir_put(dir, FILE_NAME, text, n);
    close(dir);
}
