/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes between KVM and the board's form of a vCPU, with KVM played by this file: it takes and
 * gives what Linux' does (arch/x86/kvm/x86.c).
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "engine/kvm/kvm_priv.h"
#include "test.h"
#include "x86/cpu_features.h"
#include "x86/msr.h"
#include "x86/synthetic.h"

#define SIZE 0x10000u
#define TSX_CTRL BIT64(7) /* IA32_ARCH_CAPABILITIES (SDM 4 table 2-2) */

static struct vm vm;
static struct vcpu vcpu;
static struct kvm_cpu cpu;
static struct kvm_machine machine;
static struct kvm_run run;
static u8 ram[SIZE] __attribute__((aligned(PAGE_SIZE)));

static struct {
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    struct kvm_debugregs debug;
    struct kvm_msr_filter filter;
    u64 virt_spec_ctrl;
    u32 mxcsr;
    u8 xmm[256];
    bool divided; /* a #DE is pending */
    u64 fault_at; /* a #PF is pending, and CR2 is not set yet */
    u8 nmis;
    bool nmi_comes; /* from another vCPU, once the state has been fetched */
} kvm;

int __wrap_ioctl(int fd, unsigned long request, ...);

/* kvm_is_valid_sregs. */
static int set_sregs(const struct kvm_sregs2 *s)
{
    bool lma = (s->efer & EFER_LME) && (s->cr0 & CR0_PG);

    if (lma ? !(s->efer & EFER_LMA) : (s->efer & EFER_LMA) || s->cs.l)
        return -EINVAL;
    kvm.sregs = *s;
    return 0;
}

static int supported_cpuid(struct kvm_cpuid2 *list)
{
    static const u32 leaf[][2] = {{1, 0},   {7, 0},           {7, 1},          {0xd, 0},
                                  {0xd, 1}, {0x80000001u, 0}, {0x80000008u, 0}};

    for (unsigned i = 0; i < ARRAY_SIZE(leaf); i++)
        list->entries[i] =
            (struct kvm_cpuid_entry2){.function = leaf[i][0],
                                      .index = leaf[i][1],
                                      .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                      .eax = leaf[i][0] == 0xd && !leaf[i][1] ? 3 : ~0u,
                                      .ebx = ~0u,
                                      .ecx = ~0u,
                                      .edx = ~0u};
    list->nent = ARRAY_SIZE(leaf);
    return 0;
}

/* copy_uabi_to_xstate. */
static void set_xsave(const u8 *image)
{
    u64 bv;

    memcpy(&bv, image + 512, sizeof(bv));
    kvm.mxcsr = 0x1f80;
    if (bv & 6)
        memcpy(&kvm.mxcsr, image + 24, sizeof(kvm.mxcsr));
    if (bv & 2)
        memcpy(kvm.xmm, image + 160, sizeof(kvm.xmm));
    else
        memset(kvm.xmm, 0, sizeof(kvm.xmm));
}

/* Of an old CPU of AMD's, and the one that is none of the vCPU's. */
static int msrs(bool set, struct kvm_msr_values *l)
{
    for (u32 i = 0; i < l->nmsrs; i++) {
        if (l->entry[i].index == MSR_ARCH_CAPABILITIES)
            l->entry[i].data = MASK64(8, 0);
        else if (l->entry[i].index != MSR_AMD_VIRT_SPEC_CTRL)
            return (int)i;
        else if (set)
            kvm.virt_spec_ctrl = l->entry[i].data;
        else
            l->entry[i].data = kvm.virt_spec_ctrl;
    }
    return (int)l->nmsrs;
}

static int request_of(unsigned long request, void *arg)
{
    struct kvm_vcpu_events *e = arg;
    struct kvm_msr_values *msr = arg;

    switch (request) {
    case KVM_GET_SUPPORTED_CPUID:
        return supported_cpuid(arg);
    case KVM_GET_MSRS:
    case KVM_SET_MSRS:
        return msrs(request == KVM_SET_MSRS, msr);
    case KVM_ENABLE_CAP:
        return 0;
    case KVM_X86_SET_MSR_FILTER:
        memcpy(&kvm.filter, arg, sizeof(kvm.filter));
        return 0;
    case KVM_GET_REGS:
        memcpy(arg, &kvm.regs, sizeof(kvm.regs));
        return 0;
    case KVM_SET_REGS:
        memcpy(&kvm.regs, arg, sizeof(kvm.regs));
        kvm.nmis = (u8)(kvm.nmis + kvm.nmi_comes);
        return 0;
    case KVM_GET_SREGS2:
        memcpy(arg, &kvm.sregs, sizeof(kvm.sregs));
        return 0;
    case KVM_SET_SREGS2:
        return set_sregs(arg);
    case KVM_GET_DEBUGREGS:
        memcpy(arg, &kvm.debug, sizeof(kvm.debug));
        return 0;
    case KVM_GET_VCPU_EVENTS:
        memset(e, 0, sizeof(*e));
        e->nmi.pending = kvm.nmis;
        if (kvm.fault_at) {
            kvm.sregs.cr2 = kvm.fault_at;
            e->exception.injected = e->exception.has_error_code = 1;
            e->exception.nr = X86_PF;
            e->exception.error_code = 6;
        }
        if (kvm.divided) {
            e->exception.injected = 1;
            e->exception.nr = X86_DE;
        }
        return 0;
    case KVM_SET_VCPU_EVENTS:
        kvm.divided = e->exception.injected;
        if (e->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
            kvm.nmis = e->nmi.pending;
        return 0;
    case KVM_GET_MP_STATE:
        memset(arg, 0, sizeof(struct kvm_mp_state)); /* runnable */
        return 0;
    case KVM_SET_XSAVE:
        set_xsave(arg);
        return 0;
    case KVM_GET_XSAVE:
    case KVM_SET_DEBUGREGS:
    case KVM_SET_MP_STATE:
    case KVM_SET_DEVICE_ATTR:
        return 0;
    default:
        return -ENOTTY;
    }
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    int r;

    (void)fd;
    va_start(ap, request);
    r = request_of(request, va_arg(ap, void *));
    va_end(ap);
    errno = r < 0 ? -r : 0;
    return r < 0 ? -1 : r;
}

static int vcpu_create(struct vcpu *v)
{
    v->engine_vcpu = &cpu;
    return 0;
}

static const struct engine_ops ops = {.name = "kvm", .vcpu_create = vcpu_create};

static int build(void **state)
{
    (void)state;
    vm_init(&vm, &ops);
    vm.engine_vm = &machine;
    if (guest_mem_add(&vm.mem, gpa(0), SIZE, ram, false))
        return -1;
    machine.vm = &vm;
    machine.fd = -1;
    cpu.v = &vcpu;
    cpu.m = &machine;
    cpu.run = &run;
    return vm_add_vcpu(&vm, &vcpu) || kvm_interp_create(&cpu) ? -1 : 0;
}

static struct kvm_segment flat(u8 type)
{
    return (struct kvm_segment){
        .limit = ~0u, .selector = 8, .type = type, .present = 1, .s = 1, .db = 1, .g = 1};
}

/* Protected mode, and code at 0. */
static void start(const char *code)
{
    memset(&kvm, 0, sizeof(kvm));
    memset(ram, 0, sizeof(ram));
    strcpy((char *)ram, code);
    kvm.regs = (struct kvm_regs){.rflags = 2};
    kvm.sregs = (struct kvm_sregs2){.cr0 = CR0_ET | CR0_PE};
    kvm.sregs.cs = flat(11);
    kvm.sregs.ss = kvm.sregs.ds = kvm.sregs.es = kvm.sregs.fs = kvm.sregs.gs = flat(3);
    kvm.debug = (struct kvm_debugregs){.dr6 = DR6_INIT, .dr7 = DR7_INIT};
}

static void step(void)
{
    struct engine_exit exit;

    if (!kvm_interp_one(&cpu, &exit))
        fail_msg("%s", exit.text);
    assert_int_equal(kvm.regs.rip, 1);
}

/* Of transactions and bus locks, which a guest may have written where the CPU has them. */
static void debug_registers__have_no_other_bits(void **state)
{
    (void)state;
    start("");
    kvm.debug.dr6 = (DR6_INIT & ~(BIT64(16) | BIT64(11))) | DR6_BS;
    kvm.debug.dr7 = DR7_INIT | BIT64(11) | 3;
    assert_int_equal(kvm_fetch_state(&cpu), 0);
    assert_int_equal(cpu.s.dr6, DR6_INIT | DR6_BS);
    assert_int_equal(cpu.s.dr7, DR7_INIT | 3);
}

/* A descriptor's bit that means nothing outside long mode. */
static void long_code__outside_long_mode(void **state)
{
    (void)state;
    start("\x90");
    kvm.sregs.cs.l = 1;
    step();
}

/* Where a CPU cannot run real mode, KVM has an event delivered like an instruction emulated. */
static void event__comes_before_the_instruction(void **state)
{
    struct engine_exit exit;

    (void)state;
    start("");
    memcpy(ram, "\x34\x12\x00\x00", 4); /* vector 0 */
    kvm.sregs.cr0 = CR0_ET;
    kvm.sregs.idt.limit = 0x3ff;
    kvm.regs.rip = 0x500;
    kvm.regs.rsp = 0x8000;
    kvm.divided = true;
    if (!kvm_interp_one(&cpu, &exit))
        fail_msg("%s", exit.text);
    assert_int_equal(kvm.regs.rip, 0x1234);
    assert_int_equal(kvm.regs.rsp, 0x8000 - 6);
    assert_memory_equal(ram + 0x8000 - 6, "\x00\x05", 2);
    assert_false(kvm.divided);
}

static void nmi__that_comes_meanwhile(void **state)
{
    (void)state;
    start("\x90");
    kvm.nmi_comes = true;
    step();
    assert_int_equal(kvm.nmis, 1);
    kvm.nmi_comes = false;
    kvm.regs.rip = 0;
    step();
    assert_int_equal(kvm.nmis, 1);
}

/* What XSAVE stores when the registers are zero: their bit is clear, and what is at their place
 * does not count. */
static void mxcsr__goes_without_registers(void **state)
{
    static const u8 zero[sizeof(kvm.xmm)];
    const u32 mxcsr = 0x9f80;

    (void)state;
    start("");
    assert_int_equal(kvm_fetch_state(&cpu), 0);
    memset(cpu.s.xsave, 0, sizeof(cpu.s.xsave));
    memset(cpu.s.xsave + 160, 0x55, sizeof(kvm.xmm));
    memcpy(cpu.s.xsave + 24, &mxcsr, sizeof(mxcsr));
    assert_int_equal(kvm_put_state(&cpu), 0);
    assert_int_equal(kvm.mxcsr, mxcsr);
    assert_memory_equal(kvm.xmm, zero, sizeof(zero));
    cpu.s.xsave[512] = 2;
    memset(cpu.s.xsave + 160, 0x55, sizeof(kvm.xmm));
    assert_int_equal(kvm_put_state(&cpu), 0);
    assert_int_equal(kvm.xmm[255], 0x55);
}

/* KVM sets CR2 when it is asked for events. */
static void page_fault__has_its_address(void **state)
{
    (void)state;
    start("");
    kvm.sregs.cr2 = 0x1111000;
    kvm.fault_at = 0x2222000;
    assert_int_equal(kvm_fetch_state(&cpu), 0);
    assert_int_equal(cpu.s.ev_kind, X86_EV_EXCEPTION);
    assert_int_equal(cpu.s.ev_vector, X86_PF);
    assert_int_equal(cpu.s.ev_error, 6);
    assert_int_equal(cpu.s.cr2, 0x2222000);
}

/* What the guest has asked of the CPU is asked of the next one, too. */
static void virt_spec_ctrl__goes_along(void **state)
{
    struct x86_vcpu_state s;

    (void)state;
    start("");
    assert_int_equal(kvm_find_hw_msrs(&machine, &cpu), 0);
    assert_int_equal(machine.nhw_msrs, 1);
    kvm.virt_spec_ctrl = BIT64(2); /* SSBD */
    assert_int_equal(kvm_fetch_state(&cpu), 0);
    s = cpu.s;
    start("");
    cpu.s = s;
    assert_int_equal(kvm_put_state(&cpu), 0);
    assert_int_equal(kvm.virt_spec_ctrl, BIT64(2));
    machine.nhw_msrs = 0;
}

/* It says that there is an MSR, which there is not. */
static void model__has_no_tsx_ctrl(void **state)
{
    struct x86_cpu_options opt = {.tsc_khz = 2000000, .ncpus = 1};
    static struct x86_cpu_model m;
    u64 val;

    (void)state;
    synthetic_model(&m, false, 3, &opt);
    assert_int_equal(kvm_restrict_model(&m, -1), 0);
    assert_int_equal(m.arch_caps, MASK64(8, 0) & ~TSX_CTRL);
    vm.cpu_model = m;
    assert_int_equal(kvm_rdmsr(&cpu, 0x122, &val), -1);
}

static void model__of_amd_has_no_msr_of_intels(void **state)
{
    struct x86_cpu_options opt = {.tsc_khz = 2000000, .ncpus = 1};
    static struct x86_cpu_model m;

    (void)state;
    synthetic_model(&m, true, 3, &opt);
    assert_int_equal(kvm_restrict_model(&m, -1), 0);
    assert_int_equal(m.arch_caps, 0);
    assert_false(x86_cpu_model_has(&m, x86_feature_find("arch_capabilities", 17)));
    assert_true(x86_cpu_model_has(&m, x86_feature_find("ssbd", 4)));
}

/* Bitmaps are read in words of 64 bits. */
static void filter__has_whole_words(void **state)
{
    static const u64 all = ~0ull;

    (void)state;
    assert_int_equal(kvm_set_msr_filter(&machine), 0);
    for (unsigned i = 0; i < KVM_MSR_FILTER_MAX_RANGES; i++) {
        assert_in_range(kvm.filter.ranges[i].nmsrs, 0, 64);
        if (kvm.filter.ranges[i].nmsrs)
            assert_memory_equal(kvm.filter.ranges[i].bitmap, &all, sizeof(all));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(debug_registers__have_no_other_bits),
        cmocka_unit_test(long_code__outside_long_mode),
        cmocka_unit_test(event__comes_before_the_instruction),
        cmocka_unit_test(nmi__that_comes_meanwhile),
        cmocka_unit_test(mxcsr__goes_without_registers),
        cmocka_unit_test(page_fault__has_its_address),
        cmocka_unit_test(virt_spec_ctrl__goes_along),
        cmocka_unit_test(model__has_no_tsx_ctrl),
        cmocka_unit_test(model__of_amd_has_no_msr_of_intels),
        cmocka_unit_test(filter__has_whole_words),
    };

    return cmocka_run_group_tests_name("kvm-state", tests, build, NULL);
}
