/* SPDX-License-Identifier: Apache-2.0 */
/* The backend seam: what devices plug into. Completion callbacks run on the event loop. */
#ifndef TRIVISOR_CORE_BACKEND_H
#define TRIVISOR_CORE_BACKEND_H

#include "base/types.h"

/* A byte stream with a person or a file at the other end (src/backend/char). */
struct chardev {
    /* Sends up to n bytes; returns how many were taken (the rest was dropped when it is fewer). VM
     * lock held. */
    size_t (*write)(struct chardev *c, const u8 *buf, size_t n);
    /* The device has room again: deliver held-back input. May be NULL. VM lock held. */
    void (*kick_input)(struct chardev *c);
    void (*close)(struct chardev *c);
    /* Set by the device: input arrived; returns how many bytes were taken, the rest is offered
     * again after kick_input. Called with the VM lock held. */
    size_t (*on_input)(void *dev, const u8 *buf, size_t n);
    void *dev;
};

#endif
