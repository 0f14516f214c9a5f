/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard input and output as the other end of a serial port. Typed bytes the guest has no room
 * for are held back, and no more are read meanwhile.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <termios.h>
#include <unistd.h>

#include "backend/char/char.h"
#include "backend/char/escape.h"
#include "backend/char/output.h"
#include "base/log.h"
#include "core/host.h"
#include "core/vm.h"

#define INPUT_SIZE 256

/* The terminal belongs to the process, not to a VM, and is given back from signal handlers. */
static struct {
    struct termios saved;
    volatile sig_atomic_t raw;
    bool in_use;
    bool hooked;
} tty;

struct stdio_char {
    struct chardev c; /* first */
    struct vm *vm;
    struct output out;
    struct escape escape;
    bool is_tty;
    bool watching;    /* stdin is in the loop */
    bool kick_posted; /* on_kick is on its way */
    size_t pos, len;  /* bytes of input not yet taken by the device */
    u8 input[INPUT_SIZE];
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
    if (tty.raw || tcgetpgrp(STDIN_FILENO) != getpgrp() || tcgetattr(STDIN_FILENO, &tty.saved))
        return;
    t = tty.saved;
    cfmakeraw(&t);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    tty.raw = 1;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &t))
        tty.raw = 0;
}

bool char_stdio_raw(void)
{
    return tty.raw != 0;
}

void char_stdio_continued(void)
{
    struct termios t;

    if (!tty.in_use || !isatty(STDIN_FILENO))
        return;
    /* Keep what the shell would want back: only if it changed our raw mode. */
    if (tty.raw && tcgetattr(STDIN_FILENO, &t) == 0 && !(t.c_lflag & ICANON))
        return;
    tty.raw = 0;
    tty_make_raw();
}

static void print_keys(void)
{
    static const char text[] = "\r\nC-a x    quit\r\n"
                               "C-a h    this help\r\n"
                               "C-a C-a  send C-a to the guest\r\n";

    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        return;
}

/* Offers held-back input to the device. VM lock held. */
static void deliver(struct stdio_char *s)
{
    while (s->pos < s->len) {
        size_t n = s->c.on_input ? s->c.on_input(s->c.dev, s->input + s->pos, s->len - s->pos)
                                 : s->len - s->pos;

        if (!n)
            return;
        s->pos += n;
    }
    s->pos = s->len = 0;
}

static void watch(struct stdio_char *s, bool on)
{
    if (s->watching)
        host_loop_mod_fd(STDIN_FILENO, on ? EPOLLIN : 0);
}

static void unwatch(struct stdio_char *s)
{
    if (s->watching)
        host_loop_del_fd(STDIN_FILENO);
    s->watching = false;
}

/* Event loop: something was typed. */
static void on_readable(void *opaque, u32 events)
{
    struct stdio_char *s = opaque;
    u8 buf[INPUT_SIZE];
    ssize_t n;
    size_t used, left, taken, at = 0;

    (void)events;
    /* Nothing may be lost: read only what there is room for. Filtering never makes it more. */
    n = read(STDIN_FILENO, buf, sizeof(buf));
    if (n <= 0) {
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        /* End of file; a terminal that hung up ends the VM like the SIGHUP it comes with. */
        unwatch(s);
        if (s->is_tty)
            vm_stop(s->vm, VM_QUIT, 0, "the terminal hung up");
        return;
    }
    vm_lock(s->vm);
    for (left = (size_t)n; left; left -= used, at += used) {
        enum escape_action what = ESCAPE_NONE;

        if (s->is_tty) {
            what = escape_filter(&s->escape, buf + at, left, &used, s->input + s->len, &taken);
        } else {
            memcpy(s->input + s->len, buf + at, left);
            used = taken = left;
        }
        s->len += taken;
        if (what == ESCAPE_QUIT)
            vm_stop(s->vm, VM_QUIT, 0, NULL);
        else if (what == ESCAPE_HELP)
            print_keys();
    }
    deliver(s);
    if (s->len)
        watch(s, false);
    vm_unlock(s->vm);
}

/* Event loop: the device had room. */
static void on_kick(void *opaque)
{
    struct stdio_char *s = opaque;

    vm_lock(s->vm);
    s->kick_posted = false;
    if (s->len) {
        deliver(s);
        if (!s->len)
            watch(s, true);
    }
    vm_unlock(s->vm);
}

static size_t stdio_write(struct chardev *c, const u8 *buf, size_t n)
{
    struct stdio_char *s = container_of(c, struct stdio_char, c);

    return output_write(&s->out, buf, n);
}

static void stdio_kick_input(struct chardev *c)
{
    struct stdio_char *s = container_of(c, struct stdio_char, c);

    /* Not from here: the device is in the middle of an access. */
    if (s->len && !s->kick_posted) {
        s->kick_posted = true;
        host_loop_post(on_kick, s);
    }
}

static void stdio_close(struct chardev *c)
{
    struct stdio_char *s = container_of(c, struct stdio_char, c);

    unwatch(s);
    output_finish(&s->out);
    tty_restore();
    tty.in_use = false;
    free(s);
}

struct chardev *char_stdio_open(struct vm *vm, char *err, size_t err_size)
{
    struct stdio_char *s;
    int r;

    if (tty.in_use) {
        snprintf(err, err_size, "standard input and output are in use already");
        return NULL;
    }
    s = calloc(1, sizeof(*s));
    if (!s || output_init(&s->out, vm, STDOUT_FILENO)) {
        snprintf(err, err_size, "stdio: out of memory");
        free(s);
        return NULL;
    }
    s->vm = vm;
    s->c.write = stdio_write;
    s->c.kick_input = stdio_kick_input;
    s->c.close = stdio_close;
    s->is_tty = isatty(STDIN_FILENO) == 1;
    r = host_loop_add_fd(STDIN_FILENO, EPOLLIN, on_readable, s);
    /* A closed standard input is one at its end. */
    if (r && r != -EBADF) {
        snprintf(err, err_size, "cannot watch standard input: %s", strerror(-r));
        output_finish(&s->out);
        free(s);
        return NULL;
    }
    s->watching = r == 0;
    tty.in_use = true;
    if (s->is_tty) {
        if (!tty.hooked)
            host_at_end(tty_restore);
        tty.hooked = true;
        tty_make_raw();
    }
    return &s->c;
}
