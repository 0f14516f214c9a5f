/* SPDX-License-Identifier: Apache-2.0 */
/* Partition tables (UEFI specification 2.10 chapter 5; the MBR as section 5.2 describes it) and the
 * marks by which file systems are told. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/bootdisk/disk.h"

#define MBR_SIGNATURE 440
#define MBR_ENTRIES 446
#define MBR_ENTRY_SIZE 16
#define MBR_MARK 510
#define MBR_TYPE_PROTECTIVE 0xee
/* Logical partitions: a chain, which a mischievous table closes to a ring. */
#define MBR_LOGICAL_MAX 60

#define GPT_HEADER_SIZE 92
#define GPT_ENTRY_MIN 128
#define GPT_ENTRY_MAX 4096
#define GPT_TABLE_MAX (1u << 20)

int disk_read(struct disk *d, void *buf, size_t len, u64 off)
{
    if (off > d->src.size || len > d->src.size - off)
        return -EIO;
    if (len > d->budget) {
        d->spent = true;
        return -EFBIG;
    }
    d->budget -= len;
    return d->src.read(d->src.opaque, buf, len, off);
}

/* CRC-32 as in IEEE 802.3, which the GPT is protected by. */
static u32 crc32_of(const u8 *p, size_t n)
{
    u32 crc = 0xffffffff;

    while (n--) {
        crc ^= *p++;
        for (unsigned i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void format_guid(const u8 *g, char text[37])
{
    snprintf(text, 37, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", disk_le32(g),
             disk_le16(g + 4), disk_le16(g + 6), g[8], g[9], g[10], g[11], g[12], g[13], g[14],
             g[15]);
}

/* The partitions of the GPT whose header is at sector lba. Their number; -ENOENT: none there. */
static int read_gpt(struct disk *d, u64 lba, struct disk_part *part, unsigned max)
{
    static const u8 unused[16];
    u8 h[DISK_SECTOR], *table;
    u32 header, entries, size;
    unsigned n = 0;
    u64 at, sectors = d->src.size / DISK_SECTOR;
    int r = disk_read(d, h, sizeof(h), lba * DISK_SECTOR);

    if (r)
        return r;
    header = disk_le32(h + 12);
    if (memcmp(h, "EFI PART", 8) != 0 || header < GPT_HEADER_SIZE || header > sizeof(h))
        return -ENOENT;
    u32 crc = disk_le32(h + 16);
    memset(h + 16, 0, 4);
    at = disk_le64(h + 72);
    entries = disk_le32(h + 80);
    size = disk_le32(h + 84);
    if (crc32_of(h, header) != crc || size < GPT_ENTRY_MIN || size > GPT_ENTRY_MAX ||
        (size & (size - 1)) || !entries || entries > GPT_TABLE_MAX / size || at >= sectors)
        return -ENOENT;
    size_t bytes = ((size_t)entries * size + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;
    table = malloc(bytes);
    if (!table)
        return -ENOMEM;
    r = disk_read(d, table, bytes, at * DISK_SECTOR);
    if (!r && crc32_of(table, (size_t)entries * size) != disk_le32(h + 88))
        r = -ENOENT;
    for (u32 i = 0; !r && i < entries && n < max; i++) {
        const u8 *e = table + (size_t)i * size;
        u64 first = disk_le64(e + 32), last = disk_le64(e + 40);

        if (!memcmp(e, unused, 16) || first > last || last >= sectors)
            continue;
        part[n].number = i + 1;
        part[n].start = first * DISK_SECTOR;
        part[n].size = (last - first + 1) * DISK_SECTOR;
        format_guid(e + 16, part[n].uuid);
        n++;
    }
    free(table);
    return r ? r : (int)n;
}

static bool is_extended(u8 type)
{
    return type == 0x05 || type == 0x0f || type == 0x85;
}

/* Adds the partition of an MBR entry whose start counts from sector base. */
static unsigned add_mbr(const struct disk *d, const u8 *e, u64 base, unsigned number, u32 signature,
                        struct disk_part *part, unsigned n)
{
    u64 start = (base + disk_le32(e + 8)) * DISK_SECTOR;
    u64 size = (u64)disk_le32(e + 12) * DISK_SECTOR;

    if (!e[4] || is_extended(e[4]) || !size || start >= d->src.size || size > d->src.size - start)
        return n;
    part[n].number = number;
    part[n].start = start;
    part[n].size = size;
    part[n].uuid[0] = 0;
    if (signature)
        snprintf(part[n].uuid, sizeof(part[n].uuid), "%08x-%02x", signature, number);
    return n + 1;
}

static int read_mbr(struct disk *d, const u8 *mbr, struct disk_part *part, unsigned max)
{
    u32 signature = disk_le32(mbr + MBR_SIGNATURE);
    u64 extended = 0, next;
    unsigned n = 0;

    for (unsigned i = 0; i < 4 && n < max; i++) {
        const u8 *e = mbr + MBR_ENTRIES + i * MBR_ENTRY_SIZE;

        n = add_mbr(d, e, 0, i + 1, signature, part, n);
        if (is_extended(e[4]) && !extended)
            extended = disk_le32(e + 8);
    }
    /* Each link: an entry for the partition, counted from the link, and one for the next link,
     * counted from the first. */
    next = extended;
    for (unsigned i = 0; next && i < MBR_LOGICAL_MAX && n < max; i++) {
        u8 link[DISK_SECTOR];
        const u8 *e = link + MBR_ENTRIES;

        if (disk_read(d, link, sizeof(link), next * DISK_SECTOR) || link[MBR_MARK] != 0x55 ||
            link[MBR_MARK + 1] != 0xaa)
            break;
        n = add_mbr(d, e, next, 5 + i, signature, part, n);
        e += MBR_ENTRY_SIZE;
        next = is_extended(e[4]) ? extended + disk_le32(e + 8) : 0;
    }
    return (int)n;
}

int disk_partitions(struct disk *d, struct disk_part *part, unsigned max)
{
    struct disk_part whole = {.size = d->src.size / DISK_SECTOR * DISK_SECTOR};
    u8 mbr[DISK_SECTOR];
    bool protective = false;
    int n, r = disk_read(d, mbr, sizeof(mbr), 0);

    if (r)
        return r;
    if (mbr[MBR_MARK] == 0x55 && mbr[MBR_MARK + 1] == 0xaa) {
        for (unsigned i = 0; i < 4; i++)
            protective |= mbr[MBR_ENTRIES + i * MBR_ENTRY_SIZE + 4] == MBR_TYPE_PROTECTIVE;
        if (protective) {
            n = read_gpt(d, 1, part, max);
            if (n == -ENOENT && d->src.size >= 2 * DISK_SECTOR)
                n = read_gpt(d, d->src.size / DISK_SECTOR - 1, part, max);
            if (n != -ENOENT)
                return n;
        } else if (!disk_identify(d, &whole)) {
            /* The boot sector of a file system may end like an MBR: the file system is believed
             * first. */
            n = read_mbr(d, mbr, part, max);
            if (n)
                return n;
        }
    }
    part[0] = whole;
    return 1;
}

static const struct mark {
    const char *name;
    u64 offset;
    unsigned size;
    const char *bytes;
} marks[] = {
    {"ext4", 0x438, 2, "\x53\xef"},
    {"XFS", 0, 4, "XFSB"},
    {"btrfs", 0x10040, 8, "_BHRfS_M"},
    {"f2fs", 0x400, 4, "\x10\x20\xf5\xf2"},
    {"LVM", 0x218, 8, "LVM2 001"},
    {"an encrypted volume (LUKS)", 0, 6, "LUKS\xba\xbe"},
    {"a Linux RAID", 0x1000, 4, "\xfc\x4e\x2b\xa9"},
    {"squashfs", 0, 4, "hsqs"},
    {"ISO 9660", 0x8001, 5, "CD001"},
    {"NTFS", 3, 8, "NTFS    "},
    {"FAT", 0x36, 3, "FAT"},
    {"FAT", 0x52, 5, "FAT32"},
    {"swap space", 0xff6, 10, "SWAPSPACE2"},
};

const char *disk_identify(struct disk *d, const struct disk_part *p)
{
    for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
        const struct mark *m = &marks[i];
        u8 sector[DISK_SECTOR];
        u64 at = m->offset / DISK_SECTOR * DISK_SECTOR;

        /* No mark lies across two sectors. */
        if (at + DISK_SECTOR > p->size || disk_read(d, sector, sizeof(sector), p->start + at))
            continue;
        if (!memcmp(sector + (m->offset - at), m->bytes, m->size))
            return m->name;
    }
    return NULL;
}
