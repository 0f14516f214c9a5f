/* SPDX-License-Identifier: Apache-2.0 */
#include "core/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/sandbox.h"

#define MADE_MAX 16 /* more than a machine can be told to make; others stay */

static const struct sandbox_rule rules[] = {
    SANDBOX_ALLOW(SYS_recvfrom, "the machine ends"),
    SANDBOX_ALLOW(SYS_newfstatat, "is it still the same?"),
    SANDBOX_ALLOW(SYS_unlinkat, "it is"),
    SANDBOX_END,
};

/* What the cleaner is told, with a descriptor of the directory; a message without one is the last.
 */
struct made {
    dev_t dev;
    ino_t ino;
    char name[108];
};

static struct {
    int fd; /* the machine's end; -1: there is none */
    pid_t pid;
} cleaner = {.fd = -1};

struct child {
    int fd;
    bool confined;
};

/* --- the cleaner --- */

/* The directory's descriptor; -1: there was no more to be told, or the machine has ended. */
static int hear(int from, struct made *m)
{
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec v = {m, sizeof(*m)};
    struct msghdr h = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = sizeof(control.buf)};
    ssize_t n = recvmsg(from, &h, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *c = n == sizeof(*m) ? CMSG_FIRSTHDR(&h) : NULL;
    int fd;

    if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
        return -1;
    memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    return fd;
}

static int run(void *opaque)
{
    const struct child *c = opaque;
    struct sandbox_spec spec = {.name = "clean", .rules = {sandbox_base_rules, rules}};
    struct sandbox_dir dir[MADE_MAX];
    struct made made[MADE_MAX];
    char err[200];
    struct stat st;
    int fd;

    spec.dirs = dir;
    while (spec.ndirs < MADE_MAX && (fd = hear(c->fd, &made[spec.ndirs])) >= 0)
        dir[spec.ndirs++] = (struct sandbox_dir){.fd = fd, .write = true};
    if (c->confined && host_confine(&spec, err, sizeof(err)))
        return 1;
    while (recv(c->fd, err, sizeof(err), 0) > 0)
        ;
    for (unsigned i = 0; i < spec.ndirs; i++)
        if (!fstatat(dir[i].fd, made[i].name, &st, AT_SYMLINK_NOFOLLOW) && S_ISSOCK(st.st_mode) &&
            st.st_dev == made[i].dev && st.st_ino == made[i].ino)
            unlinkat(dir[i].fd, made[i].name, 0);
    return 0;
}

int host_listen_cleaner(bool confined, char *err, size_t err_size)
{
    struct child c = {.confined = confined};
    int sv[2], r;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv)) {
        r = -errno;
    } else {
        c.fd = sv[1];
        r = host_helper_fork("trivisor-clean", &c.fd, 1, run, &c);
        close(sv[1]);
        if (r > 0) {
            cleaner.fd = sv[0];
            cleaner.pid = r;
            return 0;
        }
        close(sv[0]);
    }
    snprintf(err, err_size, "no process to remove sockets: %s", strerror(-r));
    return r;
}

void host_listen_done(void)
{
    if (cleaner.fd >= 0 && send(cleaner.fd, "", 1, MSG_NOSIGNAL) < 0)
        return; /* it is gone, and they stay */
}

void host_listen_clean(void)
{
    if (cleaner.fd < 0)
        return;
    close(cleaner.fd);
    cleaner.fd = -1;
    while (waitpid(cleaner.pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* Opens the directory a path is in, for looking things up. The descriptor or -errno. */
static int open_dir(const char *path)
{
    char *copy = strdup(path);
    int fd = copy ? open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    int r = fd < 0 ? -errno : fd;

    free(copy);
    return r;
}

/* What it does not hear of stays, and is replaced one day. */
static void tell_cleaner(const char *path)
{
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    const char *slash = strrchr(path, '/');
    struct made m = {0};
    struct iovec v = {&m, sizeof(m)};
    struct msghdr h = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = sizeof(control.buf)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    struct stat st;
    int dir = cleaner.fd < 0 ? -1 : open_dir(path);

    if (dir < 0)
        return;
    snprintf(m.name, sizeof(m.name), "%s", slash ? slash + 1 : path);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &dir, sizeof(int));
    if (!fstatat(dir, m.name, &st, AT_SYMLINK_NOFOLLOW)) {
        m.dev = st.st_dev;
        m.ino = st.st_ino;
        if (sendmsg(cleaner.fd, &h, MSG_NOSIGNAL) < 0)
            m.ino = 0;
    }
    close(dir);
}

/* --- listening --- */

static int fail(const char *path, int r, const char *why, char *err, size_t err_size)
{
    snprintf(err, err_size, "cannot listen at %s: %s", path, why ? why : strerror(-r));
    return r;
}

/* What is in the way. 0: nothing; 1: a socket nobody listens at; -errno with one line in err. */
static int look(const char *path, const struct sockaddr_un *a, char *err, size_t err_size)
{
    struct stat st;
    int fd, r;

    if (lstat(path, &st))
        return errno == ENOENT ? 0 : fail(path, -errno, NULL, err, err_size);
    if (!S_ISSOCK(st.st_mode))
        return fail(path, -EEXIST, "there is something that is no socket", err, err_size);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail(path, -errno, NULL, err, err_size);
    /* A socket of another type answers EPROTOTYPE, a full one EAGAIN: they are somebody's. */
    r = connect(fd, (const struct sockaddr *)a, sizeof(*a)) && errno == ECONNREFUSED ? 1
                                                                                     : -EADDRINUSE;
    close(fd);
    return r > 0 ? r : fail(path, r, NULL, err, err_size);
}

static int address(const char *path, struct sockaddr_un *a, char *err, size_t err_size)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(a->sun_path)) {
        snprintf(err, err_size, "unix:%s: the path is longer than %zu bytes", path,
                 sizeof(a->sun_path) - 1);
        return -ENAMETOOLONG;
    }
    memcpy(a->sun_path, path, strlen(path));
    return 0;
}

int host_listen(const char *path, bool private, int backlog, char *err, size_t err_size)
{
    struct sockaddr_un a;
    int fd, r = address(path, &a, err, err_size);
    mode_t mask = umask(0);

    /* Who may write to the file may connect. */
    umask(private ? 0177 : mask);
    if (!r)
        r = look(path, &a, err, err_size);
    if (r == 1 && unlink(path))
        r = fail(path, -errno, NULL, err, err_size);
    fd = r < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (r >= 0 && (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a))))
        r = fail(path, -errno, NULL, err, err_size);
    umask(mask);
    if (r >= 0)
        tell_cleaner(path);
    if (r >= 0 && listen(fd, backlog))
        r = fail(path, -errno, NULL, err, err_size);
    if (r >= 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return r;
}

int host_listen_check(const char *path, char *err, size_t err_size)
{
    struct sockaddr_un a;
    int r = address(path, &a, err, err_size), dir = r ? -1 : open_dir(path);

    if (!r && dir < 0)
        r = fail(path, dir, NULL, err, err_size);
    if (!r)
        r = look(path, &a, err, err_size);
    if (r >= 0 && faccessat(dir, ".", W_OK | X_OK, 0))
        r = fail(path, -errno, NULL, err, err_size);
    if (dir >= 0)
        close(dir);
    return r < 0 ? r : 0;
}
