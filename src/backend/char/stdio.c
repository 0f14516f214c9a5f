/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard input and output as the other end of a serial port, as they are: pipes and files. A
 * terminal is the front end's (app/terminal.c), which comes in as a client of console.c. Bytes the
 * guest has no room for are held back, and no more are read meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "backend/char/char.h"
#include "backend/char/output.h"
#include "core/host.h"
#include "core/vm.h"

#define INPUT_SIZE 256

/* One a process. */
static bool in_use;

struct stdio_char {
    struct chardev c; /* first */
    struct vm *vm;
    struct output out;
    bool watching;    /* stdin is in the loop */
    bool kick_posted; /* on_kick is on its way */
    size_t pos, len;  /* bytes of input not yet taken by the device */
    u8 input[INPUT_SIZE];
};

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
    ssize_t n;

    (void)events;
    /* Nothing may be lost: read only what there is room for. */
    n = read(STDIN_FILENO, s->input, sizeof(s->input));
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            unwatch(s);
        return;
    }
    vm_lock(s->vm);
    s->len = (size_t)n;
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
    in_use = false;
    free(s);
}

struct chardev *char_stdio_open(struct vm *vm, char *err, size_t err_size)
{
    struct stdio_char *s;
    int r;

    if (in_use) {
        snprintf(err, err_size, "standard input and output are in use already");
        return NULL;
    }
    s = calloc(1, sizeof(*s));
    if (!s || output_init(&s->out, vm, STDOUT_FILENO, &s->c)) {
        snprintf(err, err_size, "stdio: out of memory");
        free(s);
        return NULL;
    }
    s->vm = vm;
    s->c.write = stdio_write;
    s->c.kick_input = stdio_kick_input;
    s->c.close = stdio_close;
    r = host_loop_add_fd(STDIN_FILENO, EPOLLIN, on_readable, s);
    /* A closed standard input is one at its end. */
    if (r && r != -EBADF) {
        snprintf(err, err_size, "cannot watch standard input: %s", strerror(-r));
        output_finish(&s->out);
        free(s);
        return NULL;
    }
    s->watching = r == 0;
    in_use = true;
    return &s->c;
}
