/* SPDX-License-Identifier: Apache-2.0 */
/* Multiboot 1 images (Multiboot Specification version 0.6.96). */
#ifndef TRIVISOR_BOARD_LOAD_MULTIBOOT_H
#define TRIVISOR_BOARD_LOAD_MULTIBOOT_H

#include "board/load_elf.h"

struct multiboot_image {
    u32 flags;
    struct elf_image image; /* an ELF image's segments, or one made of the header's addresses */
};

/* Looks for a Multiboot header in buf[0..n) and parses the image. 0; -ENOEXEC: no header; -EINVAL:
 * a broken image or one that needs what there is not, *why says what. */
int multiboot_parse(const u8 *buf, u64 n, struct multiboot_image *out, const char **why);

/* Loads a parsed image, with the modules b->initrd lists. 0, or -EINVAL with one line in b->err. */
int multiboot_load(struct boot *b, const struct multiboot_image *m, const u8 *buf);

/*
 * Cuts the next module off a list "FILE ARGS,FILE2 ARGS" (",," is a comma): its text, unescaped,
 * goes to module (size bytes with the NUL); *file_len: how much of it is the file name. Returns
 * what follows, NULL at the end; *ok is false when it does not fit or names no file.
 */
const char *multiboot_next_module(const char *list, char *module, size_t size, size_t *file_len,
                                  bool *ok);

#endif
