/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/char/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/block/lock.h"

/* O_NONBLOCK: opening a FIFO nobody reads is an error here, not a wait. */
#define FLAGS (O_CLOEXEC | O_NOCTTY | O_NONBLOCK)

/* Whether a file could be made there. 0 or -errno. */
static int may_create(const char *path)
{
    char *copy = strdup(path);
    int r = copy ? 0 : -ENOMEM;

    if (copy && access(dirname(copy), W_OK | X_OK))
        r = -errno;
    free(copy);
    return r;
}

/* A regular file that nobody else uses. Not O_TRUNC: it is locked first, and whoever is told that
 * it is in use finds it as it was. */
static int open_regular(const char *path, bool dry)
{
    int fd = open(path, O_RDWR | FLAGS | (dry ? 0 : O_CREAT), 0666), r;
    struct stat st;

    if (fd < 0)
        return dry && errno == ENOENT ? may_create(path) : -errno;
    r = block_lock(fd, false) == -EBUSY ? -EBUSY : fstat(fd, &st) ? -errno : 0;
    if (!r && !dry && st.st_size && ftruncate(fd, 0))
        r = -errno;
    if (!r && !dry)
        return fd;
    close(fd);
    return r;
}

int outfile_open(const char *path, bool regular, bool dry, char *err, size_t err_size)
{
    struct stat st;
    bool other = !stat(path, &st) && !S_ISREG(st.st_mode);
    int r;

    if (other && regular) {
        snprintf(err, err_size, "serial: cannot open %s: it is no regular file", path);
        return -EINVAL;
    }
    if (!other)
        r = open_regular(path, dry);
    else if (dry)
        r = access(path, W_OK) ? -errno : 0;
    else
        r = open(path, O_WRONLY | FLAGS);
    if (other && !dry && r < 0)
        r = -errno;
    if (r == -EBUSY)
        snprintf(err, err_size,
                 "serial: cannot write to %s: somebody uses it (it is a VM's disk, or it is given "
                 "twice)",
                 path);
    else if (r < 0)
        snprintf(err, err_size, "serial: cannot open %s: %s", path, strerror(-r));
    return r;
}
