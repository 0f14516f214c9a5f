/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CPU the guest sees: the board's model as far as KVM keeps it. MSRs of the hardware are the
 * guest's own through KVM; all others come here and mean what they mean with every engine.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "engine/kvm/kvm_priv.h"
#include "x86/cpu_features.h"
#include "x86/msr.h"

#define F1C_TSC_DEADLINE BIT32(24)
#define F7D_ARCH_CAPABILITIES BIT32(29)

#define MSR_FLUSH_CMD 0x10bu

#define SUPPORTED_MAX 256

/*
 * Bits of IA32_ARCH_CAPABILITIES that say of an MSR that it is there (SDM 4 table 2-2): TSX_CTRL,
 * MCU_CONTROL, MISC_PACKAGE_CTLS with ENERGY_FILTERING_CTL, DOITM, MCU_ENUMERATION, FB_CLEAR_CTRL,
 * XAPIC_DISABLE_STATUS, OVERCLOCKING_STATUS, GDS_CTRL. The filter sends all MSRs but the hardware's
 * here, where those are not. Without TSX_CTRL and RTM nobody looks for a weakness of TSX.
 */
#define ARCH_CAPS_OF_MSRS                                                                          \
    (BIT64(7) | MASK64(12, 9) | BIT64(16) | BIT64(18) | BIT64(21) | BIT64(23) | BIT64(25))

/* What VMCS or VMCB hold or the CPU switches, commands to the CPU (no value: not moved with the
 * state), and the local APIC's. EFER, FS and GS base are part of KVM's special registers. */
static const struct {
    u32 first, last;
} hw[] = {
    {MSR_SPEC_CTRL, MSR_PRED_CMD},
    {MSR_FLUSH_CMD, MSR_FLUSH_CMD},
    {MSR_SYSENTER_CS, MSR_SYSENTER_EIP},
    {MSR_DEBUGCTL, MSR_DEBUGCTL},
    {MSR_PAT, MSR_PAT},
    {MSR_EFER, MSR_SFMASK},
    {MSR_FS_BASE, MSR_TSC_AUX},
    {MSR_AMD_VIRT_SPEC_CTRL, MSR_AMD_VIRT_SPEC_CTRL},
    {MSR_APIC_BASE, MSR_APIC_BASE},
    {MSR_TSC_DEADLINE, MSR_TSC_DEADLINE},
};

/* Those of them whose values are fields of the state. */
static const u32 moved[] = {
    MSR_STAR,
    MSR_LSTAR,
    MSR_CSTAR,
    MSR_SFMASK,
    MSR_KERNEL_GS_BASE,
    MSR_SYSENTER_CS,
    MSR_SYSENTER_ESP,
    MSR_SYSENTER_EIP,
    MSR_PAT,
    MSR_TSC_AUX,
    MSR_SPEC_CTRL,
    MSR_DEBUGCTL,
    MSR_AMD_VIRT_SPEC_CTRL,
};
_Static_assert(ARRAY_SIZE(moved) <= KVM_HW_MSRS_MAX, "KVM_HW_MSRS_MAX is too small");

bool kvm_is_hw_msr(u32 msr)
{
    for (unsigned i = 0; i < ARRAY_SIZE(hw); i++)
        if (msr >= hw[i].first && msr <= hw[i].last)
            return true;
    /* No filter applies to these: KVM lets none through, but for those it refuses. */
    return msr >= MSR_X2APIC_BASE && msr <= MSR_X2APIC_LAST;
}

/* --- CPUID --- */

static void supported(void *opaque, u32 leaf, u32 subleaf, u32 out[4])
{
    const struct kvm_cpuid2 *list = opaque;

    memset(out, 0, 4 * sizeof(u32));
    for (unsigned i = 0; i < list->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &list->entries[i];

        if (e->function != leaf ||
            ((e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) && e->index != subleaf))
            continue;
        out[0] = e->eax;
        out[1] = e->ebx;
        out[2] = e->ecx;
        out[3] = e->edx;
        /* Not in this list as it depends on the APIC being KVM's (api.rst,
         * KVM_GET_SUPPORTED_CPUID). */
        if (leaf == 1)
            out[2] |= F1C_TSC_DEADLINE;
        return;
    }
}

static struct kvm_cpuid2 *cpuid_list(unsigned n)
{
    struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + n * sizeof(list->entries[0]));

    if (list)
        list->nent = n;
    return list;
}

/* A feature MSR of the host as KVM would show it; 0: it has none. */
static u64 feature_msr(int sys, u32 msr)
{
    struct kvm_msr_values get = {.nmsrs = 1, .entry[0].index = msr};

    return kvm_ioctl(sys, KVM_GET_MSRS, &get) == 1 ? get.entry[0].data : 0;
}

int kvm_restrict_model(struct x86_cpu_model *model, int sys)
{
    struct kvm_cpuid2 *list = cpuid_list(SUPPORTED_MAX);
    u32 r[4];
    int err;

    if (!list)
        return -ENOMEM;
    err = kvm_ioctl(sys, KVM_GET_SUPPORTED_CPUID, list);
    if (err >= 0) {
        x86_cpu_model_restrict(model, supported, list);
        supported(list, 7, 0, r);
        /* KVM has it for AMD's CPUs, too, where it is not defined, and Windows stops at it (QEMU
         * d3a24134e37d). */
        if (model->amd) {
            x86_cpu_model_remove(model, x86_feature_find("arch_capabilities", 17));
            r[3] &= ~F7D_ARCH_CAPABILITIES;
        }
        model->arch_caps = r[3] & F7D_ARCH_CAPABILITIES
                               ? feature_msr(sys, MSR_ARCH_CAPABILITIES) & ~ARCH_CAPS_OF_MSRS
                               : 0;
    }
    free(list);
    return err < 0 ? err : 0;
}

int kvm_set_cpuid(struct kvm_cpu *c)
{
    const struct x86_cpu_model *model = &c->m->vm->cpu_model;
    struct kvm_cpuid2 *list = cpuid_list(model->n);
    struct x86_vcpu_state *s = calloc(1, sizeof(*s));
    int err = -ENOMEM;

    if (list && s) {
        /* KVM fills in what depends on registers, but shows SYSCALL in every mode. */
        s->efer = EFER_LMA;
        s->seg[X86_CS].attr = X86_SEG_L;
        s->xcr0 = 1;
        for (unsigned i = 0; i < model->n; i++) {
            const struct x86_cpuid_entry *e = &model->entry[i];
            struct kvm_cpuid_entry2 *to = &list->entries[i];
            u32 r[4];

            x86_cpuid(model, s, c->v->id, true, e->leaf, e->subleaf, r);
            *to = (struct kvm_cpuid_entry2){
                .function = e->leaf,
                .index = e->subleaf,
                .flags = e->has_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
                .eax = r[0],
                .ebx = r[1],
                .ecx = r[2],
                .edx = r[3],
            };
        }
        err = kvm_ioctl(c->fd, KVM_SET_CPUID2, list);
    }
    free(list);
    free(s);
    return err;
}

/* --- MSRs --- */

int kvm_set_msr_filter(struct kvm_machine *m)
{
    static u64 all = ~0ull; /* KVM reads whole words (kvm_add_msr_filter) */
    struct kvm_msr_filter f = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
    struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                 /* INVAL: the x2APIC's, which no filter applies to, come that way
                                  */
                                 .args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
                                          KVM_MSR_EXIT_REASON_FILTER}};
    int err = kvm_ioctl(m->fd, KVM_ENABLE_CAP, &cap);

    _Static_assert(ARRAY_SIZE(hw) <= KVM_MSR_FILTER_MAX_RANGES, "too many ranges");
    for (unsigned i = 0; i < ARRAY_SIZE(hw); i++)
        f.ranges[i] = (struct kvm_msr_filter_range){
            .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
            .base = hw[i].first,
            .nmsrs = hw[i].last - hw[i].first + 1,
            .bitmap = (u8 *)&all,
        };
    return err ? err : kvm_ioctl(m->fd, KVM_X86_SET_MSR_FILTER, &f);
}

int kvm_find_hw_msrs(struct kvm_machine *m, struct kvm_cpu *c)
{
    m->nhw_msrs = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(moved); i++) {
        struct kvm_msr_values one = {.nmsrs = 1, .entry[0].index = moved[i]};
        int r = kvm_ioctl(c->fd, KVM_GET_MSRS, &one);

        if (r < 0)
            return r;
        if (r == 1)
            m->hw_msr[m->nhw_msrs++] = moved[i];
    }
    return 0;
}

int kvm_rdmsr(struct kvm_cpu *c, u32 msr, u64 *val)
{
    enum x86_msr_result r;

    *val = 0;
    if (kvm_is_hw_msr(msr)) /* KVM has it not */
        return -1;
    r = x86_msr_read(&c->s, &c->m->vm->cpu_model, msr, kvm_host_tsc(), val);
    return r == X86_MSR_UNKNOWN ? vm_rdmsr(c->v, msr, val) : r == X86_MSR_OK ? 0 : -1;
}

int kvm_wrmsr(struct kvm_cpu *c, u32 msr, u64 val)
{
    u64 tsc_offset = c->s.tsc_offset;
    enum x86_msr_result r;

    if (kvm_is_hw_msr(msr)) /* KVM has it not, or not with this value */
        return -1;
    r = x86_msr_write(&c->s, &c->m->vm->cpu_model, msr, val, kvm_host_tsc());
    if (c->s.tsc_offset != tsc_offset && kvm_put_tsc_offset(c))
        log_warn("cpu %u: KVM does not take the TSC the guest wrote", c->v->id);
    return r == X86_MSR_UNKNOWN ? vm_wrmsr(c->v, msr, val) : r == X86_MSR_OK ? 0 : -1;
}
