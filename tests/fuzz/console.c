/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console's socket (proto/console.h), either end: what a client may send the machine, and what
 * a machine that was taken over may send the terminal of its user.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "../../app/terminal.c"
#include "backend/char/console.h"
#include "backend/char/console_priv.h"
#include "fake_host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *at, *end;

static u32 take(unsigned n)
{
    u32 v = 0;

    for (unsigned i = 0; i < n && at < end; i++)
        v |= (u32)*at++ << (8 * i);
    return v;
}

/* A message: its length in two bytes, then as much of it as there is. */
static size_t take_message_bytes(u8 *buf, size_t max)
{
    size_t n = take(2) % (max + 1);

    if (n > (size_t)(end - at))
        n = (size_t)(end - at);
    memcpy(buf, at, n);
    at += n;
    return n;
}

static void check(bool good)
{
    if (!good)
        abort();
}

/* --- what the two are linked with ----------------------------------------------------------------
 */

static struct {
    int fd;
    u32 events;
    host_fd_fn *fn;
    void *opaque;
} watch_of = {.fd = -1};

int host_loop_add_fd(int fd, u32 events, host_fd_fn *fn, void *opaque)
{
    watch_of.fd = fd;
    watch_of.events = events;
    watch_of.fn = fn;
    watch_of.opaque = opaque;
    return 0;
}

int host_loop_mod_fd(int fd, u32 events)
{
    check(fd == watch_of.fd);
    watch_of.events = events;
    return 0;
}

void host_loop_del_fd(int fd)
{
    check(fd == watch_of.fd);
    watch_of.fd = -1;
}

void host_loop_post(void (*fn)(void *opaque), void *opaque)
{
    (void)fn;
    (void)opaque;
}

void host_sandbox_probe(struct sandbox_probe *p)
{
    memset(p, 0, sizeof(*p));
}

void host_close_inherited_fds(void)
{
}

void host_at_end(void (*fn)(void))
{
    (void)fn;
}

const struct sandbox_rule sandbox_base_rules[] = {SANDBOX_END};

int host_confine(const struct sandbox_spec *spec, char *err, size_t err_size)
{
    (void)spec;
    (void)err;
    (void)err_size;
    return 0;
}

int failure(const char *fmt, ...)
{
    (void)fmt;
    return EXIT_STATUS_FAILURE;
}

/* --- the machine's end ---------------------------------------------------------------------------
 */

static struct machine *m;
static struct chardev *chr;
static size_t room;

/* A serial port that has no room now and then. */
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

static void port_resize(void *dev, u16 cols, u16 rows)
{
    (void)dev;
    (void)cols;
    (void)rows;
}

static void open_console(void)
{
    struct console_config cfg = {
        .serial = "null", .name = "m", .log_size = 65536, .listen_fd = -1, .terminal_fd = -1};
    char err[256];

    m = machine_new(1);
    chr = console_open(&m->vm, &cfg, err, sizeof(err));
    check(chr);
    chr->on_input = port_input;
    chr->on_resize = port_resize;
}

static void ready(u32 events)
{
    if (watch_of.fd >= 0 && (events & (watch_of.events | EPOLLHUP)))
        watch_of.fn(watch_of.opaque, events);
}

static void machine_end(void)
{
    struct console *h = container_of(chr, struct console, c);
    struct console_client *c;
    u8 buf[8192];
    int sv[2];

    room = 0;
    m->vm.stop_reason = m->vm.stop_claimed = 0;
    check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv));
    c = client_add(h, sv[0], true, 0);
    check(c);
    while (at < end && !c->gone)
        switch (take(1) % 4) {
        case 0:
            if (send(sv[1], buf, take_message_bytes(buf, sizeof(buf)), MSG_DONTWAIT) >= 0)
                ready(EPOLLIN);
            break;
        case 1: /* the guest takes some */
            room = take(1);
            vm_lock(&m->vm);
            chr->kick_input(chr);
            vm_unlock(&m->vm);
            fake_settle();
            break;
        case 2: /* and says something */
            memset(buf, 'x', sizeof(buf));
            vm_lock(&m->vm);
            chr->write(chr, buf, take(2) % sizeof(buf));
            vm_unlock(&m->vm);
            fake_advance(1000000);
            break;
        default:
            while (recv(sv[1], buf, sizeof(buf), MSG_DONTWAIT) > 0)
                ;
            ready(EPOLLOUT);
            break;
        }
    close(sv[1]);
    ready(EPOLLIN | EPOLLHUP);
    fake_settle();
    if (c->console) { /* it holds input: nobody would have looked */
        vm_lock(&m->vm);
        client_close(c);
        vm_unlock(&m->vm);
    }
    check(watch_of.fd < 0);
}

/* --- the terminal's end --------------------------------------------------------------------------
 */

static void terminal_end(void)
{
    static struct terminal t;
    struct terminal_config cfg = {0};
    u8 buf[8192];
    int sv[2];

    check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv));
    cfg.sock = sv[0];
    cfg.leave = take(1) & 1;
    memset(&t, 0, sizeof(t));
    t.cfg = &cfg;
    t.is_tty = take(1) & 1; /* standard input is none: nothing is done to it */
    while (at < end && !t.done) {
        check(send(sv[1], buf, take_message_bytes(buf, sizeof(buf)), MSG_DONTWAIT) >= 0);
        read_machine(&t);
        check(t.out_len <= sizeof(t.out) && t.out_pos <= t.out_len);
        check(memchr(t.res.name, 0, sizeof(t.res.name)));
        while (t.out_len)
            write_output(&t);
    }
    close(sv[0]);
    close(sv[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    at = data;
    end = data + size;
    if (!m) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        check(null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0);
        open_console();
    }
    if (take(1) & 1)
        terminal_end();
    else
        machine_end();
    return 0;
}
