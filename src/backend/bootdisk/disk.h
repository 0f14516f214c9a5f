/* SPDX-License-Identifier: Apache-2.0 */
/* The disk as the rest of this folder sees it: bounded reads, partitions, little-endian fields. */
#ifndef TRIVISOR_BACKEND_BOOTDISK_DISK_H
#define TRIVISOR_BACKEND_BOOTDISK_DISK_H

#include "backend/bootdisk/bootdisk.h"

#define DISK_SECTOR 512

struct disk {
    struct bootdisk_source src;
    u64 budget; /* bytes that may still be read: damaged metadata can make a walk endless */
    bool spent; /* it was used up */
};

/* off and len: multiples of 512. 0; -EIO: behind the end; -EFBIG: the budget is used up; or the
 * source's -errno. */
int disk_read(struct disk *d, void *buf, size_t len, u64 off);

#define DISK_PARTS_MAX 128

struct disk_part {
    unsigned number; /* as Linux counts; 0: the whole disk, there is no partition table */
    u64 start, size; /* bytes, within the disk */
    char uuid[37];   /* as in root=PARTUUID=; empty: none */
};

/* Reads the partition table. The number of partitions (at least 1: a disk without a table is one),
 * or -errno of a failed read. */
int disk_partitions(struct disk *d, struct disk_part *part, unsigned max);

/* What is in a partition: "ext4" (also for ext2 and ext3), another name for people, or NULL. */
const char *disk_identify(struct disk *d, const struct disk_part *p);

static inline u16 disk_le16(const u8 *p)
{
    return (u16)(p[0] | p[1] << 8);
}

static inline u32 disk_le32(const u8 *p)
{
    return disk_le16(p) | (u32)disk_le16(p + 2) << 16;
}

static inline u64 disk_le64(const u8 *p)
{
    return disk_le32(p) | (u64)disk_le32(p + 4) << 32;
}

#endif
