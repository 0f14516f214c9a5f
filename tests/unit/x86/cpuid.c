/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU model from synthetic hosts, and the reset state. */
#include "x86/cpuid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "x86/msr.h"
#include "x86/synthetic.h"

static void build(struct x86_cpu_model *m, struct x86_vcpu_state *s, bool amd, u64 xcr0,
                  unsigned ncpus, bool hide_kvm)
{
    struct x86_cpu_options opt = {.ncpus = ncpus, .hide_kvm = hide_kvm, .tsc_khz = 2500000};

    synthetic_model(m, amd, xcr0, &opt);
    x86_state_reset(s, m->signature, 0);
}

static u32 reg(const struct x86_cpu_model *m, const struct x86_vcpu_state *s, u32 leaf, u32 sub,
               unsigned r)
{
    u32 out[4];
    x86_cpuid(m, s, 1, true, leaf, sub, out);
    return out[r];
}

enum { EAX, EBX, ECX, EDX };

static void cpuid__hides_what_cannot_be_kept(void **state)
{
    static struct x86_cpu_model m;
    static struct x86_vcpu_state s;
    (void)state;
    for (unsigned amd = 0; amd < 2; amd++) {
        build(&m, &s, amd, ~(u64)0, 2, false);
        u32 c = reg(&m, &s, 1, 0, ECX), b7 = reg(&m, &s, 7, 0, EBX), c7 = reg(&m, &s, 7, 0, ECX);
        u32 d7 = reg(&m, &s, 7, 0, EDX);
        assert_int_equal(c & (BIT32(3) | BIT32(5) | BIT32(6) | BIT32(15)), 0); /* MONITOR VMX .. */
        assert_int_equal(c & BIT32(27), 0);                                    /* OSXSAVE */
        assert_int_equal(b7 & (BIT32(2) | BIT32(4) | BIT32(11) | BIT32(14) | BIT32(25)), 0);
        assert_int_equal(c7 & (BIT32(3) | BIT32(5) | BIT32(7) | BIT32(16) | BIT32(29)), 0);
        assert_int_equal(d7 & (BIT32(5) | BIT32(20) | BIT32(22) | BIT32(24)), 0);
        assert_int_equal(reg(&m, &s, 0xa, 0, EAX), 0);
        assert_int_equal(reg(&m, &s, 0x80000001, 0, ECX) & (BIT32(2) | BIT32(10)), 0); /* SVM IBS */
        assert_int_equal(m.cr4_valid & (CR4_VMXE | CR4_PKE | CR4_LA57), 0);
        assert_int_equal(m.xcr0_valid, 0xe7);
        assert_int_equal(m.lin_bits, 48);
        assert_int_equal(m.phys_bits, 52);
        assert_true(m.smep && m.smap && m.umip && m.nx && m.gbpages && m.pcid && m.invpcid);
    }
}

static void cpuid__no_speculation_workarounds(void **state)
{
    static struct x86_cpu_model m;
    static struct x86_vcpu_state s;
    u64 v;
    (void)state;
    build(&m, &s, false, ~(u64)0, 1, false);
    assert_true(reg(&m, &s, 7, 0, EDX) & BIT32(29));
    assert_int_equal(x86_msr_read(&s, &m, MSR_ARCH_CAPABILITIES, 0, &v), X86_MSR_OK);
    assert_int_equal(v & 0x13b, 0x13b);
    build(&m, &s, true, ~(u64)0, 1, false);
    assert_false(reg(&m, &s, 7, 0, EDX) & BIT32(29));
    assert_int_equal(x86_msr_read(&s, &m, MSR_ARCH_CAPABILITIES, 0, &v), X86_MSR_GP);
    assert_true(reg(&m, &s, 0x80000021, 0, EAX) & BIT32(8)); /* automatic IBRS */
    assert_true(m.efer_valid & EFER_AUTOIBRS);
}

static void cpuid__vector_features_need_xcr0(void **state)
{
    static struct x86_cpu_model m;
    static struct x86_vcpu_state s;
    (void)state;
    build(&m, &s, false, 7, 1, false);
    assert_int_equal(m.xcr0_valid, 7);
    assert_int_equal(m.xsave_size, 832);
    assert_true(reg(&m, &s, 7, 0, EBX) & BIT32(5));
    assert_false(reg(&m, &s, 7, 0, EBX) & BIT32(16));
    assert_false(reg(&m, &s, 7, 0, ECX) & BIT32(1));
    build(&m, &s, false, 3, 1, false);
    assert_false(reg(&m, &s, 1, 0, ECX) & BIT32(28));
    assert_false(reg(&m, &s, 7, 0, EBX) & BIT32(5));
}

static void cpuid__dynamic_bits(void **state)
{
    static struct x86_cpu_model m;
    static struct x86_vcpu_state s;
    u32 out[4];
    (void)state;
    build(&m, &s, false, ~(u64)0, 4, false);
    assert_int_equal(reg(&m, &s, 1, 0, EBX) >> 24, 1);
    assert_int_equal(reg(&m, &s, 1, 0, EBX) >> 16 & 0xff, 4);
    s.cr4 |= CR4_OSXSAVE;
    assert_true(reg(&m, &s, 1, 0, ECX) & BIT32(27));
    x86_cpuid(&m, &s, 0, false, 1, 0, out);
    assert_false(out[3] & BIT32(9));
    assert_int_equal(reg(&m, &s, 0xd, 0, EBX), 576);
    s.xcr0 = 7;
    assert_int_equal(reg(&m, &s, 0xd, 0, EBX), 832);
    s.xcr0 = 0xe7;
    assert_int_equal(reg(&m, &s, 0xd, 0, EBX), 2688);
    assert_int_equal(reg(&m, &s, 0xd, 0, ECX), 2688);
    assert_int_equal(reg(&m, &s, 0xd, 1, EBX), 576 + 256 + 64 + 512 + 1024);
    assert_int_equal(reg(&m, &s, 0xd, 1, EAX) & BIT32(3), 0); /* XSAVES */
}

static void cpuid__topology(void **state)
{
    static struct x86_cpu_model m;
    static struct x86_vcpu_state s;
    (void)state;
    build(&m, &s, false, ~(u64)0, 3, false);
    assert_int_equal(reg(&m, &s, 0xb, 0, EAX), 0);
    assert_int_equal(reg(&m, &s, 0xb, 0, EBX), 1);
    assert_int_equal(reg(&m, &s, 0xb, 0, ECX), 0x100);
    assert_int_equal(reg(&m, &s, 0xb, 1, EAX), 2);
    assert_int_equal(reg(&m, &s, 0xb, 1, EBX), 3);
    assert_int_equal(reg(&m, &s, 0xb, 1, ECX), 0x201);
    assert_int_equal(reg(&m, &s, 0xb, 1, EDX), 1);
    assert_int_equal(reg(&m, &s, 0xb, 2, ECX), 2);
    assert_int_equal(reg(&m, &s, 0xb, 2, EDX), 1);
    assert_int_equal(reg(&m, &s, 4, 0, EAX) >> 26, 3);
    assert_int_equal(reg(&m, &s, 4, 0, EAX) >> 14 & 0xfff, 0);
    assert_int_equal(reg(&m, &s, 4, 3, EAX) >> 14 & 0xfff, 3);
    build(&m, &s, true, ~(u64)0, 3, false);
    assert_int_equal(reg(&m, &s, 0x80000008, 0, ECX), 2 | 2 << 12);
    assert_int_equal(reg(&m, &s, 0x8000001e, 0, EAX), 1);
    assert_int_equal(reg(&m, &s, 0x8000001d, 3, EAX) >> 14, 2);
}

static void cpuid__kvm_leaves(void **state)
{
    static struct x86_cpu_model m;
    static struct x86_vcpu_state s;
    u32 out[4];
    (void)state;
    build(&m, &s, true, ~(u64)0, 1, false);
    x86_cpuid(&m, &s, 0, true, 0x40000000, 0, out);
    assert_memory_equal(&out[1], "KVMKVMKVM\0\0\0", 12);
    assert_int_equal(reg(&m, &s, 0x40000010, 0, EAX), 2500000);
    build(&m, &s, true, ~(u64)0, 1, true);
    assert_int_equal(reg(&m, &s, 0x40000000, 0, EBX), 0);
}

static void cpuid__out_of_range(void **state)
{
    static struct x86_cpu_model m;
    static struct x86_vcpu_state s;
    (void)state;
    build(&m, &s, true, ~(u64)0, 1, false);
    assert_int_equal(reg(&m, &s, 0x7fffffff, 0, EAX), 0);
    build(&m, &s, false, ~(u64)0, 2, false);
    assert_int_equal(reg(&m, &s, 0x7fffffff, 1, EBX), reg(&m, &s, 0x1f, 1, EBX));
}

static void state__reset_and_init(void **state)
{
    static struct x86_vcpu_state s;
    (void)state;
    x86_state_reset(&s, 0x12345, 777);
    assert_int_equal(s.rip, 0xfff0);
    assert_int_equal(s.seg[X86_CS].base, 0xffff0000);
    assert_int_equal(s.seg[X86_CS].sel, 0xf000);
    assert_int_equal(s.gpr[X86_RDX], 0x12345);
    assert_int_equal(s.cr0, 0x60000010);
    assert_int_equal(s.dr6, 0xffff0ff0);
    assert_int_equal(s.dr7, 0x400);
    assert_int_equal(s.tsc_offset + 777, 0);
    assert_int_equal(s.pat, 0x0007040600070406);
    s.cr0 = CR0_PE | CR0_PG | CR0_ET;
    s.xsave[600] = 9;
    s.star = 5;
    s.xcr0 = 7;
    x86_state_init(&s, 1);
    assert_int_equal(s.cr0, CR0_ET); /* CD and NW stay as they were */
    assert_int_equal(s.xsave[600], 9);
    assert_int_equal(s.star, 5);
    assert_int_equal(s.xcr0, 7);
}

/* A CPU with SSE, XSAVE and what the guest needs against its weaknesses, but not much else. */
static void small_cpu(void *opaque, u32 leaf, u32 subleaf, u32 out[4])
{
    (void)opaque;
    (void)subleaf;
    memset(out, 0, 16);
    switch (leaf) {
    case 1:
        out[2] = BIT32(0) | BIT32(5) | BIT32(26); /* SSE3 VMX XSAVE */
        out[3] = 0xffffffffu;
        break;
    case 7:
        out[1] = BIT32(7);              /* SMEP */
        out[3] = BIT32(10) | BIT32(26); /* MD_CLEAR, IBRS and IBPB */
        break;
    case 0xd:
        out[0] = 3;
        break;
    case 0x80000001:
        out[3] = BIT32(11) | BIT32(20) | BIT32(29);
        break;
    case 0x80000008:
        out[1] = BIT32(0) | BIT32(12); /* CLZERO IBPB */
        break;
    default:
        break;
    }
}

static void cpuid__what_hardware_keeps(void **state)
{
    static struct x86_cpu_model m;
    static struct x86_vcpu_state s;
    (void)state;
    for (unsigned amd = 0; amd < 2; amd++) {
        build(&m, &s, amd, ~(u64)0, 2, false);
        x86_cpu_model_restrict(&m, small_cpu, NULL);
        u32 c = reg(&m, &s, 1, 0, ECX), b7 = reg(&m, &s, 7, 0, EBX), d7 = reg(&m, &s, 7, 0, EDX);
        assert_int_equal(c & (BIT32(0) | BIT32(26)), BIT32(0) | BIT32(26));
        assert_int_equal(c & (BIT32(5) | BIT32(17) | BIT32(24) | BIT32(28)), 0);
        /* The board's: x2APIC and that there is a hypervisor. */
        assert_int_equal(c & (BIT32(21) | BIT32(31)), BIT32(21) | BIT32(31));
        assert_int_equal(b7 & (BIT32(7) | BIT32(20)), BIT32(7));
        assert_int_equal(d7, BIT32(10) | BIT32(26));
        assert_int_equal(m.xcr0_valid, 3);
        assert_true(m.smep && m.nx && !m.smap && !m.gbpages && !m.pcid && !m.rdtscp && !m.umip);
        if (amd) /* IBPB is the CPU's; that nothing is needed was the translator's */
            assert_int_equal(reg(&m, &s, 0x80000008, 0, EBX), BIT32(12));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpuid__hides_what_cannot_be_kept),
        cmocka_unit_test(cpuid__no_speculation_workarounds),
        cmocka_unit_test(cpuid__vector_features_need_xcr0),
        cmocka_unit_test(cpuid__dynamic_bits),
        cmocka_unit_test(cpuid__topology),
        cmocka_unit_test(cpuid__kvm_leaves),
        cmocka_unit_test(cpuid__out_of_range),
        cmocka_unit_test(cpuid__what_hardware_keeps),
        cmocka_unit_test(state__reset_and_init),
    };
    return cmocka_run_group_tests_name("cpuid", tests, NULL, NULL);
}
