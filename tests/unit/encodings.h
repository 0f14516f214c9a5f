/* SPDX-License-Identifier: Apache-2.0 */
/* All opcodes of all maps, by their bytes: for tests that look at what the decoder makes of each.
 */
#ifndef TRIVISOR_TESTS_UNIT_ENCODINGS_H
#define TRIVISOR_TESTS_UNIT_ENCODINGS_H

#include "base/types.h"

/* bytes: X86_INSN_MAX of them, an instruction or none; mode: 64 or 32. */
typedef void encoding_fn(const u8 *bytes, unsigned mode);

/*
 * Calls fn for legacy, VEX and EVEX encodings: every opcode with the prefixes that select among
 * instructions, some REX bytes and vvvv fields, W, L and masks, [rcx] and some registers as
 * operand, zeroes as displacement and immediate. Some two million.
 */
void each_encoding(encoding_fn *fn);

#endif
