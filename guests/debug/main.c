// SPDX-License-Identifier: Apache-2.0
/* Debug exceptions: single-step, breakpoints in DR0-3, RF, GD (SDM 3B chapter 17). */
#include "x64.h"

#define DR6_B0 1
#define DR6_BD 0x2000
#define DR6_BS 0x4000

static u64 rips[64], dr6s[64];
static unsigned ndb;

static bool on_db(struct regs *r)
{
    if (ndb < ARRAY_SIZE(rips)) {
        rips[ndb] = r->rip;
        dr6s[ndb] = READ_DR(6);
    }
    ndb++;
    WRITE_DR(6, 0xffff0ff0);
    if (ndb >= 60)
        r->rflags &= ~(u64)F_TF;
    return true;
}

static void start(void)
{
    ndb = 0;
    trap_set_hook(V_DB, on_db);
    WRITE_DR(6, 0xffff0ff0);
}

#define TF_ON "pushfq; orl $0x100, (%%rsp); popfq; "
#define TF_OFF "pushfq; andl $~0x100, (%%rsp); popfq; "

TEST(step__every_instruction)
{
    u64 a, b, c;

    start();
    __asm__ volatile(TF_ON "1: nop; 2: mov $5, %%eax; 3: " TF_OFF
                           "lea 2b(%%rip), %0; lea 3b(%%rip), %1; mov %%rax, %2"
                     : "=&r"(a), "=&r"(b), "=&r"(c)::"rax", "memory", "cc");
    /* nop, mov, pushf, and, popf: POPF sets TF for the instruction after the next boundary */
    CHECK_EQ(ndb, 5);
    CHECK_EQ(rips[0], a);
    CHECK_EQ(rips[1], b);
    CHECK_EQ(dr6s[0] & 0xe00f, DR6_BS);
}

TEST(step__jumps_and_calls)
{
    u64 a, b;

    start();
    __asm__ volatile(TF_ON "jmp 1f; ud2; 1: call 2f; 3: " TF_OFF
                           "jmp 4f; 2: ret; 4: lea 1b(%%rip), %0; lea 2b(%%rip), %1"
                     : "=&r"(a), "=&r"(b)::"memory", "cc");
    CHECK_EQ(rips[0], a);
    CHECK_EQ(rips[1], b);
    CHECK_EQ(rips[2], a + 5);
    CHECK_EQ(ndb, 6);
}

TEST(step__not_after_mov_ss)
{
    u64 a;

    start();
    /* MOV SS holds back the trap for one instruction (SDM 3A 6.8.3) */
    __asm__ volatile(TF_ON "mov %%eax, %%ss; nop; 1: nop; " TF_OFF "lea 1b(%%rip), %0"
                     : "=&r"(a)
                     : "a"(SEL_DATA)
                     : "memory", "cc");
    CHECK_EQ(rips[0], a);
    CHECK_EQ(ndb, 5);
}

static bool plain_int(struct regs *r)
{
    (void)r;
    return true;
}

TEST(step__int_clears_tf_and_iret_restores_it)
{
    u64 a;

    start();
    trap_set_hook(0x41, plain_int);
    /* no trap inside the handler; after the IRET the next instruction runs, then the trap comes */
    __asm__ volatile(TF_ON "int $0x41; nop; 1: nop; " TF_OFF "lea 1b(%%rip), %0"
                     : "=&r"(a)::"memory", "cc");
    CHECK_EQ(rips[0], a);
    CHECK_EQ(ndb, 5);
}

TEST(step__rep_counts_each_iteration)
{
    static u8 buf[16];
    u64 d = (uptr)buf, n = 5, a;

    start();
    __asm__ volatile("lea 1f(%%rip), %2; " TF_ON "1: rep stosb; " TF_OFF
                     : "+D"(d), "+c"(n), "=&r"(a)
                     : "a"(0x7)
                     : "memory", "cc");
    CHECK_EQ(ndb, 8);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(rips[i], a);
    CHECK_EQ(rips[4], a + 2);
    CHECK_EQ(n, 0);
}

TEST(step__string_of_faults)
{
    struct trap t;

    start();
    /* the fault comes instead of the trap, and its saved flags have TF */
    trap_set_hook(V_DB, on_db);
    TRY (&t)
        __asm__ volatile(TF_ON "ud2" ::: "memory", "cc");
    CHECK_EQ(t.vector, V_UD);
    CHECK(t.regs.rflags & F_TF);
    CHECK_EQ(ndb, 0);
}

USER_TEXT static u64 user_steps(void)
{
    u64 r;
    __asm__ volatile(TF_ON "nop; mov $7, %0; nop; " TF_OFF : "=r"(r)::"memory", "cc");
    return r;
}

TEST(step__in_ring_3)
{
    struct trap t;

    start();
    user_call(&t, user_steps, 0, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    CHECK_EQ(t.regs.rax, 7);
    CHECK_EQ(ndb, 6);
}

extern const char sc_entry[];
__asm__(".text\nsc_entry: nop\n nop\n sysretq\n");
USER_TEXT static void user_syscall_step(void)
{
    __asm__ volatile(TF_ON "syscall; nop; nop; " TF_OFF ::: "rcx", "r11", "memory", "cc");
}

TEST(step__syscall_masks_tf)
{
    struct trap t;

    start();
    wrmsr(MSR_STAR, (u64)0x23 << 48 | (u64)SEL_CODE64 << 32);
    wrmsr(MSR_LSTAR, (uptr)sc_entry);
    wrmsr(MSR_SFMASK, F_TF | F_IF);
    user_call(&t, user_syscall_step, 0, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    for (unsigned i = 0; i < ndb && i < 64; i++)
        CHECK(rips[i] < (uptr)sc_entry ||
              rips[i] > (uptr)sc_entry + 4); /* never inside the kernel */
    CHECK(ndb >= 4);
}

/* --- breakpoint registers --- */
#define ENABLE(n, rw, len) (1ULL << (2 * (n) + 1) | (u64)((len) << 2 | (rw)) << (16 + 4 * (n)))

static u64 cell[4] ALIGNED(64);

TEST(dr__instruction_breakpoint_is_a_fault)
{
    u64 a;

    start();
    __asm__ volatile("lea 1f(%%rip), %0; jmp 2f; 1: nop; nop; ret; 2:" : "=r"(a));
    WRITE_DR(0, a);
    WRITE_DR(7, 0x400 | ENABLE(0, 0, 0));
    {
        struct trap t;
        trap_set_hook(V_DB, NULL);
        TRY (&t)
            ((void (*)(void))a)();
        CHECK_EQ(t.vector, V_DB);
        CHECK_EQ(t.regs.rip, a); /* before the instruction */
        CHECK_EQ(t.dr6 & 0xe00f, DR6_B0);
    }
    WRITE_DR(7, 0x400);
}

static bool resume_with_rf(struct regs *r)
{
    ndb++;
    r->rflags |= F_RF;
    WRITE_DR(6, 0xffff0ff0);
    return ndb < 50;
}

TEST(dr__rf_steps_over_a_breakpoint)
{
    u64 a;

    start();
    trap_set_hook(V_DB, resume_with_rf);
    __asm__ volatile("lea 1f(%%rip), %0; jmp 2f; 1: nop; ret; 2:" : "=r"(a));
    WRITE_DR(2, a);
    WRITE_DR(7, 0x400 | ENABLE(2, 0, 0));
    for (unsigned i = 1; i <= 5; i++) {
        ((void (*)(void))a)();
        CHECK_EQ(ndb, i); /* once each time: RF holds for one instruction only */
    }
    WRITE_DR(7, 0x400);
    ((void (*)(void))a)();
    CHECK_EQ(ndb, 5);
}

static void store32(uptr p, u32 v)
{
    __asm__ volatile("movl %1, (%0)" ::"r"(p), "r"(v) : "memory");
}

TEST(dr__data_write_is_a_trap)
{
    u64 after;

    start();
    WRITE_DR(1, (uptr)&cell[0]);
    WRITE_DR(7, 0x400 | ENABLE(1, 1, 3)); /* 4 bytes, writes */
    __asm__ volatile("movl $5, (%1); 1: nop; lea 1b(%%rip), %0"
                     : "=r"(after)
                     : "r"(cell)
                     : "memory");
    CHECK_EQ(ndb, 1);
    CHECK_EQ(rips[0], after);
    CHECK_EQ(dr6s[0] & 0xf, 2);
    CHECK_EQ((u32)cell[0], 5); /* the store has happened */
    (void)*(volatile u32 *)cell;
    CHECK_EQ(ndb, 1); /* reads do not count */
    store32((uptr)cell + 4, 1);
    CHECK_EQ(ndb, 1);
    store32((uptr)cell + 3, 1); /* one byte of overlap */
    CHECK_EQ(ndb, 2);
    store32((uptr)cell - 3, 1);
    CHECK_EQ(ndb, 3);
    WRITE_DR(7, 0x400);
    store32((uptr)cell, 1);
    CHECK_EQ(ndb, 3);
}

TEST(dr__data_read_or_write)
{
    start();
    WRITE_DR(3, (uptr)&cell[1]);
    WRITE_DR(7, 0x400 | ENABLE(3, 3, 2)); /* 8 bytes */
    __asm__ volatile("mov (%0), %%eax; nop" ::"r"((u8 *)&cell[1] + 4) : "rax", "memory");
    CHECK_EQ(ndb, 1);
    CHECK_EQ(dr6s[0] & 0xf, 8);
    __asm__ volatile("lock incq (%0); nop" ::"r"(&cell[1]) : "memory", "cc");
    CHECK_EQ(ndb, 2);
    __asm__ volatile("push (%0); pop %%rax" ::"r"(&cell[1]) : "rax", "memory");
    CHECK_EQ(ndb, 3);
    (void)*(volatile u64 *)&cell[2];
    CHECK_EQ(ndb, 3);
    WRITE_DR(7, 0x400);
}

TEST(dr__string_store_traps_after_the_iteration)
{
    u64 d = (uptr)cell, n = 32;
    u8 before;

    start();
    memset(cell, 0, sizeof(cell));
    WRITE_DR(0, (uptr)cell + 16);
    WRITE_DR(7, 0x400 | ENABLE(0, 1, 0));
    trap_set_hook(V_DB, NULL);
    {
        struct trap t;
        TRY (&t)
            __asm__ volatile("rep stosb; nop" : "+D"(d), "+c"(n) : "a"(0x55) : "memory");
        CHECK_EQ(t.vector, V_DB);
        CHECK_EQ(t.dr6 & 0xf, 1);
        before = ((volatile u8 *)cell)[16];
        CHECK_EQ(before, 0x55);
        /* processors may report some iterations late (SDM 3B 17.2.4), never early */
        CHECK(t.regs.rdi >= (uptr)cell + 17);
        CHECK_EQ(t.regs.rcx + (t.regs.rdi - (uptr)cell), 32);
    }
    WRITE_DR(7, 0x400);
}

TEST(dr__io_breakpoint)
{
    start();
    WRITE_CR(4, READ_CR(4) | CR4_DE);
    WRITE_DR(0, 0x80);
    WRITE_DR(7, 0x400 | ENABLE(0, 2, 0));
    __asm__ volatile("outb %%al, $0x80; nop" ::"a"(0));
    CHECK_EQ(ndb, 1);
    CHECK_EQ(dr6s[0] & 0xf, 1);
    (void)inb(0x80);
    CHECK_EQ(ndb, 2);
    outb(0x81, 0);
    CHECK_EQ(ndb, 2);
    WRITE_DR(7, 0x400);
}

TEST(dr__step_and_breakpoint_together)
{
    start();
    WRITE_DR(0, (uptr)cell);
    WRITE_DR(7, 0x400 | ENABLE(0, 1, 0));
    __asm__ volatile(TF_ON "movb $1, (%0); " TF_OFF ::"r"(cell) : "memory", "cc");
    CHECK_EQ(dr6s[0] & 0x400f, DR6_BS | 1);
    WRITE_DR(7, 0x400);
}

TEST_QEMU_DEVIATES(dr__general_detect, "ignores GD")
{
    struct trap t;

    start();
    trap_set_hook(V_DB, NULL);
    TRY (&t) {
        WRITE_DR(7, 0x2400);
        __asm__ volatile("1: mov %%dr0, %%rax" ::: "rax");
    }
    CHECK_EQ(t.vector, V_DB);
    CHECK_EQ(READ_DR(7) & 0x2000, 0); /* GD is cleared on the way in */
    CHECK(READ_DR(6) & DR6_BD);
    WRITE_DR(6, 0xffff0ff0);
}

TEST(dr__fixed_bits)
{
    WRITE_DR(6, 0);
    CHECK_EQ(READ_DR(6) & 0xffffffffffff1ff0ULL, 0xffff0ff0);
    WRITE_DR(7, 0);
    CHECK_EQ(READ_DR(7), 0x400);
    WRITE_DR(0, 0x123456789abcdef0);
    CHECK_EQ(READ_DR(0), 0x123456789abcdef0);
}

TEST_QEMU_DEVIATES(dr__upper_halves_are_reserved, "takes any value")
{
    struct trap t;

    TRY (&t)
        WRITE_DR(6, 1ULL << 32);
    CHECK_EQ(t.vector, V_GP);
    TRY (&t)
        WRITE_DR(7, 1ULL << 32);
    CHECK_EQ(t.vector, V_GP);
}

TEST(dr__4_and_5)
{
    struct trap t;

    WRITE_DR(6, 0xffff0ff0);
    TRY (&t)
        CHECK_EQ(READ_DR(4), READ_DR(6)); /* aliases without CR4.DE */
    CHECK_EQ(t.vector, V_NONE);
    WRITE_CR(4, READ_CR(4) | CR4_DE);
    TRY (&t)
        __asm__ volatile("mov %%dr5, %%rax" ::: "rax");
    CHECK_EQ(t.vector, V_UD);
}

TEST(dr__code_breakpoint_in_ring_3)
{
    struct trap t;
    USER_DATA static u8 code[4];

    start();
    trap_set_hook(V_DB, NULL);
    code[0] = 0x90;
    code[1] = 0xc3;
    WRITE_DR(0, (uptr)code);
    WRITE_DR(7, 0x400 | ENABLE(0, 0, 0));
    user_call(&t, code, 0, 0);
    CHECK_EQ(t.vector, V_DB);
    CHECK_EQ(t.regs.rip, (uptr)code);
    CHECK_EQ(t.regs.cs, SEL_UCODE64);
    WRITE_DR(7, 0x400);
    user_call(&t, code, 0, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
}
