/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confining a process. Capabilities and Landlock belong to a thread (capabilities(7), landlock(7)),
 * so each existing thread is made to give them up by a signal; the filter is then put on all of
 * them at once, which also makes sure that there is none it could not be put on.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/log.h"
#include "core/host.h"
#include "core/sandbox.h"
#include "host/filter.h"
#include "host/landlock.h"

/* Threads answer at once; one that does not within five seconds never will. */
#define ANSWER_POLL_NS 50000
#define ANSWER_POLLS 100000u
#define THREADS_MAX 1024

/* What the signal's handler is to do, and what came of it. */
static struct {
    u64 caps;    /* to keep */
    int ruleset; /* -1: no Landlock */
    int tid[THREADS_MAX];
    u8 answered[THREADS_MAX]; /* atomic */
    int n;                    /* atomic */
    int error;                /* atomic: of the thread that failed last */
} all;

/* Of the calling thread; async-signal-safe. */
static int drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {{0}};

    /* Only root may shrink the bounding set, and only for root does it matter: without new
     * privileges nobody else gains a capability by execve. */
    for (int cap = 0; cap < 64; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
            break;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (all.caps && syscall(SYS_capget, &head, sets))
        return -errno;
    for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        sets[i].permitted &= (u32)(all.caps >> 32 * i);
        sets[i].effective = sets[i].permitted;
        sets[i].inheritable = 0;
    }
    return syscall(SYS_capset, &head, sets) ? -errno : 0;
}

static int confine_thread(void)
{
    int err = drop_capabilities();

    if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        err = -errno;
    if (!err && all.ruleset >= 0)
        err = landlock_restrict(all.ruleset);
    return err;
}

static void on_order(int sig)
{
    int saved_errno = errno, err = confine_thread(), tid = (int)syscall(SYS_gettid);

    (void)sig;
    if (err)
        __atomic_store_n(&all.error, err, __ATOMIC_RELAXED);
    for (int i = 0; i < __atomic_load_n(&all.n, __ATOMIC_ACQUIRE); i++)
        if (all.tid[i] == tid)
            __atomic_store_n(&all.answered[i], 1, __ATOMIC_RELEASE);
    errno = saved_errno;
}

/* Sends the order to every thread but this one. 0 or -errno. */
static int order_threads(int sig)
{
    DIR *d = opendir("/proc/self/task");
    const struct dirent *e;
    int me = (int)syscall(SYS_gettid), err = 0;

    if (!d)
        return -errno;
    while (!err && (e = readdir(d)) != NULL) {
        int tid = atoi(e->d_name);

        if (tid <= 0 || tid == me)
            continue;
        if (all.n == THREADS_MAX) {
            err = -E2BIG;
            break;
        }
        all.tid[all.n] = tid;
        __atomic_store_n(&all.n, all.n + 1, __ATOMIC_RELEASE);
        if (syscall(SYS_tgkill, getpid(), tid, sig) && errno != ESRCH)
            err = -errno;
    }
    closedir(d);
    return err;
}

/* Every thread has answered, or is no more: one that was about to end takes no signal. */
static bool all_have(void)
{
    for (int i = 0; i < all.n; i++)
        if (!__atomic_load_n(&all.answered[i], __ATOMIC_ACQUIRE) &&
            !syscall(SYS_tgkill, getpid(), all.tid[i], 0))
            return false;
    return true;
}

static int confine_threads(void)
{
    struct sigaction sa = {.sa_handler = on_order, .sa_flags = SA_RESTART}, old;
    struct timespec nap = {.tv_nsec = ANSWER_POLL_NS};
    int sig = SIGRTMIN, err;

    memset(all.answered, 0, sizeof(all.answered));
    all.n = 0;
    all.error = 0;
    sigemptyset(&sa.sa_mask);
    if (sigaction(sig, &sa, &old))
        return -errno;
    err = order_threads(sig);
    if (!err)
        err = confine_thread();
    for (unsigned i = 0; !err && !all_have(); i++) {
        if (i == ANSWER_POLLS)
            return -ETIMEDOUT; /* the handler stays: an answer may still come */
        nanosleep(&nap, NULL);
    }
    sigaction(sig, &old, NULL);
    return err ? err : __atomic_load_n(&all.error, __ATOMIC_RELAXED);
}

/* Below the size from which malloc maps memory, together above that from which it gives back. */
#define PIECE 100000
#define PIECES 4

static void give_back(void *unused)
{
    void *volatile piece[PIECES];

    (void)unused;
    for (unsigned i = 0; i < PIECES; i++)
        piece[i] = malloc(PIECE);
    for (unsigned i = PIECES; i--;)
        free(piece[i]);
}

/*
 * glibc's malloc, when the first of a thread's memory is given back, looks into
 * /proc/sys/vm/overcommit_memory and remembers what it found (malloc-sysdep.h,
 * check_may_shrink_heap). That must not come after the filter.
 */
static int let_malloc_look(void)
{
    struct host_thread *t;
    int err = host_thread_create(&t, "malloc", give_back, NULL);

    if (!err)
        host_thread_join(t);
    return err;
}

int host_confine(const struct sandbox_spec *spec, char *err, size_t err_size)
{
    struct rlimit none = {0, 0};
    int r = let_malloc_look();

    if (r) {
        snprintf(err, err_size, "cannot create a thread: %s", strerror(-r));
        return r;
    }

    if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)) {
        snprintf(err, err_size, "cannot give up core files: %s", strerror(errno));
        return -errno;
    }
    all.caps = spec->caps;
    all.ruleset = landlock_ruleset(spec);
    if (all.ruleset < 0 && all.ruleset != -ENOSYS && all.ruleset != -EOPNOTSUPP) {
        snprintf(err, err_size, "Landlock: %s", strerror(-all.ruleset));
        return all.ruleset;
    }
    if (all.ruleset < 0)
        log_debug("sandbox: no Landlock here, seccomp alone keeps the %s process from files",
                  spec->name);
    r = confine_threads();
    if (all.ruleset >= 0)
        close(all.ruleset);
    if (r) {
        snprintf(err, err_size, "cannot give up rights in all threads: %s", strerror(-r));
        return r;
    }
    return filter_install(spec, err, err_size);
}

void host_sandbox_probe(struct sandbox_probe *p)
{
    p->seccomp = filter_available();
    p->landlock = landlock_abi();
}
