/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel without -k: the one that is installed on the first disk. */
#ifndef TRIVISOR_BOARD_DISKBOOT_H
#define TRIVISOR_BOARD_DISKBOOT_H

#include "base/types.h"

struct diskboot {
    int kernel, initrd; /* memory files; 0: there is none */
    char *name;         /* of the kernel, for messages */
    char *cmdline;
};

/*
 * Reads kernel and initrd (at most max bytes each) from the file system on disk (a --disk option's
 * text) and makes the command line: what the disk's boot loader would pass, a console where append
 * names none, append. The image is parsed by a process of its own that, with confine, can do
 * nothing but read the disk and write the two files. Call it before there are other threads. 0, or
 * -errno with one line in err.
 */
int diskboot_read(struct diskboot *d, const char *disk, const char *append, u64 max, bool confine,
                  char *err, size_t err_size);
/* Hands one of the files over: it is the caller's then. 0: there is none. */
int diskboot_take(int *fd);
void diskboot_close(struct diskboot *d);

#endif
