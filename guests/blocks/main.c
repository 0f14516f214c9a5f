// SPDX-License-Identifier: Apache-2.0
/* What an engine that translates code in blocks and remembers them must not get wrong: one place in
 * memory run in several modes, rings and address spaces; code that vanishes between two runs;
 * returns that do not match calls; registers, flags and memory as they were when an instruction in
 * the middle of a block faulted. Real processors do all of this without thinking. */
#include "x64.h"

#define VA (TEST_VA + 0x900000ULL)

static u8 text[4096] USER_DATA ALIGNED(4096);
static u8 table[4096] USER_DATA ALIGNED(4096);

static u64 call(u64 va)
{
    return ((u64(*)(void))va)();
}

static void emit(void *at, const void *bytes, unsigned n)
{
    memcpy(at, bytes, n);
}
#define EMIT(at, ...)                                                                              \
    do {                                                                                           \
        static const u8 bytes_[] = {__VA_ARGS__};                                                  \
        emit(at, bytes_, sizeof(bytes_));                                                          \
    } while (0)

/* --- one place, several meanings --- */

TEST(key__code_size_at_the_same_address)
{
    struct trap t;
    struct regs r;

    gdt_set(SEL_SPARE + 8, (u32)(uptr)text, 0xffff, 0xfb, 0); /* 16-bit code at text */
    EMIT(text, 0x48, 0x05, 0x01, 0x00, 0x01, 0x00, 0x90, 0x90, 0xcc);
    /* 64-bit: add $0x10001,%rax. 32-bit: dec %eax; add $0x10001,%eax. */
    for (unsigned i = 0; i < 30; i++) {
        user_regs(&r, text, 0, 0);
        r.rax = 0xffffffff00000000;
        run_until_trap(&t, &r);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.regs.rax, 0xffffffff00010001);
        r.cs = SEL_UCODE32;
        r.rax = 5;
        run_until_trap(&t, &r);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.regs.rax, 0x10005);
    }
    EMIT(text + 16, 0xb8, 0x34, 0x12, 0xcc,
         0xcc); /* 16-bit: mov $0x1234,%ax; int3. Else: mov $0xcccc1234 */
    text[21] = 0xf4;
    for (unsigned i = 0; i < 30; i++) {
        user_regs(&r, (void *)16, 0, 0);
        r.cs = SEL_SPARE + 11;
        r.rax = 0x77770000;
        run_until_trap(&t, &r);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.regs.rax, 0x77771234);
        CHECK_EQ(t.regs.rip, 20);
        user_regs(&r, text + 16, 0, 0);
        r.cs = SEL_UCODE32;
        run_until_trap(&t, &r);
        CHECK_EQ(t.vector, V_GP); /* hlt */
        CHECK_EQ(t.regs.rax, 0xcccc1234);
    }
}

TEST(key__ring_at_the_same_address)
{
    struct trap t;
    struct regs r;

    EMIT(text, 0x8c, 0xc8, 0xfa, 0xc3); /* mov %cs,%eax; cli; ret */
    for (unsigned i = 0; i < 50; i++) {
        CHECK_EQ(call((uptr)text) & 0xffff, SEL_CODE64);
        user_regs(&r, text, 0, 0);
        run_until_trap(&t, &r);
        CHECK_EQ(t.vector, V_GP);
        CHECK_EQ(t.regs.rip, (uptr)text + 2);
        CHECK_EQ(t.regs.rax & 0xffff, SEL_UCODE64);
    }
}

TEST(key__address_space)
{
    u64 *root = page_alloc();
    u8 *a = page_alloc(), *b = page_alloc();

    EMIT(a, 0xb8, 0x0a, 0, 0, 0, 0xc3);
    EMIT(b, 0xb8, 0x0b, 0, 0, 0, 0xc3);
    map(VA, (uptr)a, PTE_P);
    memcpy(root, boot_pml4, 4096);
    root[1] = 0;
    WRITE_CR(3, (uptr)root);
    map(VA, (uptr)b, PTE_P);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(call(VA), 0xb);
        WRITE_CR(3, (uptr)boot_pml4);
        CHECK_EQ(call(VA), 0xa);
        WRITE_CR(3, (uptr)root);
    }
}

/* Page A ends in a jump to page B: translated once, the two may be chained. */
static u8 *pa, *pb, *pc;
static void two_code_pages(void)
{
    pa = page_alloc();
    pb = page_alloc();
    pc = page_alloc();
    EMIT(pa, 0x31, 0xc0, 0xe9, 0xf9, 0x0f, 0, 0); /* xor %eax,%eax; jmp +0xff9: VA + 0x1000 */
    EMIT(pb, 0x83, 0xc0, 0x0b, 0xc3);             /* add $0xb,%eax; ret */
    EMIT(pc, 0x83, 0xc0, 0x0c, 0xc3);
    map(VA, (uptr)pa, PTE_P | PTE_U);
    map(VA + 0x1000, (uptr)pb, PTE_P | PTE_U);
}

TEST(chain__target_page_unmapped)
{
    struct trap t;

    two_code_pages();
    for (unsigned i = 0; i < 50; i++) {
        CHECK_EQ(call(VA), 0xb);
        unmap(VA + 0x1000);
        TRY (&t)
            call(VA);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.regs.rip, VA + 0x1000);
        CHECK_EQ(t.cr2, VA + 0x1000);
        map(VA + 0x1000, (uptr)pb, PTE_P | PTE_U);
    }
}

TEST(chain__target_page_remapped)
{
    two_code_pages();
    for (unsigned i = 0; i < 50; i++) {
        CHECK_EQ(call(VA), 0xb);
        map(VA + 0x1000, (uptr)pc, PTE_P | PTE_U);
        CHECK_EQ(call(VA), 0xc);
        map(VA + 0x1000, (uptr)pb, PTE_P | PTE_U);
    }
}

TEST(chain__target_page_loses_execute_or_user_right)
{
    struct trap t;

    two_code_pages();
    for (unsigned i = 0; i < 30; i++) {
        CHECK_EQ(call(VA), 0xb);
        map(VA + 0x1000, (uptr)pb, PTE_P | PTE_U | PTE_NX);
        TRY (&t)
            call(VA);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error, PF_P | PF_I);
        map(VA + 0x1000, (uptr)pb, PTE_P | PTE_U);
        user_call(&t, (void *)VA, 0, 0);
        CHECK_EQ(t.vector, USER_EXIT_VECTOR);
        CHECK_EQ(t.regs.rax, 0xb);
        map(VA + 0x1000, (uptr)pb, PTE_P);
        CHECK_EQ(call(VA), 0xb); /* ring 0 still may */
        user_call(&t, (void *)VA, 0, 0);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error, PF_P | PF_U | PF_I);
        CHECK_EQ(t.regs.rip, VA + 0x1000);
        map(VA + 0x1000, (uptr)pb, PTE_P | PTE_U);
    }
}

TEST(chain__target_in_another_space)
{
    u64 *root = page_alloc();

    two_code_pages();
    memcpy(root, boot_pml4, 4096);
    root[1] = 0;
    WRITE_CR(3, (uptr)root);
    map(VA, (uptr)pa, PTE_P); /* the same first page, another second one */
    map(VA + 0x1000, (uptr)pc, PTE_P);
    for (unsigned i = 0; i < 50; i++) {
        CHECK_EQ(call(VA), 0xc);
        WRITE_CR(3, (uptr)boot_pml4);
        CHECK_EQ(call(VA), 0xb);
        WRITE_CR(3, (uptr)root);
    }
}

TEST(chain__smep_turned_on)
{
    struct trap t;

    if (!cpu_has(7, 0, 1, 7))
        SKIP("no SMEP");
    two_code_pages();
    for (unsigned i = 0; i < 20; i++) {
        CHECK_EQ(call(VA), 0xb);
        WRITE_CR(4, READ_CR(4) | CR4_SMEP);
        TRY (&t)
            call(VA);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.regs.rip, VA);
        WRITE_CR(4, READ_CR(4) & ~(uptr)CR4_SMEP);
    }
}

TEST(chain__same_bytes_at_two_addresses)
{
    /* position-dependent: lea 0(%rip),%rax; ret */
    u8 *p = page_alloc();

    EMIT(p, 0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3);
    map(VA, (uptr)p, PTE_P);
    map(VA + 0x5000, (uptr)p, PTE_P);
    for (unsigned i = 0; i < 50; i++) {
        CHECK_EQ(call(VA), VA + 7);
        CHECK_EQ(call(VA + 0x5000), VA + 0x5007);
        CHECK_EQ(call((uptr)p), (uptr)p + 7);
    }
}

/* What a process's libraries are to other processes: the same pages, each time elsewhere. */
TEST(clone__code_at_many_addresses)
{
    enum { N = 3000, STRIDE = 0x3000, DATA = 0x300 };
    u8 *p = pages_alloc(2, 0x1000);
    u64 bad = 0;

    EMIT(p, 0x48, 0x8d, 0x05, 0, 0, 0, 0,    /* 00 lea 0(%rip),%rax */
         0xe8, 0, 0, 0, 0,                   /* 07 call 0c */
         0x59,                               /* 0c pop %rcx */
         0x48, 0x01, 0xc8,                   /* 0d add %rcx,%rax */
         0x53, 0x50,                         /* 10 push %rbx; push %rax */
         0xb8, 0x10, 0, 0, 0x40, 0x0f, 0xa2, /* 12 mov $0x40000010,%eax; cpuid */
         0x58, 0x5b,                         /* 19 pop %rax; pop %rbx */
         0x48, 0x03, 0x05, 0xde, 0x02, 0, 0, /* 1b add 0x300(%rip...),%rax */
         0xe9, 0xd9, 0x0f, 0, 0);            /* 22 jmp 1000 */
    *(u64 *)(p + DATA) = 5;
    /* 1000: call 1010; add $1,%rax; ret.  1010: test %eax,%eax; jz .+2; inc %rax; ret */
    EMIT(p + 0x1000, 0xe8, 0x0b, 0, 0, 0, 0x48, 0x83, 0xc0, 0x01, 0xc3);
    EMIT(p + 0x1010, 0x85, 0xc0, 0x74, 0x00, 0x48, 0xff, 0xc0, 0xc3);
    for (unsigned round = 0; round < 2; round++)
        for (u64 i = 0; i < N; i++) {
            u64 va = VA + i * STRIDE;

            if (!round) {
                map(va, (uptr)p, PTE_P);
                map(va + 0x1000, (uptr)p + 0x1000, PTE_P);
            }
            bad += call(va) != va + 7 + va + 12 + 5 + 2;
        }
    CHECK_EQ(bad, 0);
    /* A change of the code reaches all of them. */
    p[0x1008] = 3; /* add $3 */
    for (u64 i = 0; i < N; i++)
        bad += call(VA + i * STRIDE) != 2 * (VA + i * STRIDE) + 7 + 12 + 5 + 4;
    CHECK_EQ(bad, 0);
}

TEST(chain__loop_across_the_border_interrupted_by_unmapping)
{
    struct trap t;
    u8 *a = page_alloc(), *b = page_alloc();

    /* a: dec %ecx; jz out; jmp b.  b: jmp a.  A loop of two pages, then b goes. */
    EMIT(a, 0xff, 0xc9, 0x74, 0x05, 0xe9, 0xf7, 0x0f, 0, 0, 0xc3);
    EMIT(b, 0xe9, 0xfb, 0xef, 0xff, 0xff);
    map(VA, (uptr)a, PTE_P);
    map(VA + 0x1000, (uptr)b, PTE_P);
    __asm__ volatile("mov $1000, %%ecx; call *%0" ::"r"(VA) : "rcx", "memory", "cc");
    unmap(VA + 0x1000);
    TRY (&t)
        __asm__ volatile("mov $1000, %%ecx; call *%0" ::"r"(VA) : "rcx", "memory", "cc");
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.regs.rcx, 999);
    CHECK_EQ(t.regs.rip, VA + 0x1000);
}

/* --- breakpoints and steps in code that already ran --- */

TEST(late__instruction_breakpoint_in_the_middle)
{
    struct trap t;

    EMIT(text, 0xb8, 1, 0, 0, 0, 0x83, 0xc0, 1, 0x83, 0xc0, 1, 0xc3);
    for (unsigned i = 0; i < 20; i++) {
        CHECK_EQ(call((uptr)text), 3);
        WRITE_DR(0, (uptr)text + 8);
        WRITE_DR(7, 0x402);
        TRY (&t)
            call((uptr)text);
        CHECK_EQ(t.vector, V_DB);
        CHECK_EQ(t.regs.rip, (uptr)text + 8);
        CHECK_EQ(t.regs.rax, 2);
        WRITE_DR(7, 0x400);
        WRITE_DR(6, 0xffff0ff0);
    }
}

TEST(late__data_breakpoint_on_a_warm_address)
{
    struct trap t;
    static volatile u64 cell;

    for (unsigned i = 0; i < 20; i++) {
        cell = i;
        WRITE_DR(1, (uptr)&cell);
        WRITE_DR(7, 0x400 | 8 | 0x9ULL << 20); /* 8 bytes, writes: LEN 10, RW 01 */
        TRY (&t)
            cell = i + 1;
        CHECK_EQ(t.vector, V_DB);
        CHECK_EQ(cell, i + 1);
        WRITE_DR(7, 0x400);
        WRITE_DR(6, 0xffff0ff0);
    }
}

/* --- calls and returns that do not match --- */

TEST(ret__without_a_call)
{
    u64 sum = 0;

    for (unsigned i = 0; i < 200; i++) {
        u64 v;
        __asm__ volatile("lea 1f(%%rip), %0; push %0; mov $1, %0; ret; ud2; 1: add $2, %0"
                         : "=&r"(v)::"memory", "cc");
        sum += v;
    }
    CHECK_EQ(sum, 600);
}

TEST(ret__to_a_changed_address)
{
    u64 v;

    for (unsigned i = 0; i < 200; i++) {
        __asm__ volatile(
            "call 1f; mov $1, %0; jmp 3f; 2: mov $2, %0; jmp 3f\n"
            "1: testl $1, %k1; jz 4f; lea 2b(%%rip), %%rax; mov %%rax, (%%rsp); 4: ret; 3:"
            : "=&r"(v)
            : "r"((u64)i)
            : "rax", "memory", "cc");
        CHECK_EQ(v, i & 1 ? 2 : 1);
    }
}

TEST(ret__call_that_never_returns)
{
    u64 v = 0;

    /* call/pop, the old way to read the program counter, and calls left by a jump */
    for (unsigned i = 0; i < 500; i++)
        __asm__ volatile("call 1f; ud2; 1: pop %%rax; call 2f; ud2; 2: add $8, %%rsp; incq %0"
                         : "+r"(v)::"rax", "memory", "cc");
    CHECK_EQ(v, 500);
}

static NOINLINE u64 deep(u64 n)
{
    u64 r;
    if (n == 0)
        return 0;
    r = deep(n - 1);
    BARRIER();
    return r + 1;
}

TEST(ret__deep_recursion)
{
    u8 *stack = pages_alloc(256, 4096);
    u64 r;

    for (unsigned i = 0; i < 3; i++) {
        __asm__ volatile(
            "mov %%rsp, %%rbx; mov %2, %%rsp; mov %3, %%rdi; call *%1; mov %%rbx, %%rsp"
            : "=a"(r)
            : "r"(deep), "r"(stack + 256 * 4096), "r"(20000ULL)
            : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
        CHECK_EQ(r, 20000);
    }
}

TEST(ret__two_stacks_in_turn)
{
    static u64 other_rsp, counts[2];
    static u8 stack[4096] ALIGNED(16);
    u64 *sp = (u64 *)(stack + sizeof(stack));

    /* two coroutines that switch in the middle of calls */
    __asm__ volatile("jmp 9f\n"
                     ".balign 16\n"
                     "co_switch: push %%rbp; xchg %%rsp, %0; pop %%rbp; ret\n"
                     "co_other: incq %1; call co_switch; call co_mid; jmp co_other\n"
                     "co_mid: call co_switch; ret\n"
                     "9:"
                     : "+m"(other_rsp), "+m"(counts[1])::"memory");
    {
        extern const char co_other[];
        *--sp = (uptr)co_other;
        *--sp = 0;
        other_rsp = (uptr)sp;
    }
    for (unsigned i = 0; i < 1000; i++) {
        __asm__ volatile("call co_switch" ::: "memory", "cc");
        counts[0]++;
    }
    CHECK_EQ(counts[1], 500);
}

TEST(ret__pops_arguments)
{
    u64 before, after;

    for (unsigned i = 0; i < 100; i++) {
        __asm__ volatile(
            "mov %%rsp, %0; push $1; push $2; call 1f; jmp 2f; 1: ret $16; 2: mov %%rsp, %1"
            : "=&r"(before), "=&r"(after)::"memory", "cc");
        CHECK_EQ(before, after);
    }
}

TEST(ret__return_address_page_goes_away)
{
    struct trap t;

    /* VA calls into `text`, which unmaps nothing itself; the second time the caller's page is gone
     * before the return */
    u8 *p = page_alloc();

    EMIT(p, 0xff, 0xd7, 0x83, 0xc0, 1, 0xc3); /* call *%rdi; add $1,%eax; ret */
    map(VA, (uptr)p, PTE_P);
    EMIT(text, 0x85, 0xf6, 0x74, 0x03, 0x0f, 0x01, 0x3a, 0xb8, 5, 0, 0, 0, 0xc3);
    /* test %esi,%esi; jz; invlpg (%rdx); mov $5,%eax; ret */
    for (unsigned i = 0; i < 20; i++) {
        u64 rax;
        __asm__ volatile("call *%1"
                         : "=a"(rax)
                         : "r"(VA), "D"(text), "S"(0ULL), "d"(VA)
                         : "memory", "cc");
        CHECK_EQ(rax, 6);
        *pte_at(VA, 1) = 0; /* still in the TLB, perhaps; the callee's INVLPG ends that */
        TRY (&t)
            __asm__ volatile("call *%1"
                             : "=a"(rax)
                             : "r"(VA), "D"(text), "S"(1ULL), "d"(VA)
                             : "memory", "cc");
        CHECK_EQ(t.vector, V_PF);
        CHECK(t.regs.rip == VA || t.regs.rip == VA + 2);
        map(VA, (uptr)p, PTE_P);
    }
}

/* --- indirect branches --- */

TEST(indirect__many_targets)
{
    u8 *p = pages_alloc(4, 4096);
    u64 sum = 0, want = 0;

    for (unsigned i = 0; i < 1024; i++) {
        EMIT(p + i * 16, 0xb8, 0, 0, 0, 0, 0xc3);
        *(u32 *)(p + i * 16 + 1) = i * 5;
    }
    for (unsigned n = 0; n < 20000; n++) {
        unsigned i = (n * 7919) & 1023;
        sum += call((uptr)p + i * 16);
        want += i * 5;
    }
    CHECK_EQ(sum, want);
}

TEST(indirect__non_canonical_and_unmapped)
{
    struct trap t;

    for (unsigned i = 0; i < 10; i++) {
        TRY (&t)
            call(1ULL << 47);
        CHECK_EQ(t.vector, V_GP);
        TRY (&t)
            call(VA + 0x77000);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.regs.rip, VA + 0x77000);
        TRY (&t)
            __asm__ volatile("jmp *%0" ::"r"(0xffff7fffffffffffULL));
        CHECK_EQ(t.vector, V_GP);
    }
}

/* --- state at a fault in the middle of a block --- */

static void fault_regs(struct trap *t, const void *code, unsigned n, struct regs *r)
{
    memset(text, 0xcc, 256);
    memcpy(text, code, n);
    run_until_trap(t, r);
}

TEST(precise__registers)
{
    /* inc every register, fault, and nothing after it has happened */
    static const u8 code[] = {
        0x48, 0xff, 0xc0, 0x48, 0xff, 0xc1,
        0x48, 0xff, 0xc2, 0x48, 0xff, 0xc3, /* inc rax rcx rdx rbx */
        0x48, 0xff, 0xc5, 0x48, 0xff, 0xc6, /* rbp rsi */
        0x49, 0xff, 0xc0, 0x49, 0xff, 0xc1,
        0x49, 0xff, 0xc2, 0x49, 0xff, 0xc3, /* r8-r11 */
        0x49, 0xff, 0xc4, 0x49, 0xff, 0xc5,
        0x49, 0xff, 0xc6, 0x49, 0xff, 0xc7, /* r12-r15 */
        0x48, 0x8b, 0x07,                   /* mov (%rdi),%rax */
        0x48, 0xff, 0xc0, 0x48, 0xff, 0xc1,
    };
    struct trap t;
    struct regs r;

    user_regs(&r, text, 0, 0);
    for (unsigned i = 0; i < 15; i++)
        ((u64 *)&r)[i] = 0x1000000000000000ULL * i + 0x100 * i;
    r.rdi = VA;
    for (unsigned k = 0; k < 5; k++) {
        fault_regs(&t, code, sizeof(code), &r);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.regs.rip, (uptr)text + 42);
        for (unsigned i = 0; i < 15; i++) {
            if (i == 9) /* rdi */
                continue;
            CHECK_EQ(((u64 *)&t.regs)[i], ((u64 *)&r)[i] + (&((u64 *)&r)[i] == &r.rdi ? 0 : 1));
        }
    }
}

TEST(precise__flags_before_a_fault)
{
    static const struct {
        u8 code[8];
        unsigned n;
        u64 rax, rcx;
        u32 want;
    } ops[] = {
        {{0x48, 0x01, 0xc8}, 3, ~0ULL, 1, F_CF | F_ZF | F_AF | F_PF},              /* add */
        {{0x48, 0x29, 0xc8}, 3, 0, 1, F_CF | F_SF | F_AF | F_PF},                  /* sub */
        {{0x48, 0x39, 0xc8}, 3, 5, 5, F_ZF | F_PF},                                /* cmp */
        {{0x48, 0x31, 0xc8}, 3, 3, 2, 0},                                          /* xor: 1 */
        {{0x48, 0xff, 0xc0}, 3, 0x7fffffffffffffff, 0, F_OF | F_SF | F_AF | F_PF}, /* inc */
        {{0xf9, 0x48, 0xff, 0xc8}, 4, 1, 0, F_CF | F_ZF | F_PF},            /* stc; dec keeps CF */
        {{0x48, 0xd1, 0xe0}, 3, 0x8000000000000001, 0, F_CF | F_OF},        /* shl 1: 2 */
        {{0x48, 0x0f, 0xaf, 0xc1}, 4, 1ULL << 62, 4, F_CF | F_OF},          /* imul: CF, OF only */
        {{0xf9, 0x48, 0x11, 0xc8}, 4, ~0ULL, 0, F_CF | F_ZF | F_AF | F_PF}, /* stc; adc */
        {{0x48, 0x0f, 0xba, 0xe0, 0x05}, 5, 0x20, 0, F_CF},                 /* bt $5: CF only */
    };
    struct trap t;
    struct regs r;

    for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
        u8 code[16];
        u32 mask = F_CF | F_ZF | F_SF | F_OF | F_PF | F_AF;

        memcpy(code, ops[i].code, ops[i].n);
        memcpy(code + ops[i].n, (const u8[]){0x8b, 0x17, 0x31, 0xd2},
               4); /* mov (%rdi),%edx; xor %edx,%edx */
        user_regs(&r, text, VA, 0);
        r.rax = ops[i].rax;
        r.rcx = ops[i].rcx;
        fault_regs(&t, code, ops[i].n + 4, &r);
        if (i == 7 || i == 9)
            mask = i == 7 ? F_CF | F_OF : F_CF;
        if (i == 3)
            mask &= ~F_AF;
        if (i == 6)
            mask &= ~F_AF;
        CHECK_EQ(t.vector, V_PF);
        if ((t.regs.rflags & mask) != ops[i].want)
            test_failed(__LINE__, "op %u: flags %llx, want %x", i,
                        (unsigned long long)t.regs.rflags & mask, ops[i].want);
    }
}

TEST(precise__stores_before_a_fault_are_done)
{
    /* mov %eax,(%rdi); mov %eax,8(%rdi); mov %eax,0x1000(%rdi); mov %eax,16(%rdi): one base, the
     * third is in a page that is not there */
    static const u8 code[] = {0x89, 0x07, 0x89, 0x47, 0x08, 0x89, 0x87,
                              0,    0x10, 0,    0,    0x89, 0x47, 0x10};
    struct trap t;
    struct regs r;
    u32 *page = page_alloc();

    map(VA, (uptr)page, PTE_P | PTE_W | PTE_U);
    for (unsigned i = 1; i < 20; i++) {
        user_regs(&r, text, VA + 0x100, 0);
        r.rax = i;
        fault_regs(&t, code, sizeof(code), &r);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.cr2, VA + 0x1100);
        CHECK_EQ(t.regs.rip, (uptr)text + 5);
        CHECK_EQ(page[0x40], i);
        CHECK_EQ(page[0x42], i);
        CHECK_EQ(page[0x44], 0);
    }
}

TEST(precise__pushes_into_a_missing_page)
{
    static const u8 code[] = {0x50, 0x51, 0x52, 0x53, 0x50, 0x51}; /* six pushes */
    struct trap t;
    struct regs r;
    u64 *page = page_alloc();

    map(VA, (uptr)page, PTE_P | PTE_W | PTE_U);
    for (unsigned room = 0; room < 6; room++) {
        memset(page, 0, 64);
        user_regs(&r, text, 0, 0);
        r.rsp = VA + 8 * room;
        r.rax = 0xa;
        r.rcx = 0xc;
        r.rdx = 0xd;
        r.rbx = 0xb;
        fault_regs(&t, code, sizeof(code), &r);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.regs.rsp, VA);
        CHECK_EQ(t.cr2, VA - 8);
        CHECK_EQ(t.regs.rip, (uptr)text + room);
        if (room)
            CHECK_EQ(page[room - 1], 0xa);
        if (room > 3)
            CHECK_EQ(page[room - 4], 0xb);
    }
}

TEST(precise__pops_from_a_missing_page)
{
    static const u8 code[] = {0x58, 0x59, 0x5a, 0x5b}; /* pop rax rcx rdx rbx */
    struct trap t;
    struct regs r;
    u64 *page = page_alloc();

    map(VA, (uptr)page, PTE_P | PTE_W | PTE_U);
    page[510] = 0x510;
    page[511] = 0x511;
    user_regs(&r, text, 0, 0);
    r.rsp = VA + 4096 - 16;
    r.rdx = 0x77;
    fault_regs(&t, code, sizeof(code), &r);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.regs.rip, (uptr)text + 2);
    CHECK_EQ(t.regs.rax, 0x510);
    CHECK_EQ(t.regs.rcx, 0x511);
    CHECK_EQ(t.regs.rdx, 0x77);
    CHECK_EQ(t.regs.rsp, VA + 4096);
}

TEST(precise__stack_slots_on_both_sides_of_a_border)
{
    /* mov %eax,-8(%rsp) style accesses around a page border with one page missing */
    static const u8 code[] = {0x89, 0x44, 0x24, 0x08, 0x89, 0x44,
                              0x24, 0xf8, 0x89, 0x44, 0x24, 0x10};
    struct trap t;
    struct regs r;
    u32 *page = page_alloc();

    map(VA + 0x1000, (uptr)page, PTE_P | PTE_W | PTE_U);
    user_regs(&r, text, 0, 0);
    r.rsp = VA + 0x1000;
    r.rax = 0x99;
    fault_regs(&t, code, sizeof(code), &r);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.regs.rip, (uptr)text + 4);
    CHECK_EQ(t.cr2, VA + 0x1000 - 8);
    CHECK_EQ(page[2], 0x99);
    CHECK_EQ(page[4], 0);
}

TEST(precise__base_changed_between_accesses)
{
    /* mov (%rdi),%eax; add $0x1000,%rdi; mov (%rdi),%ecx; sub; ... the same base, another value */
    u32 *a = page_alloc(), *b = page_alloc();
    u32 x, y;

    a[0] = 0xa;
    b[0] = 0xb;
    map(VA, (uptr)a, PTE_P);
    map(VA + 0x1000, (uptr)b, PTE_P);
    for (unsigned i = 0; i < 100; i++) {
        __asm__ volatile("mov %2, %%rdi; mov (%%rdi), %0; add $0x1000, %%rdi; mov (%%rdi), %1"
                         : "=&r"(x), "=&r"(y)
                         : "r"(VA)
                         : "rdi", "cc");
        CHECK_EQ(x, 0xa);
        CHECK_EQ(y, 0xb);
    }
}

TEST(flags__live_across_calls_and_returns)
{
    u64 n = 0;

    for (unsigned i = 0; i < 100; i++) {
        u8 c, d;
        /* a function that returns its result in CF; and one that leaves all flags alone */
        __asm__ volatile("call 1f; setc %0; cmp $1, %2; call 2f; setz %1; jmp 3f\n"
                         "1: bt $0, %2; ret\n"
                         "2: mov $7, %%eax; push %%rax; lea 1(%%rax), %%rax; pop %%rax; ret\n"
                         "3:"
                         : "=&q"(c), "=&q"(d)
                         : "r"(i)
                         : "rax", "memory", "cc");
        CHECK_EQ(c, i & 1);
        CHECK_EQ(d, i == 1);
        n += c;
    }
    CHECK_EQ(n, 50);
}

TEST(flags__direction_is_state)
{
    u8 a[4] = {1, 2, 3, 4};
    u64 s, v = 0;

    /* DF set in one block, used in others reached by calls */
    __asm__ volatile(
        "lea 3(%2), %0; std; call 1f; jmp 2f; 1: lodsb; shl $8, %%eax; lodsb; ret; 2: cld"
        : "=&S"(s), "+a"(v)
        : "r"(a)
        : "memory", "cc");
    CHECK_EQ(v & 0xffff, 0x0403);
    CHECK_EQ(s, (uptr)a + 1);
}

TEST(mmio__several_accesses_through_one_base)
{
    u32 ver, id, svr;

    apic_enable();
    for (unsigned i = 0; i < 100; i++) {
        __asm__ volatile("mov 0x30(%3), %0; movl $0x20, 0x80(%3); mov 0x20(%3), %1; mov 0xf0(%3), "
                         "%2; movl $0, 0x80(%3)"
                         : "=&r"(ver), "=&r"(id), "=&r"(svr)
                         : "r"(0xfee00000ULL)
                         : "memory");
        CHECK_EQ(ver, apic_read(APIC_VERSION));
        CHECK_EQ(svr, 0x1ff);
        CHECK_EQ(READ_CR(8), 0);
    }
    /* the same instruction on RAM, then on a device, then on RAM */
    for (unsigned i = 0; i < 30; i++) {
        static u32 ram[16];
        u32 v;
        u64 base = i % 3 ? (uptr)ram : 0xfee00000;
        ram[12] = 0x1234;
        __asm__ volatile("mov 0x30(%1), %0" : "=r"(v) : "r"(base));
        CHECK_EQ(v, i % 3 ? 0x1234 : apic_read(APIC_VERSION));
    }
}

TEST(mmio__between_pushes_and_pops)
{
    u64 a = 0x1111, b = 0x2222, ver, tpr, sum;
    u8 *two = (u8 *)TEST_VA;

    apic_enable();
    map(TEST_VA, (uptr)page_alloc(), PTE_P | PTE_W);
    page_alloc();
    map(TEST_VA + 4096, (uptr)page_alloc(), PTE_P | PTE_W);
    for (unsigned i = 0; i < 50; i++) {
        *(volatile u8 *)(two + 4095) = 0x78;
        *(volatile u8 *)(two + 4096) = 0x56;
        *(volatile u8 *)(two + 4097) = 0x34;
        *(volatile u8 *)(two + 4098) = 0x12;
        /* reads, writes, both, and two in two pages; flags live across them */
        __asm__ volatile(
            "push %3; push %4; stc; mov 0x30(%5), %k0; movl $0x20, 0x80(%5); push 8(%%rsp); adcl "
            "$0xf, 0x80(%5); mov 0x80(%5), %k1; mov 4095(%6), %k2; notl 4095(%6); pop %3; add %3, "
            "%2; cmpl $0, 0x20(%5); pop %4; pop %3; movl $0, 0x80(%5)"
            : "=&r"(ver), "=&r"(tpr), "=&r"(sum), "+&r"(a), "+&r"(b)
            : "r"(0xfee00000ULL), "r"(two)
            : "memory", "cc");
        CHECK_EQ((u32)ver, apic_read(APIC_VERSION));
        CHECK_EQ((u32)tpr, 0x30);
        CHECK_EQ(sum, 0x12345678 + 0x1111);
        CHECK_EQ(a, 0x1111);
        CHECK_EQ(b, 0x2222);
        CHECK_EQ(*(volatile u8 *)(two + 4095), 0x87);
        CHECK_EQ(*(volatile u8 *)(two + 4098), 0xed);
    }
    unmap(TEST_VA);
    unmap(TEST_VA + 4096);
}

TEST(length__very_long_blocks)
{
    u8 *p = pages_alloc(8, 4096);

    /* 7000 times inc %eax without a branch, over page borders */
    for (unsigned i = 0; i < 14000; i += 2) {
        p[i] = 0xff;
        p[i + 1] = 0xc0;
    }
    p[14000] = 0xc3;
    for (unsigned k = 0; k < 5; k++) {
        u64 rax = 0;
        __asm__ volatile("call *%1" : "+a"(rax) : "r"(p) : "memory", "cc");
        CHECK_EQ(rax, 7000);
    }
    p[9000] = 0x90; /* one of them changed in the middle: two nops less one inc */
    p[9001] = 0x90;
    {
        u64 rax = 0;
        __asm__ volatile("call *%1" : "+a"(rax) : "r"(p) : "memory", "cc");
        CHECK_EQ(rax, 6999);
    }
}

TEST(cache__more_code_than_fits)
{
    /* several MiB of different code: whatever is kept must be thrown away rightly */
    u8 *p = pages_alloc(4096, 4096);
    u64 sum = 0;

    for (unsigned i = 0; i < 4096 * 4096 / 64; i++) {
        EMIT(p + i * 64, 0xb8, 0, 0, 0, 0, 0xc3);
        *(u32 *)(p + i * 64 + 1) = i;
    }
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < 4096 * 4096 / 64; i += 3)
            sum += call((uptr)p + i * 64) == i;
    CHECK_EQ(sum, 2 * ((4096 * 4096 / 64 + 2) / 3));
}

TEST(text__and_table_in_one_page)
{
    /* code that walks a table in its own page and counts in it */
    EMIT(table, 0x48, 0x8d, 0x3d, 0xf9, 0x00, 0, 0, /* lea 0xf9(%rip),%rdi: table + 0x100 */
         0xb9, 0x10, 0, 0, 0,                       /* mov $16,%ecx */
         0x31, 0xc0,                                /* xor %eax,%eax */
         0x03, 0x07, 0xff, 0x07, 0x48, 0x83, 0xc7,
         4,                             /* add (%rdi),%eax; incl (%rdi); add $4,%rdi */
         0xff, 0xc9, 0x75, 0xf4, 0xc3); /* dec %ecx; jnz; ret */
    for (unsigned i = 0; i < 16; i++)
        ((u32 *)(table + 0x100))[i] = i;
    CHECK_EQ(call((uptr)table), 120);
    CHECK_EQ(call((uptr)table), 136);
    for (unsigned i = 0; i < 100; i++)
        call((uptr)table);
    CHECK_EQ(((u32 *)(table + 0x100))[15], 117);
}

/* --- what once reached beyond the guest, or hung the monitor --- */

TEST(group__with_an_instruction_done_elsewhere)
{
    /* AH with a memory operand has no copied form; the pushes and pops around it share one check */
    u64 c = 0x1122334455667788, d = 0, a = 0x42;
    u8 m = 7;

    __asm__ volatile("push %%rax; mov (%3), %%ah; push %%rcx; pop %%rdx; pop %%rcx"
                     : "+a"(a), "+c"(c), "+d"(d)
                     : "b"(&m)
                     : "memory");
    CHECK_EQ(d, 0x1122334455667788);
    CHECK_EQ(c, 0x42);
    CHECK_EQ(a, 0x742);
}

TEST(leave__of_16_bits)
{
    u64 frame[2] = {0x1111222233334444, 0}, rbp = (uptr)frame, rsp = 0;

    __asm__ volatile("mov %%rsp, %%r12; xchg %%rbp, %0; .byte 0x66, 0xc9; xchg %%rbp, %0\n\t"
                     "mov %%rsp, %1; mov %%r12, %%rsp"
                     : "+r"(rbp), "=&r"(rsp)
                     :
                     : "r12", "memory");
    CHECK_EQ(rbp, ((uptr)frame & ~(u64)0xffff) | 0x4444);
    CHECK_EQ(rsp, (uptr)frame + 2);
}

TEST(flags__of_a_patched_target)
{
    /* cmp edi,esi; mov rdx,[rdx]; jmp B; B: add ecx,ecx; nop; ret - and then B reads the flags */
    static const u8 code[] = {0x39, 0xf7, 0x48, 0x8b, 0x12, 0xeb, 0x02,
                              0x90, 0x90, 0x01, 0xc9, 0x90, 0xc3};
    static u64 mem;
    u8 *p = pages_alloc(1, 1);
    u64 a = 0, d;

    memcpy(p, code, sizeof(code));
    for (int i = 0; i < 4; i++) {
        if (i == 3)
            EMIT(p + 9, 0x0f, 0x94, 0xc0, 0xc3); /* sete al; ret */
        d = (uptr)&mem;
        a = 0;
        __asm__ volatile("call *%2"
                         : "+a"(a), "+d"(d)
                         : "r"(p), "D"(5), "S"(5)
                         : "rcx", "memory", "cc");
    }
    CHECK_EQ(a, 1);
}

static volatile u32 ticks, enough;

static bool on_tick(struct regs *r)
{
    apic_eoi();
    if (++ticks >= enough)
        r->rcx = 1;
    return true;
}

/* Interrupts whose handler sets RCX once there were n of them. */
static void ticks_on(unsigned n)
{
    enough = n;
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    apic_enable();
    trap_set_hook(0x60, on_tick);
    ticks = 0;
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVT_TIMER, 0x20000 | 0x60);
    apic_write(APIC_TMICT, n > 1000 ? 20000 : 200000);
}

TEST(kick__in_string_instructions)
{
    static u8 a[64], b[64];
    u64 c = 0, si = (uptr)a + 32, di = (uptr)b + 32;

    for (unsigned i = 0; i < sizeof(a); i++)
        a[i] = (u8)(i + 1);
    ticks_on(5000);
    sti();
    /* each one comes to the same places, as often as not from below */
    __asm__ volatile("1: cld; movsb; lodsw; stosl; movsq; std; movsb; lodsw; stosl; movsq; test "
                     "%%rcx, %%rcx; jz 1b; cld"
                     : "+c"(c), "+S"(si), "+D"(di)
                     :
                     : "rax", "memory", "cc");
    cli();
    apic_write(APIC_TMICT, 0);
    CHECK_EQ(si, (uptr)a + 32);
    CHECK_EQ(di, (uptr)b + 32);
    CHECK_EQ(b[32], a[32]);
}

TEST(kick__in_a_loop_through_two_pages)
{
    /* 1: dec rcx; mov eax,1 (crosses); test rcx,rcx; jnz 1b; ret */
    static const u8 code[] = {0x48, 0xff, 0xc9, 0xb8, 1,    0,    0,
                              0,    0x48, 0x85, 0xc9, 0x75, 0xf3, 0xc3};
    u8 *p = pages_alloc(2, 1);
    u64 c = (u64)1 << 60;

    memcpy(p + 0xffb, code, sizeof(code));
    ticks_on(300);
    sti();
    __asm__ volatile("call *%1" : "+c"(c) : "r"(p + 0xffb) : "rax", "memory", "cc");
    cli();
    apic_write(APIC_TMICT, 0);
    CHECK_EQ(ticks >= 300, 1);
}
