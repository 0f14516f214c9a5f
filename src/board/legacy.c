/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "board/boot.h"
#include "board/layout.h"
#include "board/legacy.h"

/* The BIOS data area, as IBM's PC BIOS has it. */
#define BDA_COM1 0x400
#define BDA_EBDA_SEGMENT 0x40e
#define BDA_EQUIPMENT 0x410
#define BDA_BASE_MEMORY 0x413 /* KiB */
#define COM1_PORT 0x3f8
#define EQUIPMENT_FPU BIT32(1)
#define EQUIPMENT_ONE_SERIAL BIT32(9)

/* Interrupt vectors of real mode, and what they lead to in segment F000H. */
#define VECTORS 256
#define VECTOR_EQUIPMENT 0x11
#define VECTOR_MEMORY_SIZE 0x12
#define SERVICES_FIRST 0x10
#define SERVICES_LAST 0x1a
#define CODE_SEGMENT 0xf000
#define CODE_OFFSET(at) ((u16)(LAYOUT_BIOS_CALLS - 0xf0000 + (at)))

/* Carry set and AH 86H is how services say that they do not know a function. */
static const u8 unsupported[] = {
    0x55,                   /* push bp */
    0x89, 0xe5,             /* mov bp, sp */
    0x80, 0x4e, 0x06, 0x01, /* or byte [bp + 6], 1: CF of the caller */
    0x5d,                   /* pop bp */
    0xb4, 0x86,             /* mov ah, 86H */
    0xcf,                   /* iret */
};
#define AT_UNSUPPORTED 0x00

static const u8 nothing[] = {
    0xcf, /* iret */
};
#define AT_NOTHING 0x10

static const u8 equipment[] = {
    0x1e, /* push ds */
    0x31,
    0xc0, /* xor ax, ax */
    0x8e,
    0xd8, /* mov ds, ax */
    0xa1,
    BDA_EQUIPMENT & 0xff,
    BDA_EQUIPMENT >> 8, /* mov ax, [equipment] */
    0x1f,               /* pop ds */
    0xcf,               /* iret */
};
#define AT_EQUIPMENT 0x20

static const u8 memory_size[] = {
    0x1e, /* push ds */
    0x31,
    0xc0, /* xor ax, ax */
    0x8e,
    0xd8, /* mov ds, ax */
    0xa1,
    BDA_BASE_MEMORY & 0xff,
    BDA_BASE_MEMORY >> 8, /* mov ax, [base memory] */
    0x1f,                 /* pop ds */
    0xcf,                 /* iret */
};
#define AT_MEMORY_SIZE 0x30

static u16 handler(unsigned vector)
{
    if (vector == VECTOR_EQUIPMENT)
        return CODE_OFFSET(AT_EQUIPMENT);
    if (vector == VECTOR_MEMORY_SIZE)
        return CODE_OFFSET(AT_MEMORY_SIZE);
    if (vector >= SERVICES_FIRST && vector <= SERVICES_LAST)
        return CODE_OFFSET(AT_UNSUPPORTED);
    return CODE_OFFSET(AT_NOTHING);
}

void legacy_bios(u8 *ram)
{
    u8 *code = ram + LAYOUT_BIOS_CALLS;

    memcpy(code + AT_UNSUPPORTED, unsupported, sizeof(unsupported));
    memcpy(code + AT_NOTHING, nothing, sizeof(nothing));
    memcpy(code + AT_EQUIPMENT, equipment, sizeof(equipment));
    memcpy(code + AT_MEMORY_SIZE, memory_size, sizeof(memory_size));
    for (unsigned v = 0; v < VECTORS; v++) {
        put_le16(ram + v * 4, handler(v));
        put_le16(ram + v * 4 + 2, CODE_SEGMENT);
    }
    put_le16(ram + BDA_COM1, COM1_PORT);
    put_le16(ram + BDA_EBDA_SEGMENT, LAYOUT_EBDA >> 4);
    put_le16(ram + BDA_EQUIPMENT, EQUIPMENT_FPU | EQUIPMENT_ONE_SERIAL);
    put_le16(ram + BDA_BASE_MEMORY, LAYOUT_EBDA >> 10);
    ram[LAYOUT_EBDA] = (LAYOUT_VGA - LAYOUT_EBDA) >> 10; /* its size in KiB */
}

/* MultiProcessor Specification 1.4, chapter 4. */
#define POINTER_SIZE 16
#define HEADER_SIZE 44
#define SPEC_REVISION 4

enum { ENTRY_CPU, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_INTERRUPT, ENTRY_LINT };
#define CPU_SIZE 20
#define ENTRY_SIZE 8
#define ENABLED 1
#define CPU_BOOT 2
#define LAPIC_VERSION 0x14
#define IOAPIC_VERSION 0x20

enum { INT_VECTORED, INT_NMI, INT_SMI, INT_EXTINT };
/* Polarity and trigger mode 0: as the bus has it (edges on ISA, low levels on PCI). */
#define BUS_DEFAULT 0
#define ALL_LAPICS 0xff

/* Numbers of buses: PCI's must be the number of its configuration space. */
#define BUS_PCI 0
#define BUS_ISA 1
#define ISA_IRQS 16
#define ISA_CASCADE 2
#define PCI_SLOTS 32
#define PCI_PINS 4

static u8 checksum(const u8 *p, u64 n)
{
    u8 sum = 0;

    while (n--)
        sum = (u8)(sum + *p++);
    return (u8)-sum;
}

static u8 *put_bus(u8 *p, u8 id, const char *name)
{
    p[0] = ENTRY_BUS;
    p[1] = id;
    memcpy(p + 2, name, 6);
    return p + ENTRY_SIZE;
}

/* An input of the I/O APIC or, for ENTRY_LINT, of local APICs (4.3.4, 4.3.5). */
static u8 *put_interrupt(u8 *p, u8 entry, u8 type, u8 bus, u8 irq, u8 apic, u8 input)
{
    p[0] = entry;
    p[1] = type;
    put_le16(p + 2, BUS_DEFAULT);
    p[4] = bus;
    p[5] = irq;
    p[6] = apic;
    p[7] = input;
    return p + ENTRY_SIZE;
}

static u8 *put_isa_irqs(u8 *p)
{
    for (u8 irq = 0; irq < ISA_IRQS; irq++)
        /* The timer is where the cascade would be, as in the MADT. */
        if (irq != ISA_CASCADE)
            p = put_interrupt(p, ENTRY_INTERRUPT, INT_VECTORED, BUS_ISA, irq, LAYOUT_IOAPIC_ID,
                              irq ? irq : ISA_CASCADE);
    return p;
}

/* What _PRT in dsdt.asl says. */
static u8 *put_pci_pins(u8 *p)
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < PCI_PINS; pin++)
            p = put_interrupt(p, ENTRY_INTERRUPT, INT_VECTORED, BUS_PCI, (u8)(slot << 2 | pin),
                              LAYOUT_IOAPIC_ID, (u8)(LAYOUT_PCI_GSI + (slot + pin) % PCI_PINS));
    return p;
}

static u32 feature_flags(const struct x86_cpu_model *model)
{
    for (unsigned i = 0; i < model->n; i++)
        if (model->entry[i].leaf == 1)
            return model->entry[i].edx;
    return 0;
}

int legacy_mp_table(u8 *area, u64 size, u64 base, const struct x86_cpu_model *model, unsigned ncpus)
{
    unsigned entries = ncpus + 2 + 1 + (ISA_IRQS - 1) + PCI_SLOTS * PCI_PINS + 2;
    u64 bytes = HEADER_SIZE + ncpus * CPU_SIZE + (entries - ncpus) * ENTRY_SIZE;
    u8 *header = area + POINTER_SIZE, *p = header + HEADER_SIZE;

    if (POINTER_SIZE + bytes > size)
        return -ENOSPC;
    memset(area, 0, POINTER_SIZE + bytes);
    for (unsigned i = 0; i < ncpus; i++, p += CPU_SIZE) {
        p[0] = ENTRY_CPU;
        p[1] = (u8)i;
        p[2] = LAPIC_VERSION;
        p[3] = i ? ENABLED : ENABLED | CPU_BOOT;
        put_le32(p + 4, model->signature);
        put_le32(p + 8, feature_flags(model));
    }
    p = put_bus(p, BUS_PCI, "PCI   ");
    p = put_bus(p, BUS_ISA, "ISA   ");
    p[0] = ENTRY_IOAPIC;
    p[1] = LAYOUT_IOAPIC_ID;
    p[2] = IOAPIC_VERSION;
    p[3] = ENABLED;
    put_le32(p + 4, LAYOUT_IOAPIC);
    p = put_isa_irqs(p + ENTRY_SIZE);
    p = put_pci_pins(p);
    /* The 8259 is at LINT0 of the first processor, NMI at LINT1 of all. */
    p = put_interrupt(p, ENTRY_LINT, INT_EXTINT, BUS_ISA, 0, 0, 0);
    put_interrupt(p, ENTRY_LINT, INT_NMI, BUS_ISA, 0, ALL_LAPICS, 1);

    memcpy(header, "PCMP", 4);
    put_le16(header + 4, (u16)bytes);
    header[6] = SPEC_REVISION;
    memcpy(header + 8, "TRIVISOR", 8);
    memcpy(header + 16, "PC          ", 12);
    put_le16(header + 34, (u16)entries);
    put_le32(header + 36, LAYOUT_LAPIC);
    header[7] = checksum(header, bytes);

    /* The floating pointer (4.1): no default configuration, and no IMCR between 8259 and CPU. */
    memcpy(area, "_MP_", 4);
    put_le32(area + 4, (u32)(base + POINTER_SIZE));
    area[8] = POINTER_SIZE / 16;
    area[9] = SPEC_REVISION;
    area[10] = checksum(area, POINTER_SIZE);
    return 0;
}
