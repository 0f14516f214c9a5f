/* SPDX-License-Identifier: Apache-2.0 */
/* A vCPU's registers for people. */
#ifndef TRIVISOR_BOARD_DUMP_H
#define TRIVISOR_BOARD_DUMP_H

#include <stdio.h>

#include "core/mem.h"
#include "x86/state.h"

/* Prints the registers of vCPU n, and the instruction it is at when it can be read. */
void dump_state(FILE *out, unsigned n, const struct x86_vcpu_state *s, const struct guest_mem *m);

#endif
