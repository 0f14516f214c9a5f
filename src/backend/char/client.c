/* SPDX-License-Identifier: Apache-2.0 */
/* A console's client: output at its own pace from the replay log, held-back input. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/char/console_priv.h"
#include "core/host.h"

/* One message of at most CONSOLE_PAYLOAD_MAX bytes. 0 or -errno; -EAGAIN: no room. */
static int send_message(struct console_client *c, u8 type, const struct host_iov *iov, unsigned n)
{
    struct iovec v[3] = {{&type, 1}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 1 + n};

    for (unsigned i = 0; i < n; i++)
        v[1 + i] = (struct iovec){iov[i].base, iov[i].len};
    return sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

void client_send(struct console_client *c, u8 type, const void *payload, size_t n)
{
    struct host_iov iov = {(void *)payload, n};

    if (c->framed && !c->gone)
        send_message(c, type, &iov, 1);
}

/* Nothing more is read while typed bytes are held back. */
static void watch(struct console_client *c)
{
    u32 events = (c->in_len ? 0 : (u32)EPOLLIN) | (c->full ? (u32)EPOLLOUT : 0);

    if (events != c->events)
        host_loop_mod_fd(c->fd, events);
    c->events = events;
}

static void set_gone(struct console_client *c)
{
    if (c->gone)
        return;
    c->gone = true;
    host_bh_schedule(&c->console->reap_bh);
}

static void set_full(struct console_client *c, bool full)
{
    c->full = full;
    watch(c);
}

/* Sends the next piece of output. Bytes taken; 0: no room; -errno. */
static ssize_t send_output(struct console_client *c)
{
    struct replay *log = &c->console->log;
    bool old = c->pos < c->live;
    size_t max = CONSOLE_PAYLOAD_MAX;
    struct host_iov iov[2];
    unsigned n_iov;
    ssize_t n;
    int r;

    if (old && c->live - c->pos < max)
        max = (size_t)(c->live - c->pos);
    n = (ssize_t)replay_peek(log, c->pos, max, iov, &n_iov);
    if (c->framed) {
        r = send_message(c, old ? CONSOLE_REPLAY : CONSOLE_OUTPUT, iov, n_iov);
    } else {
        /* A socket without a reader is -EPIPE: the program ignores SIGPIPE. */
        n = writev(c->fd, (struct iovec *)(void *)iov, (int)n_iov);
        r = n < 0 ? -errno : 0;
    }
    if (r == -EAGAIN || r == -EINTR || r == -ENOBUFS)
        return 0;
    return r ? r : n;
}

void client_flush(struct console_client *c)
{
    struct replay *log = &c->console->log;

    while (!c->gone && !c->full && c->pos < log->end) {
        u64 start = replay_start(log);
        ssize_t n;

        if (c->pos < start) {
            u64 lost = start - c->pos;

            /* What is dropped of a replay was never promised. */
            if (c->pos >= c->live)
                client_send(c, CONSOLE_LOST, &lost, sizeof(lost));
            c->pos = start;
        }
        n = send_output(c);
        if (n < 0)
            set_gone(c);
        else if (n == 0)
            set_full(c, true);
        else
            c->pos += (u64)n;
    }
}

void client_deliver(struct console_client *c)
{
    struct chardev *out = &c->console->c;

    if (!c->in_len)
        return;
    while (c->in_pos < c->in_len) {
        size_t left = c->in_len - c->in_pos;
        size_t n = out->on_input ? out->on_input(out->dev, c->in + c->in_pos, left) : left;

        if (!n)
            return;
        c->in_pos += n;
    }
    c->in_pos = c->in_len = 0;
    watch(c);
}

/* One message came from a client. false: it speaks something else. */
static bool take_message(struct console_client *c, u8 type, const u8 *payload, size_t n)
{
    struct console_size size;

    switch (type) {
    case CONSOLE_INPUT:
        memcpy(c->in, payload, n);
        c->in_len = n;
        client_deliver(c);
        watch(c);
        return true;
    case CONSOLE_SIZE:
        if (n != sizeof(size))
            return false;
        memcpy(&size, payload, sizeof(size));
        console_resized(c->console, &size);
        return true;
    case CONSOLE_QUIT:
        vm_stop(c->console->vm, VM_QUIT, 0, NULL);
        return true;
    case CONSOLE_DETACH:
        if (c->owner)
            console_detached(c->console);
        c->owner = false;
        return true;
    default:
        return false;
    }
}

/* Reads once. false: there is nothing, or the client is gone. */
static bool read_once(struct console_client *c)
{
    u8 buf[1 + CONSOLE_PAYLOAD_MAX];
    struct iovec v = {buf, c->framed ? sizeof(buf) : CONSOLE_PAYLOAD_MAX};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    ssize_t n = c->framed ? recvmsg(c->fd, &m, MSG_DONTWAIT) : read(c->fd, buf, v.iov_len);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        set_gone(c);
        if (c->owner)
            vm_stop(c->console->vm, VM_QUIT, 0, "the terminal hung up");
        return false;
    }
    if (!c->framed)
        take_message(c, CONSOLE_INPUT, buf, (size_t)n);
    else if ((m.msg_flags & MSG_TRUNC) || !take_message(c, buf[0], buf + 1, (size_t)n - 1))
        set_gone(c);
    return !c->gone;
}

/* Event loop: something can be read or written. */
static void on_ready(void *opaque, u32 events)
{
    struct console_client *c = opaque;
    struct vm *vm = c->console->vm;

    vm_lock(vm);
    if (!c->gone && (events & EPOLLOUT)) {
        set_full(c, false);
        client_flush(c);
    }
    /* A client that floods gets its turn back after some messages. */
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        for (int i = 0; i < 16 && !c->gone && !c->in_len; i++)
            if (!read_once(c))
                break;
    vm_unlock(vm);
}

struct console_client *client_add(struct console *h, int fd, bool framed, u64 pos)
{
    for (unsigned i = 0; i < CONSOLE_CLIENTS_MAX; i++) {
        struct console_client *c = &h->client[i];

        if (c->console)
            continue;
        *c = (struct console_client){
            .console = h, .fd = fd, .framed = framed, .pos = pos, .live = h->log.end};
        c->events = EPOLLIN;
        if (host_loop_add_fd(fd, c->events, on_ready, c)) {
            c->console = NULL;
            return NULL;
        }
        return c;
    }
    return NULL;
}

void client_close(struct console_client *c)
{
    host_loop_del_fd(c->fd);
    close(c->fd);
    c->console = NULL;
}
