/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device's state in streams. The rings are guest memory and not part of it: only where the
 * device stands in them is. No chain is taken while it is saved.
 */
#include <errno.h>

#include "dev/virtio/virtq_priv.h"

/* How a queue is. */
enum { QUEUE_OFF, QUEUE_ON, QUEUE_EARLY };

static void save_queue(const struct virtq *q, struct stream *out)
{
    stream_put_u16(out, q->size);
    stream_put_u16(out, q->vector);
    stream_put_u64(out, q->desc);
    stream_put_u64(out, q->driver);
    stream_put_u64(out, q->device);
    stream_put_u8(out, q->enabled ? QUEUE_ON : q->early ? QUEUE_EARLY : QUEUE_OFF);
    if (!q->enabled)
        return;
    stream_put_u16(out, q->next_avail);
    stream_put_u16(out, q->next_used);
    stream_put_u8(out, q->avail_wrap);
    stream_put_u8(out, q->used_wrap);
    stream_put_u8(out, q->notify_off);
    stream_put_u32(out, q->pushed);
}

int virtio_save(const struct virtio_device *d, struct stream *out)
{
    if (d->inflight || d->resetting)
        return -EBUSY;
    stream_put_u8(out, d->status);
    stream_put_u64(out, d->features);
    stream_put_u8(out, d->config_generation);
    stream_put_u16(out, d->config_vector);
    stream_put_u8(out, (u8)d->nqueues);
    for (unsigned i = 0; i < d->nqueues; i++)
        save_queue(&d->q[i], out);
    return 0;
}

static bool get_bool(struct stream *in, bool *b)
{
    u8 v = stream_get_u8(in);

    *b = v;
    return v <= 1;
}

/* status and features are loaded. */
static bool load_queue(struct virtio_device *d, unsigned n, struct stream *in)
{
    struct virtq *q = &d->q[n];
    u8 how;

    q->size = stream_get_u16(in);
    q->vector = stream_get_u16(in);
    q->desc = stream_get_u64(in);
    q->driver = stream_get_u64(in);
    q->device = stream_get_u64(in);
    how = stream_get_u8(in);
    if (how > QUEUE_EARLY || q->size > q->size_max || (!q->size && q->size_max))
        return false;
    q->early = how == QUEUE_EARLY;
    /* With FEATURES_OK it has been enabled. */
    if (q->early && (d->status & VIRTIO_STATUS_FEATURES_OK))
        return false;
    if (how != QUEUE_ON)
        return true;
    q->next_avail = stream_get_u16(in);
    q->next_used = stream_get_u16(in);
    if (!get_bool(in, &q->avail_wrap) || !get_bool(in, &q->used_wrap) ||
        !get_bool(in, &q->notify_off))
        return false;
    q->pushed = stream_get_u32(in);
    /* The features say what layout the ring has, and may change until FEATURES_OK. */
    if (!(d->status & VIRTIO_STATUS_FEATURES_OK) || !virtq_loaded(d, n))
        return false;
    q->enabled = true;
    return true;
}

static bool load(struct virtio_device *d, struct stream *in)
{
    d->status = stream_get_u8(in);
    d->features = stream_get_u64(in);
    d->config_generation = stream_get_u8(in);
    d->config_vector = stream_get_u16(in);
    if (in->error)
        return false;
    if (d->status & VIRTIO_STATUS_FEATURES_OK) {
        if (!virtio_features_acceptable(d))
            return false;
    } else if (d->status & VIRTIO_STATUS_DRIVER_OK) {
        return false;
    }
    if (stream_get_u8(in) != d->nqueues)
        return false;
    for (unsigned i = 0; i < d->nqueues; i++)
        if (!load_queue(d, i, in))
            return false;
    return !in->error;
}

int virtio_load(struct virtio_device *d, struct stream *in)
{
    if (d->inflight || d->resetting)
        return -EINVAL;
    virtio_forget(d);
    if (load(d, in))
        return 0;
    virtio_forget(d);
    d->status = 0;
    return -EINVAL;
}
