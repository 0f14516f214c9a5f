/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "images.h"

void machine_init(struct test_machine *t, u64 ram)
{
    memset(t, 0, sizeof(*t));
    t->ram = calloc(1, ram);
    guest_mem_add(&t->mem, gpa(0), 0xa0000, t->ram, false);
    guest_mem_add(&t->mem, gpa(0xe0000), ram - 0xe0000, t->ram + 0xe0000, false);
    e820_build(&t->map, ram);
    x86_state_reset(&t->s, 0, 0);
    t->b = (struct boot){.mem = &t->mem,
                         .ram = ram,
                         .map = &t->map,
                         .rsdp = 0xe0000,
                         .cmdline = "console=ttyS0",
                         .kernel_name = "kernel",
                         .s = &t->s,
                         .err = t->err,
                         .err_size = sizeof(t->err)};
}

void machine_free(struct test_machine *t)
{
    free(t->ram);
}

u8 *machine_at(struct test_machine *t, u64 addr)
{
    return t->ram + addr;
}

u64 make_bzimage(u8 *buf)
{
    const u64 setup = 2 * 512, payload = 4096;

    memset(buf, 0, setup + payload);
    buf[0x1f1] = 1; /* setup sectors */
    put_le32(buf + 0x1f4, (u32)(payload / 16));
    put_le16(buf + 0x1fe, 0xaa55);
    buf[0x200] = 0xeb;
    buf[0x201] = 0x6a; /* header ends at 26cH */
    memcpy(buf + 0x202, "HdrS", 4);
    put_le16(buf + 0x206, 0x020f);
    buf[0x211] = 1; /* loaded high */
    put_le32(buf + 0x22c, 0x7fffffff);
    put_le32(buf + 0x230, 0x200000);
    buf[0x234] = 1;
    put_le16(buf + 0x236, 1); /* 64-bit entry */
    put_le32(buf + 0x238, 255);
    put_le64(buf + 0x258, 0x1000000);
    put_le32(buf + 0x260, 0x100000);
    memset(buf + setup, 0x90, payload);
    return setup + payload;
}

static void phdr64(u8 *p, u32 type, u64 offset, u64 vaddr, u64 paddr, u64 filesz, u64 memsz)
{
    Elf64_Phdr h = {.p_type = type,
                    .p_flags = PF_R | PF_X,
                    .p_offset = offset,
                    .p_vaddr = vaddr,
                    .p_paddr = paddr,
                    .p_filesz = filesz,
                    .p_memsz = memsz,
                    .p_align = 4};

    memcpy(p, &h, sizeof(h));
}

static void phdr32(u8 *p, u32 type, u64 offset, u64 vaddr, u64 paddr, u64 filesz, u64 memsz)
{
    Elf32_Phdr h = {.p_type = type,
                    .p_flags = PF_R | PF_X,
                    .p_offset = (u32)offset,
                    .p_vaddr = (u32)vaddr,
                    .p_paddr = (u32)paddr,
                    .p_filesz = (u32)filesz,
                    .p_memsz = (u32)memsz,
                    .p_align = 4};

    memcpy(p, &h, sizeof(h));
}

u64 make_pvh_elf(u8 *buf, bool is64)
{
    static const unsigned char ident[] = {0x7f, 'E', 'L', 'F', 0, ELFDATA2LSB, 1};
    u64 phoff = is64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr);
    u64 phsize = is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
    void (*phdr)(u8 *, u32, u64, u64, u64, u64, u64) = is64 ? phdr64 : phdr32;

    memset(buf, 0, 8192);
    if (is64) {
        Elf64_Ehdr e = {.e_type = ET_EXEC,
                        .e_machine = EM_X86_64,
                        .e_entry = 0x200010,
                        .e_phoff = phoff,
                        .e_phentsize = sizeof(Elf64_Phdr),
                        .e_phnum = 3};

        memcpy(e.e_ident, ident, sizeof(ident));
        e.e_ident[EI_CLASS] = ELFCLASS64;
        memcpy(buf, &e, sizeof(e));
    } else {
        Elf32_Ehdr e = {.e_type = ET_EXEC,
                        .e_machine = EM_386,
                        .e_entry = 0x200010,
                        .e_phoff = (u32)phoff,
                        .e_phentsize = sizeof(Elf32_Phdr),
                        .e_phnum = 3};

        memcpy(e.e_ident, ident, sizeof(ident));
        e.e_ident[EI_CLASS] = ELFCLASS32;
        memcpy(buf, &e, sizeof(e));
    }
    phdr(buf + phoff, PT_LOAD, 4096, 0x200000, 0x200000, 2048, 8192);
    phdr(buf + phoff + phsize, PT_LOAD, 6144, 0x400000, 0x400000, 2048, 2048);
    phdr(buf + phoff + 2 * phsize, PT_NOTE, 6144, 0x400000, 0x400000, 40, 40);
    memset(buf + 4096, 0x90, 2048);
    /* A note of somebody else's first. */
    put_le32(buf + 6144, 4);
    put_le32(buf + 6148, 2);
    put_le32(buf + 6152, 1);
    memcpy(buf + 6156, "GNU", 4);
    put_le32(buf + 6164, 4);
    put_le32(buf + 6168, 4);
    put_le32(buf + 6172, 18);
    memcpy(buf + 6176, "Xen", 4);
    put_le32(buf + 6180, 0x200020);
    return 8192;
}

static void multiboot_header(u8 *p, u32 flags)
{
    put_le32(p, 0x1badb002);
    put_le32(p + 4, flags);
    put_le32(p + 8, 0u - 0x1badb002 - flags);
}

u64 make_multiboot_elf(u8 *buf)
{
    u64 n = make_pvh_elf(buf, false);

    multiboot_header(buf + 4096, 3);
    return n;
}

u64 make_multiboot_flat(u8 *buf)
{
    memset(buf, 0x90, 8192);
    multiboot_header(buf + 64, 3 | 1u << 16);
    put_le32(buf + 76, 0x300040); /* header */
    put_le32(buf + 80, 0x300000); /* load */
    put_le32(buf + 84, 0x301000); /* load end */
    put_le32(buf + 88, 0x304000); /* bss end */
    put_le32(buf + 92, 0x300100); /* entry */
    return 8192;
}
