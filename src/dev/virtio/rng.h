/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio entropy device (virtio 1.2 5.4). */
#ifndef TRIVISOR_DEV_VIRTIO_RNG_H
#define TRIVISOR_DEV_VIRTIO_RNG_H

#include "core/vm.h"

/* name: for messages, outlives the device. NULL: no memory, or the place on the bus is taken. The
 * device belongs to the VM. */
struct device *virtio_rng_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                 const char *name);

#endif
