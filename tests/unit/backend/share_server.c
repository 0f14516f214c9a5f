/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file server, driven with messages of our own over a socket: what a guest may do, and what a
 * hostile one may not. The tree is
 *
 *   TOP/secret            outside
 *   TOP/share/            the share
 *     file  "content"
 *     dir/  inner
 *     out -> ../secret    abs -> TOP/secret
 *     fifo
 */
#include "backend/share/server.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "backend/share/inode.h"
#include "core/backend.h"
#include "test.h"

#define ROOT FUSE_ROOT_ID
#define THREADS 3

static struct {
    char top[64], share[80];
    int socket, other;
    struct server *server;
    pthread_t thread[THREADS];
    u64 unique;
} t;

/* The last reply. */
static struct {
    struct fuse_out_header h;
    u8 body[SHAREDEV_DATA_MAX];
    size_t len; /* of body */
} reply;

static const char *path(const char *name)
{
    static char buf[4][512];
    static unsigned n;

    n = (n + 1) % 4;
    snprintf(buf[n], sizeof(buf[n]), "%s/%s", t.share, name);
    return buf[n];
}

static void put_file(const char *name, const char *text)
{
    FILE *f = fopen(name, "we");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const char *get_file(const char *name)
{
    static char text[4096];
    FILE *f = fopen(name, "re");
    size_t n;

    assert_non_null(f);
    n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

static void *run(void *opaque)
{
    server_run(opaque);
    return NULL;
}

/* --- messages ------------------------------------------------------------------------------------
 */

static void read_all(void *buf, size_t n)
{
    assert_int_equal(recv(t.socket, buf, n, MSG_WAITALL), (ssize_t)n);
}

static void send_raw(u32 opcode, u64 node, const void *args, size_t nargs, const void *tail,
                     size_t ntail)
{
    struct fuse_in_header h = {.len = (u32)(sizeof(h) + nargs + ntail),
                               .opcode = opcode,
                               .unique = ++t.unique,
                               .nodeid = node,
                               .uid = getuid(),
                               .gid = getgid()};
    struct iovec iov[3] = {
        {&h, sizeof(h)}, {(void *)(uintptr_t)args, nargs}, {(void *)(uintptr_t)tail, ntail}};

    for (unsigned i = 0; i < 3; i++)
        if (iov[i].iov_len)
            assert_int_equal(send(t.socket, iov[i].iov_base, iov[i].iov_len, MSG_NOSIGNAL),
                             (ssize_t)iov[i].iov_len);
}

static int get_reply(void)
{
    memset(&reply.h, 0, sizeof(reply.h));
    read_all(&reply.h, sizeof(reply.h));
    assert_in_range(reply.h.len, sizeof(reply.h), SHAREDEV_REPLY_MAX);
    assert_int_equal(reply.h.unique, t.unique);
    reply.len = reply.h.len - sizeof(reply.h);
    if (reply.len)
        read_all(reply.body, reply.len);
    return reply.h.error;
}

/* Sends and waits; the error of the reply. */
static int request(u32 opcode, u64 node, const void *args, size_t nargs, const void *tail,
                   size_t ntail)
{
    send_raw(opcode, node, args, nargs, tail, ntail);
    return get_reply();
}

static int named(u32 opcode, u64 node, const void *args, size_t nargs, const char *name)
{
    return request(opcode, node, args, nargs, name, strlen(name) + 1);
}

static const struct fuse_entry_out *entry(void)
{
    assert_true(reply.len >= sizeof(struct fuse_entry_out));
    return (const void *)reply.body;
}

static u64 lookup(u64 dir, const char *name)
{
    assert_int_equal(named(FUSE_LOOKUP, dir, NULL, 0, name), 0);
    return entry()->nodeid;
}

static int look(u64 dir, const char *name)
{
    return named(FUSE_LOOKUP, dir, NULL, 0, name);
}

/* No reply: done when the next request is answered, for there is one thread then or the order does
 * not matter. */
static void forget(u64 node, u64 n)
{
    struct fuse_forget_in f = {.nlookup = n};

    send_raw(FUSE_FORGET, node, &f, sizeof(f), NULL, 0);
}

static int open_file(u64 node, u32 flags, u64 *fh)
{
    struct fuse_open_in in = {.flags = flags};
    int err = request(FUSE_OPEN, node, &in, sizeof(in), NULL, 0);

    *fh = 0;
    if (!err)
        *fh = ((struct fuse_open_out *)(void *)reply.body)->fh;
    return err;
}

static int create(u64 dir, const char *name, u32 flags, u32 mode, u64 *fh)
{
    struct fuse_create_in in = {.flags = flags, .mode = mode};
    int err = named(FUSE_CREATE, dir, &in, sizeof(in), name);

    if (fh)
        *fh = 0;
    if (!err && fh)
        *fh = ((struct fuse_open_out *)(void *)(reply.body + sizeof(struct fuse_entry_out)))->fh;
    return err;
}

static int read_file(u64 node, u64 fh, u64 off, u32 size)
{
    struct fuse_read_in in = {.fh = fh, .offset = off, .size = size};

    return request(FUSE_READ, node, &in, sizeof(in), NULL, 0);
}

static int write_file(u64 node, u64 fh, u64 off, const char *text, u32 flags, u32 write_flags)
{
    struct fuse_write_in in = {.fh = fh,
                               .offset = off,
                               .size = (u32)strlen(text),
                               .flags = flags,
                               .write_flags = write_flags};

    return request(FUSE_WRITE, node, &in, sizeof(in), text, strlen(text));
}

static int close_file(u64 node, u64 fh)
{
    struct fuse_release_in in = {.fh = fh};

    return request(FUSE_RELEASE, node, &in, sizeof(in), NULL, 0);
}

static int setattr(u64 node, const struct fuse_setattr_in *in)
{
    return request(FUSE_SETATTR, node, in, sizeof(*in), NULL, 0);
}

static void init(void)
{
    struct fuse_init_in in = {.major = 7,
                              .minor = 38,
                              .max_readahead = 1u << 20,
                              .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS |
                                       FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS | FUSE_INIT_EXT};

    assert_int_equal(request(FUSE_INIT, 0, &in, sizeof(in), NULL, 0), 0);
}

/* --- set-up --------------------------------------------------------------------------------------
 */

static void start(bool readonly, unsigned threads, unsigned node_fds)
{
    struct server_config cfg = {
        .readonly = readonly, .nodes = 200, .node_fds = node_fds, .files = 16};
    int pair[2], err;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    t.socket = pair[0];
    cfg.socket = t.other = pair[1];
    cfg.dir = open(t.share, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(cfg.dir >= 0);
    t.server = server_create(&cfg, &err);
    assert_non_null(t.server);
    for (unsigned i = 0; i < THREADS; i++)
        t.thread[i] = 0;
    for (unsigned i = 0; i < threads; i++)
        assert_int_equal(pthread_create(&t.thread[i], NULL, run, t.server), 0);
}

static int set_up_tree(void **state)
{
    char buf[512];

    (void)state;
    umask(0);
    snprintf(t.top, sizeof(t.top), "/tmp/unit-share-XXXXXX");
    assert_non_null(mkdtemp(t.top));
    snprintf(t.share, sizeof(t.share), "%s/share", t.top);
    assert_int_equal(mkdir(t.share, 0755), 0);
    snprintf(buf, sizeof(buf), "%s/secret", t.top);
    put_file(buf, "secret");
    assert_int_equal(symlink(buf, path("abs")), 0);
    assert_int_equal(symlink("../secret", path("out")), 0);
    put_file(path("file"), "content");
    assert_int_equal(mkdir(path("dir"), 0755), 0);
    put_file(path("dir/inner"), "inner");
    assert_int_equal(mkfifo(path("fifo"), 0644), 0);
    return 0;
}

static int set_up(void **state)
{
    set_up_tree(state);
    start(false, 1, 64);
    init();
    return 0;
}

static int set_up_readonly(void **state)
{
    set_up_tree(state);
    start(true, 1, 64);
    init();
    return 0;
}

static int tear_down(void **state)
{
    char cmd[128];

    (void)state;
    close(t.socket);
    for (unsigned i = 0; i < THREADS; i++)
        if (t.thread[i])
            pthread_join(t.thread[i], NULL);
    server_destroy(t.server);
    close(t.other);
    snprintf(cmd, sizeof(cmd), "rm -rf %s", t.top);
    return system(cmd);
}

static unsigned nodes_known(void)
{
    unsigned nodes, fds;

    /* What was sent before is done then: one thread. */
    request(FUSE_STATFS, ROOT, NULL, 0, NULL, 0);
    nodes_count(server_nodes(t.server), &nodes, &fds);
    return nodes;
}

static unsigned fds_open(void)
{
    unsigned nodes, fds;

    nodes_count(server_nodes(t.server), &nodes, &fds);
    return fds;
}

/* --- what a guest may do -------------------------------------------------------------------------
 */

static void share__reads_and_writes_files(void **state)
{
    u64 node = lookup(ROOT, "file"), fh;

    (void)state;
    assert_int_equal(entry()->attr.size, 7);
    assert_int_equal(open_file(node, O_RDWR, &fh), 0);
    assert_int_equal(read_file(node, fh, 3, 100), 0);
    assert_int_equal(reply.len, 4);
    assert_memory_equal(reply.body, "tent", 4);
    assert_int_equal(write_file(node, fh, 7, " added", O_RDWR, 0), 0);
    assert_string_equal(get_file(path("file")), "content added");
    assert_int_equal(close_file(node, fh), 0);
    assert_int_equal(read_file(node, fh, 0, 1), -EBADF);
    assert_int_equal(close_file(node, fh), 0);
}

static void share__appends_at_the_end_but_cached_pages_go_where_they_belong(void **state)
{
    u64 node = lookup(ROOT, "file"), fh;

    (void)state;
    assert_int_equal(open_file(node, O_WRONLY | O_APPEND, &fh), 0);
    assert_int_equal(write_file(node, fh, 0, "+", O_WRONLY | O_APPEND, 0), 0);
    assert_string_equal(get_file(path("file")), "content+");
    assert_int_equal(write_file(node, fh, 0, "C", O_WRONLY | O_APPEND, FUSE_WRITE_CACHE), 0);
    assert_string_equal(get_file(path("file")), "Content+");
}

static void share__makes_renames_and_removes(void **state)
{
    struct fuse_mkdir_in dir = {.mode = 0755};
    struct fuse_mknod_in nod = {.mode = S_IFIFO | 0600};
    struct fuse_rename_in ren = {0};
    struct fuse_link_in link = {.oldnodeid = lookup(ROOT, "file")};
    struct stat st;
    u64 d;

    (void)state;
    assert_int_equal(named(FUSE_MKDIR, ROOT, &dir, sizeof(dir), "new"), 0);
    d = entry()->nodeid;
    assert_int_equal(named(FUSE_LINK, d, &link, sizeof(link), "hard"), 0);
    assert_int_equal(entry()->nodeid, link.oldnodeid);
    assert_int_equal(entry()->attr.nlink, 2);
    assert_int_equal(request(FUSE_SYMLINK, d, NULL, 0, "sym\0to/what", 12), 0);
    assert_int_equal(request(FUSE_READLINK, entry()->nodeid, NULL, 0, NULL, 0), 0);
    assert_int_equal(reply.len, 7);
    assert_memory_equal(reply.body, "to/what", 7);
    assert_int_equal(request(FUSE_READLINK, d, NULL, 0, NULL, 0), -EINVAL);
    assert_int_equal(named(FUSE_MKNOD, d, &nod, sizeof(nod), "pipe"), 0);
    ren.newdir = ROOT;
    assert_int_equal(request(FUSE_RENAME, d, &ren, sizeof(ren), "hard\0moved", 11), 0);
    assert_int_equal(lookup(ROOT, "moved"), link.oldnodeid);
    assert_int_equal(named(FUSE_RMDIR, ROOT, NULL, 0, "new"), -ENOTEMPTY);
    assert_int_equal(named(FUSE_UNLINK, d, NULL, 0, "sym"), 0);
    assert_int_equal(named(FUSE_UNLINK, d, NULL, 0, "pipe"), 0);
    assert_int_equal(named(FUSE_UNLINK, ROOT, NULL, 0, "new"), -EISDIR);
    assert_int_equal(named(FUSE_RMDIR, ROOT, NULL, 0, "new"), 0);
    assert_int_equal(stat(path("new"), &st), -1);
    assert_string_equal(get_file(path("moved")), "content");
}

static void share__rename_flags(void **state)
{
    struct fuse_rename2_in ren = {.newdir = ROOT, .flags = RENAME_NOREPLACE};
    u64 file = lookup(ROOT, "file"), dir = lookup(ROOT, "dir");

    (void)state;
    assert_int_equal(request(FUSE_RENAME2, ROOT, &ren, sizeof(ren), "file\0dir", 9), -EEXIST);
    ren.flags = RENAME_EXCHANGE;
    assert_int_equal(request(FUSE_RENAME2, ROOT, &ren, sizeof(ren), "file\0dir", 9), 0);
    assert_int_equal(lookup(ROOT, "file"), dir);
    assert_int_equal(lookup(ROOT, "dir"), file);
    ren.flags = RENAME_WHITEOUT;
    assert_int_equal(request(FUSE_RENAME2, ROOT, &ren, sizeof(ren), "dir\0x", 6), -EINVAL);
    ren.flags = 0x80000000;
    assert_int_equal(request(FUSE_RENAME2, ROOT, &ren, sizeof(ren), "dir\0x", 6), -EINVAL);
}

static void share__sets_attributes(void **state)
{
    u64 node = lookup(ROOT, "file");
    struct fuse_setattr_in in = {.valid = FATTR_SIZE | FATTR_MODE | FATTR_MTIME,
                                 .size = 3,
                                 .mode = 0640,
                                 .mtime = 1000000000,
                                 .mtimensec = 5};
    struct stat st;

    (void)state;
    assert_int_equal(setattr(node, &in), 0);
    assert_int_equal(stat(path("file"), &st), 0);
    assert_int_equal(st.st_size, 3);
    assert_int_equal(st.st_mode, S_IFREG | 0640);
    assert_int_equal(st.st_mtim.tv_sec, 1000000000);
    assert_int_equal(st.st_mtim.tv_nsec, 5);
    in = (struct fuse_setattr_in){.valid = FATTR_SIZE};
    assert_int_equal(setattr(lookup(ROOT, "dir"), &in), -EISDIR);
    assert_int_equal(setattr(lookup(ROOT, "fifo"), &in), -EINVAL);
    in = (struct fuse_setattr_in){.valid = FATTR_MTIME, .mtime = 7};
    assert_int_equal(setattr(lookup(ROOT, "out"), &in), 0);
    assert_int_equal(lstat(path("out"), &st), 0);
    assert_int_equal(st.st_mtim.tv_sec, 7);
}

static void share__lists_directories_piece_by_piece(void **state)
{
    struct fuse_open_in open_in = {0};
    struct fuse_read_in in = {.size = 512};
    unsigned found = 0;
    char name[64];

    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "dir/entry%u", i);
        put_file(path(name), "");
    }
    u64 dir = lookup(ROOT, "dir");
    assert_int_equal(request(FUSE_OPENDIR, dir, &open_in, sizeof(open_in), NULL, 0), 0);
    in.fh = ((struct fuse_open_out *)(void *)reply.body)->fh;
    for (;;) {
        assert_int_equal(request(FUSE_READDIRPLUS, dir, &in, sizeof(in), NULL, 0), 0);
        if (!reply.len)
            break;
        for (size_t at = 0; at < reply.len;) {
            const struct fuse_direntplus *d = (const void *)(reply.body + at);

            assert_true(at + FUSE_DIRENTPLUS_SIZE(d) <= reply.len);
            if (d->dirent.name[0] != '.') {
                found++;
                assert_int_not_equal(d->entry_out.nodeid, 0);
                assert_int_equal(d->entry_out.attr.mode & S_IFMT, S_IFREG);
            }
            in.offset = d->dirent.off;
            at += FUSE_DIRENTPLUS_SIZE(d);
        }
    }
    assert_int_equal(found, 51);
    assert_int_equal(nodes_known(), 2 + 51);
    in.offset = 0;
    in.size = 65536;
    found = 0;
    assert_int_equal(request(FUSE_READDIR, dir, &in, sizeof(in), NULL, 0), 0);
    for (size_t at = 0; at < reply.len;) {
        const struct fuse_dirent *d = (const void *)(reply.body + at);

        found++;
        at += FUSE_DIRENT_SIZE(d);
    }
    assert_int_equal(found, 53);
    assert_int_equal(read_file(dir, in.fh, 0, 10), -EBADF);
}

static void share__keeps_users_attributes_and_no_others(void **state)
{
    struct fuse_getxattr_in size = {.size = 100};
    struct fuse_setxattr_in in = {.size = 1};
    u64 node = lookup(ROOT, "file");
    int err = request(FUSE_SETXATTR, node, &in, 8, "user.a\0v", 8);

    (void)state;
    if (err == -EOPNOTSUPP)
        skip(); /* the file system of /tmp has none */
    assert_int_equal(err, 0);
    assert_int_equal(named(FUSE_GETXATTR, node, &size, sizeof(size), "user.a"), 0);
    assert_int_equal(reply.len, 1);
    size.size = 0;
    assert_int_equal(request(FUSE_LISTXATTR, node, &size, sizeof(size), NULL, 0), 0);
    assert_int_equal(((struct fuse_getxattr_out *)(void *)reply.body)->size, 7);
    assert_int_equal(request(FUSE_SETXATTR, node, &in, 8, "security.x\0v", 12), -EOPNOTSUPP);
    assert_int_equal(request(FUSE_SETXATTR, node, &in, 8, "trusted.x\0v", 11), -EOPNOTSUPP);
    assert_int_equal(named(FUSE_GETXATTR, node, &size, sizeof(size), "security.capability"),
                     -EOPNOTSUPP);
    assert_int_equal(named(FUSE_REMOVEXATTR, node, NULL, 0, "user.a"), 0);
}

static void share__copies_and_seeks(void **state)
{
    struct fuse_copy_file_range_in copy = {.len = 100};
    struct fuse_lseek_in seek = {.whence = SEEK_DATA};
    u64 node = lookup(ROOT, "file");

    (void)state;
    assert_int_equal(open_file(node, O_RDONLY, &copy.fh_in), 0);
    assert_int_equal(create(ROOT, "copy", O_WRONLY | O_EXCL, 0644, &copy.fh_out), 0);
    copy.nodeid_out = entry()->nodeid;
    assert_int_equal(request(FUSE_COPY_FILE_RANGE, node, &copy, sizeof(copy), NULL, 0), 0);
    assert_string_equal(get_file(path("copy")), "content");
    seek.fh = copy.fh_in;
    assert_int_equal(request(FUSE_LSEEK, node, &seek, sizeof(seek), NULL, 0), 0);
    seek.whence = SEEK_END;
    assert_int_equal(request(FUSE_LSEEK, node, &seek, sizeof(seek), NULL, 0), -EINVAL);
}

/* --- what a hostile guest may not ----------------------------------------------------------------
 */

static void share__names_do_not_lead_out(void **state)
{
    struct fuse_mkdir_in dir = {.mode = 0755};
    struct fuse_rename_in ren = {.newdir = ROOT};
    struct fuse_link_in link = {.oldnodeid = lookup(ROOT, "file")};
    struct stat st;
    char buf[512];

    (void)state;
    assert_int_equal(look(ROOT, ".."), -EINVAL);
    assert_int_equal(look(ROOT, "."), -EINVAL);
    assert_int_equal(look(ROOT, "dir/inner"), -EINVAL);
    assert_int_equal(look(ROOT, "/etc"), -EINVAL);
    assert_int_equal(look(ROOT, "../secret"), -EINVAL);
    assert_int_equal(named(FUSE_MKDIR, ROOT, &dir, sizeof(dir), "../made"), -EINVAL);
    assert_int_equal(named(FUSE_LINK, ROOT, &link, sizeof(link), "../made"), -EINVAL);
    assert_int_equal(request(FUSE_RENAME, ROOT, &ren, sizeof(ren), "file\0../made", 13), -EINVAL);
    assert_int_equal(request(FUSE_RENAME, ROOT, &ren, sizeof(ren), "../secret\0x", 12), -EINVAL);
    assert_int_equal(request(FUSE_SYMLINK, ROOT, NULL, 0, "../made\0x", 10), -EINVAL);
    assert_int_equal(create(ROOT, "../made", O_RDWR, 0644, NULL), -EINVAL);
    assert_int_equal(named(FUSE_UNLINK, ROOT, NULL, 0, "../secret"), -EINVAL);
    snprintf(buf, sizeof(buf), "%s/made", t.top);
    assert_int_equal(lstat(buf, &st), -1);
    snprintf(buf, sizeof(buf), "%s/secret", t.top);
    assert_string_equal(get_file(buf), "secret");
}

static void share__links_are_not_followed(void **state)
{
    static const char *const link[] = {"out", "abs"};
    struct fuse_setattr_in mode = {.valid = FATTR_MODE, .mode = 0777};
    struct fuse_setattr_in size = {.valid = FATTR_SIZE};
    struct fuse_open_in open_in = {0};
    char buf[512];
    u64 fh;

    (void)state;
    snprintf(buf, sizeof(buf), "%s/secret", t.top);
    for (unsigned i = 0; i < ARRAY_SIZE(link); i++) {
        u64 node = lookup(ROOT, link[i]);

        assert_int_equal(entry()->attr.mode & S_IFMT, S_IFLNK);
        assert_int_equal(open_file(node, O_RDONLY, &fh), -ELOOP);
        assert_int_equal(open_file(node, O_RDWR | O_TRUNC, &fh), -ELOOP);
        assert_int_equal(setattr(node, &mode), -EOPNOTSUPP);
        assert_int_equal(setattr(node, &size), -EINVAL);
        assert_int_equal(request(FUSE_OPENDIR, node, &open_in, sizeof(open_in), NULL, 0), -ENOTDIR);
        assert_int_equal(look(node, "x"), -ENOTDIR);
        assert_int_equal(create(ROOT, link[i], O_RDWR | O_TRUNC, 0644, &fh), -ELOOP);
        assert_int_equal(create(node, "x", O_RDWR, 0644, &fh), -ENOTDIR);
    }
    assert_string_equal(get_file(buf), "secret");
}

/* A directory of the share is replaced by a link under the guest's eyes. */
static void share__a_directory_that_became_a_link_is_not_followed(void **state)
{
    u64 dir = lookup(ROOT, "dir");
    u64 inner = lookup(dir, "inner");

    (void)state;
    assert_int_equal(rename(path("dir"), path("old")), 0);
    assert_int_equal(symlink("..", path("dir")), 0);
    assert_int_equal(look(dir, "secret"), -ENOENT);
    assert_int_equal(lookup(dir, "inner"), inner);
    assert_int_equal(entry()->attr.size, 5);
}

static void share__special_files_are_not_opened(void **state)
{
    struct fuse_mknod_in nod = {.mode = S_IFCHR | 0666, .rdev = 0x103};
    struct stat st;
    u64 fh, node = lookup(ROOT, "fifo");

    (void)state;
    assert_int_equal(open_file(node, O_RDONLY, &fh), -ENXIO);
    assert_int_equal(open_file(node, O_WRONLY, &fh), -ENXIO);
    assert_int_equal(create(ROOT, "fifo", O_RDWR, 0644, &fh), -ENXIO);
    assert_int_equal(named(FUSE_MKNOD, ROOT, &nod, sizeof(nod), "null"), -EPERM);
    nod.mode = S_IFBLK | 0666;
    assert_int_equal(named(FUSE_MKNOD, ROOT, &nod, sizeof(nod), "null"), -EPERM);
    assert_int_equal(lstat(path("null"), &st), -1);
}

static void share__set_id_bits_are_not_given(void **state)
{
    struct fuse_setattr_in in = {.valid = FATTR_MODE, .mode = 06755};
    struct fuse_mknod_in nod = {.mode = S_IFREG | 06755};
    struct fuse_mkdir_in dir = {.mode = 07755};
    struct stat st;
    u64 fh;

    (void)state;
    assert_int_equal(setattr(lookup(ROOT, "file"), &in), 0);
    assert_int_equal(stat(path("file"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(create(ROOT, "new", O_RDWR, 06755, &fh), 0);
    assert_int_equal(stat(path("new"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(named(FUSE_MKNOD, ROOT, &nod, sizeof(nod), "nod"), 0);
    assert_int_equal(stat(path("nod"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(named(FUSE_MKDIR, ROOT, &dir, sizeof(dir), "d"), 0);
    assert_int_equal(stat(path("d"), &st), 0);
    assert_int_equal(st.st_mode & S_ISUID, 0);
}

static void share__numbers_of_the_guests_making_are_nothing(void **state)
{
    static const u64 bad[] = {0, 2, 1000, UINT64_MAX, (u64)1 << 32 | 1, 0x8000000000000001};
    struct fuse_getattr_in get = {0};
    u64 fh;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(request(FUSE_GETATTR, bad[i], &get, sizeof(get), NULL, 0), -ESTALE);
        assert_int_equal(look(bad[i], "file"), -ESTALE);
        assert_int_equal(open_file(bad[i], O_RDONLY, &fh), -ESTALE);
        assert_int_equal(read_file(ROOT, bad[i], 0, 10), -EBADF);
        assert_int_equal(write_file(ROOT, bad[i], 0, "x", 0, 0), -EBADF);
        forget(bad[i], UINT64_MAX);
    }
    forget(ROOT, UINT64_MAX);
    assert_int_equal(nodes_known(), 1);
    lookup(ROOT, "file");
}

static void share__open_files_have_a_limit(void **state)
{
    u64 node = lookup(ROOT, "file"), fh, first = 0;

    (void)state;
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(open_file(node, O_RDONLY, &fh), 0);
        first = i ? first : fh;
    }
    assert_int_equal(open_file(node, O_RDONLY, &fh), -ENFILE);
    assert_int_equal(close_file(node, first), 0);
    assert_int_equal(open_file(node, O_RDONLY, &fh), 0);
    assert_int_not_equal(fh, first); /* the number is not used again */
    assert_int_equal(read_file(node, first, 0, 1), -EBADF);
}

static void share__malformed_messages_are_answered(void **state)
{
    struct fuse_write_in w = {.size = 1000};

    (void)state;
    assert_int_equal(request(FUSE_WRITE, ROOT, &w, sizeof(w), "x", 1), -EINVAL);
    assert_int_equal(request(FUSE_LOOKUP, ROOT, NULL, 0, "abc", 3), -EINVAL);
    assert_int_equal(request(FUSE_OPEN, ROOT, NULL, 0, NULL, 0), -EINVAL);
    assert_int_equal(request(9999, ROOT, NULL, 0, NULL, 0), -ENOSYS);
    assert_int_equal(request(FUSE_IOCTL, ROOT, NULL, 0, NULL, 0), -ENOSYS);
    lookup(ROOT, "file");
}

static void share__nothing_before_init(void **state)
{
    (void)state;
    set_up_tree(state);
    start(false, 1, 64);
    assert_int_equal(look(ROOT, "file"), -EIO);
    forget(ROOT, 1); /* no reply: the next one is init's */
    init();
    lookup(ROOT, "file");
    tear_down(state);
}

static void share__another_init_begins_anew(void **state)
{
    u64 node = lookup(ROOT, "file"), fh;

    (void)state;
    assert_int_equal(open_file(node, O_RDONLY, &fh), 0);
    init();
    assert_int_equal(nodes_known(), 1);
    assert_int_equal(read_file(node, fh, 0, 1), -EBADF);
    assert_int_equal(open_file(node, O_RDONLY, &fh), -ESTALE);
    assert_int_equal(request(FUSE_DESTROY, 0, NULL, 0, NULL, 0), 0);
    assert_int_equal(look(ROOT, "file"), -EIO);
    init();
    lookup(ROOT, "file");
}

static void share__a_readonly_share_changes_nothing(void **state)
{
    struct fuse_mkdir_in dir = {.mode = 0755};
    struct fuse_mknod_in nod = {.mode = S_IFREG | 0600};
    struct fuse_rename_in ren = {.newdir = ROOT};
    struct fuse_rename2_in ren2 = {.newdir = ROOT};
    struct fuse_setattr_in attr = {.valid = FATTR_MODE, .mode = 0600};
    struct fuse_setxattr_in x = {.size = 1};
    struct fuse_fallocate_in fall = {.length = 100};
    struct fuse_copy_file_range_in copy = {.len = 1};
    u64 node = lookup(ROOT, "file"), fh;
    struct fuse_link_in link = {.oldnodeid = node};

    (void)state;
    assert_int_equal(open_file(node, O_RDWR, &fh), -EROFS);
    assert_int_equal(open_file(node, O_WRONLY, &fh), -EROFS);
    assert_int_equal(open_file(node, O_RDONLY | O_TRUNC, &fh), -EROFS);
    assert_int_equal(open_file(node, 3, &fh), -EINVAL);
    assert_int_equal(create(ROOT, "new", O_RDWR, 0644, &fh), -EROFS);
    assert_int_equal(create(ROOT, "file", O_RDONLY, 0644, &fh), -EROFS);
    assert_int_equal(named(FUSE_MKDIR, ROOT, &dir, sizeof(dir), "new"), -EROFS);
    assert_int_equal(named(FUSE_MKNOD, ROOT, &nod, sizeof(nod), "new"), -EROFS);
    assert_int_equal(request(FUSE_SYMLINK, ROOT, NULL, 0, "new\0x", 6), -EROFS);
    assert_int_equal(named(FUSE_LINK, ROOT, &link, sizeof(link), "new"), -EROFS);
    assert_int_equal(named(FUSE_UNLINK, ROOT, NULL, 0, "file"), -EROFS);
    assert_int_equal(named(FUSE_RMDIR, ROOT, NULL, 0, "dir"), -EROFS);
    assert_int_equal(request(FUSE_RENAME, ROOT, &ren, sizeof(ren), "file\0x", 7), -EROFS);
    assert_int_equal(request(FUSE_RENAME2, ROOT, &ren2, sizeof(ren2), "file\0x", 7), -EROFS);
    assert_int_equal(setattr(node, &attr), -EROFS);
    attr.valid = FATTR_ATIME;
    assert_int_equal(setattr(node, &attr), -EROFS);
    assert_int_equal(request(FUSE_SETXATTR, node, &x, 8, "user.a\0v", 8), -EROFS);
    assert_int_equal(named(FUSE_REMOVEXATTR, node, NULL, 0, "user.a"), -EROFS);
    assert_int_equal(open_file(node, O_RDONLY, &fh), 0);
    assert_int_equal(write_file(node, fh, 0, "x", 0, 0), -EROFS);
    fall.fh = copy.fh_in = copy.fh_out = fh;
    assert_int_equal(request(FUSE_FALLOCATE, node, &fall, sizeof(fall), NULL, 0), -EROFS);
    assert_int_equal(request(FUSE_COPY_FILE_RANGE, node, &copy, sizeof(copy), NULL, 0), -EROFS);
    assert_int_equal(read_file(node, fh, 0, 10), 0);
    assert_int_equal(reply.len, 7);
    assert_string_equal(get_file(path("file")), "content");
}

/* --- what the server remembers -------------------------------------------------------------------
 */

static void share__forgets_what_the_guest_forgets(void **state)
{
    u64 dir, inner;

    (void)state;
    assert_int_equal(nodes_known(), 1);
    dir = lookup(ROOT, "dir");
    inner = lookup(dir, "inner");
    assert_int_equal(lookup(dir, "inner"), inner);
    assert_int_equal(nodes_known(), 3);
    forget(inner, 1);
    assert_int_equal(nodes_known(), 3);
    forget(dir, 1); /* inner is below it still */
    assert_int_equal(nodes_known(), 3);
    forget(inner, 1);
    assert_int_equal(nodes_known(), 1);
    forget(inner, 5);
    assert_int_equal(look(inner, "x"), -ESTALE);
    assert_int_equal(look(ROOT, "nothing"), -ENOENT);
    assert_int_equal(nodes_known(), 1);

    struct fuse_batch_forget_in b = {.count = 2};
    struct fuse_forget_one one[2] = {{.nodeid = lookup(ROOT, "file"), .nlookup = 1},
                                     {.nodeid = lookup(ROOT, "dir"), .nlookup = 1}};

    send_raw(FUSE_BATCH_FORGET, 0, &b, sizeof(b), one, sizeof(one));
    assert_int_equal(nodes_known(), 1);
}

static void share__knows_more_files_than_it_has_descriptors_for(void **state)
{
    u64 node[100], dir, fh;
    char name[64];

    (void)state;
    set_up_tree(state);
    start(false, 1, 16);
    init();
    dir = lookup(ROOT, "dir");
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "dir/f%u", i);
        put_file(path(name), name);
        snprintf(name, sizeof(name), "f%u", i);
        node[i] = lookup(dir, name);
    }
    assert_int_equal(nodes_known(), 102);
    assert_in_range(fds_open(), 2, 16);
    /* Each is found again, also after the directory was renamed through us. */
    struct fuse_rename_in ren = {.newdir = ROOT};

    assert_int_equal(request(FUSE_RENAME, ROOT, &ren, sizeof(ren), "dir\0else", 9), 0);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "dir/f%u", i);
        assert_int_equal(open_file(node[i], O_RDONLY, &fh), 0);
        assert_int_equal(read_file(node[i], fh, 0, 100), 0);
        assert_int_equal(reply.len, strlen(name));
        assert_memory_equal(reply.body, name, reply.len);
        close_file(node[i], fh);
    }
    assert_in_range(fds_open(), 2, 16);
    /* A file that was put in the place of another is another. */
    unlink(path("else/f0"));
    put_file(path("else/f0"), "other");
    assert_int_equal(open_file(node[0], O_RDONLY, &fh), -ESTALE);
    assert_int_not_equal(lookup(dir, "f0"), node[0]);
    tear_down(state);
}

static void share__a_deleted_file_lives_while_the_guest_knows_it(void **state)
{
    struct fuse_getattr_in get = {0};
    u64 node, dir, fh;
    char name[64];

    (void)state;
    set_up_tree(state);
    start(false, 1, 16);
    init();
    dir = lookup(ROOT, "dir");
    node = lookup(dir, "inner");
    assert_int_equal(named(FUSE_UNLINK, dir, NULL, 0, "inner"), 0);
    for (unsigned i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "dir/f%u", i);
        put_file(path(name), "");
        lookup(dir, name + 4);
    }
    assert_int_equal(request(FUSE_GETATTR, node, &get, sizeof(get), NULL, 0), 0);
    assert_int_equal(open_file(node, O_RDONLY, &fh), 0);
    assert_int_equal(read_file(node, fh, 0, 10), 0);
    assert_memory_equal(reply.body, "inner", 5);
    tear_down(state);
}

/* A guest can neither fill the table beyond its limit nor use up descriptors with deleted files. */
static void share__what_a_guest_can_hold_has_limits(void **state)
{
    unsigned good = 0;
    char name[64];
    u64 fh;

    (void)state;
    set_up_tree(state);
    start(false, 1, 16);
    init();
    for (unsigned i = 0; i < 300; i++) {
        int err;

        snprintf(name, sizeof(name), "g%u", i);
        err = create(ROOT, name, O_RDWR | O_EXCL, 0644, &fh);
        if (err) {
            assert_int_equal(err, -ENFILE);
            continue;
        }
        close_file(entry()->nodeid, fh);
        assert_int_equal(named(FUSE_UNLINK, ROOT, NULL, 0, name), 0);
        good++;
    }
    assert_int_equal(good, 199);
    assert_int_equal(nodes_known(), 200);
    assert_in_range(fds_open(), 1, 16);
    init();
    assert_int_equal(nodes_known(), 1);
    lookup(ROOT, "file");
    tear_down(state);
}

static void share__says_when_a_cached_file_is_unchanged(void **state)
{
    struct timespec old[2] = {{1000, 0}, {1000, 0}};
    u64 node = lookup(ROOT, "file"), fh;
    const struct fuse_open_out *out = (const void *)reply.body;

    (void)state;
    assert_int_equal(utimensat(AT_FDCWD, path("file"), old, 0), 0);
    assert_int_equal(open_file(node, O_RDONLY, &fh), 0);
    assert_false(out->open_flags & FOPEN_KEEP_CACHE);
    /* It was changed just now: it is not believed to stay so. */
    assert_int_equal(open_file(node, O_RDONLY, &fh), 0);
    assert_false(out->open_flags & FOPEN_KEEP_CACHE);
}

/* Several threads, requests without waiting for replies: each reply is whole and to one of them. */
static void share__many_requests_at_once(void **state)
{
    enum { N = 500 };
    static bool seen[N];
    u64 first;

    (void)state;
    set_up_tree(state);
    start(false, THREADS, 64);
    init();
    first = t.unique + 1;
    memset(seen, 0, sizeof(seen));
    for (unsigned sent = 0, got = 0; got < N;) {
        for (; sent < N && sent < got + 50; sent++)
            send_raw(FUSE_LOOKUP, ROOT, NULL, 0, "file", 5);
        read_all(&reply.h, sizeof(reply.h));
        assert_int_equal(reply.h.len, sizeof(reply.h) + sizeof(struct fuse_entry_out));
        assert_int_equal(reply.h.error, 0);
        read_all(reply.body, sizeof(struct fuse_entry_out));
        assert_in_range(reply.h.unique, first, first + N - 1);
        assert_false(seen[reply.h.unique - first]);
        seen[reply.h.unique - first] = true;
        got++;
    }
    tear_down(state);
}

static void share__a_header_that_lies_about_its_length_ends_it(void **state)
{
    struct fuse_in_header h = {.len = SHAREDEV_REQUEST_MAX + 1, .opcode = FUSE_WRITE};
    u8 byte;

    (void)state;
    assert_int_equal(send(t.socket, &h, sizeof(h), 0), sizeof(h));
    assert_int_equal(recv(t.socket, &byte, 1, 0), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(share__reads_and_writes_files),
        TEST(share__appends_at_the_end_but_cached_pages_go_where_they_belong),
        TEST(share__makes_renames_and_removes),
        TEST(share__rename_flags),
        TEST(share__sets_attributes),
        TEST(share__lists_directories_piece_by_piece),
        TEST(share__keeps_users_attributes_and_no_others),
        TEST(share__copies_and_seeks),
        TEST(share__names_do_not_lead_out),
        TEST(share__links_are_not_followed),
        TEST(share__a_directory_that_became_a_link_is_not_followed),
        TEST(share__special_files_are_not_opened),
        TEST(share__set_id_bits_are_not_given),
        TEST(share__numbers_of_the_guests_making_are_nothing),
        TEST(share__open_files_have_a_limit),
        TEST(share__malformed_messages_are_answered),
        cmocka_unit_test(share__nothing_before_init),
        TEST(share__another_init_begins_anew),
        cmocka_unit_test_setup_teardown(share__a_readonly_share_changes_nothing, set_up_readonly,
                                        tear_down),
        TEST(share__forgets_what_the_guest_forgets),
        cmocka_unit_test(share__knows_more_files_than_it_has_descriptors_for),
        cmocka_unit_test(share__a_deleted_file_lives_while_the_guest_knows_it),
        cmocka_unit_test(share__what_a_guest_can_hold_has_limits),
        TEST(share__says_when_a_cached_file_is_unchanged),
        cmocka_unit_test(share__many_requests_at_once),
        TEST(share__a_header_that_lies_about_its_length_ends_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
