/* SPDX-License-Identifier: Apache-2.0 */
/* Packed virtqueues (virtio 1.2 2.8). */
#include "dev/virtio/virtq_priv.h"

#define DESC_AVAIL BIT32(7)
#define DESC_USED BIT32(15)

/* Event suppression structures: u16 off_wrap, u16 flags (2.8.14). */
#define EVENT_ENABLE 0u
#define EVENT_DISABLE 1u
#define EVENT_DESC 2u

static void advance(u16 *at, bool *wrap, u16 n, u16 size)
{
    *at = (u16)(*at + n);
    if (*at >= size) {
        *at = (u16)(*at - size);
        *wrap = !*wrap;
    }
}

static u8 *ring(const struct virtq *q, u16 at)
{
    return q->desc_host + 16 * at;
}

/* A descriptor is available when its AVAIL bit is the driver's wrap counter and USED is not
 * (2.8.1). */
static bool packed_ready(struct virtio_device *d, struct virtq *q)
{
    u16 flags = ring_load16(ring(q, q->next_avail) + 14);

    (void)d;
    return !!(flags & DESC_AVAIL) == q->avail_wrap && !!(flags & DESC_USED) != q->avail_wrap;
}

static bool packed_pop(struct virtio_device *d, struct virtq *q, struct virtq_chain *c)
{
    struct virtq_desc desc;
    u16 at = q->next_avail, count = 0;
    bool wrap = q->avail_wrap;

    if (!packed_ready(d, q))
        return false;
    do {
        if (++count > q->size)
            return virtq_bad(d, "a descriptor chain is longer than the queue");
        desc = virtq_packed_desc(ring(q, at));
        advance(&at, &wrap, 1, q->size);
        if (!(desc.flags & DESC_INDIRECT)) {
            if (!chain_add(d, c, &desc))
                return false;
        } else if ((desc.flags & DESC_NEXT) || count > 1) {
            return virtq_bad(d, "an indirect descriptor in a chain");
        } else if (!chain_add_indirect(d, c, &desc)) {
            return false;
        }
    } while (desc.flags & DESC_NEXT);
    c->id = desc.tag; /* the last one's counts (2.8.6) */
    c->descs = count;
    q->next_avail = at;
    q->avail_wrap = wrap;
    return true;
}

static void packed_unpop(struct virtio_device *d, struct virtq *q, const struct virtq_chain *c)
{
    (void)d;
    if (q->next_avail < c->descs) {
        q->next_avail = (u16)(q->next_avail + q->size);
        q->avail_wrap = !q->avail_wrap;
    }
    q->next_avail = (u16)(q->next_avail - c->descs);
}

static void packed_push(struct virtio_device *d, struct virtq *q, const struct virtq_chain *c,
                        u32 written)
{
    u8 *desc = ring(q, q->next_used);
    u32 flags = q->used_wrap ? DESC_AVAIL | DESC_USED : 0;

    (void)d;
    if (written)
        flags |= DESC_WRITE;
    ring_store32(desc + 8, written);
    ring_store16(desc + 12, c->id);
    if (q->holding && !q->held) {
        q->held = desc + 14;
        q->held_flags = (u16)flags;
    } else {
        ring_store16(desc + 14, (u16)flags);
    }
    advance(&q->next_used, &q->used_wrap, c->descs, q->size);
    q->pushed += c->descs;
}

/* A driver looks at used descriptors in order: the first one's flags show all. */
static void packed_release(struct virtq *q)
{
    if (q->held)
        ring_store16(q->held, q->held_flags);
}

static bool packed_wants_interrupt(struct virtio_device *d, struct virtq *q)
{
    u32 turns = 2u * q->size, event, since;
    u16 flags, off_wrap;

    /* The descriptor must be seen before the driver's wish is read (2.8.21). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    flags = ring_load16(q->driver_host + 2) & 3;
    if (flags != EVENT_DESC || !virtio_has(d, VIRTIO_F_EVENT_IDX))
        return flags != EVENT_DISABLE;
    off_wrap = ring_load16(q->driver_host);
    /* Positions over two turns of the ring, the wrap counter telling which (2.8.10). Did the
     * event's come among those used since? */
    event = (off_wrap & 0x7fffu) + (off_wrap >> 15 ? 0 : q->size);
    since = q->next_used + (q->used_wrap ? 0u : q->size) + turns - 1;
    if (event >= turns)
        return true; /* not a position: too often beats never */
    return (since - event) % turns < q->pushed;
}

static void packed_want_notify(struct virtio_device *d, struct virtq *q, bool on)
{
    (void)d;
    ring_store16(q->device_host + 2, on ? EVENT_ENABLE : EVENT_DISABLE);
}

const struct virtq_layout virtq_packed = {.ready = packed_ready,
                                          .pop = packed_pop,
                                          .unpop = packed_unpop,
                                          .push = packed_push,
                                          .release = packed_release,
                                          .wants_interrupt = packed_wants_interrupt,
                                          .want_notify = packed_want_notify};
