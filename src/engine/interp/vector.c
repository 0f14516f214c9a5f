/* SPDX-License-Identifier: Apache-2.0 */
/* x87, MMX, SSE, AVX and AVX-512: run on the host. */
#include <string.h>

#include "engine/interp/interp_priv.h"

bool interp_is_vector(const struct x86_insn *insn)
{
    (void)insn;
    return true;
}

enum interp_result ivector(struct interp *in, const struct x86_insn *insn)
{
    static const char text[] = "vector instruction: ";
    memcpy(in->why, text, sizeof text);
    x86_format(insn, in->s->rip, in->why + sizeof text - 1, sizeof in->why - sizeof text);
    return INTERP_UNSUPPORTED;
}

bool interp_native_signal(struct interp *in, u64 *pc, int host_trapno)
{
    (void)in;
    (void)pc;
    (void)host_trapno;
    return false;
}
