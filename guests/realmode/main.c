// SPDX-License-Identifier: Apache-2.0
/* Real mode, and the ways between real, protected and long mode (SDM 3A 9.9, 3B chapter 20). */
#include "x32.h"

extern volatile u32 out[32], in[8];

#define T(fn)                                                                                      \
    ({                                                                                             \
        extern char fn[];                                                                          \
        for (unsigned i_ = 0; i_ < 32; i_++)                                                       \
            out[i_] = 0;                                                                           \
        BARRIER();                                                                                 \
        real_call((u32)fn);                                                                        \
        BARRIER();                                                                                 \
    })

static u16 o16(unsigned byte)
{
    return *(volatile u16 *)((u32)out + byte);
}
static u8 o8(unsigned byte)
{
    return *(volatile u8 *)((u32)out + byte);
}

TEST(address__segment_times_16)
{
    *(volatile u32 *)0x12350 = 0xcafe1234;
    T(t_segments);
    CHECK_EQ(out[0], 0xcafe1234);
    CHECK_EQ(o8(4), 0x5a);
    CHECK_EQ(o16(8), 0x2800);
    CHECK_EQ(*(volatile u8 *)0x28000, 0x5a);
}

TEST(address__16_bit_wrap)
{
    T(t_wrap);
    CHECK_EQ(o8(0), 0x11);
    CHECK_EQ(o8(1), 0x11);
    CHECK_EQ(o8(2), 0x11);
    CHECK_EQ(o16(4), 5);
    CHECK_EQ(out[2], 1);
}

TEST(address__strings_wrap)
{
    *(volatile u8 *)0x40000 = 0;
    T(t_string_wrap);
    CHECK_EQ(o16(0), 0x10);
    CHECK_EQ(out[1], 0xabcd0000); /* CX counts, the upper half stays */
    CHECK_EQ(o8(8), 0x77);
    CHECK_EQ(o8(9), 0x77);
    CHECK_EQ(*(volatile u8 *)0x40000, 0);
}

TEST(address__above_1_mib_through_ffff)
{
    T(t_a20);
    CHECK_EQ(out[0], *(volatile u32 *)0x100000);
    CHECK(out[0] != out[1]);
}

TEST(int__through_the_vector_table)
{
    T(t_int_iret);
    CHECK_EQ(o16(0), o16(2));            /* SP is back */
    CHECK_EQ(o16(0) - o16(16), 6);       /* three words */
    CHECK_EQ(o16(8) & (F_IF | F_TF), 0); /* flags inside */
    CHECK_EQ(o16(8) & F_CF, F_CF);       /* the others as before */
    CHECK_EQ(o16(10), o16(20));          /* return address */
    CHECK_EQ(o16(12), 0);
    CHECK_EQ(o16(14) & (F_IF | F_CF), F_IF | F_CF);
    CHECK_EQ(o16(6) & (F_IF | F_CF), F_IF | F_CF); /* IRET brought them back */
}

TEST(int__what_a_bios_would_answer)
{
    T(t_bios_calls);
    CHECK_EQ(out[0], 0xffff0000 | 639); /* KiB of conventional memory */
    CHECK_EQ(o8(5), 0x86);              /* not supported */
    CHECK_EQ(o16(6) & F_CF, F_CF);
    CHECK_EQ(o16(8), 639);
}

#define FAULT(fn)                                                                                  \
    T(fn);                                                                                         \
    CHECK_EQ(o16(2), o16(4));                                                                      \
    CHECK_EQ(o16(6), 6)

TEST(fault__saved_ip)
{
    FAULT(t_div);
    FAULT(t_ud);
    FAULT(t_bound);
    FAULT(t_into);
    FAULT(t_int3);
    FAULT(t_lldt_ud);
    FAULT(t_gp_lock_is_ud);
}

TEST_QEMU_DEVIATES(fault__segment_limit_of_64_kib, "checks no segment limits")
{
    FAULT(t_gp_word_at_ffff);
    FAULT(t_gp_offset_10000);
    FAULT(t_ss_word_at_ffff);
}

TEST(trap_flag__counts_instructions)
{
    T(t_trap_flag);
    /* nop nop push pop and push popf; the POPF that clears TF is still under it */
    CHECK_EQ(o16(0), 7);
}

TEST(stack__push_sp_pusha_and_sizes)
{
    T(t_push_sp);
    CHECK_EQ(o16(0), 0);  /* PUSH SP pushes the value from before */
    CHECK_EQ(o16(8), 2);  /* 2 down, 4 up */
    CHECK_EQ(o16(12), 0); /* PUSHA too */
    CHECK_EQ(o16(14), 0x1111);
    CHECK_EQ(o16(16), 0x5678);
    CHECK_EQ(o16(18), 0x1234);
}

TEST(stack__sp_wraps)
{
    T(t_sp_wrap);
    CHECK_EQ(o16(0), 0xfffe);
    CHECK_EQ(o16(2), 0x4321);
    CHECK_EQ(o16(4), 0x4321);
    CHECK_EQ(o16(6), 0);
}

TEST(stack__enter_leave)
{
    T(t_enter_leave);
    CHECK_EQ(o16(0), 2);
    CHECK_EQ(o16(2), 0x20);
    CHECK_EQ(o16(4), 0xbeef);
    CHECK_EQ(o16(6), 0);
}

TEST(far__calls_and_pointers)
{
    T(t_far_calls);
    CHECK_EQ(o16(0), 0x10);
    CHECK_EQ(o16(2), 0);
    CHECK_EQ(o16(4), 0);
    T(t_loads_of_far_pointers);
    CHECK_EQ(o16(0), 0x1234);
    CHECK_EQ(o16(2), 0x5678);
    CHECK_EQ(o16(4), 0x1234);
}

TEST(insn__decimal)
{
    T(t_bcd);
    CHECK_EQ(o8(0), 0x83);
    CHECK_EQ(o8(1), 0x87);
    CHECK_EQ(o16(2), 0x0104);
    CHECK_EQ(o16(4), 0x0603);
    CHECK_EQ(o16(6), 63);
    CHECK_EQ(o16(8), 0x0008);
}

TEST(insn__loops_use_cx)
{
    T(t_loops);
    CHECK_EQ(o16(0), 3);
    CHECK_EQ(out[1], 0x10000);
    CHECK_EQ(o16(8), 2);
    CHECK_EQ(o16(10), 3);
}

TEST(insn__operand_sizes)
{
    T(t_operand_sizes);
    CHECK_EQ(out[0], 0x12349abc);
    CHECK_EQ(out[1], 0x12349abcU * 3);
    CHECK_EQ(out[2], 0xffffffff);
    CHECK_EQ(o16(12), 0xffff);
    CHECK_EQ(out[4], 0x5004);
}

TEST(flags__iopl_and_nt_can_be_set)
{
    T(t_flags);
    CHECK_EQ(o16(0) & 0xf000, 0x7000);
    CHECK_EQ(o16(2) & 0xf000, 0);
    CHECK_EQ(o16(4) & 1, 0);
    CHECK_EQ(out[2] & 0x80000001, 0);
}

TEST(mode__unreal)
{
    volatile u32 *p = pages_alloc(1, 4096);

    p[0] = 0x12344321;
    in[0] = (u32)p;
    T(t_unreal);
    CHECK_EQ(out[0], 0x12344321);
    CHECK_EQ(p[1], 0x600df00d);
    CHECK_EQ(p[2], 0x01020304);
    CHECK_EQ(p[3], 0x01020304);
}

TEST(mode__lmsw_does_not_clear_pe)
{
    T(t_lmsw);
    CHECK_EQ(o16(0) & 1, 1);
}

TEST(mode__far_jumps_through_16_and_32_bit_code)
{
    for (unsigned i = 0; i < 50; i++) {
        T(t_far_jump_after_pe);
        CHECK_EQ(out[0], 0x11223344);
        CHECK_EQ(out[2], 0x55667788);
    }
}

TEST(mode__real_to_long_and_back)
{
    u64 *pml4 = pages_alloc(3, 4096);

    if (!cpu_has(0x80000001, 0, 3, 29))
        SKIP("no long mode");
    pml4[0] = (u32)(pml4 + 512) | 3;
    pml4[512] = (u32)(pml4 + 1024) | 3;
    for (unsigned i = 0; i < 512; i++)
        pml4[1024 + i] = (u64)i << 21 | 0x83;
    for (unsigned i = 0; i < 20; i++) {
        in[0] = (u32)pml4;
        T(t_long_mode);
        CHECK_EQ(out[0], 0x9abcdef0);
        CHECK_EQ(out[1], 0x12345678);
        CHECK_EQ(out[3], 0x0fffffff);
        CHECK_EQ(out[4] & (EFER_LMA | EFER_LME), EFER_LMA | EFER_LME);
        CHECK_EQ(out[5] & (EFER_LMA | EFER_LME), EFER_LME);
        CHECK_EQ(o16(24), 0x600d);
    }
}

TEST(mode__many_round_trips)
{
    for (unsigned i = 0; i < 1000; i++) {
        T(t_loops);
        CHECK_EQ(o16(0), 3);
    }
}

TEST(int__clock_through_pic_and_vector_table)
{
    T(t_pit_irq);
    /* It stops after five ticks; on a busy host another one may come before its CLI. */
    CHECK(o16(0) >= 5);
}

TEST(int__moved_vector_table)
{
    T(t_lidt);
    CHECK_EQ(o16(0), 0x1d7);
}

TEST(code__rewritten_from_protected_mode)
{
    extern char t_enter_leave[];
    u8 saved[6];

    /* real-mode code is code like other: changed between two runs */
    memcpy(saved, t_enter_leave, sizeof(saved));
    for (unsigned i = 0; i < 20; i++) {
        static const u8 patch[] = {0xc7, 0x06, 0, 0, 0, 0};
        (void)patch;
        t_enter_leave[0] = (char)0xb8; /* mov $imm, %ax; ret */
        *(u16 *)(t_enter_leave + 1) = (u16)i;
        t_enter_leave[3] = (char)0xc3;
        T(t_enter_leave);
        CHECK_EQ(o16(4), 0);
        memcpy(t_enter_leave, saved, sizeof(saved));
        T(t_enter_leave);
        CHECK_EQ(o16(4), 0xbeef);
    }
}
