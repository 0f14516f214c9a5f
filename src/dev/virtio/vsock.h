/* SPDX-License-Identifier: Apache-2.0 */
/* The socket device (virtio 1.2 5.10): stream sockets between guest and host. */
#ifndef TRIVISOR_DEV_VIRTIO_VSOCK_H
#define TRIVISOR_DEV_VIRTIO_VSOCK_H

#include "core/backend.h"
#include "core/vm.h"

/*
 * A socket device at devfn of the PCI bus, named name in messages, whose other side is sock; it
 * stays the caller's, who closes it when the device is gone. NULL: no memory, or devfn is taken.
 */
struct device *virtio_vsock_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                   const char *name, struct sockdev *sock);

#endif
