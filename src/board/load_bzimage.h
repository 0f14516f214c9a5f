/* SPDX-License-Identifier: Apache-2.0 */
/* Linux bzImage by the boot protocol (Linux Documentation/x86/boot.rst). */
#ifndef TRIVISOR_BOARD_LOAD_BZIMAGE_H
#define TRIVISOR_BOARD_LOAD_BZIMAGE_H

#include "board/boot.h"

struct bzimage {
    u16 version;        /* of the boot protocol */
    u64 payload_offset; /* protected-mode code in the file */
    u64 payload_size;
    u64 header_end; /* the setup header is bytes 1F1H .. header_end of the file */
    bool relocatable;
    bool entry64; /* there is a 64-bit entry at payload + 200H */
    u64 pref_address;
    u64 alignment;
    u64 init_size; /* memory needed from the load address on, at least payload_size */
    u64 cmdline_max;
    u64 initrd_max; /* highest address the initrd may have */
};

/* Parses buf[0..n). 0; -ENOEXEC: not a bzImage; -EINVAL: a broken one, *why says how. */
int bzimage_parse(const u8 *buf, u64 n, struct bzimage *out, const char **why);

/* Loads a parsed image. 0, or -EINVAL with one line in b->err. */
int bzimage_load(struct boot *b, const struct bzimage *z, const u8 *buf);

#endif
