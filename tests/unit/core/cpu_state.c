/* SPDX-License-Identifier: Apache-2.0 */
/* CPU models and vCPU states through streams: all of it comes back, and nothing impossible does. */
#include "core/cpu_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"
#include "x86/cpu_check.h"
#include "x86/msr.h"
#include "x86/synthetic.h"

static struct x86_cpu_model model;
static struct x86_vcpu_state s, t;
static u8 buf[X86_VCPU_STATE_SAVED_MAX];

static void build(bool amd)
{
    synthetic_model(&model, amd, ~(u64)0,
                    &(struct x86_cpu_options){.ncpus = 2, .tsc_khz = 2000000});
    x86_state_reset(&s, model.signature, 5000);
}

static int through_stream(void)
{
    struct stream out, in;

    stream_init(&out, buf, sizeof(buf));
    x86_vcpu_state_save(&s, &model, 6000, &out);
    assert_int_equal(out.error, 0);
    stream_init(&in, buf, out.pos);
    return x86_vcpu_state_load(&t, &model, 900, &in);
}

static void model__comes_back(void **state)
{
    struct x86_cpu_model other;
    struct stream out, in;

    (void)state;
    for (unsigned amd = 0; amd < 2; amd++) {
        build(amd);
        memset(&other, 0xa5, sizeof(other));
        stream_init(&out, buf, X86_CPU_MODEL_SAVED_MAX);
        x86_cpu_model_save(&model, &out);
        assert_int_equal(out.error, 0);
        stream_init(&in, buf, out.pos);
        assert_int_equal(x86_cpu_model_load(&other, &in), 0);
        assert_int_equal(in.pos, out.pos);
        assert_int_equal(other.n, model.n);
        for (unsigned i = 0; i < model.n; i++) {
            assert_int_equal(other.entry[i].leaf, model.entry[i].leaf);
            assert_int_equal(other.entry[i].subleaf, model.entry[i].subleaf);
            assert_memory_equal(&other.entry[i].eax, &model.entry[i].eax, 16);
        }
        assert_int_equal(other.amd, amd);
        assert_int_equal(other.cr4_valid, model.cr4_valid);
        assert_int_equal(other.efer_valid, model.efer_valid);
        assert_int_equal(other.xcr0_valid, model.xcr0_valid);
        assert_int_equal(other.xsave_size, model.xsave_size);
        assert_int_equal(other.mxcsr_mask, model.mxcsr_mask);
        assert_int_equal(other.phys_bits, model.phys_bits);
        assert_int_equal(other.signature, model.signature);
        assert_int_equal(other.tsc_khz, 2000000);
        assert_int_equal(other.arch_caps, model.arch_caps);
        for (size_t n = 0; n < out.pos; n++) { /* cut short anywhere */
            stream_init(&in, buf, n);
            assert_int_equal(x86_cpu_model_load(&other, &in), -EINVAL);
        }
        buf[0]++; /* another version */
        stream_init(&in, buf, out.pos);
        assert_int_equal(x86_cpu_model_load(&other, &in), -EINVAL);
    }
}

static void state__comes_back(void **state)
{
    (void)state;
    build(true);
    assert_int_equal(through_stream(), 0);
    assert_int_equal(t.tsc_offset + 900, 1000); /* 6000 - 5000 on the old host */
    t.tsc_offset = s.tsc_offset;
    assert_memory_equal(&s, &t, sizeof(s));

    /* 64-bit code, every field that has no rule of its own filled. */
    for (unsigned i = 0; i < 16; i++)
        s.gpr[i] = 0x1111111111111111ull * i;
    s.rip = 0xffffffff81000000;
    s.rflags |= RFLAGS_IF | RFLAGS_ZF;
    s.cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
    s.cr2 = 0xffff888000000000;
    s.cr3 = 0x1234000;
    s.cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE;
    s.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
    s.seg[X86_CS] = (struct x86_seg){.sel = 0x10,
                                     .limit = 0xffffffff,
                                     .attr = X86_SEG_P | X86_SEG_S | 0xb | X86_SEG_L | X86_SEG_G};
    s.seg[X86_GS].base = 0xffff88803ec00000;
    s.gdtr = (struct x86_dtr){.base = 0xfffffe0000001000, .limit = 0x7f};
    s.xcr0 = 7;
    s.dr[0] = 0x1000;
    s.dr7 = DR7_INIT | 1;
    s.star = 0x23001000000000;
    s.lstar = 0xffffffff82000000;
    s.tsc_aux = 1;
    s.tsc_adjust = (u64)-5;
    s.nmi_pending = 1;
    s.ev_kind = X86_EV_EXCEPTION;
    s.ev_vector = 14;
    s.ev_has_error = 1;
    s.ev_error = 2;
    s.mc_bank[9][3] = 77;
    s.misc_msr[47] = 78;
    s.xsave[512] = 0xe7;
    for (unsigned i = 160; i < 416; i++)
        s.xsave[i] = (u8)i;
    for (unsigned i = 576; i < 832; i++)
        s.xsave[i] = (u8)(i * 3);
    for (unsigned i = 1088; i < 2688; i++)
        s.xsave[i] = (u8)(i * 5);
    assert_int_equal(through_stream(), 0);
    t.tsc_offset = s.tsc_offset;
    assert_memory_equal(&s, &t, sizeof(s));
}

static void state__cut_short(void **state)
{
    struct stream out, in;

    (void)state;
    build(false);
    stream_init(&out, buf, sizeof(buf));
    x86_vcpu_state_save(&s, &model, 6000, &out);
    for (size_t n = 0; n < out.pos; n++) {
        stream_init(&in, buf, n);
        assert_int_equal(x86_vcpu_state_load(&t, &model, 900, &in), -EINVAL);
    }
    buf[1] = 1;
    stream_init(&in, buf, out.pos);
    assert_int_equal(x86_vcpu_state_load(&t, &model, 900, &in), -EINVAL);
}

/* An image with more in it than the guest's CPU has (KVM's, on a host with protection keys). */
static void state__components_of_the_host_are_left_out(void **state)
{
    (void)state;
    build(false);
    s.xsave[512] = 7;
    s.xsave[513] = 2;
    assert_int_equal(through_stream(), 0);
    assert_int_equal(t.xsave[512], 7);
    assert_int_equal(t.xsave[513], 0);
}

/* XSTATE_BV with a component that is not there, in the stream, where components are last. */
static void state__refuses_components_that_are_not_there(void **state)
{
    static const unsigned bits[] = {3, 4, 9, 17, 56, 63};
    struct stream out, in;
    size_t at;

    (void)state;
    build(true);
    stream_init(&out, buf, sizeof(buf));
    x86_vcpu_state_save(&s, &model, 6000, &out);
    at = out.pos - 8;
    for (unsigned i = 0; i < model.n; i++)
        if (model.entry[i].leaf == 0xd && model.entry[i].subleaf >= 2 &&
            (model.xcr0_valid & BIT64(model.entry[i].subleaf)))
            at -= model.entry[i].eax;
    for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
        buf[at + bits[i] / 8] ^= (u8)(1u << bits[i] % 8);
        stream_init(&in, buf, out.pos);
        assert_int_equal(x86_vcpu_state_load(&t, &model, 900, &in), -EINVAL);
        buf[at + bits[i] / 8] ^= (u8)(1u << bits[i] % 8);
        stream_init(&in, buf, out.pos);
        assert_int_equal(x86_vcpu_state_load(&t, &model, 900, &in), 0);
    }
}

static void state__refuses_the_impossible(void **state)
{
    (void)state;
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        build(true);                                                                               \
        assert_int_equal(through_stream(), 0);                                                     \
        change;                                                                                    \
        if (through_stream() != -EINVAL)                                                           \
            fail_msg("not refused: %s", #change);                                                  \
    } while (0)
    REFUSED(s.cpl = 1);
    REFUSED(s.cpl = 4);
    REFUSED(s.rflags = 0);
    REFUSED(s.rflags |= BIT64(3));
    REFUSED(s.rflags |= RFLAGS_VM);
    REFUSED(s.rip = BIT64(32));
    REFUSED(s.cr0 |= CR0_PG);
    REFUSED(s.cr0 |= BIT64(40));
    REFUSED(s.cr0 &= ~CR0_CD);
    REFUSED(s.cr0 &= ~CR0_ET);
    REFUSED(s.cr4 |= CR4_VMXE);
    REFUSED(s.cr4 |= CR4_PCIDE);
    REFUSED(s.efer |= EFER_LMA);
    REFUSED(s.efer |= EFER_SVME);
    REFUSED((s.cr0 |= CR0_PE | CR0_PG, s.efer |= EFER_LME | EFER_LMA)); /* without PAE */
    REFUSED(s.cr3 = BIT64(52));
    REFUSED((s.cr0 |= CR0_PE | CR0_PG, s.cr4 |= CR4_PAE, s.pdpte[2] = 3));
    REFUSED(s.xcr0 = 0);
    REFUSED(s.xcr0 = 5);
    REFUSED(s.xcr0 = 0x27);
    REFUSED(s.xcr0 = BIT64(9) | 3);
    REFUSED(s.seg[X86_DS].attr |= 0x100);
    REFUSED(s.seg[X86_DS].base = BIT64(32));
    REFUSED(s.seg[X86_FS].base = BIT64(47));
    REFUSED(s.tr.base = BIT64(50));
    REFUSED(s.idtr.limit = 0x10000);
    REFUSED(s.lstar = BIT64(47));
    REFUSED(s.pat = 2);
    REFUSED(s.xss = 1);
    REFUSED(s.activity = 4);
    REFUSED(s.int_shadow = 4);
    REFUSED(s.nmi_blocked = 2);
    REFUSED(s.nmi_pending = 3);
    REFUSED((s.nmi_blocked = 1, s.nmi_pending = 2));
    REFUSED(s.ev_kind = 4);
    REFUSED((s.ev_kind = X86_EV_EXCEPTION, s.ev_vector = 6, s.ev_has_error = 1));
    REFUSED((s.ev_kind = X86_EV_EXCEPTION, s.ev_vector = X86_NMI));
    REFUSED((s.ev_kind = X86_EV_EXCEPTION, s.ev_vector = X86_BP));
    REFUSED((s.ev_kind = X86_EV_EXCEPTION, s.ev_vector = 32));
    REFUSED((s.ev_kind = X86_EV_NMI, s.ev_vector = X86_PF));
    REFUSED((s.ev_kind = X86_EV_EXTERNAL, s.ev_vector = X86_PF, s.ev_has_error = 1));
    REFUSED(s.dr6 = 0);
    REFUSED(s.dr6 |= BIT64(32));
    REFUSED(s.dr7 |= BIT64(32));
    REFUSED(s.xsave[27] = 1); /* MXCSR */
    REFUSED(s.mtrr_base[7] = BIT64(52));
#undef REFUSED
}

static void state__forms_of_engines(void **state)
{
    (void)state;
    build(true);
    s.int_shadow = 3;
    s.sfmask = ~(u64)0;
    s.ev_kind = X86_EV_NONE;
    s.ev_vector = 99; /* of nothing */
    assert_int_equal(through_stream(), 0);
    assert_int_equal(t.int_shadow, 1);
    assert_int_equal(t.sfmask, 0xffffffff);
    assert_int_equal(t.ev_vector, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model__comes_back),
        cmocka_unit_test(state__comes_back),
        cmocka_unit_test(state__cut_short),
        cmocka_unit_test(state__refuses_the_impossible),
        cmocka_unit_test(state__forms_of_engines),
        cmocka_unit_test(state__components_of_the_host_are_left_out),
        cmocka_unit_test(state__refuses_components_that_are_not_there),
    };
    return cmocka_run_group_tests_name("cpu-state", tests, NULL, NULL);
}
