/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "backend/char/output.h"
#include "base/log.h"
#include "core/host.h"
#include "core/vm.h"

/* How long bytes are gathered before they are written: unnoticed by people, long for a guest that
 * prints. */
#define GATHER_NS 300000u
#define FINISH_MS 2000

static void flush(struct output *o);

/* Tells who waits that there is room, or that there will never be a reader again. Not from within a
 * write. */
static void tell_room(struct output *o)
{
    bool room = o->wanted && (o->dead || o->len <= OUTPUT_SIZE / 2);

    if (!room && !(o->on_room && (o->dead || (o->ending && !o->len))))
        return;
    o->wanted = false;
    if (o->on_room)
        o->on_room(o->opaque);
    else if (o->owner->on_writable)
        o->owner->on_writable(o->owner->dev);
}

static void on_timer(void *opaque)
{
    flush(opaque);
    tell_room(opaque);
}

/* Event loop: the descriptor takes bytes again. */
static void on_writable(void *opaque, u32 events)
{
    struct output *o = opaque;

    (void)events;
    vm_lock(o->vm);
    if (o->waiting) {
        o->waiting = false;
        host_loop_del_fd(o->fd);
        flush(o);
        tell_room(o);
    }
    vm_unlock(o->vm);
}

/* Writes one piece; 0 when the descriptor would block, -errno when it is gone. A pipe that polls
 * writable takes PIPE_BUF bytes without blocking (pipe(7)); others may take less at once. */
static ssize_t write_piece(struct output *o, int timeout_ms)
{
    struct pollfd p = {.fd = o->fd, .events = POLLOUT};
    size_t n = OUTPUT_SIZE - o->head;
    ssize_t r;

    if (n > o->len)
        n = o->len;
    if (n > PIPE_BUF)
        n = PIPE_BUF;
    r = poll(&p, 1, timeout_ms);
    if (r <= 0)
        return r < 0 && errno != EINTR ? -errno : 0;
    r = write(o->fd, o->ring + o->head, n);
    if (r < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    o->head = (o->head + (size_t)r) % OUTPUT_SIZE;
    o->len -= (size_t)r;
    return r;
}

static void flush(struct output *o)
{
    while (o->len && o->fd >= 0 && !o->waiting && !o->dead) {
        ssize_t r = write_piece(o, 0);

        if (r < 0) {
            o->lost = r != -EPIPE;
            if (!o->on_room)
                log_warn("serial output: %s; further output is dropped", strerror((int)-r));
            else if (o->lost)
                log_error("the command's output: %s", strerror((int)-r));
            o->dead = true;
            o->len = 0;
        } else if (r == 0) {
            if (host_loop_add_fd(o->fd, EPOLLOUT, on_writable, o) == 0)
                o->waiting = true;
            else
                vtimer_set(&o->timer, vm_clock_ns(o->vm) + 20 * GATHER_NS);
            return;
        }
    }
}

int output_init(struct output *o, struct vm *vm, int fd, struct chardev *owner)
{
    memset(o, 0, sizeof(*o));
    o->ring = host_zalloc(OUTPUT_SIZE);
    if (!o->ring)
        return -ENOMEM;
    o->vm = vm;
    o->fd = fd;
    o->owner = owner;
    vtimer_init(&o->timer, vm, on_timer, o);
    return 0;
}

void output_start(struct output *o, int fd)
{
    o->fd = fd;
    if (o->len)
        vtimer_set(&o->timer, vm_clock_ns(o->vm) + GATHER_NS);
}

/* Puts what fits into the ring. */
static size_t gather(struct output *o, const u8 *buf, size_t n)
{
    size_t taken = 0;

    while (taken < n && o->len < OUTPUT_SIZE) {
        size_t at = (o->head + o->len) % OUTPUT_SIZE;
        size_t piece = OUTPUT_SIZE - at;

        if (piece > OUTPUT_SIZE - o->len)
            piece = OUTPUT_SIZE - o->len;
        if (piece > n - taken)
            piece = n - taken;
        memcpy(o->ring + at, buf + taken, piece);
        o->len += piece;
        taken += piece;
    }
    return taken;
}

size_t output_try(struct output *o, const u8 *buf, size_t n)
{
    bool was_empty = o->len == 0;
    size_t taken;

    if (o->dead)
        return n;
    taken = gather(o, buf, n);
    if (o->len >= OUTPUT_SIZE / 2) {
        flush(o);
        taken += gather(o, buf + taken, n - taken);
    } else if (was_empty && o->len) {
        vtimer_set(&o->timer, vm_clock_ns(o->vm) + GATHER_NS);
    }
    /* When the ring is full the descriptor is, too, and is waited for: see flush. */
    o->wanted |= taken < n;
    return o->dead ? n : taken;
}

size_t output_write(struct output *o, const u8 *buf, size_t n)
{
    size_t taken = output_try(o, buf, n);

    if (!o->owner->on_writable) {
        o->wanted = false;
        o->dropped += n - taken;
    }
    return taken;
}

void output_finish(struct output *o)
{
    u64 end = host_monotonic_ns() + FINISH_MS * 1000000ull;

    vtimer_cancel(&o->timer);
    if (o->waiting)
        host_loop_del_fd(o->fd);
    while (o->len && o->fd >= 0 && !o->dead && host_monotonic_ns() < end)
        if (write_piece(o, 50) < 0)
            break;
    if (o->dropped)
        log_warn("serial output: the reader was too slow, %llu bytes were dropped",
                 (unsigned long long)o->dropped);
    if (o->ring)
        host_free(o->ring);
    o->ring = NULL;
}
