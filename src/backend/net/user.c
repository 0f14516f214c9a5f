/* SPDX-License-Identifier: Apache-2.0 */
/* A user-mode network, the VM's side: a socket to the helper process. */
#include "backend/net/user.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/net/fdnet.h"
#include "backend/net/helper.h"
#include "base/log.h"
#include "core/sandbox.h"

/* As much as may be: a batch of big frames. The kernel cuts it down to what it permits. */
#define SOCKET_BUFFER (4 << 20)
#define HELLO_MS 10000
#define END_MS 2000
#define NAME "trivisor-net"

struct user {
    struct fdnet f; /* first */
    int pid;        /* of a helper that is a child; 0: it is none */
};

struct start {
    const struct net_options *o;
    int fd;
};

static int run_helper(void *opaque)
{
    const struct start *s = opaque;

    return net_helper_main(s->o, s->fd);
}

static void set_offloads(struct fdnet *f, u32 offloads)
{
    struct net_control c = {.offloads = offloads};
    struct pollfd p = {.fd = f->queue[0].fd, .events = POLLOUT};

    /* Rare, and the helper never waits for us: it makes room soon. */
    while (send(f->queue[0].fd, &c, sizeof(c), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
           errno == EAGAIN && poll(&p, 1, END_MS) > 0)
        ;
}

static void ended(struct fdnet *f)
{
    (void)f;
    log_error("net: the helper process has ended, the guest's link is down");
}

/* The helper ends when it sees the end of the socket, and its ports are free again when it has. One
 * that sends and sends is waited for no longer than one that is silent. */
static void close_user(struct fdnet *f)
{
    struct user *u = container_of(f, struct user, f);
    struct pollfd p = {.fd = f->queue[0].fd, .events = POLLIN};
    u64 end = host_monotonic_ns() + END_MS * 1000000ull, now;
    bool ended = false;
    u8 rest[64];

    shutdown(p.fd, SHUT_WR);
    while (!ended && (now = host_monotonic_ns()) < end &&
           poll(&p, 1, (int)((end - now) / 1000000) + 1) > 0)
        ended = recv(p.fd, rest, sizeof(rest), MSG_DONTWAIT) <= 0;
    close(p.fd);
    if (ended && u->pid)
        while (waitpid(u->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    free(u);
}

/* Waits for the helper's first words. */
static int hear(int fd, char *err, size_t err_size)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char hello[NET_HELPER_HELLO];
    ssize_t n = poll(&p, 1, HELLO_MS) > 0 ? recv(fd, hello, sizeof(hello) - 1, 0) : -1;

    if (n <= 0) {
        snprintf(err, err_size, "--net user: the helper process does not start");
        return -EIO;
    }
    hello[n] = '\0';
    if (hello[0]) {
        snprintf(err, err_size, "%s", hello);
        return -EINVAL;
    }
    return 0;
}

/* Starts the helper: a child, or, with messages, one of nobody's. *fd: the socket to it. Its
 * process id (apart: 0), or -errno with one line in err. */
static int start_helper(const struct net_options *o, int *messages, int *fd, char *err,
                        size_t err_size)
{
    int size = SOCKET_BUFFER, sv[2], pid;
    struct start s = {.o = o};

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv)) {
        pid = -errno;
        snprintf(err, err_size, "--net user: %s", strerror(-pid));
        return pid;
    }
    for (unsigned i = 0; i < 2; i++)
        if (setsockopt(sv[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
            setsockopt(sv[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    s.fd = sv[1];
    pid = messages ? host_helper_fork_apart(NAME, &sv[1], 1, run_helper, &s, messages)
                   : host_helper_fork(NAME, &sv[1], 1, run_helper, &s);
    close(sv[1]);
    *fd = sv[0];
    if (pid >= 0 && !hear(sv[0], err, err_size))
        return pid;
    if (pid < 0)
        snprintf(err, err_size, "--net user: fork: %s", strerror(-pid));
    close(sv[0]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    if (pid == 0)
        close(*messages);
    return -EINVAL;
}

static struct netdev *create(const struct net_options *o, int fd, int pid)
{
    struct user *u = calloc(1, sizeof(*u));

    if (!u)
        return NULL;
    u->pid = pid;
    u->f.queue[0].fd = fd;
    u->f.socket = true;
    u->f.set_offloads = set_offloads;
    u->f.ended = ended;
    u->f.close = close_user;
    u->f.n.offloads = NETDEV_CSUM | NETDEV_TSO4 | NETDEV_TSO6 | NETDEV_TSO_ECN;
    u->f.n.mtu = o->mtu;
    fdnet_init(&u->f, 1);
    return &u->f.n;
}

struct netdev *net_user_open(const struct net_options *o, char *err, size_t err_size)
{
    struct netdev *n;
    int fd, pid = start_helper(o, NULL, &fd, err, err_size);

    if (pid < 0)
        return NULL;
    n = create(o, fd, pid);
    if (n)
        return n;
    snprintf(err, err_size, "--net user: out of memory");
    close(fd);
    waitpid(pid, NULL, 0);
    return NULL;
}

int net_user_start(const struct net_options *o, struct net_fds *f, char *err, size_t err_size)
{
    int r = start_helper(o, &f->fd[1], &f->fd[0], err, err_size);

    f->n = r ? 0 : 2;
    return r;
}

static bool is_type(int fd, mode_t type)
{
    struct stat st;

    /* Not glibc's fstat, which a confined process may not call (newfstatat). */
    return !syscall(SYS_fstat, fd, &st) && (st.st_mode & S_IFMT) == type;
}

struct netdev *net_user_adopt(const struct net_options *o, struct net_fds *f, char *err,
                              size_t err_size)
{
    struct netdev *n;
    int r;

    if (f->n != 2 || !is_type(f->fd[0], S_IFSOCK) || !is_type(f->fd[1], S_IFIFO)) {
        snprintf(err, err_size, "--net user: a socket and a pipe are to come with the request");
        return NULL;
    }
    n = create(o, f->fd[0], 0);
    r = n ? host_helper_listen(f->fd[1]) : -ENOMEM;
    if (!r) {
        f->fd[0] = f->fd[1] = -1;
        return n;
    }
    snprintf(err, err_size, "--net user: %s", strerror(-r));
    free(n ? container_of(n, struct user, f.n) : NULL);
    return NULL;
}
