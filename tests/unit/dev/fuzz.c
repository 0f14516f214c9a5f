/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile guest: random accesses to every device of a PC, with lines, time and the APICs in
 * between. Nothing may crash, hang, or touch what is not its own (run it under ASan and UBSan). The
 * seed is fixed; FUZZ_SEED and FUZZ_STEPS in the environment change it.
 */
#include <stdlib.h>
#include <string.h>

#include "dev/chipset/acpi_pm.h"
#include "dev/chipset/debug_exit.h"
#include "dev/chipset/i8042.h"
#include "dev/chipset/irqchip.h"
#include "dev/chipset/pit.h"
#include "dev/chipset/ports.h"
#include "dev/chipset/pvclock.h"
#include "dev/chipset/pvpanic.h"
#include "dev/chipset/rtc.h"
#include "dev/chipset/uart.h"
#include "dev/pci/host.h"
#include "fake_host.h"
#include "test.h"

#define NCPUS 3

static u64 rng;

static u64 rnd(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static u32 below(u32 n)
{
    return (u32)(rnd() >> 32) % n;
}

/* Values that tend to matter. */
static u64 value(void)
{
    switch (below(5)) {
    case 0:
        return below(256);
    case 1:
        return BIT64(below(64));
    case 2:
        return ~(u64)0 >> below(64);
    case 3:
        return below(65536);
    default:
        return rnd();
    }
}

static size_t con_write(struct chardev *c, const u8 *buf, size_t n)
{
    (void)c;
    (void)buf;
    return n;
}

static struct machine *m;
static struct chardev con;
static struct pci_function fn;
static struct irq_line lines[8];

static u64 bar_read(void *dev, u64 off, unsigned size)
{
    (void)dev;
    (void)size;
    return off;
}

static void bar_write(void *dev, u64 off, unsigned size, u64 val)
{
    struct pci_function *f = dev;

    (void)size;
    pci_msix_send(f, (unsigned)val);
    pci_set_intx(f, off & 1);
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write};

static void build(void)
{
    struct device *chip, *host;
    struct pit_config pit;
    struct rtc_config rtc;
    struct uart_config uart;
    struct i8042_config kbc;
    struct acpi_pm_config pm;
    struct pci_host_config pci;

    m = machine_new(NCPUS);
    chip = irqchip_create(&m->vm);
    pit = (struct pit_config){.irq = irqchip_isa_line(chip, 0)};
    rtc = (struct rtc_config){.irq = irqchip_isa_line(chip, 8), .ram_below_4g = FAKE_RAM_SIZE};
    uart = (struct uart_config){.base = 0x3f8, .irq = irqchip_isa_line(chip, 4), .chr = &con};
    kbc = (struct i8042_config){.kbd_irq = irqchip_isa_line(chip, 1),
                                .aux_irq = irqchip_isa_line(chip, 12)};
    pm = (struct acpi_pm_config){.base = 0x600, .sci = irqchip_isa_line(chip, 9)};
    pci = (struct pci_host_config){.ecam_base = 0xe0000000,
                                   .ecam_size = 0x10000000,
                                   .msi = irqchip_msi(chip),
                                   .mem32 = {0xc0000000, 0x1000000},
                                   .mem64 = {0x800000000, 0x1000000},
                                   .io = {0xc000, 0x1000}};
    for (unsigned i = 0; i < 4; i++)
        pci.intx[i] = irqchip_gsi_line(chip, 16 + i);
    memset(&con, 0, sizeof(con));
    con.write = con_write;
    host = pci_host_create(&m->vm, &pci);
    assert_true(chip && host && pit_create(&m->vm, &pit) && rtc_create(&m->vm, &rtc) &&
                uart_create(&m->vm, &uart) && i8042_create(&m->vm, &kbc) &&
                acpi_pm_create(&m->vm, &pm) && ports_create(&m->vm) &&
                debug_exit_create(&m->vm, 0xf4) && pvpanic_create(&m->vm, 0x505) &&
                pvclock_create(&m->vm));
    pci_init(&fn, &m->vm, "fuzzed", 0x1af4, 0x1041, 0x020000, 1);
    pci_add_bar(&fn, 0, PCI_BAR_IO, 64, &bar_ops, &fn);
    pci_add_msix(&fn, 1, 5);
    pci_add_bar(&fn, 2, PCI_BAR_MEM64, 4096, &bar_ops, &fn);
    pci_use_intx(&fn);
    pci_host_add(host, &fn, PCI_DEVFN(2, 0));
    pci_host_assign(host);
    for (unsigned i = 0; i < ARRAY_SIZE(lines); i++)
        lines[i] = irqchip_gsi_line(chip, 1 + below(23));
}

static u16 port(void)
{
    static const u16 at[] = {0x20,  0x21,  0xa0,  0xa1,  0x4d0, 0x40,  0x41,  0x42,  0x43,
                             0x60,  0x61,  0x64,  0x70,  0x71,  0x80,  0x92,  0xf0,  0xf4,
                             0x505, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x600,
                             0x602, 0x604, 0x608, 0xcf8, 0xcf9, 0xcfc, 0xcfe, 0xc000};

    return below(8) ? at[below(ARRAY_SIZE(at))] : (u16)rnd();
}

static u64 address(void)
{
    static const u64 at[] = {0xfee00000, 0xfec00000, 0xe0000000, 0xe0010000,
                             0xc0000000, 0xc0001000, 0x800000000};
    u64 a = below(8) ? at[below(ARRAY_SIZE(at))] : rnd();

    return a + (below(4) ? below(0x100) * 16 : below(0x1000));
}

static u32 msr(void)
{
    static const u32 at[] = {0x1b, 0x6e0, 0x11, 0x12, 0x4b564d00, 0x4b564d01};

    return below(3) ? 0x800 + below(0x40) : at[below(ARRAY_SIZE(at))];
}

static void one(void)
{
    static const unsigned pio_size[] = {1, 2, 4}, mmio_size[] = {1, 2, 4, 8};
    struct vcpu *v = &m->cpu[below(NCPUS)].v;
    u8 text[40];
    u64 val;

    switch (below(12)) {
    case 0 ... 1:
        vm_pio_read(&m->vm, port(), pio_size[below(3)]);
        break;
    case 2 ... 3:
        vm_pio_write(&m->vm, port(), pio_size[below(3)], (u32)value());
        break;
    case 4:
        vcpu_mmio_read(v, address(), mmio_size[below(4)]);
        break;
    case 5 ... 6:
        vcpu_mmio_write(v, address(), mmio_size[below(4)], value());
        break;
    case 7:
        if (below(2))
            vm_wrmsr(v, msr(), value());
        else
            vm_rdmsr(v, msr(), &val);
        break;
    case 8:
        irq_set(&lines[below(ARRAY_SIZE(lines))], below(2));
        break;
    case 9:
        if (v->irq->pending(v->irq_opaque) >= 0)
            assert_in_range(v->irq->ack(v->irq_opaque) + 1, 0, 256);
        if (below(2))
            vcpu_mmio_write(v, 0xfee000b0, 4, 0);
        break;
    case 10:
        fake_advance(below(4) ? below(100000) : below(2000000000));
        break;
    default:
        memset(text, 'x', sizeof(text));
        if (con.on_input)
            assert_true(con.on_input(con.dev, text, below(sizeof(text))) <= 16);
        if (!below(200))
            v->irq->init(v->irq_opaque);
        fake_events(m, v->id);
        break;
    }
}

static void devices__survive_anything(void **state)
{
    const char *seed = getenv("FUZZ_SEED"), *steps = getenv("FUZZ_STEPS");
    u64 n = steps ? strtoull(steps, NULL, 0) : 400000;

    (void)state;
    rng = seed ? strtoull(seed, NULL, 0) : 0x9e3779b97f4a7c15;
    if (!rng)
        rng = 1;
    while (n) {
        build();
        for (unsigned i = 0; i < 20000 && n; i++, n--)
            one();
        machine_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(devices__survive_anything)};

    return cmocka_run_group_tests_name("dev-fuzz", tests, NULL, NULL);
}
