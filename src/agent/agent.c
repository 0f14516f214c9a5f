/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's first process when `trivisor run -- command` runs a command: the monitor adds it to
 * the initramfs. Mounts what programs expect, runs the command and passes its input, output and
 * exit status over the second serial port (proto/agent.h). Linked statically: the initramfs may
 * hold anything.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "proto/agent.h"

#define ARGS_MAX 4096

static struct {
    int port;
    int in;        /* the command's standard input, or its terminal; -1: closed */
    int out[3];    /* [1], [2]: its standard output and error (or the terminal); -1: closed */
    int signals;   /* a signalfd for SIGCHLD */
    int terminal;  /* the pty's master, or -1 */
    pid_t command; /* 0: has ended */
    int status;    /* how */
    int input_end; /* no more input comes: close in when pending is empty */
    size_t have;   /* bytes in frame */
    size_t pos, n; /* pending input: next byte, end */
    uint8_t pending[AGENT_CREDIT_FIRST];
    uint8_t frame[AGENT_HEADER_LEN + AGENT_FRAME_MAX];
} a = {.in = -1, .out = {-1, -1, -1}, .terminal = -1};

static void write_port(const void *data, size_t n)
{
    const uint8_t *at = data;

    while (n) {
        ssize_t r = write(a.port, at, n);

        if (r < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = a.port, .events = POLLOUT};

            poll(&p, 1, -1);
        } else if (r < 0 && errno != EINTR) {
            return;
        } else if (r > 0) {
            at += r;
            n -= (size_t)r;
        }
    }
}

static void send_frame(char type, const void *payload, size_t n)
{
    uint8_t head[AGENT_HEADER_LEN] = {(uint8_t)type, (uint8_t)n, (uint8_t)(n >> 8)};

    write_port(head, sizeof(head));
    write_port(payload, n);
}

/* A line on the command's standard error. */
__attribute__((format(printf, 1, 2))) static void complain(const char *fmt, ...)
{
    char text[512] = "trivisor: ";
    va_list ap;
    int n = (int)strlen(text);

    va_start(ap, fmt);
    n += vsnprintf(text + n, sizeof(text) - (size_t)n - 1, fmt, ap);
    va_end(ap);
    if (n > (int)sizeof(text) - 2)
        n = (int)sizeof(text) - 2;
    text[n++] = '\n';
    send_frame(AGENT_STDERR, text, (size_t)n);
}

/* The monitor ends the machine when it has heard the status and passed on all output. */
static _Noreturn void end(int status)
{
    uint8_t code = (uint8_t)status;

    sync();
    send_frame(AGENT_EXIT, &code, 1);
    for (;;)
        pause();
}

/* --- setting up ---------------------------------------------------------------------------------
 */

static void mount_one(const char *type, const char *where)
{
    mkdir(where, 0755);
    mount(type, where, type, 0, NULL); /* there already, or done without */
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

static void set_up_system(void)
{
    mount_one("devtmpfs", "/dev");
    mount_one("proc", "/proc");
    mount_one("sysfs", "/sys");
    mount_one("tmpfs", "/tmp");
    mount_one("devpts", "/dev/pts");
    mount_one("tmpfs", "/dev/shm");
    loopback_up();
    sethostname("trivisor", 8);
}

/* The port, or an end without a word: there is nobody to tell. */
static void open_port(void)
{
    struct termios t;

    a.port = open(AGENT_PORT, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (a.port < 0 || tcgetattr(a.port, &t)) {
        printf("trivisor: the guest has no %s\n", AGENT_PORT);
        fflush(stdout);
        tcdrain(STDOUT_FILENO);
        reboot(RB_POWER_OFF);
        for (;;)
            pause();
    }
    cfmakeraw(&t);
    cfsetspeed(&t, B115200);
    t.c_cflag |= CLOCAL | CREAD;
    tcsetattr(a.port, TCSANOW, &t);
    tcflush(a.port, TCIFLUSH);
    write_port(AGENT_GREETING, AGENT_GREETING_LEN);
}

/* Reads a whole file and puts a NUL behind it. NULL: none. */
static char *read_file(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *text;

    if (fd < 0 || fstat(fd, &st))
        return NULL;
    text = calloc(1, (size_t)st.st_size + 1);
    *size = 0;
    while (text && *size < (size_t)st.st_size) {
        ssize_t n = read(fd, text + *size, (size_t)st.st_size - *size);

        if (n <= 0)
            break;
        *size += (size_t)n;
    }
    close(fd);
    return text;
}

static char **read_command(void)
{
    static char *argv[ARGS_MAX + 1];
    size_t size, n = 0;
    char *text = read_file(AGENT_COMMAND, &size);

    for (size_t at = 0; text && at < size && n < ARGS_MAX; at += strlen(text + at) + 1)
        argv[n++] = text + at;
    if (!n) {
        complain("there is no command in %s", AGENT_COMMAND);
        end(127);
    }
    return argv;
}

static void set_environment(const char *term)
{
    clearenv();
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    setenv("HOME", "/root", 1);
    setenv("USER", "root", 1);
    if (term)
        setenv("TERM", term, 1);
    if (chdir("/root") && chdir("/"))
        return;
}

/* --- the command --------------------------------------------------------------------------------
 */

/* The child: in a session of its own, on a terminal or pipes. Never returns. */
static _Noreturn void exec_command(char **argv, const int fds[3], int terminal)
{
    sigset_t none;
    int err;

    setsid();
    if (terminal)
        ioctl(fds[0], TIOCSCTTY, 0);
    for (int i = 0; i < 3; i++)
        dup2(fds[i], i);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    execvp(argv[0], argv);
    err = errno;
    dprintf(STDERR_FILENO, "trivisor: cannot run %s: %s\n", argv[0], strerror(err));
    _exit(err == ENOENT ? 127 : 126);
}

static void fail_setup(const char *what)
{
    complain("%s: %s", what, strerror(errno));
    end(126);
}

/* A pty for the command; its slave in fds. */
static void open_terminal(int fds[3])
{
    char path[64];

    a.terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (a.terminal < 0 || grantpt(a.terminal) || unlockpt(a.terminal) ||
        ptsname_r(a.terminal, path, sizeof(path)))
        fail_setup("no pseudo-terminal");
    fds[0] = fds[1] = fds[2] = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fds[0] < 0)
        fail_setup(path);
    a.in = a.out[1] = a.terminal;
}

static void open_pipes(int fds[3])
{
    for (int i = 0; i < 3; i++) {
        int p[2];

        if (pipe2(p, O_CLOEXEC))
            fail_setup("no pipe");
        fds[i] = p[i ? 1 : 0];
        if (i)
            a.out[i] = p[0];
        else
            a.in = p[1];
    }
    fcntl(a.in, F_SETFL, O_NONBLOCK);
}

static void start_command(char **argv, int terminal)
{
    int fds[3];
    sigset_t set;

    if (terminal)
        open_terminal(fds);
    else
        open_pipes(fds);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    a.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    a.command = fork();
    if (a.command < 0)
        fail_setup("no process");
    if (a.command == 0)
        exec_command(argv, fds, terminal);
    for (int i = 0; i < (terminal ? 1 : 3); i++)
        close(fds[i]);
}

/* Everybody who ended; the command's status is kept. */
static void reap(void)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    while (read(a.signals, &info, sizeof(info)) == sizeof(info))
        ;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != a.command)
            continue;
        a.command = 0;
        a.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
}

/* --- input --------------------------------------------------------------------------------------
 */

static void close_input(void)
{
    if (a.in >= 0 && a.terminal < 0)
        close(a.in);
    a.in = -1;
}

/* Passes on what is pending, as far as the command takes it. */
static void feed(void)
{
    size_t before = a.pos;

    while (a.pos < a.n && a.in >= 0) {
        ssize_t r = write(a.in, a.pending + a.pos, a.n - a.pos);

        if (r > 0)
            a.pos += (size_t)r;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            close_input();
    }
    if (a.in < 0)
        a.pos = a.n; /* nobody reads it any more */
    if (a.pos != before) {
        uint16_t n = (uint16_t)(a.pos - before);
        uint8_t le[2] = {(uint8_t)n, (uint8_t)(n >> 8)};

        send_frame(AGENT_CREDIT, le, 2);
    }
    if (a.pos == a.n) {
        a.pos = a.n = 0;
        if (a.input_end)
            close_input();
    }
}

static void add_input(const uint8_t *data, size_t n)
{
    /* The monitor keeps to its credit, so that it fits. */
    memmove(a.pending, a.pending + a.pos, a.n - a.pos);
    a.n -= a.pos;
    a.pos = 0;
    if (n > sizeof(a.pending) - a.n)
        n = sizeof(a.pending) - a.n;
    memcpy(a.pending + a.n, data, n);
    a.n += n;
    feed();
}

static void on_frame(uint8_t type, const uint8_t *p, size_t n)
{
    struct winsize w = {0};

    switch (type) {
    case AGENT_INPUT:
        add_input(p, n);
        break;
    case AGENT_INPUT_END:
        a.input_end = 1;
        feed();
        break;
    case AGENT_SIZE:
        if (n == 4 && a.terminal >= 0) {
            w.ws_col = (uint16_t)(p[0] | p[1] << 8);
            w.ws_row = (uint16_t)(p[2] | p[3] << 8);
            ioctl(a.terminal, TIOCSWINSZ, &w);
        }
        break;
    case AGENT_BROKEN:
        if (n == 1 && (p[0] == 1 || p[0] == 2) && a.terminal < 0 && a.out[p[0]] >= 0) {
            close(a.out[p[0]]);
            a.out[p[0]] = -1;
        }
        break;
    }
}

static void read_port(void)
{
    ssize_t r = read(a.port, a.frame + a.have, sizeof(a.frame) - a.have);
    size_t at = 0;

    if (r <= 0)
        return;
    a.have += (size_t)r;
    while (a.have - at >= AGENT_HEADER_LEN) {
        const uint8_t *f = a.frame + at;
        size_t n = (size_t)(f[1] | f[2] << 8);

        if (n > AGENT_FRAME_MAX)
            n = AGENT_FRAME_MAX;
        if (a.have - at < AGENT_HEADER_LEN + n)
            break;
        on_frame(f[0], f + AGENT_HEADER_LEN, n);
        at += AGENT_HEADER_LEN + n;
    }
    memmove(a.frame, a.frame + at, a.have - at);
    a.have -= at;
}

/* --- output -------------------------------------------------------------------------------------
 */

/* Passes on a piece. 0: there is nothing now, or no more. */
static int pass_output(int which)
{
    uint8_t buf[AGENT_FRAME_MAX];
    struct pollfd p = {.fd = a.out[which], .events = POLLIN};
    ssize_t r;

    if (a.out[which] < 0 || poll(&p, 1, 0) <= 0)
        return 0;
    r = read(a.out[which], buf, sizeof(buf));
    if (r > 0) {
        send_frame(which == 1 ? AGENT_STDOUT : AGENT_STDERR, buf, (size_t)r);
        return 1;
    }
    /* A terminal whose last user is gone gives EIO; the next user may come while the command runs.
     */
    if (a.terminal < 0 || !a.command) {
        close(a.out[which]);
        a.out[which] = -1;
    } else if (r < 0 && errno == EIO) {
        poll(NULL, 0, 20);
    }
    return 0;
}

static void turn(void)
{
    struct pollfd p[5] = {{.fd = a.port, .events = POLLIN},
                          {.fd = a.signals, .events = POLLIN},
                          {.fd = a.out[1], .events = POLLIN},
                          {.fd = a.out[2], .events = POLLIN},
                          {.fd = a.n ? a.in : -1, .events = POLLOUT}};

    if (poll(p, 5, -1) < 0)
        return;
    if (p[0].revents)
        read_port();
    if (p[4].revents)
        feed();
    pass_output(1);
    pass_output(2);
    if (p[1].revents)
        reap();
}

int main(void)
{
    size_t size;
    char *term;
    char **argv;

    if (getpid() != 1) {
        fprintf(stderr, "trivisor: only for a guest's first process\n");
        return 1;
    }
    set_up_system();
    open_port();
    signal(SIGPIPE, SIG_IGN);
    argv = read_command();
    term = read_file(AGENT_TERMINAL, &size);
    set_environment(term);
    start_command(argv, term != NULL);
    while (a.command)
        turn();
    /* What it has left in its pipes; others that still hold them are not waited for. */
    while (pass_output(1) || pass_output(2))
        ;
    end(a.status);
}
