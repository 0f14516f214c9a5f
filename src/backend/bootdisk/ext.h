/* SPDX-License-Identifier: Apache-2.0 */
/* Files of an ext2, ext3 or ext4 file system in a partition, read through libext2fs. */
#ifndef TRIVISOR_BACKEND_BOOTDISK_EXT_H
#define TRIVISOR_BACKEND_BOOTDISK_EXT_H

#include "backend/bootdisk/disk.h"

struct ext;

/* Loads libext2fs, once. 0, or -ENOENT with why. ext_open does it too, but a confined process
 * cannot. */
int ext_prepare(char *why, size_t why_size);
/* Opens the file system of a partition; disk and partition must outlive it. NULL with what is
 * wrong in why. */
struct ext *ext_open(struct disk *d, const struct disk_part *p, char *why, size_t why_size);
void ext_close(struct ext *e);

/* As in root=UUID=. */
void ext_uuid(const struct ext *e, char text[37]);

/* path is absolute; symbolic links are followed as if the file system were mounted at /. */
bool ext_exists(struct ext *e, const char *path);
/* Copies a regular file. 0; -ENOENT: there is none; -EFBIG: larger than sink->limit; -EIO: it
 * cannot be read, or the sink's -errno. The last two with what is wrong in why. */
int ext_copy(struct ext *e, const char *path, const struct bootdisk_sink *sink, char *why,
             size_t why_size);
/* The whole of a text file, at most max bytes, with a NUL behind it; to be freed. NULL: it cannot
 * be had. */
char *ext_text(struct ext *e, const char *path, size_t max);
/* Calls fn with each name in a directory; nothing when it is none. */
void ext_list(struct ext *e, const char *path, void (*fn)(void *opaque, const char *name),
              void *opaque);

#endif
