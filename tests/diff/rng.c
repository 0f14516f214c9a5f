/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers with the values instructions are sensitive to, and the memory cases start from. */
#include <string.h>

#include "difftest.h"

/* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators). */
u64 rnd(struct rng *r)
{
    u64 z = r->s += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

u64 rnd_mix(u64 a, u64 b)
{
    struct rng r = {a ^ b * 0xd6e8feb86659fd93u};
    return rnd(&r);
}

unsigned rnd_below(struct rng *r, unsigned n)
{
    return (unsigned)(((rnd(r) >> 32) * n) >> 32);
}

bool rnd_percent(struct rng *r, unsigned pct)
{
    return rnd_below(r, 100) < pct;
}

u64 rnd_value(struct rng *r)
{
    static const u64 edge[] = {
        0,
        1,
        2,
        ~(u64)0,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        0x100000000,
        0x7fffffffffffffff,
        0x8000000000000000,
        0xaaaaaaaaaaaaaaaa,
        0x5555555555555555,
        0x00007fffffffffff,
        0x0000800000000000,
        0xffff800000000000,
    };
    switch (rnd_below(r, 10)) {
    case 0:
    case 1:
        return edge[rnd_below(r, ARRAY_SIZE(edge))];
    case 2:
        return edge[rnd_below(r, ARRAY_SIZE(edge))] + rnd_below(r, 5) - 2;
    case 3:
        return rnd_below(r, 256);
    case 4:
        return (u64)0 - rnd_below(r, 256);
    case 5:
        return BIT64(rnd_below(r, 64));
    case 6:
        return rnd(r) & 0xffffffff;
    case 7:
        return DATA_VA + rnd_below(r, 0x3000);
    default:
        return rnd(r);
    }
}

/* A float or double of some class, in the low 32 or 64 bits. */
static u64 rnd_double(struct rng *r)
{
    u64 frac = rnd(r) & MASK64(51, 0), sign = rnd(r) & BIT64(63);
    switch (rnd_below(r, 8)) {
    case 0:
        return sign;
    case 1:
        return sign | (u64)0x7ff << 52; /* infinity */
    case 2:
        return sign | (u64)0x7ff << 52 | BIT64(51) | frac; /* quiet NaN */
    case 3:
        return sign | (u64)0x7ff << 52 | (frac & MASK64(50, 0)) | 1; /* signalling NaN */
    case 4:
        return sign | frac; /* denormal */
    default:
        return sign | (u64)(1023 - 40 + rnd_below(r, 80)) << 52 | frac;
    }
}

static u32 rnd_float(struct rng *r)
{
    u32 frac = (u32)rnd(r) & 0x7fffff, sign = (u32)rnd(r) & 0x80000000;
    switch (rnd_below(r, 8)) {
    case 0:
        return sign;
    case 1:
        return sign | 0x7f800000;
    case 2:
        return sign | 0x7fc00000 | frac;
    case 3:
        return sign | 0x7f800000 | (frac & 0x3fffff) | 1;
    case 4:
        return sign | frac;
    default:
        return sign | (u32)(127 - 20 + rnd_below(r, 40)) << 23 | frac;
    }
}

/* n bytes (a multiple of 8) of operands of one kind. */
static void fill_operands(struct rng *r, u8 *p, size_t n)
{
    unsigned kind = rnd_below(r, 5);
    for (size_t i = 0; i < n; i += 8) {
        u64 v;
        switch (kind) {
        case 0:
            v = rnd_double(r);
            break;
        case 1:
            v = (u64)rnd_float(r) << 32;
            v |= rnd_float(r);
            break;
        case 2:
            v = rnd_value(r);
            break;
        case 3:
            v = rnd_below(r, 128);
            break;
        default:
            v = rnd(r);
            break;
        }
        memcpy(p + i, &v, 8);
    }
}

u8 mem_image[MEM_IMAGES][MEM_SIZE];

void mem_images_init(void)
{
    struct rng r = {0x7269766973};
    for (unsigned m = 0; m < MEM_IMAGES; m++) {
        for (unsigned i = 0; i < MEM_SIZE; i += 64)
            fill_operands(&r, &mem_image[m][i], 64);
        /* The read-only page is the same in all of them: the oracle never writes it. */
        memcpy(&mem_image[m][0x2000], &mem_image[0][0x2000], 0x1000);
    }
}

u32 mem_va(unsigned off)
{
    if (off >= MEM_STACK)
        return STACK_VA + (off - MEM_STACK);
    return off >= MEM_DATA2 ? DATA2_VA + (off - MEM_DATA2) : DATA_VA + off;
}

int mem_off(u64 va)
{
    if (va >= DATA_VA && va < DATA_END)
        return (int)(va - DATA_VA + MEM_DATA);
    if (va >= DATA2_VA && va < DATA2_VA + 0x1000)
        return (int)(va - DATA2_VA + MEM_DATA2);
    if (va >= STACK_VA && va < STACK_VA + STACK_SIZE)
        return (int)(va - STACK_VA + MEM_STACK);
    return -1;
}

/* An 80-bit x87 value, unsupported formats now and then. */
static void rnd_x87(struct rng *r, u8 out[16])
{
    u64 m = rnd(r) | BIT64(63);
    u16 e = (u16)(rnd(r) & 0x8000);

    memset(out, 0, 16);
    switch (rnd_below(r, 9)) {
    case 0:
        m = 0;
        break;
    case 1:
        e |= 0x7fff;
        m = BIT64(63);
        break;
    case 2:
        e |= 0x7fff;
        break;
    case 3:
        m &= ~BIT64(63); /* denormal */
        break;
    case 4:
        m = rnd(r);
        e = (u16)rnd(r); /* anything, unnormals too */
        break;
    case 5:
        m = (u64)rnd_below(r, 100) << 57 | BIT64(63);
        e |= 0x3fff + 6;
        break;
    default:
        e = (u16)(e | (0x3fff - 30 + rnd_below(r, 60)));
        break;
    }
    memcpy(out, &m, 8);
    memcpy(out + 8, &e, 2);
}

void xstate_random(struct rng *r, u8 *image)
{
    struct x87_env e;
    u64 bv = xl.xcr0;

    memset(image, 0, X86_XSAVE_SIZE);
    e.fcw = rnd_percent(r, 70) ? 0x037f : (u16)(0x0040 | (rnd(r) & 0x0f00) | 0x3f);
    if (rnd_percent(r, 10))
        e.fcw &= (u16)~rnd_below(r, 64);
    e.fsw = (u16)(rnd(r) & 0x7f00); /* TOP and condition codes, no exception pending */
    e.fsw = (u16)(e.fsw & ~0x0080);
    e.ftw = rnd_percent(r, 20) ? 0 : rnd_percent(r, 30) ? 0xff : (u8)rnd(r);
    e.mxcsr = 0x1f80;
    if (rnd_percent(r, 30))
        e.mxcsr |= (u32)rnd(r) & 0xe07f; /* FZ, RC, DAZ, sticky flags */
    if (rnd_percent(r, 10))
        e.mxcsr &= (u32) ~(rnd(r) & 0x1f80); /* unmasked exceptions */
    memcpy(image, &e.fcw, 2);
    memcpy(image + 2, &e.fsw, 2);
    image[4] = e.ftw;
    memcpy(image + 24, &e.mxcsr, 4);
    for (unsigned i = 0; i < 8; i++) {
        if (rnd_percent(r, 60)) {
            rnd_x87(r, image + 32 + 16 * i);
        } else { /* an MMX value */
            u64 v = rnd(r);
            memcpy(image + 32 + 16 * i, &v, 8);
            memset(image + 40 + 16 * i, 0xff, 2);
        }
    }
    for (unsigned i = 0; i < xstate_nvec(); i++) {
        u8 v[64];
        fill_operands(r, v, 64);
        xstate_set_vec(image, i, v);
    }
    if (xl.opmask) {
        for (unsigned i = 0; i < 8; i++) {
            u64 k = rnd_value(r);
            memcpy(image + xl.opmask + 8 * i, &k, 8);
        }
    }
    memcpy(image + 512, &bv, 8);
}
