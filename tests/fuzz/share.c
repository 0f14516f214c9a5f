/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a FUSE message of a guest: through the validator, and what it lets pass through
 * libfuse to operations that touch all they are given. Memory is as long as the message.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/share/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink;

static void touch(const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sink += ((const u8 *)p)[i];
}

/* A name stays in its directory. */
static void name(const char *s)
{
    if (!*s || strlen(s) > 255 || strchr(s, '/') || !strcmp(s, ".") || !strcmp(s, ".."))
        abort();
}

static void text(const char *s)
{
    touch(s, strlen(s) + 1);
}

#define END(req) fuse_reply_err(req, EIO)

static void lookup(fuse_req_t r, fuse_ino_t d, const char *n)
{
    (void)d;
    name(n);
    END(r);
}

static void forget(fuse_req_t r, fuse_ino_t i, uint64_t n)
{
    (void)i;
    (void)n;
    fuse_reply_none(r);
}

static void forget_multi(fuse_req_t r, size_t n, struct fuse_forget_data *f)
{
    touch(f, n * sizeof(*f));
    fuse_reply_none(r);
}

static void setattr(fuse_req_t r, fuse_ino_t i, struct stat *s, int v, struct fuse_file_info *fi)
{
    (void)i;
    (void)v;
    touch(s, sizeof(*s));
    if (fi)
        touch(fi, sizeof(*fi));
    END(r);
}

static void make_node(fuse_req_t r, fuse_ino_t d, const char *n, mode_t m, dev_t rdev)
{
    (void)d;
    (void)m;
    (void)rdev;
    name(n);
    END(r);
}

static void make_dir(fuse_req_t r, fuse_ino_t d, const char *n, mode_t m)
{
    (void)d;
    (void)m;
    name(n);
    END(r);
}

static void make_link(fuse_req_t r, const char *target, fuse_ino_t d, const char *n)
{
    (void)d;
    text(target);
    name(n);
    END(r);
}

static void move(fuse_req_t r, fuse_ino_t d, const char *n, fuse_ino_t d2, const char *n2,
                 unsigned flags)
{
    (void)d;
    (void)d2;
    (void)flags;
    name(n);
    name(n2);
    END(r);
}

static void link_to(fuse_req_t r, fuse_ino_t i, fuse_ino_t d, const char *n)
{
    (void)i;
    (void)d;
    name(n);
    END(r);
}

static void create(fuse_req_t r, fuse_ino_t d, const char *n, mode_t m, struct fuse_file_info *fi)
{
    (void)d;
    (void)m;
    name(n);
    touch(fi, sizeof(*fi));
    END(r);
}

static void write_data(fuse_req_t r, fuse_ino_t i, const char *buf, size_t n, off_t off,
                       struct fuse_file_info *fi)
{
    (void)i;
    (void)off;
    touch(buf, n);
    touch(fi, sizeof(*fi));
    END(r);
}

static void set_xattr(fuse_req_t r, fuse_ino_t i, const char *n, const char *v, size_t size,
                      int flags)
{
    (void)i;
    (void)flags;
    text(n);
    touch(v, size);
    END(r);
}

static void get_xattr(fuse_req_t r, fuse_ino_t i, const char *n, size_t size)
{
    (void)i;
    (void)size;
    text(n);
    END(r);
}

static void remove_xattr(fuse_req_t r, fuse_ino_t i, const char *n)
{
    (void)i;
    text(n);
    END(r);
}

static const struct fuse_lowlevel_ops ops = {
    .lookup = lookup,
    .forget = forget,
    .forget_multi = forget_multi,
    .setattr = setattr,
    .mknod = make_node,
    .mkdir = make_dir,
    .symlink = make_link,
    .unlink = lookup,
    .rmdir = lookup,
    .rename = move,
    .link = link_to,
    .create = create,
    .write = write_data,
    .setxattr = set_xattr,
    .getxattr = get_xattr,
    .removexattr = remove_xattr,
};

/* Every reply is a whole one. */
static ssize_t reply(int fd, struct iovec *iov, int n, void *opaque)
{
    ssize_t len = 0;

    (void)fd;
    (void)opaque;
    for (int i = 0; i < n; i++) {
        touch(iov[i].iov_base, iov[i].iov_len);
        len += (ssize_t)iov[i].iov_len;
    }
    if (((struct fuse_out_header *)iov[0].iov_base)->len != len)
        abort();
    return len;
}

static ssize_t no_read(int fd, void *buf, size_t n, void *opaque)
{
    (void)fd;
    (void)buf;
    (void)n;
    (void)opaque;
    return -1;
}

static void no_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
    (void)level;
    (void)fmt;
    (void)ap;
}

static struct fuse_session *session(void)
{
    static const struct fuse_custom_io io = {.writev = reply, .read = no_read};
    char prog[] = "fuzz", *argv[] = {prog, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    struct fuse_session *se = fuse_session_new(&args, &ops, sizeof(ops), NULL);

    fuse_opt_free_args(&args);
    if (!se || fuse_session_custom_io(se, &io, open("/dev/null", O_RDWR | O_CLOEXEC)))
        abort();
    return se;
}

static void process(struct fuse_session *se, const void *data, size_t size)
{
    void *m = malloc(size);
    struct fuse_buf buf = {.size = size, .mem = m};

    memcpy(m, data, size);
    if (!message_check(m, size))
        fuse_session_process_buf(se, &buf);
    free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct {
        struct fuse_in_header h;
        struct fuse_init_in in;
    } init = {.h = {.len = sizeof(init), .opcode = FUSE_INIT, .unique = 1},
              .in = {.major = 7, .minor = 38}};
    struct fuse_session *se;
    u8 *m;

    if (size < sizeof(struct fuse_in_header))
        return 0;
    fuse_set_log_func(no_log);
    se = session();
    if (data[0] & 1)
        process(se, &init, sizeof(init));
    /* The length is nearly always right, or nothing else would be tried. */
    m = malloc(size);
    memcpy(m, data, size);
    if (!(data[0] & 2))
        ((struct fuse_in_header *)(void *)m)->len = (u32)size;
    process(se, m, size);
    free(m);
    fuse_session_destroy(se);
    return 0;
}
