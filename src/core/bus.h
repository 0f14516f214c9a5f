/* SPDX-License-Identifier: Apache-2.0 */
/* Address decoding for port I/O and MMIO: non-overlapping regions in a sorted table. */
#ifndef TRIVISOR_CORE_BUS_H
#define TRIVISOR_CORE_BUS_H

#include "base/types.h"

/* off: from the start of the region; size: 1, 2, 4 (8 for MMIO). Called with the VM lock held. */
typedef u64 bus_read_fn(void *dev, u64 off, unsigned size);
typedef void bus_write_fn(void *dev, u64 off, unsigned size, u64 val);

struct bus_ops {
    bus_read_fn *read;
    bus_write_fn *write;
    u8 min_size, max_size; /* accesses outside are split or merged by the bus; 0: 1 and 8 */
};

struct bus_region {
    u64 base, size;
    const struct bus_ops *ops;
    void *dev;
    const char *name;
};

#define BUS_REGIONS_MAX 128

struct bus {
    struct bus_region region[BUS_REGIONS_MAX];
    unsigned n;
    const char *name;
    bool strict; /* log accesses nobody claims */
};

void bus_init(struct bus *b, const char *name);
/* 0, -EEXIST on overlap, -ENOSPC. Called with the VM lock held or before vCPUs run. */
int bus_add(struct bus *b, u64 base, u64 size, const struct bus_ops *ops, void *dev,
            const char *name);
int bus_remove(struct bus *b, u64 base);
/* Unclaimed reads give all ones, unclaimed writes vanish; accesses across a region's end are split
 * to bytes. */
u64 bus_read(struct bus *b, u64 addr, unsigned size);
void bus_write(struct bus *b, u64 addr, unsigned size, u64 val);

#endif
