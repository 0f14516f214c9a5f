/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/block/lock.h"

#include <errno.h>
#include <fcntl.h>

#include "base/bits.h"

/* QEMU's permissions and the first bytes of its locks. */
#define PERM_READ BIT32(0)
#define PERM_WRITE BIT32(1)
#define PERM_RESIZE BIT32(3)
#define PERMS 4
#define LOCK_USED 100
#define LOCK_UNSHARED 200

static int lock_op(int fd, int op, short type, u64 byte, struct flock *l)
{
    *l = (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    return fcntl(fd, op, l) ? -errno : 0;
}

int block_lock(int fd, bool readonly)
{
    u32 used = readonly ? PERM_READ : PERM_READ | PERM_WRITE | PERM_RESIZE;
    u32 unshared = PERM_WRITE | PERM_RESIZE;
    struct flock l;
    int r;

    for (u64 p = 0; p < PERMS; p++) {
        r = used & BIT32(p) ? lock_op(fd, F_OFD_SETLK, F_RDLCK, LOCK_USED + p, &l) : 0;
        if (!r && unshared & BIT32(p))
            r = lock_op(fd, F_OFD_SETLK, F_RDLCK, LOCK_UNSHARED + p, &l);
        if (r)
            return r == -EAGAIN || r == -EACCES ? -EBUSY : r;
    }
    /* Both of two who come at once see each other here, and both give up. */
    for (u64 p = 0; p < PERMS; p++) {
        if (used & BIT32(p)) {
            r = lock_op(fd, F_OFD_GETLK, F_WRLCK, LOCK_UNSHARED + p, &l);
            if (r || l.l_type != F_UNLCK)
                return r ? r : -EBUSY;
        }
        if (unshared & BIT32(p)) {
            r = lock_op(fd, F_OFD_GETLK, F_WRLCK, LOCK_USED + p, &l);
            if (r || l.l_type != F_UNLCK)
                return r ? r : -EBUSY;
        }
    }
    return 0;
}
