/* SPDX-License-Identifier: Apache-2.0 */
/* Split virtqueues (virtio 1.2 2.7). */
#include "dev/virtio/virtq_priv.h"

/* Available ring: flags, idx, ring[size], used_event. Used ring: flags, idx, {id, len}[size],
 * avail_event. */
#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY 1u

static u8 *avail_ring(const struct virtq *q, u16 i)
{
    return q->driver_host + 4 + 2 * (i & (q->size - 1));
}

static u8 *used_event(const struct virtq *q)
{
    return q->driver_host + 4 + 2 * q->size;
}

static u8 *avail_event(const struct virtq *q)
{
    return q->device_host + 4 + 8 * q->size;
}

/* How many entries are available; none when the driver's index is out of reason. */
static u16 available(struct virtio_device *d, struct virtq *q)
{
    u16 n = (u16)(ring_load16(q->driver_host + 2) - q->next_avail);

    if (n > q->size) {
        virtq_bad(d, "the available index is more than a queue ahead");
        return 0;
    }
    return n;
}

static bool split_ready(struct virtio_device *d, struct virtq *q)
{
    return available(d, q) != 0;
}

static bool split_pop(struct virtio_device *d, struct virtq *q, struct virtq_chain *c)
{
    struct virtq_desc desc;
    unsigned count = 0;
    u16 at;

    if (!available(d, q))
        return false;
    at = ring_load16(avail_ring(q, q->next_avail));
    c->id = at;
    c->descs = 1;
    do {
        if (at >= q->size)
            return virtq_bad(d, "a descriptor index is beyond the queue");
        if (++count > q->size)
            return virtq_bad(d, "a descriptor chain has a loop");
        desc = virtq_split_desc(q->desc_host + 16 * at);
        if (!(desc.flags & DESC_INDIRECT)) {
            if (!chain_add(d, c, &desc))
                return false;
        } else if (desc.flags & DESC_NEXT) {
            return virtq_bad(d, "an indirect descriptor has a successor");
        } else if (!chain_add_indirect(d, c, &desc)) {
            return false;
        }
        at = desc.tag;
    } while (desc.flags & DESC_NEXT);
    q->next_avail++;
    if (virtio_has(d, VIRTIO_F_EVENT_IDX) && !q->notify_off) {
        ring_store16(avail_event(q), q->next_avail);
        /* The wish must be seen before the next look finds the queue empty (2.7.10.1), or a driver
         * on another CPU sees the old one and keeps quiet. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    return true;
}

static void split_unpop(struct virtio_device *d, struct virtq *q, const struct virtq_chain *c)
{
    (void)d;
    (void)c;
    q->next_avail--;
}

static void split_push(struct virtio_device *d, struct virtq *q, const struct virtq_chain *c,
                       u32 written)
{
    u8 *elem = q->device_host + 4 + 8 * (q->next_used & (q->size - 1));

    (void)d;
    ring_store32(elem, c->id);
    ring_store32(elem + 4, written);
    q->next_used++;
    if (!q->holding)
        ring_store16(q->device_host + 2, q->next_used);
    q->pushed++;
}

static void split_release(struct virtq *q)
{
    ring_store16(q->device_host + 2, q->next_used);
}

static bool split_wants_interrupt(struct virtio_device *d, struct virtq *q)
{
    /* The index must be seen before the driver's wish is read (2.7.7.2). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!virtio_has(d, VIRTIO_F_EVENT_IDX))
        return !(ring_load16(q->driver_host) & AVAIL_NO_INTERRUPT);
    /* Did used_event's entry come among those used since? (2.7.10) */
    return q->pushed > 0xffff ||
           (u16)(q->next_used - 1 - ring_load16(used_event(q))) < (u16)q->pushed;
}

static void split_want_notify(struct virtio_device *d, struct virtq *q, bool on)
{
    if (!virtio_has(d, VIRTIO_F_EVENT_IDX))
        ring_store16(q->device_host, on ? 0 : USED_NO_NOTIFY);
    else if (on)
        ring_store16(avail_event(q), q->next_avail);
}

const struct virtq_layout virtq_split = {.ready = split_ready,
                                         .pop = split_pop,
                                         .unpop = split_unpop,
                                         .push = split_push,
                                         .release = split_release,
                                         .wants_interrupt = split_wants_interrupt,
                                         .want_notify = split_want_notify};
