/* SPDX-License-Identifier: Apache-2.0 */
/* A saved CPU: its model, and a vCPU's state, which the host must be able to load when it has
 * passed. */
#include <stdlib.h>
#include <string.h>

#include "core/cpu_state.h"
#include "x86/cpu_features.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

static void nothing(void *opaque, const char *name)
{
    (void)opaque;
    (void)name;
    abort();
}

static void host_cpuid(u32 leaf, u32 subleaf, u32 r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(subleaf));
}

/* Whether images have the host's layout. */
static bool host_has(const struct x86_cpu_model *m)
{
    u32 r[4], lo, hi;

    host_cpuid(1, 0, r);
    if (!(r[2] & BIT32(27)))
        return false;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    if (m->xcr0_valid & ~(u64)lo)
        return false;
    for (unsigned i = 0; i < m->n; i++) {
        const struct x86_cpuid_entry *e = &m->entry[i];

        if (e->leaf != 0xd || e->subleaf < 2)
            continue;
        host_cpuid(0xd, e->subleaf, r);
        if (r[0] != e->eax || r[1] != e->ebx)
            return false;
    }
    /* MXCSR.MM */
    host_cpuid(0x80000001, 0, r);
    return !(m->mxcsr_mask & BIT32(17)) || (r[2] & BIT32(7));
}

static void load_vectors(const struct x86_vcpu_state *s, u64 mask)
{
    static struct x86_vcpu_state own;

    __asm__ volatile("xsave64 %0\n"
                     "xrstor64 %1\n"
                     "xrstor64 %0"
                     : "+m"(own.xsave)
                     : "m"(s->xsave), "a"((u32)mask), "d"((u32)(mask >> 32))
                     : "memory");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static u8 in_buf[16384], out_buf[16384];
    static struct x86_vcpu_state s;
    struct stream in, out;
    struct x86_cpu_model m;
    u32 r[4];

    if (size > sizeof(in_buf))
        return 0;
    memcpy(in_buf, data, size);
    stream_init(&in, in_buf, size);
    if (x86_cpu_model_load(&m, &in))
        return 0;
    stream_init(&out, out_buf, sizeof(out_buf));
    x86_cpu_model_save(&m, &out);
    must(!out.error && out.pos <= X86_CPU_MODEL_SAVED_MAX && out.pos == in.pos &&
         !memcmp(in_buf, out_buf, out.pos));
    x86_cpu_model_missing(&m, &m, nothing, NULL);
    if (x86_vcpu_state_load(&s, &m, 12345, &in))
        return 0;
    for (unsigned i = 0; i < m.n; i++)
        x86_cpuid(&m, &s, 1, true, m.entry[i].leaf, m.entry[i].subleaf, r);
    stream_init(&out, out_buf, sizeof(out_buf));
    x86_vcpu_state_save(&s, &m, 12345, &out);
    must(!out.error && out.pos <= X86_VCPU_STATE_SAVED_MAX);
    if (host_has(&m))
        load_vectors(&s, m.xcr0_valid | 3);
    return 0;
}
