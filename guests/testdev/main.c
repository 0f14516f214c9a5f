// SPDX-License-Identifier: Apache-2.0
/* The test device (QEMU's pc-testdev): a register at ports, interrupt lines, and memory that every
 * access of an instruction goes out for, as to a device's registers. */
#include "x64.h"

#define REG 0xe0
#define IRQ(n) (0x2000 + (n))
#define MEM_PA 0xff000000ULL
#define VEC 0x61

static bool there(void)
{
    outl(REG, 0x12345678);
    return inl(REG) == 0x12345678;
}

TEST(register__every_size)
{
    if (!there())
        SKIP("no test device");
    outb(REG + 1, 0xab);
    CHECK_EQ(inl(REG), 0x1234ab78);
    outw(REG + 2, 0xcdef);
    CHECK_EQ(inl(REG), 0xcdefab78);
    CHECK_EQ(inw(REG + 2), 0xcdef);
    CHECK_EQ(inb(REG + 3), 0xcd);
    outl(0xe4, 0x1000); /* flush: nothing to be seen */
}

#define IOAPIC_PA 0xfec00000ULL
#define IOAPIC_VA (TEST_VA + 0x10000ULL)

static void ioapic_write(u32 reg, u32 v)
{
    *(volatile u32 *)IOAPIC_VA = reg;
    *(volatile u32 *)(IOAPIC_VA + 0x10) = v;
}

static volatile u32 hits;

static bool on_irq(struct regs *r)
{
    (void)r;
    hits++;
    apic_eoi();
    return true;
}

static void edges(unsigned pin)
{
    ioapic_write(0x11 + 2 * pin, apic_my_id() << 24);
    ioapic_write(0x10 + 2 * pin, VEC);
    hits = 0;
    sti();
    outb(IRQ(pin), 1);
    CHECK(WAIT_FOR(hits == 1, 20000));
    outb(IRQ(pin), 1); /* it is asserted already */
    outb(IRQ(pin), 0);
    outl(IRQ(pin), 1);
    CHECK(WAIT_FOR(hits == 2, 20000));
    outb(IRQ(pin), 0);
    cli();
    ioapic_write(0x10 + 2 * pin, 0x10000);
}

TEST(lines__reach_the_ioapic)
{
    if (!there())
        SKIP("no test device");
    apic_enable();
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    map(IOAPIC_VA, IOAPIC_PA, 0x13);
    trap_set_hook(VEC, on_irq);
    edges(14);
    edges(11);
}

static volatile u64 *memory(void)
{
    map(TEST_VA, MEM_PA, 0x13);
    return (volatile u64 *)TEST_VA;
}

TEST(memory__sizes)
{
    volatile u64 *m = memory();
    volatile u8 *b = (volatile u8 *)m;

    if (!there())
        SKIP("no test device");
    m[0] = 0x1122334455667788;
    m[1] = 0x99aabbccddeeff00;
    CHECK_EQ(m[0], 0x1122334455667788);
    CHECK_EQ(*(volatile u32 *)(b + 2), 0x33445566);
    CHECK_EQ(*(volatile u16 *)(b + 7), 0x0011);
    CHECK_EQ(*(volatile u64 *)(b + 3), 0xeeff001122334455);
    b[5] = 0;
    *(volatile u16 *)(b + 6) = 0xaaaa;
    CHECK_EQ(m[0], 0xaaaa004455667788);
}

TEST(memory__read_modify_write)
{
    volatile u64 *m = memory();
    u64 v = 7, old = 0x1000;
    u8 set;

    if (!there())
        SKIP("no test device");
    *m = 0xfffffff0;
    __asm__ volatile("lock xaddq %0, %1" : "+r"(v), "+m"(*m)::"cc");
    CHECK_EQ(v, 0xfffffff0);
    CHECK_EQ(*m, 0xfffffff7);
    __asm__ volatile("addl $9, %0" : "+m"(*(volatile u32 *)m)::"cc");
    CHECK_EQ(*m, 0);
    *m = 0x1000;
    __asm__ volatile("cmpxchgq %3, %1; sete %2"
                     : "+a"(old), "+m"(*m), "=q"(set)
                     : "r"(0x2000ULL)
                     : "cc");
    CHECK(set);
    CHECK_EQ(*m, 0x2000);
    __asm__ volatile("btcl %2, %0; setc %1" : "+m"(*m), "=q"(set) : "r"(37) : "cc");
    CHECK(!set);
    CHECK_EQ(*m, 0x2000002000);
    __asm__ volatile("xchgw %w0, %1" : "+r"(v), "+m"(*(volatile u16 *)m));
    CHECK_EQ(v, 0xffff2000);
    CHECK_EQ(*m, 0x200000fff0);
    m[2] = 0x0123456789abcdef;
    m[3] = 5;
    __asm__ volatile("cmpxchg16b %1; sete %0"
                     : "=q"(set), "+m"(*(volatile u8(*)[16])(m + 2))
                     : "a"(0x0123456789abcdefULL), "d"(5ULL), "b"(1ULL), "c"(2ULL)
                     : "cc", "memory");
    CHECK(set);
    CHECK_EQ(m[2], 1);
    CHECK_EQ(m[3], 2);
}

TEST(memory__strings_and_stack)
{
    static u8 buf[64];
    volatile u8 *b = (volatile u8 *)memory();
    void *to = (void *)b;
    const void *from = buf;
    u64 n = sizeof(buf), pushed;

    if (!there())
        SKIP("no test device");
    for (unsigned i = 0; i < sizeof(buf); i++)
        buf[i] = (u8)(i * 7);
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    CHECK_EQ(n, 0);
    CHECK(!memcmp((void *)b, buf, sizeof(buf)));
    n = sizeof(buf) / 4;
    to = (void *)b;
    from = buf;
    __asm__ volatile("repe cmpsl" : "+D"(to), "+S"(from), "+c"(n)::"memory", "cc");
    CHECK_EQ(n, 0);
    pushed = 0;
    __asm__ volatile("pushq %1; popq %0; pushq %0; popq 8%1"
                     : "+r"(pushed)
                     : "m"(*(volatile u64 *)b)
                     : "memory");
    CHECK_EQ(pushed, *(u64 *)(void *)buf);
    CHECK_EQ(*(volatile u64 *)(b + 8), pushed);
}

TEST(memory__vectors)
{
    volatile u64 *m = memory();

    if (!there())
        SKIP("no test device");
    m[0] = 1;
    m[1] = 2;
    __asm__ volatile("movaps (%0), %%xmm0; movups %%xmm0, 24(%0); paddq (%0), %%xmm0;"
                     "movdqa %%xmm0, 48(%0)" ::"r"(m)
                     : "memory");
    CHECK_EQ(m[3], 1);
    CHECK_EQ(m[4], 2);
    CHECK_EQ(m[6], 2);
    CHECK_EQ(m[7], 4);
}
