/* SPDX-License-Identifier: Apache-2.0 */
/* A virtio device: status, features, configuration changes, reset (virtio 1.2 2.1, 2.2, 2.4, 3.1).
 */
#include "dev/virtio/virtio.h"

#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "dev/virtio/virtq_priv.h"

/* What is said about a driver that breaks the rules again and again. */
#define COMPLAINTS_MAX 5

void virtio_init(struct virtio_device *d, struct vm *vm, const struct virtio_ops *ops, u16 type,
                 const char *name, unsigned config_size)
{
    d->vm = vm;
    d->ops = ops;
    d->type = type;
    d->name = name;
    d->config_size = config_size;
    d->offered =
        VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_PACKED;
    d->config_vector = VIRTIO_NO_VECTOR;
}

unsigned virtio_add_queue(struct virtio_device *d, u16 size_max)
{
    struct virtq *q = &d->q[d->nqueues];

    CHECK(d->nqueues < VIRTIO_QUEUES_MAX && size_max <= VIRTQ_SIZE_MAX);
    q->size_max = q->size = size_max;
    q->vector = VIRTIO_NO_VECTOR;
    return d->nqueues++;
}

bool virtio_live(const struct virtio_device *d)
{
    return (d->status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_NEEDS_RESET)) ==
               VIRTIO_STATUS_DRIVER_OK &&
           !d->resetting;
}

/* --- reset ---------------------------------------------------------------------------------------
 */

void virtio_reset_done(struct virtio_device *d)
{
    d->resetting = false;
    d->status = 0;
}

void virtio_forget(struct virtio_device *d)
{
    d->features = 0;
    d->config_vector = VIRTIO_NO_VECTOR;
    for (unsigned i = 0; i < d->nqueues; i++) {
        u16 max = d->q[i].size_max;

        d->q[i] = (struct virtq){.size_max = max, .size = max, .vector = VIRTIO_NO_VECTOR};
    }
}

static void reset(struct virtio_device *d)
{
    if (d->resetting)
        return;
    d->generation++;
    d->resetting = true;
    virtio_forget(d);
    if (d->ops->reset)
        d->ops->reset(d);
    if (d->resetting && !d->inflight)
        virtio_reset_done(d);
}

/* --- status --------------------------------------------------------------------------------------
 */

bool virtio_features_acceptable(struct virtio_device *d)
{
    return !(d->features & ~d->offered) && virtio_has(d, VIRTIO_F_VERSION_1) &&
           (!d->ops->features_ok || d->ops->features_ok(d));
}

void virtio_enable_queue(struct virtio_device *d, unsigned n)
{
    d->q[n].early = false;
    if (!virtq_enable(d, n))
        virtio_broken(d, "a queue's size or addresses cannot be used");
}

static void enable_early(struct virtio_device *d)
{
    for (unsigned i = 0; i < d->nqueues; i++)
        if (d->q[i].early)
            virtio_enable_queue(d, i);
}

static void start(struct virtio_device *d)
{
    if (d->ops->start)
        d->ops->start(d);
    /* What became available earlier was not to be looked at (3.1.1), and the driver need not say it
     * again. */
    for (unsigned i = 0; i < d->nqueues; i++)
        if (d->q[i].enabled && virtio_live(d))
            d->ops->notify(d, i);
}

void virtio_set_status(struct virtio_device *d, u8 status)
{
    u8 added = (u8)(status & ~d->status);

    if (!status) {
        reset(d);
        return;
    }
    if (d->resetting)
        return;
    if ((added & VIRTIO_STATUS_FEATURES_OK) && !virtio_features_acceptable(d))
        added &= (u8)~VIRTIO_STATUS_FEATURES_OK;
    if ((added & VIRTIO_STATUS_DRIVER_OK) && !((d->status | added) & VIRTIO_STATUS_FEATURES_OK))
        added &= (u8)~VIRTIO_STATUS_DRIVER_OK;
    added &= (u8)~VIRTIO_STATUS_NEEDS_RESET; /* the device's own bit */
    /* Bits are only cleared by a reset (2.1.1). */
    d->status |= added;
    if (added & VIRTIO_STATUS_FEATURES_OK)
        enable_early(d);
    if (added & VIRTIO_STATUS_DRIVER_OK)
        start(d);
}

u8 virtio_get_status(const struct virtio_device *d)
{
    return d->status;
}

void virtio_notify(struct virtio_device *d, unsigned q)
{
    if (q < d->nqueues && d->q[q].enabled && virtio_live(d))
        d->ops->notify(d, q);
}

static void config_interrupt(struct virtio_device *d)
{
    if (d->status & VIRTIO_STATUS_DRIVER_OK)
        d->transport->config_interrupt(d->transport_opaque, d->config_vector);
}

void virtio_config_changed(struct virtio_device *d)
{
    d->config_generation++;
    if (!d->resetting)
        config_interrupt(d);
}

void virtio_broken(struct virtio_device *d, const char *what)
{
    if (d->resetting || (d->status & VIRTIO_STATUS_NEEDS_RESET))
        return;
    if (d->complaints < COMPLAINTS_MAX) {
        d->complaints++;
        log_warn("%s: the guest's driver is at fault: %s%s", d->name, what,
                 d->complaints == COMPLAINTS_MAX ? " (further ones are not logged)" : "");
    }
    d->status |= VIRTIO_STATUS_NEEDS_RESET;
    config_interrupt(d);
}

/* --- copies --------------------------------------------------------------------------------------
 */

int iov_slice(const struct host_iov *iov, unsigned n, size_t off, size_t len, struct host_iov *out,
              unsigned cap)
{
    unsigned used = 0;

    for (unsigned i = 0; i < n && len; i++) {
        size_t piece = iov[i].len;

        if (off >= piece) {
            off -= piece;
            continue;
        }
        piece -= off;
        if (piece > len)
            piece = len;
        if (used == cap)
            return -1;
        out[used++] = (struct host_iov){(u8 *)iov[i].base + off, piece};
        len -= piece;
        off = 0;
    }
    return len ? -1 : (int)used;
}

/* Calls with each piece that both have, until one ends. */
static size_t iov_copy(const struct host_iov *iov, unsigned n, size_t off, u8 *buf, size_t len,
                       bool to_iov)
{
    size_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        size_t piece = iov[i].len;
        u8 *p = iov[i].base;

        if (off >= piece) {
            off -= piece;
            continue;
        }
        p += off;
        piece -= off;
        if (piece > len - done)
            piece = len - done;
        if (to_iov)
            memcpy(p, buf + done, piece);
        else
            memcpy(buf + done, p, piece);
        done += piece;
        off = 0;
    }
    return done;
}

size_t iov_read(const struct host_iov *iov, unsigned n, size_t off, void *buf, size_t len)
{
    return iov_copy(iov, n, off, buf, len, false);
}

size_t iov_write(const struct host_iov *iov, unsigned n, size_t off, const void *buf, size_t len)
{
    return iov_copy(iov, n, off, (u8 *)(uintptr_t)buf, len, true);
}
