/* SPDX-License-Identifier: Apache-2.0 */
/* What a failing case looked like. */
#include <stdio.h>
#include <string.h>

#include "difftest.h"

void report_case(const struct diff_case *c)
{
    const struct diff_regs *s = &c->init;
    struct x87_env e = xstate_env(s->xsave);
    struct x86_insn in;
    u32 pos = 0;

    printf("  code (%u-bit):\n", c->mode);
    while (pos < c->code_len) {
        u8 b[X86_INSN_MAX];
        char text[160];
        u64 rip = CODE_VA + c->code_off + pos;
        unsigned n = 1;

        memset(b, CODE_FILL, sizeof(b));
        memcpy(b, c->code + pos, c->code_len - pos < sizeof(b) ? c->code_len - pos : sizeof(b));
        if (x86_decode(&in, b, sizeof(b), c->mode, false) == X86_DECODE_OK) {
            x86_format(&in, rip, text, sizeof(text));
            n = in.length;
        } else {
            strcpy(text, "(bad)");
        }
        printf("    %08llx ", (unsigned long long)rip);
        for (unsigned i = 0; i < n; i++)
            printf("%02x", b[i]);
        printf("%*s %s\n", (int)(32 - 2 * n), "", text);
        pos += n;
    }
    printf("  before:\n");
    for (unsigned i = 0; i < 16; i++)
        printf("    %-3s %016llx%s", gpr_name[i], (unsigned long long)s->gpr[i],
               i % 4 == 3 ? "\n" : "");
    printf("    rflags %llx fs_base %llx gs_base %llx mxcsr %x fcw %x fsw %x ftw %x image %u\n",
           (unsigned long long)s->rflags, (unsigned long long)s->fs_base,
           (unsigned long long)s->gs_base, e.mxcsr, e.fcw, e.fsw, e.ftw, c->image);
    printf("    es %x cs %x ss %x ds %x fs %x gs %x\n", s->sel[X86_ES], s->sel[X86_CS],
           s->sel[X86_SS], s->sel[X86_DS], s->sel[X86_FS], s->sel[X86_GS]);
    for (unsigned i = 0; i < c->npokes; i++)
        printf("    [%08x] = %016llx\n", mem_va(c->poke[i].off),
               (unsigned long long)c->poke[i].val);
    pos = 0;
    while (pos < c->code_len) { /* the vector registers the code names */
        u8 b[X86_INSN_MAX];
        memset(b, CODE_FILL, sizeof(b));
        memcpy(b, c->code + pos, c->code_len - pos < sizeof(b) ? c->code_len - pos : sizeof(b));
        if (x86_decode(&in, b, sizeof(b), c->mode, false) != X86_DECODE_OK)
            break;
        for (unsigned i = 0; i < in.nops; i++) {
            if (in.op[i].kind == X86_OP_VEC) {
                u64 v[8];
                xstate_get_vec(s->xsave, in.op[i].reg, (u8 *)v);
                printf("    vec%-2u", in.op[i].reg);
                for (int q = in.op[i].size / 64 - 1; q >= 0; q--)
                    printf(" %016llx", (unsigned long long)v[q]);
                printf("\n");
            } else if (in.op[i].kind == X86_OP_MASK) {
                printf("    k%u %016llx\n", in.op[i].reg,
                       (unsigned long long)xstate_get_k(s->xsave, in.op[i].reg));
            }
        }
        pos += in.length;
    }
}
