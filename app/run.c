/* SPDX-License-Identifier: Apache-2.0 */
/* trivisor run. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "board/pc.h"
#include "commands.h"
#include "config/config.h"
#include "core/host.h"
#include "host/init.h"

struct run {
    struct pc *pc;
    int signals;
};

/* Event loop: one of the signals that end a machine in good order, or SIGCONT. */
static void on_signals(void *opaque, u32 events)
{
    struct run *r = opaque;
    struct signalfd_siginfo info;
    char why[64];

    (void)events;
    if (read(r->signals, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGCONT) {
        pc_continued(r->pc);
        return;
    }
    snprintf(why, sizeof(why), "ended by signal %u (%s)", info.ssi_signo,
             strsignal((int)info.ssi_signo));
    pc_quit(r->pc, 128 + (int)info.ssi_signo, why);
}

/* Blocks them in this thread and those it will create. */
static int watch_signals(struct run *r)
{
    sigset_t set;
    int err;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCONT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (r->signals < 0)
        return -errno;
    err = host_loop_add_fd(r->signals, EPOLLIN, on_signals, r);
    if (err)
        close(r->signals);
    return err;
}

int cmd_run(int argc, char **argv)
{
    struct run r = {.signals = -1};
    struct config cfg;
    char err[512];
    int status;

    config_defaults(&cfg);
    if (config_parse(&cfg, argc, argv, err, sizeof(err)))
        return failure("%s", err);
    if (cfg.help) {
        print_run_help(stdout);
        return 0;
    }
    if (cfg.dump_options) {
        config_print_dump(stdout);
        return 0;
    }
    if (!cfg.kernel)
        return failure("no kernel: give one with -k (a bzImage, PVH or Multiboot image)");
    host_init(cfg.verbose ? LOG_DEBUG : cfg.quiet ? LOG_ERROR : LOG_INFO);
    if (watch_signals(&r))
        return failure("cannot watch signals");
    r.pc = pc_create(&cfg, err, sizeof(err));
    if (!r.pc)
        return failure("%s", err);
    status = cfg.check ? 0 : pc_run(r.pc);
    pc_destroy(r.pc);
    host_loop_del_fd(r.signals);
    close(r.signals);
    return status;
}
