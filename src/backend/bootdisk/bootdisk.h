/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Booting from a disk without firmware: finds what a boot loader installed on it would start, and
 * reads it out of the guest's file system. GPT and MBR partitions, ext2, ext3 and ext4.
 *
 * A disk's contents are the guest's: whatever they are, the answer is a kernel or a refusal in one
 * line, with bounded reading. libext2fs is part of that promise only as far as it is good; so the
 * caller runs this in a confined process (src/board/diskboot.c).
 */
#ifndef TRIVISOR_BACKEND_BOOTDISK_BOOTDISK_H
#define TRIVISOR_BACKEND_BOOTDISK_BOOTDISK_H

#include "base/types.h"

#define BOOTDISK_PATH_MAX 256
#define BOOTDISK_ARGS_MAX 2048

/* The disk. off and len are multiples of 512 within size. 0 or -errno. */
struct bootdisk_source {
    int (*read)(void *opaque, void *buf, size_t len, u64 off);
    void *opaque;
    u64 size;
};

/* Where a file goes, piece by piece. 0 or -errno. */
struct bootdisk_sink {
    int (*write)(void *opaque, const void *buf, size_t len);
    void *opaque;
    u64 limit; /* a larger file is refused */
};

struct bootdisk_request {
    struct bootdisk_source disk;
    struct bootdisk_sink kernel, initrd;
    bool root_known; /* the caller knows the root file system: none is looked for */
};

struct bootdisk_answer {
    char kernel[BOOTDISK_PATH_MAX]; /* for messages: which file it was */
    bool has_initrd;
    /* What the installed boot loader would give the kernel, root= at least (but for root_known). */
    char args[BOOTDISK_ARGS_MAX];
};

/* Loads the library that bootdisk_read needs; for those who are confined before that. 0, or -ENOENT
 * with why. */
int bootdisk_prepare(char *why, size_t why_size);

/*
 * Looks in each partition (or in the disk itself) for, in this order: Boot Loader Specification
 * entries (the highest version), the first entry of GRUB's configuration, /vmlinuz and /initrd.img,
 * the highest /boot/vmlinuz-VERSION. The first partition that has one wins. 0, or -errno with
 * one line in err.
 */
int bootdisk_read(const struct bootdisk_request *rq, struct bootdisk_answer *out, char *err,
                  size_t err_size);

#endif
