/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on names. A name is one component (message.c saw to it) in a directory that is a
 * descriptor, and no call here follows a symbolic link: links are the guest's to resolve, in its
 * own view of the tree.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/share/share_priv.h"

const char *fd_path(int fd, char *buf)
{
    snprintf(buf, FD_PATH_SIZE, "/proc/self/fd/%d", fd);
    return buf;
}

mode_t safe_mode(mode_t mode, mode_t type)
{
    mode &= 07777;
    return type == S_IFDIR ? mode & ~(mode_t)S_ISUID : mode & ~(mode_t)(S_ISUID | S_ISGID);
}

static int find_entry(struct share_server *s, struct node *dir, const char *name,
                      struct fuse_entry_param *e)
{
    *e = (struct fuse_entry_param){.attr_timeout = SHARE_TIMEOUT, .entry_timeout = SHARE_TIMEOUT};
    return node_lookup(s->nodes, dir, name, &e->ino, &e->attr);
}

void reply_entry(fuse_req_t req, struct node *dir, const char *name)
{
    struct share_server *s = server_of(req);
    struct fuse_entry_param e;
    int err = find_entry(s, dir, name, &e);

    /* An answer that did not go out is an entry the guest does not know of. */
    if (err)
        reply_status(req, err);
    else if (fuse_reply_entry(req, &e))
        node_forget(s->nodes, e.ino, 1);
}

/* The directory a request is about, held. NULL: it was answered. */
static struct node *get_dir(fuse_req_t req, fuse_ino_t ino, bool to_change)
{
    struct share_server *s = server_of(req);
    struct node *dir;
    int err;

    if (to_change && s->readonly) {
        reply_status(req, -EROFS);
        return NULL;
    }
    dir = node_get(s->nodes, ino, &err);
    if (dir && node_type(dir) != S_IFDIR) {
        node_put(s->nodes, dir);
        dir = NULL;
        err = -ENOTDIR;
    }
    if (!dir)
        reply_status(req, err);
    return dir;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct share_server *s = server_of(req);
    struct node *dir = get_dir(req, parent, false);

    if (!dir)
        return;
    reply_entry(req, dir, name);
    node_put(s->nodes, dir);
}

static void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    node_forget(server_of(req)->nodes, ino, n);
    fuse_reply_none(req);
}

static void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *f)
{
    for (size_t i = 0; i < count; i++)
        node_forget(server_of(req)->nodes, f[i].ino, f[i].nlookup);
    fuse_reply_none(req);
}

/* A file was just made: its owner, where that is ours to say. A directory with the set-group-ID
 * bit says the group. */
static void give_away(const struct share_server *s, const struct fuse_ctx *ctx,
                      const struct node *dir, const char *name)
{
    struct node_key key;
    struct stat st;

    if (!s->chown_new || node_stat(node_fd(dir), &st, &key))
        return;
    /* Failure leaves it the process's user's. */
    if (fchownat(node_fd(dir), name, ctx->uid, st.st_mode & S_ISGID ? (gid_t)-1 : ctx->gid,
                 AT_SYMLINK_NOFOLLOW))
        return;
}

/* The end of every operation that made `name`. */
static void made(fuse_req_t req, struct share_server *s, struct node *dir, const char *name,
                 int err)
{
    struct fuse_ctx ctx = *fuse_req_ctx(req);

    if (err) {
        reply_status(req, err);
    } else {
        give_away(s, &ctx, dir, name);
        reply_entry(req, dir, name);
    }
    node_put(s->nodes, dir);
}

static void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct share_server *s = server_of(req);
    struct node *dir = get_dir(req, parent, true);

    if (dir)
        made(req, s, dir, name, mkdirat(node_fd(dir), name, safe_mode(mode, S_IFDIR)) ? -errno : 0);
}

/* No devices: a guest's device numbers mean the host's devices on the host. */
static void do_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct share_server *s = server_of(req);
    mode_t type = mode & S_IFMT;
    struct node *dir = get_dir(req, parent, true);
    int err = 0;

    (void)rdev;
    if (!dir)
        return;
    if (type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
        err = -EPERM;
    else if (mknodat(node_fd(dir), name, type | safe_mode(mode, type), 0))
        err = -errno;
    made(req, s, dir, name, err);
}

static void do_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct share_server *s = server_of(req);
    struct node *dir = get_dir(req, parent, true);

    if (dir)
        made(req, s, dir, name, symlinkat(target, node_fd(dir), name) ? -errno : 0);
}

static void do_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    struct share_server *s = server_of(req);
    struct node *dir = get_dir(req, parent, true), *n;
    char path[FD_PATH_SIZE];
    int err;

    if (!dir)
        return;
    n = node_get(s->nodes, ino, &err);
    /* AT_EMPTY_PATH would need a capability. */
    if (n && linkat(AT_FDCWD, fd_path(node_fd(n), path), node_fd(dir), name, AT_SYMLINK_FOLLOW))
        err = -errno;
    if (err)
        reply_status(req, err);
    else
        reply_entry(req, dir, name);
    node_put(s->nodes, n);
    node_put(s->nodes, dir);
}

static void do_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct share_server *s = server_of(req);
    char target[PATH_MAX];
    int err;
    struct node *n = node_get(s->nodes, ino, &err);
    ssize_t len = 0;

    if (n && node_type(n) != S_IFLNK)
        err = -EINVAL;
    if (!err) {
        len = readlinkat(node_fd(n), "", target, sizeof(target));
        err = len < 0 ? -errno : len == sizeof(target) ? -ENAMETOOLONG : 0;
    }
    node_put(s->nodes, n);
    if (err) {
        reply_status(req, err);
        return;
    }
    target[len] = '\0';
    fuse_reply_readlink(req, target);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, int flags)
{
    struct share_server *s = server_of(req);
    struct node *dir = get_dir(req, parent, true), *n;
    int err;

    if (!dir)
        return;
    n = node_named(s->nodes, dir, name, true);
    err = unlinkat(node_fd(dir), name, flags) ? -errno : 0;
    /* It has its name still. */
    if (err && n)
        node_renamed(s->nodes, n, dir, name);
    reply_status(req, err);
    node_put(s->nodes, n);
    node_put(s->nodes, dir);
}

static void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, 0);
}

static void do_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, AT_REMOVEDIR);
}

static int move(struct share_server *s, struct node *from, const char *name, struct node *to,
                const char *newname, unsigned flags)
{
    bool exchange = flags & RENAME_EXCHANGE;
    struct node *n = node_named(s->nodes, from, name, false);
    struct node *victim = node_named(s->nodes, to, newname, !exchange);
    int err = 0;

    if (renameat2(node_fd(from), name, node_fd(to), newname, flags))
        err = -errno;
    if (!err && n)
        node_renamed(s->nodes, n, to, newname);
    if (victim && (err || exchange))
        node_renamed(s->nodes, victim, err ? to : from, err ? newname : name);
    node_put(s->nodes, n);
    node_put(s->nodes, victim);
    return err;
}

static void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
                      const char *newname, unsigned flags)
{
    struct share_server *s = server_of(req);
    struct node *from = get_dir(req, parent, true), *to;

    if (!from)
        return;
    to = get_dir(req, newparent, true);
    if (to)
        /* A whiteout is a device node. */
        reply_status(req, flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)
                              ? -EINVAL
                              : move(s, from, name, to, newname, flags));
    node_put(s->nodes, to);
    node_put(s->nodes, from);
}

/* Makes and opens `name`, or opens the file that is there: a descriptor or -errno, and the entry,
 * with one reference more, when it is a descriptor. O_EXCL, because opening what is no regular
 * file, a device say, would have effects; what is there is looked at first. */
static int create_or_open(struct share_server *s, const struct fuse_ctx *ctx, struct node *dir,
                          const char *name, mode_t mode, int flags, struct fuse_entry_param *e)
{
    int fd = openat(node_fd(dir), name, open_flags(flags) | O_CREAT | O_EXCL | O_NOFOLLOW,
                    safe_mode(mode, S_IFREG));
    int err = fd < 0 ? -errno : 0;

    if (!err)
        give_away(s, ctx, dir, name);
    else if (err != -EEXIST || (flags & O_EXCL))
        return err;
    err = find_entry(s, dir, name, e);
    if (!err && fd < 0) {
        struct node *n = node_get(s->nodes, e->ino, &err);

        if (n)
            fd = open_node(n, flags);
        if (!err && fd < 0)
            err = fd;
        node_put(s->nodes, n);
        if (err)
            node_forget(s->nodes, e->ino, 1);
    }
    if (err && fd >= 0)
        close(fd);
    return err ? err : fd;
}

static void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct fuse_entry_param e;
    struct fuse_ctx ctx = *fuse_req_ctx(req);
    struct node *dir = get_dir(req, parent, true);
    int r;

    if (!dir)
        return;
    r = create_or_open(s, &ctx, dir, name, mode, fi->flags, &e);
    if (r >= 0) {
        r = handle_add(s->handles, r, HANDLE_FILE, &fi->fh);
        if (r)
            node_forget(s->nodes, e.ino, 1);
    }
    if (r) {
        reply_status(req, r);
    } else if (fuse_reply_create(req, &e, fi)) {
        handle_close(s->handles, fi->fh, HANDLE_FILE);
        node_forget(s->nodes, e.ino, 1);
    }
    node_put(s->nodes, dir);
}

void share_name_ops(struct fuse_lowlevel_ops *ops)
{
    ops->lookup = do_lookup;
    ops->forget = do_forget;
    ops->forget_multi = do_forget_multi;
    ops->mkdir = do_mkdir;
    ops->mknod = do_mknod;
    ops->symlink = do_symlink;
    ops->link = do_link;
    ops->readlink = do_readlink;
    ops->unlink = do_unlink;
    ops->rmdir = do_rmdir;
    ops->rename = do_rename;
    ops->create = do_create;
}
