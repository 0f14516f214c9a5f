/* SPDX-License-Identifier: Apache-2.0 */
/* ACPI hardware (ACPI 6.5 4.8): PM1a event and control blocks, the PM timer, and the block of
 * general-purpose events (4.8.4.1). */
#ifndef TRIVISOR_DEV_CHIPSET_ACPI_PM_H
#define TRIVISOR_DEV_CHIPSET_ACPI_PM_H

#include "core/vm.h"

#define ACPI_PM_BASE 0x600
/* From the base: what the FADT tells. */
#define ACPI_PM1A_EVT 0 /* 4 bytes: status, enable */
#define ACPI_PM1A_CNT 4 /* 2 bytes */
#define ACPI_PM_TMR 8   /* 4 bytes; the counter has 32 bits (TMR_VAL_EXT) */
#define ACPI_GPE0 12    /* 2 bytes: status, enable of eight general-purpose events */
#define ACPI_PM_SIZE 16
#define ACPI_SCI_IRQ 9

/* SLP_TYP of \_S5 in the DSDT. */
#define ACPI_S5_SLP_TYP 5

struct acpi_pm_config {
    u16 base;
    struct irq_line sci; /* level-triggered */
};

/* NULL: no memory, or the ports are taken. The device belongs to the VM. */
struct device *acpi_pm_create(struct vm *vm, const struct acpi_pm_config *cfg);
/* The power button is pressed: asks the guest to shut down. Whether it has enabled the button's
 * interrupt: a guest without a driver for it has not, and will not notice. VM lock held. */
bool acpi_pm_power_button(struct device *d);
/* Event n of GPE block 0 (0..7) happens: \_GPE._E0n of the DSDT is run. Whether the guest has
 * enabled it. VM lock held. */
bool acpi_pm_raise_gpe(struct device *d, unsigned n);

#endif
