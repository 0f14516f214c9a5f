/* SPDX-License-Identifier: Apache-2.0 */
#include "chipset.h"

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
#include "dev/chipset/vmgenid.h"
#include "dev/pci/host.h"
#include "dev/pci/hotplug.h"
#include "test.h"

static struct chipset c;

static size_t put(unsigned n, const u8 *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        c.out[n][c.n_out[n]++ % sizeof(c.out[0])] = (char)buf[i];
    return len;
}

static size_t com1_write(struct chardev *chr, const u8 *buf, size_t n)
{
    (void)chr;
    return put(0, buf, n);
}

static void com1_kick(struct chardev *chr)
{
    while (c.in && *c.in) {
        size_t taken = chr->on_input(chr->dev, (const u8 *)c.in, strlen(c.in));
        if (!taken)
            break;
        c.in += taken;
    }
}

static size_t com2_write(struct chardev *chr, const u8 *buf, size_t n)
{
    (void)chr;
    if (n > c.room)
        n = c.room;
    c.room -= n;
    return put(1, buf, n);
}

static int fn_save(const struct device *d, struct stream *out, const char **why)
{
    (void)why;
    pci_save(&container_of(d, struct chipset, fn_dev)->fn, out);
    return out->error;
}

static int fn_load(struct device *d, struct stream *in)
{
    return pci_load(&container_of(d, struct chipset, fn_dev)->fn, in);
}

static const struct device_ops fn_ops = {.name = "fn", .save = fn_save, .load = fn_load};

static u64 bar_read(void *dev, u64 off, unsigned size)
{
    (void)dev;
    (void)size;
    return off;
}

static void bar_write(void *dev, u64 off, unsigned size, u64 val)
{
    (void)dev;
    (void)off;
    (void)size;
    (void)val;
}

static const struct bus_ops bar_ops = {.read = bar_read, .write = bar_write};

static void create_pci(struct vm *vm)
{
    struct pci_host_config cfg = {.ecam_base = 0xe0000000,
                                  .ecam_size = 0x10000000,
                                  .msi = irqchip_msi(c.irq),
                                  .io = {0x1000, 0xf000},
                                  .mem32 = {0xc0000000, 0x20000000},
                                  .mem64 = {0x800000000, 0x100000000}};

    for (unsigned i = 0; i < 4; i++) {
        cfg.intx[i] = irqchip_gsi_line(c.irq, 16 + i);
        cfg.intx_pic[i] = irqchip_isa_line(c.irq, 10);
    }
    c.host = pci_host_create(vm, &cfg);
    assert_non_null(c.host);
    pci_init(&c.fn, vm, "fn", 0x1af4, 0x1041, 0x020000, 1);
    pci_add_bar(&c.fn, 0, PCI_BAR_IO, 32, &bar_ops, NULL);
    pci_add_bar(&c.fn, 2, PCI_BAR_MEM64, 0x4000, &bar_ops, NULL);
    pci_add_msix(&c.fn, 1, 3);
    pci_use_intx(&c.fn);
    assert_int_equal(pci_host_add(c.host, &c.fn, CHIPSET_FN), 0);
    c.fn_dev.ops = &fn_ops;
    vm_add_device(vm, &c.fn_dev);
    assert_int_equal(pci_host_assign(c.host), 0);
}

struct chipset *chipset_new(unsigned ncpus)
{
    struct pit_config pit;
    struct rtc_config rtc = {.ram_below_4g = FAKE_RAM_SIZE};
    struct i8042_config kbc;
    struct acpi_pm_config pm = {.base = ACPI_PM_BASE};
    struct uart_config com1 = {.base = UART_COM1, .chr = &c.com1};
    struct uart_config com2 = {.base = UART_COM2, .chr = &c.com2};
    struct vmgenid_config gen = {.at = CHIPSET_VMGENID};
    struct pci_hotplug_config hotplug = {.base = 0x610};
    struct vm *vm;

    memset(&c, 0, sizeof(c));
    c.com1 = (struct chardev){.write = com1_write, .kick_input = com1_kick};
    c.com2 = (struct chardev){.write = com2_write, .holds = true};
    c.m = machine_new(ncpus);
    vm = &c.m->vm;
    c.irq = irqchip_create(vm);
    assert_non_null(c.irq);
    pit.irq = irqchip_isa_line(c.irq, 0);
    rtc.irq = irqchip_isa_line(c.irq, 8);
    kbc.kbd_irq = irqchip_isa_line(c.irq, 1);
    kbc.aux_irq = irqchip_isa_line(c.irq, 12);
    pm.sci = irqchip_isa_line(c.irq, ACPI_SCI_IRQ);
    com1.irq = irqchip_isa_line(c.irq, UART_COM1_IRQ);
    com2.irq = irqchip_isa_line(c.irq, UART_COM2_IRQ);
    c.pm = acpi_pm_create(vm, &pm);
    assert_true(c.pm && pit_create(vm, &pit) && rtc_create(vm, &rtc) && pvclock_create(vm) &&
                i8042_create(vm, &kbc) && ports_create(vm) && debug_exit_create(vm, 0xf4) &&
                pvpanic_create(vm, PVPANIC_PORT) && uart_create(vm, &com1) &&
                uart_create(vm, &com2));
    gen.pm = c.pm;
    hotplug.pm = c.pm;
    assert_non_null(pci_hotplug_create(vm, &hotplug));
    c.vmgenid = vmgenid_create(vm, &gen);
    assert_non_null(c.vmgenid);
    create_pci(vm);
    return &c;
}

void chipset_free(struct chipset *chipset)
{
    machine_free(chipset->m);
}
