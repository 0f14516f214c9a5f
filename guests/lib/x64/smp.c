// SPDX-License-Identifier: Apache-2.0
/* Local APIC, delays and the other processors. */
#include "x64.h"

#define APIC_MMIO 0xfee00000UL
#define X2APIC_MSR 0x800

extern char ap_start16[];

void smp_idle(struct cpu *c);

bool apic_is_x2(void)
{
    return rdmsr(MSR_APIC_BASE) >> 10 & 1;
}

u32 apic_read(u32 reg)
{
    if (apic_is_x2())
        return (u32)rdmsr(X2APIC_MSR + (reg >> 4));
    return *(volatile u32 *)(APIC_MMIO + reg);
}

void apic_write(u32 reg, u32 v)
{
    if (apic_is_x2())
        wrmsr(X2APIC_MSR + (reg >> 4), v);
    else
        *(volatile u32 *)(APIC_MMIO + reg) = v;
}

u32 apic_my_id(void)
{
    u32 id = apic_read(APIC_ID);
    return apic_is_x2() ? id : id >> 24;
}

void apic_enable(void)
{
    u64 base = rdmsr(MSR_APIC_BASE);

    if (!(base & 0x800))
        wrmsr(MSR_APIC_BASE, base | 0x800);
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_TPR, 0);
}

bool apic_x2(void)
{
    if (!cpu_has(1, 0, 2, 21))
        return false;
    apic_enable();
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
    apic_enable();
    return true;
}

void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

void apic_ipi(u32 dest, u32 low)
{
    if (apic_is_x2()) {
        wrmsr(X2APIC_MSR + (APIC_ICR >> 4), (u64)dest << 32 | low);
        return;
    }
    apic_write(APIC_ICR + 0x10, dest << 24);
    apic_write(APIC_ICR, low);
    WAIT_FOR(!(apic_read(APIC_ICR) & 0x1000), 1000);
}

void delay(u64 tsc_ticks)
{
    u64 end = rdtsc() + tsc_ticks;
    while (rdtsc() < end)
        pause();
}

/* Enabled processors in the MADT; 0 when there is none. */
static unsigned madt_cpus(void)
{
    const u8 *t = acpi_find("APIC");
    unsigned n = 0;
    u32 len;

    if (!t)
        return 0;
    len = *(const u32 *)(t + 4);
    for (u32 at = 44; at + 2 <= len && t[at + 1] >= 2; at += t[at + 1]) {
        if (t[at] == 0 && *(const u32 *)(t + at + 4) & 1)
            n++;
        if (t[at] == 9 && *(const u32 *)(t + at + 8) & 1)
            n++;
    }
    return n;
}

unsigned smp_start(void)
{
    static unsigned ncpus;
    unsigned want = madt_cpus();

    if (ncpus)
        return ncpus;
    cpus[0].apic_id = apic_my_id();
    ncpus = 1;
    if (want == 1)
        return 1;
    apic_enable();
    /* SDM 3A 9.4.4.1: INIT, 10 ms, SIPI, 200 us, SIPI */
    apic_ipi(0, 0xc4500);
    delay(10 * TSC_MS);
    apic_ipi(0, 0xc4600 | (u32)((uptr)ap_start16 >> 12));
    delay(TSC_MS);
    apic_ipi(0, 0xc4600 | (u32)((uptr)ap_start16 >> 12));
    /* With a MADT the number is known; without one whoever comes within two seconds counts. */
    if (want)
        WAIT_FOR(cpu_tickets >= want, 20000);
    else
        delay(2000 * TSC_MS);
    for (unsigned i = 1; i < cpu_tickets && i < MAX_CPUS; i++)
        if (WAIT_FOR(cpus[i].up, 10000))
            ncpus++;
    if (want && ncpus != want)
        test_failed(__LINE__, "%u of %u processors started", ncpus, want);
    return ncpus;
}

void smp_idle(struct cpu *c)
{
    apic_enable();
    c->apic_id = apic_my_id();
    c->up = 1;
    for (;;) {
        while (!c->work)
            pause();
        BARRIER();
        c->work(c->arg);
        BARRIER();
        c->work = NULL;
    }
}

void smp_run(unsigned cpu, void (*fn)(void *), void *arg)
{
    cpus[cpu].arg = arg;
    BARRIER();
    cpus[cpu].work = fn;
}

bool smp_wait(unsigned cpu)
{
    return WAIT_FOR(!cpus[cpu].work, 60000);
}

void smp_run_all(void (*fn)(void *), void *arg)
{
    unsigned n = smp_start();

    for (unsigned i = 1; i < n; i++)
        smp_run(i, fn, arg);
    fn(arg);
    for (unsigned i = 1; i < n; i++)
        if (!smp_wait(i))
            test_error("cpu %u did not finish", i);
}
