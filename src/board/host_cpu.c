/* SPDX-License-Identifier: Apache-2.0 */
#include "board/host_cpu.h"
#include "core/host.h"

static void host_cpuid(u32 leaf, u32 subleaf, u32 r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(subleaf));
}

/* XCR0, or 0 when the host has no XSAVE in use. */
static u64 host_xcr0(void)
{
    u32 r[4], lo, hi;

    host_cpuid(1, 0, r);
    if (!(r[2] & BIT32(27)))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (u64)hi << 32 | lo;
}

void host_cpu_model(struct x86_cpu_model *m, unsigned ncpus, bool hide_kvm)
{
    struct x86_cpu_options opt = {.ncpus = ncpus, .hide_kvm = hide_kvm, .tsc_khz = host_tsc_khz()};

    x86_cpu_model_build(m, host_cpuid, host_xcr0(), &opt);
}
