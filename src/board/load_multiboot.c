/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "board/layout.h"
#include "board/load_multiboot.h"

/* The header: in the first 8 KiB, 4-aligned (section 3.1). */
#define SEARCH 8192
#define HEADER_MAGIC 0x1badb002u
#define HEADER_SIZE 12
#define HEADER_ADDRESSES_SIZE 32
#define FLAG_VIDEO BIT32(2)
#define FLAG_ADDRESSES BIT32(16)
/* Flags 0..15 are demands: pages aligned, memory map, video mode. */
#define FLAGS_DEMANDS 0xffffu
#define FLAGS_KNOWN 0x0003u

/* The information structure (section 3.3). */
#define BOOT_MAGIC 0x2badb002u
#define INFO_SIZE 120
#define INFO_FLAGS 0
#define INFO_MEM_LOWER 4
#define INFO_MEM_UPPER 8
#define INFO_CMDLINE 16
#define INFO_MODS_COUNT 20
#define INFO_MODS_ADDR 24
#define INFO_MMAP_LENGTH 44
#define INFO_MMAP_ADDR 48
#define INFO_LOADER_NAME 64
#define INFO_HAS_MEMORY BIT32(0)
#define INFO_HAS_CMDLINE BIT32(2)
#define INFO_HAS_MODS BIT32(3)
#define INFO_HAS_MMAP BIT32(6)
#define INFO_HAS_LOADER_NAME BIT32(9)
#define MODULE_SIZE 16
#define MMAP_ENTRY_SIZE 24

#define MODULES_MAX 64
#define MODULE_TEXT_MAX 4096

static int broken(const char **why, const char *text)
{
    *why = text;
    return -EINVAL;
}

/* The image as one segment, described by addresses in the header (section 3.1.3). */
static int parse_addresses(const u8 *buf, u64 n, u64 header, struct elf_image *out,
                           const char **why)
{
    u64 header_addr, load, load_end, bss_end, offset, filesz;

    if (n - header < HEADER_ADDRESSES_SIZE)
        return broken(why, "it is truncated in the Multiboot header");
    header_addr = get_le32(buf + header + 12);
    load = get_le32(buf + header + 16);
    load_end = get_le32(buf + header + 20);
    bss_end = get_le32(buf + header + 24);
    out->entry = get_le32(buf + header + 28);
    if (load > header_addr || header_addr - load > header)
        return broken(why, "its Multiboot load address is impossible");
    offset = header - (header_addr - load);
    if (load_end && load_end < load)
        return broken(why, "its Multiboot addresses are out of order");
    filesz = load_end ? load_end - load : n - offset;
    if (filesz > n - offset)
        return broken(why, "it is truncated: its text and data go beyond the end of the file");
    if (bss_end && bss_end < load + filesz)
        return broken(why, "its Multiboot addresses are out of order");
    out->n = 1;
    out->segment[0] = (struct elf_segment){.offset = offset,
                                           .filesz = filesz,
                                           .paddr = load,
                                           .memsz = bss_end ? bss_end - load : filesz};
    if (!out->segment[0].memsz)
        return broken(why, "it has nothing to load");
    if (out->segment[0].memsz > LAYOUT_HIGH_RAM - load)
        return broken(why, "it is not below 4 GiB");
    return 0;
}

int multiboot_parse(const u8 *buf, u64 n, struct multiboot_image *out, const char **why)
{
    u64 header, last = n < SEARCH ? n : SEARCH;
    int r;

    for (header = 0;; header += 4) {
        if (header + HEADER_SIZE > last)
            return -ENOEXEC;
        if (get_le32(buf + header) == HEADER_MAGIC &&
            get_le32(buf + header) + get_le32(buf + header + 4) + get_le32(buf + header + 8) == 0)
            break;
    }
    memset(out, 0, sizeof(*out));
    out->flags = get_le32(buf + header + 4);
    if (out->flags & FLAG_VIDEO)
        return broken(why, "it demands a video mode, and there is no display");
    if (out->flags & FLAGS_DEMANDS & ~FLAGS_KNOWN)
        return broken(why, "it demands Multiboot features that do not exist");
    if (out->flags & FLAG_ADDRESSES)
        return parse_addresses(buf, n, header, &out->image, why);
    r = elf_parse(buf, n, &out->image, why);
    if (r == -ENOEXEC)
        return broken(why, "it has a Multiboot header, but neither addresses in it nor ELF format");
    if (!r && out->image.entry >= LAYOUT_HIGH_RAM)
        return broken(why, "its entry point is not below 4 GiB");
    return r;
}

const char *multiboot_next_module(const char *list, char *module, size_t size, size_t *file_len,
                                  bool *ok)
{
    size_t n = 0;

    *ok = true;
    while (*list && (*list != ',' || list[1] == ',')) {
        if (*list == ',')
            list++;
        if (n + 1 < size)
            module[n++] = *list;
        else
            *ok = false;
        list++;
    }
    module[n] = 0;
    *file_len = strcspn(module, " ");
    if (!*file_len)
        *ok = false;
    return *list ? list + 1 : NULL;
}

/* Loads the modules and gives their descriptions in table. Returns their number or -errno. */
static int load_modules(struct boot *b, u8 *table)
{
    char *text = malloc(MODULE_TEXT_MAX);
    const char *list = b->initrd;
    int n = 0;

    if (!text)
        return boot_fail(b, "out of memory");
    while (list) {
        u64 addr, size, string;
        size_t file_len;
        char after;
        bool ok;
        int r;

        list = multiboot_next_module(list, text, MODULE_TEXT_MAX, &file_len, &ok);
        if (!ok)
            r = boot_fail(b, "initrd: module %d has no file name or is too long", n + 1);
        else if (n == MODULES_MAX)
            r = boot_fail(b, "initrd: more than %d modules", MODULES_MAX);
        else
            r = boot_place_string(b, "a module's command line", text, &string);
        if (!r) {
            after = text[file_len];
            text[file_len] = 0;
            r = boot_place_initrd(b, text, LAYOUT_HIGH_RAM, &addr, &size);
            text[file_len] = after;
        }
        if (r) {
            free(text);
            return r;
        }
        put_le32(table + n * MODULE_SIZE, (u32)addr);
        put_le32(table + n * MODULE_SIZE + 4, (u32)(addr + size));
        put_le32(table + n * MODULE_SIZE + 8, (u32)string);
        put_le32(table + n * MODULE_SIZE + 12, 0);
        n++;
    }
    free(text);
    return n;
}

/* "KERNEL ARGUMENTS", as boot loaders of this protocol pass it. */
static int place_cmdline(struct boot *b, u64 *at)
{
    const char *args = b->cmdline ? b->cmdline : "";
    size_t n = strlen(b->kernel_name), m = strlen(args);
    char *text = malloc(n + m + 2);
    int r;

    if (!text)
        return boot_fail(b, "out of memory");
    memcpy(text, b->kernel_name, n);
    text[n] = ' ';
    memcpy(text + n + 1, args, m + 1);
    if (!m)
        text[n] = 0;
    r = boot_place_string(b, "the command line", text, at);
    free(text);
    return r;
}

static void fill_mmap(u8 *mmap, const struct e820_map *map)
{
    for (unsigned i = 0; i < map->n; i++) {
        u8 *e = mmap + i * MMAP_ENTRY_SIZE;

        put_le32(e, MMAP_ENTRY_SIZE - 4); /* size of the entry, itself not counted */
        put_le64(e + 4, map->entry[i].addr);
        put_le64(e + 12, map->entry[i].size);
        put_le32(e + 20, map->entry[i].type);
    }
}

int multiboot_load(struct boot *b, const struct multiboot_image *m, const u8 *buf)
{
    u8 info[INFO_SIZE] = {0};
    u8 mmap[ARRAY_SIZE(b->map->entry) * MMAP_ENTRY_SIZE] = {0};
    u8 modules[MODULES_MAX * MODULE_SIZE] = {0};
    u64 at, mmap_at, modules_at, cmdline, loader;
    u32 flags =
        INFO_HAS_MEMORY | INFO_HAS_CMDLINE | INFO_HAS_MODS | INFO_HAS_MMAP | INFO_HAS_LOADER_NAME;
    int n_modules = 0;
    int r = elf_place(b, &m->image, buf);

    if (!r && b->extra_initrd)
        r = boot_fail(b, "%s is a Multiboot image: a command can only be run in Linux",
                      b->kernel_name);
    if (!r)
        r = boot_place_low(b, "the Multiboot information", sizeof(info), 16, &at);
    if (!r)
        r = boot_place_low(b, "the memory map", sizeof(mmap), 16, &mmap_at);
    if (!r)
        r = boot_place_low(b, "the module list", sizeof(modules), 16, &modules_at);
    if (!r)
        r = place_cmdline(b, &cmdline);
    if (!r)
        r = boot_place_string(b, "the loader's name", "trivisor", &loader);
    if (!r)
        r = boot_enter_flat32(b, 0x08, 0x10, m->image.entry);
    if (!r && b->initrd) {
        n_modules = load_modules(b, modules);
        r = n_modules < 0 ? n_modules : boot_write(b, modules_at, modules, sizeof(modules));
    }
    if (r)
        return r;

    fill_mmap(mmap, b->map);
    put_le32(info + INFO_FLAGS, flags);
    put_le32(info + INFO_MEM_LOWER, LAYOUT_EBDA >> 10);
    put_le32(info + INFO_MEM_UPPER, (u32)((e820_low_ram(b->ram) - LAYOUT_1M) >> 10));
    put_le32(info + INFO_CMDLINE, (u32)cmdline);
    put_le32(info + INFO_MODS_COUNT, (u32)n_modules);
    put_le32(info + INFO_MODS_ADDR, (u32)modules_at);
    put_le32(info + INFO_MMAP_LENGTH, b->map->n * MMAP_ENTRY_SIZE);
    put_le32(info + INFO_MMAP_ADDR, (u32)mmap_at);
    put_le32(info + INFO_LOADER_NAME, (u32)loader);
    b->s->gpr[X86_RAX] = BOOT_MAGIC;
    b->s->gpr[X86_RBX] = at;
    r = boot_write(b, mmap_at, mmap, sizeof(mmap));
    return r ? r : boot_write(b, at, info, sizeof(info));
}
