/* SPDX-License-Identifier: Apache-2.0 */
/* trivisor run. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "board/pc.h"
#include "board/saved.h"
#include "commands.h"
#include "config/config.h"
#include "core/host.h"
#include "front.h"
#include "host/init.h"
#include "host/rundir.h"

struct run {
    struct config cfg;
    struct pc_ends ends;
    char name[RUNDIR_NAME_MAX + 1];
    struct pc *pc;
    int signals;
    char taken[512]; /* what a saved machine's options name of this host */
    int argc;        /* its options, as they were typed */
    char **argv;
    const char *file; /* the saved machine's; NULL: none */
};

/* Event loop: one of the signals that end a machine in good order. */
static void on_signals(void *opaque, u32 events)
{
    struct run *r = opaque;
    struct signalfd_siginfo info;
    char why[64];

    (void)events;
    if (read(r->signals, &info, sizeof(info)) != sizeof(info))
        return;
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
    sigprocmask(SIG_BLOCK, &set, NULL);
    r->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (r->signals < 0)
        return -errno;
    err = host_loop_add_fd(r->signals, EPOLLIN, on_signals, r);
    if (err)
        close(r->signals);
    return err;
}

/* Takes the machine's name and opens its sockets. 0, or -errno with one line in err. Without
 * a place for them only a machine that was given a name, or shall be left, is refused. */
static int take_name(struct run *r, char *err, size_t err_size)
{
    bool needed = r->cfg.name || r->cfg.detach;
    int dir = rundir_open(true, err, err_size), fd;

    if (r->cfg.name)
        snprintf(r->name, sizeof(r->name), "%s", r->cfg.name);
    else
        snprintf(r->name, sizeof(r->name), "trivisor-%d", (int)getpid());
    fd = dir;
    if (dir >= 0) {
        fd = rundir_claim(dir, r->name, err, err_size);
        if (!fd)
            fd = rundir_listen(dir, r->name, RUNDIR_CONSOLE, err, err_size);
        if (fd >= 0)
            r->ends.control_fd = rundir_listen(dir, r->name, RUNDIR_CONTROL, err, err_size);
        close(dir);
    }
    if (fd >= 0 && r->ends.control_fd < 0) {
        close(fd);
        fd = r->ends.control_fd;
        r->ends.control_fd = -1;
    }
    if (fd < 0) {
        r->name[0] = 0;
        return needed ? fd : 0;
    }
    r->ends.name = r->name;
    r->ends.console_fd = fd;
    return 0;
}

/* A machine that cannot be made: err says why. */
static int refuse(const struct run *r, char *err, size_t err_size)
{
    bool option = err[0] == '-';

    if (config_as_typed(err, err_size, r->argc, r->argv) || !option || !r->file)
        return failure("%s", err);
    /* Nobody typed that: it is as it was saved, and can be had otherwise. */
    return failure("%s (from %s's options: it can be given anew with %.*s)", err, r->file,
                   (int)strcspn(err, " :"), err);
}

/* The machine, in whichever process it runs. Returns the exit status. */
static int run_machine(void *opaque, int terminal_fd)
{
    struct run *r = opaque;
    char err[512];
    int status;

    r->ends.terminal_fd = terminal_fd;
    r->ends.console_fd = r->ends.control_fd = -1;
    r->ends.version = program_version;
    if (!r->cfg.check && take_name(r, err, sizeof(err)))
        return failure("%s", err);
    if (watch_signals(r))
        return failure("cannot watch signals");
    r->pc = pc_create(&r->cfg, &r->ends, err, sizeof(err));
    r->ends.saved = NULL;
    if (!r->pc)
        return refuse(r, err, sizeof(err));
    if (r->taken[0])
        log_info("as it was saved: %s", r->taken);
    status = r->cfg.check ? 0 : pc_run(r->pc);
    pc_destroy(r->pc);
    host_loop_del_fd(r->signals);
    close(r->signals);
    return status;
}

static bool on_stdio(const struct config *c)
{
    return !strcmp(c->serial, "stdio") ||
           (c->virtio_console && !strcmp(c->virtio_console, "stdio"));
}

/* Whether somebody is to hold the terminal: for the console, or for a command that would have one
 * without us. */
static bool wants_terminal(const struct config *c)
{
    if (c->command)
        return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    return c->detach || (on_stdio(c) && isatty(STDIN_FILENO));
}

/* What follows the options, of a machine that starts or goes on. */
static int begin(struct run *r)
{
    const struct config *c = &r->cfg;

    /* The output is the command's alone. */
    host_init(c->verbose ? LOG_DEBUG : c->quiet || c->command ? LOG_ERROR : LOG_INFO);
    if (!c->check && wants_terminal(c))
        return front_run(run_machine, r, c->detach, strcmp(c->sandbox, "off") != 0);
    return run_machine(r, -1);
}

int cmd_run(int argc, char **argv)
{
    struct run r = {.signals = -1, .argc = argc, .argv = argv};
    char err[512];

    config_defaults(&r.cfg);
    if (config_parse(&r.cfg, argc, argv, err, sizeof(err)))
        return failure("%s", err);
    if (r.cfg.help) {
        print_run_help(stdout);
        return 0;
    }
    if (r.cfg.dump_options) {
        config_print_dump(stdout);
        return 0;
    }
    if (!r.cfg.kernel && !r.cfg.disk.n)
        return failure("nothing to boot: give a disk image, or a kernel with -k (a bzImage, PVH or "
                       "Multiboot image)");
    if (r.cfg.command && (!r.cfg.kernel || !r.cfg.initrd))
        return failure("a command is run in an initramfs: give one that holds it with -i, and a "
                       "kernel with -k");
    if (r.cfg.command && r.cfg.detach)
        return failure("a command is not run in the background: leave out --detach");
    if (r.cfg.command && r.cfg.virtio_console && !strcmp(r.cfg.virtio_console, "stdio"))
        return failure("standard input and output are the command's: not --virtio-console stdio");
    return begin(&r);
}

int cmd_restore(int argc, char **argv)
{
    struct run r = {.signals = -1};
    const struct config_line *saved;
    char err[512];
    size_t n;

    if (!argc || argv[0][0] == '-')
        return failure("restore takes a file that trivisor snapshot wrote, and then options");
    r.file = argv[0];
    r.argc = argc - 1;
    r.argv = argv + 1;
    r.ends.saved = pc_saved_open(argv[0], err, sizeof(err));
    if (!r.ends.saved)
        return failure("%s", err);
    saved = pc_saved_options(r.ends.saved, &n);
    if (config_restore(&r.cfg, saved, n, argc - 1, argv + 1, r.taken, sizeof(r.taken), err,
                       sizeof(err))) {
        pc_saved_close(r.ends.saved);
        return failure("%s", err);
    }
    if (r.cfg.help || r.cfg.dump_options) {
        pc_saved_close(r.ends.saved);
        return failure("restore takes options of run; see trivisor help run");
    }
    return begin(&r);
}
