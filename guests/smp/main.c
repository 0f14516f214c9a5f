// SPDX-License-Identifier: Apache-2.0
/* Several processors on one memory: atomics, ordering, page tables that change under others. */
#include "x64.h"

static unsigned n;
static volatile u32 gate;

/* Lets all CPUs start at about the same time. */
static void together(void)
{
    __atomic_add_fetch(&gate, 1, __ATOMIC_SEQ_CST);
    while (gate % n)
        pause();
}

static void all(void (*fn)(void *), void *arg)
{
    n = smp_start();
    gate = 0;
    smp_run_all(fn, arg);
}

#define ROUNDS 20000

static struct {
    volatile u64 v ALIGNED(64);
    volatile u64 pair[2] ALIGNED(64);
} shared;

static void do_xadd(void *arg)
{
    together();
    for (unsigned i = 0; i < ROUNDS; i++) {
        u64 one = 1;
        __asm__ volatile("lock xaddq %0, %1"
                         : "+r"(one), "+m"(*(volatile u64 *)arg)::"cc", "memory");
    }
}

TEST(atomic__xadd)
{
    shared.v = 0;
    all(do_xadd, (void *)&shared.v);
    CHECK_EQ(shared.v, (u64)n * ROUNDS);
}

static void do_rmw(void *arg)
{
    volatile u8 *p = arg;

    together();
    for (unsigned i = 0; i < ROUNDS; i++) {
        __asm__ volatile("lock incb %0" : "+m"(p[0])::"cc", "memory");
        __asm__ volatile("lock addw $3, %0" : "+m"(*(volatile u16 *)(p + 2))::"cc", "memory");
        __asm__ volatile("lock subl $5, %0" : "+m"(*(volatile u32 *)(p + 4))::"cc", "memory");
        __asm__ volatile("lock decq %0" : "+m"(*(volatile u64 *)(p + 8))::"cc", "memory");
        __asm__ volatile("lock adcq $0, %0" : "+m"(*(volatile u64 *)(p + 16))::"cc", "memory");
    }
}

TEST(atomic__inc_add_sub_of_all_sizes)
{
    static u8 mem[64] ALIGNED(64);
    u64 total;

    memset(mem, 0, sizeof(mem));
    all(do_rmw, mem);
    total = (u64)n * ROUNDS;
    CHECK_EQ(mem[0], (u8)total);
    CHECK_EQ(mem[1], 0);
    CHECK_EQ(*(u16 *)(mem + 2), (u16)(3 * total));
    CHECK_EQ(*(u32 *)(mem + 4), (u32)(-5 * total));
    CHECK_EQ(*(u64 *)(mem + 8), -total);
}

static void do_cmpxchg(void *arg)
{
    volatile u64 *p = arg;

    together();
    for (unsigned i = 0; i < ROUNDS; i++) {
        u64 old = *p;
        u8 ok;
        do {
            __asm__ volatile("lock cmpxchgq %3, %1; sete %2"
                             : "+a"(old), "+m"(*p), "=q"(ok)
                             : "r"(old + 1)
                             : "cc", "memory");
        } while (!ok);
    }
}

TEST(atomic__cmpxchg)
{
    shared.v = 0;
    all(do_cmpxchg, (void *)&shared.v);
    CHECK_EQ(shared.v, (u64)n * ROUNDS);
}

static void do_cmpxchg16b(void *arg)
{
    volatile u64 *p = arg;

    together();
    for (unsigned i = 0; i < ROUNDS; i++) {
        u64 lo = p[0], hi = p[1];
        u8 ok;
        do {
            __asm__ volatile("lock cmpxchg16b %0; sete %3"
                             : "+m"(*(volatile u64(*)[2])p), "+a"(lo), "+d"(hi), "=q"(ok)
                             : "b"(lo + 1), "c"(hi + 2)
                             : "cc", "memory");
        } while (!ok);
    }
}

TEST(atomic__cmpxchg16b)
{
    if (!cpu_has(1, 0, 2, 13))
        SKIP("no CMPXCHG16B");
    shared.pair[0] = shared.pair[1] = 0;
    all(do_cmpxchg16b, (void *)shared.pair);
    CHECK_EQ(shared.pair[0], (u64)n * ROUNDS);
    CHECK_EQ(shared.pair[1], 2ULL * n * ROUNDS);
}

TEST(atomic__cmpxchg16b_wants_alignment)
{
    struct trap t;
    static u8 mem[64] ALIGNED(64);

    if (!cpu_has(1, 0, 2, 13))
        SKIP("no CMPXCHG16B");
    TRY (&t)
        __asm__ volatile("lock cmpxchg16b (%0)" ::"r"(mem + 8), "a"(0ULL), "d"(0ULL), "b"(0ULL),
                         "c"(0ULL)
                         : "memory", "cc");
    CHECK_EQ(t.vector, V_GP);
}

static volatile u32 lock_word;
static volatile u64 guarded_a, guarded_b;
static volatile u32 broken;

static void do_spinlock(void *arg)
{
    (void)arg;
    together();
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        u32 one = 1;
        for (;;) {
            __asm__ volatile("xchg %0, %1" : "+r"(one), "+m"(lock_word)::"memory");
            if (!one)
                break;
            while (lock_word)
                pause();
        }
        if (guarded_a != guarded_b)
            broken = 1;
        guarded_a++;
        guarded_b++;
        BARRIER();
        lock_word = 0; /* a plain store releases: stores are not reordered with earlier accesses */
    }
}

TEST(lock__plain_store_releases)
{
    guarded_a = guarded_b = broken = lock_word = 0;
    all(do_spinlock, NULL);
    CHECK_EQ(broken, 0);
    CHECK_EQ(guarded_a, (u64)n * (ROUNDS / 4));
}

static void do_bts(void *arg)
{
    volatile u32 *p = arg;

    together();
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        u8 was;
        do {
            __asm__ volatile("lock btsl $7, %0; setc %1" : "+m"(*p), "=q"(was)::"cc", "memory");
        } while (was);
        guarded_a++;
        __asm__ volatile("lock btrl $7, %0" : "+m"(*p)::"cc", "memory");
    }
}

TEST(lock__bit)
{
    guarded_a = 0;
    lock_word = 0;
    all(do_bts, (void *)&lock_word);
    CHECK_EQ(guarded_a, (u64)n * (ROUNDS / 4));
}

static void do_split_add(void *arg)
{
    together();
    for (unsigned i = 0; i < 2000; i++)
        __asm__ volatile("lock addq $1, (%0)" ::"r"(arg) : "cc", "memory");
}

TEST(atomic__add_across_a_cache_line)
{
    static u8 mem[128] ALIGNED(64);

    memset(mem, 0, sizeof(mem));
    all(do_split_add, mem + 60);
    CHECK_EQ(*(u64 *)(mem + 60), 2000ULL * n);
}

TEST_QEMU_DEVIATES(atomic__add_across_two_pages, "may lose the lock on some hosts")
{
    u8 *b = page_alloc(), *a = page_alloc();

    map(TEST_VA, (uptr)a, PTE_P | PTE_W);
    map(TEST_VA + 4096, (uptr)b, PTE_P | PTE_W);
    *(u64 *)(TEST_VA + 4092) = 0xffffff00; /* carries run into the second page */
    all(do_split_add, (void *)(TEST_VA + 4092));
    CHECK_EQ(*(u64 *)(TEST_VA + 4092), 0xffffff00 + 2000ULL * n);
    CHECK_EQ(*(u32 *)b, (0xffffff00 + 2000ULL * n) >> 32);
}

/* --- ordering (SDM 3A 8.2.2) --- */
static volatile u32 x ALIGNED(64), y ALIGNED(64), r1 ALIGNED(64), r2 ALIGNED(64);
static volatile u32 round_no ALIGNED(64), answered ALIGNED(64);
static volatile u32 weird;
static void (*side_b)(void);

static void partner(void *arg)
{
    u32 last = 0;
    (void)arg;
    for (;;) {
        u32 k;
        while ((k = round_no) == last)
            pause();
        if (k == ~0U)
            return;
        side_b();
        last = k;
        BARRIER();
        answered = k;
    }
}

static void litmus(void (*a)(void), void (*b)(void), bool (*forbidden)(void), unsigned rounds)
{
    weird = 0;
    round_no = answered = 0;
    side_b = b;
    smp_run(1, partner, NULL);
    for (u32 k = 1; k <= rounds; k++) {
        x = y = 0;
        r1 = r2 = 7;
        __asm__ volatile("mfence" ::: "memory");
        round_no = k;
        a();
        if (!WAIT_FOR(answered == k, 20000)) {
            test_failed(__LINE__, "no answer in round %u", k);
            break;
        }
        if (forbidden())
            weird++;
    }
    round_no = ~0U;
    CHECK(smp_wait(1));
    CHECK_EQ(weird, 0);
}

static void sb_a(void)
{
    __asm__ volatile("movl $1, %0; mfence; movl %1, %%eax; movl %%eax, %2"
                     : "=m"(x)
                     : "m"(y), "m"(r1)
                     : "eax", "memory");
}
static void sb_b(void)
{
    __asm__ volatile("movl $1, %0; mfence; movl %1, %%eax; movl %%eax, %2"
                     : "=m"(y)
                     : "m"(x), "m"(r2)
                     : "eax", "memory");
}
static bool both_zero(void)
{
    return r1 == 0 && r2 == 0;
}

TEST(order__mfence_forbids_store_buffering)
{
    if (smp_start() < 2)
        SKIP("one CPU");
    litmus(sb_a, sb_b, both_zero, 5000);
}

static void sbx_a(void)
{
    __asm__ volatile("movl $1, %%eax; xchgl %%eax, %0; movl %1, %%eax; movl %%eax, %2"
                     : "+m"(x)
                     : "m"(y), "m"(r1)
                     : "eax", "memory");
}
static void sbx_b(void)
{
    __asm__ volatile("movl $1, %%eax; xchgl %%eax, %0; movl %1, %%eax; movl %%eax, %2"
                     : "+m"(y)
                     : "m"(x), "m"(r2)
                     : "eax", "memory");
}

TEST(order__locked_instructions_are_barriers)
{
    if (smp_start() < 2)
        SKIP("one CPU");
    litmus(sbx_a, sbx_b, both_zero, 5000);
}

static void mp_a(void)
{
    x = 1;
    BARRIER();
    y = 1;
}
static void mp_b(void)
{
    u32 a, b;
    a = y;
    BARRIER();
    b = x;
    r1 = a;
    r2 = b;
}
static bool mp_bad(void)
{
    return r1 == 1 && r2 == 0;
}

TEST(order__message_passing)
{
    if (smp_start() < 2)
        SKIP("one CPU");
    litmus(mp_a, mp_b, mp_bad, 5000);
}

static void lb_a(void)
{
    r1 = x;
    BARRIER();
    y = 1;
}
static void lb_b(void)
{
    r2 = y;
    BARRIER();
    x = 1;
}
static bool lb_bad(void)
{
    return r1 == 1 && r2 == 1;
}

TEST(order__loads_are_not_delayed_past_stores)
{
    if (smp_start() < 2)
        SKIP("one CPU");
    litmus(lb_a, lb_b, lb_bad, 5000);
}

/* A stream of two counters: the reader never sees the second ahead of the first. */
static volatile bool stop;
static void stream_reader(void *arg)
{
    (void)arg;
    while (!stop) {
        u32 b = y, a;
        BARRIER();
        a = x;
        if ((s64)a - b < 0)
            weird++;
    }
}

TEST(order__stores_are_seen_in_order)
{
    if (smp_start() < 2)
        SKIP("one CPU");
    x = y = weird = 0;
    stop = false;
    smp_run(1, stream_reader, NULL);
    for (u32 i = 1; i < 300000; i++) {
        x = i;
        BARRIER();
        y = i;
    }
    stop = true;
    CHECK(smp_wait(1));
    CHECK_EQ(weird, 0);
}

static volatile u64 big ALIGNED(64);
static void tear_reader(void *arg)
{
    (void)arg;
    while (!stop) {
        u64 v = big;
        if (v != 0 && v != ~0ULL)
            weird++;
    }
}

TEST(order__aligned_quads_do_not_tear)
{
    if (smp_start() < 2)
        SKIP("one CPU");
    weird = 0;
    stop = false;
    smp_run(1, tear_reader, NULL);
    for (u32 i = 0; i < 300000; i++)
        big = i & 1 ? ~0ULL : 0;
    stop = true;
    CHECK(smp_wait(1));
    CHECK_EQ(weird, 0);
}

/* --- TLB shootdown --- */
#define VA (TEST_VA + 0x600000ULL)
static volatile u32 flushed[MAX_CPUS];

static bool on_flush(struct regs *r)
{
    (void)r;
    invlpg(VA);
    __atomic_add_fetch(&flushed[cpu_self()->index], 1, __ATOMIC_SEQ_CST);
    apic_eoi();
    return true;
}

static volatile u64 epoch, stale;

/* Reads through the mapping; a page holds the epoch from which on it may be seen. */
static void mapper_reader(void *arg)
{
    (void)arg;
    sti();
    while (!stop) {
        u64 before = epoch, v;
        BARRIER();
        v = *(volatile u64 *)VA;
        if (v < before)
            stale++;
    }
    cli();
}

TEST(tlb__shootdown_by_ipi)
{
    u8 *page[2];

    n = smp_start();
    if (n < 2)
        SKIP("one CPU");
    apic_enable();
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    trap_set_hook(0x52, on_flush);
    page[0] = page_alloc();
    page[1] = page_alloc();
    *(volatile u64 *)page[0] = 1;
    map(VA, (uptr)page[0], PTE_P | PTE_W);
    epoch = 1;
    stale = 0;
    stop = false;
    for (unsigned i = 1; i < n; i++) {
        flushed[i] = 0;
        smp_run(i, mapper_reader, NULL);
    }
    for (u64 e = 2; e <= 300; e++) {
        *(volatile u64 *)page[e & 1] = e;
        *pte_at(VA, 1) = (uptr)page[e & 1] | PTE_P | PTE_W;
        invlpg(VA);
        apic_ipi(0, 0xc4000 | 0x52);
        for (unsigned i = 1; i < n; i++)
            if (!WAIT_FOR(flushed[i] >= e - 1, 20000)) {
                test_failed(__LINE__, "cpu %u does not answer", i);
                e = 1000;
                break;
            }
        epoch = e; /* everyone has flushed: the old page may not be seen any more */
    }
    stop = true;
    for (unsigned i = 1; i < n; i++)
        CHECK(smp_wait(i));
    CHECK_EQ(stale, 0);
}

static void toucher(void *arg)
{
    together();
    for (unsigned i = 0; i < 512; i++)
        *(volatile u8 *)((uptr)arg + ((i * 7 + cpu_self()->index * 13) & 511) * 4096) = 1;
}

TEST(tlb__dirty_bits_are_set_by_all)
{
    u8 *pages = pages_alloc(512, 4096);

    n = smp_start();
    for (unsigned i = 0; i < 512; i++)
        map(VA + i * 4096, (uptr)pages + i * 4096, PTE_P | PTE_W);
    all(toucher, (void *)VA);
    for (unsigned i = 0; i < 512; i++)
        CHECK_EQ(*pte_at(VA + i * 4096, 1) & (PTE_A | PTE_D), PTE_A | PTE_D);
}

/* A and D are set by locked updates: a bit another CPU sets in the same entry meanwhile stays. */
static void bit_setter(void *arg)
{
    volatile u64 *e = arg;
    for (unsigned i = 0; i < 20000; i++) {
        __asm__ volatile("lock btsq $9, %0" : "+m"(*e)::"cc", "memory");
        __asm__ volatile("lock btrq $6, %0" : "+m"(*e)::"cc", "memory"); /* clear D */
        if (!(*e & 1ULL << 9))
            weird++;
        __asm__ volatile("lock btrq $9, %0" : "+m"(*e)::"cc", "memory");
        if (*e & 1ULL << 9)
            weird++;
    }
    stop = true;
}

TEST(tlb__walker_updates_are_atomic)
{
    u64 *e;

    n = smp_start();
    if (n < 2)
        SKIP("one CPU");
    map(VA, (uptr)page_alloc(), PTE_P | PTE_W);
    e = pte_at(VA, 1);
    weird = 0;
    stop = false;
    smp_run(1, bit_setter, e);
    while (!stop) {
        invlpg(VA);
        *(volatile u8 *)VA = 1;
    }
    CHECK(smp_wait(1));
    CHECK_EQ(weird, 0);
}

static void count_traps(void *arg)
{
    volatile u32 *sum = arg;

    together();
    for (unsigned i = 0; i < 500; i++) {
        struct trap t;
        TRY (&t)
            (void)*(volatile u8 *)(TEST_VA + 0x7000000);
        if (t.vector == V_PF && t.cr2 == TEST_VA + 0x7000000)
            __atomic_add_fetch(sum, 1, __ATOMIC_SEQ_CST);
    }
}

TEST(traps__on_all_cpus_at_once)
{
    static volatile u32 sum;

    sum = 0;
    all(count_traps, (void *)&sum);
    CHECK_EQ(sum, 500 * n);
}

static volatile u64 tsc_last;
static void tsc_ring(void *arg)
{
    (void)arg;
    together();
    for (unsigned i = 0; i < 5000; i++) {
        u64 seen = tsc_last, now;
        __asm__ volatile("lfence" ::: "memory");
        now = rdtsc();
        if (now < seen)
            weird++;
        __asm__ volatile("lock cmpxchgq %1, %0"
                         : "+m"(tsc_last)
                         : "r"(now), "a"(seen)
                         : "cc", "memory");
    }
}

TEST(tsc__is_one_for_all)
{
    weird = 0;
    tsc_last = 0;
    all(tsc_ring, NULL);
    CHECK_EQ(weird, 0);
}

/* The other processors are stopped for a locked access that no single host instruction does; what
 * is behind this one is no memory. */
static void lock_hole(void *arg)
{
    volatile u8 *p = arg;

    together();
    for (unsigned i = 0; i < 200; i++) {
        __asm__ volatile("lock incl (%0)" ::"r"(p) : "memory", "cc");
        __asm__ volatile("lock btsl $3, (%0)" ::"r"(p) : "memory", "cc");
        __asm__ volatile("lock incl (%0)" ::"r"(p - 2) : "memory", "cc"); /* RAM and hole */
    }
}

TEST(lock__where_there_is_no_memory)
{
    u64 va = TEST_VA + 0x200000;

    map(va, (uptr)page_alloc(), PTE_P | PTE_W);
    map(va + 0x1000, 0xd0000000, PTE_P | PTE_W | PTE_PCD);
    all(lock_hole, (void *)(va + 0x1000));
    CHECK_EQ(*(volatile u8 *)(va + 0xffd), 0);
}
