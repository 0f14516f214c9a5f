/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A listening Unix socket as the other end of a port: a byte stream, one connection at a time, no
 * history. Nothing is buffered towards the socket: what it does not take stays with the device.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/char/char.h"
#include "core/host.h"
#include "core/listen.h"
#include "core/vm.h"

#define INPUT_SIZE 16384

struct socket_char {
    struct chardev c; /* first */
    struct vm *vm;
    char *path;
    int listener, fd; /* -1: not started; fd: the connection, or -1 */
    u32 watched;      /* what fd is watched for; 0: it is not in the loop */
    bool full;        /* a write was cut short */
    struct host_bh kick;
    size_t pos, len; /* input the device has not taken */
    u8 input[INPUT_SIZE];
};

static void on_connection(void *opaque, u32 events);

/* Without anything to watch for it leaves the loop, which would go on telling that the other end
 * hung up. */
static void update_watch(struct socket_char *s)
{
    u32 want = (s->len ? 0 : EPOLLIN) | (s->full ? EPOLLOUT : 0);

    if (s->fd < 0 || want == s->watched)
        return;
    if (!want)
        host_loop_del_fd(s->fd);
    else if (s->watched)
        host_loop_mod_fd(s->fd, want);
    else if (host_loop_add_fd(s->fd, want, on_connection, s))
        want = 0;
    s->watched = want;
}

static void set_open(struct socket_char *s, bool open)
{
    s->c.closed = !open;
    if (s->c.on_open)
        s->c.on_open(s->c.dev, open);
}

static void disconnect(struct socket_char *s)
{
    if (s->watched)
        host_loop_del_fd(s->fd);
    close(s->fd);
    s->fd = -1;
    s->watched = 0;
    s->full = false;
    s->pos = s->len = 0;
    host_loop_mod_fd(s->listener, EPOLLIN);
    set_open(s, false);
}

static void deliver(struct socket_char *s)
{
    while (s->pos < s->len) {
        size_t n = s->c.on_input ? s->c.on_input(s->c.dev, s->input + s->pos, s->len - s->pos)
                                 : s->len - s->pos;

        if (!n)
            return;
        s->pos += n;
    }
    s->pos = s->len = 0;
}

static void read_input(struct socket_char *s)
{
    ssize_t n = recv(s->fd, s->input, sizeof(s->input), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        disconnect(s);
        return;
    }
    s->len = (size_t)n;
    deliver(s);
}

/* Event loop. */
static void on_connection(void *opaque, u32 events)
{
    struct socket_char *s = opaque;

    vm_lock(s->vm);
    if (s->full && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        s->full = false;
        if (s->c.on_writable)
            s->c.on_writable(s->c.dev);
    }
    if (!s->len && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
        read_input(s);
    update_watch(s);
    vm_unlock(s->vm);
}

/* Event loop. */
static void on_listener(void *opaque, u32 events)
{
    struct socket_char *s = opaque;
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)events;
    if (fd < 0)
        return;
    vm_lock(s->vm);
    host_loop_mod_fd(s->listener, 0); /* others wait */
    s->fd = fd;
    set_open(s, true);
    update_watch(s);
    vm_unlock(s->vm);
}

/* Event loop: the device has room. */
static void on_kick(void *opaque)
{
    struct socket_char *s = opaque;

    vm_lock(s->vm);
    deliver(s);
    update_watch(s);
    vm_unlock(s->vm);
}

static size_t socket_write(struct chardev *c, const u8 *buf, size_t n)
{
    struct socket_char *s = container_of(c, struct socket_char, c);
    ssize_t sent;

    if (s->fd < 0)
        return n; /* to nobody */
    sent = send(s->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        return n; /* the other end is gone, as reading will tell */
    if (sent < 0)
        sent = 0;
    if ((size_t)sent < n) {
        s->full = true;
        update_watch(s);
    }
    return (size_t)sent;
}

static void socket_kick_input(struct chardev *c)
{
    struct socket_char *s = container_of(c, struct socket_char, c);

    /* Not from here: the device is in the middle of something. */
    if (s->len)
        host_bh_schedule(&s->kick);
}

static void socket_close(struct chardev *c)
{
    struct socket_char *s = container_of(c, struct socket_char, c);

    host_bh_cancel(&s->kick);
    if (s->watched)
        host_loop_del_fd(s->fd);
    if (s->fd >= 0)
        close(s->fd);
    if (s->listener >= 0) {
        host_loop_del_fd(s->listener);
        close(s->listener);
    }
    free(s->path);
    free(s);
}

static int socket_start(struct chardev *c, bool dry, char *err, size_t err_size)
{
    struct socket_char *s = container_of(c, struct socket_char, c);
    int r;

    if (dry)
        return host_listen_check(s->path, err, err_size);
    s->listener = host_listen(s->path, false, 1, err, err_size);
    if (s->listener < 0)
        return s->listener;
    r = host_loop_add_fd(s->listener, EPOLLIN, on_listener, s);
    if (r)
        snprintf(err, err_size, "unix:%s: %s", s->path, strerror(-r));
    return r;
}

struct chardev *char_socket_open(struct vm *vm, const char *path, char *err, size_t err_size)
{
    struct socket_char *s = calloc(1, sizeof(*s));

    if (s)
        s->path = strdup(path);
    if (!s || !s->path) {
        snprintf(err, err_size, "unix:%s: out of memory", path);
        free(s);
        return NULL;
    }
    s->vm = vm;
    s->fd = s->listener = -1;
    s->c.closed = true;
    s->c.write = socket_write;
    s->c.kick_input = socket_kick_input;
    s->c.start = socket_start;
    s->c.close = socket_close;
    host_bh_init(&s->kick, on_kick, s);
    return &s->c;
}

struct chardev *char_port_open(struct vm *vm, const char *spec, char *err, size_t err_size)
{
    if (!strncmp(spec, "unix:", 5))
        return char_socket_open(vm, spec + 5, err, err_size);
    return char_open(vm, spec, err, err_size);
}
