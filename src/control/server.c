/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/server.h"
#include "core/host.h"
#include "proto/control.h"

struct client {
    struct control_server *server;
    int fd;                    /* -1: the slot is free */
    struct control_fds passed; /* came with the line of `in` ... */
    size_t passed_at;          /* ... that begins there */
    u32 events;
    u64 heard;    /* the server's turn when it last said something */
    bool eof;     /* it will say nothing more */
    bool closing; /* to be closed when the reply is sent */
    char *out;    /* the reply that is being sent; NULL: none */
    size_t out_len, out_pos;
    size_t in_len;
    char in[CONTROL_REQUEST_MAX];
};

struct control_server {
    int listen_fd;
    const struct control_command *commands;
    void *opaque;
    u64 turn;
    struct client client[CONTROL_CLIENTS_MAX];
};

static void close_passed(struct client *c)
{
    for (unsigned i = 0; i < c->passed.n; i++)
        if (c->passed.fd[i] >= 0)
            close(c->passed.fd[i]);
    c->passed.n = 0;
}

static void drop(struct client *c)
{
    host_loop_del_fd(c->fd);
    close(c->fd);
    close_passed(c);
    free(c->out);
    *c = (struct client){.server = c->server, .fd = -1};
}

/* Sends what the socket takes. false: the connection is gone. */
static bool flush(struct client *c)
{
    while (c->out && c->out_pos < c->out_len) {
        ssize_t n =
            send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        c->out_pos += (size_t)n;
    }
    free(c->out);
    c->out = NULL;
    return true;
}

/* Keeps the descriptors that came with a message; those that are too many are closed. */
static void take_descriptors(struct client *c, struct msghdr *m)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
            if (c->passed.n < CONTROL_FDS_MAX)
                c->passed.fd[c->passed.n++] = fd;
            else
                close(fd);
        }
    }
}

static char *line_end(struct client *c)
{
    return memchr(c->in, '\n', c->in_len);
}

/* Where the last line begins, or the piece of one. */
static size_t last_line(const struct client *c)
{
    size_t at = c->in_len - 1;

    while (at && c->in[at - 1] != '\n')
        at--;
    return at;
}

/* Takes what has arrived. false: the connection is gone. */
static bool receive(struct client *c)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {c->in + c->in_len, sizeof(c->in) - c->in_len};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control)};
    unsigned had = c->passed.n;
    ssize_t n;

    /* Descriptors of one request at a time. */
    if (c->eof || c->in_len == sizeof(c->in) || (had && line_end(c)))
        return true;
    n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    take_descriptors(c, &m);
    if (n) {
        c->in_len += (size_t)n;
        /* One recvmsg ends with the message whose descriptors it gave (unix_stream_read_generic in
         * Linux), and may begin with others. */
        if (c->passed.n && !had)
            c->passed_at = last_line(c);
        c->heard = ++c->server->turn;
    } else {
        c->eof = true;
    }
    return true;
}

/* Answers one request, if a whole one is there. false: there is no memory for it. */
static bool answer(struct client *c)
{
    const struct control_server *s = c->server;
    char *end = line_end(c);
    size_t n;

    c->out_pos = 0;
    if (end) {
        bool ours = c->passed_at == 0;

        n = (size_t)(end - c->in);
        c->out = control_answer(s->commands, s->opaque, c->in, n, ours ? &c->passed : NULL, c->fd,
                                &c->out_len);
        if (ours)
            close_passed(c);
        else
            c->passed_at -= n + 1;
        c->in_len -= n + 1;
        memmove(c->in, end + 1, c->in_len);
        return c->out != NULL;
    }
    if (c->in_len < sizeof(c->in))
        return true;
    c->closing = true;
    c->in_len = 0;
    c->out = control_refusal("the request is too long", &c->out_len);
    return c->out != NULL;
}

/* What to wait for: while a reply waits for its reader nothing more is read. Requests that are here
 * already are for later turns, and a socket with room gives one at once. */
static void watch(struct client *c)
{
    u32 events = c->out || line_end(c) ? EPOLLOUT : EPOLLIN;

    if (events != c->events)
        host_loop_mod_fd(c->fd, events);
    c->events = events;
}

/* One turn of a client's: at most one request. */
static void on_client(void *opaque, u32 events)
{
    struct client *c = opaque;

    if (!flush(c) || (c->out && (events & (EPOLLHUP | EPOLLERR)))) {
        drop(c);
        return;
    }
    if (!c->out && !c->closing && (!receive(c) || !answer(c) || !flush(c))) {
        drop(c);
        return;
    }
    if (!c->out && (c->closing || (c->eof && !line_end(c))))
        drop(c);
    else
        watch(c);
}

static struct client *free_slot(struct control_server *s)
{
    struct client *oldest = NULL;

    for (struct client *c = s->client; c < s->client + CONTROL_CLIENTS_MAX; c++) {
        if (c->fd < 0)
            return c;
        if (!oldest || c->heard < oldest->heard)
            oldest = c;
    }
    drop(oldest);
    return oldest;
}

static void on_connect(void *opaque, u32 events)
{
    struct control_server *s = opaque;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct client *c;

    (void)events;
    if (fd < 0)
        return;
    c = free_slot(s);
    c->fd = fd;
    c->events = EPOLLIN;
    c->heard = ++s->turn;
    if (host_loop_add_fd(fd, EPOLLIN, on_client, c)) {
        close(fd);
        c->fd = -1;
    }
}

struct control_server *control_server_open(int listen_fd, const struct control_command *commands,
                                           void *opaque, char *err, size_t err_size)
{
    struct control_server *s = calloc(1, sizeof(*s));
    size_t seed = 0;
    int r = s ? host_random(&seed, sizeof(seed)) : -ENOMEM;

    if (!r) {
        /* Left to itself, the library would open /dev/urandom when the first object is made. */
        json_object_seed(seed | 1);
        r = host_loop_add_fd(listen_fd, EPOLLIN, on_connect, s);
    }
    if (r) {
        snprintf(err, err_size, "cannot serve the control socket: %s", strerror(-r));
        close(listen_fd);
        free(s);
        return NULL;
    }
    s->listen_fd = listen_fd;
    s->commands = commands;
    s->opaque = opaque;
    for (struct client *c = s->client; c < s->client + CONTROL_CLIENTS_MAX; c++)
        *c = (struct client){.server = s, .fd = -1};
    return s;
}

void control_server_close(struct control_server *s)
{
    if (!s)
        return;
    for (struct client *c = s->client; c < s->client + CONTROL_CLIENTS_MAX; c++)
        if (c->fd >= 0)
            drop(c);
    host_loop_del_fd(s->listen_fd);
    close(s->listen_fd);
    free(s);
}
