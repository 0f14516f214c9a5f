/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "board/acpi.h"
#include "board/boot.h"
#include "board/layout.h"
#include "dsdt.hex"

#define HEADER_SIZE 36
#define OEM_ID "TRIVSR"
#define OEM_TABLE_ID "TRIVISOR"
#define CREATOR_ID "TRVS"

/* Generic address structure (5.2.3.2). */
#define GAS_SYSTEM_IO 1

/* FADT flags (5.2.9 table 5.10). */
#define FADT_WBINVD BIT32(0)
#define FADT_PROC_C1 BIT32(2)
#define FADT_SLP_BUTTON BIT32(5) /* no fixed sleep button */
#define FADT_TMR_VAL_EXT BIT32(8)
#define FADT_RESET_REG_SUP BIT32(10)
#define FADT_HEADLESS BIT32(12)
/* IA-PC boot architecture flags (5.2.9.3). */
#define BOOT_ARCH_LEGACY_DEVICES BIT32(0)
#define BOOT_ARCH_NO_VGA BIT32(2)
#define BOOT_ARCH_NO_ASPM BIT32(4)

#define FADT_SIZE 276
#define FACS_SIZE 64
#define RSDP_SIZE 36

#define MADT_PCAT_COMPAT 1
#define MPS_ACTIVE_HIGH_LEVEL 0x0d
#define MPS_BUS_DEFAULT 0

struct area {
    u8 *p;
    u64 size, pos, base;
    bool full;
};

static u8 checksum(const u8 *p, u64 n)
{
    u8 sum = 0;

    while (n--)
        sum = (u8)(sum + *p++);
    return (u8)-sum;
}

/* A zeroed, aligned piece of the area; its address in *gpa. NULL: full. */
static u8 *piece(struct area *a, u64 size, u64 align, u64 *at)
{
    u64 pos = align_up(a->pos, align);

    if (a->full || pos > a->size || size > a->size - pos) {
        a->full = true;
        return NULL;
    }
    a->pos = pos + size;
    *at = a->base + pos;
    return memset(a->p + pos, 0, size);
}

/* A table with its header but for the checksum (5.2.6). */
static u8 *table(struct area *a, const char *signature, u8 revision, u64 size, u64 *at)
{
    u8 *t = piece(a, size, 16, at);

    if (!t)
        return NULL;
    memcpy(t, signature, 4);
    put_le32(t + 4, (u32)size);
    t[8] = revision;
    memcpy(t + 10, OEM_ID, 6);
    memcpy(t + 16, OEM_TABLE_ID, 8);
    put_le32(t + 24, 1);
    memcpy(t + 28, CREATOR_ID, 4);
    put_le32(t + 32, 1);
    return t;
}

static void finish(u8 *t)
{
    t[9] = 0;
    t[9] = checksum(t, get_le32(t + 4));
}

static void gas_io(u8 *p, u64 port, u8 bytes, u8 access_size)
{
    p[0] = GAS_SYSTEM_IO;
    p[1] = (u8)(bytes * 8);
    p[2] = 0;
    p[3] = access_size; /* 1: byte, 2: word, 3: dword */
    put_le64(p + 4, port);
}

static u64 build_fadt(struct area *a, u64 facs, u64 dsdt)
{
    u64 at = 0;
    u8 *t = table(a, "FACP", 6, FADT_SIZE, &at);

    if (!t)
        return 0;
    put_le32(t + 36, (u32)facs);
    put_le32(t + 40, (u32)dsdt);
    put_le16(t + 46, LAYOUT_IRQ_SCI);
    /* SMI_CMD 0: the machine is in ACPI mode from the start. */
    put_le32(t + 56, LAYOUT_PM_PORT);     /* PM1a event block */
    put_le32(t + 64, LAYOUT_PM_PORT + 4); /* PM1a control block */
    put_le32(t + 76, LAYOUT_PM_PORT + 8); /* PM timer block */
    put_le32(t + 80, LAYOUT_GPE0_PORT);   /* general-purpose event block 0 */
    t[88] = 4;                            /* PM1 event length */
    t[89] = 2;                            /* PM1 control length */
    t[91] = 4;                            /* PM timer length */
    t[92] = 2;                            /* GPE 0 length: eight events */
    put_le16(t + 96, 0xfff);              /* no C2 */
    put_le16(t + 98, 0xfff);              /* no C3 */
    t[108] = 0x32;                        /* century in CMOS */
    put_le16(t + 109, BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_ASPM);
    put_le32(t + 112, FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_TMR_VAL_EXT |
                          FADT_RESET_REG_SUP | FADT_HEADLESS);
    gas_io(t + 116, 0xcf9, 1, 1); /* reset register */
    t[128] = 0x06;                /* and its value */
    t[131] = 4;                   /* minor revision: 6.4 */
    /* X_FIRMWARE_CTRL stays 0: the FACS is below 4 GiB. */
    put_le64(t + 140, dsdt);
    gas_io(t + 148, LAYOUT_PM_PORT, 4, 2);
    gas_io(t + 172, LAYOUT_PM_PORT + 4, 2, 2);
    gas_io(t + 208, LAYOUT_PM_PORT + 8, 4, 3);
    gas_io(t + 220, LAYOUT_GPE0_PORT, 2, 1);
    memcpy(t + 268, OEM_TABLE_ID, 8); /* hypervisor vendor identity */
    finish(t);
    return at;
}

static void put_iso(u8 *p, u8 irq, u32 gsi, u16 flags)
{
    p[0] = 2;
    p[1] = 10;
    p[2] = 0; /* ISA */
    p[3] = irq;
    put_le32(p + 4, gsi);
    put_le16(p + 8, flags);
}

static u64 build_madt(struct area *a, unsigned ncpus)
{
    u64 size = HEADER_SIZE + 8 + ncpus * 8 + 12 + 10 + 10 + 6, at = 0;
    u8 *t = table(a, "APIC", 5, size, &at);
    u8 *p;

    if (!t)
        return 0;
    put_le32(t + 36, LAYOUT_LAPIC);
    put_le32(t + 40, MADT_PCAT_COMPAT);
    p = t + 44;
    for (unsigned i = 0; i < ncpus; i++, p += 8) { /* local APICs (5.2.12.2) */
        p[0] = 0;
        p[1] = 8;
        p[2] = (u8)i;
        p[3] = (u8)i;
        put_le32(p + 4, 1); /* enabled */
    }
    p[0] = 1; /* I/O APIC (5.2.12.3), GSIs from 0 on */
    p[1] = 12;
    p[2] = LAYOUT_IOAPIC_ID;
    put_le32(p + 4, LAYOUT_IOAPIC);
    p += 12;
    put_iso(p, 0, 2, MPS_BUS_DEFAULT);
    p += 10;
    put_iso(p, LAYOUT_IRQ_SCI, LAYOUT_IRQ_SCI, MPS_ACTIVE_HIGH_LEVEL);
    p += 10;
    p[0] = 4; /* local APIC NMI (5.2.12.7): LINT1 of every processor */
    p[1] = 6;
    p[2] = 0xff;
    p[5] = 1;
    finish(t);
    return at;
}

static u64 build_mcfg(struct area *a)
{
    u64 at = 0;
    u8 *t = table(a, "MCFG", 1, HEADER_SIZE + 8 + 16, &at);

    if (!t)
        return 0;
    put_le64(t + 44, LAYOUT_ECAM);
    t[54] = 0; /* first bus */
    /* Last bus: there is no bridge to another one. Linux asks for a device at all 32 slots of every
     * bus between the two, 16,000 reads with 256 of them. */
    t[55] = 0;
    finish(t);
    return at;
}

/* AML (ACPI 6.4 chapter 20): Device (C0nn) { Name (_HID, "ACPI0007") Name (_UID, nn) }. */
#define AML_CPU_SIZE 29

static void put_cpu(u8 *p, unsigned n)
{
    static const char digit[] = "0123456789ABCDEF";

    memcpy(p,
           "\x5b\x82\x1b"
           "C0nn"
           "\x08_HID\x0d"
           "ACPI0007\0"
           "\x08_UID\x0a",
           AML_CPU_SIZE - 1);
    p[5] = (u8)digit[n >> 4 & 15];
    p[6] = (u8)digit[n & 15];
    p[28] = (u8)n;
}

/* The processors, as Scope (\_SB) { ... }; the rest of the name space is the same for every VM and
 * in the DSDT. */
static u64 build_ssdt(struct area *a, unsigned ncpus)
{
    u32 scope = 2 + 5 + ncpus * AML_CPU_SIZE; /* PkgLength, name, devices */
    u64 at = 0;
    u8 *t = table(a, "SSDT", 2, HEADER_SIZE + 1 + scope, &at);

    if (!t)
        return 0;
    t[36] = 0x10;                       /* ScopeOp */
    t[37] = (u8)(0x40 | (scope & 0xf)); /* PkgLength in two bytes */
    t[38] = (u8)(scope >> 4);
    memcpy(t + 39, "\\_SB_", 5);
    for (unsigned i = 0; i < ncpus; i++)
        put_cpu(t + 44 + i * AML_CPU_SIZE, i);
    finish(t);
    return at;
}

/* RSDT (entries of 4 bytes) and XSDT (8 bytes). */
static u64 build_root(struct area *a, const u64 *tables, unsigned n, bool xsdt)
{
    unsigned width = xsdt ? 8 : 4;
    u64 at = 0;
    u8 *t = table(a, xsdt ? "XSDT" : "RSDT", 1, HEADER_SIZE + n * width, &at);

    if (!t)
        return 0;
    for (unsigned i = 0; i < n; i++)
        if (xsdt)
            put_le64(t + HEADER_SIZE + i * 8, tables[i]);
        else
            put_le32(t + HEADER_SIZE + i * 4, (u32)tables[i]);
    finish(t);
    return at;
}

u64 acpi_build(u8 *area, u64 size, u64 base, unsigned ncpus)
{
    struct area a = {.p = area, .size = size, .base = base};
    u64 rsdp_at = 0, facs_at = 0, dsdt_at = 0, tables[4], rsdt, xsdt;
    u8 *rsdp = piece(&a, RSDP_SIZE, 16, &rsdp_at);
    u8 *facs = piece(&a, FACS_SIZE, 64, &facs_at);
    u8 *dsdt = piece(&a, sizeof(dsdt_aml_code), 16, &dsdt_at);

    if (!rsdp || !facs || !dsdt)
        return 0;
    memcpy(facs, "FACS", 4); /* 5.2.10 */
    put_le32(facs + 4, FACS_SIZE);
    facs[32] = 2; /* version */
    memcpy(dsdt, dsdt_aml_code, sizeof(dsdt_aml_code));
    tables[0] = build_fadt(&a, facs_at, dsdt_at);
    tables[1] = build_madt(&a, ncpus);
    tables[2] = build_mcfg(&a);
    tables[3] = build_ssdt(&a, ncpus);
    rsdt = build_root(&a, tables, ARRAY_SIZE(tables), false);
    xsdt = build_root(&a, tables, ARRAY_SIZE(tables), true);
    if (a.full)
        return 0;
    memcpy(rsdp, "RSD PTR ", 8); /* 5.2.5.3 */
    memcpy(rsdp + 9, OEM_ID, 6);
    rsdp[15] = 2; /* revision */
    put_le32(rsdp + 16, (u32)rsdt);
    put_le32(rsdp + 20, RSDP_SIZE);
    put_le64(rsdp + 24, xsdt);
    rsdp[8] = checksum(rsdp, 20);
    rsdp[32] = checksum(rsdp, RSDP_SIZE);
    return rsdp_at;
}
