/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/vsock/vsock.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/vsock/connect.h"
#include "base/commas.h"
#include "base/log.h"
#include "core/listen.h"

#define CID_DEFAULT 3
#define PATH_MAX_LEN 107 /* sockaddr_un */
#define LINE_MAX_LEN 32
#define BACKLOG 128

struct backend;

struct stream {
    struct sockstream s; /* first */
    struct backend *b;
    struct stream *next;
    int fd;                  /* -1: it is being connected */
    u32 tag;                 /* of that request */
    u32 watched;             /* 0: it is not in the loop */
    bool asking;             /* has not said what it wants */
    char line[LINE_MAX_LEN]; /* what it did say */
    unsigned line_len;
};

struct backend {
    struct sockdev d; /* first */
    char *path;
    int listener, helper;
    bool accepting;
    struct stream *streams;
    unsigned nstreams, nasking;
    u32 next_tag;
};

static void on_fd(void *opaque, u32 events);

/* --- streams -------------------------------------------------------------------------------------
 */

/* More connections are taken while there is room for them. */
static void update_accepting(struct backend *b)
{
    bool on = b->nstreams < VSOCK_STREAMS_MAX && b->nasking < VSOCK_ASKING_MAX;

    if (on != b->accepting)
        host_loop_mod_fd(b->listener, on ? EPOLLIN : 0);
    b->accepting = on;
}

static struct stream *new_stream(struct backend *b, int fd)
{
    struct stream *s = b->nstreams < VSOCK_STREAMS_MAX ? calloc(1, sizeof(*s)) : NULL;

    if (!s)
        return NULL;
    s->b = b;
    s->fd = fd;
    s->next = b->streams;
    b->streams = s;
    b->nstreams++;
    update_accepting(b);
    return s;
}

/* Without anything to watch for it leaves the loop, which would go on telling that the other end
 * hung up. */
static void set_watch(struct stream *s, u32 want)
{
    if (want == s->watched || s->fd < 0)
        return;
    if (!want)
        host_loop_del_fd(s->fd);
    else if (s->watched)
        host_loop_mod_fd(s->fd, want);
    else if (host_loop_add_fd(s->fd, want, on_fd, s))
        want = 0;
    s->watched = want;
}

static void set_asking(struct stream *s, bool asking)
{
    s->b->nasking += (unsigned)asking - (unsigned)s->asking;
    s->asking = asking;
    update_accepting(s->b);
}

static void drop_stream(struct stream *s)
{
    struct backend *b = s->b;

    set_watch(s, 0);
    if (s->fd >= 0)
        close(s->fd);
    for (struct stream **at = &b->streams; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    b->nstreams--;
    set_asking(s, false);
    free(s);
}

/* --- what a program on the host asks for ---------------------------------------------------------
 */

bool vsock_parse_connect(const char *line, size_t n, u32 *port)
{
    static const char word[] = "CONNECT ";
    size_t at = sizeof(word) - 1;
    u64 v = 0;

    if (n < at + 2 || memcmp(line, word, at) != 0 || line[n - 1] != '\n')
        return false;
    for (; at < n - 1; at++) {
        if (line[at] < '0' || line[at] > '9')
            return false;
        v = 10 * v + (u64)(line[at] - '0');
        if (v >= UINT32_MAX) /* which means any port */
            return false;
    }
    *port = (u32)v;
    return true;
}

/* Takes the line off the stream, and nothing that follows. 1; 0: it is not complete; -1: it is no
 * such line. */
static int read_line(struct stream *s, u32 *port)
{
    char *to = s->line + s->line_len;
    size_t room = sizeof(s->line) - s->line_len, len;
    ssize_t n = recv(s->fd, to, room, MSG_DONTWAIT | MSG_PEEK);
    const char *end;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return -1;
    end = memchr(to, '\n', (size_t)n);
    len = end ? (size_t)(end - to) + 1 : (size_t)n;
    if (recv(s->fd, to, len, MSG_DONTWAIT) != (ssize_t)len || (!end && len == room))
        return -1;
    s->line_len += (unsigned)len;
    if (!end)
        return 0;
    return vsock_parse_connect(s->line, s->line_len, port) ? 1 : -1;
}

static void on_asked(struct stream *s)
{
    struct backend *b = s->b;
    u32 port;
    int r = read_line(s, &port);

    if (!r)
        return;
    set_watch(s, 0);
    if (r > 0 && b->d.on_request) {
        set_asking(s, false);
        if (b->d.on_request(b->d.dev, &s->s, port))
            return;
    }
    drop_stream(s);
}

/* Event loop. */
static void on_listener(void *opaque, u32 events)
{
    struct backend *b = opaque;
    int fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct stream *s;

    (void)events;
    if (fd < 0)
        return;
    s = new_stream(b, fd);
    if (!s) {
        close(fd);
        return;
    }
    set_asking(s, true);
    set_watch(s, EPOLLIN);
}

/* Event loop. */
static void on_fd(void *opaque, u32 events)
{
    struct stream *s = opaque;
    unsigned e = 0;

    if (s->asking) {
        on_asked(s);
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        e |= SOCKSTREAM_READABLE;
    if ((s->watched & EPOLLOUT) && (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)))
        e |= SOCKSTREAM_WRITABLE;
    s->s.on_event(s->s.opaque, e);
}

/* --- what the guest asks for ---------------------------------------------------------------------
 */

static void lose_helper(struct backend *b)
{
    if (b->helper < 0)
        return;
    host_loop_del_fd(b->helper);
    close(b->helper);
    b->helper = -1;
    log_error("vsock: the process that connects has ended; the guest cannot reach the host's "
              "sockets any more");
}

/* A reply of the helper's. 1; 0: there is none; -1: nor will be. */
static int read_reply(struct backend *b, struct connect_reply *reply, int *fd)
{
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec v = {reply, sizeof(*reply)};
    struct msghdr m = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = sizeof(control.buf)};
    ssize_t n = recvmsg(b->helper, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *h;

    *fd = -1;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (h && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(fd, CMSG_DATA(h), sizeof(int));
    return n == sizeof(*reply) ? 1 : -1;
}

/* One that is being connected: the one of this request, or any (NULL). */
static struct stream *connecting(const struct backend *b, const u32 *tag)
{
    for (struct stream *s = b->streams; s; s = s->next)
        if (s->fd < 0 && (!tag || s->tag == *tag))
            return s;
    return NULL;
}

/* Event loop. */
static void on_helper(void *opaque, u32 events)
{
    struct backend *b = opaque;
    struct connect_reply reply;
    struct stream *s;
    int fd, r = read_reply(b, &reply, &fd);

    (void)events;
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        lose_helper(b);
        while ((s = connecting(b, NULL)) != NULL)
            s->s.on_event(s->s.opaque, SOCKSTREAM_REFUSED);
        return;
    }
    s = r ? connecting(b, &reply.tag) : NULL;
    if (s && fd >= 0) {
        s->fd = fd;
        s->s.on_event(s->s.opaque, SOCKSTREAM_CONNECTED);
    } else if (s) {
        s->s.on_event(s->s.opaque, SOCKSTREAM_REFUSED);
    } else if (fd >= 0) {
        close(fd); /* the guest did not wait */
    }
}

static struct sockstream *sock_connect(struct sockdev *d, u32 port)
{
    struct backend *b = container_of(d, struct backend, d);
    struct connect_request q = {.tag = ++b->next_tag, .port = port};
    struct stream *s = b->helper >= 0 ? new_stream(b, -1) : NULL;

    if (!s)
        return NULL;
    s->tag = q.tag;
    if (send(b->helper, &q, sizeof(q), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(q))
        return &s->s;
    drop_stream(s);
    return NULL;
}

/* --- the device's calls --------------------------------------------------------------------------
 */

static struct stream *of(struct sockstream *s)
{
    return container_of(s, struct stream, s);
}

static void sock_accepted(struct sockstream *ss, u32 port)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "OK %u\n", port);

    /* Nothing was sent before: there is room. A program that is gone is noticed later. */
    if (send(of(ss)->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return;
}

static s64 result(ssize_t n)
{
    if (n >= 0)
        return n;
    return errno == EINTR || errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

static s64 sock_receive(struct sockstream *s, const struct host_iov *iov, unsigned n)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};

    return result(recvmsg(of(s)->fd, &m, MSG_DONTWAIT));
}

static s64 sock_send(struct sockstream *s, const struct host_iov *iov, unsigned n)
{
    struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};

    return result(sendmsg(of(s)->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static bool sock_hung_up(struct sockstream *s)
{
    struct pollfd p = {.fd = of(s)->fd};

    return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

static void sock_shutdown(struct sockstream *s, bool receive, bool send)
{
    /* Nothing to do where the other end has closed already. */
    if (shutdown(of(s)->fd, receive && send ? SHUT_RDWR : receive ? SHUT_RD : SHUT_WR))
        return;
}

static void sock_watch(struct sockstream *s, bool readable, bool writable)
{
    set_watch(of(s), (readable ? EPOLLIN : 0) | (writable ? EPOLLOUT : 0));
}

static void sock_close_stream(struct sockstream *s)
{
    drop_stream(of(s));
}

/* The helper ends by itself when its socket does. */
static void sock_close(struct sockdev *d)
{
    struct backend *b = container_of(d, struct backend, d);

    while (b->streams)
        drop_stream(b->streams);
    if (b->helper >= 0) {
        host_loop_del_fd(b->helper);
        close(b->helper);
    }
    if (b->listener >= 0) {
        host_loop_del_fd(b->listener);
        close(b->listener);
    }
    free(b->path);
    free(b);
}

static int sock_start(struct sockdev *d, bool dry, char *err, size_t err_size)
{
    struct backend *b = container_of(d, struct backend, d);
    char why[256];
    int r;

    if (dry)
        r = host_listen_check(b->path, why, sizeof(why));
    else
        r = b->listener = host_listen(b->path, false, BACKLOG, why, sizeof(why));
    if (!dry && r >= 0) {
        r = host_loop_add_fd(b->listener, EPOLLIN, on_listener, b);
        if (r)
            snprintf(why, sizeof(why), "%s", strerror(-r));
    }
    if (r < 0)
        snprintf(err, err_size, "--vsock %s: %s", b->path, why);
    return r < 0 ? r : 0;
}

static const struct sockdev_ops sock_ops = {.start = sock_start,
                                            .connect = sock_connect,
                                            .accepted = sock_accepted,
                                            .receive = sock_receive,
                                            .send = sock_send,
                                            .hung_up = sock_hung_up,
                                            .shutdown = sock_shutdown,
                                            .watch = sock_watch,
                                            .close_stream = sock_close_stream,
                                            .close = sock_close};

/* --- opening -------------------------------------------------------------------------------------
 */

struct spec {
    char path[PATH_MAX_LEN + 1];
    u32 cid;
};

static bool parse_cid(const char *text, u32 *cid)
{
    u64 v = 0;

    for (; *text >= '0' && *text <= '9' && v < UINT32_MAX; text++)
        v = 10 * v + (u64)(*text - '0');
    *cid = (u32)v;
    /* 0 to 2 and the last one mean something else (5.10.4). */
    return !*text && v >= CID_DEFAULT && v < UINT32_MAX;
}

static const char *parse(const char *text, struct spec *s)
{
    char item[32];
    const char *value;
    int n = commas_next(&text, s->path, sizeof(s->path));

    s->cid = CID_DEFAULT;
    if (n == COMMAS_TOO_LONG)
        return "the path is longer than 107 bytes";
    if (n <= 0 || s->path[n - 1] == '/')
        return "it needs the path of a socket";
    /* What other options take is no path here either. */
    if (!strcmp(s->path, "null") || !strcmp(s->path, "stdio") || !strcmp(s->path, "pty") ||
        !strncmp(s->path, "file:", 5) || !strncmp(s->path, "unix:", 5))
        return "it is the path of a socket alone (a file of that name is ./NAME)";
    while ((n = commas_next(&text, item, sizeof(item))) != COMMAS_END) {
        value = n > 0 ? commas_value(item) : NULL;
        if (!value || strcmp(item, "cid") != 0)
            return "after the path there can be ,cid=N";
        if (!parse_cid(value, &s->cid))
            return "cid is 3 to 4294967294";
    }
    return NULL;
}

const char *vsock_check(const char *text)
{
    struct spec s;

    return parse(text, &s);
}

static int open_helper(struct backend *b, const struct spec *s, bool confined, char *err,
                       size_t err_size)
{
    int r;

    b->path = strdup(s->path);
    if (!b->path)
        return -ENOMEM;
    b->helper = connect_start(s->path, confined, err, err_size);
    if (b->helper < 0)
        return b->helper;
    r = host_loop_add_fd(b->helper, EPOLLIN, on_helper, b);
    if (r)
        snprintf(err, err_size, "%s", strerror(-r));
    return r;
}

struct sockdev *vsock_open(const char *text, bool confined, char *err, size_t err_size)
{
    struct backend *b = calloc(1, sizeof(*b));
    struct spec s;
    const char *wrong = parse(text, &s);
    char why[256] = "out of memory";

    if (b && !wrong) {
        *b = (struct backend){
            .d = {.ops = &sock_ops, .cid = s.cid}, .listener = -1, .helper = -1, .accepting = true};
        if (!open_helper(b, &s, confined, why, sizeof(why)))
            return &b->d;
        if (b->helper >= 0)
            close(b->helper);
        free(b->path);
    }
    free(b);
    snprintf(err, err_size, "--vsock %s: %s", text, wrong ? wrong : why);
    return NULL;
}
