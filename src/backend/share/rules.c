/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the file server may do beyond sandbox_base_rules. Landlock confines the calls that name
 * files to the shared directory; the names are single components (message.c), relative to
 * descriptors of directories in it.
 */
#include "backend/share/rules.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

const struct sandbox_rule share_rules[] = {
    SANDBOX_ALLOW(SYS_recvfrom, "requests"),
    SANDBOX_ALLOW(SYS_sendmsg, "answers"),
    SANDBOX_ALLOW(SYS_shutdown, "giving up when the monitor sends what it must not"),
    SANDBOX_ALLOW(SYS_fcntl, "a copy of a descriptor: FUSE_FLUSH, libfuse's session",
                  SANDBOX_INT(1, F_DUPFD_CLOEXEC)),
    SANDBOX_ALLOW(SYS_getuid, "libfuse, when a session begins"),
    SANDBOX_ALLOW(SYS_sched_getaffinity, "malloc: how many arenas for the threads"),

    /* names */
    SANDBOX_ALLOW(SYS_openat, "look-ups, opening and creating files, listing directories"),
    SANDBOX_ALLOW(SYS_statx, "attributes"),
    SANDBOX_ALLOW(SYS_mkdirat, "FUSE_MKDIR"),
    SANDBOX_ALLOW(SYS_mknodat, "FUSE_MKNOD: regular files", SANDBOX_MASKED(2, S_IFMT, S_IFREG)),
    SANDBOX_ALLOW(SYS_mknodat, "FUSE_MKNOD: FIFOs", SANDBOX_MASKED(2, S_IFMT, S_IFIFO)),
    SANDBOX_ALLOW(SYS_mknodat, "FUSE_MKNOD: sockets' names", SANDBOX_MASKED(2, S_IFMT, S_IFSOCK)),
    SANDBOX_ALLOW(SYS_symlinkat, "FUSE_SYMLINK"),
    SANDBOX_ALLOW(SYS_linkat, "FUSE_LINK"),
    SANDBOX_ALLOW(SYS_readlinkat, "FUSE_READLINK"),
    SANDBOX_ALLOW(SYS_unlinkat, "FUSE_UNLINK, FUSE_RMDIR"),
    SANDBOX_ALLOW(SYS_renameat2, "FUSE_RENAME2"),
    SANDBOX_ALLOW(SYS_renameat, "FUSE_RENAME: glibc's renameat2 without flags"),
    SANDBOX_ALLOW(SYS_getdents64, "FUSE_READDIR, FUSE_READDIRPLUS"),
    SANDBOX_ALLOW(SYS_fchownat, "FUSE_SETATTR: owners; without capabilities the kernel refuses"),
    SANDBOX_ALLOW(SYS_chmod, "FUSE_SETATTR: permissions; never the set-ID bits",
                  SANDBOX_WITHOUT(1, S_ISUID)),
    SANDBOX_ALLOW(SYS_utimensat, "FUSE_SETATTR: times"),
    SANDBOX_ALLOW(SYS_fstatfs, "FUSE_STATFS"),
    SANDBOX_ALLOW(SYS_setxattr, "FUSE_SETXATTR: user.*"),
    SANDBOX_ALLOW(SYS_getxattr, "FUSE_GETXATTR: user.*"),
    SANDBOX_ALLOW(SYS_listxattr, "FUSE_LISTXATTR: user.*"),
    SANDBOX_ALLOW(SYS_removexattr, "FUSE_REMOVEXATTR: user.*"),

    /* open files */
    SANDBOX_ALLOW(SYS_pread64, "FUSE_READ"),
    SANDBOX_ALLOW(SYS_pwrite64, "FUSE_WRITE"),
    SANDBOX_ALLOW(SYS_pwritev2, "FUSE_WRITE at the end of a file"),
    SANDBOX_ALLOW(SYS_lseek, "FUSE_LSEEK, positions in directories"),
    SANDBOX_ALLOW(SYS_ftruncate, "FUSE_SETATTR: sizes"),
    SANDBOX_ALLOW(SYS_fallocate, "FUSE_FALLOCATE"),
    SANDBOX_ALLOW(SYS_copy_file_range, "FUSE_COPY_FILE_RANGE"),
    SANDBOX_ALLOW(SYS_fsync, "FUSE_FSYNC, FUSE_FSYNCDIR"),
    SANDBOX_ALLOW(SYS_fdatasync, "the same"),
    SANDBOX_END,
};
