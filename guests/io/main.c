// SPDX-License-Identifier: Apache-2.0
/* Port I/O: sizes, IOPL, the TSS's permission map, INS and OUTS (SDM 1 chapter 18). Uses the POST
 * port 0x80, ports nobody answers, the PCI address register (32 bits wide) and the COM1 scratch
 * register. */
#include "x64.h"

#define NOBODY 0x2f0 /* no device on any of our boards */
#define SCRATCH 0x3ff
#define VA (TEST_VA + 0x800000ULL)

TEST(in__nobody_answers_with_ones)
{
    u64 rax = 0x1122334455667788;

    __asm__ volatile("in %1, %%al" : "+a"(rax) : "d"(NOBODY));
    CHECK_EQ(rax, 0x11223344556677ff);
    rax = 0x1122334455667788;
    __asm__ volatile("in %1, %%ax" : "+a"(rax) : "d"(NOBODY));
    CHECK_EQ(rax, 0x112233445566ffff);
    rax = 0x1122334455667788;
    __asm__ volatile("in %1, %%eax" : "+a"(rax) : "d"(NOBODY));
    CHECK_EQ(rax, 0xffffffff); /* a 32-bit result clears the upper half */
}

TEST(out__sizes)
{
    outb(SCRATCH, 0xa5);
    CHECK_EQ(inb(SCRATCH), 0xa5);
    outb(SCRATCH, 0x5a);
    CHECK_EQ(inb(SCRATCH), 0x5a);
    outl(0xcf8, 0x80001234);
    CHECK_EQ(inl(0xcf8), 0x80001234);
    outb(0xcf8, 0xff); /* the address register is reached by dwords only */
    CHECK_EQ(inl(0xcf8), 0x80001234);
    outl(0xcf8, 0);
}

TEST(out__immediate_and_dx_forms)
{
    __asm__ volatile("out %%al, $0x80; out %%ax, $0x80; out %%eax, $0x80; in $0x80, %%al" ::
                         : "rax");
    __asm__ volatile("mov $0x80, %%edx; out %%al, %%dx; outw %%ax, %%dx; outl %%eax, %%dx" ::
                         : "rdx");
}

USER_TEXT static u64 user_in(u64 port)
{
    u8 v;
    __asm__ volatile("inb %w1, %0" : "=a"(v) : "d"(port));
    return v;
}
USER_TEXT static u64 user_inl(u64 port)
{
    u32 v;
    __asm__ volatile("inl %w1, %0" : "=a"(v) : "d"(port));
    return v;
}

static void with_map(void)
{
    struct cpu *c = cpu_self();

    gdt_set(SEL_TSS, (u32)(uptr)&c->tss, sizeof(c->tss) - 1, 0x89, 0);
    __asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
}

TEST(bitmap__decides_in_ring_3)
{
    struct cpu *c = cpu_self();
    struct trap t;

    with_map();
    user_call(&t, user_in, SCRATCH, 0);
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.error, 0);
    c->tss.bitmap[SCRATCH / 8] &= (u8) ~(1 << SCRATCH % 8);
    outb(SCRATCH, 0x3c);
    user_call(&t, user_in, SCRATCH, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    CHECK_EQ(t.regs.rax & 0xff, 0x3c);
    user_call(&t, user_in, SCRATCH - 1, 0);
    CHECK_EQ(t.vector, V_GP);
    /* a wide access needs all its bits; here they lie in two bytes of the map */
    for (unsigned p = 0x7e; p < 0x82; p++)
        c->tss.bitmap[p / 8] &= (u8) ~(1 << p % 8);
    user_call(&t, user_inl, 0x7e, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    c->tss.bitmap[0x81 / 8] |= 1 << 0x81 % 8;
    user_call(&t, user_inl, 0x7e, 0);
    CHECK_EQ(t.vector, V_GP);
    c->tss.bitmap[0xffff / 8] &= 0x7f;
    user_call(&t, user_in, 0xffff, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
}

TEST(bitmap__ends_at_the_tss_limit)
{
    struct cpu *c = cpu_self();
    struct trap t;

    memset(c->tss.bitmap, 0, sizeof(c->tss.bitmap));
    gdt_set(SEL_TSS, (u32)(uptr)&c->tss, 104 + 0x80 / 8, 0x89,
            0); /* ports up to 0x87; reads two bytes */
    __asm__ volatile("ltr %w0" ::"r"(SEL_TSS));
    user_call(&t, user_in, 0x70, 0);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    user_call(&t, user_in, SCRATCH, 0);
    CHECK_EQ(t.vector, V_GP);
    c->tss.iomap = 0xffff;
    user_call(&t, user_in, 0x70, 0);
    CHECK_EQ(t.vector, V_GP);
}

USER_TEXT static void user_cli(void)
{
    __asm__ volatile("cli; sti; cli; nop");
}

TEST(iopl__opens_ports_and_if)
{
    struct trap t;
    struct regs r;

    user_regs(&r, user_in, SCRATCH, 0);
    r.rflags |= F_IOPL;
    outb(SCRATCH, 0x77);
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    CHECK_EQ(t.regs.rax & 0xff, 0x77);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    user_regs(&r, user_cli, 0, 0);
    r.rflags |= F_IOPL;
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, USER_EXIT_VECTOR);
    user_regs(&r, user_cli, 0, 0);
    r.rflags |= 0x2000; /* IOPL 2 is not enough */
    run_until_trap(&t, &r);
    CHECK_EQ(t.vector, V_GP);
}

TEST(ins__sizes_and_repeat)
{
    u8 *p = page_alloc();
    u64 d = (uptr)p, n = 100;

    __asm__ volatile("rep insb" : "+D"(d), "+c"(n) : "d"(NOBODY) : "memory");
    CHECK_EQ(n, 0);
    CHECK_EQ(d, (uptr)p + 100);
    CHECK_EQ(p[99], 0xff);
    CHECK_EQ(p[100], 0);
    d = (uptr)p + 200;
    n = 10;
    __asm__ volatile("rep insw" : "+D"(d), "+c"(n) : "d"(NOBODY) : "memory");
    CHECK_EQ(d, (uptr)p + 220);
    n = 10;
    __asm__ volatile("std; rep insl; cld" : "+D"(d), "+c"(n) : "d"(NOBODY) : "memory", "cc");
    CHECK_EQ(d, (uptr)p + 180);
    CHECK_EQ(p[184], 0xff);
    CHECK_EQ(p[183], 0);
    outb(SCRATCH, 0x42);
    d = (uptr)p;
    __asm__ volatile("insb" : "+D"(d) : "d"(SCRATCH) : "memory");
    CHECK_EQ(p[0], 0x42);
    CHECK_EQ(d, (uptr)p + 1);
}

TEST(outs__sizes_and_repeat)
{
    static const u8 text[4] = {1, 2, 3, 0x99};
    u64 s = (uptr)text, n = 4;

    __asm__ volatile("rep outsb" : "+S"(s), "+c"(n) : "d"(SCRATCH) : "memory");
    CHECK_EQ(inb(SCRATCH), 0x99);
    CHECK_EQ(s, (uptr)text + 4);
    CHECK_EQ(n, 0);
    s = (uptr)text;
    __asm__ volatile("outsl" : "+S"(s) : "d"(0x80) : "memory");
    CHECK_EQ(s, (uptr)text + 4);
    s = (uptr)text;
    n = 0;
    __asm__ volatile("rep outsb" : "+S"(s), "+c"(n) : "d"(SCRATCH) : "memory");
    CHECK_EQ(s, (uptr)text);
}

TEST(ins__page_fault_in_the_middle)
{
    struct trap t;

    map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
    TRY (&t)
        __asm__ volatile("rep insb" ::"D"(VA + 4096 - 10), "c"(100), "d"(NOBODY) : "memory");
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, VA + 4096);
    CHECK_EQ(t.regs.rcx, 90);
    CHECK_EQ(t.regs.rdi, VA + 4096);
    CHECK_EQ(((u8 *)VA)[4095], 0xff);
    TRY (&t)
        __asm__ volatile("rep outsw" ::"S"(VA + 4096 - 10), "c"(100), "d"(0x80) : "memory");
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.regs.rcx, 95);
    CHECK_EQ(t.regs.rsi, VA + 4096);
}

USER_TEXT static void user_insb(u64 dst)
{
    __asm__ volatile("mov %0, %%rdi; mov $1, %%ecx; rep insb" ::"r"(dst), "d"(SCRATCH)
                     : "rdi", "rcx", "memory");
}

TEST(ins__permission_comes_before_the_page)
{
    struct trap t;

    with_map();
    user_call(&t, user_insb, VA, 0); /* nothing is mapped there, but the port is refused first */
    CHECK_EQ(t.vector, V_GP);
}
