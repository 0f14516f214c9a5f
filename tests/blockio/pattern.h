/* SPDX-License-Identifier: Apache-2.0 */
/* Sectors that tell which request wrote them. */
#ifndef TRIVISOR_TESTS_BLOCKIO_PATTERN_H
#define TRIVISOR_TESTS_BLOCKIO_PATTERN_H

#include <string.h>

#include "base/types.h"

#define SECTOR 512
#define SECTOR_WORDS (SECTOR / 8)
#define PATTERN_MAGIC 0x7472697669736f72ull
#define PATTERN_NONE (~(u64)0)

static inline u64 mix64(u64 v)
{
    v += 0x9e3779b97f4a7c15ull;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9ull;
    v = (v ^ v >> 27) * 0x94d049bb133111ebull;
    return v ^ v >> 31;
}

/* What request `tag` writes to a sector. */
static inline void pattern_fill(u64 *p, u64 sector, u64 tag)
{
    p[0] = PATTERN_MAGIC;
    p[1] = tag;
    p[2] = sector;
    for (unsigned i = 3; i < SECTOR_WORDS; i++)
        p[i] = mix64(tag << 32 ^ sector << 8 ^ i);
}

/* The request that wrote it; 0: zeroes; PATTERN_NONE: neither. */
static inline u64 pattern_tag(const u64 *p, u64 sector)
{
    u64 want[SECTOR_WORDS];

    if (p[0] == PATTERN_MAGIC) {
        pattern_fill(want, sector, p[1]);
        return memcmp(want, p, SECTOR) ? PATTERN_NONE : p[1];
    }
    for (unsigned i = 0; i < SECTOR_WORDS; i++)
        if (p[i])
            return PATTERN_NONE;
    return 0;
}

#endif
