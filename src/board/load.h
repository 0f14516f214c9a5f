/* SPDX-License-Identifier: Apache-2.0 */
/* Boots whatever kind of kernel image a file is. */
#ifndef TRIVISOR_BOARD_LOAD_H
#define TRIVISOR_BOARD_LOAD_H

#include "board/boot.h"

/* Opens path, finds out its format, loads it and sets *b->s. 0, or -errno with one line in b->err.
 */
int load_kernel(struct boot *b, const char *path);

/* The same for a file that is open; takes fd over. name is for messages. */
int load_kernel_fd(struct boot *b, const char *name, int fd);

/* The same for an image in memory. */
int load_kernel_image(struct boot *b, const u8 *buf, u64 n);

#endif
