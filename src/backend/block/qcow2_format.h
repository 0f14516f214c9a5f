/* SPDX-License-Identifier: Apache-2.0 */
/* What is in a qcow2 file (QEMU's docs/interop/qcow2: the section names below are its). Everything
 * is big-endian. */
#ifndef TRIVISOR_BACKEND_BLOCK_QCOW2_FORMAT_H
#define TRIVISOR_BACKEND_BLOCK_QCOW2_FORMAT_H

#include "base/bits.h"

/* "Header": offsets of the fields */
#define QH_MAGIC 0
#define QH_VERSION 4
#define QH_BACKING_OFFSET 8
#define QH_BACKING_SIZE 16
#define QH_CLUSTER_BITS 20
#define QH_SIZE 24
#define QH_CRYPT 32
#define QH_L1_SIZE 36
#define QH_L1_OFFSET 40
#define QH_REFTABLE_OFFSET 48
#define QH_REFTABLE_CLUSTERS 56
#define QH_NSNAPSHOTS 60
#define QH_SNAPSHOTS_OFFSET 64
#define QH_V2_LENGTH 72
#define QH_INCOMPATIBLE 72
#define QH_COMPATIBLE 80
#define QH_AUTOCLEAR 88
#define QH_REFCOUNT_ORDER 96
#define QH_HEADER_LENGTH 100
#define QH_V3_LENGTH 104
#define QH_COMPRESSION 104

#define QCOW2_MAGIC 0x514649fbu
#define QI_DIRTY BIT64(0)
#define QI_CORRUPT BIT64(1)
#define QI_DATA_FILE BIT64(2)
#define QI_COMPRESSION BIT64(3)
#define QI_EXTENDED_L2 BIT64(4)
#define QI_KNOWN MASK64(4, 0)

/* "Header extensions" */
#define QX_END 0u
#define QX_BACKING_FORMAT 0xe2792acau

/* Limits: the format's for cluster sizes and names, QEMU's for tables. */
#define QCOW2_CLUSTER_BITS_MIN 9
#define QCOW2_CLUSTER_BITS_MAX 21
#define QCOW2_BACKING_NAME_MAX 1023
#define QCOW2_L1_BYTES_MAX (32u << 20)
#define QCOW2_REFTABLE_BYTES_MAX (8u << 20)
#define QCOW2_SNAPSHOTS_MAX 65536u
#define QCOW2_SNAPSHOT_EXTRA_MAX 1024u

/* "Cluster mapping" */
#define QE_OFFSET MASK64(55, 9)
#define QE_COPIED BIT64(63)
#define QL1_RESERVED (MASK64(62, 56) | MASK64(8, 0))
#define QL2_COMPRESSED BIT64(62)
#define QL2_RESERVED (MASK64(61, 56) | MASK64(8, 1))
#define QL2_ZERO BIT64(0)

/* "Host cluster management" */
#define QR_OFFSET MASK64(63, 9)

/* "Snapshot table entry" */
#define QS_L1_OFFSET 0
#define QS_L1_SIZE 8
#define QS_ID_SIZE 12
#define QS_NAME_SIZE 14
#define QS_EXTRA_SIZE 36
#define QS_FIXED_LENGTH 40

static inline u16 be16_at(const u8 *p)
{
    return (u16)(p[0] << 8 | p[1]);
}

static inline u32 be32_at(const u8 *p)
{
    u32 v;

    __builtin_memcpy(&v, p, sizeof(v));
    return __builtin_bswap32(v);
}

static inline u64 be64_at(const u8 *p)
{
    u64 v;

    __builtin_memcpy(&v, p, sizeof(v));
    return __builtin_bswap64(v);
}

static inline void put_be16(u8 *p, u16 v)
{
    p[0] = (u8)(v >> 8);
    p[1] = (u8)v;
}

static inline void put_be32(u8 *p, u32 v)
{
    v = __builtin_bswap32(v);
    __builtin_memcpy(p, &v, sizeof(v));
}

static inline void put_be64(u8 *p, u64 v)
{
    v = __builtin_bswap64(v);
    __builtin_memcpy(p, &v, sizeof(v));
}

#endif
