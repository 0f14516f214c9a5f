/* SPDX-License-Identifier: Apache-2.0 */
/* 8259 pair, local APICs and I/O APIC, alone and wired as on a PC. */
#include "dev/chipset/ioapic.h"
#include "dev/chipset/irqchip.h"
#include "dev/chipset/lapic.h"
#include "dev/chipset/pic.h"
#include "fake_host.h"
#include "test.h"

#define APIC 0xfee00000ull

/* --- the 8259 pair
 * -------------------------------------------------------------------------------- */

static struct machine *m;
static struct device *pic;
static struct probe intr;

static void pic_start(void)
{
    struct pic_config cfg = {.intr = probe_line(&intr)};

    m = machine_new(1);
    intr = (struct probe){0};
    pic = pic_create(&m->vm, &cfg);
    assert_non_null(pic);
}

/* ICW1..ICW4 as a PC's software writes them; everything unmasked. */
static void pic_program(u8 icw4)
{
    outb(m, 0x20, 0x11);
    outb(m, 0x21, 0x20);
    outb(m, 0x21, 0x04);
    outb(m, 0x21, icw4);
    outb(m, 0xa0, 0x11);
    outb(m, 0xa1, 0x28);
    outb(m, 0xa1, 0x02);
    outb(m, 0xa1, icw4);
    outb(m, 0x21, 0);
    outb(m, 0xa1, 0);
}

static void line(unsigned n, bool level)
{
    struct irq_line l = pic_line(pic, n);
    irq_set(&l, level);
}

static void pulse(unsigned n)
{
    line(n, false);
    line(n, true);
}

static void pic__serves_by_priority(void **state)
{
    (void)state;
    pic_start();
    pic_program(0x01);
    pulse(4);
    pulse(3);
    assert_true(intr.level);
    assert_int_equal(pic_ack(pic), 0x23);
    assert_false(intr.level); /* 4 is below 3, which is in service */
    pulse(1);
    assert_true(intr.level);
    assert_int_equal(pic_ack(pic), 0x21);
    outb(m, 0x20, 0x0b); /* read ISR */
    assert_int_equal(inb(m, 0x20), 0x0a);
    outb(m, 0x20, 0x20); /* ends 1 */
    assert_false(intr.level);
    outb(m, 0x20, 0x63); /* ends 3 */
    assert_true(intr.level);
    outb(m, 0x20, 0x0a); /* read IRR */
    assert_int_equal(inb(m, 0x20), 0x10);
    assert_int_equal(pic_ack(pic), 0x24);
    machine_free(m);
}

static void pic__cascades(void **state)
{
    (void)state;
    pic_start();
    pic_program(0x01);
    pulse(12);
    pulse(5);
    assert_int_equal(pic_ack(pic), 0x2c); /* input 2 is above 5 */
    outb(m, 0xa0, 0x0b);
    assert_int_equal(inb(m, 0xa0), 0x10);
    pulse(9); /* above 12 on its chip, but the master's input 2 is in service */
    assert_false(intr.level);
    outb(m, 0xa0, 0x20);
    outb(m, 0x20, 0x20);
    assert_int_equal(pic_ack(pic), 0x29);
    machine_free(m);
}

static void pic__edge_is_once_level_again(void **state)
{
    (void)state;
    pic_start();
    outb(m, 0x4d0, 0xff);
    outb(m, 0x4d1, 0xff);
    assert_int_equal(inb(m, 0x4d0), 0xf8); /* 0, 1, 2 are always edges */
    assert_int_equal(inb(m, 0x4d1), 0xde);
    outb(m, 0x4d0, 0x20);
    outb(m, 0x4d1, 0);
    pic_program(0x01);
    line(4, true);
    assert_int_equal(pic_ack(pic), 0x24);
    outb(m, 0x20, 0x20);
    assert_false(intr.level);
    line(5, true);
    assert_int_equal(pic_ack(pic), 0x25);
    outb(m, 0x20, 0x20);
    assert_true(intr.level);
    line(5, false);
    assert_false(intr.level);
    machine_free(m);
}

static void pic__spurious_has_no_service(void **state)
{
    (void)state;
    pic_start();
    pic_program(0x01);
    line(3, true);
    assert_true(intr.level);
    line(3, false);
    assert_int_equal(pic_ack(pic), 0x27);
    outb(m, 0x20, 0x0b);
    assert_int_equal(inb(m, 0x20), 0);
    machine_free(m);
}

static void pic__poll_aeoi_masks(void **state)
{
    (void)state;
    pic_start();
    pic_program(0x03); /* automatic EOI */
    pulse(3);
    assert_int_equal(pic_ack(pic), 0x23);
    pulse(4);
    assert_true(intr.level);
    assert_int_equal(pic_ack(pic), 0x24);

    pic_program(0x01);
    pulse(6);
    outb(m, 0x20, 0x0c); /* poll */
    assert_int_equal(inb(m, 0x20), 0x86);
    outb(m, 0x20, 0x0c);
    assert_int_equal(inb(m, 0x20), 0x00);
    outb(m, 0x20, 0x20);

    /* Special mask mode lets lower ones through while 1 is in service and masked. */
    pulse(1);
    assert_int_equal(pic_ack(pic), 0x21);
    pulse(5);
    assert_false(intr.level);
    outb(m, 0x21, 0x02);
    outb(m, 0x20, 0x68);
    assert_true(intr.level);
    assert_int_equal(pic_ack(pic), 0x25);

    /* Rotation: after serving 4, 4 is the lowest. */
    pic_program(0x01);
    pulse(4);
    assert_int_equal(pic_ack(pic), 0x24);
    outb(m, 0x20, 0xa0);
    pulse(4);
    pulse(5);
    assert_int_equal(pic_ack(pic), 0x25);
    machine_free(m);
}

/* --- the local APIC
 * ------------------------------------------------------------------------------- */

static struct device *chip;

static void chip_start(unsigned ncpus)
{
    m = machine_new(ncpus);
    chip = irqchip_create(&m->vm);
    assert_non_null(chip);
}

static u32 apic_read(unsigned cpu, u32 reg)
{
    return (u32)vcpu_mmio_read(&m->cpu[cpu].v, APIC + reg, 4);
}

static void apic_write(unsigned cpu, u32 reg, u32 val)
{
    vcpu_mmio_write(&m->cpu[cpu].v, APIC + reg, 4, val);
}

static int pending(unsigned cpu)
{
    struct vcpu *v = &m->cpu[cpu].v;
    return v->irq->pending(v->irq_opaque);
}

static int ack(unsigned cpu)
{
    struct vcpu *v = &m->cpu[cpu].v;
    return v->irq->ack(v->irq_opaque);
}

static void enable(unsigned ncpus)
{
    for (unsigned i = 0; i < ncpus; i++) {
        apic_write(i, 0xf0, 0x1ff);
        apic_write(i, 0x350, 0x10000);
        fake_events(m, i);
    }
}

static void ipi(unsigned cpu, u32 dest, u32 low)
{
    apic_write(cpu, 0x310, dest << 24);
    apic_write(cpu, 0x300, low);
}

static void lapic__power_on(void **state)
{
    u64 val;

    (void)state;
    chip_start(2);
    assert_int_equal(apic_read(1, 0x20), 1 << 24);
    assert_int_equal(apic_read(0, 0x30) & 0xff, 0x14);
    assert_int_equal(apic_read(0, 0xf0), 0xff);
    assert_int_equal(apic_read(0, 0xe0), 0xffffffff);
    assert_int_equal(apic_read(1, 0x350), 0x10000);
    assert_int_equal(vm_rdmsr(&m->cpu[0].v, 0x1b, &val), 0);
    assert_int_equal(val, 0xfee00900);
    assert_int_equal(vm_rdmsr(&m->cpu[1].v, 0x1b, &val), 0);
    assert_int_equal(val, 0xfee00800);
    /* Software-disabled: nothing arrives, masks stay. */
    ipi(1, 0, 0x4040);
    assert_int_equal(pending(0), -1);
    apic_write(1, 0x320, 0x40);
    assert_int_equal(apic_read(1, 0x320), 0x10040);
    machine_free(m);
}

static void lapic__priorities(void **state)
{
    (void)state;
    chip_start(1);
    enable(1);
    ipi(0, 0, 0x4041);
    ipi(0, 0, 0x4062);
    ipi(0, 0, 0x4063);
    assert_true(fake_events(m, 0) & VCPU_EV_IRQ);
    assert_int_equal(apic_read(0, 0x220), 0x2);
    assert_int_equal(pending(0), 0x63);
    assert_int_equal(ack(0), 0x63);
    assert_int_equal(apic_read(0, 0xa0), 0x60);
    assert_int_equal(pending(0), -1); /* 62H is in the class in service */
    ipi(0, 0, 0x4070);
    assert_int_equal(ack(0), 0x70);
    fake_events(m, 0);
    apic_write(0, 0xb0, 0); /* ends 70H */
    assert_int_equal(pending(0), -1);
    apic_write(0, 0xb0, 0); /* ends 63H */
    assert_true(fake_events(m, 0) & VCPU_EV_IRQ);
    assert_int_equal(pending(0), 0x62);
    apic_write(0, 0x80, 0x65); /* TPR blocks class 6 */
    assert_int_equal(pending(0), -1);
    assert_int_equal(apic_read(0, 0xa0), 0x65);
    assert_int_equal(m->cpu[0].v.irq->get_tpr(m->cpu[0].v.irq_opaque), 6);
    m->cpu[0].v.irq->set_tpr(m->cpu[0].v.irq_opaque, 5);
    assert_true(fake_events(m, 0) & VCPU_EV_IRQ);
    assert_int_equal(ack(0), 0x62);
    apic_write(0, 0xb0, 0);
    apic_write(0, 0x80, 0);
    assert_int_equal(ack(0), 0x41);
    apic_write(0, 0xb0, 0);
    apic_write(0, 0xb0, 0); /* one too many */
    assert_int_equal(ack(0), -1);
    machine_free(m);
}

static unsigned who(u8 vector)
{
    unsigned set = 0;

    for (unsigned i = 0; i < m->vm.nvcpus; i++) {
        if (pending(i) != vector)
            continue;
        set |= 1u << i;
        ack(i);
        apic_write(i, 0xb0, 0);
    }
    return set;
}

static void lapic__destinations(void **state)
{
    (void)state;
    chip_start(4);
    enable(4);
    ipi(1, 2, 0x4050);
    assert_int_equal(who(0x50), 0x4);
    ipi(1, 0xff, 0x4050);
    assert_int_equal(who(0x50), 0xf);
    ipi(1, 0, 0x44050); /* self */
    assert_int_equal(who(0x50), 0x2);
    ipi(1, 0, 0x84050); /* all */
    assert_int_equal(who(0x50), 0xf);
    ipi(1, 0, 0xc4050); /* all but self */
    assert_int_equal(who(0x50), 0xd);
    ipi(1, 9, 0x4050); /* nobody */
    assert_int_equal(who(0x50), 0);

    /* Flat logical */
    for (unsigned i = 0; i < 4; i++)
        apic_write(i, 0xd0, 0x01000000u << i);
    ipi(0, 0x0a, 0x4850);
    assert_int_equal(who(0x50), 0xa);
    /* Cluster: two clusters of two */
    for (unsigned i = 0; i < 4; i++) {
        apic_write(i, 0xe0, 0x0fffffff);
        apic_write(i, 0xd0, (i / 2) << 28 | (1u << i % 2) << 24);
    }
    ipi(0, 0x13, 0x4850);
    assert_int_equal(who(0x50), 0xc);
    ipi(0, 0x02, 0x4850);
    assert_int_equal(who(0x50), 0x2);
    /* Lowest priority: exactly one, taking turns */
    unsigned all = 0;
    for (unsigned i = 0; i < 8; i++) {
        ipi(0, 0x13, 0x4950);
        unsigned one = who(0x50);
        assert_int_equal(__builtin_popcount(one), 1);
        all |= one;
    }
    assert_int_equal(all, 0xc);
    machine_free(m);
}

static void lapic__special_messages(void **state)
{
    (void)state;
    chip_start(3);
    enable(3);
    ipi(0, 1, 0x4400);
    assert_int_equal(fake_events(m, 1), VCPU_EV_NMI);
    for (unsigned i = 0; i < 3; i++)
        ipi(0, 1, 0x4400);
    assert_int_equal(vcpu_nmis(fake_events(m, 1)), 2);
    ipi(0, 1, 0x469a);
    ipi(0, 1, 0xc500); /* INIT, asserted: the SIPI before it is gone */
    assert_int_equal(fake_events(m, 1), VCPU_EV_INIT);
    ipi(0, 1, 0x8500); /* INIT, de-asserted */
    assert_int_equal(fake_events(m, 1), 0);
    ipi(0, 1, 0x469a);
    assert_int_equal(fake_events(m, 1), VCPU_EV_SIPI);
    assert_int_equal(m->cpu[1].v.sipi_vector, 0x9a);
    ipi(0, 0, 0xc4500);
    assert_int_equal(fake_events(m, 0), 0);
    assert_int_equal(fake_events(m, 1), VCPU_EV_INIT);
    assert_int_equal(fake_events(m, 2), VCPU_EV_INIT);

    /* Illegal vectors: errors, and the error interrupt. */
    apic_write(0, 0x370, 0xfe);
    ipi(0, 1, 0x4003);
    assert_int_equal(pending(1), -1);
    assert_int_equal(pending(0), 0xfe);
    assert_int_equal(apic_read(0, 0x280), 0);
    apic_write(0, 0x280, 0);
    assert_int_equal(apic_read(0, 0x280), 0x20);
    apic_write(0, 0x280, 0);
    assert_int_equal(apic_read(0, 0x280), 0);
    machine_free(m);
}

static int wr(unsigned cpu, u32 msr, u64 val)
{
    return vm_wrmsr(&m->cpu[cpu].v, msr, val);
}

static u64 rd(unsigned cpu, u32 msr)
{
    u64 val = 0xdead;
    assert_int_equal(vm_rdmsr(&m->cpu[cpu].v, msr, &val), 0);
    return val;
}

static void lapic__x2apic(void **state)
{
    u64 val;

    (void)state;
    chip_start(3);
    enable(3);
    assert_int_equal(vm_rdmsr(&m->cpu[0].v, 0x802, &val), -1);
    assert_int_equal(wr(0, 0x1b, 0xfee00500), -1); /* EXTD without EN */
    assert_int_equal(wr(0, 0x1b, 0xfee00a00), -1); /* reserved bit 9 */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(wr(i, 0x1b, 0xfee00c00), 0);
    assert_int_equal(rd(0, 0x1b), 0xfee00d00); /* BSP stays */
    assert_int_equal(wr(0, 0x1b, 0xfee00800), -1);
    assert_int_equal(apic_read(1, 0x20), 0xffffffff); /* the page is gone */
    assert_int_equal(rd(1, 0x802), 1);
    assert_int_equal(rd(2, 0x80d), 0x4);
    assert_int_equal(vm_rdmsr(&m->cpu[0].v, 0x80e, &val), -1); /* no DFR */
    assert_int_equal(vm_rdmsr(&m->cpu[0].v, 0x80b, &val), -1);
    assert_int_equal(wr(0, 0x802, 1), -1);
    assert_int_equal(wr(0, 0x80b, 1), -1);
    assert_int_equal(wr(0, 0x808, 0x100), -1);
    assert_int_equal(wr(0, 0x828, 1), -1);
    assert_int_equal(wr(0, 0x80f, 0x1000), -1);
    assert_int_equal(wr(0, 0x8ff, 0), -1);

    assert_int_equal(wr(0, 0x830, 2ull << 32 | 0x4051), 0);
    assert_int_equal(ack(2), 0x51);
    assert_int_equal(pending(0), -1);
    assert_int_equal(wr(2, 0x80b, 0), 0);
    assert_int_equal(wr(0, 0x830, 0x6ull << 32 | 0x4852), 0); /* logical: 1 and 2 */
    assert_int_equal(ack(1), 0x52);
    assert_int_equal(ack(2), 0x52);
    assert_int_equal(pending(0), -1);
    assert_int_equal(wr(0, 0x830, 0xffffffffull << 32 | 0x4063), 0);
    assert_int_equal(ack(0), 0x63);
    assert_int_equal(ack(1), 0x63);
    assert_int_equal(wr(0, 0x80b, 0), 0);
    assert_int_equal(wr(0, 0x83f, 0x71), 0);
    assert_int_equal(ack(0), 0x71);
    assert_int_equal(rd(0, 0x813), 1u << 17);

    /* Disabled and on again: reset, in xAPIC mode. */
    assert_int_equal(wr(0, 0x1b, 0xfee00000), 0);
    assert_false(m->cpu[0].v.irq->enabled(m->cpu[0].v.irq_opaque));
    assert_int_equal(wr(0, 0x1b, 0xfee00c00), -1);
    assert_int_equal(wr(0, 0x1b, 0xfee00800), 0);
    assert_int_equal(apic_read(0, 0x130), 0);
    machine_free(m);
}

static void lapic__moves_its_page(void **state)
{
    (void)state;
    chip_start(1);
    assert_int_equal(wr(0, 0x1b, 0xd0000800), 0);
    assert_int_equal(apic_read(0, 0x30), 0xffffffff);
    assert_int_equal(vcpu_mmio_read(&m->cpu[0].v, 0xd0000030, 4) & 0xff, 0x14);
    assert_int_equal(vcpu_mmio_read(&m->cpu[0].v, 0xd0000032, 1), 5);
    assert_int_equal(wr(0, 0x1b, (1ull << 40) | 0x800), -1); /* beyond MAXPHYADDR */
    machine_free(m);
}

static void lapic__timer(void **state)
{
    (void)state;
    chip_start(1);
    enable(1);
    apic_write(0, 0x3e0, 0x3); /* divide by 16 */
    apic_write(0, 0x320, 0x40);
    apic_write(0, 0x380, 1000);
    fake_advance(8000);
    assert_int_equal(apic_read(0, 0x390), 500);
    assert_int_equal(pending(0), -1);
    fake_advance(8000);
    assert_int_equal(apic_read(0, 0x390), 0);
    assert_int_equal(ack(0), 0x40);
    apic_write(0, 0xb0, 0);
    fake_advance(100000);
    assert_int_equal(pending(0), -1); /* one shot */

    apic_write(0, 0x3e0, 0xb); /* divide by 1 */
    apic_write(0, 0x320, 0x20041);
    apic_write(0, 0x380, 1000000);
    for (unsigned i = 0; i < 5; i++) {
        fake_advance(1000000);
        assert_int_equal(ack(0), 0x41);
        apic_write(0, 0xb0, 0);
    }
    apic_write(0, 0x320, 0x30041); /* masked: counts on */
    fake_advance(1500000);
    assert_int_equal(pending(0), -1);
    assert_int_equal(apic_read(0, 0x390), 500000);
    apic_write(0, 0x380, 0);
    assert_int_equal(apic_read(0, 0x390), 0);

    /* TSC deadline: two ticks a nanosecond */
    assert_int_equal(wr(0, 0x6e0, 12345), 0);
    assert_int_equal(rd(0, 0x6e0), 0); /* not in this mode */
    apic_write(0, 0x320, 0x40042);
    apic_write(0, 0x380, 1000);
    assert_int_equal(apic_read(0, 0x380), 0);
    u64 tsc = vcpu_tsc(&m->cpu[0].v);
    assert_int_equal(wr(0, 0x6e0, tsc + 20000), 0);
    assert_int_equal(rd(0, 0x6e0), tsc + 20000);
    fake_advance(9999);
    assert_int_equal(pending(0), -1);
    fake_advance(1);
    assert_int_equal(ack(0), 0x42);
    assert_int_equal(rd(0, 0x6e0), 0);
    apic_write(0, 0xb0, 0);
    assert_int_equal(wr(0, 0x6e0, 1), 0); /* in the past: at once */
    assert_int_equal(ack(0), 0x42);
    apic_write(0, 0xb0, 0);
    assert_int_equal(wr(0, 0x6e0, ~(u64)0), 0); /* as good as never */
    fake_advance(1000000000);
    assert_int_equal(pending(0), -1);
    assert_int_equal(wr(0, 0x6e0, tsc + 100000000000), 0);
    assert_int_equal(wr(0, 0x6e0, 0), 0);
    fake_advance(100000000000);
    assert_int_equal(pending(0), -1);
    machine_free(m);
}

static void lapic__init_resets(void **state)
{
    struct vcpu *v;

    (void)state;
    chip_start(2);
    enable(2);
    v = &m->cpu[1].v;
    apic_write(1, 0x320, 0x20041);
    apic_write(1, 0x380, 100000);
    apic_write(1, 0x80, 0x20);
    ipi(0, 1, 0x4055);
    v->irq->init(v->irq_opaque);
    assert_int_equal(pending(1), -1);
    assert_int_equal(apic_read(1, 0xf0), 0xff);
    assert_int_equal(apic_read(1, 0x80), 0);
    assert_int_equal(apic_read(1, 0x250), 0);
    fake_advance(1000000);
    assert_int_equal(pending(1), -1);
    machine_free(m);
}

/* --- the I/O APIC and the wiring
 * ------------------------------------------------------------------------ */

static void io_write(u8 reg, u32 val)
{
    vm_mmio_write(&m->vm, 0xfec00000, 4, reg);
    vm_mmio_write(&m->vm, 0xfec00010, 4, val);
}

static u32 io_read(u8 reg)
{
    vm_mmio_write(&m->vm, 0xfec00000, 4, reg);
    return (u32)vm_mmio_read(&m->vm, 0xfec00010, 4);
}

static void rte(unsigned pin, u32 dest, u32 low)
{
    io_write((u8)(0x11 + 2 * pin), dest << 24);
    io_write((u8)(0x10 + 2 * pin), low);
}

static void ioapic__edges(void **state)
{
    struct irq_line timer;

    (void)state;
    chip_start(2);
    enable(2);
    timer = irqchip_isa_line(chip, 0);
    assert_int_equal(io_read(1), 0x170020);
    assert_int_equal(io_read(0x10 + 4), 0x10000);
    irq_set(&timer, true); /* lost: masked */
    rte(2, 1, 0x30);
    assert_int_equal(pending(1), -1);
    irq_set(&timer, false);
    irq_set(&timer, true);
    assert_int_equal(pending(0), -1);
    assert_int_equal(ack(1), 0x30);
    irq_set(&timer, true);
    apic_write(1, 0xb0, 0);
    assert_int_equal(pending(1), -1);
    machine_free(m);
}

static void ioapic__levels_until_eoi(void **state)
{
    struct irq_line a, b;

    (void)state;
    chip_start(1);
    enable(1);
    a = irqchip_gsi_line(chip, 17);
    b = irqchip_gsi_line(chip, 17);
    rte(17, 0, 0x8051);
    irq_set(&a, true);
    irq_set(&b, true);
    assert_int_equal(io_read(0x10 + 34), 0xc051); /* remote IRR */
    assert_int_equal(ack(0), 0x51);
    assert_int_equal(apic_read(0, 0x1a0), 1u << 17); /* TMR */
    irq_set(&a, false);
    assert_int_equal(pending(0), -1);
    apic_write(0, 0xb0, 0); /* b still asserts it */
    assert_int_equal(ack(0), 0x51);
    irq_set(&b, false);
    apic_write(0, 0xb0, 0);
    assert_int_equal(pending(0), -1);
    assert_int_equal(io_read(0x10 + 34), 0x8051);
    /* Masked while asserted, then unmasked: comes */
    rte(17, 0, 0x18051);
    irq_set(&a, true);
    assert_int_equal(pending(0), -1);
    rte(17, 0, 0x8051);
    assert_int_equal(ack(0), 0x51);
    /* EOI register */
    irq_set(&a, false);
    vm_mmio_write(&m->vm, 0xfec00040, 4, 0x51);
    assert_int_equal(io_read(0x10 + 34), 0x8051);
    machine_free(m);
}

static void irqchip__8259_through_lint0(void **state)
{
    struct irq_line com1;

    (void)state;
    chip_start(2);
    com1 = irqchip_isa_line(chip, 4);
    pic_program(0x01);
    irq_set(&com1, true);
    assert_true(fake_events(m, 0) & VCPU_EV_IRQ);
    assert_false(fake_events(m, 1) & VCPU_EV_IRQ);
    assert_true(pending(0) >= 0);
    assert_int_equal(pending(1), -1);
    apic_write(0, 0xf0, 0x1ff);
    apic_write(0, 0x80, 0xff); /* TPR does not hold back ExtINT */
    assert_int_equal(ack(0), 0x24);
    assert_int_equal(pending(0), -1);
    outb(m, 0x20, 0x20);
    irq_set(&com1, false);
    apic_write(0, 0x350, 0x10700); /* LINT0 masked */
    irq_set(&com1, true);
    assert_int_equal(pending(0), -1);
    apic_write(0, 0x350, 0x700);
    assert_int_equal(ack(0), 0x24);
    outb(m, 0x20, 0x20);
    /* The CPU's own pin when the APIC is off */
    assert_int_equal(wr(0, 0x1b, 0xfee00000), 0);
    irq_set(&com1, false);
    irq_set(&com1, true);
    assert_int_equal(ack(0), 0x24);
    machine_free(m);
}

static void irqchip__extint_through_ioapic(void **state)
{
    struct irq_line com1;

    (void)state;
    chip_start(1);
    enable(1);
    com1 = irqchip_isa_line(chip, 4);
    pic_program(0x01);
    rte(0, 0, 0x700);
    irq_set(&com1, true);
    assert_true(pending(0) >= 0);
    assert_int_equal(ack(0), 0x24);
    assert_int_equal(pending(0), -1);
    machine_free(m);
}

static void irqchip__msi_and_nmi(void **state)
{
    struct msi_sink msi;
    struct irq_line nmi;

    (void)state;
    chip_start(2);
    enable(2);
    msi = irqchip_msi(chip);
    msi.send(msi.opaque, 0xfee01000, 0x4045);
    assert_int_equal(ack(1), 0x45);
    msi.send(msi.opaque, 0xfee01000, 0x4003); /* a device may write anything */
    msi.send(msi.opaque, 0x12345678, 0x4045);
    msi.send(msi.opaque, 0xfeeff00c, 0x47ff);
    assert_int_equal(pending(0), -1);
    nmi = irqchip_nmi(chip);
    apic_write(0, 0x360, 0x400);
    fake_events(m, 0);
    irq_set(&nmi, true);
    irq_set(&nmi, true);
    assert_int_equal(fake_events(m, 0), VCPU_EV_NMI);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pic__serves_by_priority),
        cmocka_unit_test(pic__cascades),
        cmocka_unit_test(pic__edge_is_once_level_again),
        cmocka_unit_test(pic__spurious_has_no_service),
        cmocka_unit_test(pic__poll_aeoi_masks),
        cmocka_unit_test(lapic__power_on),
        cmocka_unit_test(lapic__priorities),
        cmocka_unit_test(lapic__destinations),
        cmocka_unit_test(lapic__special_messages),
        cmocka_unit_test(lapic__x2apic),
        cmocka_unit_test(lapic__moves_its_page),
        cmocka_unit_test(lapic__timer),
        cmocka_unit_test(lapic__init_resets),
        cmocka_unit_test(ioapic__edges),
        cmocka_unit_test(ioapic__levels_until_eoi),
        cmocka_unit_test(irqchip__8259_through_lint0),
        cmocka_unit_test(irqchip__extint_through_ioapic),
        cmocka_unit_test(irqchip__msi_and_nmi),
    };
    return cmocka_run_group_tests_name("dev-irq", tests, NULL, NULL);
}
