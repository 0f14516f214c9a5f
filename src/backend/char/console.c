/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/char/char.h"
#include "backend/char/console.h"
#include "backend/char/console_priv.h"
#include "base/log.h"
#include "core/listen.h"

/* As in output.c: gathered for a moment people do not notice; and how long a slow reader is waited
 * for at the end. */
#define GATHER_NS 300000u
#define FINISH_MS 2000

#define for_each_client(h, c)                                                                      \
    for (struct console_client *c = (h)->client; c < (h)->client + CONSOLE_CLIENTS_MAX; c++)       \
        if (c->console)

/* --- output -------------------------------------------------------------------------------------
 */

static void on_timer(void *opaque)
{
    struct console *h = opaque;

    for_each_client(h, c) client_flush(c);
}

static void wired_writable(void *dev)
{
    struct console *h = dev;

    if (h->c.on_writable)
        h->c.on_writable(h->c.dev);
}

static size_t console_write(struct chardev *chr, const u8 *buf, size_t n)
{
    struct console *h = container_of(chr, struct console, c);

    /* A device that can wait waits for the one backend, not for clients. */
    if (h->wired) {
        size_t taken;

        h->wired->on_writable = h->c.on_writable ? wired_writable : NULL;
        taken = h->wired->write(h->wired, buf, n);
        n = h->c.on_writable ? taken : n;
    }
    replay_add(&h->log, buf, n);
    if (!h->timer.armed)
        vtimer_set(&h->timer, vm_clock_ns(h->vm) + GATHER_NS);
    return n;
}

/* --- input --------------------------------------------------------------------------------------
 */

/* Event loop: the device had room. */
static void on_input_bh(void *opaque)
{
    struct console *h = opaque;

    vm_lock(h->vm);
    for_each_client(h, c) client_deliver(c);
    vm_unlock(h->vm);
}

static void console_kick_input(struct chardev *chr)
{
    struct console *h = container_of(chr, struct console, c);

    if (h->wired && h->wired->kick_input)
        h->wired->kick_input(h->wired);
    for_each_client(h, c)
    {
        /* Not from here: the device is in the middle of an access. */
        if (c->in_len)
            host_bh_schedule(&h->input_bh);
    }
}

static size_t wired_input(void *dev, const u8 *buf, size_t n)
{
    struct console *h = dev;

    return h->c.on_input ? h->c.on_input(h->c.dev, buf, n) : n;
}

void console_resized(struct console *h, const struct console_size *size)
{
    h->c.cols = size->cols;
    h->c.rows = size->rows;
    if (h->c.on_resize)
        h->c.on_resize(h->c.dev, size->cols, size->rows);
}

void console_detached(struct console *h)
{
    /* They are somebody else's now: nothing may be printed there, and who waits for the end of a
     * pipe must see it. */
    if (h->null_fd < 0 || dup2(h->null_fd, STDOUT_FILENO) < 0 ||
        dup2(h->null_fd, STDERR_FILENO) < 0)
        log_warn("cannot let go of standard output");
}

/* --- coming and going ---------------------------------------------------------------------------
 */

static void greet(struct console_client *c)
{
    client_send(c, CONSOLE_HELLO, c->console->name, strlen(c->console->name));
    client_flush(c);
}

/* Event loop: `trivisor console` connects. */
static void on_connect(void *opaque, u32 events)
{
    struct console *h = opaque;
    int fd = accept4(h->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct console_client *c;

    (void)events;
    if (fd < 0)
        return;
    vm_lock(h->vm);
    c = client_add(h, fd, true, replay_first_line(&h->log));
    if (c)
        greet(c);
    else
        close(fd); /* without a hello: the client says what that means */
    vm_unlock(h->vm);
}

/* Event loop: somebody connects to a --serial unix:PATH. The next one waits until this one goes. */
static void on_raw_connect(void *opaque, u32 events)
{
    struct console *h = opaque;
    int fd = accept4(h->raw_listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct console_client *c;

    (void)events;
    if (fd < 0)
        return;
    vm_lock(h->vm);
    c = client_add(h, fd, false, h->raw_pos);
    if (c) {
        c->live = 0;
        host_loop_mod_fd(h->raw_listen_fd, 0);
        client_flush(c);
    } else {
        close(fd);
    }
    vm_unlock(h->vm);
}

/* Event loop: clients have gone. */
static void on_reap(void *opaque)
{
    struct console *h = opaque;

    vm_lock(h->vm);
    for_each_client(h, c)
    {
        if (!c->gone)
            continue;
        if (!c->framed) {
            h->raw_pos = c->pos;
            if (h->raw_listen_fd >= 0)
                host_loop_mod_fd(h->raw_listen_fd, EPOLLIN);
        }
        client_close(c);
    }
    vm_unlock(h->vm);
}

/* Waits for events on a client until end (monotonic ns). */
static bool wait_for(struct console_client *c, short events, u64 end)
{
    struct pollfd p = {.fd = c->fd, .events = events};
    u64 now = host_monotonic_ns();

    return now < end && poll(&p, 1, (int)((end - now) / 1000000) + 1) > 0;
}

/* A client gets what is left, and is told that it was the last. The event loop has ended. */
static void finish_client(struct console_client *c, u64 end)
{
    u8 buf[1 + CONSOLE_PAYLOAD_MAX];

    for (;;) {
        c->full = false;
        client_flush(c);
        if (c->gone || !c->full || !wait_for(c, POLLOUT, end))
            break;
    }
    client_send(c, CONSOLE_END, NULL, 0);
    shutdown(c->fd, SHUT_WR);
    /* Whoever holds our terminal gives it back before anything else is printed there. */
    if (c->owner)
        while (!c->gone && wait_for(c, POLLIN, end))
            if (read(c->fd, buf, sizeof(buf)) == 0)
                break;
}

static void close_fd(int fd, bool watched)
{
    if (fd < 0)
        return;
    if (watched)
        host_loop_del_fd(fd);
    close(fd);
}

static void console_close(struct chardev *chr)
{
    struct console *h = container_of(chr, struct console, c);
    u64 end = host_monotonic_ns() + FINISH_MS * 1000000ull;

    vtimer_cancel(&h->timer);
    for_each_client(h, c)
    {
        finish_client(c, end);
        client_close(c);
    }
    host_bh_cancel(&h->input_bh);
    host_bh_cancel(&h->reap_bh);
    if (h->wired)
        h->wired->close(h->wired);
    close_fd(h->listen_fd, true);
    close_fd(h->raw_listen_fd, true);
    close_fd(h->keep_fd, false);
    close_fd(h->null_fd, false);
    replay_free(&h->log);
    free(h);
}

/* --- opening ------------------------------------------------------------------------------------
 */

static bool is_socket(const struct console *h)
{
    return !strncmp(h->serial, "unix:", 5);
}

static bool is_pty(const struct console *h)
{
    return !strcmp(h->serial, "pty");
}

/* What the option names, where it is something that works at once or is started itself. 0, or
 * -errno with one line in err. */
static int open_wired(struct console *h, const struct console_config *cfg, char *err,
                      size_t err_size)
{
    if ((cfg->terminal_fd >= 0 && !strcmp(cfg->serial, "stdio")) || is_socket(h) || is_pty(h))
        return 0;
    h->wired = char_open(h->vm, cfg->serial, err, err_size);
    if (!h->wired)
        return -EINVAL;
    h->wired->dev = h;
    h->wired->on_input = wired_input;
    return 0;
}

/* Connects the port to what the option names. */
static int console_start(struct chardev *chr, bool dry, char *err, size_t err_size)
{
    struct console *h = container_of(chr, struct console, c);
    int fd, r = 0;

    if (h->wired)
        return h->wired->start ? h->wired->start(h->wired, dry, err, err_size) : 0;
    if (dry)
        return is_socket(h) ? host_listen_check(h->serial + 5, err, err_size) : 0;
    if (is_socket(h)) {
        h->raw_listen_fd = fd = host_listen(h->serial + 5, false, 1, err, err_size);
        if (fd >= 0)
            r = host_loop_add_fd(fd, EPOLLIN, on_raw_connect, h);
    } else if (is_pty(h)) {
        fd = char_open_pty(&h->keep_fd, err, err_size);
        if (fd >= 0 && !client_add(h, fd, false, 0)) {
            close(fd);
            r = -ENOMEM;
        }
    } else {
        return 0;
    }
    if (r)
        snprintf(err, err_size, "serial: cannot watch %s: %s", h->serial, strerror(-r));
    return fd < 0 ? fd : r;
}

static int open_sockets(struct console *h, const struct console_config *cfg, char *err,
                        size_t err_size)
{
    struct console_client *c;
    int r = 0;

    if (h->listen_fd >= 0)
        r = host_loop_add_fd(h->listen_fd, EPOLLIN, on_connect, h);
    if (!r && cfg->terminal_fd >= 0) {
        h->null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        c = client_add(h, cfg->terminal_fd, true, 0);
        if (c) {
            c->owner = true;
            c->live = 0;
        } else {
            close(cfg->terminal_fd);
            r = -ENOMEM;
        }
    }
    if (r)
        snprintf(err, err_size, "cannot open the console: %s", strerror(-r));
    return r;
}

struct chardev *console_open(struct vm *vm, const struct console_config *cfg, char *err,
                             size_t err_size)
{
    struct console *h = calloc(1, sizeof(*h));
    int r = h ? replay_init(&h->log, cfg->log_size) : -ENOMEM;

    if (r) {
        snprintf(err, err_size, "console: out of memory");
        close_fd(cfg->listen_fd, false);
        close_fd(cfg->terminal_fd, false);
        free(h);
        return NULL;
    }
    h->vm = vm;
    h->listen_fd = cfg->listen_fd;
    h->raw_listen_fd = h->keep_fd = h->null_fd = -1;
    snprintf(h->name, sizeof(h->name), "%s", cfg->name ? cfg->name : "");
    h->c.write = console_write;
    h->c.kick_input = console_kick_input;
    h->serial = cfg->serial;
    h->c.start = console_start;
    h->c.close = console_close;
    vtimer_init(&h->timer, vm, on_timer, h);
    host_bh_init(&h->input_bh, on_input_bh, h);
    host_bh_init(&h->reap_bh, on_reap, h);
    r = open_wired(h, cfg, err, err_size);
    if (!r)
        r = open_sockets(h, cfg, err, err_size);
    if (r) {
        console_close(&h->c);
        return NULL;
    }
    return &h->c;
}

void console_ready(struct chardev *chr)
{
    struct console *h = container_of(chr, struct console, c);

    vm_lock(h->vm);
    for_each_client(h, c)
    {
        if (c->owner && !c->gone)
            greet(c);
    }
    vm_unlock(h->vm);
}

size_t console_last_words(const struct chardev *c, char *out, size_t max)
{
    const struct console *h = container_of(c, struct console, c);
    u64 start = replay_start(&h->log);
    struct host_iov iov[2];
    size_t total, at = 0;
    unsigned n;

    if (h->log.end - start > max)
        start = h->log.end - max;
    total = replay_peek(&h->log, start, max, iov, &n);
    for (unsigned i = 0; i < n; i++) {
        memcpy(out + at, iov[i].base, iov[i].len);
        at += iov[i].len;
    }
    if (start) {
        const char *line = memchr(out, '\n', total);

        if (line) {
            at = (size_t)(line + 1 - out);
            memmove(out, line + 1, total - at);
            total -= at;
        }
    }
    return total;
}
