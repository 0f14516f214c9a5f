// SPDX-License-Identifier: Apache-2.0
/*
 * One page of code at very many addresses, as libraries are in address spaces with randomization:
 * copies of translations come and go, and none that is gone may be run. At every privilege level,
 * for those of a level share tables with those of another.
 */
#include "x64.h"

#define BASE 0x100000000000ULL /* PML4 slot 32: 2^27 aliases of the page */
#define RET 0x20
#define OTHER_RET 0x800
#define LONG 0x400 /* a long run of immediates, which must not come to be run as code */
#define ALIASES 150000

static u8 code[4096] ALIGNED(4096);
static u64 pt[512] ALIGNED(4096), pd[512] ALIGNED(4096), pdpt[512] ALIGNED(4096);
static u8 stack[16384] ALIGNED(16);

static void build(u64 flags)
{
    u8 *w = code + LONG;

    memset(code, 0xcc, sizeof(code));
    code[RET] = code[OTHER_RET] = 0xc3;
    for (unsigned i = 0; i < 60; i++) {
        *w++ = 0x48; /* mov $imm64, %rax */
        *w++ = 0xb8;
        memcpy(w, "\x0f\x0b\x0f\x0b\x0f\x0b\x0f\x0b", 8); /* ud2 */
        w += 8;
    }
    *w = 0xc3;
    for (unsigned i = 0; i < 512; i++) {
        pt[i] = (uptr)code | PTE_P | flags;
        pd[i] = (uptr)pt | PTE_P | flags;
        pdpt[i] = (uptr)pd | PTE_P | flags;
    }
    boot_pml4[BASE >> 39] = (uptr)pdpt | PTE_P | flags;
    flush_tlb();
}

static USER_TEXT void call(u64 va)
{
    __asm__ volatile("call *%0" ::"r"(va) : "rax", "memory");
}

static USER_TEXT u64 call_all(u64 n)
{
    u64 kept = BASE + 0x7000 + OTHER_RET;

    for (u64 i = 1; i <= n; i++) {
        call(BASE + (i << 17 & 0x7fffffffffULL) + (i & 1 ? LONG : RET));
        call(kept);
    }
    return n;
}

static void at_level(unsigned cpl)
{
    struct trap t;
    struct regs r;

    build(cpl == 3 ? PTE_W | PTE_U : PTE_W);
    if (!cpl) {
        CHECK_EQ(call_all(ALIASES), ALIASES);
        return;
    }
    user_regs(&r, call_all, ALIASES, 0);
    if (cpl < 3) {
        gdt_set(0x40, 0, 0xfffff, (u8)(0x9b | cpl << 5), 0xa);
        gdt_set(0x48, 0, 0xfffff, (u8)(0x93 | cpl << 5), 0xc);
        r.cs = 0x40 | cpl;
        r.ss = 0x48 | cpl;
        /* What user_regs put there is the way back. */
        *(u64 *)(stack + sizeof(stack) - 8) = *(u64 *)r.rsp;
        r.rsp = (uptr)(stack + sizeof(stack) - 8);
    }
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    CHECK_EQ(t.regs.rax, ALIASES);
}

TEST(aliases__at_level_0)
{
    at_level(0);
}

TEST(aliases__at_level_1)
{
    at_level(1);
}

TEST(aliases__at_level_2)
{
    at_level(2);
}

TEST(aliases__at_level_3)
{
    at_level(3);
}

/* For who measures the monitor's memory meanwhile. */
TEST(aliases__many)
{
    build(PTE_W);
    for (unsigned i = 0; i < 4; i++) {
        for (u64 n = 0; n < 1000000; n++)
            call(BASE + ((i * 1000000 + n) << 12) + RET);
        print("many %u\n", i);
    }
}
