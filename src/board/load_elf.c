/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "board/layout.h"
#include "board/load_elf.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18

static int broken(const char **why, const char *text)
{
    *why = text;
    return -EINVAL;
}

/* The fields both classes have, widened. */
struct phdr {
    u32 type, flags;
    u64 offset, vaddr, paddr, filesz, memsz, align;
};

static void read_phdr(const u8 *p, bool is64, struct phdr *h)
{
    if (is64) {
        Elf64_Phdr e;

        memcpy(&e, p, sizeof(e));
        *h = (struct phdr){e.p_type,  e.p_flags,  e.p_offset, e.p_vaddr,
                           e.p_paddr, e.p_filesz, e.p_memsz,  e.p_align};
    } else {
        Elf32_Phdr e;

        memcpy(&e, p, sizeof(e));
        *h = (struct phdr){e.p_type,  e.p_flags,  e.p_offset, e.p_vaddr,
                           e.p_paddr, e.p_filesz, e.p_memsz,  e.p_align};
    }
}

/* Looks for the PVH entry in the notes buf[0..n) (ELF gABI, "Note Section"). */
static void read_notes(const u8 *buf, u64 n, u64 align, struct elf_image *out)
{
    u64 at = 0;

    align = align == 8 ? 8 : 4;
    while (n - at >= 12) {
        u64 namesz = get_le32(buf + at), descsz = get_le32(buf + at + 4);
        u32 type = get_le32(buf + at + 8);
        u64 desc = align_up(at + 12 + namesz, align);
        u64 next = align_up(desc + descsz, align);

        if (desc > n || descsz > n - desc)
            return;
        if (type == XEN_ELFNOTE_PHYS32_ENTRY && namesz == 4 && !memcmp(buf + at + 12, "Xen", 4) &&
            descsz >= 4) {
            out->has_pvh = true;
            out->pvh_entry = get_le32(buf + desc);
            return;
        }
        if (next > n)
            return;
        at = next;
    }
}

static bool in_segment(const struct elf_image *e, u64 addr)
{
    for (unsigned i = 0; i < e->n; i++)
        if (addr >= e->segment[i].paddr && addr - e->segment[i].paddr < e->segment[i].memsz)
            return true;
    return false;
}

static int add_segment(const struct phdr *h, u64 n, struct elf_image *out, const char **why)
{
    struct elf_segment *s = &out->segment[out->n];

    if (h->offset > n || h->filesz > n - h->offset)
        return broken(why, "it is truncated: a segment lies beyond the end of the file");
    if (h->filesz > h->memsz)
        return broken(why, "a segment is larger in the file than in memory");
    if (!h->memsz)
        return 0;
    if (h->paddr >= LAYOUT_HIGH_RAM || h->memsz > LAYOUT_HIGH_RAM - h->paddr)
        return broken(why, "a segment is not below 4 GiB");
    for (unsigned i = 0; i < out->n; i++)
        if (h->paddr < out->segment[i].paddr + out->segment[i].memsz &&
            out->segment[i].paddr < h->paddr + h->memsz)
            return broken(why, "two segments overlap");
    if (out->n == ELF_SEGMENTS_MAX)
        return broken(why, "it has more than 64 segments");
    *s = (struct elf_segment){h->offset, h->filesz, h->paddr, h->memsz};
    out->n++;
    return 0;
}

int elf_parse(const u8 *buf, u64 n, struct elf_image *out, const char **why)
{
    u64 phoff, phentsize, phnum, entry;
    u16 machine, type;

    if (n < EI_NIDENT || memcmp(buf, ELFMAG, SELFMAG))
        return -ENOEXEC;
    memset(out, 0, sizeof(*out));
    out->is64 = buf[EI_CLASS] == ELFCLASS64;
    if ((!out->is64 && buf[EI_CLASS] != ELFCLASS32) || buf[EI_DATA] != ELFDATA2LSB)
        return broken(why, "it is no little-endian 32-bit or 64-bit ELF image");
    if (n < (out->is64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
        return broken(why, "it is truncated in the ELF header");
    if (out->is64) {
        Elf64_Ehdr e;

        memcpy(&e, buf, sizeof(e));
        machine = e.e_machine;
        type = e.e_type;
        entry = e.e_entry;
        phoff = e.e_phoff;
        phentsize = e.e_phentsize;
        phnum = e.e_phnum;
    } else {
        Elf32_Ehdr e;

        memcpy(&e, buf, sizeof(e));
        machine = e.e_machine;
        type = e.e_type;
        entry = e.e_entry;
        phoff = e.e_phoff;
        phentsize = e.e_phentsize;
        phnum = e.e_phnum;
    }
    if (machine != EM_386 && machine != EM_X86_64)
        return broken(why, "it is not for x86");
    if (type != ET_EXEC)
        return broken(why, "it is no executable image (ET_EXEC)");
    if (!phnum || phentsize != (out->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
        return broken(why, "it has no program headers");
    if (phoff > n || phnum * phentsize > n - phoff)
        return broken(why, "it is truncated in the program headers");

    out->entry = entry;
    for (u64 i = 0; i < phnum; i++) {
        struct phdr h;
        int r;

        read_phdr(buf + phoff + i * phentsize, out->is64, &h);
        if (h.type == PT_LOAD) {
            r = add_segment(&h, n, out, why);
            if (r)
                return r;
            /* The entry is a virtual address; with paging off only the physical one counts. */
            if (entry >= h.vaddr && entry - h.vaddr < h.memsz)
                out->entry = h.paddr + (entry - h.vaddr);
        } else if (h.type == PT_NOTE && !out->has_pvh) {
            if (h.offset > n || h.filesz > n - h.offset)
                return broken(why, "it is truncated: its notes lie beyond the end of the file");
            read_notes(buf + h.offset, h.filesz, h.align, out);
        }
    }
    if (!out->n)
        return broken(why, "it has nothing to load");
    if (out->has_pvh && !in_segment(out, out->pvh_entry))
        return broken(why, "its PVH entry is in no segment");
    return 0;
}

int elf_place(struct boot *b, const struct elf_image *e, const u8 *buf)
{
    for (unsigned i = 0; i < e->n; i++) {
        const struct elf_segment *s = &e->segment[i];
        int r = boot_take(b, "a segment", s->paddr, s->memsz);

        /* Memory is zeroed and segments do not overlap: the rest of memsz is zero already. */
        if (!r)
            r = boot_write(b, s->paddr, buf + s->offset, s->filesz);
        if (r)
            return r;
    }
    return 0;
}

/* struct hvm_start_info, version 1, and what it points to (xen/include/public/arch-x86/hvm/
 * start_info.h). */
#define START_MAGIC 0x336ec578u
#define START_SIZE 56
#define MODULE_SIZE 32
#define MEMMAP_ENTRY_SIZE 24

int pvh_load(struct boot *b, const struct elf_image *e, const u8 *buf)
{
    const u64 memmap_size = b->map->n * MEMMAP_ENTRY_SIZE;
    u8 info[START_SIZE + MODULE_SIZE + ARRAY_SIZE(b->map->entry) * MEMMAP_ENTRY_SIZE] = {0};
    u64 at, cmdline = 0, initrd = 0, initrd_size = 0;
    int r = elf_place(b, e, buf);

    if (!r)
        r = boot_place_low(b, "the start information", sizeof(info), 16, &at);
    if (!r && b->cmdline)
        r = boot_place_string(b, "the command line", b->cmdline, &cmdline);
    if (!r)
        r = boot_enter_flat32(b, 0x08, 0x10, e->pvh_entry);
    if (!r && b->initrd)
        r = boot_place_initrd(b, b->initrd, LAYOUT_HIGH_RAM, &initrd, &initrd_size);
    if (r)
        return r;

    put_le32(info, START_MAGIC);
    put_le32(info + 4, 1); /* version */
    put_le32(info + 12, b->initrd ? 1 : 0);
    put_le64(info + 16, b->initrd ? at + START_SIZE : 0);
    put_le64(info + 24, cmdline);
    put_le64(info + 32, b->rsdp);
    put_le64(info + 40, at + START_SIZE + MODULE_SIZE);
    put_le32(info + 48, (u32)(memmap_size / MEMMAP_ENTRY_SIZE));
    put_le64(info + START_SIZE, initrd);
    put_le64(info + START_SIZE + 8, initrd_size);
    for (unsigned i = 0; i < b->map->n; i++) {
        u8 *m = info + START_SIZE + MODULE_SIZE + i * MEMMAP_ENTRY_SIZE;

        put_le64(m, b->map->entry[i].addr);
        put_le64(m + 8, b->map->entry[i].size);
        put_le32(m + 16, b->map->entry[i].type);
    }
    b->s->gpr[X86_RBX] = at;
    return boot_write(b, at, info, sizeof(info));
}
