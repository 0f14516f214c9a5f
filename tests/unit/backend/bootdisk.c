/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/bootdisk/bootdisk.h"
#include "backend/bootdisk/disk.h"
#include "backend/bootdisk/loader.h"
#include "test.h"

#define MIB (1u << 20)
#define FS_SIZE (2u * MIB)
#define DISK_SIZE (8u * MIB)
#define FS_UUID "12345678-9abc-def0-1234-56789abcdef0"
#define PART_UUID "00112233-4455-6677-8899-aabbccddeeff"

static char dir[] = "/tmp/trivisor-bootdisk-XXXXXX";
static u8 *image; /* the disk under test */

/* --- disks --- */

static int memory_read(void *opaque, void *buf, size_t len, u64 off)
{
    assert_int_equal(off % DISK_SECTOR, 0);
    assert_int_equal(len % DISK_SECTOR, 0);
    memcpy(buf, (u8 *)opaque + off, len);
    return 0;
}

struct got {
    char text[65536];
    size_t n;
};

static int keep(void *opaque, const void *buf, size_t len)
{
    struct got *g = opaque;

    assert_true(g->n + len < sizeof(g->text));
    memcpy(g->text + g->n, buf, len);
    g->n += len;
    g->text[g->n] = 0;
    return 0;
}

static struct got kernel, initrd;
static struct bootdisk_answer answer;
static char err[512];

static int boot(bool root_known)
{
    struct bootdisk_request rq = {.disk = {memory_read, image, DISK_SIZE},
                                  .kernel = {keep, &kernel, 20000},
                                  .initrd = {keep, &initrd, 20000},
                                  .root_known = root_known};

    memset(&kernel, 0, sizeof(kernel));
    memset(&initrd, 0, sizeof(initrd));
    err[0] = 0;
    return bootdisk_read(&rq, &answer, err, sizeof(err));
}

static void shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void shell(const char *fmt, ...)
{
    char command[4096];
    int n = snprintf(command, sizeof(command), "cd %s && PATH=$PATH:/usr/sbin:/sbin && ", dir);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, ap);
    va_end(ap);
    if (system(command) != 0)
        fail_msg("%s", command);
}

/* Makes a file system of what the shell commands put into the current directory, at a place of the
 * disk. */
static void put_fs(u64 at, const char *options, const char *commands)
{
    char path[128];
    FILE *f;

    shell("rm -rf tree fs && mkdir tree && (cd tree && %s)", commands);
    shell("mke2fs -q -F -U " FS_UUID " %s -d tree fs %uk >/dev/null 2>&1", options, FS_SIZE / 1024);
    snprintf(path, sizeof(path), "%s/fs", dir);
    f = fopen(path, "rbe");
    assert_non_null(f);
    assert_int_equal(fread(image + at, 1, FS_SIZE, f), FS_SIZE);
    fclose(f);
}

static void put32(u8 *p, u32 v)
{
    memcpy(p, &v, 4);
}

static void put64(u8 *p, u64 v)
{
    memcpy(p, &v, 8);
}

static u32 crc32_of(const u8 *p, size_t n)
{
    u32 crc = 0xffffffff;

    while (n--) {
        crc ^= *p++;
        for (unsigned i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void seal_gpt(u8 *h, const u8 *table)
{
    put32(h + 88, crc32_of(table, 128 * 128));
    put32(h + 16, 0);
    put32(h + 16, crc32_of(h, 92));
}

/* Partitions of FS_SIZE at 1 MiB, 3 MiB and so on. */
static void put_gpt(unsigned parts)
{
    static const u8 uuid[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
                                0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
    u8 *h = image + 512, *table = image + 1024, *last = image + DISK_SIZE - 512;

    image[510] = 0x55;
    image[511] = 0xaa;
    image[446 + 4] = 0xee;
    memcpy(h, "EFI PART", 8);
    put32(h + 12, 92);
    put64(h + 72, 2);
    put32(h + 80, 128);
    put32(h + 84, 128);
    for (unsigned i = 0; i < parts; i++) {
        u8 *e = table + i * 128;

        memset(e, 0x5a, 16);
        memcpy(e + 16, uuid, 16);
        put64(e + 32, (MIB + (u64)i * FS_SIZE) / 512);
        put64(e + 40, (MIB + (u64)(i + 1) * FS_SIZE) / 512 - 1);
    }
    seal_gpt(h, table);
    /* The backup has its table before it. */
    memcpy(last - 128 * 128, table, 128 * 128);
    memcpy(last, h, 512);
    put64(last + 72, DISK_SIZE / 512 - 1 - 32);
    seal_gpt(last, table);
}

static int set_up(void **state)
{
    (void)state;
    image = calloc(1, DISK_SIZE);
    return image ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    free(image);
    return 0;
}

#define DEBIAN                                                                                     \
    "mkdir -p boot etc && echo kernel-1 >boot/vmlinuz-6.1.0-9-amd64 && "                           \
    "echo initrd-1 >boot/initrd.img-6.1.0-9-amd64 && "                                             \
    "echo kernel-2 >boot/vmlinuz-6.1.0-10-amd64 && "                                               \
    "echo initrd-2 >boot/initrd.img-6.1.0-10-amd64 && touch etc/fstab"
#define LINKS                                                                                      \
    " && ln -s boot/vmlinuz-6.1.0-9-amd64 vmlinuz && "                                             \
    "ln -s /boot/initrd.img-6.1.0-9-amd64 initrd.img"

/* --- tests --- */

static void bootdisk__follows_debians_links(void **state)
{
    (void)state;
    put_gpt(1);
    put_fs(MIB, "-t ext4", DEBIAN LINKS);
    assert_int_equal(boot(false), 0);
    assert_string_equal(answer.kernel, "/vmlinuz");
    assert_string_equal(kernel.text, "kernel-1\n");
    assert_string_equal(initrd.text, "initrd-1\n");
    assert_true(answer.has_initrd);
    assert_string_equal(answer.args, "root=UUID=" FS_UUID " ro");
    assert_int_equal(boot(true), 0);
    assert_string_equal(answer.args, "");
}

static void bootdisk__takes_the_highest_version(void **state)
{
    static const char *const types[] = {"-t ext4", "-t ext3 -b 1024", "-t ext2 -b 4096",
                                        "-t ext4 -O ^64bit,^metadata_csum -I 128"};

    (void)state;
    put_gpt(1);
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        put_fs(MIB, types[i], DEBIAN);
        assert_int_equal(boot(false), 0);
        assert_string_equal(answer.kernel, "/boot/vmlinuz-6.1.0-10-amd64");
        assert_string_equal(kernel.text, "kernel-2\n");
        assert_string_equal(initrd.text, "initrd-2\n");
    }
}

static void bootdisk__without_initrd_names_the_partition(void **state)
{
    (void)state;
    put_gpt(1);
    put_fs(MIB, "-t ext4", "mkdir -p boot sbin && echo k >boot/vmlinuz-1 && touch sbin/init");
    assert_int_equal(boot(false), 0);
    assert_false(answer.has_initrd);
    assert_string_equal(answer.args, "root=PARTUUID=" PART_UUID " ro");
}

static void bootdisk__reads_a_disk_without_partitions(void **state)
{
    (void)state;
    put_fs(0, "-t ext4", DEBIAN LINKS);
    assert_int_equal(boot(false), 0);
    assert_string_equal(kernel.text, "kernel-1\n");
    /* A boot sector in front of the file system is no partition table. */
    image[510] = 0x55;
    image[511] = 0xaa;
    image[446 + 4] = 0x83;
    put32(image + 446 + 8, 2048);
    put32(image + 446 + 12, 2048);
    assert_int_equal(boot(false), 0);
}

static void bootdisk__reads_mbr_and_logical_partitions(void **state)
{
    u8 *link = image + 3 * MIB;

    (void)state;
    put32(image + 440, 0xdeadbeef);
    image[510] = link[510] = 0x55;
    image[511] = link[511] = 0xaa;
    image[446 + 4] = 0x83; /* one primary partition, with nothing in it */
    put32(image + 446 + 8, 2048);
    put32(image + 446 + 12, 2048);
    image[462 + 4] = 0x0f;
    put32(image + 462 + 8, 3 * 2048);
    put32(image + 462 + 12, 5 * 2048);
    link[446 + 4] = 0x83;
    put32(link + 446 + 8, 2048);
    put32(link + 446 + 12, FS_SIZE / 512);
    put_fs(4 * MIB, "-t ext4", "mkdir -p boot sbin && echo k >boot/vmlinuz-1 && touch sbin/init");
    assert_int_equal(boot(false), 0);
    assert_string_equal(answer.args, "root=PARTUUID=deadbeef-05 ro");
    /* A chain that comes back to itself. */
    link[446 + 4] = 0;
    link[462 + 4] = 0x05;
    assert_int_equal(boot(false), -EINVAL);
    assert_non_null(strstr(err, "no kernel is on it"));
}

static void bootdisk__uses_the_backup_table(void **state)
{
    (void)state;
    put_gpt(1);
    put_fs(MIB, "-t ext4", DEBIAN LINKS);
    image[512 + 20] ^= 1; /* the CRC does not fit any more */
    assert_int_equal(boot(false), 0);
    image[DISK_SIZE - 512 + 20] ^= 1;
    assert_int_equal(boot(false), -EINVAL);
}

static void bootdisk__believes_grub(void **state)
{
    (void)state;
    put_gpt(1);
    put_fs(MIB, "-t ext4",
           DEBIAN LINKS " && mkdir boot/grub && echo early >boot/early && "
                        "printf \"menuentry 'Debian' {\\n\\tlinux\\t/boot/vmlinuz-6.1.0-10-amd64 "
                        "root=UUID=abc ro  quiet \\$extra\\n\\tinitrd /boot/early "
                        "/boot/initrd.img-6.1.0-10-amd64\\n}\\n\" >boot/grub/grub.cfg");
    assert_int_equal(boot(false), 0);
    assert_string_equal(kernel.text, "kernel-2\n");
    /* Joined, each at a multiple of four. */
    assert_int_equal(initrd.n, 8 + 9);
    assert_memory_equal(initrd.text, "early\n\0\0initrd-2\n", 17);
    assert_string_equal(answer.args, "root=UUID=abc ro quiet");
}

static void bootdisk__finds_the_root_of_a_boot_partition(void **state)
{
    (void)state;
    put_gpt(2);
    put_fs(MIB, "-t ext2", "echo k >vmlinuz-5 && echo i >initramfs-5.img");
    assert_int_equal(boot(false), -EINVAL);
    assert_non_null(strstr(err, "where is its root file system"));
    assert_int_equal(boot(true), 0);
    put_fs(MIB + FS_SIZE, "-t ext4", "mkdir etc && touch etc/fstab");
    assert_int_equal(boot(false), 0);
    assert_string_equal(answer.args, "root=UUID=" FS_UUID " ro");
    assert_string_equal(kernel.text, "k\n");
    assert_string_equal(initrd.text, "i\n");
}

static void bootdisk__reads_boot_loader_entries(void **state)
{
    (void)state;
    put_gpt(1);
    put_fs(MIB, "-t ext4",
           "mkdir -p loader/entries && echo old >old && echo new >new && echo i >i && "
           "printf 'title Old\\nlinux /old\\noptions root=/dev/vda9\\n' >loader/entries/x-1.9.conf "
           "&& printf 'title New\\nlinux /new\\ninitrd /i\\noptions root=UUID=77 rw $x\\n' "
           ">loader/entries/x-1.10.conf && touch loader/entries/z-rescue.conf");
    assert_int_equal(boot(false), 0);
    assert_string_equal(kernel.text, "new\n");
    assert_string_equal(initrd.text, "i\n");
    assert_string_equal(answer.args, "root=UUID=77 rw");
}

static void bootdisk__names_what_it_cannot_read(void **state)
{
    static const struct {
        u64 at;
        const char *mark, *name;
    } kinds[] = {{0, "XFSB", "XFS"}, {0x10040, "_BHRfS_M", "btrfs"}, {0x218, "LVM2 001", "LVM"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        memset(image, 0, DISK_SIZE);
        put_gpt(1);
        memcpy(image + MIB + kinds[i].at, kinds[i].mark, strlen(kinds[i].mark));
        assert_int_equal(boot(false), -EINVAL);
        assert_non_null(strstr(err, kinds[i].name));
        assert_non_null(strstr(err, "partition 1"));
        assert_non_null(strstr(err, "-k"));
    }
}

static void bootdisk__refuses_what_is_too_large_or_no_file(void **state)
{
    (void)state;
    put_gpt(1);
    put_fs(MIB, "-t ext4", "mkdir etc && truncate -s 20001 vmlinuz && touch etc/fstab");
    assert_int_equal(boot(false), -EINVAL);
    assert_non_null(strstr(err, "20001"));
    put_fs(MIB, "-t ext4", "mkdir etc vmlinuz && touch etc/fstab");
    assert_int_equal(boot(false), -EINVAL);
    put_fs(MIB, "-t ext4", "mkdir etc && ln -s vmlinuz vmlinuz && touch etc/fstab");
    assert_int_equal(boot(false), -EINVAL);
    /* Holes are zeroes, and the file has a size of its own. */
    put_fs(MIB, "-t ext4", "mkdir etc && truncate -s 20000 vmlinuz && touch etc/fstab");
    assert_int_equal(boot(false), 0);
    assert_int_equal(kernel.n, 20000);
}

static void bootdisk__survives_damage(void **state)
{
    u8 *good = malloc(FS_SIZE);
    u32 seed = 1;
    unsigned booted = 0;

    (void)state;
    put_gpt(1);
    put_fs(MIB, "-t ext4 -O ^metadata_csum", DEBIAN LINKS);
    memcpy(good, image + MIB, FS_SIZE);
    for (unsigned round = 0; round < 1000; round++) {
        memcpy(image + MIB, good, FS_SIZE);
        for (unsigned i = 0; i < 1 + round % 20; i++) {
            seed = seed * 1103515245 + 12345;
            /* Where the metadata is: the first blocks hold superblock, descriptors, tables. */
            image[MIB + 1024 + (seed >> 8) % (round % 2 ? 8192 : 300000)] = (u8)(seed >> 3);
        }
        if (!boot(false))
            booted++;
        else
            assert_true(err[0]);
    }
    assert_true(booted > 0);
    free(good);
}

static void loader__reads_grub_cfg(void **state)
{
    static struct loader_entry e;

    (void)state;
    assert_true(loader_grub("set x=1\n  linux ($root)/vmlinuz a\n"
                            "linuxefi \"/boot/my kernel\" root='LABEL=a b' $v quiet\n"
                            "initrdefi /i1 $i /i2\n}\ninitrd /i3\n",
                            &e));
    assert_string_equal(e.kernel, "/boot/my kernel");
    assert_string_equal(e.args, "root=LABEL=a b quiet");
    assert_int_equal(e.n_initrd, 2);
    assert_string_equal(e.initrd[1], "/i2");
    assert_false(loader_grub("", &e));
    assert_false(loader_grub("linux", &e));
    assert_false(loader_grub("linux relative\nblscfg", &e));
    assert_false(loader_grub("chainloader /efi/x\ninitrd /boot/i", &e));
}

static void loader__bounds_words(void **state)
{
    static char text[20000];
    static struct loader_entry e;

    (void)state;
    memset(text, 'a', sizeof(text) - 1);
    memcpy(text, "linux /", 7);
    assert_false(loader_grub(text, &e));
    memcpy(text, "linux /k ", 9);
    text[5000] = ' ';
    memcpy(text + 19990, " end", 4);
    assert_true(loader_grub(text, &e));
    assert_string_equal(e.kernel, "/k");
    assert_string_equal(e.args, "endaaaaa");
    for (size_t i = 9; i < sizeof(text) - 1; i++)
        text[i] = i % 2 ? 'b' : ' ';
    assert_true(loader_grub(text, &e));
    assert_true(strlen(e.args) < BOOTDISK_ARGS_MAX);
}

static void loader__finds_words(void **state)
{
    (void)state;
    assert_true(loader_has("root=x", "root="));
    assert_true(loader_has("ro root=x", "root="));
    assert_false(loader_has("xroot=x", "root="));
    assert_false(loader_has("", "root="));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(bootdisk__follows_debians_links),
        T(bootdisk__takes_the_highest_version),
        T(bootdisk__without_initrd_names_the_partition),
        T(bootdisk__reads_a_disk_without_partitions),
        T(bootdisk__reads_mbr_and_logical_partitions),
        T(bootdisk__uses_the_backup_table),
        T(bootdisk__believes_grub),
        T(bootdisk__finds_the_root_of_a_boot_partition),
        T(bootdisk__reads_boot_loader_entries),
        T(bootdisk__names_what_it_cannot_read),
        T(bootdisk__refuses_what_is_too_large_or_no_file),
        T(bootdisk__survives_damage),
        cmocka_unit_test(loader__reads_grub_cfg),
        cmocka_unit_test(loader__bounds_words),
        cmocka_unit_test(loader__finds_words),
    };
    char command[64];
    int failed;

    if (!mkdtemp(dir))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command) ? 1 : failed;
}
