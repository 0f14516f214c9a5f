/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Local APICs, one a vCPU (SDM 3A chapter 10): xAPIC registers at 0xfee00000 through the vCPU, and
 * x2APIC through MSRs. The APIC timer counts at 1 GHz (CPUID 15H, 40000010H).
 */
#ifndef TRIVISOR_DEV_CHIPSET_LAPIC_H
#define TRIVISOR_DEV_CHIPSET_LAPIC_H

#include "core/vm.h"

#define LAPIC_DEFAULT_BASE 0xfee00000u

/* APICs for every vCPU added so far; sets vcpu->irq and claims the MSRs. NULL: no memory, or the
 * MSR ranges are taken. The device belongs to the VM. */
struct device *lapic_create(struct vm *vm);

/* Messages FEExxxxxH from devices and I/O APICs. VM lock held. */
struct msi_sink lapic_msi_sink(struct device *d);
/* The 8259's INTR, wired to LINT0 of every APIC; ack(opaque) is its INTA cycle (VM lock held). */
struct irq_line lapic_intr_line(struct device *d, int (*ack)(void *opaque), void *opaque);
/* NMI, wired to LINT1 of every APIC. */
struct irq_line lapic_nmi_line(struct device *d);
/* Who hears of the EOI of a level-triggered vector: eoi(opaque, vector), VM lock held. */
void lapic_set_eoi(struct device *d, void (*eoi)(void *opaque, u8 vector), void *opaque);

#endif
