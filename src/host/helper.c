/* SPDX-License-Identifier: Apache-2.0 */
/* Helper processes, and descriptors nobody meant us to have. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/bits.h"
#include "core/sandbox.h"

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

static void default_signals(void)
{
    static const int ignored[] = {SIGINT, SIGHUP, SIGTERM, SIGPIPE};
    sigset_t none;

    for (int s = 1; s < SIGRTMIN; s++)
        signal(s, SIG_DFL); /* fails for SIGKILL and SIGSTOP, as it should */
    for (unsigned i = 0; i < ARRAY_SIZE(ignored); i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

int host_helper_fork(const char *name, const int *keep, unsigned nkeep, int (*fn)(void *opaque),
                     void *opaque)
{
    pid_t parent = getpid(), pid;
    int *sorted = calloc(nkeep + 1, sizeof(*sorted));
    int null;

    if (!sorted)
        return -ENOMEM;
    for (unsigned i = 0; i < nkeep; i++)
        sorted[i] = keep[i];
    qsort(sorted, nkeep, sizeof(*sorted), by_number);
    pid = fork();
    if (pid) {
        int err = errno;

        free(sorted);
        return pid < 0 ? -err : pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1); /* it ended before the line above */
    prctl(PR_SET_NAME, name);
    default_signals();
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
        _exit(1);
    close_all_but(sorted, nkeep);
    _exit(fn(opaque));
}
