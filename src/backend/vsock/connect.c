/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/vsock/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/sandbox.h"

#define HELLO_MS 10000
#define HELLO_SIZE 200

/* How a socket is looked up: never through a link, which a guest might have made where the
 * directory is shared with it. */
#define LOOK_UP (O_PATH | O_NOFOLLOW | O_CLOEXEC)

static const struct sandbox_rule rules[] = {
    SANDBOX_ALLOW(SYS_recvfrom, "requests"),
    SANDBOX_ALLOW(SYS_sendmsg, "answers"),
    SANDBOX_ALLOW(SYS_openat, "a socket in the directory; not for reading or writing",
                  SANDBOX_INT(2, LOOK_UP)),
    SANDBOX_ALLOW(SYS_socket, "a connection", SANDBOX_INT(0, AF_UNIX)),
    SANDBOX_ALLOW(SYS_connect, "a connection"),
    SANDBOX_END,
};

struct child {
    int fd, dir;
    char name[256]; /* of the socket, without _PORT */
    bool confined;
};

/* A connected socket, or -errno. */
static int connect_to(const struct child *c, u32 port)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char name[sizeof(c->name) + 16];
    int file, fd, r = 0;

    snprintf(name, sizeof(name), "%s_%u", c->name, port);
    file = openat(c->dir, name, LOOK_UP);
    if (file < 0)
        return -errno;
    /* What was found, and nothing else of that name. */
    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d", file);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)))
        r = -errno;
    close(file);
    if (r && fd >= 0)
        close(fd);
    return r ? r : fd;
}

static void answer(const struct child *c, const struct connect_reply *reply, int fd)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec v = {(void *)(uintptr_t)reply, sizeof(*reply)};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    struct cmsghdr *h;

    if (fd >= 0) {
        m.msg_control = control;
        m.msg_controllen = sizeof(control);
        h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &fd, sizeof(int));
    }
    /* When nobody listens any more the next request is the end. */
    if (sendmsg(c->fd, &m, MSG_NOSIGNAL) < 0)
        return;
}

static int run(void *opaque)
{
    const struct child *c = opaque;
    struct sandbox_spec spec = {.name = "vsock", .rules = {sandbox_base_rules, rules}};
    char hello[HELLO_SIZE] = "";
    struct connect_request q;

    if (c->confined)
        host_confine(&spec, hello, sizeof(hello));
    if (write(c->fd, hello, strlen(hello) + 1) < 0 || hello[0])
        return 1;
    while (recv(c->fd, &q, sizeof(q), 0) == sizeof(q)) {
        int fd = connect_to(c, q.port);
        struct connect_reply reply = {.tag = q.tag, .error = fd < 0 ? fd : 0};

        answer(c, &reply, fd);
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

/* The directory and the name in it. 0 or -errno. */
static int find(struct child *c, const char *path)
{
    char *copy = strdup(path), *again = strdup(path);
    int r = -ENOMEM;

    if (copy && again) {
        c->dir = open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
        r = c->dir < 0 ? -errno : 0;
        snprintf(c->name, sizeof(c->name), "%s", basename(again));
    }
    free(copy);
    free(again);
    return r;
}

/* Waits for its first words. */
static int hear(int fd, char *err, size_t err_size)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char hello[HELLO_SIZE] = "it does not start";
    ssize_t n = poll(&p, 1, HELLO_MS) > 0 ? recv(fd, hello, sizeof(hello) - 1, 0) : -1;

    if (n > 0 && !hello[0])
        return 0;
    snprintf(err, err_size, "the process that connects: %.*s", (int)sizeof(hello) - 1, hello);
    return -EIO;
}

int connect_start(const char *path, bool confined, char *err, size_t err_size)
{
    struct child c = {.confined = confined};
    int sv[2], keep[2], pid, r = find(&c, path);

    if (!r && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv)) {
        r = -errno;
        close(c.dir);
    }
    if (r) {
        snprintf(err, err_size, "%s", strerror(-r));
        return r;
    }
    c.fd = keep[0] = sv[1];
    keep[1] = c.dir;
    r = pid = host_helper_fork("trivisor-vsock", keep, ARRAY_SIZE(keep), run, &c);
    close(sv[1]);
    close(c.dir);
    if (r < 0)
        snprintf(err, err_size, "no process: %s", strerror(-r));
    else
        r = hear(sv[0], err, err_size);
    if (!r)
        return sv[0];
    close(sv[0]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return r;
}
