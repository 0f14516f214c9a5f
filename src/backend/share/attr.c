/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on attributes, the extended ones too, and on the file system as a whole. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "backend/share/share_priv.h"

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct handle *h = fi ? handle_get(s->handles, fi->fh, HANDLE_FILE) : NULL;
    struct node_key key;
    struct stat st;
    int err = 0;

    if (h) {
        err = node_stat(h->fd, &st, &key);
        handle_put(s->handles, h);
    } else {
        struct node *n = node_get(s->nodes, ino, &err);

        if (n)
            err = node_stat(node_fd(n), &st, &key);
        node_put(s->nodes, n);
    }
    if (err)
        reply_status(req, err);
    else
        fuse_reply_attr(req, &st, SHARE_TIMEOUT);
}

static int set_mode(struct node *n, mode_t mode)
{
    char path[FD_PATH_SIZE];

    if (node_type(n) == S_IFLNK)
        return -EOPNOTSUPP;
    return chmod(fd_path(node_fd(n), path), safe_mode(mode, node_type(n))) ? -errno : 0;
}

static int set_size(struct share_server *s, struct node *n, off_t size,
                    const struct fuse_file_info *fi)
{
    struct handle *h = fi ? handle_get(s->handles, fi->fh, HANDLE_FILE) : NULL;
    int err, fd;

    if (h) {
        err = ftruncate(h->fd, size) ? -errno : 0;
        handle_put(s->handles, h);
        return err;
    }
    fd = open_node(n, O_WRONLY);
    if (fd < 0)
        return fd == -ENXIO || fd == -ELOOP ? -EINVAL : fd;
    err = ftruncate(fd, size) ? -errno : 0;
    close(fd);
    return err;
}

static int set_owner(struct node *n, const struct stat *attr, int valid)
{
    uid_t uid = valid & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1;
    gid_t gid = valid & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1;

    return fchownat(node_fd(n), "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

static int set_times(struct node *n, const struct stat *attr, int valid)
{
    struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
    char path[FD_PATH_SIZE];

    if (valid & FUSE_SET_ATTR_ATIME_NOW)
        t[0].tv_nsec = UTIME_NOW;
    else if (valid & FUSE_SET_ATTR_ATIME)
        t[0] = attr->st_atim;
    if (valid & FUSE_SET_ATTR_MTIME_NOW)
        t[1].tv_nsec = UTIME_NOW;
    else if (valid & FUSE_SET_ATTR_MTIME)
        t[1] = attr->st_mtim;
    /* The path of a link's descriptor leads to the link itself, and a link has times too. */
    return utimensat(AT_FDCWD, fd_path(node_fd(n), path), t, 0) ? -errno : 0;
}

#define SET_OWNER (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)
#define SET_TIMES                                                                                  \
    (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)

static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int valid,
                       struct fuse_file_info *fi)
{
    struct share_server *s = server_of(req);
    struct node_key key;
    struct stat st;
    struct node *n = NULL;
    int err = s->readonly ? -EROFS : 0;

    if (!err)
        n = node_get(s->nodes, ino, &err);
    /* The owner first: changing it may take permission bits away. */
    if (!err && (valid & SET_OWNER))
        err = set_owner(n, attr, valid);
    if (!err && (valid & FUSE_SET_ATTR_MODE))
        err = set_mode(n, attr->st_mode);
    if (!err && (valid & FUSE_SET_ATTR_SIZE))
        err = set_size(s, n, attr->st_size, fi);
    if (!err && (valid & SET_TIMES))
        err = set_times(n, attr, valid);
    if (!err)
        err = node_stat(node_fd(n), &st, &key);
    node_put(s->nodes, n);
    if (err)
        reply_status(req, err);
    else
        fuse_reply_attr(req, &st, SHARE_TIMEOUT);
}

static void do_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct share_server *s = server_of(req);
    struct statvfs st;
    int err;
    struct node *n = node_get(s->nodes, ino, &err);

    if (n && fstatvfs(node_fd(n), &st))
        err = -errno;
    node_put(s->nodes, n);
    if (err)
        reply_status(req, err);
    else
        fuse_reply_statfs(req, &st);
}

/* --- extended attributes -------------------------------------------------------------------------
 *
 * The user's only: the others (security.capability, POSIX ACLs, trusted) mean rights on the host.
 */

#define USER_PREFIX "user."

static bool is_users(const char *name)
{
    return !strncmp(name, USER_PREFIX, sizeof(USER_PREFIX) - 1);
}

/* The node of a request on its attributes, which regular files and directories have, held. */
static struct node *get_for_xattr(struct share_server *s, fuse_ino_t ino, int *err)
{
    struct node *n = node_get(s->nodes, ino, err);

    if (n && node_type(n) != S_IFREG && node_type(n) != S_IFDIR) {
        node_put(s->nodes, n);
        *err = -EOPNOTSUPP;
        return NULL;
    }
    return n;
}

static void do_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                        size_t size, int flags)
{
    struct share_server *s = server_of(req);
    char path[FD_PATH_SIZE];
    struct node *n = NULL;
    int err = s->readonly ? -EROFS : is_users(name) ? 0 : -EOPNOTSUPP;

    if (!err)
        n = get_for_xattr(s, ino, &err);
    if (n && setxattr(fd_path(node_fd(n), path), name, value, size, flags))
        err = -errno;
    node_put(s->nodes, n);
    reply_status(req, err);
}

static void do_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct share_server *s = server_of(req);
    char path[FD_PATH_SIZE];
    struct node *n = NULL;
    int err = s->readonly ? -EROFS : is_users(name) ? 0 : -EOPNOTSUPP;

    if (!err)
        n = get_for_xattr(s, ino, &err);
    if (n && removexattr(fd_path(node_fd(n), path), name))
        err = -errno;
    node_put(s->nodes, n);
    reply_status(req, err);
}

/* The answer to getxattr and listxattr: the size when size is 0, the data when it fits. */
static void reply_xattr(fuse_req_t req, const char *data, ssize_t len, size_t size)
{
    if (!size)
        fuse_reply_xattr(req, (size_t)len);
    else if ((size_t)len > size)
        reply_status(req, -ERANGE);
    else
        fuse_reply_buf(req, data, (size_t)len);
}

static void do_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct share_server *s = server_of(req);
    char path[FD_PATH_SIZE];
    char *data = malloc(XATTR_SIZE_MAX);
    struct node *n = NULL;
    ssize_t len = 0;
    int err = !data ? -ENOMEM : is_users(name) ? 0 : -EOPNOTSUPP;

    if (!err)
        n = get_for_xattr(s, ino, &err);
    if (n) {
        len = getxattr(fd_path(node_fd(n), path), name, data, XATTR_SIZE_MAX);
        if (len < 0)
            err = -errno;
    }
    node_put(s->nodes, n);
    if (err)
        reply_status(req, err);
    else
        reply_xattr(req, data, len, size);
    free(data);
}

/* Leaves the users' names in a list of names, each with its NUL. The list's new length. */
static ssize_t keep_users(char *list, ssize_t len)
{
    ssize_t kept = 0;

    for (ssize_t at = 0; at < len;) {
        ssize_t one = (ssize_t)strlen(list + at) + 1;

        if (is_users(list + at)) {
            memmove(list + kept, list + at, (size_t)one);
            kept += one;
        }
        at += one;
    }
    return kept;
}

static void do_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct share_server *s = server_of(req);
    char path[FD_PATH_SIZE];
    char *list = malloc(XATTR_LIST_MAX);
    struct node *n = NULL;
    ssize_t len = 0;
    int err = list ? 0 : -ENOMEM;

    if (!err)
        n = get_for_xattr(s, ino, &err);
    if (n) {
        len = listxattr(fd_path(node_fd(n), path), list, XATTR_LIST_MAX);
        if (len < 0)
            err = -errno;
        else
            len = keep_users(list, len);
    }
    node_put(s->nodes, n);
    if (err)
        reply_status(req, err);
    else
        reply_xattr(req, list, len, size);
    free(list);
}

void share_attr_ops(struct fuse_lowlevel_ops *ops)
{
    ops->getattr = do_getattr;
    ops->setattr = do_setattr;
    ops->statfs = do_statfs;
    ops->setxattr = do_setxattr;
    ops->getxattr = do_getxattr;
    ops->listxattr = do_listxattr;
    ops->removexattr = do_removexattr;
}
