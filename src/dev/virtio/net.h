/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio network device (virtio 1.2 5.1). */
#ifndef TRIVISOR_DEV_VIRTIO_NET_H
#define TRIVISOR_DEV_VIRTIO_NET_H

#include "core/backend.h"
#include "core/vm.h"

#define VIRTIO_NET_PAIRS_MAX 8

struct virtio_net_config {
    struct netdev *net; /* the caller's; outlives the device */
    const char *name;   /* for messages; outlives the device */
    u8 mac[6];
};

/* With a pair of queues for each of the network's, VIRTIO_NET_PAIRS_MAX at most. NULL: no memory,
 * or the place on the bus is taken. The device belongs to the VM. */
struct device *virtio_net_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                 const struct virtio_net_config *cfg);

#endif
