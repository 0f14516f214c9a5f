/* SPDX-License-Identifier: Apache-2.0 */
/* Virtqueues, as far as both ring layouts have it in common. */
#include "dev/virtio/virtq_priv.h"

#include "base/check.h"

static const struct virtq_layout *layout(const struct virtio_device *d)
{
    return virtio_has(d, VIRTIO_F_RING_PACKED) ? &virtq_packed : &virtq_split;
}

static bool usable(const struct virtio_device *d, unsigned q)
{
    return q < d->nqueues && d->q[q].enabled && virtio_live(d);
}

bool virtq_bad(struct virtio_device *d, const char *what)
{
    virtio_broken(d, what);
    return false;
}

/* --- descriptors: guest memory is read once, into these ------------------------------------------
 */

/* One load, whatever the alignment: an indirect table may be anywhere. */
static u64 load64(const u8 *p)
{
    struct any {
        u64 v;
    } __attribute__((packed, may_alias));

    return ((const volatile struct any *)(const void *)p)->v;
}

struct virtq_desc virtq_split_desc(const u8 *host)
{
    u64 rest = load64(host + 8);

    return (struct virtq_desc){.addr = load64(host),
                               .len = (u32)rest,
                               .flags = (u16)(rest >> 32),
                               .tag = (u16)(rest >> 48)};
}

struct virtq_desc virtq_packed_desc(const u8 *host)
{
    u64 rest = load64(host + 8);

    return (struct virtq_desc){.addr = load64(host),
                               .len = (u32)rest,
                               .flags = (u16)(rest >> 48),
                               .tag = (u16)(rest >> 32)};
}

bool chain_add(struct virtio_device *d, struct virtq_chain *c, const struct virtq_desc *desc)
{
    bool write = desc->flags & DESC_WRITE;
    u64 addr = desc->addr, left = desc->len;

    if (!write && c->nin)
        return virtq_bad(d, "a readable buffer comes after a writable one");
    if (c->out_len + c->in_len + left > UINT32_MAX)
        return virtq_bad(d, "a descriptor chain of 4 GiB");
    while (left) {
        u64 len = left;
        u8 *p = d->transport->map(d->transport_opaque, addr, &len, write);

        if (!p)
            return virtq_bad(d, "a buffer is not in memory the device may access");
        if (c->nout + c->nin == c->cap)
            return virtq_bad(d, "a descriptor chain has too many buffers");
        c->iov[c->nout + c->nin] = (struct host_iov){p, len};
        c->nout += !write;
        c->nin += write;
        addr += len;
        left -= len;
    }
    if (write)
        c->in_len += desc->len;
    else
        c->out_len += desc->len;
    return true;
}

static const u8 *indirect_entry(struct virtio_device *d, u64 addr)
{
    u64 len = 16;
    const u8 *p = d->transport->map(d->transport_opaque, addr, &len, false);

    return p && len == 16 ? p : NULL;
}

bool chain_add_indirect(struct virtio_device *d, struct virtq_chain *c,
                        const struct virtq_desc *table)
{
    bool packed = virtio_has(d, VIRTIO_F_RING_PACKED);
    u32 n = table->len / 16, at = 0;

    if (!virtio_has(d, VIRTIO_F_INDIRECT_DESC))
        return virtq_bad(d, "an indirect descriptor was not negotiated");
    if (!n || table->len % 16)
        return virtq_bad(d, "an indirect table of a bad length");
    for (u32 count = 0;; count++) {
        struct virtq_desc desc;
        const u8 *entry;

        if (packed ? count == n : at >= n) {
            if (packed)
                return true;
            return virtq_bad(d, "an indirect descriptor index is beyond its table");
        }
        if (count == n || count == VIRTQ_SIZE_MAX)
            return virtq_bad(d, "an indirect chain has a loop or is too long");
        entry = indirect_entry(d, table->addr + 16ull * (packed ? count : at));
        if (!entry)
            return virtq_bad(d, "an indirect table is not in memory the device may access");
        desc = packed ? virtq_packed_desc(entry) : virtq_split_desc(entry);
        if (desc.flags & DESC_INDIRECT)
            return virtq_bad(d, "an indirect descriptor within an indirect table");
        if (!chain_add(d, c, &desc))
            return false;
        if (!packed && !(desc.flags & DESC_NEXT))
            return true;
        at = desc.tag;
    }
}

/* --- enabling ------------------------------------------------------------------------------------
 */

/* Also memory the device may not access now: a driver that takes bus mastering away while a queue
 * is enabled stops no ring. */
static u8 *map_ram(struct virtio_device *d, u64 addr, u64 len, bool write)
{
    const struct mem_slot *s = guest_mem_slot(&d->vm->mem, gpa(addr));

    return s && !(write && s->readonly) ? guest_mem_ptr(&d->vm->mem, gpa(addr), len) : NULL;
}

static u8 *map_dma(struct virtio_device *d, u64 addr, u64 len, bool write)
{
    u64 got = len;
    u8 *p = d->transport->map(d->transport_opaque, addr, &got, write);

    return p && got == len ? p : NULL;
}

typedef u8 *map_fn(struct virtio_device *d, u64 addr, u64 len, bool write);

static bool map_rings(struct virtio_device *d, struct virtq *q, map_fn *map)
{
    bool packed = virtio_has(d, VIRTIO_F_RING_PACKED);
    u64 size = q->size;

    if (!size || size > q->size_max || (!packed && (size & (size - 1))))
        return false;
    /* Areas and their alignments: 2.7, 2.8. */
    if (q->desc % 16 || q->driver % (packed ? 4 : 2) || q->device % 4)
        return false;
    q->desc_host = map(d, q->desc, 16 * size, packed);
    q->driver_host = map(d, q->driver, packed ? 4 : 6 + 2 * size, false);
    q->device_host = map(d, q->device, packed ? 4 : 6 + 8 * size, true);
    return q->desc_host && q->driver_host && q->device_host;
}

bool virtq_enable(struct virtio_device *d, unsigned n)
{
    struct virtq *q = &d->q[n];

    if (!map_rings(d, q, map_dma))
        return false;
    q->next_avail = q->next_used = 0;
    q->avail_wrap = q->used_wrap = true;
    q->notify_off = false;
    q->pushed = 0;
    q->enabled = true;
    return true;
}

/* Where an index of a packed ring stands in two turns of it. */
static u32 position(const struct virtq *q, u16 at, bool wrap)
{
    return at + (wrap ? 0u : q->size);
}

/* Chains that were taken and never given back: no more than the queue has entries. When the driver
 * has broken the rules they may be more, and nobody looks at the rings any more. */
static bool indices_ok(const struct virtio_device *d, const struct virtq *q)
{
    u32 turns = 2u * q->size;

    if (d->status & VIRTIO_STATUS_NEEDS_RESET)
        return true;
    if (!virtio_has(d, VIRTIO_F_RING_PACKED))
        return (u16)(q->next_avail - q->next_used) <= q->size;
    return q->next_avail < q->size && q->next_used < q->size &&
           (position(q, q->next_avail, q->avail_wrap) + turns -
            position(q, q->next_used, q->used_wrap)) %
                   turns <=
               q->size;
}

bool virtq_loaded(struct virtio_device *d, unsigned n)
{
    struct virtq *q = &d->q[n];

    return map_rings(d, q, map_ram) && indices_ok(d, q);
}

/* --- for devices ---------------------------------------------------------------------------------
 */

bool virtq_ready(struct virtio_device *d, unsigned q)
{
    return usable(d, q) && layout(d)->ready(d, &d->q[q]);
}

bool virtq_pop(struct virtio_device *d, unsigned q, struct virtq_chain *c)
{
    c->nout = c->nin = 0;
    c->out_len = c->in_len = 0;
    if (!usable(d, q) || !layout(d)->pop(d, &d->q[q], c))
        return false;
    c->generation = d->generation;
    d->inflight++;
    return true;
}

/* A chain is no longer the device's. true: its queue is still what it was when it was taken. */
static bool give_back(struct virtio_device *d, unsigned q, const struct virtq_chain *c)
{
    CHECK(d->inflight);
    d->inflight--;
    if (d->resetting && !d->inflight)
        virtio_reset_done(d);
    return c->generation == d->generation && usable(d, q);
}

void virtq_unpop(struct virtio_device *d, unsigned q, const struct virtq_chain *c)
{
    if (give_back(d, q, c))
        layout(d)->unpop(d, &d->q[q], c);
}

void virtq_wrote(struct virtio_device *d, const struct virtq_chain *c, u64 n)
{
    for (unsigned i = c->nout; n && i < c->nout + c->nin; i++) {
        u64 len = c->iov[i].len < n ? c->iov[i].len : n;
        gpa_t a;

        if (guest_mem_gpa(&d->vm->mem, c->iov[i].base, &a))
            vm_dma_written(d->vm, a, len);
        n -= len;
    }
}

void virtq_drop(struct virtio_device *d, unsigned q, const struct virtq_chain *c)
{
    virtq_wrote(d, c, c->in_len);
    give_back(d, q, c);
}

void virtq_push(struct virtio_device *d, unsigned q, const struct virtq_chain *c, u32 written)
{
    virtq_wrote(d, c, written);
    if (give_back(d, q, c))
        layout(d)->push(d, &d->q[q], c, written);
}

void virtq_hold(struct virtio_device *d, unsigned q)
{
    d->q[q].holding = true;
}

void virtq_release(struct virtio_device *d, unsigned q)
{
    d->q[q].holding = false;
    if (usable(d, q))
        layout(d)->release(&d->q[q]);
    d->q[q].held = NULL;
}

void virtq_signal(struct virtio_device *d, unsigned n)
{
    struct virtq *q = &d->q[n];

    if (!usable(d, n) || !q->pushed)
        return;
    /* What was pushed is in the ring, written like any other memory. */
    if (virtio_has(d, VIRTIO_F_RING_PACKED))
        vm_dma_written(d->vm, gpa(q->desc), 16ull * q->size);
    else
        vm_dma_written(d->vm, gpa(q->device), 6 + 8ull * q->size);
    if (layout(d)->wants_interrupt(d, q))
        d->transport->queue_interrupt(d->transport_opaque, q->vector);
    q->pushed = 0;
}

bool virtq_want_notify(struct virtio_device *d, unsigned n, bool on)
{
    struct virtq *q = &d->q[n];

    if (!usable(d, n))
        return false;
    q->notify_off = !on;
    layout(d)->want_notify(d, q, on);
    if (!on)
        return false;
    /* The wish must be seen before looking whether something came meanwhile. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return layout(d)->ready(d, q);
}
