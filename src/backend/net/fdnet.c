/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/net/fdnet.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

_Static_assert(sizeof(struct host_iov) == sizeof(struct iovec) &&
                   offsetof(struct host_iov, len) == offsetof(struct iovec, iov_len),
               "host.h says so");

static struct fdnet *of(struct netdev *n)
{
    return container_of(n, struct fdnet, n);
}

static void on_events(void *opaque, u32 events);

/* A descriptor nothing is wanted of is not in the loop at all: it would report its other end's
 * death again and again. */
static void watch(struct fdnet_queue *q)
{
    u32 events = 0;

    if (!q->net->gone && q->attached) {
        events |= q->want_in ? (u32)EPOLLIN : 0;
        events |= q->want_out ? (u32)EPOLLOUT : 0;
    }
    if (events == q->events)
        return;
    if (!events)
        host_loop_del_fd(q->fd);
    else if (!q->events)
        host_loop_add_fd(q->fd, events, on_events, q);
    else
        host_loop_mod_fd(q->fd, events);
    q->events = events;
}

static void end(struct fdnet *f)
{
    if (f->gone)
        return;
    f->gone = true;
    for (unsigned i = 0; i < f->n.queues; i++)
        watch(&f->queue[i]);
    if (f->ended)
        f->ended(f);
    if (f->n.on_link)
        f->n.on_link(f->n.dev, false);
}

/* Event loop. */
static void on_events(void *opaque, u32 events)
{
    struct fdnet_queue *q = opaque;
    struct netdev *n = &q->net->n;
    unsigned i = (unsigned)(q - q->net->queue);

    if (q->want_out && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        q->want_out = false;
        watch(q);
        if (n->on_writable)
            n->on_writable(n->dev, i);
    }
    if (q->want_in && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) && n->on_readable)
        n->on_readable(n->dev, i);
}

/* On any thread. That the other end is gone is found by receiving. */
static int send_frame(struct netdev *n, unsigned queue, const struct host_iov *iov, unsigned niov)
{
    struct fdnet *f = of(n);
    const struct iovec *v = (const struct iovec *)(const void *)iov;
    int fd = f->queue[queue].fd;
    ssize_t r;

    if (f->socket) {
        struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = niov};

        r = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        r = writev(fd, v, (int)niov);
    }
    return r < 0 ? -errno : 0;
}

static void want_writable(struct netdev *n, unsigned queue)
{
    struct fdnet_queue *q = &of(n)->queue[queue];

    q->want_out = true;
    watch(q);
}

static s64 receive_socket(struct fdnet *f, int fd, const struct host_iov *iov, unsigned niov)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = niov};
    ssize_t r = recvmsg(fd, &m, MSG_DONTWAIT);

    if (r > 0)
        return m.msg_flags & MSG_TRUNC ? -EMSGSIZE : r;
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    end(f);
    return -EPIPE;
}

/* A tap device cuts a frame that does not fit without a word: a byte more than the caller's shows
 * it. */
static s64 receive_tap(struct fdnet *f, int fd, const struct host_iov *iov, unsigned niov)
{
    struct iovec v[HOST_IOV_MAX];
    size_t room = 0;
    u8 spill;
    ssize_t r;

    if (niov >= HOST_IOV_MAX)
        return -EINVAL;
    for (unsigned i = 0; i < niov; i++) {
        v[i] = (struct iovec){iov[i].base, iov[i].len};
        room += iov[i].len;
    }
    v[niov] = (struct iovec){&spill, 1};
    r = readv(fd, v, (int)niov + 1);
    if (r >= 0)
        return (size_t)r > room ? -EMSGSIZE : r;
    if (errno == EAGAIN || errno == EINTR)
        return -EAGAIN;
    end(f); /* the interface was deleted */
    return -EPIPE;
}

static s64 receive(struct netdev *n, unsigned queue, const struct host_iov *iov, unsigned niov)
{
    struct fdnet *f = of(n);
    int fd = f->queue[queue].fd;

    if (f->gone)
        return -EPIPE;
    return f->socket ? receive_socket(f, fd, iov, niov) : receive_tap(f, fd, iov, niov);
}

static void want_readable(struct netdev *n, unsigned queue, bool on)
{
    struct fdnet_queue *q = &of(n)->queue[queue];

    q->want_in = on;
    watch(q);
}

static void set_offloads(struct netdev *n, u32 offloads)
{
    if (!of(n)->gone)
        of(n)->set_offloads(of(n), offloads);
}

static void set_queues(struct netdev *n, unsigned queues)
{
    struct fdnet *f = of(n);

    for (unsigned i = 0; i < n->queues; i++) {
        struct fdnet_queue *q = &f->queue[i];
        bool on = i < queues;

        if (q->attached == on)
            continue;
        q->attached = on;
        watch(q);
        if (f->attach)
            f->attach(f, i, on);
    }
}

static void close_net(struct netdev *n)
{
    struct fdnet *f = of(n);

    for (unsigned i = 0; i < n->queues; i++) {
        f->queue[i].want_in = f->queue[i].want_out = false;
        watch(&f->queue[i]);
    }
    f->close(f);
}

static const struct netdev_ops fdnet_ops = {.send = send_frame,
                                            .want_writable = want_writable,
                                            .receive = receive,
                                            .want_readable = want_readable,
                                            .set_offloads = set_offloads,
                                            .set_queues = set_queues,
                                            .close = close_net};

void fdnet_init(struct fdnet *f, unsigned n)
{
    f->n.ops = &fdnet_ops;
    f->n.queues = n;
    for (unsigned i = 0; i < n; i++) {
        f->queue[i].net = f;
        f->queue[i].attached = i == 0;
    }
}
