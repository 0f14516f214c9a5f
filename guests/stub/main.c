// SPDX-License-Identifier: Apache-2.0
/*
 * Something to debug: the functional tests of the gdb stub stop in here, look and change things
 * (tests/functional/test_gdb.py). Run without a debugger it must pass too: nothing in here may be
 * different with one attached.
 */
#include "x64.h"

/* A debugger sets it to keep the processors in spin() until it sets it back. */
static volatile u32 hold;
static volatile u64 counter[2];
static volatile u64 watched ALIGNED(4096);
static volatile u64 beside; /* in the same page, never watched */
static char text[64] ALIGNED(64);
static volatile u64 result;

static NOINLINE u64 inner(u64 a, u64 b)
{
    result = a;
    return a * 3 + b;
}

static NOINLINE u64 outer(u64 a)
{
    u64 v = inner(a, 1);
    result = v;
    return v + 1;
}

static NOINLINE void touch(u64 v)
{
    for (unsigned i = 0; i < 100; i++)
        beside = i;
    watched = v;
    for (unsigned i = 0; i < 100; i++)
        beside = beside + 1;
}

static NOINLINE u64 peek(void)
{
    return watched + beside;
}

/* The bytes of code that a breakpoint must not be seen in. */
static u32 checksum(const void *p, u64 n)
{
    const volatile u8 *b = p;
    u32 sum = 0;

    for (u64 i = 0; i < n; i++)
        sum = sum * 31 + b[i];
    return sum;
}

TEST(calls)
{
    u32 before = checksum((const void *)(uptr)inner, 16);

    CHECK_EQ(outer(5), 17);
    CHECK_EQ(outer(6), 20);
    for (u64 i = 0; i < 1000; i++)
        outer(i);
    CHECK_EQ(checksum((const void *)(uptr)inner, 16), before);
}

TEST(memory)
{
    watched = 0;
    touch(1);
    touch(2);
    CHECK_EQ(peek(), 2 + 199);
    __asm__ volatile("lock addq $40, %0" : "+m"(watched)::"cc", "memory");
    CHECK_EQ(watched, 42);
}

TEST(strings)
{
    static const char from[64] = "what a string instruction copies, more than one line of it";
    const void *s = from;
    void *d = text;
    u64 n = sizeof(text);

    __asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(n)::"memory");
    CHECK(memcmp(text, from, sizeof(text)) == 0);
}

/* The guest's own breakpoints and single-step trap, whatever the debugger does. */
static volatile u32 own_bp, own_db;

static bool on_bp(struct regs *r)
{
    (void)r;
    own_bp++;
    return true;
}

static bool on_db(struct regs *r)
{
    if (++own_db == 3)
        r->rflags &= ~0x100ull;
    return true;
}

TEST(own_traps)
{
    own_bp = own_db = 0;
    trap_set_hook(3, on_bp);
    trap_set_hook(1, on_db);
    __asm__ volatile("int3");
    __asm__ volatile("subq $128, %%rsp; pushfq; orq $0x100, (%%rsp); popfq; nop; nop; nop; nop;"
                     "addq $128, %%rsp" ::
                         : "cc", "memory");
    CHECK_EQ(own_bp, 1);
    CHECK_EQ(own_db, 3);
}

static NOINLINE void spin(u64 cpu)
{
    do {
        counter[cpu]++;
        pause();
    } while (hold);
}

static void on_cpu(void *arg)
{
    (void)arg;
    spin(cpu_self()->index != 0);
}

TEST(processors)
{
    unsigned n = smp_start();

    smp_run_all(on_cpu, NULL);
    CHECK(counter[0] > 0);
    CHECK(n == 1 || counter[1] > 0);
}
