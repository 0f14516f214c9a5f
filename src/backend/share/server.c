/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests from the socket through the validator to libfuse, and its answers back. Every thread
 * takes one request at a time, so as many are worked on as there are threads.
 */
#include "backend/share/server.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/share/message.h"
#include "backend/share/share_priv.h"
#include "base/bits.h"

/* Requests the guest's kernel may have under way that no process waits for (readahead). */
#define BACKGROUND_MAX 64

struct server {
    struct share_server fs; /* first: libfuse's userdata */
    int socket;
    pthread_mutex_t receiving, sending;
    /* Requests hold it for reading, beginning and end of a session for writing. */
    pthread_rwlock_t session_lock;
    struct fuse_session *session;
    bool begun; /* INIT was answered; session_lock */
};

__thread char *share_buffer;

/* The request this thread is at. */
static __thread struct {
    u64 unique;
    u32 opcode, init_flags;
    bool answered;
} now;

/* --- the socket ----------------------------------------------------------------------------------
 */

/* All of buf. false: the other end is gone. */
static bool receive(struct server *s, void *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = recv(s->socket, (char *)buf + done, len - done, MSG_WAITALL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

/* One request into buf (SHAREDEV_REQUEST_MAX bytes); its length, or 0: the end. */
static size_t receive_request(struct server *s, void *buf)
{
    struct fuse_in_header *h = buf;
    size_t len = 0;

    pthread_mutex_lock(&s->receiving);
    if (receive(s, h, sizeof(*h))) {
        /* The monitor does not send such, and where the next one begins nobody knows. */
        if (h->len < sizeof(*h) || h->len > SHAREDEV_REQUEST_MAX)
            shutdown(s->socket, SHUT_RDWR);
        else if (receive(s, h + 1, h->len - sizeof(*h)))
            len = h->len;
    }
    pthread_mutex_unlock(&s->receiving);
    return len;
}

/* Sends all of iov, which is used up. */
static bool send_all(struct server *s, struct iovec *iov, int count)
{
    bool good = true;

    pthread_mutex_lock(&s->sending);
    while (count && good) {
        struct msghdr m = {.msg_iov = iov, .msg_iovlen = (size_t)count};
        ssize_t n = sendmsg(s->socket, &m, MSG_NOSIGNAL);

        if (n < 0) {
            good = errno == EINTR;
            continue;
        }
        while (count && (size_t)n >= iov->iov_len) {
            n -= (ssize_t)iov->iov_len;
            iov++;
            count--;
        }
        if (count) {
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    pthread_mutex_unlock(&s->sending);
    return good;
}

static void send_error(struct server *s, int err)
{
    struct fuse_out_header h = {.len = sizeof(h), .error = err, .unique = now.unique};
    struct iovec iov = {&h, sizeof(h)};

    send_all(s, &iov, 1);
}

/*
 * What libfuse 3.14 does not say for us in INIT's answer, of what the guest offers:
 * - look-ups and listings of one directory may go on at once: it knows the flag but drops it;
 * - writing takes set-user-ID away by itself: the host's kernel sees to that, as this process has
 * no CAP_FSETID. Without it the guest asks for security.capability before every write.
 */
static void complete_init(struct iovec *iov, int count)
{
    struct fuse_init_out *out = count == 2 ? iov[1].iov_base : NULL;
    u32 ours = FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2;

    if (out && iov[1].iov_len >= offsetof(struct fuse_init_out, flags) + sizeof(out->flags))
        out->flags |= now.init_flags & ours;
}

/* libfuse's way out: one reply. ENOENT is the error it says nothing about. */
static ssize_t reply(int fd, struct iovec *iov, int count, void *opaque)
{
    const struct fuse_out_header *h = iov[0].iov_base;
    size_t len = h->len;

    (void)fd;
    /* Only what was asked for: it answers a FORGET too when it has no memory. */
    if (h->unique != now.unique || !message_wants_reply(now.opcode) || now.answered)
        return (ssize_t)len;
    now.answered = true;
    if (now.opcode == FUSE_INIT && !h->error)
        complete_init(iov, count);
    if (send_all(opaque, iov, count))
        return (ssize_t)len;
    errno = ENOENT;
    return -1;
}

/* Requests are brought to libfuse; it does not read. */
static ssize_t no_read(int fd, void *buf, size_t len, void *opaque)
{
    (void)fd;
    (void)buf;
    (void)len;
    (void)opaque;
    errno = EIO;
    return -1;
}

static void no_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
    (void)level;
    (void)fmt;
    (void)ap;
}

/* --- sessions ------------------------------------------------------------------------------------
 */

static void on_init(void *opaque, struct fuse_conn_info *conn)
{
    struct server *s = opaque;

    s->begun = true;
    conn->max_write = SHAREDEV_DATA_MAX;
    conn->max_background = BACKGROUND_MAX;
    conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
}

static int new_session(struct server *s)
{
    static const struct fuse_custom_io io = {.writev = reply, .read = no_read};
    struct fuse_lowlevel_ops ops = {.init = on_init};
    char name[] = "trivisor", *argv[] = {name, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    int fd;

    share_name_ops(&ops);
    share_file_ops(&ops);
    share_dir_ops(&ops);
    share_attr_ops(&ops);
    fuse_set_log_func(no_log);
    s->session = fuse_session_new(&args, &ops, sizeof(ops), s);
    fuse_opt_free_args(&args);
    if (!s->session)
        return -ENOMEM;
    /* The session closes its descriptor. */
    fd = fcntl(s->socket, F_DUPFD_CLOEXEC, 0);
    if (fd < 0 || fuse_session_custom_io(s->session, &io, fd)) {
        int err = fd < 0 ? -errno : -ENOMEM;

        if (fd >= 0)
            close(fd);
        fuse_session_destroy(s->session);
        s->session = NULL;
        return err;
    }
    return 0;
}

/* The guest mounts it, for the first time or again after a reset: it knows nothing of before. */
static int begin(struct server *s)
{
    if (!s->begun && s->session)
        return 0;
    if (s->session)
        fuse_session_destroy(s->session);
    s->session = NULL;
    s->begun = false;
    handles_clear(s->fs.handles);
    nodes_clear(s->fs.nodes);
    return new_session(s);
}

static void process(struct server *s, void *m, size_t len)
{
    struct fuse_buf buf = {.size = len, .mem = m};

    fuse_session_process_buf(s->session, &buf);
}

/* 0, or the error to answer with. */
static int dispatch(struct server *s, void *m, size_t len)
{
    const struct fuse_in_header *h = m;
    int err = message_check(m, len);

    if (err)
        return err;
    if (h->opcode == FUSE_INIT) {
        now.init_flags = ((const struct fuse_init_in *)(const void *)(h + 1))->flags;
        pthread_rwlock_wrlock(&s->session_lock);
        err = begin(s);
        if (!err)
            process(s, m, len);
    } else if (h->opcode == FUSE_DESTROY) {
        pthread_rwlock_wrlock(&s->session_lock);
        if (s->begun)
            process(s, m, len);
        err = begin(s);
    } else {
        pthread_rwlock_rdlock(&s->session_lock);
        if (s->begun)
            process(s, m, len);
        else
            err = -EIO;
    }
    pthread_rwlock_unlock(&s->session_lock);
    return err;
}

static void handle_request(struct server *s, void *m, size_t len)
{
    const struct fuse_in_header *h = m;
    int err;

    now.unique = h->unique;
    now.opcode = h->opcode;
    now.answered = false;
    err = dispatch(s, m, len);
    /* Nothing that wants an answer stays without one. */
    if (!now.answered && message_wants_reply(now.opcode))
        send_error(s, err ? err : -EIO);
}

void server_run(struct server *s)
{
    void *m = malloc(SHAREDEV_REQUEST_MAX);
    size_t len;

    share_buffer = malloc(SHAREDEV_DATA_MAX);
    while (m && share_buffer && (len = receive_request(s, m)) != 0)
        handle_request(s, m, len);
    free(share_buffer);
    free(m);
}

/* --- life cycle ----------------------------------------------------------------------------------
 */

struct server *server_create(const struct server_config *cfg, int *err)
{
    struct node_limits limits = {.nodes = cfg->nodes, .fds = cfg->node_fds};
    struct server *s = calloc(1, sizeof(*s));

    *err = -ENOMEM;
    if (!s)
        return NULL;
    s->socket = cfg->socket;
    s->fs.readonly = cfg->readonly;
    s->fs.chown_new = cfg->chown_new;
    pthread_mutex_init(&s->receiving, NULL);
    pthread_mutex_init(&s->sending, NULL);
    pthread_rwlock_init(&s->session_lock, NULL);
    s->fs.handles = handles_create(cfg->files);
    if (s->fs.handles)
        s->fs.nodes = nodes_create(cfg->dir, &limits, err);
    if (s->fs.nodes)
        *err = new_session(s);
    if (*err) {
        server_destroy(s);
        return NULL;
    }
    return s;
}

void server_destroy(struct server *s)
{
    if (s->session)
        fuse_session_destroy(s->session);
    handles_destroy(s->fs.handles);
    nodes_destroy(s->fs.nodes);
    pthread_rwlock_destroy(&s->session_lock);
    pthread_mutex_destroy(&s->sending);
    pthread_mutex_destroy(&s->receiving);
    free(s);
}

struct node_table *server_nodes(struct server *s)
{
    return s->fs.nodes;
}
