/* SPDX-License-Identifier: Apache-2.0 */
/* Between populate.c, which any thread may call, and the thread in populator.c. */
#ifndef TRIVISOR_HOST_POPULATE_H
#define TRIVISOR_HOST_POPULATE_H

#include "base/bits.h"
#include "core/host.h"

#define POPULATE_REQUESTS 8
#define POPULATE_UNIT ((u64)64 << 10)

/*
 * A request: a page's address, and below that whether it is for writing (bit 0) and the length in
 * units. 0: none.
 */
struct populator {
    u64 request[POPULATE_REQUESTS]; /* atomic */
    struct host_event event;
    u32 running, stop; /* atomic */
};

extern struct populator host_populator;

#endif
