/* SPDX-License-Identifier: Apache-2.0 */
/* The vector registers as they lie in the XSAVE image of the vCPU. */
#include <string.h>

#include "engine/interp/vector.h"

static u64 *bv(struct x86_vcpu_state *s)
{
    return (u64 *)(void *)(s->xsave + XS_BV);
}

static void host_cpuid(u32 leaf, u32 subleaf, u32 r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(subleaf));
}

/*
 * Host facts, asked for once. Several threads may do it at the same time: they store the same
 * values, and `ready` last.
 */
static struct {
    struct xc_place place[XC_N];
    u64 mask;
    u32 ready;
} host;

static void host_init(void)
{
    if (likely(__atomic_load_n(&host.ready, __ATOMIC_ACQUIRE)))
        return;
    u32 lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    host.place[XC_X87] = (struct xc_place){0, 160, false};
    host.place[XC_SSE] = (struct xc_place){XS_XMM, 256, false};
    for (unsigned n = 2; n < XC_N; n++) {
        u32 r[4];
        if (!((XC_KEPT >> n) & 1) || !((lo >> n) & 1))
            continue;
        host_cpuid(0xd, n, r);
        if (r[0] && r[0] + r[1] <= X86_XSAVE_SIZE)
            host.place[n] = (struct xc_place){r[1], r[0], (r[2] >> 1) & 1};
    }
    u64 mask = 0;
    for (unsigned n = 0; n < XC_N; n++)
        if (host.place[n].size)
            mask |= XC_BIT(n);
    host.mask = mask;
    __atomic_store_n(&host.ready, 1, __ATOMIC_RELEASE);
}

const struct xc_place *xc_place(unsigned n)
{
    host_init();
    return &host.place[n];
}

u64 xc_host_mask(void)
{
    host_init();
    return host.mask;
}

u8 *xc_use(struct x86_vcpu_state *s, unsigned n)
{
    const struct xc_place *p = xc_place(n);
    if (!p->size)
        return NULL;
    if (!(*bv(s) & XC_BIT(n))) {
        if (n == XC_X87) {
            memset(s->xsave, 0, XS_MXCSR);
            memset(s->xsave + XS_ST, 0, XS_XMM - XS_ST);
            s->xsave[XS_FCW] = 0x7f;
            s->xsave[XS_FCW + 1] = 0x03;
        } else {
            memset(s->xsave + p->off, 0, p->size);
        }
        *bv(s) |= XC_BIT(n);
    }
    return n < XC_AVX ? s->xsave : s->xsave + p->off;
}

static void part_get(struct x86_vcpu_state *s, unsigned n, unsigned off, u8 *buf, unsigned size)
{
    const struct xc_place *p = xc_place(n);
    if (p->size && (*bv(s) & XC_BIT(n)))
        memcpy(buf, s->xsave + p->off + off, size);
    else
        memset(buf, 0, size);
}

static void part_set(struct x86_vcpu_state *s, unsigned n, unsigned off, const u8 *buf,
                     unsigned size)
{
    if (xc_use(s, n))
        memcpy(s->xsave + xc_place(n)->off + off, buf, size);
}

void xv_get(struct x86_vcpu_state *s, unsigned reg, u8 buf[64])
{
    if (reg >= 16) {
        part_get(s, XC_HI16_ZMM, 64 * (reg - 16), buf, 64);
        return;
    }
    part_get(s, XC_SSE, 16 * reg, buf, 16);
    part_get(s, XC_AVX, 16 * reg, buf + 16, 16);
    part_get(s, XC_ZMM_HI256, 32 * reg, buf + 32, 32);
}

void xv_set(struct x86_vcpu_state *s, unsigned reg, const u8 *buf, unsigned size)
{
    u8 full[64];
    memset(full, 0, sizeof full);
    memcpy(full, buf, size);
    if (reg >= 16) {
        part_set(s, XC_HI16_ZMM, 64 * (reg - 16), full, 64);
        return;
    }
    part_set(s, XC_SSE, 16 * reg, full, 16);
    part_set(s, XC_AVX, 16 * reg, full + 16, 16);
    part_set(s, XC_ZMM_HI256, 32 * reg, full + 32, 32);
}

u64 xv_get_mask(struct x86_vcpu_state *s, unsigned k)
{
    u64 v;
    part_get(s, XC_OPMASK, 8 * k, (u8 *)&v, 8);
    return v;
}

void xv_set_mask(struct x86_vcpu_state *s, unsigned k, u64 val)
{
    part_set(s, XC_OPMASK, 8 * k, (const u8 *)&val, 8);
}
