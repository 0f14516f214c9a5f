/* SPDX-License-Identifier: Apache-2.0 */
#include "qcow2_image.h"

#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "backend/block/qcow2_format.h"

static void put_refcount(u8 *block, unsigned order, unsigned i, u64 v)
{
    if (order < 3)
        block[i >> (3 - order)] |= (u8)(v << ((i & ((1u << (3 - order)) - 1)) << order));
    else
        for (unsigned k = 0; k < 1u << (order - 3); k++)
            block[(i << (order - 3)) + k] = (u8)(v >> (8 * ((1u << (order - 3)) - 1 - k)));
}

static size_t deflate_cluster(u8 *out, size_t room, const u8 *in, size_t n)
{
    z_stream z = {.next_in = (u8 *)(uintptr_t)in,
                  .avail_in = (unsigned)n,
                  .next_out = out,
                  .avail_out = (unsigned)room};

    if (deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        return 0;
    deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return z.total_out;
}

static void put_header(u8 *h, const struct qcow2_shape *s, u64 cluster)
{
    u64 entries = cluster / (s->extended_l2 ? 16 : 8);

    put_be32(h + QH_MAGIC, QCOW2_MAGIC);
    put_be32(h + QH_VERSION, s->version);
    put_be32(h + QH_CLUSTER_BITS, s->cluster_bits);
    put_be64(h + QH_SIZE, entries * cluster);
    put_be32(h + QH_L1_SIZE, 1);
    put_be64(h + QH_L1_OFFSET, 3 * cluster);
    put_be64(h + QH_REFTABLE_OFFSET, cluster);
    put_be32(h + QH_REFTABLE_CLUSTERS, 1);
    if (s->snapshot) {
        put_be32(h + QH_NSNAPSHOTS, 1);
        put_be64(h + QH_SNAPSHOTS_OFFSET, 7 * cluster);
    }
    if (s->version >= 3) {
        put_be64(h + QH_INCOMPATIBLE, (s->extended_l2 ? QI_EXTENDED_L2 : 0) |
                                          (s->zstd ? QI_COMPRESSION : 0) |
                                          (s->dirty ? QI_DIRTY : 0));
        put_be32(h + QH_REFCOUNT_ORDER, s->refcount_order);
        put_be32(h + QH_HEADER_LENGTH, 112);
        h[QH_COMPRESSION] = s->zstd;
    }
    if (s->backing) {
        size_t n = strlen(s->backing), at = s->version >= 3 ? 112 : QH_V2_LENGTH;

        put_be32(h + at, QX_BACKING_FORMAT);
        put_be32(h + at + 4, 3);
        memcpy(h + at + 8, "raw", 3);
        put_be64(h + QH_BACKING_OFFSET, 300);
        put_be32(h + QH_BACKING_SIZE, (u32)n);
        memcpy(h + 300, s->backing, n);
    }
}

size_t make_qcow2(u8 *image, const struct qcow2_shape *s)
{
    u64 cluster = BIT64(s->cluster_bits), copied = s->snapshot ? 0 : QE_COPIED;
    unsigned entry = s->extended_l2 ? 16 : 8, used = s->snapshot ? 9 : 7;
    u64 count = s->snapshot ? 2 : 1, sectors;
    u8 *l2 = image + 4 * cluster, *packed = image + 6 * cluster, plain[16384];
    size_t n;

    memset(image, 0, QCOW2_IMAGE_MAX);
    put_header(image, s, cluster);
    put_be64(image + cluster, 2 * cluster);
    for (unsigned i = 0; i < used && !s->dirty; i++)
        put_refcount(image + 2 * cluster, s->refcount_order, i, i >= 4 && i <= 6 ? count : 1);
    put_be64(image + 3 * cluster, 4 * cluster | copied);

    memset(image + 5 * cluster, 'A', cluster);
    put_be64(l2, 5 * cluster | copied);
    if (s->extended_l2) {
        put_be64(l2 + 8, 0x0000ff0000ff00ffull);
        put_be64(l2 + entry + 8, 0xffffffff00000000ull);
    } else if (s->version >= 3) {
        put_be64(l2 + entry, QL2_ZERO);
    }
    memset(plain, 'C', cluster);
    n = s->zstd ? ZSTD_compress(packed, cluster, plain, cluster, 3)
                : deflate_cluster(packed, cluster, plain, cluster);
    sectors = (n + 511) / 512;
    put_be64(l2 + 3 * entry,
             QL2_COMPRESSED | (sectors - 1) << (62 - (s->cluster_bits - 8)) | 6 * cluster);
    if (s->snapshot) {
        u8 *t = image + 7 * cluster;

        put_be64(t + QS_L1_OFFSET, 8 * cluster);
        put_be32(t + QS_L1_SIZE, 1);
        t[QS_ID_SIZE + 1] = 1;
        t[QS_NAME_SIZE + 1] = 1;
        put_be32(t + QS_EXTRA_SIZE, 16);
        put_be64(t + 48, be64_at(image + QH_SIZE));
        memcpy(t + 56, "1s", 2);
        put_be64(image + 8 * cluster, 4 * cluster);
    }
    return used * cluster;
}
