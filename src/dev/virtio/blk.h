/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio block device (virtio 1.2 5.2). */
#ifndef TRIVISOR_DEV_VIRTIO_BLK_H
#define TRIVISOR_DEV_VIRTIO_BLK_H

#include "core/backend.h"
#include "core/vm.h"

#define VIRTIO_BLK_QUEUES_MAX 8

struct virtio_blk_config {
    struct blockdev *disk; /* the caller's; outlives the device */
    const char *name;      /* for messages; outlives the device */
    const char *serial;    /* 20 characters count; NULL: none */
    unsigned queues;       /* 1 to VIRTIO_BLK_QUEUES_MAX */
    bool no_doorbell;      /* notifications come by way of the vCPU's thread */
    bool no_irqfd;         /* interrupts are sent by the engine's call, one by one */
};

/* NULL: no memory, no threads or the place on the bus is taken. The device belongs to the VM. */
struct device *virtio_blk_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                 const struct virtio_blk_config *cfg);

#endif
