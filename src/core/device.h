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

/*
 * Saving and loading. All of it on the event loop's thread while the VM is paused, in this order:
 * every device is drained; engine->get_state is called for every vCPU; every device is saved. And
 * on a machine that was just built in the same way, paused, before any vCPU has run: the guest's
 * memory and the clock are there; every device is loaded, in the order of the list;
 * engine->set_state is called for every vCPU.
 *
 * A state begins with a version (u16) of the device's own and is written field by field. Loading is
 * silent: no line is raised, no interrupt sent, no timer run; each side of a wire has its own copy
 * of the level. What is read is not to be trusted: it is checked as a guest's register write
 * would be, and what this version does not know is -EINVAL.
 */
struct device_ops {
    const char *name;
    void (*reset)(struct device *d); /* power-on values; VM lock held */
    /*
     * Brings what is in flight to rest: requests that backends or the device's own threads work on
     * are finished and given back. May block for as long as they take; VM lock NOT held. What the
     * guest asks for later is served as usual. May be NULL.
     */
    void (*drain)(struct device *d);
    /* NULL: there is nothing to save. VM lock held. -EBUSY: it cannot be saved as it is now or as
     * it was made; *why (one line for people) says what stands in the way. */
    int (*save)(const struct device *d, struct stream *out, const char **why);
    /* VM lock held. 0 or -EINVAL; the stream's own error counts too. */
    int (*load)(struct device *d, struct stream *in);
    /* Called after all devices are loaded and the VM goes on: what loop and backends are to do for
     * the device again (input is wanted, a link is down, ...). VM lock held. May be NULL. */
    void (*loaded)(struct device *d);
    /* Takes the device out of its machine, which runs: the guest reaches it no more, and vm_remove
     * and destroy follow. VM lock held. NULL: it is built in. */
    void (*unplug)(struct device *d);
    /* Frees d. VM lock not held; no vCPU's thread exists or, after unplug, will come to the device:
     * one that is still in it, and has let go of the lock there, is waited for. */
    void (*destroy)(struct device *d);
};

/* First member of every device's state. */
struct device {
    const struct device_ops *ops;
    struct device *next; /* vm's list */
    unsigned instance;
};

#endif
