/* SPDX-License-Identifier: Apache-2.0 */
/* How fast an engine runs a small loop, against the bare CPU. */
#ifndef TRIVISOR_BOARD_MEASURE_H
#define TRIVISOR_BOARD_MEASURE_H

#include "core/engine.h"

struct engine_speed {
    u64 native_mips; /* million instructions a second on the bare CPU */
    u64 engine_mips; /* and as a guest */
};

/* Builds a virtual machine of one vCPU without devices and runs a loop of loads, stores, branches,
 * calls and returns in it. 0 or -errno. */
int engine_measure(const struct engine_ops *ops, struct engine_speed *out);

#endif
