/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that holds the last output of a serial port and never grows beyond its limit. When it is
 * full its newer half is moved to the front: no other file is opened or renamed, which a confined
 * process could not do, and every byte is moved once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/char/char.h"
#include "backend/char/outfile.h"
#include "base/log.h"
#include "core/clock.h"
#include "core/host.h"
#include "core/vm.h"

#define GATHER_SIZE 16384u
#define GATHER_NS 100000000u

struct log_char {
    struct chardev c; /* first */
    struct vm *vm;
    struct vtimer timer;
    char *path;
    int fd; /* -1: not started */
    u64 size, used;
    bool dead;
    size_t n;
    u8 gathered[GATHER_SIZE];
};

/* Moves the newer half to the front. 0 or -errno. */
static int drop_older_half(struct log_char *l)
{
    u8 buf[16384];
    u64 from = l->used - l->size / 2, to = 0;

    while (from + to < l->used) {
        ssize_t n = pread(l->fd, buf, sizeof(buf), (off_t)(from + to));

        if (n <= 0)
            return n ? -errno : -EIO;
        if (pwrite(l->fd, buf, (size_t)n, (off_t)to) != n)
            return -EIO;
        to += (u64)n;
    }
    l->used = to;
    return ftruncate(l->fd, (off_t)to) ? -errno : 0;
}

static void write_gathered(struct log_char *l)
{
    int r = 0;

    if (l->dead || !l->n || l->fd < 0)
        return;
    if (l->used + l->n > l->size)
        r = drop_older_half(l);
    if (!r) {
        ssize_t n = pwrite(l->fd, l->gathered, l->n, (off_t)l->used);

        r = n < 0 ? -errno : n < (ssize_t)l->n ? -ENOSPC : 0;
    }
    if (r) {
        log_warn("serial log: %s; further output is dropped", strerror(-r));
        l->dead = true;
    }
    l->used += l->n;
    l->n = 0;
}

static void on_timer(void *opaque)
{
    write_gathered(opaque);
}

static size_t log_write(struct chardev *c, const u8 *buf, size_t n)
{
    struct log_char *l = container_of(c, struct log_char, c);

    /* Before the start there is not more than what a device has held back. */
    for (size_t left = n; left && l->n < GATHER_SIZE;) {
        size_t piece = GATHER_SIZE - l->n < left ? GATHER_SIZE - l->n : left;

        memcpy(l->gathered + l->n, buf, piece);
        l->n += piece;
        buf += piece;
        left -= piece;
        if (l->n == GATHER_SIZE)
            write_gathered(l);
    }
    if (l->n && !l->timer.armed)
        vtimer_set(&l->timer, vm_clock_ns(l->vm) + GATHER_NS);
    return n;
}

static int log_start(struct chardev *c, bool dry, char *err, size_t err_size)
{
    struct log_char *l = container_of(c, struct log_char, c);
    int fd = outfile_open(l->path, true, dry, err, err_size);

    if (fd >= 0 && !dry)
        l->fd = fd;
    return fd < 0 ? fd : 0;
}

static void log_close(struct chardev *c)
{
    struct log_char *l = container_of(c, struct log_char, c);

    vtimer_cancel(&l->timer);
    write_gathered(l);
    if (l->fd >= 0)
        close(l->fd);
    free(l->path);
    free(l);
}

struct chardev *char_log_open(struct vm *vm, const char *path, u64 size, char *err, size_t err_size)
{
    struct log_char *l = calloc(1, sizeof(*l));

    if (l)
        l->path = strdup(path);
    if (!l || !l->path) {
        snprintf(err, err_size, "serial: out of memory");
        free(l);
        return NULL;
    }
    l->fd = -1;
    l->vm = vm;
    l->size = size;
    l->c.write = log_write;
    l->c.start = log_start;
    l->c.close = log_close;
    vtimer_init(&l->timer, vm, on_timer, l);
    return &l->c;
}
