/* SPDX-License-Identifier: Apache-2.0 */
/* What others connect to: a listening socket, a pseudo-terminal. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "backend/char/char.h"

/* True when nobody listens at the socket in the way: its process is gone. */
static bool is_stale(const struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool stale =
        fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 && errno == ECONNREFUSED;

    if (fd >= 0)
        close(fd);
    return stale;
}

int char_listen(const char *path, char *err, size_t err_size)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd, r;

    if (strlen(path) >= sizeof(a.sun_path)) {
        snprintf(err, err_size, "unix:%s: the path is longer than %zu bytes", path,
                 sizeof(a.sun_path) - 1);
        return -ENAMETOOLONG;
    }
    memcpy(a.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        snprintf(err, err_size, "no socket: %s", strerror(errno));
        return -errno;
    }
    r = bind(fd, (struct sockaddr *)&a, sizeof(a));
    if (r && errno == EADDRINUSE && is_stale(&a)) {
        unlink(path);
        r = bind(fd, (struct sockaddr *)&a, sizeof(a));
    }
    if (!r)
        r = listen(fd, 1);
    if (!r)
        return fd;
    r = -errno;
    snprintf(err, err_size, "cannot listen at %s: %s", path, strerror(-r));
    close(fd);
    return r;
}

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
            printf("%s\n", path);
            fflush(stdout);
            return fd;
        }
    }
    r = errno ? -errno : -EIO;
    snprintf(err, err_size, "serial: no pseudo-terminal: %s", strerror(-r));
    if (fd >= 0)
        close(fd);
    return r;
}
