/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a saved machine: sections and memory in any order, then the end. */
#ifndef TRIVISOR_SNAPSHOT_WRITER_H
#define TRIVISOR_SNAPSHOT_WRITER_H

#include "core/host.h"

struct snapshot_writer;

/* To fd, a regular file open for writing, whose contents are lost; it stays the caller's. compress:
 * with zstd. 0 with *w, or -errno: -EINVAL is a file of another kind, or one that is not open for
 * that (O_APPEND). */
int snapshot_writer_open(struct snapshot_writer **w, int fd, bool compress);

/* A section. name: up to SNAPSHOT_NAME_MAX characters; the pair of name and instance is given once.
 * 0 or -errno. */
int snapshot_write_section(struct snapshot_writer *w, const char *name, u32 instance,
                           const void *data, size_t len);

/* The guest's memory, once: nobody writes to it meanwhile. wanted (NULL: it is) is asked now and
 * then, and ends it with -ECANCELED. */
int snapshot_write_memory(struct snapshot_writer *w, const struct host_ram *ram,
                          bool (*wanted)(void *opaque), void *opaque);

/* Completes the file; without this it is not valid. */
int snapshot_writer_finish(struct snapshot_writer *w);

/* Bytes of the file, and of memory that held something. */
u64 snapshot_writer_size(const struct snapshot_writer *w);
u64 snapshot_writer_memory(const struct snapshot_writer *w);

void snapshot_writer_free(struct snapshot_writer *w); /* NULL: nothing */

#endif
