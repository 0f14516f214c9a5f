/* SPDX-License-Identifier: Apache-2.0 */
/* x87 and vector registers in a standard-format XSAVE image (SDM 1 13.4, 13.5). */
#include <string.h>

#include "debug/gdb/regs.h"

enum { XC_X87, XC_SSE, XC_AVX, XC_OPMASK = 5, XC_ZMM_HI256, XC_HI16_ZMM };

/* Offsets in the legacy region. */
enum {
    XS_FCW = 0,
    XS_FSW = 2,
    XS_FTW = 4,
    XS_FOP = 6,
    XS_FIP = 8,
    XS_FDP = 16,
    XS_MXCSR = 24,
    XS_ST = 32,
    XS_XMM = 160,
    XS_BV = 512,
};

#define FCW_INIT 0x037f

static u64 present(const struct x86_vcpu_state *s)
{
    u64 bv;

    memcpy(&bv, s->xsave + XS_BV, sizeof(bv));
    return bv;
}

/* A component that is not present in the image is in its initial state whatever its bytes are. */
static void get(const struct x86_vcpu_state *s, unsigned comp, u32 off, u8 *buf, unsigned n)
{
    if (off && (present(s) & BIT64(comp)))
        memcpy(buf, s->xsave + off, n);
    else
        memset(buf, 0, n);
}

static const u32 comp_size[8] = {0, 256, 256, 0, 0, 64, 512, 1024};

/* Before a part of a component is written: the rest of it must be right. */
static void make_present(const struct gdb_regs *r, struct x86_vcpu_state *s, unsigned comp)
{
    u64 bv = present(s);

    if (bv & BIT64(comp))
        return;
    if (comp == XC_X87) {
        u16 fcw = FCW_INIT;

        memset(s->xsave, 0, XS_MXCSR);
        memset(s->xsave + XS_ST, 0, XS_XMM - XS_ST);
        memcpy(s->xsave + XS_FCW, &fcw, sizeof(fcw));
    } else {
        memset(s->xsave + (comp == XC_SSE ? XS_XMM : r->xsave_off[comp]), 0, comp_size[comp]);
    }
    bv |= BIT64(comp);
    memcpy(s->xsave + XS_BV, &bv, sizeof(bv));
}

static void set(const struct gdb_regs *r, struct x86_vcpu_state *s, unsigned comp, u32 off,
                const u8 *buf, unsigned n)
{
    if (!off)
        return;
    make_present(r, s, comp);
    memcpy(s->xsave + off, buf, n);
}

/* Component and place of a vector register's part. */
static u32 vector_place(const struct gdb_regs *r, const struct gdb_reg *reg, unsigned *comp)
{
    unsigned i = reg->index;

    switch (reg->kind) {
    case GDB_REG_MASK:
        *comp = XC_OPMASK;
        return r->xsave_off[XC_OPMASK] ? r->xsave_off[XC_OPMASK] + 8 * i : 0;
    case GDB_REG_XMM:
        *comp = i < 16 ? XC_SSE : XC_HI16_ZMM;
        if (i < 16)
            return XS_XMM + 16 * i;
        break;
    case GDB_REG_YMMH:
        *comp = i < 16 ? XC_AVX : XC_HI16_ZMM;
        if (i < 16)
            return r->xsave_off[XC_AVX] ? r->xsave_off[XC_AVX] + 16 * i : 0;
        break;
    default:
        *comp = i < 16 ? XC_ZMM_HI256 : XC_HI16_ZMM;
        if (i < 16)
            return r->xsave_off[XC_ZMM_HI256] ? r->xsave_off[XC_ZMM_HI256] + 32 * i : 0;
        break;
    }
    /* Registers 16 to 31 are whole in one component. */
    if (!r->xsave_off[XC_HI16_ZMM])
        return 0;
    return r->xsave_off[XC_HI16_ZMM] + 64 * (i - 16) +
           (reg->kind == GDB_REG_XMM    ? 0
            : reg->kind == GDB_REG_YMMH ? 16
                                        : 32);
}

/* --- x87 */

static u16 legacy16(const struct x86_vcpu_state *s, unsigned off)
{
    u8 b[2];

    if (off == XS_FCW && !(present(s) & BIT64(XC_X87)))
        return FCW_INIT;
    memcpy(b, s->xsave + off, 2);
    return present(s) & BIT64(XC_X87) ? (u16)(b[0] | b[1] << 8) : 0;
}

static u64 legacy64(const struct x86_vcpu_state *s, unsigned off)
{
    u64 v;

    memcpy(&v, s->xsave + off, sizeof(v));
    return present(s) & BIT64(XC_X87) ? v : 0;
}

/* Tag of a register that is not empty (SDM 1 8.1.7): 0 valid, 1 zero, 2 special. */
static unsigned tag_of(const u8 st[10])
{
    u64 frac;
    unsigned exp = st[8] | (st[9] & 0x7fu) << 8;

    memcpy(&frac, st, sizeof(frac));
    if (!exp)
        return frac ? 2 : 1;
    return exp == 0x7fff || !(frac >> 63) ? 2 : 0;
}

/* The image has one bit a register, 1: not empty; FSAVE's word, which gdb knows, has two. Both go
 * by physical registers, the image's ST places by stack position. */
static u16 full_tags(const struct x86_vcpu_state *s)
{
    u8 abridged = (u8)legacy16(s, XS_FTW);
    unsigned top = legacy16(s, XS_FSW) >> 11 & 7, tags = 0;

    for (unsigned i = 0; i < 8; i++) {
        unsigned tag = 3;

        if (abridged >> i & 1)
            tag = tag_of(s->xsave + XS_ST + 16 * ((i - top) & 7));
        tags |= tag << (2 * i);
    }
    return (u16)tags;
}

static u8 abridged_tags(u16 full)
{
    unsigned tags = 0;

    for (unsigned i = 0; i < 8; i++)
        if ((full >> (2 * i) & 3) != 3)
            tags |= 1u << i;
    return (u8)tags;
}

static u32 fpu_get(const struct x86_vcpu_state *s, enum gdb_fpu_reg reg)
{
    switch (reg) {
    case GDB_FCTRL:
        return legacy16(s, XS_FCW);
    case GDB_FSTAT:
        return legacy16(s, XS_FSW);
    case GDB_FTAG:
        return full_tags(s);
    case GDB_FISEG:
        return (u32)(legacy64(s, XS_FIP) >> 32) & 0xffff;
    case GDB_FIOFF:
        return (u32)legacy64(s, XS_FIP);
    case GDB_FOSEG:
        return (u32)(legacy64(s, XS_FDP) >> 32) & 0xffff;
    case GDB_FOOFF:
        return (u32)legacy64(s, XS_FDP);
    case GDB_FOP:
        return legacy16(s, XS_FOP) & 0x7ff;
    }
    return 0;
}

static void fpu_set(const struct gdb_regs *r, struct x86_vcpu_state *s, enum gdb_fpu_reg reg, u32 v)
{
    u8 *x = s->xsave;
    u16 half = (u16)v;

    if (fpu_get(s, reg) == v)
        return;
    make_present(r, s, XC_X87);
    switch (reg) {
    case GDB_FCTRL:
        half = (half & 0x1f3f) | 0x40;
        memcpy(x + XS_FCW, &half, 2);
        break;
    case GDB_FSTAT:
        memcpy(x + XS_FSW, &half, 2);
        break;
    case GDB_FTAG:
        x[XS_FTW] = abridged_tags(half);
        break;
    case GDB_FISEG:
        memcpy(x + XS_FIP + 4, &half, 2);
        break;
    case GDB_FIOFF:
        memcpy(x + XS_FIP, &v, 4);
        break;
    case GDB_FOSEG:
        memcpy(x + XS_FDP + 4, &half, 2);
        break;
    case GDB_FOOFF:
        memcpy(x + XS_FDP, &v, 4);
        break;
    case GDB_FOP:
        half &= 0x7ff;
        memcpy(x + XS_FOP, &half, 2);
        break;
    }
}

void gdb_xstate_get(const struct gdb_regs *r, const struct x86_vcpu_state *s,
                    const struct gdb_reg *reg, u8 *buf)
{
    unsigned comp;
    u32 v, off;

    switch (reg->kind) {
    case GDB_REG_ST:
        get(s, XC_X87, XS_ST + 16u * reg->index, buf, 10);
        return;
    case GDB_REG_FPU:
        v = fpu_get(s, reg->index);
        memcpy(buf, &v, 4);
        return;
    case GDB_REG_MXCSR:
        memcpy(buf, s->xsave + XS_MXCSR, 4);
        return;
    default:
        off = vector_place(r, reg, &comp);
        get(s, comp, off, buf, reg->size);
        return;
    }
}

void gdb_xstate_set(const struct gdb_regs *r, struct x86_vcpu_state *s, const struct gdb_reg *reg,
                    const u8 *buf)
{
    unsigned comp;
    u32 v, off;

    switch (reg->kind) {
    case GDB_REG_ST:
        set(r, s, XC_X87, XS_ST + 16u * reg->index, buf, 10);
        return;
    case GDB_REG_FPU:
        memcpy(&v, buf, 4);
        fpu_set(r, s, reg->index, v);
        return;
    case GDB_REG_MXCSR:
        memcpy(&v, buf, 4);
        v &= r->mxcsr_mask; /* restoring reserved bits would fault */
        memcpy(s->xsave + XS_MXCSR, &v, 4);
        return;
    default:
        off = vector_place(r, reg, &comp);
        set(r, s, comp, off, buf, reg->size);
        return;
    }
}
