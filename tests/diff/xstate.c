/* SPDX-License-Identifier: Apache-2.0 */
/* Where the host keeps registers in the standard-format XSAVE image (SDM 1 13.4). */
#include <string.h>

#include "difftest.h"

struct xstate_layout xl;

static u32 component(u32 n)
{
    u32 eax = 0xd, ebx, ecx = n, edx;
    if (!(xl.xcr0 & BIT64(n)))
        return 0;
    __asm__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if (ebx + eax > xl.size)
        xl.size = ebx + eax;
    return ebx;
}

void xstate_init(void)
{
    u32 lo, hi;
    __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    xl.xcr0 = lo & 0xe7; /* x87, SSE, AVX, AVX-512 */
    xl.size = 576;
    xl.ymm = component(2);
    xl.opmask = component(5);
    xl.zmm_hi = component(6);
    xl.zmm_16 = component(7);
}

unsigned xstate_nvec(void)
{
    return xl.zmm_16 ? 32 : 16;
}

static bool live(const u8 *image, unsigned comp)
{
    u64 bv;
    memcpy(&bv, image + 512, 8);
    return (bv >> comp) & 1;
}

void xstate_get_vec(const u8 *image, unsigned n, u8 out[64])
{
    memset(out, 0, 64);
    if (n >= 16) {
        if (xl.zmm_16 && live(image, 7))
            memcpy(out, image + xl.zmm_16 + 64 * (n - 16), 64);
        return;
    }
    if (live(image, 1))
        memcpy(out, image + 160 + 16 * n, 16);
    if (xl.ymm && live(image, 2))
        memcpy(out + 16, image + xl.ymm + 16 * n, 16);
    if (xl.zmm_hi && live(image, 6))
        memcpy(out + 32, image + xl.zmm_hi + 32 * n, 32);
}

void xstate_set_vec(u8 *image, unsigned n, const u8 in[64])
{
    if (n >= 16) {
        if (xl.zmm_16)
            memcpy(image + xl.zmm_16 + 64 * (n - 16), in, 64);
        return;
    }
    memcpy(image + 160 + 16 * n, in, 16);
    if (xl.ymm)
        memcpy(image + xl.ymm + 16 * n, in + 16, 16);
    if (xl.zmm_hi)
        memcpy(image + xl.zmm_hi + 32 * n, in + 32, 32);
}

u64 xstate_get_k(const u8 *image, unsigned n)
{
    u64 v = 0;
    if (xl.opmask && live(image, 5))
        memcpy(&v, image + xl.opmask + 8 * n, 8);
    return v;
}

struct x87_env xstate_env(const u8 *image)
{
    struct x87_env e = {.fcw = 0x37f};
    if (live(image, 0)) {
        memcpy(&e.fcw, image, 2);
        memcpy(&e.fsw, image + 2, 2);
        e.ftw = image[4];
    }
    memcpy(&e.mxcsr, image + 24, 4); /* loaded and stored whenever SSE or AVX is asked for */
    return e;
}

void xstate_get_st(const u8 *image, unsigned n, u8 out[10])
{
    memset(out, 0, 10);
    if (live(image, 0))
        memcpy(out, image + 32 + 16 * n, 10);
}
