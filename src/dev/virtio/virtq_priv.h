/* SPDX-License-Identifier: Apache-2.0 */
/* Between virtio.c, virtq.c and the two ring layouts. */
#ifndef TRIVISOR_DEV_VIRTIO_VIRTQ_PRIV_H
#define TRIVISOR_DEV_VIRTIO_VIRTQ_PRIV_H

#include "dev/virtio/virtio.h"

/* Descriptor flags (virtio 1.2 2.7.5, 2.8.5) */
#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u

/* A descriptor of either layout, copied out of guest memory. Split: next in `tag`; packed: id. */
struct virtq_desc {
    u64 addr;
    u32 len;
    u16 flags, tag;
};

/* Split descriptors are addr, len, flags, next; packed ones addr, len, id, flags. */
struct virtq_desc virtq_split_desc(const u8 *host);
struct virtq_desc virtq_packed_desc(const u8 *host);

static inline u16 ring_load16(const u8 *p)
{
    return __atomic_load_n((const u16 *)(const void *)p, __ATOMIC_ACQUIRE);
}

static inline void ring_store16(u8 *p, u16 v)
{
    __atomic_store_n((u16 *)(void *)p, v, __ATOMIC_RELEASE);
}

static inline void ring_store32(u8 *p, u32 v)
{
    __atomic_store_n((u32 *)(void *)p, v, __ATOMIC_RELAXED);
}

/* Adds a buffer to the chain; false: the device is broken now. */
bool chain_add(struct virtio_device *d, struct virtq_chain *c, const struct virtq_desc *desc);
/* Adds the buffers of the indirect table desc describes; likewise. */
bool chain_add_indirect(struct virtio_device *d, struct virtq_chain *c,
                        const struct virtq_desc *desc);
/* Gives up on the device; returns false. */
bool virtq_bad(struct virtio_device *d, const char *what);

/* The last chain came back: the reset is complete. */
void virtio_reset_done(struct virtio_device *d);
/* What was negotiated and set up is forgotten. */
void virtio_forget(struct virtio_device *d);
/* d->features are what a driver may ask for. */
bool virtio_features_acceptable(struct virtio_device *d);

/* The ring layouts. Of a live device's enabled queue. */
struct virtq_layout {
    bool (*ready)(struct virtio_device *d, struct virtq *q);
    bool (*pop)(struct virtio_device *d, struct virtq *q, struct virtq_chain *c);
    void (*unpop)(struct virtio_device *d, struct virtq *q, const struct virtq_chain *c);
    void (*push)(struct virtio_device *d, struct virtq *q, const struct virtq_chain *c,
                 u32 written);
    void (*release)(struct virtq *q);
    /* Whether the driver wants an interrupt for the q->pushed entries used last. */
    bool (*wants_interrupt)(struct virtio_device *d, struct virtq *q);
    void (*want_notify)(struct virtio_device *d, struct virtq *q, bool on);
};

extern const struct virtq_layout virtq_split, virtq_packed;

#endif
