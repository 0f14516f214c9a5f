/* SPDX-License-Identifier: Apache-2.0 */
/* Small qcow2 images made by hand, for tests of damaged ones and as what a fuzzer starts from. */
#ifndef TRIVISOR_TESTS_UNIT_BACKEND_QCOW2_IMAGE_H
#define TRIVISOR_TESTS_UNIT_BACKEND_QCOW2_IMAGE_H

#include "base/types.h"

#define QCOW2_IMAGE_MAX 131072

struct qcow2_shape {
    unsigned version, cluster_bits, refcount_order;
    bool extended_l2, zstd, snapshot;
    bool dirty;          /* marked in use; all refcounts are 0 */
    const char *backing; /* or NULL */
};

/*
 * Fills image (QCOW2_IMAGE_MAX bytes) with a disk of one L2 table; its size in bytes. Clusters of
 * the file: 0 header, 1 refcount table, 2 refcount block, 3 L1 table, 4 L2 table, 5 data of guest
 * cluster 0, 6 data of guest cluster 3 (compressed); a snapshot's table and L1 table are 7 and 8.
 * Guest cluster 1 is a zero cluster (version 3), the others are unallocated.
 */
size_t make_qcow2(u8 *image, const struct qcow2_shape *s);

#endif
