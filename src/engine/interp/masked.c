/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory operands under a mask: EVEX opmasks, VMASKMOV and VPMASKMOV, MASKMOVQ and MASKMOVDQU.
 * Lanes that are masked out are not accessed: they neither fault nor are written (SDM 2A 2.7.6).
 */
#include <string.h>

#include "engine/interp/vector.h"

static bool mask_vector(const struct x86_insn *insn, unsigned *elem)
{
    switch (insn->mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
        *elem = 4;
        return true;
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        *elem = 8;
        return true;
    default:
        return false;
    }
}

static bool mask_bytes(const struct x86_insn *insn)
{
    return insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
           insn->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
           insn->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static bool stores(const struct x86_insn *insn)
{
    for (unsigned i = 0; i < insn->nops; i++)
        if (insn->op[i].kind == X86_OP_MEM)
            return insn->op[i].write;
    return false;
}

/* Elements go to or come from consecutive places, as many as the mask has bits. */
static bool packs(u16 mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
    case ZYDIS_MNEMONIC_VPCOMPRESSQ:
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VCOMPRESSPD:
    case ZYDIS_MNEMONIC_VPEXPANDB:
    case ZYDIS_MNEMONIC_VPEXPANDW:
    case ZYDIS_MNEMONIC_VPEXPANDD:
    case ZYDIS_MNEMONIC_VPEXPANDQ:
    case ZYDIS_MNEMONIC_VEXPANDPS:
    case ZYDIS_MNEMONIC_VEXPANDPD:
        return true;
    default:
        return false;
    }
}

/* Exception classes without "NF" suppress the faults of masked lanes. */
static bool suppresses(const struct x86_insn *insn)
{
    if (insn->mnemonic == ZYDIS_MNEMONIC_VGF2P8AFFINEQB ||
        insn->mnemonic == ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB ||
        insn->mnemonic == ZYDIS_MNEMONIC_VDBPSADBW ||
        insn->mnemonic == ZYDIS_MNEMONIC_VCVTNE2PS2BF16)
        return false; /* elements in memory are not those the mask is for */
    switch (insn->exc_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
        return false;
    default:
        return true;
    }
}

bool masked_operand(const struct x86_insn *insn)
{
    unsigned elem;
    if (!insn->mem.present || insn->mem.agen)
        return false;
    if (mask_vector(insn, &elem) || mask_bytes(insn))
        return true;
    return insn->encoding == X86_ENC_EVEX && insn->mask && (stores(insn) || suppresses(insn));
}

/* Vector length of an EVEX instruction. */
static unsigned vector_bytes(const struct x86_insn *insn)
{
    return 16u << ((insn->bytes[insn->vex_off + 3] >> 5) & 3);
}

/* Which elements of the memory operand are accessed: bit i for element i of n. */
static u64 active(struct interp *in, const struct x86_insn *insn, unsigned elem, unsigned n)
{
    struct x86_vcpu_state *s = in->s;
    u64 all = n >= 64 ? ~(u64)0 : BIT64(n) - 1, act = 0;
    unsigned e;
    if (mask_vector(insn, &e)) {
        u8 v[64];
        xv_get(s, insn->op[1].reg, v);
        for (unsigned i = 0; i < n; i++)
            if (v[i * e + e - 1] & 0x80)
                act |= BIT64(i);
        return act;
    }
    u64 k = xv_get_mask(s, insn->mask);
    if (packs(insn->mnemonic)) {
        /* The first as many elements as there are lanes in the mask. */
        unsigned count = (unsigned)__builtin_popcountll(k & all);
        return count >= 64 ? ~(u64)0 : BIT64(count) - 1;
    }
    unsigned lanes = n;
    if (insn->bcast)
        lanes = insn->bcast;
    else if (insn->category == ZYDIS_CATEGORY_BROADCAST)
        lanes = vector_bytes(insn) / elem;
    for (unsigned i = 0; i < lanes && i < 64; i++)
        if ((k >> i) & 1)
            act |= BIT64(i % n);
    return act;
}

static enum interp_result unsupported(struct interp *in, const struct x86_insn *insn)
{
    static const char text[] = "no native page for: ";
    memcpy(in->why, text, sizeof text);
    x86_format(insn, in->s->rip, in->why + sizeof text - 1, sizeof in->why - sizeof text);
    return INTERP_UNSUPPORTED;
}

/*
 * MASKMOVQ and its kin store the bytes of operand 0 whose mask byte in operand 1 is negative. Run
 * over a buffer of zeros and one of ones, the bytes that come out equal are those stored.
 * MASKMOVQ makes the x87 stack MMX registers even when the store faults, as CPUs do.
 */
static enum interp_result bytes_exec(struct interp *in, const struct x86_insn *insn)
{
    unsigned size = insn->op[0].size / 8u;
    u64 ea = im_ea(in, insn);
    u64 wrap = size_mask(insn->addrsize);
    u8 first[64];
    u8 *buf = in->bounce;
    memset(buf, 0, 64);
    if (!native_exec(in, insn, buf))
        return unsupported(in, insn);
    memcpy(first, buf, 64);
    memset(buf, 0xff, 64);
    native_exec(in, insn, buf);
    /* Faults are those of the whole operand (checked on AMD's CPUs; the SDM leaves it open). */
    im_lin_probe_write(in, im_linear(in, insn->mem.seg, ea, size, true), size, im_access(in));
    for (unsigned i = 0; i < size; i++)
        if (buf[i] == first[i])
            im_lin_write(in, im_linear(in, insn->mem.seg, (ea + i) & wrap, 1, true), 1, buf[i],
                         im_access(in));
    return INTERP_OK;
}

enum interp_result masked_exec(struct interp *in, const struct x86_insn *insn)
{
    unsigned elem = insn->mem.elem / 8u, size = insn->mem.size / 8u;
    if (mask_bytes(insn))
        return bytes_exec(in, insn);
    mask_vector(insn, &elem);
    if (!elem || elem > 8 || size % elem)
        return vector_plain(in, insn);
    unsigned n = size / elem;
    u64 ea = im_ea(in, insn), act = active(in, insn, elem, n), lin0;
    bool write = stores(insn);
    im_linear_ok(in, insn->mem.seg, ea, 1, write, &lin0);
    if (act) {
        vector_align_gp(in, insn);
        vector_align_ac(in, insn, lin0);
    }
    if (write && !suppresses(insn))
        im_lin_probe_write(in, im_linear(in, insn->mem.seg, ea, size, true), size, im_access(in));
    u8 *buf = in->bounce + (lin0 & 63);
    memset(buf, 0, size);
    for (unsigned i = 0; i < n; i++) {
        if (!((act >> i) & 1))
            continue;
        u64 lin = im_linear(in, insn->mem.seg, ea + i * elem, elem, write);
        if (write) {
            im_lin_probe_write(in, lin, elem, im_access(in));
        } else {
            u64 v = im_lin_read(in, lin, elem, im_access(in));
            memcpy(buf + i * elem, &v, elem);
        }
    }
    if (!native_exec(in, insn, buf))
        return unsupported(in, insn);
    for (unsigned i = 0; write && i < n; i++) {
        u64 v = 0;
        if (!((act >> i) & 1))
            continue;
        memcpy(&v, buf + i * elem, elem);
        im_lin_write(in, im_linear(in, insn->mem.seg, ea + i * elem, elem, true), elem, v,
                     im_access(in));
    }
    return INTERP_OK;
}
