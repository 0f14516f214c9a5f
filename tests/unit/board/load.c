/* SPDX-License-Identifier: Apache-2.0 */
/* The loaders: what a good image becomes, and that no bad one does harm. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "board/layout.h"
#include "board/load.h"
#include "board/load_bzimage.h"
#include "board/load_multiboot.h"
#include "images.h"
#include "test.h"

static struct test_machine t;
static u8 image[TEST_IMAGE_MAX];
static char initrd_path[] = "/tmp/unit-load-XXXXXX";

static int setup(void **state)
{
    (void)state;
    machine_init(&t, TEST_RAM);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    machine_free(&t);
    return 0;
}

static int make_initrd(void **state)
{
    int fd = mkstemp(initrd_path);

    (void)state;
    if (fd < 0 || write(fd, "initrd contents", 15) != 15)
        return -1;
    return close(fd);
}

static int remove_initrd(void **state)
{
    (void)state;
    return unlink(initrd_path);
}

static void bzimage__starts_in_64_bit_mode(void **state)
{
    u64 n = make_bzimage(image);
    const u8 *bp;

    (void)state;
    t.b.initrd = initrd_path;
    assert_int_equal(load_kernel_image(&t.b, image, n), 0);
    assert_int_equal(t.s.rip, 0x1000200);
    assert_true(x86_64bit(&t.s));
    assert_int_equal(t.s.seg[X86_CS].sel, 0x10);
    assert_int_equal(t.s.seg[X86_DS].sel, 0x18);
    assert_false(t.s.rflags & RFLAGS_IF);
    assert_int_equal(*machine_at(&t, 0x1000000), 0x90);
    /* The page tables map the kernel one to one. */
    assert_int_equal(get_le64(machine_at(&t, t.s.cr3)) & 1, 1);
    /* The GDT's descriptors are the hidden parts. */
    assert_int_equal(get_le64(machine_at(&t, t.s.gdtr.base + 0x10)), 0x00af9b000000ffff);
    assert_int_equal(get_le64(machine_at(&t, t.s.gdtr.base + 0x18)), 0x00cf93000000ffff);
    bp = machine_at(&t, t.s.gpr[X86_RSI]);
    assert_int_equal(get_le32(bp + 0x202), 0x53726448);
    assert_int_equal(bp[0x210], 0xff);
    assert_int_equal(bp[0x1e8], t.map.n);
    assert_string_equal((char *)machine_at(&t, get_le32(bp + 0x228)), "console=ttyS0");
    assert_int_equal(get_le32(bp + 0x21c), 15);
    assert_memory_equal(machine_at(&t, get_le32(bp + 0x218)), "initrd contents", 15);
    assert_int_equal(get_le64(bp + 0x70), 0xe0000);
}

static void bzimage__starts_in_32_bit_mode_without_the_other(void **state)
{
    u64 n = make_bzimage(image);

    (void)state;
    put_le16(image + 0x236, 0);
    assert_int_equal(load_kernel_image(&t.b, image, n), 0);
    assert_int_equal(t.s.rip, 0x1000000);
    assert_int_equal(t.s.cr0 & (CR0_PE | CR0_PG), CR0_PE);
    assert_int_equal(t.s.seg[X86_CS].attr & (X86_SEG_L | X86_SEG_DB), X86_SEG_DB);
}

static void bzimage__moves_up_or_refuses(void **state)
{
    struct test_machine m;
    u64 n = make_bzimage(image);

    (void)state;
    /* Its place is taken. */
    assert_int_equal(boot_take(&t.b, "something", 0x1080000, 16), 0);
    assert_int_equal(load_kernel_image(&t.b, image, n), 0);
    assert_int_equal(t.s.rip, 0x1200200);

    /* Below its place it cannot be: it would move up there. */
    machine_init(&m, 8 << 20);
    assert_int_equal(load_kernel_image(&m.b, image, n), -EINVAL);
    assert_non_null(strstr(m.err, "up to 17 MiB"));
    machine_free(&m);
}

static void bzimage__limits_command_line_and_initrd(void **state)
{
    u64 n = make_bzimage(image);
    char line[300];

    (void)state;
    memset(line, 'x', sizeof(line) - 1);
    line[299] = 0;
    t.b.cmdline = line;
    assert_int_equal(load_kernel_image(&t.b, image, n), -EINVAL);
    assert_non_null(strstr(t.err, "command line"));
    t.b.cmdline = NULL;
    t.b.n_used = 0;
    t.b.initrd = initrd_path;
    put_le32(image + 0x22c, 0x100000); /* nothing above 1 MiB */
    assert_int_equal(load_kernel_image(&t.b, image, n), -EINVAL);
    assert_non_null(strstr(t.err, "does not fit"));
}

static void bzimage__refuses_broken_headers(void **state)
{
    static const struct {
        unsigned at;
        u32 value;
        unsigned size;
    } bad[] = {
        {0x206, 0x0205, 2}, {0x211, 0, 1},          {0x201, 1, 1}, {0x230, 3, 4},
        {0x230, 0, 4},      {0x1f4, 0xffffffff, 4}, {0x1f4, 0, 4}, {0x1f1, 0xff, 1},
    };
    struct bzimage z;
    const char *why;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        u64 n = make_bzimage(image);

        for (unsigned k = 0; k < bad[i].size; k++)
            image[bad[i].at + k] = (u8)(bad[i].value >> (8 * k));
        why = NULL;
        assert_int_equal(bzimage_parse(image, n, &z, &why), -EINVAL);
        assert_non_null(why);
    }
}

static void pvh__starts_flat_with_its_information(void **state)
{
    (void)state;
    for (int is64 = 0; is64 < 2; is64++) {
        struct test_machine m;
        u64 n = make_pvh_elf(image, is64);
        const u8 *info, *module;

        machine_init(&m, TEST_RAM);
        m.b.initrd = initrd_path;
        assert_int_equal(load_kernel_image(&m.b, image, n), 0);
        assert_int_equal(m.s.rip, 0x200020);
        assert_int_equal(m.s.cr0 & (CR0_PE | CR0_PG), CR0_PE);
        info = machine_at(&m, m.s.gpr[X86_RBX]);
        assert_int_equal(get_le32(info), 0x336ec578);
        assert_int_equal(get_le32(info + 4), 1);
        assert_int_equal(get_le32(info + 12), 1);
        module = machine_at(&m, get_le64(info + 16));
        assert_memory_equal(machine_at(&m, get_le64(module)), "initrd contents", 15);
        assert_string_equal((char *)machine_at(&m, get_le64(info + 24)), "console=ttyS0");
        assert_int_equal(get_le64(info + 32), 0xe0000);
        assert_int_equal(get_le32(info + 48), m.map.n);
        assert_int_equal(get_le64(machine_at(&m, get_le64(info + 40))), 0);
        machine_free(&m);
    }
}

static void elf__without_an_entry_is_refused(void **state)
{
    u64 n = make_pvh_elf(image, true);

    (void)state;
    memcpy(image + 6176, "Nex", 4);
    assert_int_equal(load_kernel_image(&t.b, image, n), -EINVAL);
    assert_non_null(strstr(t.err, "PVH"));
}

static void multiboot__starts_elf_and_flat_images(void **state)
{
    char modules[200];

    (void)state;
    snprintf(modules, sizeof(modules), "%s one two,%s", initrd_path, initrd_path);
    for (int flat = 0; flat < 2; flat++) {
        struct test_machine m;
        u64 n = flat ? make_multiboot_flat(image) : make_multiboot_elf(image);
        const u8 *info, *mods, *mmap;

        machine_init(&m, TEST_RAM);
        m.b.initrd = modules;
        assert_int_equal(load_kernel_image(&m.b, image, n), 0);
        assert_int_equal(m.s.rip, flat ? 0x300100 : 0x200010);
        assert_int_equal(m.s.gpr[X86_RAX], 0x2badb002);
        assert_int_equal(*machine_at(&m, flat ? 0x300fff : 0x200100), 0x90);
        assert_int_equal(*machine_at(&m, flat ? 0x301000 : 0x200800), 0);
        info = machine_at(&m, m.s.gpr[X86_RBX]);
        assert_int_equal(get_le32(info + 4), 639);
        assert_int_equal(get_le32(info + 8), (TEST_RAM >> 10) - 1024);
        assert_string_equal((char *)machine_at(&m, get_le32(info + 16)), "kernel console=ttyS0");
        assert_int_equal(get_le32(info + 20), 2);
        mods = machine_at(&m, get_le32(info + 24));
        assert_memory_equal(machine_at(&m, get_le32(mods)), "initrd contents", 15);
        assert_int_equal(get_le32(mods + 4) - get_le32(mods), 15);
        assert_non_null(strstr((char *)machine_at(&m, get_le32(mods + 8)), " one two"));
        assert_int_equal(get_le32(info + 44), m.map.n * 24);
        mmap = machine_at(&m, get_le32(info + 48));
        assert_int_equal(get_le32(mmap), 20);
        machine_free(&m);
    }
}

static void multiboot__refuses_what_it_cannot_give(void **state)
{
    struct multiboot_image mb;
    const char *why = NULL;
    u64 n = make_multiboot_flat(image);

    (void)state;
    put_le32(image + 68, 4 | 1u << 16);
    put_le32(image + 72, 0u - 0x1badb002 - (4 | 1u << 16));
    assert_int_equal(multiboot_parse(image, n, &mb, &why), -EINVAL);
    assert_non_null(strstr(why, "video"));
}

static void multiboot__module_lists(void **state)
{
    char module[32];
    size_t len;
    bool ok;
    const char *rest;

    (void)state;
    rest = multiboot_next_module("a,,b c,d", module, sizeof(module), &len, &ok);
    assert_true(ok);
    assert_string_equal(module, "a,b c");
    assert_int_equal(len, 3);
    assert_string_equal(rest, "d");
    assert_null(multiboot_next_module(rest, module, sizeof(module), &len, &ok));
    assert_true(ok);
    multiboot_next_module("", module, sizeof(module), &len, &ok);
    assert_false(ok);
    multiboot_next_module("0123456789012345678901234567890123", module, sizeof(module), &len, &ok);
    assert_false(ok);
}

static void load__refuses_what_is_no_kernel(void **state)
{
    (void)state;
    memset(image, 'x', 4096);
    assert_int_equal(load_kernel_image(&t.b, image, 4096), -ENOEXEC);
    assert_non_null(strstr(t.err, "no kernel"));
    assert_true(load_kernel(&t.b, "/nonexistent/kernel") < 0);
    assert_non_null(strstr(t.err, "/nonexistent/kernel"));
    assert_true(load_kernel(&t.b, "/tmp") < 0);
    assert_true(load_kernel(&t.b, "/dev/null") < 0);
    assert_non_null(strstr(t.err, "empty"));
}

static u64 make(unsigned kind)
{
    switch (kind) {
    case 0:
        return make_bzimage(image);
    case 1:
        return make_pvh_elf(image, false);
    case 2:
        return make_pvh_elf(image, true);
    case 3:
        return make_multiboot_elf(image);
    default:
        return make_multiboot_flat(image);
    }
}

static void quiet(const char *data, u64 n)
{
    /* Exactly n bytes, so that a sanitizer sees a read beyond them. */
    u8 *copy = malloc(n ? n : 1);

    memcpy(copy, data, n);
    t.b.n_used = 0;
    load_kernel_image(&t.b, copy, n);
    free(copy);
}

/* I9 of the promises: a truncated image is refused, or is loaded; never anything else. */
static void load__survives_every_prefix(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 5; kind++) {
        u64 n = make(kind);

        for (u64 k = 0; k < n; k += k < 1200 || k > n - 600 ? 1 : 7)
            quiet((char *)image, k);
    }
}

static void load__survives_flipped_bits(void **state)
{
    u32 rng = 12345;

    (void)state;
    for (unsigned kind = 0; kind < 5; kind++)
        for (unsigned round = 0; round < 4000; round++) {
            u64 n = make(kind);
            u64 span = kind == 0 ? 0x280 : kind == 4 ? 128 : 256;

            for (unsigned flips = 1 + round % 4; flips; flips--) {
                rng = rng * 1664525 + 1013904223;
                image[(rng >> 8) % span] ^= (u8)(1u << (rng >> 29));
            }
            /* Notes too. */
            if (kind && round % 3 == 0)
                image[6144 + rng % 40] ^= (u8)(rng >> 16);
            quiet((char *)image, n);
        }
}

static void boot__places_within_ram_and_apart(void **state)
{
    u64 at[200];

    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        u64 size = 1 + (i * 7919) % 20000;

        if (i % 2)
            assert_int_equal(boot_place_low(&t.b, "it", size, 4096, &at[i]), 0);
        else
            assert_true(
                boot_place(&t.b, size, 16, 0x100000, LAYOUT_HIGH_RAM, BOOT_HIGHEST, &at[i]));
        assert_true(at[i] + size <= LAYOUT_EBDA ||
                    (at[i] >= LAYOUT_1M && at[i] + size <= TEST_RAM));
        for (unsigned k = 0; k < i; k++)
            assert_true(at[i] + size <= t.b.used[k].start || t.b.used[k].end <= at[i]);
    }
    assert_false(boot_place(&t.b, TEST_RAM, 1, 0, LAYOUT_HIGH_RAM, BOOT_LOWEST, &at[0]));
}

static void e820__covers_memory_below_and_above_the_hole(void **state)
{
    static const u64 sizes[] = {2ull << 20, 512ull << 20, 3ull << 30, (3ull << 30) + 4096,
                                16ull << 30};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct e820_map m;
        u64 ram = 0;

        e820_build(&m, sizes[i]);
        for (unsigned k = 0; k < m.n; k++) {
            assert_true(m.entry[k].size != 0);
            if (k)
                assert_true(m.entry[k].addr >= m.entry[k - 1].addr + m.entry[k - 1].size);
            if (m.entry[k].type == E820_RAM)
                ram += m.entry[k].size;
        }
        /* All but the 385 KiB from the extended BIOS data area to 1 MiB. */
        assert_int_equal(ram, sizes[i] - (0x100000 - 0x9fc00));
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bzimage__starts_in_64_bit_mode),
        TEST(bzimage__starts_in_32_bit_mode_without_the_other),
        TEST(bzimage__moves_up_or_refuses),
        TEST(bzimage__limits_command_line_and_initrd),
        TEST(bzimage__refuses_broken_headers),
        TEST(pvh__starts_flat_with_its_information),
        TEST(elf__without_an_entry_is_refused),
        TEST(multiboot__starts_elf_and_flat_images),
        TEST(multiboot__refuses_what_it_cannot_give),
        TEST(multiboot__module_lists),
        TEST(load__refuses_what_is_no_kernel),
        TEST(load__survives_every_prefix),
        TEST(load__survives_flipped_bits),
        TEST(boot__places_within_ram_and_apart),
        TEST(e820__covers_memory_below_and_above_the_hole),
    };

    return cmocka_run_group_tests(tests, make_initrd, remove_initrd);
}
