/* SPDX-License-Identifier: Apache-2.0 */
/* virtio over PCI (virtio 1.2 4.1): a non-transitional function with MSI-X and INTx. */
#ifndef TRIVISOR_DEV_VIRTIO_PCI_H
#define TRIVISOR_DEV_VIRTIO_PCI_H

#include "dev/pci/host.h"
#include "dev/virtio/virtio.h"

struct virtio_pci {
    struct pci_function pci;
    struct virtio_device *d;
    struct device *host;
    u8 isr; /* bit 0: queue, bit 1: configuration (4.1.4.5) */
    u32 device_feature_select, driver_feature_select;
    u16 queue_select;
    u64 doorbells_at; /* where the register BAR was when ... */
    u32 doorbells;    /* ... these queues' notifications were made the engine's to serve */
    u8 cfg_cap;       /* where the PCI configuration access capability is */
};

/*
 * Makes t the transport of d, whose queues and features are complete, and puts it on the PCI bus.
 * class_code: what the function says it is (24 bits). The guest may be at it before this returns.
 * 0, or -errno of pci_host_add. VM lock not held.
 */
int virtio_pci_init(struct virtio_pci *t, struct virtio_device *d, struct device *pci_host,
                    u8 devfn, u32 class_code);
/* The machine is reset: registers to their power-on values, the device is reset. */
void virtio_pci_reset(struct virtio_pci *t);
/* For device_ops.unplug: resets the device and takes it off the bus. Chains that were taken may
 * still be given back. */
void virtio_pci_unplug(struct virtio_pci *t);

/*
 * What device and driver share of a device's state (core/device.h): the function, the registers and
 * the queues. -EBUSY: a request is in flight, *why says so. -EINVAL: what was loaded cannot be, and
 * the virtio device is as after a reset. Loading calls none of the device's virtio_ops but
 * features_ok; nobody tells it again of buffers that are available.
 */
int virtio_pci_save(const struct virtio_pci *t, struct stream *out, const char **why);
int virtio_pci_load(struct virtio_pci *t, struct stream *in);

#endif
