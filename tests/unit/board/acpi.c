/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "board/acpi.h"
#include "board/boot.h"
#include "board/layout.h"
#include "test.h"

static u8 area[LAYOUT_BIOS_SIZE];

static const u8 *at(u64 addr)
{
    assert_in_range(addr, LAYOUT_BIOS, LAYOUT_BIOS + LAYOUT_BIOS_SIZE - 1);
    return area + (addr - LAYOUT_BIOS);
}

static void sums_to_zero(const u8 *p, u64 n)
{
    u8 sum = 0;

    for (u64 i = 0; i < n; i++)
        sum = (u8)(sum + p[i]);
    assert_int_equal(sum, 0);
}

static const u8 *find(const u8 *xsdt, const char *signature)
{
    for (u32 i = 36; i < get_le32(xsdt + 4); i += 8)
        if (!memcmp(at(get_le64(xsdt + i)), signature, 4))
            return at(get_le64(xsdt + i));
    return NULL;
}

static void acpi__tables_are_whole_and_linked(void **state)
{
    static const char *const wanted[] = {"FACP", "APIC", "MCFG", "SSDT"};

    (void)state;
    for (unsigned ncpus = 1; ncpus <= 8; ncpus++) {
        const u8 *rsdp, *xsdt, *rsdt, *fadt, *madt;
        unsigned lapics = 0;

        memset(area, 0, sizeof(area));
        assert_int_equal(acpi_build(area, sizeof(area), LAYOUT_BIOS, ncpus), LAYOUT_BIOS);
        rsdp = at(LAYOUT_BIOS);
        assert_memory_equal(rsdp, "RSD PTR ", 8);
        sums_to_zero(rsdp, 20);
        sums_to_zero(rsdp, 36);
        xsdt = at(get_le64(rsdp + 24));
        rsdt = at(get_le32(rsdp + 16));
        sums_to_zero(xsdt, get_le32(xsdt + 4));
        sums_to_zero(rsdt, get_le32(rsdt + 4));
        for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
            const u8 *t = find(xsdt, wanted[i]);

            assert_non_null(t);
            sums_to_zero(t, get_le32(t + 4));
        }
        fadt = find(xsdt, "FACP");
        assert_memory_equal(at(get_le32(fadt + 40)), "DSDT", 4);
        sums_to_zero(at(get_le32(fadt + 40)), get_le32(at(get_le32(fadt + 40)) + 4));
        assert_memory_equal(at(get_le32(fadt + 36)), "FACS", 4);
        assert_int_equal(get_le32(fadt + 80), LAYOUT_GPE0_PORT);
        assert_int_equal(get_le64(fadt + 224), LAYOUT_GPE0_PORT);
        madt = find(xsdt, "APIC");
        for (u32 i = 44; i < get_le32(madt + 4); i += madt[i + 1]) {
            assert_true(madt[i + 1] >= 2);
            lapics += madt[i] == 0;
        }
        assert_int_equal(lapics, ncpus);
    }
}

/* What memmem() would do: the place of a name in the DSDT. */
static const u8 *name_in(const u8 *dsdt, const char *name)
{
    for (u32 i = 36; i < get_le32(dsdt + 4) - 4; i++)
        if (!memcmp(dsdt + i, name, 4))
            return dsdt + i;
    return NULL;
}

/* The name space has numbers of its own. */
static void acpi__generation_id(void **state)
{
    const u8 *fadt, *p;

    (void)state;
    memset(area, 0, sizeof(area));
    assert_int_equal(acpi_build(area, LAYOUT_ACPI_SIZE, LAYOUT_BIOS, 8), LAYOUT_BIOS);
    fadt = find(at(get_le64(at(LAYOUT_BIOS) + 24)), "FACP");
    p = name_in(at(get_le32(fadt + 40)), "ADDR");
    assert_non_null(p);
    assert_int_equal(p[4], 0x12); /* Package (2) { DWord, 0 } (ACPI 6.4 20.2.5.4) */
    assert_int_equal(p[6], 2);
    assert_int_equal(p[7], 0x0c);
    assert_int_equal(get_le32(p + 8), LAYOUT_VMGENID);
    assert_int_equal(p[12], 0);
    assert_non_null(name_in(at(get_le32(fadt + 40)), "_E05"));
}

static void acpi__slots_that_can_be_ejected(void **state)
{
    const u8 *dsdt;

    (void)state;
    memset(area, 0, sizeof(area));
    assert_int_equal(acpi_build(area, LAYOUT_ACPI_SIZE, LAYOUT_BIOS, 8), LAYOUT_BIOS);
    dsdt = at(get_le32(find(at(get_le64(at(LAYOUT_BIOS) + 24)), "FACP") + 40));
    for (unsigned i = 0; i < LAYOUT_HOTPLUG_SLOTS; i++) {
        unsigned slot = LAYOUT_HOTPLUG_FIRST + i;
        char name[5];
        const u8 *p;

        snprintf(name, sizeof(name), "S%u_", slot);
        p = name_in(dsdt, name);
        assert_non_null(p);
        /* Name (_ADR, DWord) Name (_SUN, Byte) Method (_EJ0, 1) { HPEJ = DWord } */
        assert_memory_equal(p + 4, "\x08_ADR\x0c", 6);
        assert_int_equal(get_le32(p + 10), slot << 16);
        assert_memory_equal(p + 14, "\x08_SUN\x0a", 6);
        assert_int_equal(p[20], slot);
        assert_memory_equal(p + 23, "_EJ0\x01\x70\x0c", 7);
        assert_int_equal(get_le32(p + 30), BIT32(slot));
        assert_memory_equal(p + 34, "HPEJ", 4);
    }
    assert_non_null(name_in(dsdt, "_E01"));
}

static void acpi__says_when_there_is_no_room(void **state)
{
    (void)state;
    for (u64 size = 0; size < 1800; size += 13)
        assert_int_equal(acpi_build(area, size > 900 ? 900 : size, LAYOUT_BIOS, 8), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acpi__tables_are_whole_and_linked),
        cmocka_unit_test(acpi__generation_id),
        cmocka_unit_test(acpi__slots_that_can_be_ejected),
        cmocka_unit_test(acpi__says_when_there_is_no_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
