/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio memory balloon (virtio 1.2 5.5): the guest gives memory it does not need back to the
 * host, on its own (free page reporting) and when it is asked to (inflation).
 */
#ifndef TRIVISOR_DEV_VIRTIO_BALLOON_H
#define TRIVISOR_DEV_VIRTIO_BALLOON_H

#include "core/vm.h"

/* target: bytes the guest is asked to give up. name: for messages, outlives the device. NULL: no
 * memory or threads, or the place on the bus is taken. The device belongs to the VM. */
struct device *virtio_balloon_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                     const char *name, u64 target);

#endif
