/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/types.h"
#include "host/rundir.h"

#define CLAIM_TRIES 10
#define CLAIM_WAIT_US 2000
#define FILE_NAME_SIZE (RUNDIR_NAME_MAX + 16)

/* A connect waits no longer than this for a machine that is stopped (SIGSTOP) or hangs. */
#define CONNECT_SECONDS 5
/* Connections that wait to be accepted. */
#define BACKLOG 32

static const struct {
    const char *suffix, *what;
    int type;
} sockets[] = {
    [RUNDIR_CONSOLE] = {".console", "console", SOCK_SEQPACKET},
    [RUNDIR_CONTROL] = {".control", "control", SOCK_STREAM},
};

static void dir_path(char *path, size_t size)
{
    const char *xdg = getenv("XDG_RUNTIME_DIR");

    /* The XDG specification: a relative path is to be ignored. */
    if (xdg && xdg[0] == '/')
        snprintf(path, size, "%s/trivisor", xdg);
    else if (geteuid() == 0)
        snprintf(path, size, "/run/trivisor");
    else
        snprintf(path, size, "/tmp/trivisor-%u", (unsigned)geteuid());
}

int rundir_open(bool create, char *err, size_t err_size)
{
    char path[4096];
    struct stat st;
    int fd, r;

    dir_path(path, sizeof(path));
    if (create && mkdir(path, 0700) && errno != EEXIST) {
        r = -errno;
        snprintf(err, err_size, "cannot create %s: %s", path, strerror(-r));
        return r;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        r = -errno;
        snprintf(err, err_size, "cannot open %s: %s", path, strerror(-r));
    } else if (st.st_uid != geteuid() || (st.st_mode & 077)) {
        r = -EPERM;
        snprintf(err, err_size, "%s is %s: it must be yours alone (mode 0700)", path,
                 st.st_uid != geteuid() ? "somebody else's" : "open to others");
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return r;
}

static void file_name(char *out, const char *name, const char *suffix)
{
    snprintf(out, FILE_NAME_SIZE, "%.*s%s", RUNDIR_NAME_MAX, name, suffix);
}

/* Locks NAME.lock. The descriptor; -EWOULDBLOCK: a running machine has it; another -errno. Whoever
 * holds the lock may remove the file: then it was another file that was locked here. */
static int lock(int dir, const char *name, bool create)
{
    char file[FILE_NAME_SIZE];
    struct stat here, there;

    file_name(file, name, ".lock");
    for (;;) {
        int fd =
            openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0), 0600);

        if (fd < 0)
            return -errno;
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            int r = -errno;

            close(fd);
            return r;
        }
        if (!fstat(fd, &here) && !fstatat(dir, file, &there, AT_SYMLINK_NOFOLLOW) &&
            here.st_ino == there.st_ino && here.st_dev == there.st_dev)
            return fd;
        close(fd);
        if (!create)
            return -ENOENT;
    }
}

static pid_t lock_owner(int dir, const char *name)
{
    char file[FILE_NAME_SIZE], text[32];
    ssize_t n;
    int fd;

    file_name(file, name, ".lock");
    fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    return (pid_t)strtol(text, NULL, 10);
}

static int write_owner(int dir, const char *name)
{
    char file[FILE_NAME_SIZE];
    int fd, r;

    file_name(file, name, ".lock");
    fd = openat(dir, file, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    r = dprintf(fd, "%d\n", (int)getpid()) < 0 ? -errno : 0;
    close(fd);
    return r;
}

/* Removes what a machine has left; the caller holds its lock. */
static void remove_files(int dir, const char *name)
{
    char file[FILE_NAME_SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(sockets); i++) {
        file_name(file, name, sockets[i].suffix);
        unlinkat(dir, file, 0);
    }
    file_name(file, name, ".lock");
    unlinkat(dir, file, 0);
}

int rundir_claim(int dir, const char *name, char *err, size_t err_size)
{
    int fd = -EWOULDBLOCK;

    rundir_list(dir, NULL, NULL);
    /* Somebody who lists machines holds a lock for a moment while removing what it guards. */
    for (int i = 0; i < CLAIM_TRIES; i++) {
        fd = lock(dir, name, true);
        if (fd != -EWOULDBLOCK)
            break;
        usleep(CLAIM_WAIT_US);
    }
    if (fd == -EWOULDBLOCK) {
        snprintf(err, err_size, "the name '%s' is in use: process %d", name,
                 (int)lock_owner(dir, name));
        return -EBUSY;
    }
    if (fd >= 0) {
        /* Left open, and so locked, until the process ends: for reading, nothing is to be gained
         * by it. */
        fd = write_owner(dir, name);
        if (!fd)
            return 0;
    }
    snprintf(err, err_size, "cannot take the name '%s': %s", name, strerror(-fd));
    return fd;
}

/* A socket's address is at most 107 bytes, a directory's path may be longer: the way over /proc is
 * short, and is this directory whatever its path has become. */
static void address(struct sockaddr_un *a, int dir, const char *name, const char *suffix)
{
    memset(a, 0, sizeof(*a));
    a->sun_family = AF_UNIX;
    snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d/%.*s%s", dir, RUNDIR_NAME_MAX,
             name, suffix);
}

int rundir_listen(int dir, const char *name, enum rundir_socket which, char *err, size_t err_size)
{
    int fd = socket(AF_UNIX, sockets[which].type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;
    char file[FILE_NAME_SIZE];
    struct sockaddr_un a;

    address(&a, dir, name, sockets[which].suffix);
    file_name(file, name, sockets[which].suffix);
    unlinkat(dir, file, 0);
    /* Between bind and chmod the directory, which is 0700, keeps others out. */
    if (fd >= 0 && !bind(fd, (struct sockaddr *)&a, sizeof(a)) && !fchmodat(dir, file, 0600, 0) &&
        !listen(fd, BACKLOG))
        return fd;
    r = -errno;
    snprintf(err, err_size, "cannot listen at the %s socket of '%s': %s", sockets[which].what, name,
             strerror(-r));
    if (fd >= 0)
        close(fd);
    return r;
}

int rundir_connect(int dir, const char *name, enum rundir_socket which)
{
    int fd = socket(AF_UNIX, sockets[which].type | SOCK_CLOEXEC, 0), r;
    struct timeval limit = {.tv_sec = CONNECT_SECONDS};
    struct sockaddr_un a;

    address(&a, dir, name, sockets[which].suffix);
    if (fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) &&
        !connect(fd, (struct sockaddr *)&a, sizeof(a)))
        return fd;
    r = -errno;
    if (fd >= 0)
        close(fd);
    return r;
}

int rundir_get(int dir, const char *file, void *buf, size_t size)
{
    int fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), r;
    struct stat st;
    ssize_t n;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st))
        r = -errno;
    else if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022))
        r = -EPERM;
    else
        r = (n = read(fd, buf, size)) < 0 ? -errno : (int)n;
    close(fd);
    return r;
}

int rundir_put(int dir, const char *file, const void *buf, size_t size)
{
    char other[FILE_NAME_SIZE + 16];
    int fd, r = 0;

    /* Others see the old file or the new one. */
    snprintf(other, sizeof(other), "%.*s.%d", FILE_NAME_SIZE, file, (int)getpid());
    unlinkat(dir, other, 0);
    fd = openat(dir, other, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    if (write(fd, buf, size) != (ssize_t)size)
        r = -EIO;
    if (close(fd) && !r)
        r = -errno;
    if (!r && renameat(dir, other, dir, file))
        r = -errno;
    if (r)
        unlinkat(dir, other, 0);
    return r;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names that have a lock file, sorted, each to be freed, like the array. */
static int read_names(int dir, char ***names, size_t *n)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    *names = NULL;
    *n = 0;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return -errno;
    }
    while ((e = readdir(d)) != NULL) {
        size_t len = strlen(e->d_name);
        char **more;

        if (len <= 5 || len > RUNDIR_NAME_MAX + 5 || strcmp(e->d_name + len - 5, ".lock"))
            continue;
        more = realloc(*names, (*n + 1) * sizeof(**names));
        if (!more)
            break;
        *names = more;
        more[*n] = strndup(e->d_name, len - 5);
        if (more[*n])
            (*n)++;
    }
    closedir(d);
    if (*n)
        qsort(*names, *n, sizeof(**names), by_name);
    return 0;
}

int rundir_list(int dir, void (*fn)(void *opaque, const char *name, pid_t pid), void *opaque)
{
    char **names;
    size_t n;
    int r = read_names(dir, &names, &n);

    if (r)
        return r;
    for (size_t i = 0; i < n; i++) {
        int fd = lock(dir, names[i], false);

        if (fd >= 0) {
            remove_files(dir, names[i]);
            close(fd);
        } else if (fd == -EWOULDBLOCK && fn) {
            fn(opaque, names[i], lock_owner(dir, names[i]));
        }
        free(names[i]);
    }
    free(names);
    return 0;
}
