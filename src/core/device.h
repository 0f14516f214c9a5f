/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device seam. A device sees its own state, an offset, a size, a value, its irq line and its
 * DMA handle; no vCPU, no engine. Regions are claimed on the buses of bus.h; this is the life
 * cycle.
 */
#ifndef TRIVISOR_CORE_DEVICE_H
#define TRIVISOR_CORE_DEVICE_H

#include "core/stream.h"

struct device;

struct device_ops {
    const char *name;
    void (*reset)(struct device *d); /* power-on values; VM lock held */
    int (*save)(const struct device *d,
                struct stream *out); /* field by field, versioned; may be NULL */
    int (*load)(struct device *d, struct stream *in);
    void (*destroy)(struct device *d); /* frees d */
};

/* First member of every device's state. */
struct device {
    const struct device_ops *ops;
    struct device *next; /* vm's list */
    unsigned instance;
};

#endif
