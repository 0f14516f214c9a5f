/* SPDX-License-Identifier: Apache-2.0 */
/* ELF images: the segments, and the PVH entry of those that have one (Xen docs/misc/pvh.pandoc). */
#ifndef TRIVISOR_BOARD_LOAD_ELF_H
#define TRIVISOR_BOARD_LOAD_ELF_H

#include "board/boot.h"

#define ELF_SEGMENTS_MAX 64

struct elf_segment {
    u64 offset, filesz; /* in the file */
    u64 paddr, memsz;
};

struct elf_image {
    bool is64;
    u64 entry; /* physical address of the ELF header's entry point */
    bool has_pvh;
    u64 pvh_entry;
    struct elf_segment segment[ELF_SEGMENTS_MAX]; /* PT_LOAD with memory, below 4 GiB, disjoint */
    unsigned n;
};

/* Parses buf[0..n). 0; -ENOEXEC: not ELF; -EINVAL: broken or not for this machine, *why says how.
 */
int elf_parse(const u8 *buf, u64 n, struct elf_image *out, const char **why);

/* Copies the segments into guest memory. 0, or -EINVAL with one line in b->err. */
int elf_place(struct boot *b, const struct elf_image *e, const u8 *buf);

/* Loads a parsed image and starts it at its PVH entry. 0, or -EINVAL with one line in b->err. */
int pvh_load(struct boot *b, const struct elf_image *e, const u8 *buf);

#endif
