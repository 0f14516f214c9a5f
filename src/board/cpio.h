/* SPDX-License-Identifier: Apache-2.0 */
/* Building an initramfs archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
 */
#ifndef TRIVISOR_BOARD_CPIO_H
#define TRIVISOR_BOARD_CPIO_H

#include "base/types.h"

struct cpio {
    u8 *data;
    u64 size, room;
    u32 entries;
    bool failed; /* out of memory */
};

/* mode: file type and permissions, as in stat(2). data may be NULL when size is 0. */
void cpio_add(struct cpio *c, const char *name, u32 mode, const void *data, u64 size);
/* The end of the archive; 0 or -ENOMEM if anything failed. */
int cpio_finish(struct cpio *c);
void cpio_free(struct cpio *c);

#endif
