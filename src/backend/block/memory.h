/* SPDX-License-Identifier: Apache-2.0 */
/* A read-only disk in memory, and the one kind there is of it. */
#ifndef TRIVISOR_BACKEND_BLOCK_MEMORY_H
#define TRIVISOR_BACKEND_BLOCK_MEMORY_H

#include "core/backend.h"

/* A disk of size bytes (a multiple of 512) at data, which is from malloc and belongs to it from
 * then on, also when there is none: NULL, no memory. */
struct blockdev *block_memory_open(void *data, u64 size);

struct seed_file {
    const char *name;
    const char *data;
    size_t size;
};

/*
 * An ISO 9660 file system with Rock Ridge and Joliet names and the label "cidata": what
 * cloud-init's NoCloud source looks for. *data is from malloc. 0, or -errno with one line in err.
 */
int block_seed_build(const struct seed_file *files, unsigned n, void **data, u64 *size, char *err,
                     size_t err_size);

#endif
