/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "board/boot.h"
#include "board/layout.h"
#include "board/legacy.h"
#include "test.h"

static u8 ram[LAYOUT_1M];

static u8 sum(const u8 *p, u64 n)
{
    u8 s = 0;

    for (u64 i = 0; i < n; i++)
        s = (u8)(s + p[i]);
    return s;
}

static const struct x86_cpu_model model = {
    .n = 2,
    .entry = {{.leaf = 0}, {.leaf = 1, .edx = 0x178bfbff}},
    .signature = 0xb00f21,
};

static int make(unsigned ncpus)
{
    return legacy_mp_table(ram + LAYOUT_MP, LAYOUT_MP_SIZE, LAYOUT_MP, &model, ncpus);
}

static void legacy__mp_table_is_whole(void **state)
{
    (void)state;
    for (unsigned ncpus = 1; ncpus <= 8; ncpus++) {
        const u8 *pointer = ram + LAYOUT_MP, *h, *p;
        unsigned seen[5] = {0}, isa = 0, pci = 0, boot = 0;

        assert_int_equal(make(ncpus), 0);
        assert_memory_equal(pointer, "_MP_", 4);
        assert_int_equal(sum(pointer, 16), 0);
        assert_int_equal(pointer[11], 0); /* there is a table */
        h = ram + get_le32(pointer + 4);
        assert_memory_equal(h, "PCMP", 4);
        assert_int_equal(sum(h, get_le16(h + 4)), 0);
        assert_int_equal(get_le32(h + 36), LAYOUT_LAPIC);
        p = h + 44;
        for (unsigned i = 0; i < get_le16(h + 34); i++) {
            assert_in_range(p[0], 0, 4);
            /* Types are in ascending order (4.3). */
            for (unsigned later = p[0] + 1u; later < 5; later++)
                assert_int_equal(seen[later], 0);
            seen[p[0]]++;
            if (p[0] == 0) {
                assert_int_equal(p[1], seen[0] - 1);
                assert_int_equal(p[3] & 1, 1);
                assert_int_equal(get_le32(p + 4), model.signature);
                assert_int_equal(get_le32(p + 8), 0x178bfbff);
                boot += p[3] >> 1 & 1;
                p += 20;
                continue;
            }
            if (p[0] == 2)
                assert_int_equal(get_le32(p + 4), LAYOUT_IOAPIC);
            if (p[0] == 3) {
                assert_int_equal(p[6], LAYOUT_IOAPIC_ID);
                isa += p[4] == 1;
                pci += p[4] == 0;
                if (p[4] == 1)
                    assert_int_equal(p[7], p[5] ? p[5] : 2);
                else
                    assert_int_equal(p[7], 16 + ((p[5] >> 2) + (p[5] & 3)) % 4);
            }
            p += 8;
        }
        assert_ptr_equal(p, h + get_le16(h + 4));
        assert_int_equal(seen[0], ncpus);
        assert_int_equal(boot, 1);
        assert_int_equal(seen[1], 2);
        assert_int_equal(seen[2], 1);
        assert_int_equal(isa, 15);
        assert_int_equal(pci, 128);
        assert_int_equal(seen[4], 2);
    }
}

static void legacy__says_when_there_is_no_room(void **state)
{
    u8 *end;

    (void)state;
    assert_int_equal(make(8), 0);
    end = ram + LAYOUT_MP + 16 + get_le16(ram + LAYOUT_MP + 16 + 4);
    for (u64 size = 0; size < (u64)(end - ram) - LAYOUT_MP; size += 7)
        assert_int_equal(legacy_mp_table(ram + LAYOUT_MP, size, LAYOUT_MP, &model, 8), -ENOSPC);
}

static void legacy__data_area_and_vectors(void **state)
{
    (void)state;
    memset(ram, 0, sizeof(ram));
    legacy_bios(ram);
    assert_int_equal(get_le16(ram + 0x400), 0x3f8);
    assert_int_equal(get_le16(ram + 0x413), 639);
    assert_int_equal(get_le16(ram + 0x40e) << 4, LAYOUT_EBDA);
    assert_int_equal(ram[LAYOUT_EBDA], 1);
    for (unsigned v = 0; v < 256; v++) {
        u32 at = (u32)get_le16(ram + v * 4 + 2) * 16 + get_le16(ram + v * 4);

        assert_in_range(at, LAYOUT_BIOS_CALLS, LAYOUT_VMGENID - 1);
        assert_int_not_equal(ram[at], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(legacy__mp_table_is_whole),
        cmocka_unit_test(legacy__says_when_there_is_no_room),
        cmocka_unit_test(legacy__data_area_and_vectors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
