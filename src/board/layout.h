/* SPDX-License-Identifier: Apache-2.0 */
/* Where things are in the PC's guest-physical address space and on its interrupt pins. */
#ifndef TRIVISOR_BOARD_LAYOUT_H
#define TRIVISOR_BOARD_LAYOUT_H

/* Conventional memory ends where the extended BIOS data area would begin; nothing is at VGA's
 * place; where adapters would have ROMs there is RAM without anything in it: kernels search it for
 * signatures (Linux for an iBFT, 16,384 reads), each of which is an exit where there is nothing.
 * The BIOS area behind it holds the ACPI and MP tables. */
#define LAYOUT_EBDA 0x9fc00ull
#define LAYOUT_VGA 0xa0000ull
#define LAYOUT_ROMS 0xc0000ull
#define LAYOUT_BIOS 0xe0000ull
#define LAYOUT_BIOS_SIZE 0x20000ull
/* The generation ID has the last page of the BIOS area to itself (Microsoft's specification wants
 * no memory of the guest's in it). src/board/dsdt.asl has the same address. */
#define LAYOUT_VMGENID 0xff000ull
#define LAYOUT_ACPI_SIZE 0x10000ull
/* The MP tables are looked for in the BIOS area's upper half. */
#define LAYOUT_MP 0xf0000ull
#define LAYOUT_MP_SIZE (LAYOUT_BIOS_CALLS - LAYOUT_MP)
/* The code that real mode's interrupt vectors lead to. */
#define LAYOUT_BIOS_CALLS 0xfe000ull
#define LAYOUT_1M 0x100000ull

/* RAM up to here, the rest from 4 GiB on. The hole holds what follows. */
#define LAYOUT_LOW_RAM_MAX 0xc0000000ull
#define LAYOUT_HIGH_RAM 0x100000000ull

/* 32-bit windows for PCI BARs: two, with ECAM between them. src/board/dsdt.asl has the same
 * numbers. */
#define LAYOUT_PCI_MMIO 0xc0000000ull
#define LAYOUT_PCI_MMIO_SIZE 0x20000000ull
#define LAYOUT_ECAM 0xe0000000ull
#define LAYOUT_ECAM_SIZE 0x10000000ull
#define LAYOUT_PCI_MMIO2 0xf0000000ull
#define LAYOUT_PCI_MMIO2_SIZE 0x0ec00000ull
#define LAYOUT_IOAPIC 0xfec00000ull
#define LAYOUT_IOAPIC_ID 8 /* behind the vCPUs' APIC ids */
#define LAYOUT_LAPIC 0xfee00000ull

/* Ports of the ACPI power-management block. */
#define LAYOUT_PM_PORT 0x600
#define LAYOUT_GPE0_PORT 0x60c
/* Hot-plug of PCI devices (dev/pci/hotplug.h), and the slots of bus 0 that have it: all behind what
 * a machine usually has from its start. src/board/dsdt.asl has the same numbers. */
#define LAYOUT_HOTPLUG_PORT 0x610
#define LAYOUT_HOTPLUG_FIRST 24
#define LAYOUT_HOTPLUG_SLOTS 8

/* Interrupts: ISA numbers, the SCI, and the four PCI lines: one IOAPIC pin each, and one 8259 input
 * each for guests that do not use the IOAPIC. */
#define LAYOUT_IRQ_SCI 9
#define LAYOUT_PCI_GSI 16
#define LAYOUT_PCI_IRQS                                                                            \
    {                                                                                              \
        5, 10, 11, 12                                                                              \
    }

#endif
