/* SPDX-License-Identifier: Apache-2.0 */
#include "encodings.h"

#include "x86/insn.h"

#define FILL 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00

/* ModRM bytes worth trying: [rcx], and rcx or another register, each with all eight reg fields. */
static u8 modrm_of(unsigned i)
{
    static const u8 rm[] = {0x01, 0xc1, 0xc4, 0xc7};

    return (u8)(rm[i & 3] | (i >> 2) << 3);
}
#define MODRMS 32

static void legacy(unsigned mode, encoding_fn *one)
{
    static const u8 prefix[][3] = {{0},       {1, 0x66},       {1, 0xf3},
                                   {1, 0xf2}, {2, 0x66, 0xf3}, {2, 0x66, 0xf2},
                                   {1, 0xf0}, {2, 0xf0, 0x66}, {1, 0x64}};
    static const u8 rex[] = {0, 0x48, 0x45, 0x4f};

    for (unsigned p = 0; p < ARRAY_SIZE(prefix); p++)
        for (unsigned r = 0; r < (mode == 64 ? ARRAY_SIZE(rex) : 1); r++)
            for (unsigned map = 0; map < 4; map++)
                for (unsigned op = 0; op < 256; op++)
                    for (unsigned m = 0; m < MODRMS; m++) {
                        u8 b[X86_INSN_MAX] = {0};
                        unsigned n = 0;

                        for (unsigned i = 0; i < prefix[p][0]; i++)
                            b[n++] = prefix[p][1 + i];
                        if (rex[r])
                            b[n++] = rex[r];
                        if (map)
                            b[n++] = 0x0f;
                        if (map > 1)
                            b[n++] = map == 2 ? 0x38 : 0x3a;
                        b[n++] = (u8)op;
                        b[n] = modrm_of(m);
                        one(b, mode);
                    }
}

/* x87: each ModRM byte is another instruction. */
static void x87(unsigned mode, encoding_fn *one)
{
    for (unsigned op = 0xd8; op < 0xe0; op++)
        for (unsigned m = 0xc0; m < 256; m++) {
            u8 b[X86_INSN_MAX] = {(u8)op, (u8)m};

            one(b, mode);
        }
}

static void vex(unsigned mode, encoding_fn *one)
{
    static const u8 rxb[] = {0xe0, 0x40};
    static const u8 vvvv[] = {15, 11};

    for (unsigned r = 0; r < (mode == 64 ? 2 : 1); r++)
        for (unsigned map = 1; map < 4; map++)
            for (unsigned pp = 0; pp < 4; pp++)
                for (unsigned wl = 0; wl < 4; wl++)
                    for (unsigned v = 0; v < ARRAY_SIZE(vvvv); v++)
                        for (unsigned op = 0; op < 256; op++)
                            for (unsigned m = 0; m < MODRMS; m++) {
                                u8 b[X86_INSN_MAX] = {
                                    0xc4,
                                    (u8)(rxb[r] | map),
                                    (u8)((wl & 2) << 6 | vvvv[v] << 3 | (wl & 1) << 2 | pp),
                                    (u8)op,
                                    modrm_of(m),
                                    FILL};
                                one(b, mode);
                            }
}

static void evex(unsigned mode, encoding_fn *one)
{
    static const u8 maps[] = {1, 2, 3, 5, 6};
    static const u8 vvvv[] = {15, 10};

    for (unsigned map = 0; map < ARRAY_SIZE(maps); map++)
        for (unsigned pp = 0; pp < 4; pp++)
            for (unsigned lb = 0; lb < 8; lb++)
                for (unsigned w = 0; w < 2; w++)
                    for (unsigned v = 0; v < 4; v++)
                        for (unsigned op = 0; op < 256; op++)
                            for (unsigned m = 0; m < MODRMS; m += 1 + (m & 1)) {
                                u8 b[X86_INSN_MAX] = {0x62,
                                                      (u8)(0xf0 | maps[map]),
                                                      (u8)(w << 7 | vvvv[v & 1] << 3 | 4 | pp),
                                                      (u8)(lb << 4 | 8 | v >> 1),
                                                      (u8)op,
                                                      modrm_of(m),
                                                      FILL};
                                one(b, mode);
                            }
}

void each_encoding(encoding_fn *fn)
{
    for (unsigned mode = 64; mode >= 32; mode -= 32) {
        legacy(mode, fn);
        x87(mode, fn);
        vex(mode, fn);
        evex(mode, fn);
    }
}
