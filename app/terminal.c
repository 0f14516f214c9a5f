/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The terminal belongs to this process alone: the machine's own process never touches it. So it can
 * be left and taken again, and a confined machine needs no right to it.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include "commands.h"
#include "core/host.h"
#include "core/sandbox.h"
#include "escape.h"
#include "proto/console.h"
#include "queries.h"
#include "terminal.h"

#define INPUT_SIZE 256
#define BACKGROUND_POLL_MS 300
#define FINISH_MS 2000

/* The terminal's settings are given back from signal handlers too. */
static struct {
    struct termios saved;
    volatile sig_atomic_t raw;
    bool hooked;
} tty;

struct terminal {
    const struct terminal_config *cfg;
    struct terminal_result res;
    int signals;
    bool is_tty;
    bool input_open;  /* standard input has not ended */
    bool output_dead; /* nobody reads standard output any more */
    bool done;
    struct escape escape;
    struct queries queries;
    size_t out_pos, out_len; /* one message, on its way to standard output */
    u8 out[CONSOLE_PAYLOAD_MAX + QUERIES_HELD_MAX];
};

static void tty_restore(void)
{
    if (!tty.raw)
        return;
    tty.raw = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &tty.saved);
}

/* Everything typed reaches the guest as it is, C-c too; its output is not changed either. */
static void tty_make_raw(void)
{
    struct termios t;

    /* In the background, changing the terminal would stop us (SIGTTOU). */
    if (tcgetpgrp(STDIN_FILENO) != getpgrp() || tcgetattr(STDIN_FILENO, &t))
        return;
    /* Keep what the shell would want back: only if it changed our raw mode. */
    if (tty.raw && !(t.c_lflag & ICANON))
        return;
    tty.saved = t;
    cfmakeraw(&t);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    tty.raw = 1;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &t))
        tty.raw = 0;
}

static void send_message(struct terminal *t, u8 type, const void *payload, size_t n)
{
    struct iovec v[2] = {{&type, 1}, {(void *)payload, n}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};

    /* A machine that is gone shows at the next read. */
    while (sendmsg(t->cfg->sock, &m, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static void send_size(struct terminal *t)
{
    struct console_size size;
    struct winsize w;

    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &w))
        return;
    size = (struct console_size){w.ws_col, w.ws_row};
    send_message(t, CONSOLE_SIZE, &size, sizeof(size));
}

static void finish(struct terminal *t, enum terminal_end how)
{
    t->res.end = how;
    t->done = true;
}

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

static void detach(struct terminal *t)
{
    if (t->cfg->machine && !t->res.name[0]) {
        say("\r\ntrivisor: the machine has no console socket, it cannot be left\r\n");
        return;
    }
    send_message(t, CONSOLE_DETACH, NULL, 0);
    finish(t, TERMINAL_DETACHED);
}

static void obey(struct terminal *t, enum escape_action what)
{
    switch (what) {
    case ESCAPE_QUIT:
        send_message(t, CONSOLE_QUIT, NULL, 0);
        break;
    case ESCAPE_DETACH:
        detach(t);
        break;
    case ESCAPE_HELP:
        say("\r\nC-a x    quit: end the machine\r\n"
            "C-a d    detach: leave it running\r\n"
            "C-a h    this help\r\n"
            "C-a C-a  send C-a to the guest\r\n");
        break;
    case ESCAPE_NONE:
        break;
    }
}

/* --- standard input -----------------------------------------------------------------------------
 */

static void input_ended(struct terminal *t)
{
    t->input_open = false;
    if (t->is_tty)
        finish(t, TERMINAL_HUNG_UP);
}

static void read_input(struct terminal *t)
{
    u8 buf[INPUT_SIZE], typed[INPUT_SIZE];
    size_t used, taken;
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            input_ended(t);
        return;
    }
    if (!t->is_tty) {
        send_message(t, CONSOLE_INPUT, buf, (size_t)n);
        return;
    }
    for (size_t at = 0; at < (size_t)n && !t->done; at += used) {
        enum escape_action what =
            escape_filter(&t->escape, buf + at, (size_t)n - at, &used, typed, &taken);

        if (taken)
            send_message(t, CONSOLE_INPUT, typed, taken);
        obey(t, what);
    }
}

/* --- standard output ----------------------------------------------------------------------------
 */

/* Writes a piece. A pipe that polls writable takes PIPE_BUF bytes without blocking (pipe(7)). */
static void write_output(struct terminal *t)
{
    size_t n = t->out_len - t->out_pos;
    ssize_t r = write(STDOUT_FILENO, t->out + t->out_pos, n < PIPE_BUF ? n : PIPE_BUF);

    if (r > 0) {
        t->out_pos += (size_t)r;
        t->res.mid_line = t->is_tty && t->out[t->out_pos - 1] != '\n';
    } else if (r < 0 && errno != EAGAIN && errno != EINTR)
        t->output_dead = true;
    if (t->out_pos == t->out_len || t->output_dead)
        t->out_pos = t->out_len = 0;
}

/* What is left, for a reader that takes it within a while. */
static void drain_output(struct terminal *t)
{
    struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};

    while (t->out_len && poll(&p, 1, FINISH_MS) > 0)
        write_output(t);
}

/* --- the machine --------------------------------------------------------------------------------
 */

static void on_hello(struct terminal *t, const u8 *payload, size_t n)
{
    t->res.hello = true;
    if (n >= sizeof(t->res.name))
        n = sizeof(t->res.name) - 1;
    memcpy(t->res.name, payload, n);
    t->res.name[n] = 0;
    if (t->cfg->leave) {
        detach(t);
        return;
    }
    if (t->is_tty) {
        tty_make_raw();
        send_size(t);
    }
}

/* Output that came, to t->out. */
static void on_output(struct terminal *t, bool replay, const u8 *payload, size_t n)
{
    if (replay && t->is_tty) {
        t->out_len = queries_strip(&t->queries, payload, n, t->out);
    } else {
        t->out_len = queries_end(&t->queries, t->out);
        memcpy(t->out + t->out_len, payload, n);
        t->out_len += n;
    }
    if (t->output_dead)
        t->out_len = 0;
}

static void read_machine(struct terminal *t)
{
    u8 buf[1 + CONSOLE_PAYLOAD_MAX];
    ssize_t n = recv(t->cfg->sock, buf, sizeof(buf), MSG_DONTWAIT);
    u64 lost;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        finish(t, TERMINAL_LOST);
        return;
    }
    n--;
    switch (buf[0]) {
    case CONSOLE_HELLO:
        on_hello(t, buf + 1, (size_t)n);
        break;
    case CONSOLE_REPLAY:
    case CONSOLE_OUTPUT:
        on_output(t, buf[0] == CONSOLE_REPLAY, buf + 1, (size_t)n);
        break;
    case CONSOLE_LOST:
        if (n == sizeof(lost)) {
            memcpy(&lost, buf + 1, sizeof(lost));
            t->res.lost += lost;
        }
        break;
    case CONSOLE_END:
        finish(t, TERMINAL_ENDED);
        break;
    default: /* a later version's: not for us */
        break;
    }
}

/* --- signals ------------------------------------------------------------------------------------
 */

static void on_signal(struct terminal *t)
{
    struct signalfd_siginfo info;

    if (read(t->signals, &info, sizeof(info)) != sizeof(info))
        return;
    switch (info.ssi_signo) {
    case SIGWINCH:
        if (t->is_tty)
            send_size(t);
        break;
    case SIGCONT:
        /* The shell has had the terminal meanwhile. */
        if (t->is_tty && t->res.hello)
            tty_make_raw();
        break;
    default:
        if (t->cfg->machine) {
            kill(t->cfg->machine, (int)info.ssi_signo);
        } else {
            t->res.sig = (int)info.ssi_signo;
            finish(t, TERMINAL_SIGNAL);
        }
    }
}

static int watch_signals(sigset_t *before)
{
    static const int watched[] = {SIGINT, SIGTERM, SIGHUP, SIGCONT, SIGWINCH};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(watched); i++)
        sigaddset(&set, watched[i]);
    sigprocmask(SIG_BLOCK, &set, before);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* --- confinement --------------------------------------------------------------------------------
 */

static const struct sandbox_rule rules[] = {
    SANDBOX_ALLOW(SYS_recvfrom, "the machine's console"),
    SANDBOX_ALLOW(SYS_sendmsg, "the machine's console"),
    SANDBOX_ALLOW(SYS_ioctl, "is it a terminal, and which settings has it?",
                  SANDBOX_INT(1, TCGETS)),
    SANDBOX_ALLOW(SYS_ioctl, "raw mode, and back", SANDBOX_INT(1, TCSETS)),
    SANDBOX_ALLOW(SYS_ioctl, "the window's size", SANDBOX_INT(1, TIOCGWINSZ)),
    SANDBOX_ALLOW(SYS_ioctl, "are we in the foreground?", SANDBOX_INT(1, TIOCGPGRP)),
    SANDBOX_ALLOW(SYS_getpgrp, "the same"),
    SANDBOX_END,
};

/* This process has all the user's rights, and at its other end may be a machine that was taken over
 * by its guest. 0, or -errno after a message. */
static int confine(pid_t machine)
{
    const struct sandbox_rule parent[] = {
        SANDBOX_ALLOW(SYS_kill, "signals that are the machine's", SANDBOX_INT(0, machine)),
        SANDBOX_ALLOW(SYS_wait4, "the end of the machine"),
        SANDBOX_END,
    };
    struct sandbox_spec spec = {.name = "terminal",
                                .rules = {sandbox_base_rules, rules, machine ? parent : NULL},
                                .signals = machine != 0};
    struct sandbox_probe here;
    char err[200];
    int r;

    host_sandbox_probe(&here);
    if (!here.seccomp)
        return 0; /* whether to run at all is the machine's to say */
    host_close_inherited_fds();
    r = host_confine(&spec, err, sizeof(err));
    if (r)
        failure("cannot confine the terminal's process: %s", err);
    return r;
}

/* --- the loop -----------------------------------------------------------------------------------
 */

static void turn(struct terminal *t)
{
    /* In the background, what is typed is the shell's, and reading it would stop us. Nobody says
     * when we come to the foreground unless we were stopped: ask now and then. */
    bool background = t->is_tty && t->res.hello && !tty.raw;
    struct pollfd p[4] = {
        {.fd = t->signals, .events = POLLIN},
        {.fd = t->out_len ? -1 : t->cfg->sock, .events = POLLIN},
        {.fd = t->input_open && t->res.hello && !background ? STDIN_FILENO : -1, .events = POLLIN},
        {.fd = t->out_len ? STDOUT_FILENO : -1, .events = POLLOUT}};

    if (poll(p, ARRAY_SIZE(p), background ? BACKGROUND_POLL_MS : -1) < 0)
        return;
    if (p[0].revents)
        on_signal(t);
    if (p[3].revents)
        write_output(t);
    if (p[2].revents && !t->done)
        read_input(t);
    if (p[1].revents && !t->done)
        read_machine(t);
    if (background && !t->done)
        tty_make_raw();
}

struct terminal_result terminal_attach(const struct terminal_config *cfg)
{
    struct terminal t = {.cfg = cfg, .input_open = true};
    sigset_t before;

    t.is_tty = isatty(STDIN_FILENO) == 1;
    if (!tty.hooked)
        host_at_end(tty_restore);
    tty.hooked = true;
    t.signals = watch_signals(&before);
    if (t.signals < 0)
        finish(&t, TERMINAL_LOST);
    else if (cfg->confined && confine(cfg->machine))
        finish(&t, TERMINAL_FAILED);
    while (!t.done)
        turn(&t);
    drain_output(&t);
    tty_restore();
    close(cfg->sock);
    close(t.signals);
    return t.res;
}
