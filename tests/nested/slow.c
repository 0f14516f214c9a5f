/* SPDX-License-Identifier: Apache-2.0 */
/*
 * To be preloaded: makes a KVM that only emulates of one that does not. Every instruction of a
 * guest is a KVM_RUN of its own, which makes some ten thousand a second. With SLOW_KVM=hang no
 * KVM_RUN comes back.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FDS 1024

static struct kvm_run *run_of[FDS];

static long call(int fd, unsigned long request, void *arg)
{
    return syscall(SYS_ioctl, fd, request, arg);
}

static int run(int fd, void *arg)
{
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
    const struct kvm_run *r = run_of[fd];
    long err;

    do {
        err = call(fd, KVM_SET_GUEST_DEBUG, &debug);
        if (!err)
            err = call(fd, KVM_RUN, arg);
    } while (!err && r->exit_reason == KVM_EXIT_DEBUG);
    return (int)err;
}

static void hang(void)
{
    struct timespec hour = {.tv_sec = 3600};
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    for (;;)
        nanosleep(&hour, NULL);
}

/* The library's, in place of its own (ioctl(2)). */
int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;
    int r;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (request == KVM_RUN && fd >= 0 && fd < FDS && run_of[fd]) {
        if (getenv("SLOW_KVM") && !strcmp(getenv("SLOW_KVM"), "hang"))
            hang();
        return run(fd, arg);
    }
    r = (int)call(fd, request, arg);
    if (request == KVM_CREATE_VCPU && r >= 0 && r < FDS) {
        run_of[r] = mmap(NULL, sizeof(struct kvm_run), PROT_READ, MAP_SHARED, r, 0);
        if (run_of[r] == MAP_FAILED)
            run_of[r] = NULL;
    }
    return r;
}
