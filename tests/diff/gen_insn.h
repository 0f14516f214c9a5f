/* SPDX-License-Identifier: Apache-2.0 */
/* What the two generators share: one random instruction of a form. */
#ifndef TRIVISOR_DIFF_GEN_INSN_H
#define TRIVISOR_DIFF_GEN_INSN_H

#include "difftest.h"

/* In a stream registers have roles, so that most accesses hit memory. */
struct roles {
    u16 pointers; /* registers that point into the data pages */
    u16 index;    /* the one register that holds a small number */
    u16 keep;     /* registers not to be written: pointers, index, loop counters, RSP */
};

/* One random instruction of form f; roles NULL: no constraints. False when the fields tried do not
 * decode to the form. bytes gets the instruction. */
bool gen_insn(struct rng *r, const struct form *f, const struct roles *roles,
              struct x86_insn *insn);
/* Where an access of size bytes should go: mostly plain data, sometimes trouble. */
u64 gen_target(struct rng *r, unsigned size);
/* Writes size bytes of v into the instruction at off and decodes it again. */
bool gen_patch(struct x86_insn *insn, unsigned off, unsigned size, u64 v);
/* Random immediates, branch displacements that stay near. */
void gen_immediates(struct rng *r, struct x86_insn *insn);

#endif
