/* SPDX-License-Identifier: Apache-2.0 */
/* A pseudo-terminal for others to open. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "backend/char/char.h"

int char_open_pty(int *slave, char *err, size_t err_size)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK), r;
    struct termios t;
    char path[64];

    *slave = -1;
    if (fd >= 0 && !grantpt(fd) && !unlockpt(fd) && !ptsname_r(fd, path, sizeof(path)))
        *slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*slave >= 0 && !tcgetattr(*slave, &t)) {
        cfmakeraw(&t);
        if (!tcsetattr(*slave, TCSANOW, &t)) {
            if (dprintf(STDOUT_FILENO, "%s\n", path) > 0)
                return fd;
            close(*slave); /* nobody would find it */
            *slave = -1;
        }
    }
    r = errno ? -errno : -EIO;
    snprintf(err, err_size, "serial: no pseudo-terminal: %s", strerror(-r));
    if (fd >= 0)
        close(fd);
    return r;
}
