/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on open directories. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/share/message.h"
#include "backend/share/share_priv.h"

static void do_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    int err, fd;
    struct node *n = node_get(s->nodes, ino, &err);

    if (n && node_type(n) != S_IFDIR)
        err = -ENOTDIR;
    if (!err) {
        fd = openat(node_fd(n), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        err = fd < 0 ? -errno : handle_add(s->handles, fd, HANDLE_DIR, &fi->fh);
    }
    node_put(s->nodes, n);
    if (err)
        reply_status(req, err);
    else if (fuse_reply_open(req, fi))
        handle_close(s->handles, fi->fh, HANDLE_DIR);
}

static void do_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    handle_close(server_of(req)->handles, fi->fh, HANDLE_DIR);
    reply_status(req, 0);
}

static void do_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct handle *h = handle_get(s->handles, fi->fh, HANDLE_DIR);

    (void)ino;
    if (!h) {
        reply_status(req, -EBADF);
        return;
    }
    reply_status(req, (datasync ? fdatasync(h->fd) : fsync(h->fd)) ? -errno : 0);
    handle_put(s->handles, h);
}

/* An answer as it grows. */
struct listing {
    fuse_req_t req;
    struct share_server *s;
    struct node *dir;
    bool plus; /* READDIRPLUS: with what a lookup of each name would say */
    char *out;
    size_t size, used;
};

static bool is_dot(const char *name)
{
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* false: it does not fit any more. */
static bool list_one(struct listing *l, const struct dirent64 *d)
{
    char *at = l->out + l->used;
    size_t left = l->size - l->used, n;
    struct fuse_entry_param e = {.attr_timeout = SHARE_TIMEOUT, .entry_timeout = SHARE_TIMEOUT};

    /* What there is above the share is nobody's business. */
    e.attr.st_ino =
        is_dot(d->d_name) && d->d_name[1] && node_id(l->dir) == NODE_ROOT ? NODE_ROOT : d->d_ino;
    e.attr.st_mode = DTTOIF(d->d_type);
    if (!l->plus) {
        n = fuse_add_direntry(l->req, at, left, d->d_name, &e.attr, d->d_off);
    } else {
        struct fuse_entry_param full = e;

        n = fuse_add_direntry_plus(l->req, NULL, 0, d->d_name, &e, d->d_off);
        if (n > left)
            return false;
        /* A file that is gone meanwhile is listed without a node: the guest asks if it cares. */
        if (!is_dot(d->d_name) &&
            !node_lookup(l->s->nodes, l->dir, d->d_name, &full.ino, &full.attr))
            e = full;
        n = fuse_add_direntry_plus(l->req, at, left, d->d_name, &e, d->d_off);
    }
    if (n > left)
        return false;
    l->used += n;
    return true;
}

/* The guest never saw the answer: nor the nodes in it. */
static void unlist(struct listing *l)
{
    for (size_t at = 0; l->plus && at < l->used;) {
        const struct fuse_direntplus *d = (const void *)(l->out + at);

        if (d->entry_out.nodeid)
            node_forget(l->s->nodes, d->entry_out.nodeid, 1);
        at += FUSE_DIRENTPLUS_SIZE(d);
    }
}

/*
 * Positions are the host's d_off: each answer begins where the guest says, so that what did not fit
 * is read again. About as much is read as can be answered.
 */
static int fill(struct listing *l, struct handle *h, off_t off)
{
    char raw[16384] __attribute__((aligned(8)));
    size_t want = l->plus ? l->size / 4 : l->size;

    if (want < 1024)
        want = 1024;
    if (want > sizeof(raw))
        want = sizeof(raw);
    if (lseek(h->fd, off, SEEK_SET) < 0)
        return -errno;
    for (;;) {
        ssize_t n = getdents64(h->fd, raw, want);

        if (n < 0)
            return l->used ? 0 : -errno;
        if (!n)
            return 0;
        for (ssize_t at = 0; at < n;) {
            const struct dirent64 *d = (const void *)(raw + at);

            if (!list_one(l, d))
                return l->used ? 0 : -EINVAL;
            at += d->d_reclen;
        }
    }
}

static void list_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, uint64_t fh, bool plus)
{
    struct listing l = {.req = req, .s = server_of(req), .plus = plus, .size = size};
    struct handle *h = handle_get(l.s->handles, fh, HANDLE_DIR);
    int err = 0;

    if (!h) {
        reply_status(req, -EBADF);
        return;
    }
    l.dir = node_get(l.s->nodes, ino, &err);
    l.out = malloc(size ? size : 1);
    if (!l.out && !err)
        err = -ENOMEM;
    if (!err) {
        pthread_mutex_lock(&h->seek);
        err = fill(&l, h, off);
        pthread_mutex_unlock(&h->seek);
    }
    if (err)
        reply_status(req, err);
    else if (fuse_reply_buf(req, l.out, l.used))
        unlist(&l);
    free(l.out);
    node_put(l.s->nodes, l.dir);
    handle_put(l.s->handles, h);
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                       struct fuse_file_info *fi)
{
    list_dir(req, ino, size, off, fi->fh, false);
}

static void do_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                           struct fuse_file_info *fi)
{
    list_dir(req, ino, size, off, fi->fh, true);
}

void share_dir_ops(struct fuse_lowlevel_ops *ops)
{
    ops->opendir = do_opendir;
    ops->releasedir = do_releasedir;
    ops->fsyncdir = do_fsyncdir;
    ops->readdir = do_readdir;
    ops->readdirplus = do_readdirplus;
}
