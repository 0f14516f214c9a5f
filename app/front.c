/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "commands.h"
#include "front.h"
#include "terminal.h"

/* The child: a session of its own, so that the terminal's signals and its end are not the
 * machine's. */
static int be_machine(int (*machine)(void *opaque, int fd), void *opaque, int fd)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    setsid();
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        return failure("cannot open /dev/null: %s", strerror(errno));
    close(null);
    return machine(opaque, fd);
}

static int wait_for(pid_t machine)
{
    int status;

    while (waitpid(machine, &status, 0) < 0)
        if (errno != EINTR)
            return EXIT_STATUS_FAILURE;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    failure("the machine's process was killed by signal %d (%s)%s", WTERMSIG(status),
            strsignal(WTERMSIG(status)),
            WTERMSIG(status) == SIGKILL ? "; the host does so when it runs out of memory" : "");
    return 128 + WTERMSIG(status);
}

static int be_terminal(pid_t machine, int fd, bool leave, bool confined)
{
    struct terminal_config t = {
        .sock = fd, .machine = machine, .leave = leave, .confined = confined};
    struct terminal_result r = terminal_attach(&t);

    if (r.lost)
        fprintf(stderr, "trivisor: the reader was too slow, %llu bytes of output were dropped\n",
                (unsigned long long)r.lost);
    if (r.end == TERMINAL_FAILED) {
        wait_for(machine);
        return EXIT_STATUS_FAILURE;
    }
    if (r.end != TERMINAL_DETACHED)
        return wait_for(machine);
    if (leave)
        printf("%s\n", r.name);
    else
        fprintf(stderr, "%strivisor: left '%s' running; 'trivisor console %s' comes back to it\n",
                r.mid_line ? "\n" : "", r.name, r.name);
    return 0;
}

int front_run(int (*machine)(void *opaque, int fd), void *opaque, bool leave, bool confined)
{
    int pair[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return failure("no sockets: %s", strerror(errno));
    fflush(NULL);
    pid = fork();
    if (pid < 0)
        return failure("no process for the machine: %s", strerror(errno));
    if (pid == 0) {
        close(pair[0]);
        return be_machine(machine, opaque, pair[1]);
    }
    close(pair[1]);
    return be_terminal(pid, pair[0], leave, confined);
}
