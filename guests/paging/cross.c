// SPDX-License-Identifier: Apache-2.0
/* Accesses and instructions that cross a page border, and what a fault leaves behind. */
#include "x64.h"

#define VA (TEST_VA + 0x200000ULL)
#define EDGE (VA + 0x1000)

static u8 *first, *second;

static void two_pages(u64 flags1, u64 flags2)
{
    second = page_alloc(); /* in this order the frames are not adjacent upwards */
    first = page_alloc();
    memset(first, 0x11, 4096);
    memset(second, 0x22, 4096);
    map(VA, (uptr)first, flags1);
    map(EDGE, (uptr)second, flags2);
}

TEST(cross__loads_and_stores_of_all_sizes)
{
    two_pages(PTE_P | PTE_W, PTE_P | PTE_W);
    for (unsigned i = 1; i < 8; i++) {
        volatile u64 *p = (volatile u64 *)(EDGE - i);
        u64 want = 0;
        for (unsigned b = 0; b < 8; b++)
            want |= (b < i ? 0x11ULL : 0x22ULL) << 8 * b;
        CHECK_EQ(*p, want);
        *p = 0x8877665544332211;
        for (unsigned b = 0; b < 8; b++)
            CHECK_EQ(b < i ? first[4096 - i + b] : second[b - i], 0x11 * (b + 1));
        memset(first + 4088, 0x11, 8);
        memset(second, 0x22, 8);
    }
    for (unsigned i = 1; i < 4; i++) {
        *(volatile u32 *)(EDGE - i) = 0xddccbbaa;
        CHECK_EQ(*(volatile u32 *)(EDGE - i), 0xddccbbaa);
        CHECK_EQ(first[4096 - i], 0xaa);
        CHECK_EQ(second[3 - i], 0xdd);
    }
    *(volatile u16 *)(EDGE - 1) = 0xbeef;
    CHECK_EQ(first[4095], 0xef);
    CHECK_EQ(second[0], 0xbe);
}

TEST(cross__fault_on_the_second_page)
{
    struct trap t;

    two_pages(PTE_P | PTE_W, 0);
    for (unsigned i = 1; i < 8; i++) {
        TRY (&t)
            (void)*(volatile u64 *)(EDGE - i);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error, 0);
        CHECK_EQ(t.cr2, EDGE);
        TRY (&t)
            *(volatile u64 *)(EDGE - i) = ~0ULL;
        CHECK_EQ(t.error, PF_W);
        CHECK_EQ(t.cr2, EDGE);
        CHECK_EQ(first[4096 - i], 0x11); /* nothing was stored */
    }
    map(EDGE, (uptr)second, PTE_P); /* read-only now */
    TRY (&t)
        *(volatile u64 *)(EDGE - 3) = ~0ULL;
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.cr2, EDGE);
    CHECK_EQ(first[4095], 0x11);
    CHECK_EQ(second[0], 0x22);
    TRY (&t)
        __asm__ volatile("lock addq $1, (%0)" ::"r"(EDGE - 3) : "memory", "cc");
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.cr2, EDGE);
    CHECK_EQ(first[4093], 0x11);
}

TEST(cross__fault_on_the_first_page)
{
    struct trap t;

    two_pages(0, PTE_P | PTE_W);
    TRY (&t)
        (void)*(volatile u64 *)(EDGE - 3);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.cr2, EDGE - 3);
    TRY (&t)
        *(volatile u64 *)(EDGE - 3) = ~0ULL;
    CHECK_EQ(t.error, PF_W);
    CHECK_EQ(t.cr2, EDGE - 3);
    CHECK_EQ(second[0], 0x22);
    map(VA, (uptr)first, PTE_P);
    TRY (&t)
        *(volatile u32 *)(EDGE - 1) = ~0U;
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.cr2, EDGE - 1);
    CHECK_EQ(second[0], 0x22);
}

TEST(cross__read_modify_write)
{
    two_pages(PTE_P | PTE_W, PTE_P | PTE_W);
    *(volatile u64 *)(EDGE - 4) = 0x00000001ffffffff;
    __asm__ volatile("incq (%0)" ::"r"(EDGE - 4) : "memory", "cc");
    CHECK_EQ(*(volatile u64 *)(EDGE - 4), 0x200000000);
    __asm__ volatile("lock addq %1, (%0)" ::"r"(EDGE - 4), "r"(0x123456789ULL) : "memory", "cc");
    CHECK_EQ(*(volatile u64 *)(EDGE - 4), 0x323456789);
    {
        u64 v = 5;
        __asm__ volatile("xchg %0, (%1)" : "+r"(v) : "r"(EDGE - 4) : "memory");
        CHECK_EQ(v, 0x323456789);
        CHECK_EQ(*(u32 *)(first + 4092), 5);
        CHECK_EQ(*(u32 *)second, 0);
    }
    {
        u64 old = 5;
        __asm__ volatile("lock cmpxchgq %2, (%1)"
                         : "+a"(old)
                         : "r"(EDGE - 4), "r"(~0ULL)
                         : "memory", "cc");
        CHECK_EQ(*(u32 *)second, 0xffffffff);
    }
}

TEST(cross__stack)
{
    struct trap t;
    u64 got;

    two_pages(PTE_P | PTE_W, PTE_P | PTE_W);
    __asm__ volatile("mov %%rsp, %%rbx; mov %1, %%rsp; push %2; mov %%rbx, %%rsp; mov (%3), %0"
                     : "=r"(got)
                     : "r"(EDGE + 4), "r"(0x1122334455667788ULL), "r"(EDGE - 4)
                     : "rbx", "memory");
    CHECK_EQ(got, 0x1122334455667788ULL);
    CHECK_EQ(*(u32 *)(first + 4092), 0x55667788);
    unmap(VA);
    TRY (&t)
        /* a push that faults leaves RSP alone; the trap comes in on this very stack, so in ring 3
         */
        (void)0;
    CHECK_EQ(t.vector, V_NONE);
}

USER_TEXT static void user_push(u64 sp)
{
    __asm__ volatile("mov %0, %%rsp; push %%rax; int3" ::"r"(sp) : "memory");
}
USER_TEXT static void user_call_insn(u64 sp)
{
    __asm__ volatile("mov %0, %%rsp; call 1f; 1: int3" ::"r"(sp) : "memory");
}
USER_TEXT static void user_enter(u64 sp)
{
    __asm__ volatile("mov %0, %%rsp; mov %0, %%rbp; enter $16, $0; int3" ::"r"(sp) : "memory");
}

TEST(fault__push_call_enter_leave_rsp_alone)
{
    struct trap t;

    map(VA, (uptr)page_alloc(), PTE_P | PTE_W | PTE_U);
    user_call(&t, user_push, VA, 0);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, PF_W | PF_U);
    CHECK_EQ(t.cr2, VA - 8);
    CHECK_EQ(t.regs.rsp, VA);
    user_call(&t, user_call_insn, VA, 0);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.regs.rsp, VA);
    user_call(&t, user_enter, VA, 0);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.regs.rsp, VA);
    CHECK_EQ(t.regs.rbp, VA);
    user_call(&t, user_push, VA + 4, 0); /* half of the slot is there */
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, VA - 4);
    CHECK_EQ(t.regs.rsp, VA + 4);
}

TEST(fetch__instruction_across_the_border)
{
    struct trap t;
    u64 (*fn)(void) = (u64(*)(void))(EDGE - 3);

    two_pages(PTE_P | PTE_W, PTE_P | PTE_W);
    for (unsigned i = 1; i < 5; i++) {
        fn = (u64(*)(void))(EDGE - i);
        first[4096 - i] = 0xb8; /* mov $0x44332211, %eax; ret */
        for (unsigned b = 1; b < 6; b++) {
            u8 v = b == 5 ? 0xc3 : (u8)(0x11 * b);
            if (b < i)
                first[4096 - i + b] = v;
            else
                second[b - i] = v;
        }
        CHECK_EQ(fn(), 0x44332211);
        unmap(EDGE);
        TRY (&t)
            fn();
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error, PF_I);
        CHECK_EQ(t.cr2, EDGE);
        CHECK_EQ(t.regs.rip, EDGE - i);
        map(EDGE, (uptr)second, PTE_P | PTE_W | PTE_NX);
        TRY (&t)
            fn();
        CHECK_EQ(t.error, PF_I | PF_P);
        CHECK_EQ(t.cr2, EDGE);
        map(EDGE, (uptr)second, PTE_P | PTE_W);
        CHECK_EQ(fn(), 0x44332211);
    }
}

TEST(fetch__falling_into_a_missing_page)
{
    struct trap t;

    two_pages(PTE_P | PTE_W, 0);
    memset(first + 4080, 0x90, 16);
    TRY (&t)
        ((void (*)(void))(EDGE - 16))();
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, EDGE);
    CHECK_EQ(t.regs.rip, EDGE);
    /* an instruction that ends at the border needs nothing beyond it */
    first[4095] = 0xc3;
    TRY (&t)
        ((void (*)(void))(EDGE - 16))();
    CHECK_EQ(t.vector, V_NONE);
}

TEST(fetch__remapped_code_page)
{
    u8 *a = page_alloc(), *b = page_alloc();
    static const u8 one[] = {0xb8, 1, 0, 0, 0, 0xc3}, two[] = {0xb8, 2, 0, 0, 0, 0xc3};

    memcpy(a, one, sizeof(one));
    memcpy(b, two, sizeof(two));
    for (unsigned i = 0; i < 100; i++) {
        map(VA, (uptr)a, PTE_P);
        CHECK_EQ(((u64(*)(void))VA)(), 1);
        map(VA, (uptr)b, PTE_P);
        CHECK_EQ(((u64(*)(void))VA)(), 2);
    }
}

TEST(fault__writes_are_checked_before_anything_changes)
{
    struct trap t;
    struct regs r;
    u64 rax;

    map(VA, (uptr)page_alloc(), PTE_P);
    /* CMPXCHG writes even when it does not match (SDM 2A CMPXCHG) */
    TRY (&t)
        __asm__ volatile("lock cmpxchgq %1, (%0)" ::"r"(VA), "r"(1ULL), "a"(5ULL) : "memory", "cc");
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.regs.rax, 5);
    TRY (&t)
        __asm__ volatile("xaddq %1, (%0)" ::"r"(VA), "c"(7ULL) : "memory", "cc");
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.regs.rcx, 7);
    TRY (&t)
        __asm__ volatile("btsq $3, (%0)" ::"r"(VA) : "memory", "cc");
    CHECK_EQ(t.error, PF_P | PF_W);
    TRY (&t)
        __asm__ volatile("xchg %1, (%0)" ::"r"(VA), "c"(9ULL) : "memory");
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.regs.rcx, 9);
    TRY (&t)
        __asm__ volatile("stc; adcq $0, (%0)" ::"r"(VA) : "memory", "cc");
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK(t.regs.rflags & F_CF); /* flags untouched */
    TRY (&t)
        __asm__ volatile("cmpxchg8b (%0)" ::"r"(VA), "a"(1), "d"(1), "b"(0), "c"(0)
                         : "memory", "cc");
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.regs.rax, 1);
    /* POP to memory that faults: RSP stays */
    TRY (&t)
        __asm__ volatile("mov %%rsp, %%rcx; popq (%0)" ::"r"(VA) : "rcx", "memory");
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.regs.rsp, t.regs.rcx);
    /* a load that faults keeps its destination */
    rax = 0x1234;
    TRY (&t)
        __asm__ volatile("mov (%1), %0" : "+a"(rax) : "r"(EDGE) : "memory");
    CHECK_EQ(t.regs.rax, 0x1234);
    (void)r;
}

TEST(fault__bit_string_addressing)
{
    struct trap t;

    /* BT with a register index reaches beyond the operand (SDM 2A BT) */
    two_pages(PTE_P | PTE_W, 0);
    TRY (&t)
        __asm__ volatile("btsl %1, (%0)" ::"r"(VA), "r"(0x1000 * 8 + 5) : "memory", "cc");
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, EDGE);
    TRY (&t)
        __asm__ volatile("btq %1, (%0)" ::"r"(VA), "r"(-1LL) : "memory", "cc");
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, VA - 8);
    first[0] = 0;
    __asm__ volatile("btsl %1, (%0)" ::"r"(VA + 64), "r"(-64 * 8 + 3) : "memory", "cc");
    CHECK_EQ(first[0], 8);
}
