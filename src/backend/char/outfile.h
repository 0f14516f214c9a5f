/* SPDX-License-Identifier: Apache-2.0 */
/* Files that the output of a port replaces. */
#ifndef TRIVISOR_BACKEND_CHAR_OUTFILE_H
#define TRIVISOR_BACKEND_CHAR_OUTFILE_H

#include "base/types.h"

/*
 * Opens path for writing, non-blocking; for reading too if it is a regular file. Such a file is
 * made if it is not there, locked as a disk's image is (one that somebody uses is refused) and
 * emptied. regular: nothing else will do. dry: nothing is made, changed or left open. The
 * descriptor (dry: 0), or -errno with one line in err.
 */
int outfile_open(const char *path, bool regular, bool dry, char *err, size_t err_size);

#endif
