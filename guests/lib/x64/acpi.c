// SPDX-License-Identifier: Apache-2.0
/* Finding ACPI tables, and PCI configuration through CF8/CFC. */
#include "x64.h"

static bool is_rsdp(const u8 *p)
{
    u8 sum = 0;

    if (memcmp(p, "RSD PTR ", 8) != 0)
        return false;
    for (unsigned i = 0; i < 20; i++)
        sum = (u8)(sum + p[i]);
    return sum == 0;
}

const u8 *acpi_rsdp(void)
{
    if (boot_rsdp && is_rsdp((const u8 *)(uptr)boot_rsdp)) /* from a PVH loader */
        return (const u8 *)(uptr)boot_rsdp;
    for (uptr a = 0xe0000; a < 0x100000; a += 16)
        if (is_rsdp((const u8 *)a))
            return (const u8 *)a;
    for (uptr a = 0x80000; a < 0xa0000; a += 16)
        if (is_rsdp((const u8 *)a))
            return (const u8 *)a;
    return NULL;
}

const u8 *acpi_find(const char *sig)
{
    const u8 *rsdp = acpi_rsdp(), *sdt;
    unsigned size = 4;

    if (!rsdp)
        return NULL;
    sdt = (const u8 *)(uptr) * (const u32 *)(rsdp + 16);
    if (rsdp[15] >= 2 && *(const u64 *)(rsdp + 24)) {
        sdt = (const u8 *)(uptr) * (const u64 *)(rsdp + 24);
        size = 8;
    }
    if (!sdt)
        return NULL;
    for (u32 at = 36; at + size <= *(const u32 *)(sdt + 4); at += size) {
        u64 a = *(const u32 *)(sdt + at);
        if (size == 8)
            a |= (u64) * (const u32 *)(sdt + at + 4) << 32;
        if (a && memcmp((const u8 *)a, sig, 4) == 0)
            return (const u8 *)a;
    }
    return NULL;
}

u32 pci_read(unsigned bus, unsigned dev, unsigned fn, unsigned reg)
{
    outl(0xcf8, 0x80000000U | bus << 16 | dev << 11 | fn << 8 | (reg & 0xfc));
    return inl(0xcfc);
}
