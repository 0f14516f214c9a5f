/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A saved machine, as a file (docs/snapshot.md). Little endian:
 *
 *   page 0      header: magic, version, where the rest is, and a hash of the page
 *   chunks      the chunks of guest memory that hold something, one after another
 *   sections    name, instance, length and bytes of each; their hash is in the header
 *
 * The header is written last: a file that was not finished is none.
 */
#ifndef TRIVISOR_SNAPSHOT_FORMAT_H
#define TRIVISOR_SNAPSHOT_FORMAT_H

#include "base/types.h"

/* With what a transfer as text would change, as PNG's (RFC 2083 12.11). */
#define SNAPSHOT_MAGIC "\x89trivisor-vm\r\n\x1a\n"
#define SNAPSHOT_MAGIC_SIZE 16
#define SNAPSHOT_VERSION 1
#define SNAPSHOT_HEADER_SIZE 4096

#define SNAPSHOT_ZSTD 1u /* flags: chunks are compressed, those that get smaller by it */

#define SNAPSHOT_NAME_MAX 32
#define SNAPSHOT_SECTIONS_MAX 512
#define SNAPSHOT_META_MAX (64u << 20)

/* Chunks are 64 KiB, or larger where there would be more of them: each is a mapping of its own at
 * worst, of which Linux allows a process 65530. */
#define SNAPSHOT_CHUNK_SHIFT 16
#define SNAPSHOT_CHUNKS_MAX 32768
#define SNAPSHOT_CHUNK_SHIFT_MAX 26

#define SNAPSHOT_RAM_MAX (1ull << 40)

static inline unsigned snapshot_chunk_shift(u64 ram)
{
    unsigned shift = SNAPSHOT_CHUNK_SHIFT;

    while (ram >> shift >= SNAPSHOT_CHUNKS_MAX)
        shift++;
    return shift;
}

/* The section of memory: for each chunk, in ascending order: index (u32), bytes in the file (u32),
 * XXH3 hash of what it holds (u64). */
#define SNAPSHOT_MEMORY "memory"
#define SNAPSHOT_MEMORY_ENTRY 16

#endif
