/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks on files of the host's, those of QEMU (block/file-posix.c): a shared lock on byte 100 + p
 * says "I use permission p", one on byte 200 + p "nobody else may have p"; p is 0 for consistent
 * reads, 1 for writes, 3 for resizing. They are open-file-description locks, so they go with the
 * process.
 */
#ifndef TRIVISOR_BACKEND_BLOCK_LOCK_H
#define TRIVISOR_BACKEND_BLOCK_LOCK_H

#include "base/types.h"

/* Locks the file open at fd, which can be read from, against others who would write to it, and if
 * it is not for reading only, against all others. 0; -EBUSY: somebody else uses it; other -errno:
 * locks do not work there. */
int block_lock(int fd, bool readonly);

#endif
