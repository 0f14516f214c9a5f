/* SPDX-License-Identifier: Apache-2.0 */
/* Which instruction set extensions the guest is shown, as one bit each: what is hidden is #UD. */
#include "engine/interp/interp_priv.h"

static const struct {
    u64 feature;
    u32 leaf, subleaf;
    u8 reg, bit; /* EAX, EBX, ECX, EDX: 0..3 */
} sources[] = {
    {X86F_SSE3, 1, 0, 2, 0},
    {X86F_PCLMUL, 1, 0, 2, 1},
    {X86F_SSSE3, 1, 0, 2, 9},
    {X86F_FMA, 1, 0, 2, 12},
    {X86F_CX16, 1, 0, 2, 13},
    {X86F_SSE41, 1, 0, 2, 19},
    {X86F_SSE42, 1, 0, 2, 20},
    {X86F_MOVBE, 1, 0, 2, 22},
    {X86F_POPCNT, 1, 0, 2, 23},
    {X86F_AES, 1, 0, 2, 25},
    {X86F_XSAVE, 1, 0, 2, 26},
    {X86F_AVX, 1, 0, 2, 28},
    {X86F_F16C, 1, 0, 2, 29},
    {X86F_RDRAND, 1, 0, 2, 30},
    {X86F_MMX, 1, 0, 3, 23},
    {X86F_FXSR, 1, 0, 3, 24},
    {X86F_SSE, 1, 0, 3, 25},
    {X86F_SSE2, 1, 0, 3, 26},
    {X86F_BMI1, 7, 0, 1, 3},
    {X86F_AVX2, 7, 0, 1, 5},
    {X86F_BMI2, 7, 0, 1, 8},
    {X86F_AVX512, 7, 0, 1, 16},
    {X86F_RDSEED, 7, 0, 1, 18},
    {X86F_ADX, 7, 0, 1, 19},
    {X86F_CLFLUSHOPT, 7, 0, 1, 23},
    {X86F_CLWB, 7, 0, 1, 24},
    {X86F_SHA, 7, 0, 1, 29},
    {X86F_GFNI, 7, 0, 2, 8},
    {X86F_VAES, 7, 0, 2, 9},
    {X86F_VPCLMUL, 7, 0, 2, 10},
    {X86F_MOVDIRI, 7, 0, 2, 27},
    {X86F_MOVDIR64B, 7, 0, 2, 28},
    {X86F_SERIALIZE, 7, 0, 3, 14},
    {X86F_AVXVNNI, 7, 1, 0, 4},
    {X86F_XSAVEOPT, 13, 1, 0, 0},
    {X86F_XSAVEC, 13, 1, 0, 1},
    {X86F_XSAVES, 13, 1, 0, 3},
    {X86F_LAHF64, 0x80000001, 0, 2, 0},
    {X86F_LZCNT, 0x80000001, 0, 2, 5},
    {X86F_SSE4A, 0x80000001, 0, 2, 6},
    {X86F_XOP, 0x80000001, 0, 2, 11},
    {X86F_FMA4, 0x80000001, 0, 2, 16},
    {X86F_TBM, 0x80000001, 0, 2, 21},
    {X86F_3DNOW, 0x80000001, 0, 3, 31},
    {X86F_CLZERO, 0x80000008, 0, 1, 0},
};

u64 interp_features(const struct x86_cpu_model *model)
{
    u64 f = 0;
    if (!model)
        return 0;
    for (unsigned i = 0; i < model->n && i < X86_CPUID_MAX; i++) {
        const struct x86_cpuid_entry *e = &model->entry[i];
        const u32 reg[4] = {e->eax, e->ebx, e->ecx, e->edx};
        for (size_t k = 0; k < ARRAY_SIZE(sources); k++)
            if (sources[k].leaf == e->leaf &&
                (!e->has_subleaf || sources[k].subleaf == e->subleaf) &&
                ((reg[sources[k].reg] >> sources[k].bit) & 1))
                f |= sources[k].feature;
    }
    return f;
}
