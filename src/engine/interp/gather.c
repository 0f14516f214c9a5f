/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathers and scatters, lane by lane: when a lane faults, those before it are done and their mask
 * bits clear, so that the restarted instruction goes on from there (SDM 2C VGATHERDPS).
 */
#include <string.h>

#include "engine/interp/vector.h"

struct lanes {
    unsigned index, data; /* bytes of an index and of an element */
    bool scatter;
};

static bool shape(u16 mnemonic, struct lanes *l)
{
    static const struct {
        u16 mnemonic;
        u8 index, data, scatter;
    } forms[] = {
        {ZYDIS_MNEMONIC_VPGATHERDD, 4, 4, 0},  {ZYDIS_MNEMONIC_VPGATHERDQ, 4, 8, 0},
        {ZYDIS_MNEMONIC_VPGATHERQD, 8, 4, 0},  {ZYDIS_MNEMONIC_VPGATHERQQ, 8, 8, 0},
        {ZYDIS_MNEMONIC_VGATHERDPS, 4, 4, 0},  {ZYDIS_MNEMONIC_VGATHERDPD, 4, 8, 0},
        {ZYDIS_MNEMONIC_VGATHERQPS, 8, 4, 0},  {ZYDIS_MNEMONIC_VGATHERQPD, 8, 8, 0},
        {ZYDIS_MNEMONIC_VPSCATTERDD, 4, 4, 1}, {ZYDIS_MNEMONIC_VPSCATTERDQ, 4, 8, 1},
        {ZYDIS_MNEMONIC_VPSCATTERQD, 8, 4, 1}, {ZYDIS_MNEMONIC_VPSCATTERQQ, 8, 8, 1},
        {ZYDIS_MNEMONIC_VSCATTERDPS, 4, 4, 1}, {ZYDIS_MNEMONIC_VSCATTERDPD, 4, 8, 1},
        {ZYDIS_MNEMONIC_VSCATTERQPS, 8, 4, 1}, {ZYDIS_MNEMONIC_VSCATTERQPD, 8, 8, 1},
    };
    for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
        if (forms[i].mnemonic == mnemonic) {
            *l = (struct lanes){forms[i].index, forms[i].data, forms[i].scatter};
            return true;
        }
    }
    return false;
}

/* Vector length in bytes, from the prefix: operands may be shorter than it. */
static unsigned vector_length(const struct x86_insn *insn)
{
    const u8 *p = insn->bytes + insn->vex_off;
    if (insn->encoding == X86_ENC_EVEX)
        return 16u << ((p[3] >> 5) & 3);
    return p[2] & 4 ? 32 : 16;
}

static u64 lane_offset(const struct interp *in, const struct x86_insn *insn, const u8 *index,
                       const struct lanes *l, unsigned i)
{
    s64 x;
    if (l->index == 4) {
        s32 v;
        memcpy(&v, index + 4 * i, 4);
        x = v;
    } else {
        memcpy(&x, index + 8 * i, 8);
    }
    /* im_ea leaves a vector index out and truncates to the address size; so does the sum. */
    u64 off = im_ea(in, insn) + (u64)x * insn->mem.scale;
    return insn->addrsize == 8 ? off : off & size_mask(insn->addrsize);
}

/* One lane; false with in->fault filled when it faults. */
static __attribute__((noinline)) bool try_lane(struct interp *in, const struct x86_insn *insn,
                                               u64 off, const struct lanes *l, u8 *elem)
{
    void *outer[5];
    u64 v = 0;
    struct interp *volatile self = in; /* clang does not keep `in` for the second return */
    memcpy(outer, in->fault_jmp, sizeof outer);
    if (__builtin_setjmp(in->fault_jmp)) {
        memcpy(self->fault_jmp, outer, sizeof outer);
        return false;
    }
    if (l->scatter) {
        memcpy(&v, elem, l->data);
        im_write(in, insn->mem.seg, off, l->data, v);
    } else {
        v = im_read(in, insn->mem.seg, off, l->data);
        memcpy(elem, &v, l->data);
    }
    memcpy(in->fault_jmp, outer, sizeof outer);
    return true;
}

enum interp_result gather_exec(struct interp *in, const struct x86_insn *insn)
{
    struct x86_vcpu_state *s = in->s;
    struct lanes l;
    u8 data[64], index[64], vmask[64];
    bool evex = insn->encoding == X86_ENC_EVEX;
    if (!shape(insn->mnemonic, &l))
        interp_raise(in, X86_UD); /* AVX512PF prefetches: not shown */
    unsigned wide = l.index > l.data ? l.index : l.data;
    unsigned n = vector_length(insn) / wide;
    unsigned reg = insn->op[l.scatter ? 2 : 0].reg; /* data; a gather's VEX mask is operand 2 */
    u64 k = 0, kfull = 0;
    xv_get(s, reg, data);
    xv_get(s, insn->mem.index, index);
    if (evex) {
        kfull = xv_get_mask(s, insn->mask);
        k = kfull & (BIT64(n) - 1);
    } else {
        xv_get(s, insn->op[2].reg, vmask);
        for (unsigned i = 0; i < n; i++)
            if (vmask[i * l.data + l.data - 1] & 0x80)
                k |= BIT64(i);
    }
    bool ok = true;
    u64 todo = k;
    for (unsigned i = 0; i < n && ok; i++) {
        if (!((k >> i) & 1))
            continue;
        ok = try_lane(in, insn, lane_offset(in, insn, index, &l, i), &l, data + i * l.data);
        if (ok)
            k &= ~BIT64(i);
    }
    /* Cut short: only the lanes done change. At the end upper parts are cleared too. */
    if (!l.scatter)
        xv_set(s, reg, data, ok ? n * l.data : sizeof data);
    if (evex) {
        xv_set_mask(s, insn->mask, ok ? 0 : (kfull & ~(BIT64(n) - 1)) | k);
    } else {
        for (unsigned i = 0; i < n; i++)
            if (!((k >> i) & 1))
                memset(vmask + i * l.data, 0, l.data);
        xv_set(s, insn->op[2].reg, vmask, ok ? 0 : sizeof vmask);
    }
    if (ok)
        return INTERP_OK;
    if (k == todo || !(s->rflags & RFLAGS_TF))
        interp_raise_fault(in);
    /* A trap for the lanes done comes before the fault of the next (SDM 2C VGATHERDPS). */
    in->next_rip = s->rip;
    return INTERP_OK;
}
