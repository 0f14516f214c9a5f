/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on the contents of files. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend/share/share_priv.h"

/*
 * Access mode, truncation and synchronous writes. Not O_APPEND: the same open file also takes the
 * guest's page cache, which has its places; appending is asked for write by write. Not O_DIRECT and
 * O_NOATIME, which make demands on buffers and ownership. Never blocks on what is no regular file.
 */
int open_flags(int flags)
{
    return (flags & (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC)) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
}

int open_node(struct node *n, int flags)
{
    char path[FD_PATH_SIZE];
    int fd;

    if (node_type(n) == S_IFDIR)
        return -EISDIR;
    /* Links and special files are the guest kernel's to open, not ours. */
    if (node_type(n) != S_IFREG)
        return node_type(n) == S_IFLNK ? -ELOOP : -ENXIO;
    fd = open(fd_path(node_fd(n), path), open_flags(flags));
    return fd < 0 ? -errno : fd;
}

/* Whether an open with these flags can change the file. Access mode 3 is for ioctls on devices. */
static bool opens_to_change(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct node *n = NULL;
    struct node_key key;
    struct stat st;
    int err = 0, fd;

    if ((fi->flags & O_ACCMODE) == O_ACCMODE)
        err = -EINVAL;
    else if (s->readonly && opens_to_change(fi->flags))
        err = -EROFS;
    else
        n = node_get(s->nodes, ino, &err);
    if (n) {
        fd = open_node(n, fi->flags);
        if (fd < 0) {
            err = fd;
        } else {
            /* What the guest has cached of an unchanged file is good. */
            fi->keep_cache = !node_stat(fd, &st, &key) && node_unchanged(s->nodes, n, &st);
            err = handle_add(s->handles, fd, HANDLE_FILE, &fi->fh);
        }
        node_put(s->nodes, n);
    }
    if (err)
        reply_status(req, err);
    else if (fuse_reply_open(req, fi))
        handle_close(s->handles, fi->fh, HANDLE_FILE);
}

static void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    handle_close(server_of(req)->handles, fi->fh, HANDLE_FILE);
    reply_status(req, 0);
}

/* The open file of a request, held. NULL: it was answered. */
static struct handle *get_file(fuse_req_t req, const struct fuse_file_info *fi)
{
    struct handle *h = handle_get(server_of(req)->handles, fi->fh, HANDLE_FILE);

    if (!h)
        reply_status(req, -EBADF);
    return h;
}

static struct handle *get_file_to_change(fuse_req_t req, const struct fuse_file_info *fi)
{
    if (!server_of(req)->readonly)
        return get_file(req, fi);
    reply_status(req, -EROFS);
    return NULL;
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct handle *h = get_file(req, fi);
    ssize_t n;

    (void)ino;
    if (!h)
        return;
    n = pread(h->fd, share_buffer, size, off); /* message.c has looked at size */
    if (n < 0)
        reply_status(req, -errno);
    else
        fuse_reply_buf(req, share_buffer, (size_t)n);
    handle_put(s->handles, h);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
                     struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct handle *h = get_file_to_change(req, fi);
    struct iovec iov = {.iov_base = (char *)(uintptr_t)data, .iov_len = size};
    /* Pages of the guest's cache go where they belong, whatever they were opened with. */
    bool append = (fi->flags & O_APPEND) && !fi->writepage;
    ssize_t n;

    (void)ino;
    if (!h)
        return;
    n = append ? pwritev2(h->fd, &iov, 1, off, RWF_APPEND) : pwrite(h->fd, data, size, off);
    if (n < 0)
        reply_status(req, -errno);
    else
        fuse_reply_write(req, (size_t)n);
    handle_put(s->handles, h);
}

/* Closing a copy makes a network file system or a quota say what is wrong, as close(2) would. */
static void do_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct handle *h = get_file(req, fi);
    int fd;

    (void)ino;
    if (!h)
        return;
    fd = fcntl(h->fd, F_DUPFD_CLOEXEC, 0);
    reply_status(req, fd < 0 || close(fd) ? -errno : 0);
    handle_put(s->handles, h);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct handle *h = get_file(req, fi);

    (void)ino;
    if (!h)
        return;
    reply_status(req, (datasync ? fdatasync(h->fd) : fsync(h->fd)) ? -errno : 0);
    handle_put(s->handles, h);
}

static void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                         struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct handle *h = get_file_to_change(req, fi);

    (void)ino;
    if (!h)
        return;
    reply_status(req, fallocate(h->fd, mode, off, len) ? -errno : 0);
    handle_put(s->handles, h);
}

/* The rest of lseek is the guest's own business. */
static void do_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
                     struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct handle *h;
    off_t r;

    (void)ino;
    if (whence != SEEK_DATA && whence != SEEK_HOLE) {
        reply_status(req, -EINVAL);
        return;
    }
    h = get_file(req, fi);
    if (!h)
        return;
    r = lseek(h->fd, off, whence);
    if (r < 0)
        reply_status(req, -errno);
    else
        fuse_reply_lseek(req, r);
    handle_put(s->handles, h);
}

/* One request copies this much at most: other requests want the thread too. Callers go on with the
 * rest. */
#define COPY_MAX (64u << 20)

static void do_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
                               struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                               struct fuse_file_info *fi_out, size_t len, int flags)
{
    struct share_server *s = server_of(req);
    struct handle *out = get_file_to_change(req, fi_out), *in;
    ssize_t n;

    (void)ino_in;
    (void)ino_out;
    if (!out)
        return;
    in = get_file(req, fi_in);
    if (in) {
        n = copy_file_range(in->fd, &off_in, out->fd, &off_out, len < COPY_MAX ? len : COPY_MAX,
                            (unsigned)flags);
        if (n < 0)
            reply_status(req, -errno);
        else
            fuse_reply_write(req, (size_t)n);
        handle_put(s->handles, in);
    }
    handle_put(s->handles, out);
}

void share_file_ops(struct fuse_lowlevel_ops *ops)
{
    ops->open = do_open;
    ops->release = do_release;
    ops->read = do_read;
    ops->write = do_write;
    ops->flush = do_flush;
    ops->fsync = do_fsync;
    ops->fallocate = do_fallocate;
    ops->lseek = do_lseek;
    ops->copy_file_range = do_copy_file_range;
}
