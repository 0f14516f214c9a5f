/* SPDX-License-Identifier: Apache-2.0 */
/* Helper processes, and descriptors nobody meant us to have. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "core/host.h"
#include "core/sandbox.h"
#include "host/init.h"

/* Those above are closed at once. */
#define NOTED_FDS 4096

static u64 inherited[NOTED_FDS / 64];

void host_note_inherited_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    const struct dirent *e;

    while (d && (e = readdir(d)) != NULL) {
        int fd = atoi(e->d_name);

        if (fd > STDERR_FILENO && fd < NOTED_FDS && fd != dirfd(d))
            inherited[fd / 64] |= BIT64(fd % 64);
    }
    /* Without /proc: ask for each. */
    for (int fd = STDERR_FILENO + 1; !d && fd < NOTED_FDS; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            inherited[fd / 64] |= BIT64(fd % 64);
    if (d)
        closedir(d);
    close_range(NOTED_FDS, UINT32_MAX, 0);
}

void host_adopt_fd(int fd)
{
    if (fd >= 0 && fd < NOTED_FDS)
        inherited[fd / 64] &= ~BIT64(fd % 64);
}

void host_close_inherited_fds(void)
{
    for (int fd = 0; fd < NOTED_FDS; fd++)
        if (inherited[fd / 64] & BIT64(fd % 64))
            close(fd);
    memset(inherited, 0, sizeof(inherited));
}

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* Closes all from 3 on but the sorted keep[0..n). */
static void close_all_but(const int *keep, unsigned n)
{
    unsigned from = STDERR_FILENO + 1;

    for (unsigned i = 0; i < n; i++) {
        if (keep[i] < (int)from)
            continue;
        if ((unsigned)keep[i] > from)
            close_range(from, (unsigned)keep[i] - 1, 0);
        from = (unsigned)keep[i] + 1;
    }
    close_range(from, UINT32_MAX, 0);
}

/* What helpers have for standard error: they hold no terminal, and no pipe that somebody waits for
 * the end of. Not in the helpers themselves. */
static int messages[2] = {-1, -1};

/* Passes some lines on. Whether there were any; -1: there will be no more. */
static int pass_lines(int fd)
{
    char buf[4096];
    ssize_t n = fd < 0 ? 0 : read(fd, buf, sizeof(buf));

    for (ssize_t at = 0; at < n;) {
        const char *end = memchr(buf + at, '\n', (size_t)(n - at));
        ssize_t len = end ? end - (buf + at) : n - at;

        host_print_line(buf + at, (size_t)len);
        at += len + 1;
    }
    return n > 0 ? 1 : n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static bool pass_messages(void)
{
    return pass_lines(messages[0]) > 0;
}

/* Event loop: a helper has something to say. */
static void on_message(void *opaque, u32 events)
{
    (void)opaque;
    (void)events;
    pass_messages();
}

/* What a pipe holds, and no more: a helper may never stop. */
static void pass_last_messages(void)
{
    for (int i = 0; i < 16 && pass_messages(); i++)
        ;
}

/* The same of a helper apart. */
static void on_message_apart(void *opaque, u32 events)
{
    int fd = (int)(intptr_t)opaque;

    (void)events;
    if (pass_lines(fd) < 0) {
        host_loop_del_fd(fd);
        close(fd);
    }
}

int host_helper_listen(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
        return -errno;
    return host_loop_add_fd(fd, EPOLLIN, on_message_apart, (void *)(intptr_t)fd);
}

static int open_messages(void)
{
    int r;

    if (messages[0] >= 0)
        return 0;
    if (pipe2(messages, O_CLOEXEC | O_NONBLOCK))
        return -errno;
    r = host_loop_add_fd(messages[0], EPOLLIN, on_message, NULL);
    if (!r)
        host_at_end(pass_last_messages);
    return r;
}

static void default_signals(void)
{
    static const int ignored[] = {SIGINT, SIGHUP, SIGTERM, SIGPIPE, SIGXFSZ};
    sigset_t none;

    for (int s = 1; s < SIGRTMIN; s++)
        signal(s, SIG_DFL); /* fails for SIGKILL and SIGSTOP, as it should */
    for (unsigned i = 0; i < ARRAY_SIZE(ignored); i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* keep, sorted, with the spare element that calloc(0) would not give. NULL: out of memory. */
static int *sort(const int *keep, unsigned n)
{
    int *sorted = calloc(n + 1, sizeof(*sorted));

    if (!sorted)
        return NULL;
    for (unsigned i = 0; i < n; i++)
        sorted[i] = keep[i];
    qsort(sorted, n, sizeof(*sorted), by_number);
    return sorted;
}

/* What a helper is from its first moment on. */
_Noreturn static void become(const char *name, int error, const int *sorted, unsigned nkeep,
                             int (*fn)(void *opaque), void *opaque)
{
    int null;

    prctl(PR_SET_NAME, name);
    default_signals();
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
        dup2(error, STDERR_FILENO) < 0)
        _exit(1);
    messages[0] = messages[1] = -1;
    close_all_but(sorted, nkeep);
    _exit(fn(opaque));
}

int host_helper_fork(const char *name, const int *keep, unsigned nkeep, int (*fn)(void *opaque),
                     void *opaque)
{
    pid_t parent = getpid(), pid;
    int *sorted = sort(keep, nkeep);
    int r = open_messages();

    if (r || !sorted) {
        free(sorted);
        return r ? r : -ENOMEM;
    }
    pid = fork();
    if (pid) {
        int err = errno;

        free(sorted);
        return pid < 0 ? -err : pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1); /* it ended before the line above */
    become(name, messages[1], sorted, nkeep, fn, opaque);
}

int host_helper_fork_apart(const char *name, const int *keep, unsigned nkeep,
                           int (*fn)(void *opaque), void *opaque, int *to_read)
{
    int *sorted = sort(keep, nkeep), error[2], status = 0, r = 0;
    pid_t pid;

    if (!sorted)
        return -ENOMEM;
    if (pipe2(error, O_CLOEXEC | O_NONBLOCK)) {
        r = -errno;
        free(sorted);
        return r;
    }
    pid = fork();
    if (!pid) {
        /* No file system is kept busy, no terminal's end ends it. */
        if (setsid() < 0 || chdir("/"))
            _exit(1);
        pid = fork();
        if (pid)
            _exit(pid < 0);
        become(name, error[1], sorted, nkeep, fn, opaque);
    }
    if (pid < 0)
        r = -errno;
    free(sorted);
    close(error[1]);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!r && status)
        r = -EAGAIN;
    if (r)
        close(error[0]);
    else
        *to_read = error[0];
    return r;
}
