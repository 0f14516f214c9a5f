/* SPDX-License-Identifier: Apache-2.0 */
/* The chipset is saved, made again and loaded, in states that its registers do not show. */
#include <errno.h>
#include <string.h>

#include "chipset.h"
#include "dev/chipset/acpi_pm.h"
#include "dev/chipset/irqchip.h"
#include "dev/chipset/lapic.h"
#include "dev/chipset/vmgenid.h"
#include "state_file.h"
#include "test.h"

#define NS_PER_S 1000000000ull

static struct chipset *c;
static struct machine *m;
static struct state_file *file;

static void start(unsigned ncpus)
{
    c = chipset_new(ncpus);
    m = c->m;
}

/* The machine goes, and comes back `later` ns afterwards. */
static void again(u64 later)
{
    unsigned ncpus = m->vm.nvcpus;

    file = state_save(m);
    chipset_free(c);
    start(ncpus);
    fake_advance(later);
    assert_int_equal(state_load(m, file), 0);
}

static u32 apic_read(unsigned cpu, u32 reg)
{
    return (u32)vcpu_mmio_read(&m->cpu[cpu].v, CHIPSET_APIC + reg, 4);
}

static void apic_write(unsigned cpu, u32 reg, u32 val)
{
    vcpu_mmio_write(&m->cpu[cpu].v, CHIPSET_APIC + reg, 4, val);
}

static int pending(unsigned cpu)
{
    return m->cpu[cpu].v.irq->pending(m->cpu[cpu].v.irq_opaque);
}

static int ack(unsigned cpu)
{
    return m->cpu[cpu].v.irq->ack(m->cpu[cpu].v.irq_opaque);
}

static int wr(unsigned cpu, u32 msr, u64 val)
{
    return vm_wrmsr(&m->cpu[cpu].v, msr, val);
}

static u64 rd(unsigned cpu, u32 msr)
{
    u64 val = 0;

    assert_int_equal(vm_rdmsr(&m->cpu[cpu].v, msr, &val), 0);
    return val;
}

static void io_write(u8 reg, u32 val)
{
    vm_mmio_write(&m->vm, CHIPSET_IOAPIC, 4, reg);
    vm_mmio_write(&m->vm, CHIPSET_IOAPIC + 0x10, 4, val);
}

static u32 io_read(u8 reg)
{
    vm_mmio_write(&m->vm, CHIPSET_IOAPIC, 4, reg);
    return (u32)vm_mmio_read(&m->vm, CHIPSET_IOAPIC + 0x10, 4);
}

static void enable_apics(void)
{
    for (unsigned i = 0; i < m->vm.nvcpus; i++) {
        apic_write(i, 0xf0, 0x1ff);
        apic_write(i, 0x350, 0x10000);
    }
}

/* ICW1 to ICW4 as a PC's software writes them; everything unmasked. */
static void program_pic(void)
{
    for (unsigned i = 0; i < 2; i++) {
        u16 port = i ? 0xa0 : 0x20;
        outb(m, port, 0x11);
        outb(m, (u16)(port + 1), i ? 0x28 : 0x20);
        outb(m, (u16)(port + 1), i ? 2 : 4);
        outb(m, (u16)(port + 1), 1);
        outb(m, (u16)(port + 1), 0);
    }
}

/* --- interrupt controllers -----------------------------------------------------------------------
 */

static void state__8259_in_service(void **state)
{
    (void)state;
    start(1);
    program_pic();
    outb(m, 0x4d1, 0x0e);
    outb(m, 0x64, 0xd3); /* the auxiliary port's buffer is full: interrupt 12 */
    outb(m, 0x60, 0x5a);
    outb(m, 0x64, 0x60);
    outb(m, 0x60, 0x03);
    assert_int_equal(pending(0), 256);
    outb(m, 0x20, 0x0b); /* ISR is what reads show */
    outb(m, 0x21, 0x80);
    again(0);
    assert_int_not_equal(fake_events(m, 0) & VCPU_EV_IRQ, 0);
    assert_int_equal(pending(0), 256);
    assert_int_equal(ack(0), 0x2c);
    assert_int_equal(pending(0), -1);
    assert_int_equal(inb(m, 0x20), 0x04);
    again(0); /* in service now */
    assert_int_equal(inb(m, 0x20), 0x04);
    assert_int_equal(inb(m, 0x21), 0x80);
    assert_int_equal(inb(m, 0x4d1), 0x0e);
    assert_int_equal(inb(m, 0x64) & 0x21, 0x21);
    assert_int_equal(inb(m, 0x60), 0x5a);
    outb(m, 0x64, 0xd3);
    outb(m, 0x60, 0x5b);
    assert_int_equal(pending(0), -1);
    outb(m, 0xa0, 0x20);
    outb(m, 0x20, 0x20);
    assert_int_equal(pending(0), 256);
    assert_int_equal(ack(0), 0x2c);
    chipset_free(c);
}

/* Half of an initialization. */
static void state__8259_expects_a_word(void **state)
{
    (void)state;
    start(1);
    outb(m, 0x20, 0x11);
    outb(m, 0x21, 0x40);
    again(0);
    outb(m, 0x21, 4);
    outb(m, 0x21, 1);
    outb(m, 0x21, 0xfd);
    outb(m, 0x64, 0x60);
    outb(m, 0x60, 0x01);
    outb(m, 0x64, 0xd2);
    outb(m, 0x60, 1);
    assert_int_equal(ack(0), 0x41);
    chipset_free(c);
}

static void state__level_until_eoi(void **state)
{
    (void)state;
    start(2);
    enable_apics();
    io_write(0x10 + 2 * 19, 0x8070); /* level, vector 70H, to APIC 1 */
    io_write(0x11 + 2 * 19, 1u << 24);
    vm_lock(&m->vm);
    pci_set_intx(&c->fn, true); /* slot 3, INTA */
    vm_unlock(&m->vm);
    assert_int_equal(pending(1), 0x70);
    again(0);
    assert_int_equal(io_read(0x10 + 2 * 19), 0xc070);
    assert_int_equal(pending(0), -1);
    assert_int_equal(ack(1), 0x70);
    again(0);
    assert_int_equal(pending(1), -1);
    assert_int_equal(apic_read(1, 0x130), 1u << 16);
    apic_write(1, 0xb0, 0); /* still asserted: comes again */
    assert_int_equal(ack(1), 0x70);
    vm_lock(&m->vm);
    pci_set_intx(&c->fn, false);
    vm_unlock(&m->vm);
    apic_write(1, 0xb0, 0);
    assert_int_equal(pending(1), -1);
    assert_int_equal(io_read(0x10 + 2 * 19), 0x8070);
    chipset_free(c);
}

static struct device *device(const char *name)
{
    for (struct device *d = m->vm.devices; d; d = d->next)
        if (!strcmp(d->ops->name, name))
            return d;
    fail_msg("no device %s", name);
    return NULL;
}

/* As an engine leaves it that tells of EOIs after they have happened. */
static void state__eoi_not_told(void **state)
{
    (void)state;
    start(1);
    enable_apics();
    io_write(0x10 + 2 * 19, 0x8070);
    vm_lock(&m->vm);
    pci_set_intx(&c->fn, true);
    vm_unlock(&m->vm);
    assert_int_equal(ack(0), 0x70);
    lapic_set_eoi(device("lapic"), NULL, NULL);
    apic_write(0, 0xb0, 0);
    assert_int_equal(pending(0), -1);
    again(0);
    assert_int_equal(io_read(0x10 + 2 * 19), 0xc070);
    device("lapic")->ops->loaded(device("lapic"));
    assert_int_equal(ack(0), 0x70);
    /* In service: nobody has ended this one. */
    again(0);
    device("lapic")->ops->loaded(device("lapic"));
    assert_int_equal(pending(0), -1);
    assert_int_equal(io_read(0x10 + 2 * 19), 0xc070);
    chipset_free(c);
}

static void state__lapic_registers(void **state)
{
    (void)state;
    start(2);
    enable_apics();
    apic_write(0, 0x80, 0x20);
    apic_write(0, 0xd0, 0x01000000);
    apic_write(0, 0xe0, 0x0fffffff);
    apic_write(0, 0x340, 0x10400);
    apic_write(0, 0x370, 0xfe);
    apic_write(0, 0x310, 0x01000000);
    apic_write(0, 0x300, 0x00004005); /* an illegal vector: an error is pending */
    apic_write(1, 0x80, 0xf0);
    apic_write(0, 0x300, 0x00004099);
    apic_write(0, 0x300, 0x00004612);             /* a SIPI nobody has taken yet */
    assert_int_equal(wr(1, 0x1b, 0xfee00c00), 0); /* x2APIC */
    again(0);
    assert_int_equal(apic_read(0, 0x80), 0x20);
    assert_int_equal(apic_read(0, 0xd0), 0x01000000);
    assert_int_equal(apic_read(0, 0xe0), 0x0fffffff);
    assert_int_equal(apic_read(0, 0xf0), 0x1ff);
    assert_int_equal(apic_read(0, 0x340), 0x10400);
    assert_int_equal(apic_read(0, 0x280), 0);
    apic_write(0, 0x280, 0);
    assert_int_equal(apic_read(0, 0x280), 0x20);
    assert_int_equal(apic_read(0, 0x300), 0x00004612);
    assert_int_equal(fake_events(m, 1) & (VCPU_EV_NMI | VCPU_EV_INIT | VCPU_EV_SIPI), VCPU_EV_SIPI);
    assert_int_equal(m->cpu[1].v.sipi_vector, 0x12);
    assert_int_equal(pending(0), 0xfe);
    assert_true(m->cpu[1].v.apic_page == VCPU_NO_APIC_PAGE);
    assert_int_equal(rd(1, 0x802), 1);
    assert_int_equal(rd(1, 0x808), 0xf0);
    assert_int_equal(rd(1, 0x824), 1u << 25);
    assert_int_equal(pending(1), -1);
    assert_int_equal(wr(1, 0x808, 0), 0);
    assert_int_equal(pending(1), 0x99);
    chipset_free(c);
}

static void state__lapic_timers(void **state)
{
    u32 left;

    (void)state;
    start(2);
    enable_apics();
    apic_write(0, 0x3e0, 0xb);
    apic_write(0, 0x320, 0x20050); /* periodic */
    apic_write(0, 0x380, 1000000);
    apic_write(1, 0x320, 0x40051); /* TSC deadline */
    assert_int_equal(wr(1, 0x6e0, vcpu_tsc(&m->cpu[1].v) + 4000000), 0);
    fake_advance(300000);
    left = apic_read(0, 0x390);
    assert_int_equal(left, 700000);
    again(12345678);
    assert_int_equal(apic_read(0, 0x390), left);
    assert_int_not_equal(rd(1, 0x6e0), 0);
    fake_advance(699999);
    assert_int_equal(pending(0), -1);
    fake_advance(1);
    assert_int_equal(ack(0), 0x50);
    apic_write(0, 0xb0, 0);
    fake_advance(999999);
    assert_int_equal(pending(1), -1);
    assert_int_equal(pending(0), -1);
    fake_advance(1);
    assert_int_equal(pending(0), 0x50);
    assert_int_equal(pending(1), 0x51);
    assert_int_equal(rd(1, 0x6e0), 0);
    chipset_free(c);
}

/* --- timers -------------------------------------------------------------------------------------
 */

static u16 pit_count(unsigned n)
{
    u8 low;

    outb(m, 0x43, (u8)(n << 6));
    low = inb(m, (u16)(0x40 + n));
    return (u16)(low | inb(m, (u16)(0x40 + n)) << 8);
}

static void state__pit(void **state)
{
    u16 count;

    (void)state;
    start(1);
    program_pic();
    outb(m, 0x21, 0xfe);
    outb(m, 0x61, 1);
    outb(m, 0x43, 0xb0); /* counter 2 counts once, is stopped half-way */
    outb(m, 0x42, 0x10);
    outb(m, 0x42, 0x27);
    outb(m, 0x43, 0x34); /* counter 0 is periodic: 10 ms */
    outb(m, 0x40, 0x9c);
    outb(m, 0x40, 0x2e);
    fake_advance(4000000);
    outb(m, 0x61, 2);
    assert_int_equal(ack(0), 0x20); /* its output was high before */
    outb(m, 0x20, 0x20);
    fake_advance(1000000);
    count = pit_count(2);
    assert_in_range(count, 5200, 5240);
    assert_in_range(pit_count(0), 5960, 5968);
    outb(m, 0x42, 0x34);               /* half of a new count */
    outb(m, 0x43, 0x40);               /* latched, not read yet */
    assert_int_equal(inb(m, 0x41), 0); /* half of it */
    again(77 * NS_PER_S);
    assert_in_range(pit_count(0), 5960, 5968);
    assert_int_equal(inb(m, 0x61) & 0x0f, 2);
    outb(m, 0x42, 0x12);
    assert_int_equal(pit_count(2), 0x1234);
    fake_advance(4990000);
    assert_int_equal(pending(0), -1);
    fake_advance(20000);
    assert_int_equal(pending(0), 256);
    assert_int_equal(ack(0), 0x20);
    outb(m, 0x20, 0x20);
    fake_advance(10000000);
    assert_int_equal(ack(0), 0x20);
    chipset_free(c);
}

static u8 cmos(u8 reg)
{
    outb(m, 0x70, reg);
    return inb(m, 0x71);
}

static void set_cmos(u8 reg, u8 val)
{
    outb(m, 0x70, reg);
    outb(m, 0x71, val);
}

static u32 hms(void)
{
    return (u32)(cmos(4) << 16 | cmos(2) << 8 | cmos(0));
}

/* FAKE_EPOCH_NS is 22:13:20, and the host's clock begins with 5 s. */
static void state__rtc_has_the_hosts_time(void **state)
{
    (void)state;
    start(1);
    assert_int_equal(hms(), 0x221325);
    set_cmos(0x40, 0x77);
    vm_pause(&m->vm); /* standing still is no setting */
    fake_advance(30 * NS_PER_S);
    vm_resume(&m->vm);
    assert_int_equal(hms(), 0x221325);
    outb(m, 0x70, 0x40);
    again(3600 * NS_PER_S);
    assert_int_equal(inb(m, 0x71), 0x77);
    assert_int_equal(hms(), 0x231325);
    fake_advance(2 * NS_PER_S);
    assert_int_equal(hms(), 0x231327);
    chipset_free(c);
}

static void state__rtc_keeps_an_offset(void **state)
{
    (void)state;
    start(1);
    set_cmos(4, 0x10); /* twelve hours and 13 minutes behind, in two ways */
    set_cmos(11, 0x82);
    set_cmos(2, 0x00);
    fake_advance(NS_PER_S / 2);
    set_cmos(11, 0x02);
    fake_advance(NS_PER_S * 3 / 4);
    assert_int_equal(hms(), 0x100025);
    again(60 * NS_PER_S); /* 22:14:25, or 10:01:24.5 */
    assert_int_equal(hms(), 0x100124);
    fake_advance(NS_PER_S / 2);
    assert_int_equal(hms(), 0x100125);
    set_cmos(11, 0x82); /* stopped while it is saved */
    again(500 * NS_PER_S);
    assert_int_equal(hms(), 0x100125);
    set_cmos(11, 0x02);
    fake_advance(NS_PER_S);
    assert_int_equal(hms(), 0x100126);
    chipset_free(c);
}

static void state__rtc_interrupts(void **state)
{
    (void)state;
    start(1);
    program_pic();
    set_cmos(1, 0x30); /* alarm at the next 30th second */
    set_cmos(3, 0xff);
    set_cmos(5, 0xff);
    set_cmos(11, 0x22);
    fake_advance(NS_PER_S / 4);
    again(100 * NS_PER_S); /* 22:15:05 */
    fake_advance(25 * NS_PER_S - 1);
    assert_int_equal(pending(0), -1);
    fake_advance(1);
    assert_int_equal(ack(0), 0x28 + 0);
    assert_int_equal(cmos(12), 0xb0 | 0x40);
    outb(m, 0xa0, 0x20);
    outb(m, 0x20, 0x20);
    set_cmos(10, 0x2f); /* 2 Hz */
    set_cmos(11, 0x42);
    fake_advance(NS_PER_S * 2 / 5);
    again(NS_PER_S);
    fake_advance(NS_PER_S / 10);
    assert_int_equal(pending(0), 256);
    assert_int_equal(cmos(12) & 0xc0, 0xc0);
    chipset_free(c);
}

static void state__pm(void **state)
{
    u32 count;

    (void)state;
    start(1);
    program_pic();
    vm_pio_write(&m->vm, 0x602, 2, 0x0101);
    vm_pio_write(&m->vm, 0x604, 2, 5 << 10);
    outb(m, 0x60d, 0x20);
    fake_advance(500 * NS_PER_S);
    count = vm_pio_read(&m->vm, 0x608, 4);
    again(9 * NS_PER_S);
    assert_int_equal(vm_pio_read(&m->vm, 0x608, 4), count);
    assert_int_equal(vm_pio_read(&m->vm, 0x602, 2), 0x0101);
    assert_int_equal(vm_pio_read(&m->vm, 0x604, 2), 5 << 10 | 1);
    assert_int_equal(pending(0), -1);
    fake_advance(100 * NS_PER_S); /* bit 31 changes at 600 s */
    assert_int_equal(pending(0), 256);
    vm_pio_write(&m->vm, 0x600, 2, 1);
    assert_int_equal(pending(0), -1);
    vm_lock(&m->vm);
    acpi_pm_raise_gpe(c->pm, 5);
    vm_unlock(&m->vm);
    again(0);
    assert_int_equal(vm_pio_read(&m->vm, 0x60c, 2), 0x2020);
    assert_int_equal(pending(0), 256);
    outb(m, 0x60c, 0x20);
    assert_int_equal(vm_pio_read(&m->vm, 0x60c, 2), 0x2000);
    assert_int_equal(pending(0), -1);
    chipset_free(c);
}

static u64 guest_time(u64 at, u64 tsc)
{
    u64 base, ns;
    u32 mul;
    s8 shift;

    memcpy(&base, m->ram + at + 8, 8);
    memcpy(&ns, m->ram + at + 16, 8);
    memcpy(&mul, m->ram + at + 24, 4);
    memcpy(&shift, m->ram + at + 28, 1);
    tsc = shift < 0 ? (tsc - base) >> -shift : (tsc - base) << shift;
    return ns + (u64)((unsigned __int128)tsc * mul >> 32);
}

static void state__pvclock(void **state)
{
    u64 tsc;

    (void)state;
    start(2);
    fake_advance(12345678);
    assert_int_equal(wr(0, 0x4b564d01, 0x5001), 0);
    assert_int_equal(wr(1, 0x4b564d01, 0x5041), 0);
    assert_int_equal(wr(0, 0x4b564d00, 0x5080), 0);
    again(55 * NS_PER_S);
    assert_int_equal(rd(0, 0x4b564d01), 0x5001);
    assert_int_equal(rd(1, 0x12), 0x5041);
    assert_int_equal(rd(1, 0x4b564d00), 0x5080);
    fake_advance(NS_PER_S);
    tsc = vcpu_tsc(&m->cpu[0].v);
    assert_int_equal(tsc, vcpu_tsc(&m->cpu[1].v));
    assert_in_range(guest_time(0x5000, tsc), vm_clock_ns(&m->vm) - 3, vm_clock_ns(&m->vm) + 3);
    assert_int_equal(wr(1, 0x4b564d01, 0x50c1), 0); /* a new one agrees with the old */
    assert_int_equal(guest_time(0x50c0, tsc), guest_time(0x5000, tsc));
    vm_pause(&m->vm);
    fake_advance(NS_PER_S);
    vm_resume(&m->vm);
    again(0); /* a machine that has stood still before */
    tsc = vcpu_tsc(&m->cpu[0].v);
    assert_int_equal(wr(1, 0x4b564d01, 0x50c1), 0);
    assert_int_equal(guest_time(0x50c0, tsc), guest_time(0x5000, tsc));
    chipset_free(c);
}

/* --- identity ----------------------------------------------------------------------------------
 */

static void state__a_copy_knows_that_it_is_one(void **state)
{
    u8 first[16], restored[16];

    (void)state;
    start(1);
    program_pic();
    outb(m, 0x60d, 0x20);
    memcpy(first, m->ram + CHIPSET_VMGENID, 16);
    again(0);
    assert_memory_equal(m->ram + CHIPSET_VMGENID, first, 16);
    m->watched_gpa = CHIPSET_VMGENID;
    for (unsigned i = 0; i < 2; i++) {
        memcpy(restored, m->ram + CHIPSET_VMGENID, 16);
        vm_lock(&m->vm);
        assert_int_equal(vmgenid_renew(c->vmgenid), 0);
        vm_unlock(&m->vm);
        assert_memory_not_equal(m->ram + CHIPSET_VMGENID, restored, 16);
        assert_int_equal(m->watched, i + 1); /* the engine knows */
        assert_int_equal(inb(m, 0x60c), 0x20);
        assert_int_equal(pending(0), 256);
        outb(m, 0x60c, 0x20);
        assert_int_equal(pending(0), -1);
    }
    vm_lock(&m->vm);
    assert_null(vmgenid_create(&m->vm, &(struct vmgenid_config){.at = FAKE_RAM_SIZE - 8}));
    vm_unlock(&m->vm);
    chipset_free(c);
}

/* --- ports -------------------------------------------------------------------------------------
 */

static void state__uart_receives(void **state)
{
    (void)state;
    start(1);
    program_pic();
    outb(m, 0x3fb, 0x80);
    outb(m, 0x3f8, 0x34);
    outb(m, 0x3f9, 0x12);
    outb(m, 0x3fb, 0x03);
    outb(m, 0x3fa, 0x41); /* FIFO, trigger level 4 */
    outb(m, 0x3fc, 0x0b);
    outb(m, 0x3f9, 0x01);
    outb(m, 0x3ff, 0xa5);
    c->in = "ab";
    vm_lock(&m->vm);
    c->com1.kick_input(&c->com1);
    vm_unlock(&m->vm);
    assert_int_equal(pending(0), -1);
    again(0);
    assert_int_equal(pending(0), -1);
    fake_advance(NS_PER_S * 2); /* four characters' time */
    assert_int_equal(pending(0), 256);
    again(0);
    assert_int_equal(ack(0), 0x24);
    assert_int_equal(inb(m, 0x3fa), 0xcc);
    assert_int_equal(inb(m, 0x3f8), 'a');
    c->in = "cdefghijklmnopqrstuvw"; /* what does not fit is offered again */
    vm_lock(&m->vm);
    c->com1.kick_input(&c->com1);
    vm_unlock(&m->vm);
    file = state_save(m);
    chipset_free(c);
    start(1);
    c->in = "xyz";
    assert_int_equal(state_load(m, file), 0);
    for (const char *p = "bcdefghijklmnopqxyz"; *p; p++)
        assert_int_equal(inb(m, 0x3f8), *p);
    assert_int_equal(inb(m, 0x3fd), 0x60);
    assert_int_equal(inb(m, 0x3ff), 0xa5);
    assert_int_equal(inb(m, 0x3fe), 0xb0);
    outb(m, 0x3fb, 0x83);
    assert_int_equal(inb(m, 0x3f8) | inb(m, 0x3f9) << 8, 0x1234);
    chipset_free(c);
}

/* A line the other end did not take; and what it took is not sent twice. */
static void state__uart_sends(void **state)
{
    (void)state;
    start(1);
    outb(m, 0x2fa, 0x01);
    c->room = 2;
    for (const char *p = "hello\n"; *p; p++) {
        outb(m, 0x2f8, (u8)*p);
        outb(m, 0x3f8, (u8)(*p == '\n' ? '!' : *p)); /* kept for a moment */
    }
    assert_int_equal(c->n_out[0], 0);
    assert_int_equal(inb(m, 0x2fd) & 0x20, 0);
    for (struct device *d = m->vm.devices; d; d = d->next)
        if (d->ops->drain)
            d->ops->drain(d);
    assert_memory_equal(c->out[0], "hello!", 6);
    assert_memory_equal(c->out[1], "he", 3);
    again(0); /* there is no room at first */
    assert_int_equal(c->n_out[1], 0);
    assert_int_equal(inb(m, 0x2fd) & 0x20, 0);
    fake_advance(NS_PER_S);
    assert_int_equal(c->n_out[0], 0);
    c->room = 10;
    vm_lock(&m->vm);
    c->com2.on_writable(c->com2.dev);
    vm_unlock(&m->vm);
    assert_memory_equal(c->out[1], "llo\n", 5);
    assert_int_equal(inb(m, 0x2fd) & 0x20, 0x20);
    chipset_free(c);
}

static void state__small_ports(void **state)
{
    (void)state;
    start(1);
    outb(m, 0x92, 0x40);
    outb(m, 0x80, 0x99);
    outb(m, 0x64, 0x65); /* the keyboard controller waits for a byte */
    again(0);
    assert_int_equal(inb(m, 0x92), 0x40);
    assert_int_equal(inb(m, 0x80), 0x99);
    outb(m, 0x60, 0x42);
    outb(m, 0x64, 0x25);
    assert_int_equal(inb(m, 0x60), 0x42);
    chipset_free(c);
}

/* --- what is refused -----------------------------------------------------------------------------
 */

static void state__pieces_and_other_versions(void **state)
{
    static const char *const names[] = {"acpi-pm",  "i8042", "ioapic", "irqchip", "lapic",
                                        "pci-host", "pic",   "pit",    "ports",   "pvclock",
                                        "pvpanic",  "rtc",   "uart",   "fn"};

    (void)state;
    start(2);
    c->in = "abc";
    vm_lock(&m->vm);
    c->com1.kick_input(&c->com1);
    vm_unlock(&m->vm);
    file = state_save(m);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        state_refuses_pieces(m, file, names[i]);
    assert_int_equal(state_load(m, file), 0);
    chipset_free(c);
    start(1); /* another number of vCPUs */
    assert_int_equal(state_load(m, file), -EINVAL);
    chipset_free(c);
}

static void state__bad_values(void **state)
{
    /* Bits flipped in the state of a machine nobody has used. */
    static const struct {
        const char *name;
        unsigned at;
        u8 flip;
    } wrong[] = {
        {"acpi-pm", 2, 0x02},          /* a status bit that is none */
        {"acpi-pm", 4, 0x02},          /* enable */
        {"acpi-pm", 6, 0x01},          /* SCI_EN */
        {"acpi-pm", 16, 0x01},         /* half periods yet to come */
        {"i8042", 2 + 32 + 3, 0x02},   /* a flag */
        {"ioapic", 2, 0x01},           /* id */
        {"ioapic", 2 + 4 + 1 + 3, 1},  /* a 25th line */
        {"ioapic", 2 + 9 + 1, 0x10},   /* delivery status of pin 0 */
        {"ioapic", 2 + 9 + 1, 0x40},   /* remote IRR of an edge */
        {"irqchip", 2, 1},             /* pin 0 has no users */
        {"irqchip", 2 + 4 * 4 + 1, 1}, /* pin 4 has one */
        {"lapic", 2, 2},               /* number of APICs */
        {"lapic", 9, 1},               /* base: reserved bit */
        {"lapic", 10, 1},              /* base: BSP */
        {"lapic", 10, 0x0c},           /* base: x2APIC without enable */
        {"lapic", 14, 1},              /* base: beyond the address width */
        {"lapic", 17, 1},              /* id */
        {"lapic", 22, 1},              /* TPR */
        {"lapic", 25, 1},              /* LDR */
        {"lapic", 29, 1},              /* DFR */
        {"lapic", 34, 4},              /* SVR */
        {"lapic", 45 + 1, 1},          /* timer LVT */
        {"lapic", 45 + 2, 6},          /* timer mode 3 */
        {"lapic", 69 + 1, 0x10},       /* ICR */
        {"lapic", 77, 1},              /* ISR: vector 0 */
        {"lapic", 81, 1},              /* IRR */
        {"lapic", 85, 1},              /* TMR */
        {"lapic", 173, 2},             /* ExtINT */
        {"lapic", 187, 4},             /* divider */
        {"pic", 2, 4},                 /* cascade input without a request */
        {"pic", 6, 1},                 /* ELCR of input 0 */
        {"pic", 7, 1},                 /* vector base */
        {"pic", 8, 8},                 /* lowest priority */
        {"pic", 9, 1},                 /* ICW 1 is never waited for */
        {"pic", 10, 2},                /* a flag */
        {"pit", 2, 4},                 /* mode 7 */
        {"pit", 3, 3},                 /* access 0 */
        {"pit", 5, 1},                 /* gate of counter 0 */
        {"pit", 8 + 2, 3},             /* count 3 * 65536 */
        {"pit", 12 + 2, 3},            /* next count */
        {"pit", 16 + 7, 1},            /* it begins in the future */
        {"pit", 24 + 7, 1},            /* ... or has been held for longer than time is */
        {"pit", 37, 4},                /* bytes latched */
        {"pit", 2 + 3 * 38, 0x80},     /* port 61H */
        {"ports", 2, 1},               /* a reset */
        {"pvclock", 2 + 20, 0x40},     /* shift */
        {"pvclock", 2 + 21, 1},        /* wall clock's address */
        {"pvclock", 2 + 29, 1},        /* vCPUs */
        {"pvclock", 2 + 30, 3},        /* an address */
        {"pvpanic", 2, 2},             /* a flag */
        {"rtc", 2, 1},                 /* another kind of time */
        {"rtc", 3 + 7, 1},             /* drift */
        {"rtc", 11 + 3, 0x80},         /* its fraction */
        {"rtc", 15 + 7, 0x80},         /* stopped before year 0 */
        {"rtc", 15 + 6, 0x80},         /* ... or after 9999 */
        {"rtc", 23, 0x80},             /* index */
        {"rtc", 24 + 10, 0x80},        /* register A: UIP */
        {"rtc", 24 + 12, 1},           /* register C */
        {"uart", 2, 0x10},             /* IER */
        {"uart", 3, 0x40},             /* FCR without FIFO */
        {"uart", 5, 0x20},             /* MCR */
        {"uart", 8, 0x20},             /* LSR */
        {"uart", 11, 2},               /* a flag */
        {"uart", 13, 2},               /* two bytes without FIFO */
        {"uart", 13 + 10, 0x60},       /* bytes to send */
    };

    (void)state;
    start(2);
    file = state_save(m);
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        size_t len;
        u8 *b = state_bytes(file, wrong[i].name, &len);
        assert_true(wrong[i].at < len);
        b[wrong[i].at] ^= wrong[i].flip;
        if (state_load_device(m, wrong[i].name, b, len) != -EINVAL)
            fail_msg("%s, byte %u, is taken", wrong[i].name, wrong[i].at);
        b[wrong[i].at] ^= wrong[i].flip;
    }
    assert_int_equal(state_load(m, file), 0);
    chipset_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state__8259_in_service),
        cmocka_unit_test(state__8259_expects_a_word),
        cmocka_unit_test(state__level_until_eoi),
        cmocka_unit_test(state__eoi_not_told),
        cmocka_unit_test(state__lapic_registers),
        cmocka_unit_test(state__lapic_timers),
        cmocka_unit_test(state__pit),
        cmocka_unit_test(state__rtc_has_the_hosts_time),
        cmocka_unit_test(state__rtc_keeps_an_offset),
        cmocka_unit_test(state__rtc_interrupts),
        cmocka_unit_test(state__pm),
        cmocka_unit_test(state__pvclock),
        cmocka_unit_test(state__a_copy_knows_that_it_is_one),
        cmocka_unit_test(state__uart_receives),
        cmocka_unit_test(state__uart_sends),
        cmocka_unit_test(state__small_ports),
        cmocka_unit_test(state__pieces_and_other_versions),
        cmocka_unit_test(state__bad_values),
    };
    return cmocka_run_group_tests_name("dev-state", tests, NULL, NULL);
}
