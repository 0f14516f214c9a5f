/* SPDX-License-Identifier: Apache-2.0 */
/* Turns a form and its fields into bytes; deliberately without opinion on what is valid. */
#include <string.h>

#include "difftest.h"

static const u8 pp_byte[4] = {0, 0x66, 0xf3, 0xf2};

unsigned encode(const struct form *f, const struct enc_fields *e, u8 out[32])
{
    unsigned n = 0;
    unsigned r = e->reg, x = 0, b = 0, modrm = 0, sib = 0, v = e->vvvv;
    bool has_sib = false;

    if (f->modreg) {
        modrm = 0xc0 | (r & 7) << 3 | (e->rm & 7);
        b = e->rm >> 3 & 1;
        x = e->rm >> 4 & 1; /* EVEX.X extends rm */
    } else if (e->rip) {
        modrm = (r & 7) << 3 | 5;
    } else if (e->use_sib || (e->base & 7) == 4) {
        has_sib = true;
        modrm = (unsigned)e->mod << 6 | (r & 7) << 3 | 4;
        sib = (unsigned)e->scale << 6 | (e->index & 7u) << 3 | (e->base & 7u);
        b = e->base >> 3 & 1;
        x = e->index >> 3 & 1;
    } else {
        modrm = (unsigned)e->mod << 6 | (r & 7) << 3 | (e->base & 7);
        b = e->base >> 3 & 1;
    }
    if (e->pfx_seg)
        out[n++] = e->pfx_seg;
    if (e->pfx_67)
        out[n++] = 0x67;
    if (e->pfx_lock)
        out[n++] = 0xf0;
    if (e->pfx_rep)
        out[n++] = e->pfx_rep;
    if (e->pfx_66)
        out[n++] = 0x66;

    bool rx64 = f->mode == 64;
    switch (f->enc) {
    case X86_ENC_LEGACY:
    case X86_ENC_3DNOW: {
        unsigned rex = (unsigned)f->w << 3 | (r >> 3 & 1) << 2 | (x & 1) << 1 | b;
        if (f->pp)
            out[n++] = pp_byte[f->pp];
        if (rx64 && (rex || e->rex_force))
            out[n++] = (u8)(0x40 | rex);
        if (f->map >= 1)
            out[n++] = 0x0f;
        if (f->map == 2)
            out[n++] = 0x38;
        if (f->map == 3)
            out[n++] = 0x3a;
        out[n++] = f->opcode;
        break;
    }
    case X86_ENC_VEX:
        if (!rx64) {
            r &= 7;
            v &= 7;
            b = x = 0;
        }
        if (e->vex2 && f->map == 1 && !f->w && !x && !b) {
            out[n++] = 0xc5;
            out[n++] = (u8)((~r >> 3 & 1) << 7 | (~v & 15) << 3 | (unsigned)f->l << 2 | f->pp);
        } else {
            out[n++] = 0xc4;
            out[n++] = (u8)((~r >> 3 & 1) << 7 | (~x & 1) << 6 | (~b & 1) << 5 | f->map);
            out[n++] = (u8)((unsigned)f->w << 7 | (~v & 15) << 3 | (unsigned)f->l << 2 | f->pp);
        }
        out[n++] = f->opcode;
        break;
    case X86_ENC_XOP:
        out[n++] = 0x8f;
        out[n++] = (u8)((~r >> 3 & 1) << 7 | (~x & 1) << 6 | (~b & 1) << 5 | f->map);
        out[n++] = (u8)((unsigned)f->w << 7 | (~v & 15) << 3 | (unsigned)f->l << 2 | f->pp);
        out[n++] = f->opcode;
        break;
    default: { /* EVEX */
        unsigned v4 = f->modreg ? v >> 4 : (unsigned)(v >> 4 | e->v5);
        if (!rx64) {
            r &= 7;
            v &= 7;
            v4 = b = x = 0;
        }
        out[n++] = 0x62;
        out[n++] =
            (u8)((~r >> 3 & 1) << 7 | (~x & 1) << 6 | (~b & 1) << 5 | (~r >> 4 & 1) << 4 | f->map);
        out[n++] = (u8)((unsigned)f->w << 7 | (~v & 15) << 3 | 4 | f->pp);
        out[n++] = (u8)((unsigned)e->z << 7 | (unsigned)f->l << 5 | (unsigned)f->evex_b << 4 |
                        (~v4 & 1) << 3 | e->aaa);
        out[n++] = f->opcode;
        break;
    }
    }
    if (f->has_modrm) {
        out[n++] = (u8)modrm;
        if (has_sib)
            out[n++] = (u8)sib;
    }
    memcpy(out + n, e->tail, sizeof(e->tail));
    return n;
}
