/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio console (virtio 1.2 5.3): a console, which Linux calls hvc0, and named ports, which
 * programs in the guest find as /dev/virtio-ports/NAME.
 */
#ifndef TRIVISOR_DEV_VIRTIO_CONSOLE_H
#define TRIVISOR_DEV_VIRTIO_CONSOLE_H

#include "core/backend.h"
#include "core/vm.h"

/* Port 0, the console's, and others. */
#define VIRTIO_CONSOLE_PORTS 9
#define VIRTIO_CONSOLE_NAME_MAX 64

struct virtio_console_config {
    const char *name; /* for messages */
    /* Port 0: a console, or NULL: none. The chardevs are the caller's and outlive the device. */
    struct chardev *console;
    struct {
        const char *name; /* at most VIRTIO_CONSOLE_NAME_MAX bytes */
        struct chardev *chr;
    } port[VIRTIO_CONSOLE_PORTS - 1];
    unsigned nports;
};

/* Strings outlive the device. NULL: no memory, or the place on the bus is taken. The device belongs
 * to the VM. */
struct device *virtio_console_create(struct vm *vm, struct device *pci_host, u8 devfn,
                                     const struct virtio_console_config *cfg);

#endif
