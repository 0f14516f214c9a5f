// SPDX-License-Identifier: Apache-2.0
/* Interprocessor interrupts: shorthands, physical and logical destinations, broadcast, NMI, self,
 * in xAPIC and x2APIC mode (SDM 3A 10.6). */
#include "x64.h"

#define VEC 0x51
#define WAKE 0x50   /* uncounted, for those that sleep */
#define LOW 0x4000U /* level assert */

static volatile u32 hits[MAX_CPUS];
static unsigned n;

static bool on_ipi(struct regs *r)
{
    __atomic_add_fetch(&hits[cpu_self()->index], 1, __ATOMIC_SEQ_CST);
    if (r->vector != V_NMI)
        apic_eoi();
    return true;
}

static bool on_wake(struct regs *r)
{
    (void)r;
    apic_eoi();
    return true;
}

static volatile bool stop;
static volatile u32 listening;

static void listener(void *arg)
{
    (void)arg;
    __atomic_add_fetch(&listening, 1, __ATOMIC_SEQ_CST);
    sti();
    while (!stop)
        pause();
    cli();
}

static void halter(void *arg)
{
    (void)arg;
    __atomic_add_fetch(&listening, 1, __ATOMIC_SEQ_CST);
    while (!stop)
        __asm__ volatile("sti; hlt; cli" ::: "memory");
}

static void drain(void *arg)
{
    (void)arg;
    sti();
    delay(TSC_MS);
    cli();
}

/* All other CPUs listen; false if there are none. */
static bool begin(void (*how)(void *))
{
    n = smp_start();
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    apic_enable();
    trap_set_hook(WAKE, on_wake);
    trap_set_hook(VEC, on_wake);
    smp_run_all(drain, NULL); /* what may still be pending from the test before */
    trap_set_hook(VEC, on_ipi);
    trap_set_hook(V_NMI, on_ipi);
    for (unsigned i = 0; i < MAX_CPUS; i++)
        hits[i] = 0;
    stop = false;
    listening = 0;
    for (unsigned i = 1; i < n; i++)
        smp_run(i, how, NULL);
    CHECK(WAIT_FOR(listening == n - 1, 20000));
    sti();
    return n > 1;
}

static void end(void)
{
    stop = true;
    for (unsigned i = 1; i < n; i++) {
        apic_ipi(cpus[i].apic_id, LOW | WAKE);
        if (!smp_wait(i))
            test_error("cpu %u did not come back", i);
    }
    cli();
}

/* The CPUs of the mask have `count` hits more than none, the others none. */
static void expect(int line, u32 mask, u32 count)
{
    for (unsigned i = 0; i < n; i++)
        if (mask >> i & 1 && !WAIT_FOR(hits[i] >= count, 20000))
            test_failed(line, "cpu %u: %u hits, want %u", i, hits[i], count);
    delay(2 * TSC_MS);
    for (unsigned i = 0; i < n; i++)
        if (hits[i] != (mask >> i & 1 ? count : 0))
            test_failed(line, "cpu %u: %u hits, want %u", i, hits[i], mask >> i & 1 ? count : 0);
}

#define ALL ((1U << n) - 1)

TEST(ids__are_distinct_and_known)
{
    n = smp_start();
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < i; k++)
            CHECK(cpus[i].apic_id != cpus[k].apic_id);
    {
        u32 r[4];
        cpuid(1, 0, r);
        CHECK_EQ(r[1] >> 24, apic_my_id());
    }
}

TEST(shorthand__self)
{
    begin(listener);
    apic_ipi(0, 0x40000 | LOW | VEC);
    expect(__LINE__, 1, 1);
    end();
}

TEST(shorthand__all_including_self)
{
    if (!begin(listener)) {
        end();
        SKIP("one CPU");
    }
    for (unsigned i = 1; i <= 20; i++) {
        apic_ipi(0, 0x80000 | LOW | VEC);
        expect(__LINE__, ALL, i);
    }
    end();
}

TEST(shorthand__all_but_self)
{
    if (!begin(listener)) {
        end();
        SKIP("one CPU");
    }
    for (unsigned i = 1; i <= 20; i++) {
        apic_ipi(0, 0xc0000 | LOW | VEC);
        expect(__LINE__, ALL & ~1U, i);
    }
    end();
}

TEST(physical__one_and_broadcast)
{
    if (!begin(listener)) {
        end();
        SKIP("one CPU");
    }
    apic_ipi(cpus[n - 1].apic_id, LOW | VEC);
    expect(__LINE__, 1U << (n - 1), 1);
    hits[n - 1] = 0;
    apic_ipi(cpus[0].apic_id, LOW | VEC);
    expect(__LINE__, 1, 1);
    hits[0] = 0;
    apic_ipi(0xff, LOW | VEC);
    expect(__LINE__, ALL, 1);
    end();
}

static void set_ldr(void *arg)
{
    (void)arg;
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 1U << (24 + cpu_self()->index));
}

TEST(logical__flat_mode)
{
    n = smp_start();
    smp_run_all(set_ldr, NULL);
    if (!begin(listener)) {
        end();
        SKIP("one CPU");
    }
    CHECK_EQ(apic_read(APIC_LDR), 1U << 24);
    apic_ipi(1U << (n - 1), 0x800 | LOW | VEC);
    expect(__LINE__, 1U << (n - 1), 1);
    hits[n - 1] = 0;
    apic_ipi(3, 0x800 | LOW | VEC); /* a set of two */
    expect(__LINE__, 3, 1);
    hits[0] = hits[1] = 0;
    apic_ipi(0xff, 0x800 | LOW | VEC);
    expect(__LINE__, ALL, 1);
    end();
}

static void set_cluster(void *arg)
{
    unsigned i = cpu_self()->index;
    (void)arg;
    apic_write(APIC_DFR, 0x0fffffff);
    apic_write(APIC_LDR, ((i / 2) << 4 | 1U << i % 2) << 24); /* two to a cluster */
}

TEST(logical__cluster_mode)
{
    n = smp_start();
    smp_run_all(set_cluster, NULL);
    if (!begin(listener)) {
        end();
        smp_run_all(set_ldr, NULL);
        SKIP("one CPU");
    }
    apic_ipi(0x03, 0x800 | LOW | VEC);
    expect(__LINE__, 3, 1);
    hits[0] = hits[1] = 0;
    apic_ipi(0x02, 0x800 | LOW | VEC);
    expect(__LINE__, 2, 1);
    end();
    smp_run_all(set_ldr, NULL);
}

static u32 all_hits(void)
{
    u32 sum = 0;

    for (unsigned i = 0; i < n; i++)
        sum += hits[i];
    return sum;
}

TEST(lowest_priority__goes_to_exactly_one)
{
    n = smp_start();
    smp_run_all(set_ldr, NULL);
    if (!begin(listener)) {
        end();
        SKIP("one CPU");
    }
    apic_ipi(0xff, 0x900 | LOW | VEC);
    CHECK(WAIT_FOR(all_hits() >= 1, 20000));
    delay(20 * TSC_MS); /* for a second one */
    CHECK_EQ(all_hits(), 1);
    end();
}

TEST(nmi__to_another)
{
    if (!begin(listener)) {
        end();
        SKIP("one CPU");
    }
    for (unsigned i = 1; i <= 5; i++) {
        apic_ipi(cpus[n - 1].apic_id, 0x400 | LOW);
        expect(__LINE__, 1U << (n - 1), i);
    }
    hits[n - 1] = 0;
    apic_ipi(0, 0xc0400 | LOW);
    expect(__LINE__, ALL & ~1U, 1);
    end();
}

TEST(hlt__sleepers_wake)
{
    if (!begin(halter)) {
        end();
        SKIP("one CPU");
    }
    for (unsigned i = 1; i <= 50; i++) {
        apic_ipi(0, 0xc0000 | LOW | VEC);
        for (unsigned k = 1; k < n; k++)
            if (!WAIT_FOR(hits[k] >= i, 20000)) {
                test_failed(__LINE__, "cpu %u sleeps through IPI %u", k, i);
                end();
                return;
            }
    }
    end();
}

static volatile u32 ball;
static void ping(void *arg)
{
    (void)arg;
    __atomic_add_fetch(&listening, 1, __ATOMIC_SEQ_CST);
    while (!stop) {
        __asm__ volatile("sti; hlt; cli" ::: "memory");
        if (hits[1] != ball) {
            ball = hits[1];
            apic_ipi(cpus[0].apic_id, LOW | VEC);
        }
    }
}

TEST(pingpong__through_hlt)
{
    n = smp_start();
    if (n < 2)
        SKIP("one CPU");
    ball = 0;
    begin(listener);
    end();
    hits[0] = hits[1] = 0;
    trap_set_hook(VEC, on_ipi);
    stop = false;
    listening = 0;
    smp_run(1, ping, NULL);
    CHECK(WAIT_FOR(listening == 1, 20000));
    for (unsigned i = 1; i <= 200; i++) {
        u64 give_up = rdtsc() + 10000 * TSC_MS;
        apic_ipi(cpus[1].apic_id, LOW | VEC);
        while (hits[0] < i && rdtsc() < give_up)
            __asm__ volatile("sti; nop; cli" ::: "memory");
        if (hits[0] < i) {
            test_failed(__LINE__, "no answer to IPI %u", i);
            break;
        }
    }
    stop = true;
    apic_ipi(cpus[1].apic_id, LOW | VEC);
    CHECK(smp_wait(1));
}

TEST(icr__reads_back_idle)
{
    begin(listener);
    apic_ipi(cpus[0].apic_id, LOW | VEC);
    expect(__LINE__, 1, 1);
    CHECK_EQ(apic_read(APIC_ICR) & 0xfff, VEC); /* delivery status clear */
    end();
}

TEST(esr__illegal_vector)
{
    if (on_qemu_tcg())
        SKIP("QEMU delivers vectors below 16");
    begin(listener);
    apic_write(APIC_ESR, 0);
    apic_write(APIC_ESR, 0);
    apic_ipi(cpus[0].apic_id, LOW | 5); /* vectors 0-15 are illegal: SDM 3A 10.5.2 */
    delay(TSC_MS);
    apic_write(APIC_ESR, 0);
    CHECK(apic_read(APIC_ESR) & 0x60); /* sent or received */
    apic_write(APIC_ESR, 0);
    end();
}

#define ROUNDS 3000

static volatile u32 round_here, round_there;

/* Each round: an NMI to the first CPU, and behind it an interrupt that tells of its arrival. */
static void nmi_sender(void *arg)
{
    (void)arg;
    for (u32 i = 1; i <= ROUNDS; i++) {
        while (round_here < i)
            pause();
        if (stop)
            return;
        apic_ipi(cpus[0].apic_id, 0x400 | LOW);
        apic_ipi(cpus[0].apic_id, LOW | VEC);
        round_there = i;
    }
}

static volatile u32 nmis;

static bool count_nmi(struct regs *r)
{
    (void)r;
    nmis++;
    return true;
}

/* One may be under way while the other is sent: it is kept (SDM 3A 6.7.1). A processor takes the
 * first at once, so two never become one. */
TEST_QEMU_DEVIATES(nmi__two_at_once_are_two, "it makes one of them")
{
    n = smp_start();
    if (n < 2)
        SKIP("one CPU");
    apic_enable();
    trap_set_hook(V_NMI, count_nmi);
    trap_set_hook(VEC, on_ipi);
    round_here = round_there = 0;
    stop = false;
    smp_run(1, nmi_sender, NULL);
    sti();
    for (u32 i = 1; i <= ROUNDS; i++) {
        nmis = 0;
        hits[0] = 0;
        round_here = i;
        apic_ipi(cpus[0].apic_id, 0x400 | LOW);
        if (!WAIT_FOR(hits[0] == 1 && round_there == i, 20000) || nmis != 2) {
            test_failed(__LINE__, "round %u: %u NMIs", i, nmis);
            stop = true;
            round_here = ROUNDS;
            break;
        }
    }
    cli();
    CHECK(smp_wait(1));
}

static volatile u32 woken;
static void deaf_sleeper(void *arg)
{
    (void)arg;
    cli();
    __atomic_add_fetch(&listening, 1, __ATOMIC_SEQ_CST);
    __asm__ volatile("hlt" ::: "memory");
    woken = 1;
}

TEST(nmi__wakes_hlt_with_if_clear)
{
    n = smp_start();
    if (n < 2)
        SKIP("one CPU");
    trap_set_hook(V_NMI, on_ipi);
    trap_set_hook(VEC, on_ipi);
    hits[1] = 0;
    listening = woken = 0;
    smp_run(1, deaf_sleeper, NULL);
    CHECK(WAIT_FOR(listening == 1, 20000));
    delay(5 * TSC_MS);
    apic_ipi(cpus[1].apic_id, LOW | VEC); /* held back: IF is clear */
    delay(5 * TSC_MS);
    CHECK_EQ(woken, 0);
    CHECK_EQ(hits[1], 0);
    apic_ipi(cpus[1].apic_id, 0x400 | LOW);
    CHECK(WAIT_FOR(woken, 20000));
    CHECK_EQ(hits[1], 1);
    CHECK(smp_wait(1));
}

static void go_x2(void *arg)
{
    (void)arg;
    apic_x2();
}

static void go_x1(void *arg)
{
    (void)arg;
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) & ~0xc00ULL);
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0x800);
    apic_enable();
}

TEST(x2apic__destinations)
{
    if (!cpu_has(1, 0, 2, 21))
        SKIP("no x2APIC");
    n = smp_start();
    smp_run_all(go_x2, NULL);
    if (begin(listener)) {
        apic_ipi(cpus[n - 1].apic_id, LOW | VEC);
        expect(__LINE__, 1U << (n - 1), 1);
        hits[n - 1] = 0;
        apic_ipi(0xffffffff, LOW | VEC);
        expect(__LINE__, ALL, 1);
        for (unsigned i = 0; i < n; i++)
            hits[i] = 0;
        apic_ipi(0, 0xc0000 | LOW | VEC);
        expect(__LINE__, ALL & ~1U, 1);
        for (unsigned i = 0; i < n; i++)
            hits[i] = 0;
        {
            u32 id = cpus[n - 1].apic_id; /* logical: cluster and bit */
            apic_ipi((id >> 4) << 16 | 1U << (id & 15), 0x800 | LOW | VEC);
            expect(__LINE__, 1U << (n - 1), 1);
        }
    }
    hits[0] = 0;
    wrmsr(0x83f, VEC);
    CHECK(WAIT_FOR(hits[0] == 1, 5000));
    end();
    smp_run_all(go_x1, NULL);
}

/* The last test: that CPU is not coming back. */
static volatile u32 inits;
static void init_victim(void *arg)
{
    (void)arg;
    __atomic_add_fetch(&listening, 1, __ATOMIC_SEQ_CST);
    for (;;)
        inits++;
}

TEST(init__stops_a_cpu)
{
    u32 a;

    n = smp_start();
    if (n < 2)
        SKIP("one CPU");
    listening = 0;
    smp_run(n - 1, init_victim, NULL);
    CHECK(WAIT_FOR(listening == 1, 20000));
    apic_ipi(cpus[n - 1].apic_id, 0x4500);
    delay(20 * TSC_MS);
    a = inits;
    delay(20 * TSC_MS);
    CHECK_EQ(inits, a);
}
