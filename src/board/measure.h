/* SPDX-License-Identifier: Apache-2.0 */
/* How fast an engine runs a small loop, against the bare CPU. */
#ifndef TRIVISOR_BOARD_MEASURE_H
#define TRIVISOR_BOARD_MEASURE_H

#include "core/engine.h"

struct engine_speed {
    u64 native_mips; /* million instructions a second on the bare CPU */
    u64 engine_mips; /* and as a guest */
};

/* Rounds of the loop, of a dozen instructions: what takes about a millisecond, what is exact, and
 * what also ends in seconds where each instruction is emulated. */
#define MEASURE_QUICK 100000ull
#define MEASURE_EXACT 4000000ull
#define MEASURE_EMULATED 2000ull

/* Builds a virtual machine of one vCPU without devices and runs a loop of loads, stores, branches,
 * calls and returns in it. 0 or -errno. */
int engine_measure(const struct engine_ops *ops, u64 rounds, struct engine_speed *out);

/*
 * The same in a process of its own, which is killed when it takes longer than limit_ms: whatever
 * /dev/kvm is, this returns. 0; -ETIMEDOUT; other -errno. The caller has no other threads.
 */
int engine_measure_apart(const struct engine_ops *ops, u64 rounds, unsigned limit_ms,
                         struct engine_speed *out);

#endif
