/* SPDX-License-Identifier: Apache-2.0 */
/* A measurement that may hang. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bits.h"
#include "board/measure.h"
#include "core/host.h"

/* How long a killed process is waited for: one that the kernel keeps is left to init. */
#define REAP_TRIES 100
#define REAP_WAIT_US 1000

struct answer {
    int err;
    struct engine_speed speed;
};

static void child(const struct engine_ops *ops, u64 rounds, int out, pid_t parent)
{
    struct answer a = {0};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    a.err = engine_measure(ops, rounds, &a.speed);
    /* Of a size that a pipe takes whole. */
    _exit(write(out, &a, sizeof(a)) != (ssize_t)sizeof(a));
}

static void reap(pid_t pid)
{
    for (unsigned i = 0; i < REAP_TRIES; i++) {
        if (waitpid(pid, NULL, WNOHANG))
            return;
        usleep(REAP_WAIT_US);
    }
}

/* 0 when fd became readable in time; -ETIMEDOUT. */
static int wait_for(int fd, unsigned limit_ms)
{
    u64 end = host_monotonic_ns() + limit_ms * 1000000ull;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        u64 now = host_monotonic_ns();
        int r = poll(&p, 1, now < end ? (int)((end - now + 999999) / 1000000) : 0);

        if (r > 0)
            return 0;
        if (r < 0 && errno != EINTR)
            return -errno;
        if (!r)
            return -ETIMEDOUT;
    }
}

int engine_measure_apart(const struct engine_ops *ops, u64 rounds, unsigned limit_ms,
                         struct engine_speed *out)
{
    pid_t parent = getpid(), pid;
    struct answer a = {0};
    int ends[2], r;

    if (pipe2(ends, O_CLOEXEC))
        return -errno;
    pid = fork();
    if (pid < 0) {
        r = -errno;
        close(ends[0]);
        close(ends[1]);
        return r;
    }
    if (!pid) {
        close(ends[0]);
        child(ops, rounds, ends[1], parent);
    }
    close(ends[1]);
    r = wait_for(ends[0], limit_ms);
    if (!r && read(ends[0], &a, sizeof(a)) != (ssize_t)sizeof(a))
        r = -EIO; /* it died */
    close(ends[0]);
    kill(pid, SIGKILL);
    reap(pid);
    if (r)
        return r;
    *out = a.speed;
    return a.err;
}
