/* SPDX-License-Identifier: Apache-2.0 */
/* virtio file system device (virtio 1.2 5.11): a shared directory. */
#ifndef TRIVISOR_DEV_VIRTIO_FS_H
#define TRIVISOR_DEV_VIRTIO_FS_H

#include "core/backend.h"
#include "core/vm.h"

/*
 * Creates the device and puts it on the PCI bus. share is its own from then on, also after a
 * failure; name ("fs0") must outlive it. NULL: no memory, no thread, or no room on the bus.
 */
struct device *virtio_fs_create(struct vm *vm, struct device *pci_host, u8 devfn, const char *name,
                                struct sharedev *share);

#endif
