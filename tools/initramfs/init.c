/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First process of the test and demonstration guest: mounts what a shell needs, runs one shell on
 * the serial console with job control, and ends the machine when the shell ends or when poweroff,
 * reboot or halt ask for it (by the signals busybox sends to process 1).
 *
 * Kernel parameters it understands (the kernel hands unknown NAME=VALUE parameters to init as
 * environment):  run="command"  runs the command instead of an interactive shell;
 * modules=a,b  loads these besides the drivers of the devices it finds.
 *
 * Under the name modprobe it is that program.
 */
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "modules.h"

static void say(const char *what)
{
    ssize_t n = write(STDOUT_FILENO, what, strlen(what));

    (void)n; /* there is nowhere to complain to */
}

static void mount_one(const char *type, const char *where)
{
    mkdir(where, 0755);
    if (mount(type, where, type, 0, NULL))
        printf("init: cannot mount %s on %s\n", type, where);
}

static void loopback_up(void)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int s = socket(AF_INET, SOCK_DGRAM, 0);

    if (s >= 0) {
        ioctl(s, SIOCSIFFLAGS, &r);
        close(s);
    }
}

/* The terminal behind /dev/console: /dev/console itself cannot be a controlling terminal. */
static const char *terminal(void)
{
    static char path[64] = "/dev/console";
    char text[128];
    int fd = open("/sys/class/tty/console/active", O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    if (n > 0) {
        char *last;

        text[n] = '\0';
        text[strcspn(text, "\n")] = '\0';
        last = strrchr(text, ' ');
        snprintf(path, sizeof(path), "/dev/%.50s", last ? last + 1 : text);
    }
    return path;
}

static void banner(void)
{
    struct utsname u;
    struct sysinfo s;

    if (uname(&u) || sysinfo(&s))
        return;
    printf("\n  Linux %s, %ld CPU(s), %lu MiB\n", u.release, sysconf(_SC_NPROCESSORS_ONLN),
           s.totalram * s.mem_unit >> 20);
    printf("  Type 'poweroff' (or C-a x on the host side) to leave.\n\n");
}

static pid_t start(const char *command, const sigset_t *waited)
{
    pid_t pid = fork();

    if (pid == 0) {
        int fd;

        sigprocmask(SIG_UNBLOCK, waited, NULL);
        setsid();
        /* A controlling terminal is hung up when its session ends, and drops what it has not sent:
         * a command's last lines. Only the shell, which needs it for job control, gets one. */
        fd = open(terminal(), O_RDWR | O_NOCTTY);
        if (fd >= 0) {
            if (!command)
                ioctl(fd, TIOCSCTTY, 0);
            for (int i = 0; i < 3; i++)
                dup2(fd, i);
            if (fd > 2)
                close(fd);
        }
        if (chdir("/root"))
            say("init: no /root\n");
        if (command)
            execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        else
            execl("/bin/sh", "-sh", (char *)NULL);
        say("init: cannot run /bin/sh\n");
        _exit(127);
    }
    return pid;
}

static _Noreturn void end(int how)
{
    fflush(stdout);
    tcdrain(STDOUT_FILENO);
    sync();
    reboot(how);
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    const char *command = getenv("run");
    sigset_t waited;
    pid_t shell;

    if (argc && !strcmp(basename(argv[0]), "modprobe"))
        return modules_modprobe(argc, argv);
    if (getpid() != 1) {
        say("init: only for a guest's process 1\n");
        return 1;
    }
    say("trivisor-guest: init\n");
    setvbuf(stdout, NULL, _IOLBF, 0);
    mount_one("devtmpfs", "/dev");
    mount_one("proc", "/proc");
    mount_one("sysfs", "/sys");
    mount_one("tmpfs", "/tmp");
    mount_one("devpts", "/dev/pts");
    sethostname("trivisor", 8);
    loopback_up();
    modules_coldplug(getenv("modules"));
    setenv("PATH", "/bin", 1);
    setenv("HOME", "/root", 1);
    setenv("TERM", "linux", 0);

    sigemptyset(&waited);
    sigaddset(&waited, SIGCHLD);
    sigaddset(&waited, SIGUSR1);
    sigaddset(&waited, SIGUSR2);
    sigaddset(&waited, SIGTERM);
    sigprocmask(SIG_BLOCK, &waited, NULL);

    if (!command)
        banner();
    shell = start(command, &waited);
    for (;;) {
        int sig = sigwaitinfo(&waited, NULL), status;
        pid_t pid;

        if (sig == SIGUSR2)
            end(RB_POWER_OFF);
        if (sig == SIGUSR1)
            end(RB_HALT_SYSTEM);
        if (sig == SIGTERM)
            end(RB_AUTOBOOT);
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
            if (pid != shell)
                continue;
            if (command)
                printf("trivisor-guest: exit %d\n",
                       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
            end(RB_POWER_OFF);
        }
        if (pid < 0 && shell < 0)
            end(RB_POWER_OFF);
    }
}
