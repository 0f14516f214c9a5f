/* SPDX-License-Identifier: Apache-2.0 */
/* The devices of the PC and how they are wired. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backend/char/console.h"
#include "board/e820.h"
#include "board/layout.h"
#include "board/pc_priv.h"
#include "dev/chipset/acpi_pm.h"
#include "dev/chipset/debug_exit.h"
#include "dev/chipset/i8042.h"
#include "dev/chipset/irqchip.h"
#include "dev/chipset/pit.h"
#include "dev/chipset/ports.h"
#include "dev/chipset/pvclock.h"
#include "dev/chipset/pvpanic.h"
#include "dev/chipset/rtc.h"
#include "dev/chipset/test_device.h"
#include "dev/chipset/uart.h"
#include "dev/chipset/vmgenid.h"
#include "dev/pci/host.h"
#include "dev/virtio/virtio.h"

/* The tables tell the guest what the devices are. */
_Static_assert(LAYOUT_IOAPIC_ID == IRQCHIP_IOAPIC_ID, "MADT");
_Static_assert(LAYOUT_PM_PORT == ACPI_PM_BASE && LAYOUT_IRQ_SCI == ACPI_SCI_IRQ, "FADT");
_Static_assert(LAYOUT_GPE0_PORT == ACPI_PM_BASE + ACPI_GPE0, "FADT");
_Static_assert(VMGENID_GPE == 5 && LAYOUT_VMGENID == 0xff000, "\\_GPE._E05 and ADDR in the DSDT");
_Static_assert(ACPI_S5_SLP_TYP == 5, "\\_S5 in the DSDT");
_Static_assert(PCI_RESET_PORT == 0xcf9 && PCI_RESET_VALUE == 0x06, "FADT");
_Static_assert(RTC_CENTURY == 0x32, "FADT");

/* A device could not be made: no memory, or a mistake in the layout. */
static int refuse(struct pc *pc, const char *name)
{
    snprintf(pc->err, pc->err_size, "cannot create the %s: out of memory or address space", name);
    return -ENOMEM;
}

static int create_timers(struct pc *pc, struct device *irq)
{
    struct pit_config pit = {.irq = irqchip_isa_line(irq, 0)};
    struct rtc_config rtc = {.irq = irqchip_isa_line(irq, 8),
                             .ram_below_4g = e820_low_ram(pc->cfg->memory),
                             .ram_above_4g = e820_high_ram(pc->cfg->memory)};

    if (!pit_create(&pc->vm, &pit))
        return refuse(pc, "interval timer");
    if (!rtc_create(&pc->vm, &rtc))
        return refuse(pc, "real-time clock");
    if (!pvclock_create(&pc->vm))
        return refuse(pc, "paravirtual clock");
    return 0;
}

struct console_config pc_console_config(struct pc *pc, const char *where)
{
    bool on_hvc = pc->cfg->virtio_console && !strcmp(pc->cfg->virtio_console, "stdio");
    struct console_config c = {.serial = where,
                               .name = pc->ends.name,
                               .log_size = pc->cfg->console_log,
                               .listen_fd = -1,
                               .terminal_fd = -1};

    if (on_hvc == (where == pc->cfg->virtio_console)) {
        c.listen_fd = pc->ends.console_fd;
        c.terminal_fd = pc->ends.terminal_fd;
        pc->ends.console_fd = pc->ends.terminal_fd = -1;
    }
    return c;
}

static int create_serial(struct pc *pc, struct device *irq)
{
    struct uart_config com1 = {.base = UART_COM1, .irq = irqchip_isa_line(irq, UART_COM1_IRQ)};
    int terminal_fd = pc->ends.terminal_fd;
    struct console_config console = pc_console_config(pc, pc->cfg->serial);

    /* With a command, standard input and output or the terminal are the command's. */
    if (pc->cfg->command) {
        console.terminal_fd = -1;
        pc->ends.terminal_fd = terminal_fd;
        if (!strcmp(console.serial, "stdio"))
            console.serial = "null";
    }
    pc->console = console_open(&pc->vm, &console, pc->err, pc->err_size);
    if (!pc->console)
        return -EINVAL;
    com1.chr = pc->console;
    return uart_create(&pc->vm, &com1) ? 0 : refuse(pc, "serial port");
}

/* Port windows are what the ISA devices leave: firmware's habit is to begin at 4 KiB multiples. */
#define PCI_IO 0x1000
#define PCI_IO_SIZE 0xf000

static int create_pci(struct pc *pc, struct device *irq)
{
    static const u8 isa[PC_PCI_LINES] = LAYOUT_PCI_IRQS;
    static const struct {
        const char *name;
        u64 feature;
    } features[] = {{"packed", VIRTIO_F_RING_PACKED},
                    {"event-idx", VIRTIO_F_EVENT_IDX},
                    {"indirect", VIRTIO_F_INDIRECT_DESC}};
    const char *without = pc->cfg->virtio_without;
    struct pci_host_config pci = {.ecam_base = LAYOUT_ECAM,
                                  .ecam_size = LAYOUT_ECAM_SIZE,
                                  .msi = irqchip_msi(irq),
                                  .io = {PCI_IO, PCI_IO_SIZE},
                                  .mem32 = {LAYOUT_PCI_MMIO, LAYOUT_PCI_MMIO_SIZE}};

    pci.no_msix = config_lists(without, "msix");
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
        if (config_lists(without, features[i].name))
            pci.virtio_hidden |= features[i].feature;
    for (unsigned i = 0; i < PC_PCI_LINES; i++) {
        pci.intx[i] = irqchip_gsi_line(irq, LAYOUT_PCI_GSI + i);
        pci.intx_pic[i] = irqchip_isa_line(irq, isa[i]);
        pci.intx_irq[i] = isa[i];
    }
    pc->pci = pci_host_create(&pc->vm, &pci);
    pc->next_slot = 1; /* slot 0 is the bridge's */
    return pc->pci ? 0 : refuse(pc, "PCI host bridge");
}

static int create_platform(struct pc *pc, struct device *irq)
{
    struct i8042_config kbc = {.kbd_irq = irqchip_isa_line(irq, 1),
                               .aux_irq = irqchip_isa_line(irq, 12)};
    struct acpi_pm_config pm = {.base = LAYOUT_PM_PORT,
                                .sci = irqchip_isa_line(irq, LAYOUT_IRQ_SCI)};
    struct vmgenid_config gen = {.at = LAYOUT_VMGENID};

    if (!i8042_create(&pc->vm, &kbc))
        return refuse(pc, "keyboard controller");
    pc->pm = acpi_pm_create(&pc->vm, &pm);
    if (!pc->pm)
        return refuse(pc, "power management");
    if (pc_plug_create(pc))
        return refuse(pc, "hot-plug registers");
    gen.pm = pc->pm;
    pc->vmgenid = vmgenid_create(&pc->vm, &gen);
    if (!pc->vmgenid)
        return refuse(pc, "generation ID");
    if (!ports_create(&pc->vm))
        return refuse(pc, "reset ports");
    if (!debug_exit_create(&pc->vm, DEBUG_EXIT_PORT))
        return refuse(pc, "test exit device");
    if (!pvpanic_create(&pc->vm, PVPANIC_PORT))
        return refuse(pc, "panic device");
    return 0;
}

static int create_test_device(struct pc *pc, struct device *irq)
{
    struct test_device_config cfg;

    if (!pc->cfg->test_device)
        return 0;
    for (unsigned i = 0; i < TEST_DEVICE_IRQS; i++)
        cfg.irq[i] = i < 16 ? irqchip_isa_line(irq, i) : irqchip_gsi_line(irq, i);
    return test_device_create(&pc->vm, &cfg) ? 0 : refuse(pc, "test device");
}

/* What firmware leaves behind and kernels rely on: addresses of PCI devices, and the ELCR says
 * which 8259 inputs are level-triggered. */
static int set_up_like_firmware(struct pc *pc)
{
    static const u8 isa[PC_PCI_LINES] = LAYOUT_PCI_IRQS;
    u32 level = BIT32(LAYOUT_IRQ_SCI);

    for (unsigned i = 0; i < PC_PCI_LINES; i++)
        level |= BIT32(isa[i]);
    vm_pio_write(&pc->vm, 0x4d0, 1, level & 0xff);
    vm_pio_write(&pc->vm, 0x4d1, 1, level >> 8);
    return pci_host_assign(pc->pci) ? refuse(pc, "PCI devices") : 0;
}

int pc_create_devices(struct pc *pc)
{
    struct device *irq = irqchip_create(&pc->vm);
    int r = 0;

    if (!irq)
        return refuse(pc, "interrupt controllers");
    r = create_timers(pc, irq);
    if (!r)
        r = create_platform(pc, irq);
    if (!r)
        r = create_test_device(pc, irq);
    if (!r)
        r = create_pci(pc, irq);
    if (!r)
        r = pc_create_disks(pc);
    if (!r)
        r = pc_create_seed(pc);
    if (!r)
        r = pc_create_nets(pc);
    if (!r)
        r = pc_create_virtio(pc);
    if (!r)
        r = pc_create_shares(pc);
    if (!r)
        r = pc_create_vsock(pc);
    if (!r)
        r = pc_plug_restore_devices(pc);
    /* Last, for they say that the machine runs. */
    if (!r)
        r = create_serial(pc, irq);
    if (!r)
        r = pc_command_create(pc, irq);
    return r ? r : set_up_like_firmware(pc);
}
