/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames of a command in the guest (proto/agent.h), either end: the port's bytes as the monitor
 * gets them from a hostile guest, and as the agent gets them.
 */
#include <fcntl.h>
#include <sys/socket.h>

/* The agent is one program; its parts are wanted here. */
#define main agent_main
#include "../../src/agent/agent.c"
#undef main
#include "backend/char/command.h"
#include "fake_host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *at, *stop;

static u32 take(unsigned n)
{
    u32 v = 0;

    for (unsigned i = 0; i < n && at < stop; i++)
        v |= (u32)*at++ << (8 * i);
    return v;
}

static void check(bool good)
{
    if (!good)
        abort();
}

int host_loop_add_fd(int fd, u32 events, host_fd_fn *fn, void *opaque)
{
    (void)fd, (void)events, (void)fn, (void)opaque;
    return 0;
}

int host_loop_mod_fd(int fd, u32 events)
{
    (void)fd, (void)events;
    return 0;
}

void host_loop_del_fd(int fd)
{
    (void)fd;
}

/* --- the monitor's end ---------------------------------------------------------------------------
 */

static struct machine *m;
static size_t room;

static size_t terminal_write(struct chardev *c, const u8 *buf, size_t n)
{
    volatile u8 sum = 0;

    (void)c;
    for (size_t i = 0; i < n; i++)
        sum = (u8)(sum + buf[i]);
    return n;
}

static void terminal_close(struct chardev *c)
{
    (void)c;
}

/* The serial port, with room now and then. */
static size_t port_input(void *dev, const u8 *buf, size_t n)
{
    volatile u8 sum = 0;

    (void)dev;
    if (n > room)
        n = room;
    for (size_t i = 0; i < n; i++)
        sum = (u8)(sum + buf[i]);
    room -= n;
    return n;
}

static void monitor_end(void)
{
    static struct chardev terminal;
    char err[256];
    u8 buf[AGENT_FRAME_MAX];
    struct chardev *c;
    int status;

    terminal = (struct chardev){.write = terminal_write, .close = terminal_close};
    m->vm.stop_reason = 0;
    m->vm.stop_claimed = 0;
    room = 0;
    c = command_open(&m->vm, &terminal, err, sizeof(err));
    check(c);
    c->on_input = port_input;
    vm_lock(&m->vm);
    if (take(1) & 1)
        c->write(c, (const u8 *)AGENT_GREETING, AGENT_GREETING_LEN);
    while (at < stop) {
        u32 what = take(1), n = take(1);

        switch (what % 4) {
        case 0:
        case 1: /* the guest writes */
            if (n > (size_t)(stop - at))
                n = (u32)(stop - at);
            check(c->write(c, at, n) == n); /* a terminal takes all */
            at += n;
            break;
        case 2: /* somebody types */
            memset(buf, 't', sizeof(buf));
            check(terminal.on_input(terminal.dev, buf, 16 * n + 1) <= AGENT_FRAME_MAX);
            break;
        default:
            room = 64 * n;
            terminal.on_resize(terminal.dev, (u16)n, 25);
            vm_unlock(&m->vm);
            fake_settle();
            vm_lock(&m->vm);
            c->kick_input(c);
            break;
        }
        command_ended(c, &status);
    }
    vm_unlock(&m->vm);
    fake_settle();
    c->close(c);
}

/* --- the agent's end -----------------------------------------------------------------------------
 */

static void agent_end(void)
{
    int port[2], in[2];
    u8 rest[AGENT_FRAME_MAX];

    check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, port));
    check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, in));
    memset(&a, 0, sizeof(a));
    a.port = port[0];
    a.in = in[0];
    a.out[0] = a.out[1] = a.out[2] = a.terminal = -1;
    while (at < stop) {
        size_t n = take(2);

        if (n > (size_t)(stop - at))
            n = (size_t)(stop - at);
        check(!n || write(port[1], at, n) == (ssize_t)n);
        at += n;
        for (size_t k = 0; k < n; k += sizeof(a.frame)) /* as often as it takes */
            read_port();
        while (recv(port[0], rest, 1, MSG_PEEK | MSG_DONTWAIT) == 1)
            read_port();
        check(a.have <= sizeof(a.frame) && a.pos <= a.n && a.n <= sizeof(a.pending));
        if (take(1) & 1) { /* the command reads */
            while (recv(in[1], rest, sizeof(rest), MSG_DONTWAIT) > 0)
                ;
            feed();
        }
        while (recv(port[1], rest, sizeof(rest), MSG_DONTWAIT) > 0)
            ;
    }
    if (a.in >= 0)
        close(in[0]);
    close(in[1]);
    close(port[0]);
    close(port[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    at = data;
    stop = data + size;
    if (!m)
        m = machine_new(1);
    if (take(1) & 1)
        agent_end();
    else
        monitor_end();
    return 0;
}
