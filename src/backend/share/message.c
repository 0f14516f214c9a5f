/* SPDX-License-Identifier: Apache-2.0 */
/* The validator of FUSE messages: one table, opcode to shape. */
#include "backend/share/message.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* What follows the fixed arguments. */
enum tail {
    NOTHING,
    NAME,       /* a path component */
    NAME_NAME,  /* two of them */
    NAME_TEXT,  /* a path component, and a symbolic link's target */
    XATTR,      /* an attribute's name */
    XATTR_DATA, /* an attribute's name, and as many bytes as fuse_setxattr_in.size says */
    DATA,       /* as many bytes as fuse_write_in.size says */
    FORGETS,    /* as many fuse_forget_one as fuse_batch_forget_in.count says */
    INIT,       /* fuse_init_in has grown over time */
};

struct shape {
    bool served;
    u8 args; /* bytes of fixed arguments */
    u8 tail;
};

#define ARGS(type) sizeof(struct type)

/* Without FUSE_SETXATTR_EXT, which is not negotiated, the argument is the first two fields. */
_Static_assert(FUSE_COMPAT_SETXATTR_IN_SIZE == 8, "fuse_setxattr_in");

_Static_assert(SHAREDEV_REQUEST_MAX ==
                   sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in) + SHAREDEV_DATA_MAX,
               "the longest request is a WRITE");
_Static_assert(SHAREDEV_REPLY_MAX == sizeof(struct fuse_out_header) + SHAREDEV_DATA_MAX,
               "the longest reply is to a READ");

static const struct shape shapes[] = {
    [FUSE_LOOKUP] = {true, 0, NAME},
    [FUSE_FORGET] = {true, ARGS(fuse_forget_in), NOTHING},
    [FUSE_GETATTR] = {true, ARGS(fuse_getattr_in), NOTHING},
    [FUSE_SETATTR] = {true, ARGS(fuse_setattr_in), NOTHING},
    [FUSE_READLINK] = {true, 0, NOTHING},
    [FUSE_SYMLINK] = {true, 0, NAME_TEXT},
    [FUSE_MKNOD] = {true, ARGS(fuse_mknod_in), NAME},
    [FUSE_MKDIR] = {true, ARGS(fuse_mkdir_in), NAME},
    [FUSE_UNLINK] = {true, 0, NAME},
    [FUSE_RMDIR] = {true, 0, NAME},
    [FUSE_RENAME] = {true, ARGS(fuse_rename_in), NAME_NAME},
    [FUSE_LINK] = {true, ARGS(fuse_link_in), NAME},
    [FUSE_OPEN] = {true, ARGS(fuse_open_in), NOTHING},
    [FUSE_READ] = {true, ARGS(fuse_read_in), NOTHING},
    [FUSE_WRITE] = {true, ARGS(fuse_write_in), DATA},
    [FUSE_STATFS] = {true, 0, NOTHING},
    [FUSE_RELEASE] = {true, ARGS(fuse_release_in), NOTHING},
    [FUSE_FSYNC] = {true, ARGS(fuse_fsync_in), NOTHING},
    [FUSE_SETXATTR] = {true, FUSE_COMPAT_SETXATTR_IN_SIZE, XATTR_DATA},
    [FUSE_GETXATTR] = {true, ARGS(fuse_getxattr_in), XATTR},
    [FUSE_LISTXATTR] = {true, ARGS(fuse_getxattr_in), NOTHING},
    [FUSE_REMOVEXATTR] = {true, 0, XATTR},
    [FUSE_FLUSH] = {true, ARGS(fuse_flush_in), NOTHING},
    [FUSE_INIT] = {true, 0, INIT},
    [FUSE_OPENDIR] = {true, ARGS(fuse_open_in), NOTHING},
    [FUSE_READDIR] = {true, ARGS(fuse_read_in), NOTHING},
    [FUSE_RELEASEDIR] = {true, ARGS(fuse_release_in), NOTHING},
    [FUSE_FSYNCDIR] = {true, ARGS(fuse_fsync_in), NOTHING},
    [FUSE_CREATE] = {true, ARGS(fuse_create_in), NAME},
    [FUSE_DESTROY] = {true, 0, NOTHING},
    [FUSE_BATCH_FORGET] = {true, ARGS(fuse_batch_forget_in), FORGETS},
    [FUSE_FALLOCATE] = {true, ARGS(fuse_fallocate_in), NOTHING},
    [FUSE_READDIRPLUS] = {true, ARGS(fuse_read_in), NOTHING},
    [FUSE_RENAME2] = {true, ARGS(fuse_rename2_in), NAME_NAME},
    [FUSE_LSEEK] = {true, ARGS(fuse_lseek_in), NOTHING},
    [FUSE_COPY_FILE_RANGE] = {true, ARGS(fuse_copy_file_range_in), NOTHING},
};

bool message_wants_reply(u32 opcode)
{
    return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT;
}

int message_check_name(const char *name, size_t len)
{
    if (len > NAME_MAX)
        return -ENAMETOOLONG;
    if (!len || memchr(name, '/', len) || memchr(name, '\0', len))
        return -EINVAL;
    if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
        return -EINVAL;
    return 0;
}

/* Takes one string off the front of what is left. Its length, or -EINVAL. */
static int take_string(const char **at, size_t *left, const char **s)
{
    const char *end = memchr(*at, '\0', *left);
    size_t len;

    if (!end)
        return -EINVAL;
    *s = *at;
    len = (size_t)(end - *at);
    *at += len + 1;
    *left -= len + 1;
    return (int)len;
}

static int take_name(const char **at, size_t *left)
{
    const char *name;
    int len = take_string(at, left, &name);

    return len < 0 ? len : message_check_name(name, (size_t)len);
}

static int take_text(const char **at, size_t *left, int max)
{
    const char *text;
    int len = take_string(at, left, &text);

    if (len < 0)
        return len;
    return len == 0 ? -EINVAL : len > max ? -ENAMETOOLONG : 0;
}

/* libfuse reads the flags of INIT's second half when the first half says so. */
static int check_init(const struct fuse_init_in *in, size_t len)
{
    if (len < offsetof(struct fuse_init_in, flags) + sizeof(in->flags))
        return -EINVAL;
    if (in->major != FUSE_KERNEL_VERSION || in->minor < SHARE_MINOR_MIN)
        return -EPROTO;
    return (in->flags & FUSE_INIT_EXT) && len < sizeof(*in) ? -EINVAL : 0;
}

static int check_tail(enum tail tail, const void *args, const char *at, size_t left)
{
    int r = 0;

    switch (tail) {
    case NOTHING:
        break;
    case INIT:
        return check_init(args, left);
    case NAME:
        r = take_name(&at, &left);
        break;
    case NAME_NAME:
        r = take_name(&at, &left);
        if (!r)
            r = take_name(&at, &left);
        break;
    case NAME_TEXT:
        r = take_name(&at, &left);
        if (!r)
            r = take_text(&at, &left, PATH_MAX - 1);
        break;
    case XATTR:
        r = take_text(&at, &left, XATTR_NAME_MAX);
        break;
    case XATTR_DATA:
        r = take_text(&at, &left, XATTR_NAME_MAX);
        if (!r)
            return left == ((const struct fuse_setxattr_in *)args)->size ? 0 : -EINVAL;
        break;
    case DATA:
        return left == ((const struct fuse_write_in *)args)->size ? 0 : -EINVAL;
    case FORGETS:
        return left == (u64)((const struct fuse_batch_forget_in *)args)->count *
                           sizeof(struct fuse_forget_one)
                   ? 0
                   : -EINVAL;
    }
    return r ? r : left ? -EINVAL : 0;
}

int message_check(const void *m, size_t len)
{
    const struct fuse_in_header *h = m;
    const struct shape *s;
    const char *args = (const char *)m + sizeof(*h);
    size_t left;

    if (len < sizeof(*h) || len > SHAREDEV_REQUEST_MAX || h->len != len)
        return -EINVAL;
    if (h->opcode >= ARRAY_SIZE(shapes) || !shapes[h->opcode].served)
        return -ENOSYS;
    s = &shapes[h->opcode];
    left = len - sizeof(*h);
    if (left < s->args)
        return -EINVAL;
    /* Replies are no longer than what the other side makes room for. */
    if ((h->opcode == FUSE_READ || h->opcode == FUSE_READDIR || h->opcode == FUSE_READDIRPLUS) &&
        ((const struct fuse_read_in *)(const void *)args)->size > SHAREDEV_DATA_MAX)
        return -EINVAL;
    return check_tail((enum tail)s->tail, args, args + s->args, left - s->args);
}
