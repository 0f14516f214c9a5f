/* SPDX-License-Identifier: Apache-2.0 */
/* trivisor console: the machines that run, and the terminal as one's console. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "core/host.h"
#include "host/init.h"
#include "host/rundir.h"
#include "terminal.h"

static void print_machine(void *opaque, const char *name, pid_t pid)
{
    unsigned *n = opaque;

    printf("%-24s %d\n", name, (int)pid);
    ++*n;
}

static int list(void)
{
    char err[512];
    unsigned n = 0;
    int dir = rundir_open(false, err, sizeof(err)), r = 0;

    if (dir < 0 && dir != -ENOENT)
        return failure("%s", err);
    if (dir >= 0) {
        r = rundir_list(dir, print_machine, &n);
        close(dir);
    }
    if (r)
        return failure("cannot list the running machines: %s", strerror(-r));
    if (!n)
        fprintf(stderr, "trivisor: no machine runs\n");
    return 0;
}

static int attach(const char *name)
{
    char err[512];
    int dir = rundir_open(false, err, sizeof(err)), sock;

    if (dir == -ENOENT)
        return -ENOENT;
    if (dir < 0) {
        failure("%s", err);
        return dir;
    }
    sock = strlen(name) > RUNDIR_NAME_MAX || strchr(name, '/')
               ? -ENOENT
               : rundir_connect(dir, name, RUNDIR_CONSOLE);
    close(dir);
    if (sock < 0 && sock != -ENOENT && sock != -ECONNREFUSED)
        failure("cannot reach the machine '%s': %s", name, strerror(-sock));
    return sock == -ECONNREFUSED ? -ENOENT : sock;
}

static int report(const char *name, const struct terminal_result *r)
{
    if (r->mid_line)
        fputc('\n', stderr);
    if (r->lost)
        fprintf(stderr, "trivisor: the reader was too slow, %llu bytes of output were dropped\n",
                (unsigned long long)r->lost);
    switch (r->end) {
    case TERMINAL_ENDED:
        fprintf(stderr, "trivisor: the machine '%s' has ended\n", name);
        return 0;
    case TERMINAL_LOST:
        if (!r->hello)
            return failure("the machine '%s' takes no more clients", name);
        return failure("the machine '%s' is gone: its process was killed", name);
    case TERMINAL_DETACHED:
        fprintf(stderr, "trivisor: left the machine '%s' running\n", name);
        return 0;
    case TERMINAL_HUNG_UP:
        break;
    case TERMINAL_SIGNAL:
        return 128 + r->sig;
    case TERMINAL_FAILED:
        return EXIT_STATUS_FAILURE;
    }
    return 0;
}

int cmd_console(int argc, char **argv)
{
    struct terminal_config t = {.sock = -1, .confined = true};
    struct terminal_result r;

    if (!argc)
        return list();
    if (argc > 1)
        return failure("console takes one name");
    host_init(LOG_INFO);
    t.sock = attach(argv[0]);
    if (t.sock == -ENOENT)
        return failure("no machine '%s' runs; trivisor console lists those that do", argv[0]);
    if (t.sock < 0)
        return EXIT_STATUS_FAILURE;
    r = terminal_attach(&t);
    return report(argv[0], &r);
}
