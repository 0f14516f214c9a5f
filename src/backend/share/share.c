/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor's side of a share, and the process it starts. */
#include "backend/share/share.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/share/rules.h"
#include "backend/share/server.h"
#include "base/bits.h"
#include "base/log.h"
#include "core/sandbox.h"

/* Requests that are worked on at once. */
#define THREADS 4
/* Files a guest may know at once, at some 150 bytes each, and have open at once. */
#define NODES_MAX (1u << 20)
#define FILES_MAX 4096u
/* Descriptors for what is known but not open; the rest is opened again when needed. */
#define NODE_FDS_MAX 16384u
/* Neither: the socket, libfuse's copy of it, standard error and the like, requests under way. */
#define OTHER_FDS 64u

struct share {
    struct sharedev dev;
    int socket;
    bool ending;
    u32 gone; /* atomic: it was said that the server has ended */
    char tag[SHARE_TAG_MAX + 1];
};

/* --- the option ----------------------------------------------------------------------------------
 */

struct spec {
    size_t host_len;
    const char *tag;
    size_t tag_len;
    bool readonly;
};

/* HOST may hold colons, GUEST may not. */
static const char *parse(const char *text, struct spec *s)
{
    size_t len = strlen(text);
    const char *colon;

    *s = (struct spec){0};
    if (len > 3 && !strcmp(text + len - 3, ":ro")) {
        s->readonly = true;
        len -= 3;
    }
    if (len > 3 && !s->readonly && !strcmp(text + len - 3, ":rw"))
        len -= 3; /* as it is anyway */
    colon = memrchr(text, ':', len);
    if (!colon)
        return "it is HOST:GUEST, HOST:GUEST:ro or HOST:GUEST:rw";
    s->host_len = (size_t)(colon - text);
    s->tag = colon + 1;
    s->tag_len = (size_t)(text + len - s->tag);
    if (!s->host_len)
        return "the directory is missing";
    if (!s->tag_len)
        return "the guest's name for it is missing";
    if (s->tag_len > SHARE_TAG_MAX)
        return "the guest's name for it is longer than 36 bytes";
    return NULL;
}

const char *share_check(const char *text)
{
    struct spec s;

    return parse(text, &s);
}

/* --- the server's process ------------------------------------------------------------------------
 */

struct child {
    int socket, dir;
    bool readonly, confined;
    struct server *server;
    pthread_barrier_t ready;
};

/* The first thing over the socket, once. */
struct hello {
    int error; /* 0: it serves from here on */
    char text[252];
};

static void *serve(void *opaque)
{
    struct child *c = opaque;

    pthread_barrier_wait(&c->ready);
    server_run(c->server);
    return NULL;
}

/* All the descriptors one may have, shared out. */
static void use_fds(struct server_config *cfg)
{
    struct rlimit lim;
    unsigned n = 1024;

    if (!getrlimit(RLIMIT_NOFILE, &lim)) {
        lim.rlim_cur = lim.rlim_max;
        if (!setrlimit(RLIMIT_NOFILE, &lim))
            n = lim.rlim_cur > 65536 ? 65536 : (unsigned)lim.rlim_cur;
    }
    n = n > 2 * OTHER_FDS ? n - OTHER_FDS : OTHER_FDS;
    cfg->files = n / 2 < FILES_MAX ? n / 2 : FILES_MAX;
    cfg->node_fds = n - cfg->files < NODE_FDS_MAX ? n - cfg->files : NODE_FDS_MAX;
}

/*
 * Capabilities: none, but for root, whose share is to be root's: it may read and write what belongs
 * to others (DAC_OVERRIDE), change its permissions and times (FOWNER), and say who owns files
 * (CHOWN). All of it below one directory; set-ID bits cannot be given (safe_mode, no FSETID). With
 * ro it only reads what belongs to others.
 */
static int confine(const struct child *c, struct hello *h)
{
    struct sandbox_dir dir = {.fd = c->dir, .write = !c->readonly};
    struct sandbox_spec spec = {
        .name = "share", .rules = {sandbox_base_rules, share_rules}, .dirs = &dir, .ndirs = 1};

    if (geteuid() == 0)
        spec.caps = c->readonly ? BIT64(CAP_DAC_READ_SEARCH)
                                : BIT64(CAP_DAC_OVERRIDE) | BIT64(CAP_FOWNER) | BIT64(CAP_CHOWN);
    return host_confine(&spec, h->text, sizeof(h->text));
}

static int set_up(struct child *c, struct hello *h)
{
    struct server_config cfg = {.socket = c->socket,
                                .dir = c->dir,
                                .readonly = c->readonly,
                                .chown_new = geteuid() == 0,
                                .nodes = NODES_MAX};
    int err;

    use_fds(&cfg);
    umask(0); /* the guest's kernel has applied the guest's */
    c->server = server_create(&cfg, &err);
    if (!c->server) {
        snprintf(h->text, sizeof(h->text), "cannot serve it: %s", strerror(-err));
        return err;
    }
    pthread_barrier_init(&c->ready, NULL, THREADS);
    for (unsigned i = 1; i < THREADS; i++) {
        pthread_t t;

        err = pthread_create(&t, NULL, serve, c);
        if (err) {
            snprintf(h->text, sizeof(h->text), "cannot create a thread: %s", strerror(err));
            return -err;
        }
    }
    return c->confined ? confine(c, h) : 0;
}

static int run_server(void *opaque)
{
    struct child *c = opaque;
    struct hello h = {0};

    h.error = set_up(c, &h);
    if (write(c->socket, &h, sizeof(h)) != sizeof(h) || h.error)
        return 1;
    serve(c);
    /* Others may still be at requests, whose answers nobody waits for. */
    _exit(0);
}

/* --- the monitor's side --------------------------------------------------------------------------
 */

static int gone(struct share *s)
{
    if (!s->ending && !__atomic_exchange_n(&s->gone, 1, __ATOMIC_RELAXED))
        log_error("share %s: its server has ended; the guest gets errors there from now on",
                  s->tag);
    return -ENOTCONN;
}

/* What is left of iov after n bytes of it, in out (room for count); how many pieces. */
static unsigned skip(const struct host_iov *iov, unsigned count, size_t n, struct iovec *out)
{
    unsigned used = 0;

    for (unsigned i = 0; i < count && used < HOST_IOV_MAX; i++) {
        if (n >= iov[i].len) {
            n -= iov[i].len;
            continue;
        }
        out[used++] = (struct iovec){(char *)iov[i].base + n, iov[i].len - n};
        n = 0;
    }
    return used;
}

/* Sends or receives all of iov. */
static int transfer(struct share *s, const struct host_iov *iov, unsigned count, bool out)
{
    struct iovec piece[HOST_IOV_MAX];
    size_t done = 0;

    for (;;) {
        struct msghdr m = {.msg_iov = piece, .msg_iovlen = skip(iov, count, done, piece)};
        ssize_t n;

        if (!m.msg_iovlen)
            return 0;
        n = out ? sendmsg(s->socket, &m, MSG_NOSIGNAL) : recvmsg(s->socket, &m, MSG_WAITALL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return gone(s);
        done += (size_t)n;
    }
}

static int share_send(struct sharedev *d, const struct host_iov *iov, unsigned n)
{
    return transfer(container_of(d, struct share, dev), iov, n, true);
}

/* The kernel takes so little in one piece or not at all. */
static int share_try_send(struct sharedev *d, const struct host_iov *iov, unsigned n)
{
    struct share *s = container_of(d, struct share, dev);
    struct iovec piece[HOST_IOV_MAX];
    struct msghdr m = {.msg_iov = piece, .msg_iovlen = skip(iov, n, 0, piece)};
    ssize_t r;

    do
        r = sendmsg(s->socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (r < 0 && errno == EINTR);
    if (r >= 0) {
        size_t all = 0;

        for (unsigned i = 0; i < n; i++)
            all += iov[i].len;
        return (size_t)r == all ? 0 : gone(s); /* half a message: the stream is broken */
    }
    return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : gone(s);
}

static int share_receive(struct sharedev *d, const struct host_iov *iov, unsigned n)
{
    return transfer(container_of(d, struct share, dev), iov, n, false);
}

static void share_shutdown(struct sharedev *d)
{
    struct share *s = container_of(d, struct share, dev);

    s->ending = true;
    shutdown(s->socket, SHUT_RDWR);
}

/* The server ends by itself when its socket does, or is killed when this process ends: nobody has
 * to wait for it. */
static void share_close(struct sharedev *d)
{
    struct share *s = container_of(d, struct share, dev);

    s->ending = true;
    close(s->socket);
    free(s);
}

static const struct sharedev_ops share_ops = {
    .send = share_send,
    .try_send = share_try_send,
    .receive = share_receive,
    .shutdown = share_shutdown,
    .close = share_close,
};

static int start(struct share *s, struct child *c, char *err, size_t err_size)
{
    int pair[2], keep[2], pid;
    struct hello h;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
        snprintf(err, err_size, "no socket: %s", strerror(errno));
        return -errno;
    }
    c->socket = keep[0] = pair[1];
    keep[1] = c->dir;
    pid = host_helper_fork("trivisor-share", keep, ARRAY_SIZE(keep), run_server, c);
    close(pair[1]);
    if (pid < 0) {
        snprintf(err, err_size, "cannot start its server: %s", strerror(-pid));
        close(pair[0]);
        return pid;
    }
    if (recv(pair[0], &h, sizeof(h), MSG_WAITALL) != sizeof(h)) {
        h.error = -ENOTCONN;
        snprintf(h.text, sizeof(h.text), "its server ended early");
    }
    if (h.error) {
        snprintf(err, err_size, "%.*s", (int)sizeof(h.text), h.text);
        close(pair[0]);
        return h.error;
    }
    s->socket = pair[0];
    return 0;
}

struct sharedev *share_open(const char *text, bool confined, char *err, size_t err_size)
{
    struct share *s = calloc(1, sizeof(*s));
    struct child c = {.confined = confined};
    const char *wrong;
    struct spec spec;
    char why[256], *host;
    int r = -ENOMEM;

    wrong = parse(text, &spec);
    if (wrong) {
        snprintf(err, err_size, "-v %s: %s", text, wrong);
        free(s);
        return NULL;
    }
    host = strndup(text, spec.host_len);
    snprintf(why, sizeof(why), "out of memory");
    if (s && host) {
        memcpy(s->tag, spec.tag, spec.tag_len);
        s->dev = (struct sharedev){.ops = &share_ops, .tag = s->tag};
        c.readonly = spec.readonly;
        c.dir = open(host, O_PATH | O_DIRECTORY | O_CLOEXEC);
        r = c.dir < 0 ? -errno : 0;
        if (r)
            snprintf(why, sizeof(why), "%s", strerror(-r));
        else
            r = start(s, &c, why, sizeof(why));
        if (c.dir >= 0)
            close(c.dir);
    }
    if (r) {
        snprintf(err, err_size, "-v %s: %s", host ? host : text, why);
        free(s);
        s = NULL;
    }
    free(host);
    return s ? &s->dev : NULL;
}
