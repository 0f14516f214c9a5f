/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "board/layout.h"
#include "board/load_bzimage.h"

/* Fields of the setup header, at the same offsets in the file and in struct boot_params (the "zero
 * page", Linux Documentation/x86/zero-page.rst). */
#define HDR_START 0x1f1
#define HDR_SETUP_SECTS 0x1f1
#define HDR_SYSSIZE 0x1f4
#define HDR_VID_MODE 0x1fa
#define HDR_BOOT_FLAG 0x1fe
#define HDR_JUMP_LENGTH 0x201
#define HDR_MAGIC 0x202
#define HDR_VERSION 0x206
#define HDR_TYPE_OF_LOADER 0x210
#define HDR_LOADFLAGS 0x211
#define HDR_CODE32_START 0x214
#define HDR_RAMDISK_IMAGE 0x218
#define HDR_RAMDISK_SIZE 0x21c
#define HDR_CMD_LINE_PTR 0x228
#define HDR_INITRD_ADDR_MAX 0x22c
#define HDR_KERNEL_ALIGNMENT 0x230
#define HDR_RELOCATABLE 0x234
#define HDR_XLOADFLAGS 0x236
#define HDR_CMDLINE_SIZE 0x238
#define HDR_PREF_ADDRESS 0x258
#define HDR_INIT_SIZE 0x260
#define HDR_LAST 0x290 /* what struct boot_params has room for */

#define MAGIC 0x53726448u /* "HdrS" */
#define LOADFLAGS_LOADED_HIGH 0x01
#define LOADFLAGS_KEEP_SEGMENTS 0x40
#define LOADFLAGS_CAN_USE_HEAP 0x80
#define XLF_KERNEL_64 0x0001
#define ENTRY64_OFFSET 0x200
#define LOADER_UNDEFINED 0xff
#define VID_MODE_NORMAL 0xffff

/* The rest of struct boot_params. */
#define BP_SIZE 4096
#define BP_ACPI_RSDP 0x070
#define BP_ALT_MEM_K 0x1e0
#define BP_E820_ENTRIES 0x1e8
#define BP_E820_TABLE 0x2d0
#define BP_E820_ENTRY_SIZE 20

#define LOAD_ADDRESS 0x100000ull

static int broken(const char **why, const char *text)
{
    *why = text;
    return -EINVAL;
}

int bzimage_parse(const u8 *buf, u64 n, struct bzimage *z, const char **why)
{
    u64 setup_sects, syssize;

    if (n < HDR_VERSION + 2 || get_le16(buf + HDR_BOOT_FLAG) != 0xaa55 ||
        get_le32(buf + HDR_MAGIC) != MAGIC)
        return -ENOEXEC;
    memset(z, 0, sizeof(*z));
    z->version = get_le16(buf + HDR_VERSION);
    if (z->version < 0x206)
        return broken(why, "its boot protocol is older than 2.06 (Linux 2.6.22)");
    z->header_end = HDR_MAGIC + (u64)buf[HDR_JUMP_LENGTH];
    if (z->header_end < HDR_CMDLINE_SIZE + 4 ||
        (z->version >= 0x20a && z->header_end < HDR_INIT_SIZE + 4))
        return broken(why, "its setup header is too short");
    if (z->header_end > HDR_LAST)
        z->header_end = HDR_LAST;
    if (n < z->header_end)
        return broken(why, "it is truncated in the setup header");
    if (!(buf[HDR_LOADFLAGS] & LOADFLAGS_LOADED_HIGH))
        return broken(why, "it is a zImage, which is loaded low; only a bzImage can be booted");

    setup_sects = buf[HDR_SETUP_SECTS] ? buf[HDR_SETUP_SECTS] : 4;
    z->payload_offset = (setup_sects + 1) * 512;
    syssize = (u64)get_le32(buf + HDR_SYSSIZE) * 16;
    if (n <= z->payload_offset)
        return broken(why, "it is truncated: there is no kernel behind the setup code");
    z->payload_size = n - z->payload_offset;
    if (!syssize)
        return broken(why, "its setup header gives the kernel no size");
    /* syssize counts paragraphs, rounded up. */
    if (z->payload_size + 15 < syssize)
        return broken(why, "it is truncated: the kernel is shorter than its header says");
    if (z->payload_size > syssize)
        z->payload_size = syssize;

    z->relocatable = buf[HDR_RELOCATABLE] != 0;
    z->alignment = get_le32(buf + HDR_KERNEL_ALIGNMENT);
    if (z->relocatable &&
        (!z->alignment || (z->alignment & (z->alignment - 1)) || z->alignment > LAYOUT_LOW_RAM_MAX))
        return broken(why, "its alignment is no power of two");
    z->cmdline_max = get_le32(buf + HDR_CMDLINE_SIZE);
    z->initrd_max = get_le32(buf + HDR_INITRD_ADDR_MAX);
    z->pref_address = LOAD_ADDRESS;
    z->init_size = z->payload_size;
    if (z->version >= 0x20a) {
        z->pref_address = get_le64(buf + HDR_PREF_ADDRESS);
        if (z->pref_address < LOAD_ADDRESS)
            return broken(why, "it wants to be loaded below 1 MiB");
        if (get_le32(buf + HDR_INIT_SIZE) > z->init_size)
            z->init_size = get_le32(buf + HDR_INIT_SIZE);
    }
    z->entry64 = z->version >= 0x20c && (get_le16(buf + HDR_XLOADFLAGS) & XLF_KERNEL_64);
    if (z->entry64 && z->payload_size <= ENTRY64_OFFSET)
        return broken(why, "it has no code at its 64-bit entry");
    return 0;
}

/* Where the kernel goes: where it wants to be, or if it can, above. Never below: although the
 * protocol allows it, x86 kernels then move themselves up to the preferred address, and their
 * memory must be there. */
static int place_kernel(struct boot *b, const struct bzimage *z, u64 *load)
{
    if (boot_is_free(b, z->pref_address, z->init_size)) {
        *load = z->pref_address;
        return boot_take(b, "the kernel", *load, z->init_size);
    }
    if (z->relocatable && boot_place(b, z->init_size, z->alignment, z->pref_address,
                                     LAYOUT_HIGH_RAM, BOOT_LOWEST, load))
        return 0;
    return boot_fail(
        b, "%s: the kernel needs memory up to %llu MiB, and there are %llu MiB", b->kernel_name,
        (unsigned long long)((z->pref_address >> 20) + ((z->init_size + 0xfffff) >> 20)),
        (unsigned long long)(b->ram >> 20));
}

static void fill_e820(u8 *bp, const struct e820_map *map)
{
    bp[BP_E820_ENTRIES] = (u8)map->n;
    for (unsigned i = 0; i < map->n; i++) {
        u8 *e = bp + BP_E820_TABLE + i * BP_E820_ENTRY_SIZE;

        put_le64(e, map->entry[i].addr);
        put_le64(e + 8, map->entry[i].size);
        put_le32(e + 16, map->entry[i].type);
    }
}

int bzimage_load(struct boot *b, const struct bzimage *z, const u8 *buf)
{
    const char *cmdline = b->cmdline ? b->cmdline : b->linux_default ? b->linux_default : "";
    u64 load, params, cmdline_at, initrd = 0, initrd_size = 0, hi;
    u8 bp[BP_SIZE] = {0};
    int r;

    if (strlen(cmdline) > z->cmdline_max)
        return boot_fail(b, "the command line has %zu bytes, and %s takes at most %llu",
                         strlen(cmdline), b->kernel_name, (unsigned long long)z->cmdline_max);
    r = place_kernel(b, z, &load);
    if (!r)
        r = boot_write(b, load, buf + z->payload_offset, z->payload_size);
    if (!r)
        r = boot_place_low(b, "the boot parameters", BP_SIZE, PAGE_SIZE, &params);
    if (!r)
        r = boot_place_string(b, "the command line", cmdline, &cmdline_at);
    if (!r)
        r = z->entry64 ? boot_enter_flat64(b, load + ENTRY64_OFFSET)
                       : boot_enter_flat32(b, 0x10, 0x18, load);
    if (r)
        return r;
    if (b->initrd) {
        hi = z->initrd_max + 1 < LAYOUT_HIGH_RAM ? z->initrd_max + 1 : LAYOUT_HIGH_RAM;
        r = boot_place_initrd(b, b->initrd, hi, &initrd, &initrd_size);
        if (r)
            return r;
    }

    memcpy(bp + HDR_START, buf + HDR_START, z->header_end - HDR_START);
    bp[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    bp[HDR_LOADFLAGS] &= (u8) ~(LOADFLAGS_KEEP_SEGMENTS | LOADFLAGS_CAN_USE_HEAP);
    put_le16(bp + HDR_VID_MODE, VID_MODE_NORMAL);
    put_le32(bp + HDR_CODE32_START, (u32)load);
    put_le32(bp + HDR_CMD_LINE_PTR, (u32)cmdline_at);
    put_le32(bp + HDR_RAMDISK_IMAGE, (u32)initrd);
    put_le32(bp + HDR_RAMDISK_SIZE, (u32)initrd_size);
    put_le64(bp + BP_ACPI_RSDP, b->rsdp);
    put_le32(bp + BP_ALT_MEM_K, (u32)((e820_low_ram(b->ram) - LAYOUT_1M) >> 10));
    fill_e820(bp, b->map);
    b->s->gpr[X86_RSI] = params;
    return boot_write(b, params, bp, sizeof(bp));
}
