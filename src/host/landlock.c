/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock by system call: Debian 12's headers know its first ABI only. Everything is denied but
 * what a rule grants, and descriptors opened before keep their rights.
 */
#include "host/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"

/* Documentation/userspace-api/landlock.rst of the kernel: what each ABI version added. */
#define FS_REFER BIT64(13)    /* 2 */
#define FS_TRUNCATE BIT64(14) /* 3 */
#define NET_BIND_TCP BIT64(0) /* 4 */
#define NET_CONNECT_TCP BIT64(1)
#define FS_IOCTL_DEV BIT64(15)  /* 5 */
#define SCOPE_ABSTRACT BIT64(0) /* 6 */
#define SCOPE_SIGNAL BIT64(1)

/* Every right of ABI 1: execute, read and write files, read, change and make all kinds of them. */
#define FS_ABI1 (BIT64(13) - 1)
#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)

#define FS_FILE (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE)

#define ERRATA_FLAG BIT32(1)
/* Erratum 2 of the kernel's list is fixed: threads of one process may signal each other although
 * each has put itself under the ruleset. Without the fix no vCPU could be kicked. */
#define ERRATUM_SIGNAL BIT32(1)

struct ruleset_attr {
    u64 fs, net, scoped;
};

int landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    return abi < 0 ? 0 : (int)abi;
}

static void rights(struct ruleset_attr *a, int abi, const struct sandbox_spec *spec)
{
    long errata = syscall(SYS_landlock_create_ruleset, NULL, 0, ERRATA_FLAG);

    a->fs = FS_ABI1;
    if (abi >= 2)
        a->fs |= FS_REFER;
    if (abi >= 3)
        a->fs |= FS_TRUNCATE;
    if (abi >= 5)
        a->fs |= FS_IOCTL_DEV;
    if (abi >= 4 && !spec->network)
        a->net = NET_BIND_TCP | NET_CONNECT_TCP;
    if (abi >= 6 && !spec->network)
        a->scoped |= SCOPE_ABSTRACT;
    if (abi >= 6 && !spec->signals && errata > 0 && (errata & ERRATUM_SIGNAL))
        a->scoped |= SCOPE_SIGNAL;
}

/* Programs are executed and devices made or driven nowhere. A file has no rights of directories. */
static int add_dir(int ruleset, const struct sandbox_dir *d, u64 handled)
{
    u64 all = handled & ~(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                          LANDLOCK_ACCESS_FS_MAKE_BLOCK | FS_IOCTL_DEV);
    struct landlock_path_beneath_attr beneath = {
        .allowed_access = d->write ? all : all & FS_READ,
        .parent_fd = d->fd,
    };
    struct stat st;

    if (fstat(d->fd, &st))
        return -errno;
    if (!S_ISDIR(st.st_mode))
        beneath.allowed_access &= FS_FILE;
    return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) ? -errno
                                                                                            : 0;
}

int landlock_ruleset(const struct sandbox_spec *spec)
{
    struct ruleset_attr attr = {0};
    int abi = landlock_abi(), fd, err = 0;
    /* Older kernels know a shorter structure and want the rest to be absent. */
    size_t size = abi >= 6 ? sizeof(attr) : abi >= 4 ? 2 * sizeof(u64) : sizeof(u64);

    if (!abi)
        return -ENOSYS;
    rights(&attr, abi, spec);
    fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (fd < 0)
        return -errno;
    for (unsigned i = 0; i < spec->ndirs && !err; i++)
        err = add_dir(fd, &spec->dirs[i], attr.fs);
    if (err) {
        close(fd);
        return err;
    }
    return fd;
}

int landlock_restrict(int ruleset)
{
    return syscall(SYS_landlock_restrict_self, ruleset, 0) ? -errno : 0;
}
