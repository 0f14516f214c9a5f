// SPDX-License-Identifier: Apache-2.0
/* Timers and the arrival of interrupts: local APIC timer, PIT, RTC, TSC; HLT, interrupt shadows,
 * task priority, NMI (SDM 3A 6.8, 10.5, 10.8). No test asks for speed, only for order and arrival.
 */
#include "x64.h"

#define VEC 0x60
#define VEC2 0x91

static volatile u32 hits[256];
static volatile u64 hit_rip;
static volatile unsigned order[16], norder;

static bool on_irq(struct regs *r)
{
    hits[r->vector]++;
    hit_rip = r->rip;
    if (norder < ARRAY_SIZE(order))
        order[norder++] = (unsigned)r->vector;
    apic_eoi();
    return true;
}

static void listen(unsigned vector)
{
    hits[vector] = 0;
    norder = 0;
    trap_set_hook(vector, on_irq);
}

static void quiet_pic(void)
{
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

static void start(void)
{
    cli();
    quiet_pic();
    apic_enable();
    apic_write(APIC_LVT_TIMER, 0x10000);
    apic_write(APIC_TDCR, 0xb); /* divide by 1 */
    listen(VEC);
    listen(VEC2);
}

static void self_ipi(unsigned vector)
{
    apic_ipi(0, 0x44000 | vector);
}

static bool requested(unsigned vector)
{
    return apic_read(APIC_IRR + 0x10 * (vector / 32)) >> vector % 32 & 1;
}

static bool in_service(unsigned vector)
{
    return apic_read(APIC_ISR + 0x10 * (vector / 32)) >> vector % 32 & 1;
}

/* Sends itself a vector with IF clear and waits until it is pending. */
static void make_pending(unsigned vector)
{
    self_ipi(vector);
    CHECK(WAIT_FOR(requested(vector), 2000));
}

TEST(lapic__one_shot)
{
    start();
    apic_write(APIC_LVT_TIMER, VEC);
    sti();
    apic_write(APIC_TMICT, 1000000);
    CHECK(WAIT_FOR(hits[VEC] == 1, 10000));
    CHECK_EQ(apic_read(APIC_TMCCT), 0);
    delay(20 * TSC_MS);
    CHECK_EQ(hits[VEC], 1);
}

TEST(lapic__periodic)
{
    u32 a;

    start();
    apic_write(APIC_LVT_TIMER, 0x20000 | VEC);
    sti();
    apic_write(APIC_TMICT, 3000000);
    CHECK(WAIT_FOR(hits[VEC] >= 20, 20000));
    apic_write(APIC_TMICT, 0); /* stops it */
    delay(5 * TSC_MS);
    a = hits[VEC];
    delay(50 * TSC_MS);
    CHECK_EQ(hits[VEC], a);
}

TEST(lapic__masked_timer_counts_but_is_silent)
{
    u32 a, b;

    start();
    apic_write(APIC_LVT_TIMER, 0x10000 | VEC);
    sti();
    apic_write(APIC_TMICT, 0xffffffff);
    a = apic_read(APIC_TMCCT);
    delay(2 * TSC_MS);
    b = apic_read(APIC_TMCCT);
    CHECK(b < a);
    apic_write(APIC_TMICT, 1000);
    delay(20 * TSC_MS);
    CHECK_EQ(hits[VEC], 0);
    CHECK_EQ(apic_read(APIC_LVT_TIMER) & 0x100ff, 0x10000 | VEC);
}

TEST(lapic__divider)
{
    u32 fast, slow;

    start();
    for (unsigned tries = 0;; tries++) { /* a noisy host may stop us between two reads */
        apic_write(APIC_TDCR, 0xb);
        apic_write(APIC_TMICT, 0xffffffff);
        delay(20 * TSC_MS);
        fast = 0xffffffff - apic_read(APIC_TMCCT);
        apic_write(APIC_TDCR, 0x3); /* by 16 */
        apic_write(APIC_TMICT, 0xffffffff);
        delay(20 * TSC_MS);
        slow = 0xffffffff - apic_read(APIC_TMCCT);
        apic_write(APIC_TMICT, 0);
        if ((fast / 24 < slow && slow < fast / 10) || tries == 10)
            break;
    }
    CHECK(fast / 24 < slow && slow < fast / 10);
}

TEST(lapic__tsc_deadline)
{
    start();
    if (!cpu_has(1, 0, 2, 24))
        SKIP("no TSC-deadline timer");
    apic_write(APIC_LVT_TIMER, 0x40000 | VEC);
    __asm__ volatile("mfence");
    sti();
    for (u32 i = 1; i <= 20; i++) {
        wrmsr(0x6e0, rdtsc() + 1000000);
        CHECK(WAIT_FOR(hits[VEC] == i, 10000));
        CHECK_EQ(rdmsr(0x6e0), 0);
    }
    wrmsr(0x6e0, 1); /* long past: at once */
    CHECK(WAIT_FOR(hits[VEC] == 21, 10000));
    wrmsr(0x6e0, rdtsc() + 20 * TSC_MS);
    wrmsr(0x6e0, 0); /* disarmed */
    delay(60 * TSC_MS);
    CHECK_EQ(hits[VEC], 21);
    apic_write(APIC_LVT_TIMER, 0x10000);
}

TEST(hlt__wakes_on_the_timer)
{
    start();
    apic_write(APIC_LVT_TIMER, VEC);
    for (u32 i = 1; i <= 30; i++) {
        cli();
        apic_write(APIC_TMICT, 200000);
        while (hits[VEC] < i) /* STI's shadow covers the HLT: no wake-up is lost */
            __asm__ volatile("sti; hlt; cli" ::: "memory");
        CHECK_EQ(hits[VEC], i);
    }
}

TEST(hlt__returns_after_the_instruction)
{
    u64 after;

    start();
    apic_write(APIC_LVT_TIMER, VEC);
    apic_write(APIC_TMICT, 3000000);
    __asm__ volatile("sti; hlt; 1: cli; lea 1b(%%rip), %0" : "=r"(after)::"memory");
    if (hits[VEC] == 1) /* the timer found us in HLT, not before */
        CHECK_EQ(hit_rip, after);
}

TEST(shadow__of_sti)
{
    u64 after;

    start();
    make_pending(VEC);
    __asm__ volatile("sti; cli" ::: "memory"); /* no window between */
    CHECK_EQ(hits[VEC], 0);
    __asm__ volatile("sti; nop; 1: nop; cli; lea 1b(%%rip), %0" : "=r"(after)::"memory");
    CHECK_EQ(hits[VEC], 1);
    CHECK_EQ(hit_rip, after); /* after the one instruction in the shadow */
}

TEST(shadow__not_when_if_was_set)
{
    u64 after;

    start();
    make_pending(VEC);
    /* POPF has no shadow */
    __asm__ volatile("pushfq; orl $0x200, (%%rsp); popfq; 1: nop; nop; cli; lea 1b(%%rip), %0"
                     : "=r"(after)::"memory", "cc");
    CHECK_EQ(hits[VEC], 1);
    CHECK_EQ(hit_rip, after);
}

TEST(shadow__of_iret)
{
    u64 after;

    start();
    make_pending(VEC);
    __asm__ volatile(
        "mov %%rsp, %%rax; push $0x10; push %%rax; push $0x202; push $8; lea 1f(%%rip), %%rax; "
        "push %%rax; iretq; 1: nop; cli; lea 1b(%%rip), %0"
        : "=r"(after)::"rax", "memory", "cc");
    CHECK_EQ(hits[VEC], 1);
    CHECK_EQ(hit_rip, after);
}

TEST(window__opens_again_and_again)
{
    start();
    for (u32 i = 1; i <= 2000; i++) {
        self_ipi(VEC);
        sti();
        if (!WAIT_FOR(hits[VEC] == i, 5000)) {
            test_failed(__LINE__, "IPI %u was lost", i);
            return;
        }
        cli();
    }
}

TEST(window__interrupts_a_loop_that_does_nothing)
{
    start();
    apic_write(APIC_LVT_TIMER, VEC);
    sti();
    apic_write(APIC_TMICT, 1000000);
    /* a loop of one jump, left by the handler's change of a register */
    __asm__ volatile("1: cmpl $0, %0; je 1b" ::"m"(hits[VEC]) : "memory", "cc");
    CHECK_EQ(hits[VEC], 1);
}

TEST(priority__higher_class_first)
{
    start();
    make_pending(VEC);
    make_pending(VEC2);
    sti();
    CHECK(WAIT_FOR(norder == 2, 2000));
    CHECK_EQ(order[0], VEC2);
    CHECK_EQ(order[1], VEC);
}

TEST(priority__task_priority_holds_back)
{
    start();
    WRITE_CR(8, VEC >> 4); /* the vector's own class is held back too */
    CHECK_EQ(apic_read(APIC_TPR), VEC & 0xf0);
    make_pending(VEC);
    sti();
    delay(TSC_MS);
    CHECK_EQ(hits[VEC], 0);
    self_ipi(VEC2);
    CHECK(WAIT_FOR(hits[VEC2] == 1, 2000));
    CHECK_EQ(hits[VEC], 0);
    WRITE_CR(8, 0);
    CHECK(WAIT_FOR(hits[VEC] == 1, 2000));
    apic_write(APIC_TPR, 0x50);
    CHECK_EQ(READ_CR(8), 5);
    apic_write(APIC_TPR, 0);
}

static volatile bool nested_ok, isr_ok;
static bool slow_irq(struct regs *r)
{
    /* with IF on inside, a lower or equal class waits, a higher one comes */
    isr_ok = in_service((unsigned)r->vector) && !requested((unsigned)r->vector);
    self_ipi(VEC2);
    self_ipi(VEC + 1);
    sti();
    nested_ok = WAIT_FOR(hits[VEC2] == 1, 2000);
    delay(TSC_MS);
    nested_ok &= hits[VEC + 1] == 0;
    cli();
    hits[r->vector]++;
    apic_eoi();
    return true;
}

TEST(priority__in_service_holds_back_its_class)
{
    start();
    listen(VEC + 1);
    trap_set_hook(VEC, slow_irq);
    nested_ok = isr_ok = false;
    self_ipi(VEC);
    sti();
    CHECK(WAIT_FOR(hits[VEC] == 1 && hits[VEC + 1] == 1, 5000));
    CHECK(nested_ok);
    CHECK(isr_ok);
    CHECK(!in_service(VEC));
}

static volatile unsigned nmis, nmi_depth, nmi_nested;
static bool on_nmi(struct regs *r)
{
    (void)r;
    nmi_depth++;
    if (nmi_depth > 1)
        nmi_nested++;
    if (++nmis == 1) {
        apic_ipi(apic_my_id(), 0x4400); /* blocked until IRET (SDM 3A 6.7.1) */
        delay(2 * TSC_MS);
        if (nmis != 1)
            nmi_nested++;
    }
    nmi_depth--;
    return true;
}

TEST(nmi__ignores_if_and_blocks_itself)
{
    start();
    trap_set_hook(V_NMI, on_nmi);
    nmis = nmi_depth = nmi_nested = 0;
    apic_ipi(apic_my_id(), 0x4400);
    CHECK(WAIT_FOR(nmis == 2, 5000));
    CHECK_EQ(nmi_nested, 0);
}

static void pit_rate(unsigned hz)
{
    unsigned n = 1193182 / hz;

    outb(0x43, 0x34);
    outb(0x40, (u8)n);
    outb(0x40, (u8)(n >> 8));
}

static void pit_stop(void)
{
    outb(0x43, 0x30); /* one-shot with no count: silent */
}

static void pic_init(void)
{
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, 0x20);
    outb(0xa1, 0x28);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    quiet_pic();
}

static bool on_pic(struct regs *r)
{
    hits[r->vector]++;
    if (r->vector == 0x28) {
        outb(0x70, 0x0c);
        (void)inb(0x71);
    }
    if (r->vector >= 0x28)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
    return true;
}

TEST(pit__through_the_pic)
{
    start();
    pic_init();
    hits[0x20] = 0;
    trap_set_hook(0x20, on_pic);
    apic_write(APIC_LVT_LINT0, 0x700); /* ExtINT */
    pit_rate(500);
    outb(0x21, 0xfe);
    sti();
    CHECK(WAIT_FOR(hits[0x20] >= 10, 20000));
    quiet_pic();
    pit_stop();
}

TEST(pit__halted_cpu_wakes)
{
    start();
    pic_init();
    hits[0x20] = 0;
    trap_set_hook(0x20, on_pic);
    apic_write(APIC_LVT_LINT0, 0x700);
    pit_rate(200);
    outb(0x21, 0xfe);
    while (hits[0x20] < 10)
        __asm__ volatile("sti; hlt; cli" ::: "memory");
    quiet_pic();
    pit_stop();
}

TEST(pit__counter_runs_down)
{
    unsigned a = 0, b = 0, changes = 0;

    outb(0x43, 0x34);
    outb(0x40, 0);
    outb(0x40, 0);
    for (unsigned i = 0; i < 200; i++) {
        outb(0x43, 0); /* latch counter 0 */
        a = inb(0x40);
        a |= (unsigned)inb(0x40) << 8;
        if (a != b)
            changes++;
        b = a;
        delay(TSC_MS / 100);
    }
    CHECK(changes > 10);
    pit_stop();
}

#define IOAPIC 0xfec00000UL
static u32 ioapic_read(u32 reg)
{
    *(volatile u32 *)IOAPIC = reg;
    return *(volatile u32 *)(IOAPIC + 0x10);
}
static void ioapic_write(u32 reg, u32 v)
{
    *(volatile u32 *)IOAPIC = reg;
    *(volatile u32 *)(IOAPIC + 0x10) = v;
}

TEST(pit__through_the_ioapic)
{
    start();
    CHECK(ioapic_read(1) >> 16 >= 23);
    /* IRQ 0 is wired to pin 2 on PCs (MADT override) */
    ioapic_write(0x10 + 2 * 2 + 1, apic_my_id() << 24);
    ioapic_write(0x10 + 2 * 2, VEC);
    pit_rate(500);
    sti();
    CHECK(WAIT_FOR(hits[VEC] >= 10, 20000));
    ioapic_write(0x10 + 2 * 2, 0x10000 | VEC); /* masked */
    delay(5 * TSC_MS);
    {
        u32 a = hits[VEC];
        delay(30 * TSC_MS);
        CHECK_EQ(hits[VEC], a);
    }
    pit_stop();
}

static u8 cmos(u8 reg)
{
    outb(0x70, reg);
    return inb(0x71);
}

TEST(rtc__periodic_interrupt)
{
    start();
    pic_init();
    hits[0x28] = 0;
    trap_set_hook(0x28, on_pic);
    apic_write(APIC_LVT_LINT0, 0x700);
    outb(0x70, 0x0a);
    outb(0x71, 0x29); /* 32768 Hz base, rate 9: 128 Hz */
    {
        u8 b = cmos(0x0b);
        outb(0x70, 0x0b);
        outb(0x71, b | 0x40);
    }
    (void)cmos(0x0c);
    outb(0x21, 0xfb);
    outb(0xa1, 0xfe);
    sti();
    CHECK(WAIT_FOR(hits[0x28] >= 10, 20000));
    {
        u8 b = cmos(0x0b);
        outb(0x70, 0x0b);
        outb(0x71, b & ~0x40);
    }
    (void)cmos(0x0c);
    quiet_pic();
}

TEST(tsc__never_goes_back)
{
    u64 last = rdtsc();

    start();
    apic_write(APIC_LVT_TIMER, 0x20000 | VEC);
    sti();
    apic_write(APIC_TMICT, 500000);
    for (unsigned i = 0; i < 200000; i++) {
        u64 now = rdtsc();
        if (now < last) {
            test_failed(__LINE__, "TSC went back");
            break;
        }
        last = now;
    }
    apic_write(APIC_TMICT, 0);
}

TEST(irq__registers_survive)
{
    u64 bad = 0;

    start();
    apic_write(APIC_LVT_TIMER, 0x20000 | VEC);
    sti();
    apic_write(APIC_TMICT, 100000);
    /* A busy host may be late with the first interrupt. */
    for (unsigned i = 0; i < 1000 && !bad && !hits[VEC]; i++)
        __asm__ volatile(
            "mov $0x1111, %%r8; mov $0x2222, %%r9; mov $0x3333, %%r10; mov $0x4444, %%r11\n"
            "mov $300000, %%ecx\n"
            "1: add $1, %%r8; add $2, %%r9; sub $1, %%r10; lea 3(%%r11), %%r11\n"
            "lea (%%r8, %%r9), %%rax; sub %%r8, %%rax; cmp %%rax, %%r9; jne 2f\n"
            "dec %%ecx; jnz 1b; jmp 3f\n"
            "2: mov $1, %0\n"
            "3: sub $(0x1111 + 300000), %%r8; jz 4f; mov $2, %0; 4:\n"
            "sub $(0x2222 + 600000), %%r9; jz 5f; mov $3, %0; 5:\n"
            : "+r"(bad)::"rax", "rcx", "r8", "r9", "r10", "r11", "cc", "memory");
    CHECK_EQ(bad, 0);
    apic_write(APIC_TMICT, 0);
    CHECK(hits[VEC] > 0);
}

TEST(lapic__x2apic_mode)
{
    u32 id, id2;

    start();
    id = apic_my_id();
    if (!apic_x2())
        SKIP("no x2APIC");
    id2 = apic_my_id();
    CHECK_EQ(id2, id);
    CHECK(apic_read(APIC_VERSION) != 0);
    CHECK_EQ(apic_read(APIC_LDR), (id >> 4) << 16 | 1U << (id & 15)); /* SDM 3A 10.12.10.2 */
    apic_write(APIC_LVT_TIMER, VEC);
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_TMICT, 100000);
    sti();
    CHECK(WAIT_FOR(hits[VEC] == 1, 10000));
    wrmsr(0x83f, VEC2); /* SELF IPI */
    CHECK(WAIT_FOR(hits[VEC2] == 1, 5000));
    cli();
    {
        struct trap t;
        TRY (&t)
            wrmsr(0x80b, 1); /* EOI takes only 0 */
        CHECK_EQ(t.vector, V_GP);
        TRY (&t)
            wrmsr(0x802, 1); /* the id is read-only */
        CHECK_EQ(t.vector, V_GP);
        TRY (&t)
            (void)rdmsr(0x80e); /* no DFR here */
        CHECK_EQ(t.vector, V_GP);
        TRY (&t) /* x2APIC to xAPIC directly is refused */
            wrmsr(MSR_APIC_BASE, (rdmsr(MSR_APIC_BASE) & ~0x400ULL) | 0x800);
        CHECK_EQ(t.vector, V_GP);
    }
    /* back to xAPIC through disabled, for the tests to come */
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) & ~0xc00ULL);
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0x800);
    apic_enable();
    CHECK_EQ(apic_my_id(), id);
}
